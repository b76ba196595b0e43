//! The one task that changes this replica's facts: it applies events in order, without gaps, and adds
//! the tenants that questions need. On a thread and connections of its own, so that no storm of
//! operations can starve it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{LOADS, Load, Loaded, Replica, load, memory::Memory};
use crate::{
    clock::Clock,
    db,
    decision::{Facts, Pool, Record, Time, Transition},
    error::{Error, Result},
    ids::TenantId,
};

/// The newest event format that this program can apply.
pub const FORMAT: i32 = 1;
/// How often the feed looks for events when nobody nudges it.
const POLL: Duration = Duration::from_millis(250);
/// How long it waits before it tries a lost database again.
const RETRY: Duration = Duration::from_millis(500);
/// The most events in one read.
const BATCH: i64 = 1_000;
/// Ended sessions to remember at the least; twice as many as are needed at the most.
const ENDED: usize = 10_000;
/// The most tenants read at once.
const READERS: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("expected revision {expected}, found {found}")]
    Gap { expected: u64, found: u64 },
    #[error(
        "event {revision}.{n} needs format {format}, this program applies {FORMAT}; upgrade it"
    )]
    Format { revision: i64, n: i32, format: i32 },
    #[error("event {revision}.{n} cannot be read: {source}")]
    Body { revision: i64, n: i32, source: serde_json::Error },
}

pub struct Feed {
    url: SecretString,
    conn: PgConnection,
    clock: Clock,
    facts: Arc<ArcSwap<Facts>>,
    applied: watch::Sender<u64>,
    nudge: Arc<Notify>,
    halted: Arc<AtomicBool>,
    loads: mpsc::Receiver<Load>,
    waiting: HashMap<TenantId, Vec<oneshot::Sender<Result<()>>>>,
    queue: std::collections::VecDeque<TenantId>,
    reading: usize,
    /// Connections of readers that have nothing to read.
    idle: Vec<PgConnection>,
    memory: Memory,
    /// What loaded tenants share.
    pool: Pool,
    /// How many ended sessions are remembered before those that are over are forgotten.
    forget_at: usize,
    read: (mpsc::Sender<Reading>, mpsc::Receiver<Reading>),
}

/// What a reader brings back, and the connection it used, for the next one.
struct Reading {
    tenant: TenantId,
    loaded: Result<(Loaded, PgConnection), FeedError>,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    tenant_id: TenantId,
    revision: i64,
    n: i32,
    format: i32,
    body: String,
    now: Time,
}

/// The part of an event's body that changes facts.
#[derive(serde::Deserialize)]
struct Effect {
    before: Option<Record>,
    after: Option<Record>,
}

