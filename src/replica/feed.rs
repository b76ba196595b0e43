//! The one task that changes this replica's facts: it applies events in order, without gaps, tells the
//! other replicas what it obeys, and adds the tenants that questions need. On a thread of its own, so
//! that no storm of operations can starve it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use super::{
    Load,
    epochs::Epochs,
    events::{self, Anchor, FeedError},
    line::Line,
    load,
    loading::{READERS, Reading},
    memory::Memory,
    rows,
    view::{Lapse, Published},
};
use crate::{
    clock::Clock,
    decision::{Facts, Pool, Time},
    error::Result,
    ids::{Revision, TenantId},
};

/// How often the feed looks for events when nobody nudges it.
const POLL: Duration = Duration::from_millis(250);
/// How long it waits before it tries a lost database again.
pub const RETRY: Duration = Duration::from_millis(500);
/// Ended sessions to remember at the least; twice as many as are needed at the most.
const ENDED: usize = 10_000;

pub struct Feed {
    pub(super) url: SecretString,
    pub(super) line: Line,
    pub(super) clock: Clock,
    pub(super) published: Arc<Published>,
    nudge: Arc<Notify>,
    /// The row of this replica, as the lease has it.
    session: Arc<std::sync::Mutex<Uuid>>,
    /// What was last said in it.
    acknowledged: (Uuid, Revision),
    anchor: Anchor,
    loads: mpsc::Receiver<Load>,
    pub(super) waiting: HashMap<TenantId, Vec<oneshot::Sender<Result<()>>>>,
    pub(super) queue: VecDeque<TenantId>,
    pub(super) reading: usize,
    /// Connections of readers that have nothing to read.
    pub(super) idle: Vec<PgConnection>,
    pub(super) memory: Memory,
    /// What loaded tenants share.
    pub(super) pool: Pool,
    /// How many ended sessions are remembered before those that are over are forgotten.
    forget_at: usize,
    pub(super) read: (mpsc::Sender<Reading>, mpsc::Receiver<Reading>),
}

/// What a feed is started with.
pub(super) struct Parts {
    pub url: SecretString,
    pub clock: Clock,
    pub facts_memory: usize,
    pub nudge: Arc<Notify>,
    pub session: Arc<std::sync::Mutex<Uuid>>,
    pub loads: mpsc::Receiver<Load>,
}

/// The facts without any tenant but the installation, and what they are of.
struct Initial {
    facts: Facts,
    anchor: Anchor,
    epochs: Epochs,
}

