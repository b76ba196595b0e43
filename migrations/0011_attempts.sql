-- How often something was tried of late. Bookkeeping, without names or addresses: the key is a MAC.

create table attempts (
    key bytea primary key,
    count integer not null,
    since timestamptz not null,
    until timestamptz not null -- when the row means nothing any more
);
create index attempts_until on attempts (until);

grant select, insert, update, delete on attempts to rolecall_server;
