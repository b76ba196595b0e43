-- Roles, what they include and what their holders may give.

create table roles (
    tenant_id uuid not null constraint roles_tenant_fkey references tenants (id),
    id uuid not null,
    key text not null,
    display_names jsonb not null default '{}', -- language -> name
    description text not null default '',
    permissions text[] not null default '{}',
    reach text not null constraint roles_reach_check check (reach in ('here', 'joined', 'everywhere')),
    exclusive_set text,
    max_duration_seconds bigint constraint roles_max_duration_check check (max_duration_seconds > 0),
    locked boolean not null default false,
    template text not null default '',
    template_version integer not null default 0,
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint roles_pkey primary key (tenant_id, id),
    constraint roles_key_key unique (tenant_id, key)
);

create table role_includes (
    tenant_id uuid not null,
    role_id uuid not null,
    included_id uuid not null,
    constraint role_includes_pkey primary key (tenant_id, role_id, included_id),
    constraint role_includes_role_fkey foreign key (tenant_id, role_id) references roles on delete cascade,
    constraint role_includes_included_fkey foreign key (tenant_id, included_id) references roles,
    constraint role_includes_self_check check (role_id <> included_id)
);
create index role_includes_included on role_includes (tenant_id, included_id);

create table role_may_grant (
    tenant_id uuid not null,
    role_id uuid not null,
    granted_id uuid not null,
    constraint role_may_grant_pkey primary key (tenant_id, role_id, granted_id),
    constraint role_may_grant_role_fkey foreign key (tenant_id, role_id) references roles on delete cascade,
    constraint role_may_grant_granted_fkey foreign key (tenant_id, granted_id) references roles
);
create index role_may_grant_granted on role_may_grant (tenant_id, granted_id);

alter table tenants add constraint tenants_default_role_fkey
    foreign key (id, default_role_id) references roles (tenant_id, id);

grant select, insert, update, delete on roles, role_includes, role_may_grant to rolecall_server;
