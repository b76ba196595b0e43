-- The list of people: an index for each order and each way to search, and beside every member a row
-- that says when they were last seen, so that the list can be read in that order. What the indexes
-- include lets them be read alone: what an expression is made of, and how somebody stands.

alter table memberships add column email_canonical text not null default ''; -- the account's

create index memberships_name on memberships (tenant_id, lower(last_name), lower(first_name), user_id)
    include (last_name, first_name, kind, status) where status <> 'removed';
create index memberships_email on memberships (tenant_id, email_canonical, user_id)
    include (kind, status) where status <> 'removed';
create index memberships_created on memberships (tenant_id, created_at, user_id)
    include (kind, status) where status <> 'removed';
create index memberships_department on memberships (tenant_id, lower(department))
    include (department, kind, status, user_id) where status <> 'removed';
create index memberships_standing on memberships (tenant_id, kind, status, user_id)
    where status <> 'removed';
create index memberships_removed on memberships (tenant_id, user_id) where status = 'removed';
create index memberships_first_name_start
    on memberships (tenant_id, lower(first_name) text_pattern_ops)
    include (first_name, kind, status, user_id) where status <> 'removed';
create index memberships_last_name_start
    on memberships (tenant_id, lower(last_name) text_pattern_ops)
    include (last_name, kind, status, user_id) where status <> 'removed';
create index memberships_email_start on memberships (tenant_id, email_canonical text_pattern_ops)
    include (kind, status, user_id) where status <> 'removed';
create index activity_last_sign_in on activity (tenant_id, last_sign_in_at, user_id);
-- Equal moments take one entry here, and many never signed in.
create index activity_count on activity (tenant_id, last_sign_in_at);

create function be_seen() returns trigger language plpgsql as $$
begin
    insert into activity (tenant_id, user_id)
        select tenant_id, user_id from after where status <> 'removed'
        on conflict do nothing;
    return null;
end $$;

create trigger memberships_inserted_seen after insert on memberships
    referencing new table as after for each statement execute function be_seen();
create trigger memberships_updated_seen after update on memberships
    referencing new table as after for each statement execute function be_seen();
