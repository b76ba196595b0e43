-- Sessions, for the list that people see: their tokens prove themselves. Opening one is not a revision;
-- ending one is an event, and the row then says when.

create table sessions (
    tenant_id uuid not null,
    id uuid not null,
    user_id uuid not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    member_epoch integer not null,
    account_epoch integer not null,
    source text not null default '',
    user_agent text not null default '',
    constraint sessions_pkey primary key (tenant_id, id),
    constraint sessions_membership_fkey foreign key (tenant_id, user_id) references memberships
);
create index sessions_user on sessions (user_id, created_at);

grant select, insert, update, delete on sessions to rolecall_server;
