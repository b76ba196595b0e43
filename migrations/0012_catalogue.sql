-- The permission catalogue: the words that applications register, by module, for the whole installation.

create table catalogue_modules (
    module text collate "C" not null constraint catalogue_modules_pkey primary key,
    owner text not null, -- who registered it: svc_… or usr_…
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table catalogue_permissions (
    permission text collate "C" not null constraint catalogue_permissions_pkey primary key,
    module text collate "C" not null
        constraint catalogue_permissions_module_fkey references catalogue_modules on delete cascade,
    descriptions jsonb not null, -- language -> text
    deprecated boolean not null  -- registered no longer, but roles have it
);
create index catalogue_permissions_module on catalogue_permissions (module, permission);

-- Which roles have a word that its application gave up.
create index roles_permissions on roles using gin (permissions);

alter table tenants add column permission_words text not null default 'checked'
    constraint tenants_permission_words_check check (permission_words in ('checked', 'strict', 'free'));

grant select, insert, update, delete on catalogue_modules, catalogue_permissions to rolecall_server;
