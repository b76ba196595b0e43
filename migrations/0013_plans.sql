-- Plans: how many people a tenant has seats for. Active members and open invitations take one each.

create table plans (
    key text primary key,
    display_names jsonb not null, -- language -> name
    seat_limit bigint constraint plans_seat_limit_check check (seat_limit > 0), -- none: as many as they like
    version bigint not null default 1,
    created_at timestamptz not null default statement_timestamp(),
    updated_at timestamptz not null default statement_timestamp()
);
insert into plans (key, display_names, seat_limit) values
    ('free', '{"en": "Free", "fr": "Gratuit"}', 3),
    ('premium', '{"en": "Premium", "fr": "Premium"}', null);

-- What a tenant was sold. Without a row it has the plan `free`.
create table tenant_plans (
    tenant_id uuid primary key constraint tenant_plans_tenant_fkey references tenants (id),
    plan text not null constraint tenant_plans_plan_fkey references plans (key),
    seat_limit bigint constraint tenant_plans_seat_limit_check check (seat_limit > 0) -- none: the plan's
);
create index tenant_plans_plan on tenant_plans (plan);

-- How many members there are, so that a change in a tenant of a million need not count them.
create table member_counts (
    tenant_id uuid not null,
    standing smallint not null,
    count bigint not null,
    constraint member_counts_pkey primary key (tenant_id, standing)
);

create function count_members() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into member_counts as c (tenant_id, standing, count)
            select tenant_id, standing, count(*) from after group by 1, 2
            on conflict (tenant_id, standing) do update set count = c.count + excluded.count;
    elsif tg_op = 'DELETE' then
        insert into member_counts as c (tenant_id, standing, count)
            select tenant_id, standing, -count(*) from before group by 1, 2
            on conflict (tenant_id, standing) do update set count = c.count + excluded.count;
    else
        insert into member_counts as c (tenant_id, standing, count)
            select tenant_id, standing, sum(n) from (
                select tenant_id, standing, 1 n from after
                union all select tenant_id, standing, -1 from before) changed
            group by 1, 2 having sum(n) <> 0
            on conflict (tenant_id, standing) do update set count = c.count + excluded.count;
    end if;
    return null;
end $$;

create trigger memberships_inserted after insert on memberships
    referencing new table as after for each statement execute function count_members();
create trigger memberships_updated after update on memberships
    referencing old table as before new table as after
    for each statement execute function count_members();
create trigger memberships_deleted after delete on memberships
    referencing old table as before for each statement execute function count_members();

create index invitations_open on invitations (tenant_id, expires_at) where status = 'pending';

grant select, insert, update on plans, tenant_plans, member_counts to rolecall_server;
