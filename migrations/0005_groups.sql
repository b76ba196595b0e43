-- Groups: teams and departments that carry role assignments.

create table groups (
    tenant_id uuid not null constraint groups_tenant_fkey references tenants (id),
    id uuid not null,
    key text not null,
    display_name text not null,
    description text not null default '',
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint groups_pkey primary key (tenant_id, id),
    constraint groups_key_key unique (tenant_id, key)
);

create table group_members (
    tenant_id uuid not null,
    group_id uuid not null,
    user_id uuid not null,
    standing smallint not null, -- the member's
    created_at timestamptz not null,
    constraint group_members_pkey primary key (tenant_id, group_id, user_id),
    constraint group_members_group_fkey foreign key (tenant_id, group_id) references groups,
    constraint group_members_membership_fkey foreign key (tenant_id, user_id, standing)
        references memberships (tenant_id, user_id, standing) on update cascade
);
create index group_members_user on group_members (tenant_id, user_id);
create index group_members_standing on group_members (tenant_id, group_id, standing, user_id);

grant select, insert, update, delete on groups, group_members to rolecall_server;
