-- Tenants, their workspaces. Keys are what people type; they never change and are never given again,
-- so rows stay when what they name is gone.

create table tenants (
    id uuid primary key,
    key text not null constraint tenants_key_key unique,
    display_name text not null,
    status text not null constraint tenants_status_check
        check (status in ('pending', 'active', 'suspended', 'deleted', 'purged')),
    opened_at timestamptz,   -- when it first had an administrator
    status_before text,      -- of a deleted one, for when it is restored
    purge_at timestamptz,    -- from when a deleted one may be erased
    erased_at timestamptz,   -- when the last of a purged one was gone
    default_role_id uuid,
    invitation_lifetime_seconds bigint not null default 604800,
    language text not null default 'en' constraint tenants_language_check check (language in ('en', 'fr')),
    allowed_email_domains text[] not null default '{}',
    external_id text not null default '',
    metadata jsonb not null default '{}',
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

-- The installation: there for changes to lock and replicas to load, before anything else is.
insert into tenants (id, key, display_name, status, created_at, updated_at)
    values ('00000000-0000-0000-0000-000000000000', 'system', 'Installation', 'active',
            clock_timestamp(), clock_timestamp());

create index tenants_purge_at on tenants (purge_at) where status = 'deleted';
create index tenants_erasing on tenants (id) where status = 'purged' and erased_at is null;

create table workspaces (
    tenant_id uuid not null constraint workspaces_tenant_fkey references tenants (id),
    id uuid not null,
    key text not null,
    display_name text not null,
    external_id text not null default '',
    metadata jsonb not null default '{}',
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    constraint workspaces_pkey primary key (tenant_id, id),
    constraint workspaces_key_key unique (tenant_id, key)
);

grant select, insert, update on tenants, workspaces to rolecall_server;
