-- Invitations. The link is derived from id and generation, never stored.
-- Pending means status 'pending' and not yet expired, judged when used.

create table invitations (
    tenant_id uuid not null constraint invitations_tenant_fkey references tenants (id),
    id uuid not null,
    email text not null,
    email_canonical text not null,
    kind text not null constraint invitations_kind_check check (kind in ('internal', 'external')),
    first_name text not null default '',
    last_name text not null default '',
    department text not null default '',
    job_title text not null default '',
    phone text not null default '',
    location text not null default '',
    message text not null default '',
    language text not null constraint invitations_language_check check (language in ('en', 'fr')),
    status text not null constraint invitations_status_check
        check (status in ('pending', 'accepted', 'cancelled', 'expired', 'declined')),
    generation integer not null default 1,
    expires_at timestamptz not null,
    invited_by text not null,
    accepted_by uuid constraint invitations_accepted_by_fkey references users (id),
    version bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint invitations_pkey primary key (tenant_id, id)
);
create unique index invitations_pending_key on invitations (tenant_id, email_canonical)
    where status = 'pending';
create index invitations_id on invitations (id);

create table invitation_roles (
    tenant_id uuid not null,
    invitation_id uuid not null,
    role_id uuid not null,
    workspace_id uuid,
    path text not null default '',
    starts_at timestamptz,
    ends_at timestamptz,
    constraint invitation_roles_invitation_fkey
        foreign key (tenant_id, invitation_id) references invitations on delete cascade,
    constraint invitation_roles_role_fkey foreign key (tenant_id, role_id) references roles on delete cascade,
    constraint invitation_roles_workspace_fkey foreign key (tenant_id, workspace_id) references workspaces,
    constraint invitation_roles_once_key unique nulls not distinct
        (tenant_id, invitation_id, role_id, workspace_id, path)
);

grant select, insert, update, delete on invitations, invitation_roles to rolecall_server;
