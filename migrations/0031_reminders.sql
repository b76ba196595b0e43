-- An invitation's person is reminded once for each link, however many servers think of it.

create unique index mails_reminder_key on mails (tenant_id, invitation_id, generation)
    where template = 'reminder';
create index invitations_waiting on invitations (tenant_id, updated_at) where status = 'pending';
