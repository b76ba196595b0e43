-- Recovery: new passwords and new addresses, proved by a link in a mail. A generation kills older links.

alter table users
    add column reset_generation integer not null default 0,
    add column email_generation integer not null default 0,
    add column pending_email text; -- asked for, and not proved yet

-- Who asked for a link. The same row for known and unknown addresses; a worker answers and deletes it.
create table password_resets (
    id uuid primary key,
    email text not null,
    requested_at timestamptz not null,
    claimed_at timestamptz
);

grant select, insert, update, delete on password_resets to rolecall_server;
