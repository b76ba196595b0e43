-- The outbox. A row is written in the transaction of what it tells about; the sender claims it, retries
-- with backoff and gives up visibly. Bookkeeping: links are derived when the mail is rendered.

create table mails (
    tenant_id uuid not null constraint mails_tenant_fkey references tenants (id),
    id uuid not null,
    template text not null,
    language text not null constraint mails_language_check check (language in ('en', 'fr')),
    recipient text not null,
    recipient_name text not null default '',
    invitation_id uuid,
    generation integer not null default 0,
    content jsonb not null,
    status text not null default 'queued'
        constraint mails_status_check check (status in ('queued', 'sending', 'sent', 'failed')),
    attempts integer not null default 0,
    due_at timestamptz not null,
    claimed_at timestamptz,
    last_error text not null default '',
    created_at timestamptz not null,
    sent_at timestamptz,
    constraint mails_pkey primary key (tenant_id, id),
    constraint mails_invitation_fkey foreign key (tenant_id, invitation_id) references invitations
);
create index mails_due on mails (due_at) where status in ('queued', 'sending');
create index mails_invitation on mails (tenant_id, invitation_id) where invitation_id is not null;

grant select, insert, update, delete on mails to rolecall_server;
