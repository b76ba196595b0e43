-- The event log: the audit trail, the feed that replicas apply, and the history, in one table.
-- Events are numbered by revision, without gaps, in the order of their commits.

-- The server works as this role, so that its rights are those granted here whoever logs in.
do $$
begin
    if not exists (select from pg_roles where rolname = 'rolecall_server') then
        create role rolecall_server nologin;
    end if;
exception when duplicate_object or unique_violation then null; -- another database of this server
end $$;

do $$
begin
    if to_regclass('_sqlx_migrations') is not null then
        grant select on _sqlx_migrations to rolecall_server; -- `serve` compares it with its own
    end if;
end $$;

-- One row, locked last before every commit: commit order is revision order.
create table clock (
    single boolean primary key default true constraint clock_single check (single),
    epoch integer not null default 1
);
insert into clock default values;

create table events (
    tenant_id uuid not null,
    revision bigint not null,
    n integer not null,
    at timestamptz not null,
    format integer not null, -- the lowest format that can apply it
    body json not null,      -- json, not jsonb: the bytes are what the hash covers
    hash bytea not null,
    event_id uuid not null generated always as (substr(body ->> 'id', 5)::uuid) stored, -- evt_…
    verb text not null generated always as (body ->> 'verb') stored,
    actor text not null generated always as (body ->> 'actor') stored,
    on_behalf_of text generated always as (body ->> 'on_behalf_of') stored,
    target text generated always as (body ->> 'target') stored,
    constraint events_pkey primary key (tenant_id, revision, n),
    constraint events_revision_key unique (revision, n)
);
create index events_newer_format on events (revision) where format > 1;
create index events_tenant_target on events (tenant_id, target, revision);
create index events_tenant_actor on events (tenant_id, actor, revision);
create index events_tenant_on_behalf_of on events (tenant_id, on_behalf_of, revision)
    where on_behalf_of is not null;
create index events_tenant_at on events (tenant_id, at, revision);

-- The personal values that an event only commits to. Erased without touching the chain.
create table event_values (
    tenant_id uuid not null,
    event_id uuid not null,
    data_subject text not null, -- whose values: usr_… or inv_…
    salt bytea not null,
    values text not null,       -- json text, the bytes that the commitment covers
    constraint event_values_pkey primary key (tenant_id, event_id, data_subject)
);
create index event_values_data_subject on event_values (tenant_id, data_subject);

-- What a repeated request is answered with, for a day. No secrets.
create table requests (
    caller text not null,
    request_id uuid not null,
    hash bytea not null,
    response bytea not null,
    revision bigint not null,
    created_at timestamptz not null,
    constraint requests_pkey primary key (caller, request_id)
);
create index requests_created_at on requests (created_at);

-- Numbers and chains the events that the transaction left in `rolecall.pending`, and keeps the answer
-- for a repeated request. Called in one message with COMMIT, so that nobody holds the clock while idle.
--   pending: {"skew": seconds, "events": [{"tenant", "format", "body": text}], "request": null | {…}}
--   hash:    SHA-256(previous hash, or 32 zero bytes ‖ tenant ‖ revision i64 ‖ n i32 ‖
--                    microseconds since 1970 i64 ‖ format i32 ‖ SHA-256(body as UTF-8)), big-endian
create function seal() returns bigint language plpgsql as $$
declare
    pending json := current_setting('rolecall.pending')::json;
    event json;
    request json := pending -> 'request';
    tenant uuid;
    next_revision bigint;
    moment timestamptz;
    number integer := 0;
    chained bytea;
    entry_format integer;
begin
    perform from clock for update;
    select revision + 1, greatest(at, clock_timestamp() + make_interval(secs => (pending ->> 'skew')::float8))
        into next_revision, moment
        from events order by revision desc, n desc limit 1;
    if next_revision is null then
        next_revision := 1;
        moment := clock_timestamp() + make_interval(secs => (pending ->> 'skew')::float8);
    end if;
    for event in select json_array_elements(pending -> 'events') loop
        tenant := (event ->> 'tenant')::uuid;
        entry_format := (event ->> 'format')::integer;
        select hash into chained from events e
            where e.tenant_id = tenant order by e.revision desc, e.n desc limit 1;
        chained := sha256(
            coalesce(chained, decode(repeat('00', 32), 'hex'))
            || uuid_send(tenant) || int8send(next_revision) || int4send(number)
            || int8send((extract(epoch from moment) * 1000000)::bigint) || int4send(entry_format)
            || sha256(convert_to(event ->> 'body', 'UTF8')));
        insert into events (tenant_id, revision, n, at, format, body, hash)
            values (tenant, next_revision, number, moment, entry_format, (event ->> 'body')::json, chained);
        number := number + 1;
    end loop;
    if json_typeof(request) = 'object' then
        insert into requests (caller, request_id, hash, response, revision, created_at)
            values (request ->> 'caller', (request ->> 'id')::uuid, decode(request ->> 'hash', 'hex'),
                    decode(request ->> 'response', 'hex'), next_revision, clock_timestamp());
    end if;
    return next_revision;
end $$;

grant usage on schema public to rolecall_server;
grant select, update on clock to rolecall_server;
grant select, insert on events to rolecall_server;
grant select, insert, update, delete on event_values to rolecall_server;
grant select, insert, delete on requests to rolecall_server;
