-- Failed sign-ins and refused changes, apart from the chain. Bookkeeping: what is the same within a
-- minute is one row, a server writes a bounded number of them, and old ones are deleted.

create table security_log (
    tenant_id uuid not null,
    id uuid not null,
    minute timestamptz not null,
    kind text not null constraint security_log_kind_check check (kind in ('sign_in', 'change')),
    reason text not null,
    method text not null,
    user_id uuid,        -- whose account, or who acted; none where that is not the tenant's to know
    caller text not null,
    source text not null,
    count bigint not null,
    last_at timestamptz not null,
    constraint security_log_pkey primary key (tenant_id, id),
    constraint security_log_once_key unique nulls not distinct
        (tenant_id, minute, kind, reason, method, user_id, caller, source)
);
create index security_log_user on security_log (user_id, tenant_id) where user_id is not null;
create index security_log_last_at on security_log (last_at);

alter table sessions add column last_used_at timestamptz not null default statement_timestamp();
create index sessions_idle on sessions (tenant_id, last_used_at) where ended_at is null;

alter table tenants
    add column session_lifetime_seconds bigint not null default 2592000 -- 30 days
        constraint tenants_session_lifetime_check check (session_lifetime_seconds > 0),
    add column session_idle_seconds bigint not null default 2592000
        constraint tenants_session_idle_check check (session_idle_seconds > 0);

grant select, insert, update, delete on security_log to rolecall_server;
