-- The list of people: an index for each order and each way to search, and beside every member a row
-- that says when they were last seen, so that the list can be read in that order. What the indexes
-- include lets them be read alone: what an expression is made of, and how somebody stands.

-- A name as it is sorted and searched: whatever the case and the accents of its letters.
create function folded(name text) returns text immutable strict parallel safe language sql as $$
    select replace(replace(replace(
        translate(lower(regexp_replace(normalize(name, NFKD), '[\u0300-\u036f]', '', 'g')),
                  'øłđħŧıς', 'oldhtiσ'),
        'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe')
$$;

-- The pattern of what starts so; what is nothing starts nobody.
create function starting(plain text) returns text immutable strict parallel safe language sql as $$
    select regexp_replace(nullif(plain, ''), '([\\%_])', '\\\1', 'g') || '%'
$$;

alter table invitations
    add column first_folded text not null generated always as (folded(first_name)) stored,
    add column last_folded text not null generated always as (folded(last_name)) stored;
alter table memberships
    add column email_canonical text not null default '', -- the account's
    add column first_folded text not null generated always as (folded(first_name)) stored,
    add column last_folded text not null generated always as (folded(last_name)) stored;

create index memberships_name on memberships (tenant_id, last_folded, first_folded, user_id)
    include (standing) where standing > 0;
create index memberships_email on memberships (tenant_id, email_canonical, user_id)
    include (standing) where standing > 0;
create index memberships_created on memberships (tenant_id, created_at, user_id)
    include (standing) where standing > 0;
create index memberships_department on memberships (tenant_id, lower(department), user_id)
    include (department, standing) where standing > 0;
create index memberships_standing on memberships (tenant_id, standing, user_id)
    where standing > 0;
create index memberships_first_name_start on memberships (tenant_id, first_folded text_pattern_ops)
    include (standing, user_id) where standing > 0;
create index memberships_last_name_start on memberships (tenant_id, last_folded text_pattern_ops)
    include (standing, user_id) where standing > 0;
create index memberships_email_start on memberships (tenant_id, email_canonical text_pattern_ops)
    include (standing, user_id) where standing > 0;
create index memberships_removed on memberships (tenant_id, user_id)
    where standing = 0 and purged_at is null;
create index activity_last_sign_in on activity (tenant_id, last_sign_in_at, user_id)
    include (standing) where standing > 0;
create index activity_standing on activity (tenant_id, standing, last_sign_in_at, user_id)
    where standing > 0;
-- Equal moments take one entry here, and many never signed in.
create index activity_count on activity (tenant_id, standing, last_sign_in_at)
    where standing > 0;

create function be_seen() returns trigger language plpgsql as $$
begin
    insert into activity (tenant_id, user_id, standing)
        select tenant_id, user_id, standing from after where standing > 0
        on conflict do nothing;
    return null;
end $$;

create trigger memberships_inserted_seen after insert on memberships
    referencing new table as after for each statement execute function be_seen();
create trigger memberships_updated_seen after update on memberships
    referencing new table as after for each statement execute function be_seen();

-- How many people hold a role, or any role in a workspace, themselves and without an end: so many may
-- that they are not counted when somebody asks.
create table holder_counts (
    tenant_id uuid not null,
    place_id uuid not null, -- the role or the workspace
    standing smallint not null,
    count bigint not null,
    constraint holder_counts_pkey primary key (tenant_id, place_id, standing)
);
create index role_assignments_role_ends on role_assignments (tenant_id, role_id)
    include (user_id, standing, ends_at) where ends_at is not null;
create index role_assignments_workspace_ends on role_assignments (tenant_id, workspace_id)
    include (user_id, standing, ends_at) where ends_at is not null and workspace_id is not null;

create function count_holders(gone role_assignments[], come role_assignments[]) returns void
language plpgsql as $$
begin
    insert into holder_counts as c (tenant_id, place_id, standing, count)
        select tenant_id, place_id, standing, sum((held > 0)::int - (held > more)::int)
        from (
            select x.*, (
                select count(*) from role_assignments h
                where h.tenant_id = x.tenant_id and h.role_id = x.place_id
                    and h.standing = x.standing and h.user_id = x.user_id and h.ends_at is null
            ) + (
                select count(*) from role_assignments h
                where h.tenant_id = x.tenant_id and h.workspace_id = x.place_id
                    and h.standing = x.standing and h.user_id = x.user_id and h.ends_at is null
            ) held
            from (
                select tenant_id, place_id, standing, user_id, sum(one) more
                from (select 1 one, * from unnest(come) union all select -1, * from unnest(gone)) y
                cross join lateral (values (role_id), (workspace_id)) p (place_id)
                where user_id is not null and place_id is not null and ends_at is null
                group by tenant_id, place_id, standing, user_id having sum(one) <> 0
            ) x
        ) z
        group by tenant_id, place_id, standing
        having sum((held > 0)::int - (held > more)::int) <> 0
        on conflict (tenant_id, place_id, standing) do update set count = c.count + excluded.count;
end $$;

create function holders_changed() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        perform count_holders('{}', array(select row(a.*)::role_assignments from after a));
    elsif tg_op = 'DELETE' then
        perform count_holders(array(select row(b.*)::role_assignments from before b), '{}');
    else
        perform count_holders(array(select row(b.*)::role_assignments from before b),
                              array(select row(a.*)::role_assignments from after a));
    end if;
    return null;
end $$;

create trigger role_assignments_inserted after insert on role_assignments
    referencing new table as after for each statement execute function holders_changed();
create trigger role_assignments_updated after update on role_assignments
    referencing old table as before new table as after
    for each statement execute function holders_changed();
create trigger role_assignments_deleted after delete on role_assignments
    referencing old table as before for each statement execute function holders_changed();

grant select, insert, update on holder_counts to rolecall_server;