impl Feed {
    /// Reads the directory and the installation's own facts; the replica can answer from then on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn start(
        url: SecretString,
        clock: Clock,
        budget: usize,
    ) -> Result<(Replica, Self), FeedError> {
        let mut conn = db::connect(&url).await?;
        let initial = initial_facts(&mut conn, &clock).await?;
        let memory = Memory::new(budget, &initial);
        let (applied, applied_out) = watch::channel(initial.revision);
        let facts = Arc::new(ArcSwap::from_pointee(initial));
        let nudge = Arc::new(Notify::new());
        let halted = Arc::new(AtomicBool::new(false));
        let (loads, loads_out) = mpsc::channel(LOADS);
        let replica = Replica {
            facts: facts.clone(),
            applied: applied_out,
            nudge: nudge.clone(),
            loads,
            halted: halted.clone(),
        };
        let feed = Self {
            url,
            conn,
            clock,
            facts,
            applied,
            nudge,
            halted,
            loads: loads_out,
            waiting: HashMap::new(),
            queue: std::collections::VecDeque::new(),
            reading: 0,
            idle: Vec::new(),
            memory,
            pool: Pool::default(),
            forget_at: ENDED,
            read: mpsc::channel(READERS),
        };
        Ok((replica, feed))
    }

    /// Follows the events until every handle of the replica is gone.
    pub async fn run(mut self) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.nudge.notified() => {}
                _ = poll.tick() => {}
                load = self.loads.recv() => match load {
                    Some(load) => { self.enqueue(load); continue }
                    None => return,
                },
                Some(reading) = self.read.1.recv() => { self.publish(reading).await; continue }
            }
            let followed = self.follow().await;
            match followed {
                Ok(()) => self.halted.store(false, Ordering::Release),
                Err(FeedError::Format { .. } | FeedError::Body { .. }) => {
                    self.halted.store(true, Ordering::Release);
                }
                // A lost connection says nothing about what could not be applied before.
                Err(FeedError::Database(_) | FeedError::Gap { .. }) => {}
            }
            if let Err(error) = followed {
                self.recover(&error).await;
            }
        }
    }

    /// Applies everything that was committed since.
    async fn follow(&mut self) -> Result<(), FeedError> {
        loop {
            let from = self.facts.load().revision;
            let rows = events(&mut self.conn, None, from).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            self.clock.follow(last.now);
            let mut facts = Facts::clone(&self.facts.load());
            apply(&mut facts, &rows)?;
            let changed: HashSet<TenantId> = rows.iter().map(|row| row.tenant_id).collect();
            changed.into_iter().for_each(|tenant| self.memory.weigh(&facts, tenant));
            let ended = facts.directory.ended_sessions.len();
            if ended > self.forget_at {
                facts.directory.forget_ended(self.clock.now());
                self.forget_at = 2 * facts.directory.ended_sessions.len() + ENDED;
            }
            self.swap(facts);
        }
    }

    fn swap(&self, facts: Facts) {
        let revision = facts.revision;
        self.facts.store(Arc::new(facts));
        metrics::gauge!("rolecall_replica_revision").set(revision as f64);
        // Only now: whoever waits for the revision must find it in the facts.
        self.applied.send_replace(revision);
    }

    fn enqueue(&mut self, load: Load) {
        if self.facts.load().tenant(load.tenant).is_some() {
            let _ = load.done.send(Ok(()));
            return;
        }
        let waiting = self.waiting.entry(load.tenant).or_default();
        if waiting.is_empty() {
            self.queue.push_back(load.tenant);
        }
        waiting.push(load.done);
        self.start_readers();
    }

    fn start_readers(&mut self) {
        while self.reading < READERS
            && let Some(tenant) = self.queue.pop_front()
        {
            self.reading += 1;
            let (url, done, idle) = (self.url.clone(), self.read.0.clone(), self.idle.pop());
            tokio::spawn(async move {
                let loaded = read_tenant(&url, idle, tenant).await;
                let _ = done.send(Reading { tenant, loaded }).await;
            });
        }
    }

    /// Brings what a reader read to the revision of the facts, and puts it there.
    async fn publish(&mut self, reading: Reading) {
        let Reading { tenant, loaded } = reading;
        self.reading -= 1;
        let published = match loaded {
            Ok((loaded, conn)) => {
                self.idle.push(conn);
                self.merge(loaded).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &published {
            tracing::warn!(%tenant, %error, "a tenant was not loaded");
        }
        for done in self.waiting.remove(&tenant).unwrap_or_default() {
            let _ = done.send(match &published {
                Ok(()) => Ok(()),
                Err(_) => Err(Error::Unavailable {
                    message: "the tenant could not be loaded",
                    retry_after: RETRY,
                }),
            });
        }
        self.start_readers();
    }

    async fn merge(&mut self, mut loaded: Loaded) -> Result<(), FeedError> {
        // The snapshot may be ahead of the facts: never publish a tenant newer than its neighbours.
        while self.facts.load().revision < loaded.revision {
            self.follow().await?;
        }
        // Or behind them: bring it forward by its own events.
        let target = self.facts.load().revision;
        let id = loaded.facts.id;
        'behind: while loaded.revision < target {
            let rows = events(&mut self.conn, Some(id), loaded.revision).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let revision = row.revision.unsigned_abs();
                if revision > target {
                    break 'behind;
                }
                if row.tenant_id == id {
                    let effect = effect(row)?;
                    loaded.facts.apply(effect.before.as_ref(), effect.after.as_ref());
                }
                loaded.revision = revision;
            }
        }
        let mut facts = Facts::clone(&self.facts.load());
        loaded.facts.share(&mut self.pool);
        loaded.facts.ask(self.clock.now().timestamp_micros());
        facts.insert_tenant(loaded.facts);
        self.memory.weigh(&facts, id);
        self.memory.make_room(&mut facts, id);
        self.facts.store(Arc::new(facts));
        Ok(())
    }

    /// After a lost connection it goes on where it was; after a gap it starts over.
    async fn recover(&mut self, error: &FeedError) {
        tracing::warn!(%error, "the feed of events was interrupted");
        metrics::counter!("rolecall_feed_interruptions_total").increment(1);
        tokio::time::sleep(RETRY).await;
        match db::connect(&self.url).await {
            Ok(conn) => self.conn = conn,
            Err(error) => {
                tracing::warn!(%error, "the database does not answer");
                return;
            }
        }
        if matches!(error, FeedError::Gap { .. }) {
            match initial_facts(&mut self.conn, &self.clock).await {
                Ok(facts) => {
                    self.memory.restart(&facts);
                    self.swap(facts);
                }
                Err(error) => tracing::warn!(%error, "the facts were not reloaded"),
            }
        }
    }
}

