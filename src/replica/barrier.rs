//! The barrier: a change is acknowledged when every replica obeys it or can answer nothing any more. One
//! task of the process waits for all of its changes, by reading the rows of the replicas.

use std::{collections::HashMap, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout},
};
use uuid::Uuid;

use super::{
    lease::over,
    line::{Line, Open},
    rows::{self, Row, State},
};
use crate::{
    clock::Moment,
    error::{Error, Result},
    ids::Revision,
};

/// How often the rows are read when nothing waits, to find those who are gone before something does.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait before the rows are read again, by how long the longest wait has lasted.
const PACES: [(Duration, Duration); 3] = [
    (Duration::from_millis(30), Duration::from_millis(1)),
    (Duration::from_millis(300), Duration::from_millis(5)),
    (Duration::MAX, Duration::from_millis(25)),
];
/// A wait this long names whom it is for.
const SLOW: Duration = Duration::from_secs(1);
/// What a wait may take beyond the longest lease.
const SLACK: Duration = Duration::from_secs(2);
/// How long to wait before a lost database is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What a wait comes to that ends without an answer.
pub const UNOBEYED: Error = Error::Unavailable {
    message: "the change is stored, but not yet obeyed everywhere",
    retry_after: Duration::from_secs(1),
};

/// What is asked of the task.
pub enum Ask {
    /// To be told when the revision is obeyed everywhere.
    Obeyed(Revision, oneshot::Sender<Result<()>>),
    /// What is committed now.
    Newest(oneshot::Sender<Revision>),
}

pub struct Barrier {
    line: Line,
    asks: mpsc::Receiver<Ask>,
    /// Wakes the feed of this process.
    nudge: Arc<Notify>,
    waits: Vec<Wait>,
    newest: Vec<oneshot::Sender<Revision>>,
    /// The announcement last seen of each replica, and when it was seen first.
    seen: HashMap<Uuid, (i64, Moment)>,
    /// The longest lease of those who were seen last; at first that of this process.
    longest: Duration,
}

struct Wait {
    revision: Revision,
    done: oneshot::Sender<Result<()>>,
    begun: Instant,
    /// Whom it waits for, and until when; nothing before the first look.
    pending: Option<HashMap<Uuid, Moment>>,
    complained: bool,
}

impl Barrier {
    pub fn new(
        url: SecretString,
        asks: mpsc::Receiver<Ask>,
        nudge: Arc<Notify>,
        lease: Duration,
    ) -> Self {
        let line = Line::careless(url);
        let (waits, newest, seen) = (Vec::new(), Vec::new(), HashMap::new());
        Self { line, asks, nudge, waits, newest, seen, longest: lease }
    }

