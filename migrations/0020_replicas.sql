-- The processes that answer from memory, and how far each has come: a change is acknowledged when every
-- row here has come as far, or its lease is over. Bookkeeping: no decision and no audit reads it.
create table replicas (
    -- one life of a process
    session uuid not null default gen_random_uuid() constraint replicas_pkey primary key,
    name text not null,
    version text not null,
    format integer not null,        -- the newest event format that it applies
    lease_ms integer not null,      -- how long it answers after an announcement, at the most
    proof uuid,                     -- names the lock that its process holds as long as it lives
    seq bigint not null default 1,  -- counts its announcements
    epoch bigint not null,          -- its answers reflect this revision of this epoch
    ack bigint not null,
    trouble text,                   -- why it does not answer; null while it may
    started_at timestamptz not null default clock_timestamp(),
    renewed_at timestamptz not null default clock_timestamp() -- for people; nothing is measured by it
) with (
    -- Few rows, rewritten all the time.
    fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 0
);

-- Every epoch, and what became of the one before it.
create table epochs (
    epoch bigint not null constraint epochs_pkey primary key,
    base bigint not null,  -- the last revision of the epochs before that is part of this one
    lost bigint,           -- the last one of the epoch before that a replica is known to have applied
    timeline text not null,
    began_at timestamptz not null default clock_timestamp()
);
insert into epochs (epoch, base, timeline) select epoch, 0, timeline from clock;

-- Begins another epoch, unless that was done already. Whoever calls it has waited until no lease of the
-- epoch before can hold, and tells how far it had come in that.
create function fence(expected bigint, applied bigint) returns void language plpgsql as $$
declare
    known bigint;
    newest bigint;
begin
    select epoch into known from clock for update;
    if known = expected then
        select coalesce(max(revision), 0) into newest from events;
        known := greatest(known + 1, floor(extract(epoch from clock_timestamp()))::bigint);
        update clock set epoch = known, timeline = timeline();
        insert into epochs (epoch, base, timeline) values (known, newest, timeline());
    end if;
    update epochs e set lost = applied
        where e.epoch = (select min(later.epoch) from epochs later where later.epoch > expected)
          and applied > greatest(e.base, coalesce(e.lost, 0));
end $$;

grant select, insert, update, delete on replicas to rolecall_server;
grant select, insert, update on epochs to rolecall_server;