async fn initial_facts(conn: &mut PgConnection, clock: &Clock) -> Result<Facts, FeedError> {
    let mut tx = conn.begin_with("begin isolation level repeatable read, read only").await?;
    let now: Time =
        sqlx::query_scalar!(r#"select clock_timestamp() "now!""#).fetch_one(&mut *tx).await?;
    clock.follow(now);
    let revision = load::revision(&mut tx).await?;
    readable(&mut tx).await?;
    let mut facts = Facts::new(revision, load::directory(&mut tx, now).await?);
    facts.insert_tenant(load::tenant(&mut tx, TenantId::SYSTEM).await?);
    tx.commit().await?;
    Ok(facts)
}

/// Refuses tables that hold what only a newer program understands.
async fn readable(conn: &mut PgConnection) -> Result<(), FeedError> {
    let newer = sqlx::query!(
        "select revision, n, format from events where format > 1 and format > $1
         order by revision limit 1",
        FORMAT
    )
    .fetch_optional(conn)
    .await?;
    match newer {
        None => Ok(()),
        Some(row) => {
            Err(FeedError::Format { revision: row.revision, n: row.n, format: row.format })
        }
    }
}

async fn read_tenant(
    url: &SecretString,
    idle: Option<PgConnection>,
    tenant: TenantId,
) -> Result<(Loaded, PgConnection), FeedError> {
    if let Some(mut conn) = idle {
        match read_with(&mut conn, tenant).await {
            // It may have been lost while it was idle: once more, with a new one.
            Err(FeedError::Database(_)) => {}
            read => return Ok((read?, conn)),
        }
    }
    let mut conn = db::connect(url).await?;
    Ok((read_with(&mut conn, tenant).await?, conn))
}

async fn read_with(conn: &mut PgConnection, tenant: TenantId) -> Result<Loaded, FeedError> {
    let mut tx = conn.begin_with("begin isolation level repeatable read, read only").await?;
    // First the revision: it fixes the snapshot, so that nothing read later is newer than it says.
    let revision = load::revision(&mut tx).await?;
    readable(&mut tx).await?;
    let facts = load::tenant(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(Loaded { facts, revision })
}

async fn events(
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    after: u64,
) -> sqlx::Result<Vec<EventRow>> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows =
        match tenant {
            None => sqlx::query_as!(
                EventRow,
                r#"select tenant_id "tenant_id: TenantId", revision, n, format, body::text "body!",
                          clock_timestamp() "now!"
                   from events where revision > $1 order by revision, n limit $2"#,
                after,
                BATCH
            )
            .fetch_all(&mut *conn)
            .await?,
            Some(tenant) => sqlx::query_as!(
                EventRow,
                r#"select tenant_id "tenant_id: TenantId", revision, n, format, body::text "body!",
                          clock_timestamp() "now!"
                   from events where tenant_id = $3 and revision > $1
                   order by tenant_id, revision, n limit $2"#,
                after,
                BATCH,
                tenant as TenantId
            )
            .fetch_all(&mut *conn)
            .await?,
        };
    // A revision is applied whole or not at all: leave one that the limit may have cut to the next
    // read, unless it is the only one.
    if rows.len() == usize::try_from(BATCH).unwrap_or(usize::MAX)
        && let (Some(first), Some(last)) =
            (rows.first().map(|r| r.revision), rows.last().map(|r| r.revision))
    {
        if first == last {
            return whole_revision(conn, first).await;
        }
        rows.retain(|row| row.revision < last);
    }
    Ok(rows)
}

async fn whole_revision(conn: &mut PgConnection, revision: i64) -> sqlx::Result<Vec<EventRow>> {
    sqlx::query_as!(
        EventRow,
        r#"select tenant_id "tenant_id: TenantId", revision, n, format, body::text "body!",
                  clock_timestamp() "now!"
           from events where revision = $1 order by n"#,
        revision
    )
    .fetch_all(conn)
    .await
}

fn apply(facts: &mut Facts, rows: &[EventRow]) -> Result<(), FeedError> {
    for row in rows {
        let found = row.revision.unsigned_abs();
        let expected = if row.n == 0 { facts.revision + 1 } else { facts.revision };
        if found != expected {
            return Err(FeedError::Gap { expected, found });
        }
        let Effect { before, after } = effect(row)?;
        facts.apply(&Transition { tenant: row.tenant_id, before, after });
        facts.revision = found;
    }
    Ok(())
}

fn effect(row: &EventRow) -> Result<Effect, FeedError> {
    let EventRow { revision, n, format, .. } = *row;
    if format > FORMAT {
        return Err(FeedError::Format { revision, n, format });
    }
    serde_json::from_str(&row.body).map_err(|source| FeedError::Body { revision, n, source })
}
