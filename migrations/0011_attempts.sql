-- How fast something is tried. Bookkeeping, without names or addresses: the key is a MAC. Each attempt
-- puts `due` one interval further; how far it lies in the future says how much too fast they came.

create table attempts (
    key bytea primary key,
    due timestamptz not null -- once it is past, the row means nothing any more
);
create index attempts_due on attempts (due);

grant select, insert, update, delete on attempts to rolecall_server;
