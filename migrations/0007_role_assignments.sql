-- A role given to a person, a service account or a group, on a scope, perhaps until a date.

create table role_assignments (
    tenant_id uuid not null,
    id uuid not null,
    user_id uuid,
    standing smallint, -- the person's
    service_account_id uuid,
    group_id uuid,
    role_id uuid not null,
    workspace_id uuid,            -- none: the tenant
    path text not null default '', -- pairs below the workspace or tenant
    starts_at timestamptz,
    ends_at timestamptz,
    created_at timestamptz not null,
    created_by text not null,
    constraint role_assignments_pkey primary key (tenant_id, id),
    constraint role_assignments_holder_check check (num_nonnulls(user_id, service_account_id, group_id) = 1),
    constraint role_assignments_dates_check check (ends_at > starts_at),
    constraint role_assignments_standing_check check ((user_id is null) = (standing is null)),
    constraint role_assignments_membership_fkey foreign key (tenant_id, user_id, standing)
        references memberships (tenant_id, user_id, standing) on update cascade,
    constraint role_assignments_service_account_fkey
        foreign key (tenant_id, service_account_id) references service_accounts,
    constraint role_assignments_group_fkey foreign key (tenant_id, group_id) references groups,
    constraint role_assignments_role_fkey foreign key (tenant_id, role_id) references roles,
    constraint role_assignments_workspace_fkey foreign key (tenant_id, workspace_id) references workspaces,
    constraint role_assignments_once_key unique nulls not distinct
        (tenant_id, user_id, service_account_id, group_id, role_id, workspace_id, path)
);
create index role_assignments_user on role_assignments (tenant_id, user_id) where user_id is not null;
create index role_assignments_service_account on role_assignments (tenant_id, service_account_id)
    where service_account_id is not null;
create index role_assignments_group on role_assignments (tenant_id, group_id) where group_id is not null;
create index role_assignments_role on role_assignments (tenant_id, role_id, standing, user_id)
    include (ends_at);
create index role_assignments_workspace
    on role_assignments (tenant_id, workspace_id, standing, user_id)
    include (ends_at) where workspace_id is not null;

grant select, insert, update, delete on role_assignments to rolecall_server;