    /// Serves until nobody can ask any more.
    pub async fn run(mut self) {
        loop {
            let pause = self.pause();
            let asked = match timeout(pause, self.asks.recv()).await {
                Ok(Some(ask)) => {
                    self.take(ask);
                    while let Ok(ask) = self.asks.try_recv() {
                        self.take(ask);
                    }
                    true
                }
                Ok(None) => return,
                Err(_) => false,
            };
            // Invariant: this look begins after the commits of all that wait.
            if let Err(error) = self.look(asked).await {
                tracing::warn!(%error, "the rows of the replicas were not read");
                tokio::time::sleep(RETRY).await;
            }
            self.waits.retain(|wait| !wait.done.is_closed());
            self.give_up();
        }
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Obeyed(revision, done) => {
                let (begun, pending) = (Instant::now(), None);
                self.waits.push(Wait { revision, done, begun, pending, complained: false });
            }
            Ask::Newest(done) => self.newest.push(done),
        }
    }

    fn pause(&self) -> Duration {
        let Some(longest) = self.waits.iter().map(|wait| wait.begun.elapsed()).max() else {
            return LOOK;
        };
        PACES.iter().find(|(age, _)| longest < *age).map_or(LOOK, |(_, pace)| *pace)
    }

    async fn look(&mut self, asked: bool) -> sqlx::Result<()> {
        let hint = asked && self.waits.iter().any(|wait| wait.pending.is_none());
        if hint {
            self.nudge.notify_one();
        }
        let read = self.line.with(async |open: &mut Open| {
            if hint {
                rows::hint(&mut open.conn).await?;
            }
            Ok::<_, sqlx::Error>((rows::state(&mut open.conn).await?, open.timeline.clone()))
        });
        let (state, here) = read.await?;
        let now = Moment::now();
        self.see(&state.rows, now);
        self.longest = state.rows.iter().map(|row| row.lease).max().unwrap_or(self.longest);
        // What another history says of a revision is nothing.
        if state.timeline == here {
            for done in self.newest.drain(..) {
                let _ = done.send(state.revision);
            }
            self.judge(&state, now);
        }
        self.reap(&state.rows, now).await
    }

    /// Notes which announcements are new.
    fn see(&mut self, rows: &[Row], now: Moment) {
        self.seen.retain(|session, _| rows.iter().any(|row| row.session == *session));
        for row in rows {
            let seen = self.seen.entry(row.session).or_insert((row.seq, now));
            if seen.0 != row.seq {
                *seen = (row.seq, now);
            }
        }
        let live = rows.iter().filter(|row| row.trouble.is_none()).count();
        metrics::gauge!("rolecall_replicas").set(u32::try_from(live).unwrap_or(u32::MAX));
    }

    /// When the lease of the announcement last seen is certainly over.
    fn deadline(&self, row: &Row) -> Moment {
        let (_, first) = self.seen.get(&row.session).copied().unwrap_or((0, Moment::now()));
        first.after(over(row.lease))
    }

    /// Ends waits that no lease can be the reason of.
    fn give_up(&mut self) {
        let patience = over(self.longest) + SLACK;
        for wait in self.waits.extract_if(.., |wait| wait.begun.elapsed() > patience) {
            let _ = wait.done.send(Err(UNOBEYED));
        }
    }

    fn judge(&mut self, state: &State, now: Moment) {
        let mut waits = std::mem::take(&mut self.waits);
        waits.retain_mut(|wait| {
            let Some(verdict) = self.verdict(wait, state, now) else { return true };
            metrics::histogram!("rolecall_barrier_wait_seconds").record(wait.begun.elapsed());
            let (done, _) = oneshot::channel();
            let _ = std::mem::replace(&mut wait.done, done).send(verdict);
            false
        });
        self.waits = waits;
    }

    /// What became of a wait; nothing while it lasts.
    fn verdict(&self, wait: &mut Wait, state: &State, now: Moment) -> Option<Result<()>> {
        if state.revision.epoch != wait.revision.epoch {
            return Some(Err(Error::Unavailable {
                message: "the database failed over or was restored; whether the change was kept is not \
                          known",
                retry_after: Duration::from_secs(1),
            }));
        }
        if state.revision < wait.revision {
            return None;
        }
        let obeys = |row: &Row| {
            row.trouble.is_some()
                || (row.epoch, row.ack) >= (wait.revision.epoch, wait.revision.number)
        };
        let behind: HashMap<Uuid, &Row> =
            state.rows.iter().filter(|row| !obeys(row)).map(|row| (row.session, row)).collect();
        let pending = wait.pending.get_or_insert_with(|| {
            behind.values().map(|row| (row.session, self.deadline(row))).collect()
        });
        // A replica that comes later, or renews its lease later, has seen the change before it answers.
        pending.retain(|session, deadline| behind.contains_key(session) && now < *deadline);
        if pending.is_empty() {
            return Some(Ok(()));
        }
        if wait.begun.elapsed() > SLOW && !wait.complained {
            wait.complained = true;
            let names: Vec<&str> = pending.keys().map(|s| behind[s].name.as_str()).collect();
            let revision = wait.revision.number;
            tracing::warn!(revision, replicas = names.join(", "), "a change waits for replicas");
        }
        None
    }

    /// Removes the rows of those whose lease is over.
    async fn reap(&mut self, rows: &[Row], now: Moment) -> sqlx::Result<()> {
        let over: Vec<&Row> = rows.iter().filter(|row| now >= self.deadline(row)).collect();
        for row in over {
            let (session, seq) = (row.session, row.seq);
            let gone = self
                .line
                .with(async |open: &mut Open| rows::reap(&mut open.conn, session, seq).await);
            if gone.await? {
                metrics::counter!("rolecall_replicas_reaped_total").increment(1);
                tracing::warn!(replica = row.name, "a replica is gone without a word");
            }
        }
        Ok(())
    }
}
