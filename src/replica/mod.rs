//! This replica's facts, and how long they count: CONSISTENCY of the whole rests on this folder. The
//! [`Feed`] alone changes the facts, the lease says until when they may be answered from, the barrier
//! holds back a change's acknowledgement until every replica obeys it. Everybody else reads the view
//! that was current when they asked.

mod barrier;
mod epochs;
mod events;
mod feed;
mod lease;
mod line;
pub mod load;
mod loading;
mod memory;
mod rows;
mod start;
mod state;
mod tail;
mod view;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use events::{FORMAT, FeedError};
pub use feed::Feed;
pub use lease::LeaseError;
pub use rows::{Row, State, position, revision, state};
pub use start::{Keeper, Options, StartError};
pub use state::{StateError, StateFolder};
pub use tail::{Committed, EventText, Place, Tail};
pub use view::View;

use self::{barrier::Ask, epochs::lost, view::Published};
use crate::{
    decision::{Facts, TenantNotLoaded},
    error::{Error, Result},
    faults::Faults,
    ids::{Revision, TenantId},
};

/// How long a question may wait for its tenant to be loaded.
const LOAD: Duration = Duration::from_secs(30);
/// Tenants waiting to be loaded; more are told to come back.
const LOADS: usize = 1024;
/// How long a question may wait for the revision that it asks for.
const REACH: Duration = Duration::from_secs(10);
/// How long a revision may take to be found in the database.
const LOOK_UP: Duration = Duration::from_secs(3);

pub struct Replica {
    published: Arc<Published>,
    applied: watch::Receiver<Revision>,
    /// Whether the lease holds, a moment ago.
    leased: watch::Receiver<bool>,
    /// Wakes the feed without waiting for its next poll.
    nudge: Arc<tokio::sync::Notify>,
    loads: mpsc::Sender<Load>,
    asks: mpsc::Sender<Ask>,
    retiring: watch::Sender<bool>,
    left: watch::Receiver<bool>,
    faults: Faults,
}

/// A tenant that somebody waits for.
struct Load {
    tenant: TenantId,
    done: oneshot::Sender<Result<()>>,
}

/// How new the facts behind an answer have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Everything that was acknowledged before the question.
    #[default]
    Acknowledged,
    /// That, and this revision.
    AtLeast(Revision),
    /// Everything that was committed before the question, acknowledged or not.
    Committed,
    /// As new as can be; what was certainly current so long ago is better than nothing.
    Within(Duration),
}

/// An answer, and how old it may be; nothing when it is current.
#[derive(Debug, Clone, Copy)]
pub struct Dated<T> {
    pub answer: T,
    pub age: Option<Duration>,
}

impl Replica {
    /// The facts as they are, current or not: for what needs no promise.
    #[must_use]
    pub fn facts(&self) -> Arc<View> {
        self.published.load_full()
    }

    /// Asks the facts that are in memory, and answers while the lease holds.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it does not; the inner error is a tenant that has to be loaded first.
    pub fn ask_now<T>(
        &self,
        question: impl FnOnce(&Facts) -> Result<T, TenantNotLoaded>,
    ) -> Result<Result<T, TenantNotLoaded>> {
        let view = self.published.load();
        let answer = question(&view);
        // Only now: the clock has the last word.
        self.confirm(&view).map(|()| answer)
    }

    /// Asks the facts, and loads the tenants that the question turns out to need.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the lease is over, or a tenant cannot be loaded in time.
    pub async fn ask<T>(
        &self,
        mut question: impl FnMut(&Facts) -> Result<T, TenantNotLoaded>,
    ) -> Result<T> {
        loop {
            match self.ask_now(&mut question)? {
                Ok(answer) => return Ok(answer),
                Err(TenantNotLoaded(tenant)) => self.load(tenant).await?,
            }
        }
    }

