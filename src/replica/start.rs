//! Starting a replica, in the order that its promise rests on: announce, read everything, follow.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::SecretString;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use super::{
    Replica,
    barrier::Barrier,
    events::{FORMAT, FeedError},
    feed::{self, Feed},
    lease::{self, Announced, Lease, LeaseError},
    rows::{CHANNEL, Registration},
    state::{StateError, StateFolder},
    view::Published,
};
use crate::{clock::Clock, db, faults::Faults};

/// Changes and questions that may wait for the barrier at a time.
const ASKS: usize = 10_000;
/// How long to wait before a lost connection for hints is made anew.
const RETRY: Duration = Duration::from_secs(1);

/// What a replica has to be told.
#[derive(Debug, Clone)]
pub struct Options {
    pub database: SecretString,
    /// For the facts of tenants, in bytes.
    pub facts_memory: usize,
    /// How long it answers without having heard from the database.
    pub lease: Duration,
    /// What operators know it by.
    pub name: String,
    /// Where the lock of its process is kept.
    pub state_dir: Option<PathBuf>,
    /// Whether the database must have a quorum of standbys.
    pub quorum: bool,
    pub faults: Faults,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// What keeps the replica's promise beside the feed: the lease, the barrier, and the ear for hints.
pub struct Keeper {
    lease: Lease,
    barrier: Barrier,
    published: Arc<Published>,
    url: SecretString,
    nudge: Arc<Notify>,
    leased: watch::Sender<bool>,
    retiring: watch::Receiver<bool>,
    left: watch::Sender<bool>,
    /// Held until the process has taken leave.
    _state: Option<StateFolder>,
}

impl Replica {
    /// Announces the replica and reads its facts. It answers when feed and keeper run, each on a thread of
    /// its own, and the first renewal has come through.
    ///
    /// # Errors
    /// When the database does not answer, or another process uses the state folder.
    pub async fn start(options: Options, clock: Clock) -> Result<(Self, Feed, Keeper), StartError> {
        let Options { database, facts_memory, lease, name, state_dir, quorum, faults } = options;
        let state = state_dir.as_deref().map(StateFolder::open).transpose()?;
        let proof = state.as_ref().map(|state| state.proof);
        let registration = Registration { name, format: FORMAT, lease, proof };
        let session = Arc::new(Mutex::new(Uuid::nil()));
        let nudge = Arc::new(Notify::new());
        let parts = lease::Parts {
            url: database.clone(),
            registration,
            session: session.clone(),
            clock: clock.clone(),
            nudge: nudge.clone(),
            quorum,
        };
        let predecessor = state.as_ref().and_then(|state| state.predecessor);
        // Before anything is read: whoever changes it from here on knows of us.
        let announced = Announced::start(parts, predecessor).await?;
        let (loads, loads_out) = mpsc::channel(super::LOADS);
        let url = database.clone();
        let (nudged, loads_in) = (nudge.clone(), loads_out);
        let parts =
            feed::Parts { url, clock, facts_memory, nudge: nudged, session, loads: loads_in };
        let feed = Feed::start(parts).await?;
        let published = feed.published();
        let (asks, asks_out) = mpsc::channel(ASKS);
        let (leased, leased_out) = watch::channel(false);
        let (retiring, retiring_out) = watch::channel(false);
        let (left, left_out) = watch::channel(false);
        let keeper = Keeper {
            lease: announced.into_lease(published.clone()),
            barrier: Barrier::new(database.clone(), asks_out, nudge.clone(), lease),
            published: published.clone(),
            url: database,
            nudge: nudge.clone(),
            leased,
            retiring: retiring_out,
            left,
            _state: state,
        };
        let replica = Self {
            applied: published.applied(),
            published,
            leased: leased_out,
            nudge,
            loads,
            asks,
            retiring,
            left: left_out,
            faults,
        };
        Ok((replica, feed, keeper))
    }
}

impl Keeper {
    /// Runs until the replica has retired and nobody holds it any more.
    pub async fn run(self) {
        let Self { lease, barrier, published, url, nudge, leased, retiring, left, _state } = self;
        let gone = {
            let mut retiring = retiring.clone();
            async move { retiring.wait_for(|retiring| *retiring).await.map(drop) }
        };
        let beside = async {
            tokio::select! {
                () = lease::watch(published, leased) => {}
                () = listen(&url, &nudge) => {}
                _ = gone => {}
            }
        };
        tokio::join!(lease.run(retiring, left), barrier.run(), beside);
    }
}

/// Wakes the feed when another process has changed something. Only a hint: it polls all the same.
async fn listen(url: &SecretString, nudge: &Notify) {
    loop {
        let heard: sqlx::Result<()> = async {
            let mut listener = PgListener::connect_with(&db::single(url)?).await?;
            listener.listen(CHANNEL).await?;
            loop {
                listener.recv().await?;
                nudge.notify_one();
            }
        }
        .await;
        if let Err(error) = heard {
            tracing::debug!(%error, "hints do not come through");
        }
        tokio::time::sleep(RETRY).await;
    }
}
