//! The lease: announce, then read. A replica says in its row that it goes on answering, and only then
//! reads how far the changes have come: until the lease is over, whoever changes something later finds
//! the announcement and waits for this replica. It also sees to it that another history of the database
//! gets an epoch of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use sqlx::Row as _;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{
    line::{Line, Open},
    rows::{self, Registration, State},
    view::{Grant, Lapse, Published},
};
use crate::{
    clock::{Clock, Moment},
    ids::Revision,
    telemetry::noticing,
};

/// How often a lease is renewed, unless a third of it is less.
const RENEW: Duration = Duration::from_secs(1);
/// How long the announcement of departure may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often the end of the lease is looked for.
const WATCH: Duration = Duration::from_millis(100);
/// A clock of PostgreSQL this far from ours, in seconds, deserves a warning.
const OFFSET: f64 = 60.0;

/// How long after an announcement was first seen its lease is certainly over, on clocks that differ by
/// one part in a thousand.
pub fn over(lease: Duration) -> Duration {
    lease + lease / 1000 + Duration::from_millis(20)
}

pub struct Lease {
    line: Line,
    registration: Registration,
    session: Arc<Mutex<Uuid>>,
    published: Arc<Published>,
    clock: Clock,
    nudge: Arc<Notify>,
    quorum: bool,
    /// Another history, since when it has been known.
    suspicion: Option<(String, Moment)>,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(
        "durability is `strict`, but {0}; have PostgreSQL wait for a quorum of standbys with \
         `synchronous_standby_names`, such as `ANY 1 (*)`, and leave `synchronous_commit` on"
    )]
    Durability(&'static str),
}

/// What a lease is made from, before there are facts.
pub struct Parts {
    pub url: SecretString,
    pub registration: Registration,
    pub session: Arc<Mutex<Uuid>>,
    pub clock: Clock,
    pub nudge: Arc<Notify>,
    /// Whether the database must have a quorum of standbys.
    pub quorum: bool,
}

/// A process that has announced itself, and may read what it will answer from.
pub struct Announced {
    line: Line,
    parts: Parts,
}

impl Announced {
    /// Announces this process, and removes what its dead predecessor left.
    ///
    /// # Errors
    /// When the database does not answer, or cannot keep what it is asked to keep.
    pub async fn start(parts: Parts, predecessor: Option<Uuid>) -> Result<Self, LeaseError> {
        let mut line = Line::new(parts.url.clone());
        let announced = line.with(async |open: &mut Open| {
            if parts.quorum {
                quorum(open).await?;
            }
            if let Some(proof) = predecessor
                && rows::delete_dead(&mut open.conn, proof).await? > 0
            {
                tracing::info!("the row of the process that ran here before was removed");
            }
            let nothing = Revision::default();
            let insert = rows::insert(&mut open.conn, &parts.registration, nothing, None);
            Ok(noticing(insert).await?)
        });
        let session = announced.await.map_err(|error| match error {
            LeaseError::Database(sqlx::Error::Io(late))
                if parts.quorum && late.kind() == std::io::ErrorKind::TimedOut =>
            {
                LeaseError::Durability("no quorum confirmed the first commit in time")
            }
            error => error,
        })?;
        *parts.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        Ok(Self { line, parts })
    }

    pub fn into_lease(self, published: Arc<Published>) -> Lease {
        let Self { line, parts } = self;
        let Parts { registration, session, clock, nudge, quorum, .. } = parts;
        let suspicion = None;
        Lease { line, registration, session, published, clock, nudge, quorum, suspicion }
    }
}

/// Whether the settings promise that a commit which returned is on a quorum of machines.
async fn quorum(open: &mut Open) -> Result<(), LeaseError> {
    let settings = sqlx::query(
        "select current_setting('synchronous_standby_names'), current_setting('synchronous_commit')",
    );
    let row = settings.fetch_one(&mut open.conn).await?;
    let (standbys, commit): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    match (standbys.as_str(), commit.as_str()) {
        ("", _) => Err(LeaseError::Durability("PostgreSQL waits for no standby")),
        (_, "on" | "remote_apply") => Ok(()),
        _ => Err(LeaseError::Durability("commits do not wait until a standby has written them")),
    }
}

