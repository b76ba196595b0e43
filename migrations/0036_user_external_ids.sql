-- What an installation keeps with an account: its own name for the person, and notes.

alter table users
    add column external_id text not null default '',
    add column metadata jsonb not null default '{}';
