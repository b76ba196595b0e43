-- What the product around us keeps with an account: its own name for the person, and notes.

alter table users
    add column external_id text not null default '',
    add column metadata jsonb not null default '{}';
create unique index users_external_id on users (external_id) where external_id <> '';
