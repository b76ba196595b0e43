//! This replica's facts, kept fresh by the feed of events. One task changes them; everybody reads the
//! snapshot that was current when they asked.

mod feed;
pub mod load;
mod memory;
mod tail;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

pub use feed::{FORMAT, Feed, FeedError};
pub use tail::{EventText, Place, Revision, Tail, newest};

use crate::{
    decision::{Facts, TenantFacts, TenantNotLoaded},
    error::{Error, Result},
    ids::TenantId,
};

/// How long an acknowledgement may wait for the facts to catch up.
const BARRIER: Duration = Duration::from_secs(12);
/// How long a question may wait for its tenant to be loaded.
const LOAD: Duration = Duration::from_secs(30);
/// Tenants waiting to be loaded; more are told to come back.
const LOADS: usize = 1024;

pub struct Replica {
    facts: Arc<ArcSwap<Facts>>,
    applied: watch::Receiver<u64>,
    /// Wakes the feed without waiting for its next poll.
    nudge: Arc<tokio::sync::Notify>,
    loads: mpsc::Sender<Load>,
    /// Set while there is an event that this program cannot apply: better no answer than an old one.
    halted: Arc<AtomicBool>,
}

/// A tenant that somebody waits for.
struct Load {
    tenant: TenantId,
    done: oneshot::Sender<Result<()>>,
}

/// A tenant read from the tables, and the revision it was read at.
struct Loaded {
    facts: TenantFacts,
    revision: u64,
}

impl Replica {
    #[must_use]
    pub fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    /// Asks the facts, and loads the tenants that the question turns out to need.
    ///
    /// # Errors
    /// `UNAVAILABLE` when a tenant cannot be loaded in time.
    pub async fn ask<T>(
        &self,
        mut question: impl FnMut(&Facts) -> Result<T, TenantNotLoaded>,
    ) -> Result<T> {
        loop {
            if self.halted.load(Ordering::Acquire) {
                return Err(Error::Unavailable {
                    message: "this server is older than the events that it would have to apply",
                    retry_after: Duration::from_secs(5),
                });
            }
            match question(&self.facts.load()) {
                Ok(answer) => return Ok(answer),
                Err(TenantNotLoaded(tenant)) => self.load(tenant).await?,
            }
        }
    }

    /// Loads tenants before anybody asks.
    ///
    /// # Errors
    /// `NOT_FOUND` for a tenant that does not exist; `UNAVAILABLE` when one cannot be loaded in time.
    pub async fn warm(&self, tenants: &[String]) -> Result<()> {
        for key in tenants {
            let entry = self.facts().directory.tenants.get(key.as_str()).map(|entry| entry.id);
            self.load(entry.ok_or_else(|| Error::not_found("tenant", key))?).await?;
        }
        Ok(())
    }

    async fn load(&self, tenant: TenantId) -> Result<()> {
        const LATER: Error = Error::Unavailable {
            message: "the tenant is still being loaded",
            retry_after: Duration::from_secs(1),
        };
        let (done, answer) = oneshot::channel();
        self.loads.try_send(Load { tenant, done }).map_err(|_| LATER)?;
        match tokio::time::timeout(LOAD, answer).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_)) | Err(_) => Err(LATER),
        }
    }

    /// Tells the feed that something was committed.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// The revision that this replica's answers reflect, as it grows.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Waits until this replica's answers reflect the revision.
    ///
    /// # Errors
    /// `UNAVAILABLE` when that takes too long: the change is kept, and the same request id finds it.
    pub async fn barrier(&self, revision: u64) -> Result<()> {
        let mut applied = self.applied.clone();
        self.nudge();
        let reached = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(BARRIER, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable {
                message: "the change is stored, but not yet obeyed everywhere",
                retry_after: Duration::from_secs(1),
            }),
        }
    }
}

/// How a revision is written in answers. Opaque to callers.
#[must_use]
pub fn revision_text(revision: u64) -> String {
    format!("rev_{revision}")
}

/// The revision that an answer named; nothing for what no answer says.
#[must_use]
pub fn parse_revision(text: &str) -> Option<u64> {
    let revision = text.strip_prefix("rev_")?.parse().ok()?;
    (revision_text(revision) == text && i64::try_from(revision).is_ok()).then_some(revision)
}
