-- Service accounts and their keys. Only the SHA-256 of a key is kept: it has 256 random bits.

create table service_accounts (
    tenant_id uuid not null constraint service_accounts_tenant_fkey references tenants (id),
    id uuid not null,
    key text not null,
    display_name text not null,
    description text not null default '',
    status text not null constraint service_accounts_status_check check (status in ('active', 'removed')),
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint service_accounts_pkey primary key (tenant_id, id)
);
create unique index service_accounts_key_key on service_accounts (tenant_id, key) where status <> 'removed';

create table api_keys (
    tenant_id uuid not null,
    id uuid not null,
    service_account_id uuid not null,
    display_name text not null,
    hash bytea not null constraint api_keys_hash_key unique,
    narrowed text[] not null default '{}',
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz not null,
    created_by text not null,
    constraint api_keys_pkey primary key (tenant_id, id),
    constraint api_keys_service_account_fkey
        foreign key (tenant_id, service_account_id) references service_accounts
);
create index api_keys_service_account on api_keys (tenant_id, service_account_id);

grant select, insert, update on service_accounts, api_keys to rolecall_server;
