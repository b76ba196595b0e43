-- In whose name the mails of a tenant go out, and where they lead. No row: the installation's own.

create table mail_settings (
    tenant_id uuid constraint mail_settings_pkey primary key
        constraint mail_settings_tenant_fkey references tenants (id),
    sender_name text not null default '',
    reply_to text not null default '',
    home_url text not null default '',
    invitation_page text not null default '', -- with `{token}`
    reminder_after_seconds bigint
        constraint mail_settings_reminder_check check (reminder_after_seconds > 0),
    version bigint not null default 1
);

grant select, insert, update on mail_settings to rolecall_server;