impl Lease {
    /// Renews until it is told to stop; then nothing is answered any more, and the row goes.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, left: watch::Sender<bool>) {
        let every = RENEW.min(self.registration.lease / 3);
        let stopping = {
            let mut stop = stop.clone();
            async move { stop.wait_for(|stop| *stop).await.map(drop) }
        };
        let mut stopping = std::pin::pin!(stopping);
        while !*stop.borrow_and_update() {
            tokio::select! {
                _ = &mut stopping => break,
                renewed = self.renew() => if let Err(error) = renewed {
                    tracing::warn!(%error, "the lease was not renewed");
                }
            }
            tokio::select! {
                _ = &mut stopping => break,
                () = tokio::time::sleep(every) => {}
            }
        }
        self.published.retire();
        let session = *self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let farewell =
            self.line.with(async |open: &mut Open| rows::delete(&mut open.conn, session).await);
        if !matches!(tokio::time::timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            tracing::warn!("the row of this process stays until its lease is over");
        }
        left.send_replace(true);
    }

    async fn renew(&mut self) -> Result<(), LeaseError> {
        let trouble = self.published.trouble();
        let announced = Moment::now();
        self.announce(trouble.as_deref()).await?;
        // Before the clock is read: what is applied meanwhile may be newer than what it says.
        let applied = self.published.load().revision;
        let quorum = self.quorum;
        let read = self.line.with(async |open: &mut Open| {
            if quorum {
                self::quorum(open).await?;
            }
            let state = rows::state(&mut open.conn).await?;
            Ok::<_, LeaseError>((state, open.timeline.clone()))
        });
        let (state, here) = read.await?;
        self.follow_clock(&state);
        if let Some(suspicion) = suspicion(&state, &here, applied, self.published.load().lapse()) {
            return self.suspect(suspicion, &state, applied).await;
        }
        self.suspicion = None;
        if state.revision.epoch != applied.epoch {
            // The feed reads everything anew.
            self.nudge.notify_one();
        } else if trouble.is_none() {
            let (revision, lease) = (state.revision, self.registration.lease);
            self.published.grant(Grant { revision, from: announced, lease });
            self.nudge.notify_one();
        }
        Ok(())
    }

    /// Says that this replica goes on; one whose row was removed begins anew.
    async fn announce(&mut self, trouble: Option<&str>) -> Result<(), LeaseError> {
        let session = *self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let (registration, applied) = (&self.registration, self.published.load().revision);
        let begun = self.line.with(async |open: &mut Open| {
            // One that a failover may undo is none.
            if noticing(rows::announce(&mut open.conn, session, trouble)).await? {
                return Ok(session);
            }
            let insert = rows::insert(&mut open.conn, registration, applied, trouble);
            Ok::<_, LeaseError>(noticing(insert).await?)
        });
        let begun = begun.await?;
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        Ok(())
    }

    /// Answers nothing more until every lease in the history before must be over, and then lets another
    /// epoch begin.
    async fn suspect(
        &mut self,
        what: String,
        state: &State,
        applied: Revision,
    ) -> Result<(), LeaseError> {
        self.published.halt(Lapse::History, &what);
        let known = self.suspicion.as_ref().filter(|(known, _)| *known == what);
        let since = known.map_or_else(Moment::now, |(_, since)| *since);
        if known.is_none() {
            tracing::error!("{what}; nothing is answered until another epoch begins");
        }
        self.suspicion = Some((what, since));
        let others = state.rows.iter().map(|row| row.lease);
        let longest = others.max().unwrap_or_default().max(self.registration.lease);
        if Moment::now() < since.after(over(longest)) {
            return Ok(());
        }
        let begin =
            self.line.with(async |open: &mut Open| rows::fence(&mut open.conn, applied).await);
        begin.await?;
        self.nudge.notify_one();
        Ok(())
    }

    fn follow_clock(&self, state: &State) {
        self.clock.follow(state.now);
        let offset = self.clock.offset_seconds();
        metrics::gauge!("rolecall_clock_offset_seconds").set(offset);
        if offset.abs() > OFFSET {
            tracing::warn!(offset, "the clock of this machine is far from PostgreSQL's");
        }
    }
}

/// What shows that the database is not the one that the facts were read from.
fn suspicion(state: &State, here: &str, applied: Revision, lapse: Lapse) -> Option<String> {
    let State { revision, timeline, .. } = state;
    if timeline != here {
        return Some(format!(
            "the database writes timeline {here}, its clock counts in {timeline}"
        ));
    }
    if revision.epoch != applied.epoch {
        return None;
    }
    if revision.number < applied.number {
        return Some(format!("the database has only come to revision {}", revision.number));
    }
    (lapse == Lapse::History)
        .then(|| "the database has other events than those that were applied".to_owned())
}

/// Watches the lease, and tells when it is lost or regained.
pub async fn watch(published: Arc<Published>, leased: watch::Sender<bool>) {
    let mut tick = tokio::time::interval(WATCH);
    while !leased.is_closed() {
        tick.tick().await;
        let view = published.load_full();
        let (holds, lapse) = (view.holds(), view.lapse());
        metrics::gauge!("rolecall_lease_remaining_seconds").set(view.remaining().as_secs_f64());
        if leased.send_replace(holds) == holds {
            continue;
        }
        if holds {
            tracing::info!(revision = view.revision.number, "this replica answers");
        } else if lapse != Lapse::Stopping {
            metrics::counter!("rolecall_lease_losses_total", "reason" => lapse.reason())
                .increment(1);
            tracing::error!(reason = lapse.reason(), "the lease is lost; checks are UNAVAILABLE");
        }
    }
}
