-- Imports: plans that wait to be committed, and what became of them. Bookkeeping: no decision and no
-- audit reads it; the people of a plan are kept only as long as it waits.

create table imports (
    tenant_id uuid not null constraint imports_tenant_fkey references tenants (id),
    id uuid not null,
    actor text not null,
    on_behalf_of text not null default '',
    file_name text not null,
    encoding text not null,
    separator text not null,
    row_count integer not null,
    people integer not null,
    invited integer not null,
    changed integer not null,
    unchanged integer not null,
    rows_with_errors integer not null,
    status text not null constraint imports_status_check
        check (status in ('planned', 'faulty', 'committed', 'cancelled', 'expired')),
    plan text, -- json
    created_at timestamptz not null,
    expires_at timestamptz not null,
    committed_at timestamptz,
    constraint imports_pkey primary key (tenant_id, id),
    constraint imports_plan_check check ((plan is not null) = (status = 'planned'))
);
create index imports_planned on imports (expires_at) where status = 'planned';

grant select, insert, update on imports to rolecall_server;
