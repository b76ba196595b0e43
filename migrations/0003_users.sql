-- People: one account each, and a membership in every tenant they belong to.

create table users (
    id uuid primary key,
    email text not null,
    email_canonical text not null constraint users_email_key unique,
    first_name text not null,
    last_name text not null,
    language text not null default 'en' constraint users_language_check check (language in ('en', 'fr')),
    password_hash text,
    disabled boolean not null default false,
    epoch integer not null default 0, -- sessions made under an earlier epoch are over
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table memberships (
    tenant_id uuid not null constraint memberships_tenant_fkey references tenants (id),
    user_id uuid not null constraint memberships_user_fkey references users (id),
    kind text not null constraint memberships_kind_check check (kind in ('internal', 'external')),
    status text not null
        constraint memberships_status_check check (status in ('active', 'suspended', 'removed')),
    -- Both in one number, by which people are searched: 0 removed, 1 an active and 2 a suspended
    -- internal member, 3 an active and 4 a suspended external one. Tables that are searched together
    -- with it have a copy, which follows.
    standing smallint not null generated always as (case
        when status = 'removed' then 0
        else case kind when 'internal' then 1 else 3 end + case status when 'active' then 0 else 1 end
    end) stored,
    epoch integer not null default 0,
    first_name text not null default '',
    last_name text not null default '',
    department text not null default '',
    job_title text not null default '',
    phone text not null default '',
    location text not null default '',
    external_id text not null default '',
    metadata jsonb not null default '{}',
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint memberships_pkey primary key (tenant_id, user_id),
    constraint memberships_standing_key unique (tenant_id, user_id, standing)
);
create index memberships_user on memberships (user_id);
create unique index memberships_external_id on memberships (tenant_id, external_id) where external_id <> '';

-- When people were last seen. Bookkeeping: nothing that a decision or the audit reads.
create table activity (
    tenant_id uuid not null,
    user_id uuid not null,
    standing smallint not null,
    last_sign_in_at timestamptz not null default '-infinity', -- they never did
    last_active_at timestamptz,
    constraint activity_pkey primary key (tenant_id, user_id) include (last_sign_in_at),
    constraint activity_membership_fkey foreign key (tenant_id, user_id, standing)
        references memberships (tenant_id, user_id, standing) on update cascade
);

grant select, insert, update on users, memberships, activity to rolecall_server;