impl Feed {
    /// Reads the directory and the installation's own facts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn start(parts: Parts) -> Result<Self, FeedError> {
        let Parts { url, clock, facts_memory, nudge, session, loads } = parts;
        let mut line = Line::careless(url.clone());
        let initial = line.slowly(async |open| initial(&mut open.conn, &clock).await).await?;
        let memory = Memory::new(facts_memory, &initial.facts);
        let acknowledged = (Uuid::nil(), Revision::default());
        Ok(Self {
            url,
            line,
            clock,
            published: Arc::new(Published::new(initial.facts, initial.epochs)),
            nudge,
            session,
            acknowledged,
            anchor: initial.anchor,
            loads,
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            reading: 0,
            idle: Vec::new(),
            memory,
            pool: Pool::default(),
            forget_at: ENDED,
            read: mpsc::channel(READERS),
        })
    }

    pub fn published(&self) -> Arc<Published> {
        self.published.clone()
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
            if let Err(error) = self.catch_up().await {
                self.recover(&error).await;
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), FeedError> {
        self.follow().await?;
        if self.published.trouble().is_some() {
            self.published.proceed();
        }
        Ok(())
    }

    /// Applies everything that was committed since.
    pub(super) async fn follow(&mut self) -> Result<(), FeedError> {
        loop {
            let facts = self.published.load_full();
            let anchor = &self.anchor;
            let read = self
                .line
                .with(async |open| events::since(&mut open.conn, facts.revision, anchor).await);
            let rows = read.await?;
            let Some(last) = rows.last() else { return self.acknowledge().await };
            let mut facts = Facts::clone(&facts);
            events::apply(&mut facts, &rows)?;
            let changed: HashSet<TenantId> = rows.iter().map(|row| row.tenant_id).collect();
            changed.into_iter().for_each(|tenant| self.memory.weigh(&facts, tenant));
            let ended = facts.directory.ended_sessions.len();
            if ended > self.forget_at {
                facts.directory.forget_ended(self.clock.now());
                self.forget_at = 2 * facts.directory.ended_sessions.len() + ENDED;
            }
            report_delay(last.at, last.now);
            self.anchor = last.anchor();
            self.swap(facts);
            self.acknowledge().await?;
        }
    }

    fn swap(&self, facts: Facts) {
        report(facts.revision);
        self.published.swap(facts);
    }

    /// Tells the other replicas what this one obeys: after the facts were replaced, never before.
    async fn acknowledge(&mut self) -> Result<(), FeedError> {
        let session = *self.session.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let saying = (session, self.published.load().revision);
        if self.acknowledged != saying {
            let (session, revision) = saying;
            let said = self
                .line
                .with(async |open| rows::acknowledge(&mut open.conn, session, revision).await);
            said.await?;
            self.acknowledged = saying;
        }
        Ok(())
    }

    /// After a lost connection it goes on where it was; in another history it starts over.
    async fn recover(&mut self, error: &FeedError) {
        tracing::warn!(%error, "the feed of events was interrupted");
        metrics::counter!("rolecall_feed_interruptions_total").increment(1);
        match error {
            // A lost connection says nothing about what could not be applied before. The database may have
            // crashed, and lost what was said last.
            FeedError::Database(_) => self.acknowledged = Default::default(),
            FeedError::Format { .. } | FeedError::Body { .. } => {
                self.published.halt(Lapse::Unreadable, &error.to_string());
            }
            // The lease sees to it that another epoch begins; until then there is nothing to read.
            FeedError::History(_) => self.published.halt(Lapse::History, &error.to_string()),
            FeedError::Gap { .. } | FeedError::Epoch => {
                self.published.halt(Lapse::History, &error.to_string());
                match self.restart().await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "the facts were not read anew"),
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }

    /// Reads everything anew. What is being loaded is of the old facts: it is forgotten when it comes.
    async fn restart(&mut self) -> Result<(), FeedError> {
        let clock = self.clock.clone();
        let initial = self.line.slowly(async |open| initial(&mut open.conn, &clock).await).await?;
        let before = self.published.load().revision;
        let now = initial.facts.revision;
        if before.epoch != now.epoch {
            tell_of_epoch(before, now, &initial.epochs);
            let lost = self.line.with(async |open| rows::fence(&mut open.conn, before).await);
            lost.await?;
        }
        self.anchor = initial.anchor;
        self.memory.restart(&initial.facts);
        report(now);
        self.published.restart(initial.facts, initial.epochs);
        self.acknowledge().await
    }
}

/// Says what was lost between two epochs: changes that this replica has obeyed.
fn tell_of_epoch(before: Revision, now: Revision, epochs: &Epochs) {
    tracing::warn!(%before, %now, "another epoch has begun: a failover, or a restored database");
    let Some(base) = epochs.base_after(before.epoch).filter(|base| *base < before.number) else {
        return;
    };
    metrics::counter!("rolecall_lost_revisions_total").increment(before.number - base);
    tracing::error!(
        epoch = before.epoch,
        first = base + 1,
        last = before.number,
        "acknowledged changes were lost: the database does not have these revisions any more"
    );
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
fn report(revision: Revision) {
    metrics::gauge!("rolecall_replica_revision").set(revision.number as f64);
    metrics::gauge!("rolecall_replica_epoch").set(f64::from(revision.epoch));
}

/// From the commit of a change to its being obeyed here; both times are PostgreSQL's.
fn report_delay(committed: Time, read: Time) {
    let delay = (read - committed).to_std().unwrap_or_default();
    metrics::histogram!("rolecall_feed_delay_seconds").record(delay);
}

async fn initial(conn: &mut PgConnection, clock: &Clock) -> Result<Initial, FeedError> {
    let mut tx = conn.begin_with("begin isolation level repeatable read, read only").await?;
    let now: Time =
        sqlx::query_scalar!(r#"select clock_timestamp() "now!""#).fetch_one(&mut *tx).await?;
    clock.follow(now);
    // First the revision: it fixes the snapshot, so that nothing read later is newer than it says.
    let revision = rows::position(&mut tx).await?;
    let anchor = events::anchor(&mut tx).await?;
    events::readable(&mut tx).await?;
    let mut facts = Facts::new(revision, load::directory(&mut tx, now).await?);
    facts.insert_tenant(load::tenant(&mut tx, TenantId::SYSTEM).await?);
    let epochs = rows::epochs(&mut tx).await?;
    tx.commit().await?;
    Ok(Initial { facts, anchor, epochs })
}
