-- What becomes of the data of people who left: kept for a while, then it can be erased.

alter table tenants
    add column retention_seconds bigint not null default 2592000 -- 30 days
        constraint tenants_retention_check check (retention_seconds > 0),
    add column purge_automatically boolean not null default false;

-- A purged membership keeps its ids, so that what counts sessions goes on from where it was.
alter table memberships
    add column purge_at timestamptz, -- from when the data may be erased; none: not before another change
    add column purged_at timestamptz;
create index memberships_purge_at on memberships (purge_at) where purge_at is not null;

-- Whose values they are, in one tenant and everywhere.
drop index event_values_data_subject;
create index event_values_data_subject on event_values (data_subject, tenant_id);

create index invitations_accepted_by on invitations (accepted_by) where accepted_by is not null;
create index invitations_email on invitations (tenant_id, email_canonical);
-- Whose account a mail is about.
alter table mails add column user_id uuid;
create index mails_user on mails (user_id) where user_id is not null;
create index mails_recipient on mails (tenant_id, lower(recipient));

grant delete on memberships, users, activity to rolecall_server;
