//! Follows the changes of a tenant, or of all: each whole, in order, and none that this replica's
//! decisions do not reflect yet. Two tasks in one: one brings what happened, the other sees to it that
//! the caller still may have it.

use std::{convert::Infallible, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{AuditEvent, Row, Verb};
use crate::{
    access::{Claim, permit, renew},
    app::App,
    caller::Call,
    error::{Error, Result},
    ids::{Key, Revision, TenantId},
    replica::{Committed, Place},
};

/// How many messages wait for a reader.
const BUFFER: usize = 16;
/// How often the caller's rights are judged anew when nothing changes: dates pass all the same.
const CHECK: Duration = Duration::from_millis(500);

/// What a watcher wants to see.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Nothing: every tenant.
    pub tenant: Option<TenantId>,
    /// Only events with one of these verbs; empty shows all.
    pub verbs: Vec<Verb>,
    /// Everything after this revision.
    pub after: Revision,
    /// The longest silence, and the longest wait for a reader.
    pub heartbeat: Duration,
}

/// One change, or only how far the watcher has come.
#[derive(Debug)]
pub struct Seen {
    pub events: Vec<(Key, AuditEvent)>,
    pub revision: Revision,
}

/// Starts to follow; the first message says from where.
pub fn watch(
    app: App,
    call: Call,
    claim: Claim,
    watch: Watch,
    place: Place,
) -> impl Stream<Item = Result<Seen>> + Send + 'static {
    let (out, seen) = mpsc::channel(BUFFER);
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let _place = place;
        let mut follower = Follower { app: app.clone(), call: call.clone(), claim, watch, out };
        let guard = Follower { ..follower.clone() };
        let why = tokio::select! {
            Err(why) = follower.follow() => why,
            Err(why) = guard.guard() => why,
            // The reader is gone, and wants to hear nothing.
            () = guard.out.closed() => return,
        };
        metrics::counter!("rolecall_watchers_ended_total", "reason" => why.reason()).increment(1);
        let _ = end.send(why);
    });
    // The end overtakes what waits: whoever may no longer see it gets none of it.
    stream::unfold(Some((seen, ended)), |state| async {
        let (mut seen, mut ended) = state?;
        tokio::select! {
            biased;
            Ok(why) = &mut ended => Some((Err(why), None)),
            message = seen.recv() => Some((Ok(message?), Some((seen, ended)))),
        }
    })
}

#[derive(Clone)]
struct Follower {
    app: App,
    call: Call,
    claim: Claim,
    watch: Watch,
    out: mpsc::Sender<Seen>,
}

impl Follower {
    /// Brings what happens, until something goes wrong.
    async fn follow(&mut self) -> Result<Infallible> {
        let mut applied = self.app.replica.applied();
        // A revision of an epoch before is known to be part of this one.
        let epoch = applied.borrow().epoch;
        let mut position = Revision { epoch, ..self.watch.after };
        let mut beat = Instant::now();
        loop {
            if beat <= Instant::now() {
                self.send(Seen { events: Vec::new(), revision: position }).await?;
                beat = Instant::now() + self.watch.heartbeat;
            }
            let newest = *applied.borrow_and_update();
            if newest.epoch != epoch {
                return Err(Error::Unavailable {
                    message: "the database has failed over or was restored; resume after the last \
                              revision that you got",
                    retry_after: Duration::from_millis(500),
                });
            }
            if newest <= position {
                tokio::select! {
                    changed = applied.changed() => changed.map_err(|_| stopping())?,
                    () = sleep_until(beat) => {}
                }
                continue;
            }
            let (pool, tenant) = (&self.app.pool, self.watch.tenant);
            let stretch = self.app.tail.after(pool, tenant, position.number, newest).await?;
            // By facts that are at least as new as what is shown.
            self.check().await?;
            for revision in &stretch.revisions {
                if let Some(seen) = self.shown(revision)? {
                    self.send(seen).await?;
                    beat = Instant::now() + self.watch.heartbeat;
                }
            }
            position = position.at(stretch.until);
        }
    }

    /// Ends when the server stops, or the caller may not watch any more: what happens, `follow` notices,
    /// but not dates that pass, nor anything while it waits for the reader.
    async fn guard(&self) -> Result<Infallible> {
        let mut stop = self.app.stopping.clone();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Err(stopping()),
                () = tokio::time::sleep(CHECK) => {}
            }
            self.check().await?;
        }
    }

    async fn check(&self) -> Result<()> {
        let call = renew(&self.app, &self.call).await?;
        permit(&self.app, &call, &self.claim).await.map(drop)
    }

    /// What of a revision this watcher sees; nothing when it is not concerned.
    fn shown(&self, revision: &Committed) -> Result<Option<Seen>> {
        let facts = self.app.replica.facts();
        let mut events = Vec::new();
        for event in &revision.events {
            if self.watch.tenant.is_some_and(|tenant| tenant != event.tenant) {
                continue;
            }
            let row = Row {
                revision: i64::try_from(revision.number).map_err(Error::internal)?,
                n: event.n,
                at: event.at,
                body: event.body.clone(),
                hash: event.hash.clone(),
                values: Vec::new(),
            };
            let shown = AuditEvent::try_from(row)?;
            if self.watch.verbs.is_empty() || self.watch.verbs.iter().any(|v| v.is(&shown.verb)) {
                let tenant = facts.directory.tenant_keys.get(&event.tenant).cloned();
                let tenant = tenant.ok_or_else(|| Error::internal("an event of no tenant"))?;
                events.push((tenant, shown));
            }
        }
        let at = facts.revision.at(revision.number);
        Ok((!events.is_empty()).then_some(Seen { events, revision: at }))
    }

    async fn send(&self, seen: Seen) -> Result<()> {
        let sent = tokio::time::timeout(self.watch.heartbeat, self.out.send(seen)).await;
        // A reader that is gone ends the whole; see `watch`.
        sent.map(drop).map_err(|_| Error::Exhausted {
            reason: "READER_TOO_SLOW",
            message: "the stream was not read in time; resume after the last revision that you got",
            retry_after: Duration::from_secs(1),
        })
    }
}

fn stopping() -> Error {
    Error::Unavailable {
        message: "the server is stopping; resume after the last revision that you got",
        retry_after: Duration::from_millis(500),
    }
}