    /// Asks facts that are as new as the caller wants them.
    ///
    /// # Errors
    /// As [`Replica::ask`] and [`Replica::settle`].
    pub async fn ask_as<T>(
        &self,
        consistency: Consistency,
        mut question: impl FnMut(&Facts) -> Result<T, TenantNotLoaded>,
    ) -> Result<Dated<T>> {
        self.settle(consistency).await?;
        let Consistency::Within(oldest) = consistency else {
            return Ok(Dated { answer: self.ask(question).await?, age: None });
        };
        loop {
            let view = self.published.load_full();
            let answer = match question(&view) {
                Ok(answer) => answer,
                Err(TenantNotLoaded(tenant)) => {
                    self.load(tenant).await?;
                    continue;
                }
            };
            let Err(lapsed) = self.confirm(&view) else {
                return Ok(Dated { answer, age: None });
            };
            let age = view.age();
            if age > oldest {
                return Err(lapsed);
            }
            metrics::counter!("rolecall_stale_answers_total").increment(1);
            return Ok(Dated { answer, age: Some(age) });
        }
    }

    /// Waits until the facts are as new as wanted.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a revision of another installation, or one that was lost; `UNAVAILABLE`
    /// when it takes too long.
    pub async fn settle(&self, consistency: Consistency) -> Result<()> {
        match consistency {
            Consistency::Acknowledged | Consistency::Within(_) => Ok(()),
            Consistency::AtLeast(revision) => self.reach(revision, "consistency").await,
            Consistency::Committed => {
                let newest = self.newest().await?;
                self.reached(newest).await
            }
        }
    }

    /// Waits until the facts have a revision that some answer has named.
    ///
    /// # Errors
    /// As [`Replica::settle`]; `field` is where the caller named it.
    pub async fn reach(&self, revision: Revision, field: &str) -> Result<()> {
        let view = self.published.load_full();
        let known = view.epochs().knows(revision, view.revision, field)?;
        if known && revision <= view.revision {
            return Ok(());
        }
        // Ahead of this replica: another one has it, or nobody has it any more.
        let newest = self.newest().await?;
        if newest < revision {
            return Err(lost(revision, field));
        }
        self.reached(newest.min(revision)).await?;
        // An epoch may have begun meanwhile.
        let view = self.published.load_full();
        view.epochs().knows(revision, view.revision, field).map(drop)
    }

    async fn reached(&self, revision: Revision) -> Result<()> {
        let mut applied = self.applied.clone();
        self.nudge();
        match timeout(REACH, applied.wait_for(|applied| *applied >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable {
                message: "this server has not come as far yet",
                retry_after: Duration::from_millis(500),
            }),
        }
    }

    /// What is committed, read after this was called.
    async fn newest(&self) -> Result<Revision> {
        let (done, newest) = oneshot::channel();
        let asked = async {
            self.asks.send(Ask::Newest(done)).await.ok()?;
            newest.await.ok()
        };
        timeout(LOOK_UP, asked).await.ok().flatten().ok_or(Error::Unavailable {
            message: "the database did not answer",
            retry_after: Duration::from_millis(500),
        })
    }

    fn confirm(&self, view: &View) -> Result<()> {
        if self.faults.lease() { view.confirm() } else { Ok(()) }
    }

    /// Whether the lease holds, as it changes.
    #[must_use]
    pub fn leased(&self) -> watch::Receiver<bool> {
        self.leased.clone()
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
        match timeout(LOAD, answer).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_)) | Err(_) => Err(LATER),
        }
    }

    /// Tells the feed that something was committed.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// The revision that this replica's answers reflect, as it changes.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.clone()
    }

    /// Waits until every replica's answers reflect the revision, or are `UNAVAILABLE`.
    ///
    /// # Errors
    /// `UNAVAILABLE` when that takes too long: the change is kept, and the same request id finds it.
    pub async fn barrier(&self, revision: Revision) -> Result<()> {
        if !self.faults.barrier() {
            return Ok(());
        }
        let (done, obeyed) = oneshot::channel();
        let asked = async {
            self.asks.send(Ask::Obeyed(revision, done)).await.ok()?;
            obeyed.await.ok()
        };
        asked.await.unwrap_or(Err(barrier::UNOBEYED))
    }

    /// Answers nothing more, and then releases those who would wait for this replica.
    pub async fn retire(&self) {
        self.published.retire();
        self.retiring.send_replace(true);
        let mut left = self.left.clone();
        let _ = timeout(Duration::from_secs(5), left.wait_for(|left| *left)).await;
    }
}
