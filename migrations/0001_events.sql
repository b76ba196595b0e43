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

-- Which history this server writes: another one after a failover, or after an older copy was restored.
create function timeline() returns text language sql stable as $$
    select (select system_identifier from pg_control_system())::text
        || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
$$;

-- One row, locked last before every commit: commit order is revision order. An epoch is a stretch of
-- history in which no number is given twice. Epochs are numbered by the second in which they begin, so
-- that one which began after a restore is never taken for one that the restore undid.
create table clock (
    single boolean primary key default true constraint clock_single check (single),
    installation bigint not null
        default ('x' || left(gen_random_uuid()::text, 8))::bit(32)::bigint,
    epoch bigint not null default floor(extract(epoch from clock_timestamp())),
    timeline text not null default timeline()
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

-- The epoch of this server's history. Refuses with RC001 in a history without one, and with RC003 when a
-- quorum is asked for and none is configured.
create function current_epoch(quorum boolean) returns bigint language plpgsql as $$
declare
    here text := timeline();
    known clock;
begin
    if quorum and current_setting('synchronous_standby_names') = '' then
        raise exception 'no standby has to confirm changes' using errcode = 'RC003';
    end if;
    select * into known from clock;
    if known.timeline <> here then
        raise exception 'timeline % has no epoch yet', here using errcode = 'RC001';
    end if;
    return known.epoch;
end $$;

-- Keeps the answer for a repeated request, if it has an id.
--   request: null | {"caller", "id": uuid, "hash": hex, "response": hex}
create function keep_answer(request jsonb, revision bigint) returns void language sql as $$
    insert into requests (caller, request_id, hash, response, revision, created_at)
        select request ->> 'caller', (request ->> 'id')::uuid, decode(request ->> 'hash', 'hex'),
               decode(request ->> 'response', 'hex'), revision, clock_timestamp()
        where jsonb_typeof(request) = 'object'
$$;

-- Numbers and chains the events that the transaction left in `rolecall.pending`, and keeps the answer.
-- Called in one message with COMMIT, so that nobody holds the clock while idle.
--   pending: {"skew": seconds, "quorum": boolean, "request", "events": [{"tenant", "format", "body": text}]}
--   hash:    SHA-256(previous hash, or 32 zero bytes ‖ tenant ‖ revision i64 ‖ n i32 ‖
--                    microseconds since 1970 i64 ‖ format i32 ‖ SHA-256(body as UTF-8)), big-endian
-- Refuses as `current_epoch` does, and with RC002 what a live replica could not apply.
create function seal(out sealed_epoch bigint, out sealed_revision bigint) language plpgsql as $$
declare
    pending json := current_setting('rolecall.pending')::json;
    event json;
    tenant uuid;
    moment timestamptz;
    number integer := 0;
    chained bytea;
    entry_format integer;
begin
    perform from clock for update;
    sealed_epoch := current_epoch((pending ->> 'quorum')::boolean);
    if exists (select from replicas r where r.trouble is null and r.format < (
            select max((e ->> 'format')::integer) from json_array_elements(pending -> 'events') e)) then
        raise exception 'an older replica could not apply this' using errcode = 'RC002';
    end if;
    select revision + 1, greatest(at, clock_timestamp() + make_interval(secs => (pending ->> 'skew')::float8))
        into sealed_revision, moment
        from events order by revision desc, n desc limit 1;
    if sealed_revision is null then
        sealed_revision := 1;
        moment := clock_timestamp() + make_interval(secs => (pending ->> 'skew')::float8);
    end if;
    for event in select json_array_elements(pending -> 'events') loop
        tenant := (event ->> 'tenant')::uuid;
        entry_format := (event ->> 'format')::integer;
        select hash into chained from events e
            where e.tenant_id = tenant order by e.revision desc, e.n desc limit 1;
        chained := sha256(
            coalesce(chained, decode(repeat('00', 32), 'hex'))
            || uuid_send(tenant) || int8send(sealed_revision) || int4send(number)
            || int8send((extract(epoch from moment) * 1000000)::bigint) || int4send(entry_format)
            || sha256(convert_to(event ->> 'body', 'UTF8')));
        insert into events (tenant_id, revision, n, at, format, body, hash)
            values (tenant, sealed_revision, number, moment, entry_format, (event ->> 'body')::json, chained);
        number := number + 1;
    end loop;
    perform keep_answer((pending -> 'request')::jsonb, sealed_revision);
end $$;

-- The newest revision, for an answer that says something of the state without changing it; keeps that
-- answer, too. Once this is committed, what the connection has read before is as durable as a change:
-- it was read in the current history, and from nothing that a failover could undo.
create function confirm(quorum boolean, request jsonb,
        out installation bigint, out epoch bigint, out revision bigint) language plpgsql as $$
begin
    epoch := current_epoch(quorum);
    select c.installation into installation from clock c;
    select coalesce(max(e.revision), 0) into revision from events e;
    perform keep_answer(request, revision);
    -- Only a commit that has written something waits for the standbys.
    perform pg_logical_emit_message(true, 'rolecall', '');
end $$;

grant usage on schema public to rolecall_server;
grant select, update on clock to rolecall_server;
grant select, insert on events to rolecall_server;
grant select, insert, update, delete on event_values to rolecall_server;
grant select, insert, delete on requests to rolecall_server;
