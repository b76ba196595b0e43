//! What every operation needs at hand. Cheap to clone.

use std::{ops::Deref, sync::Arc};

use sqlx::PgPool;
use tokio::sync::watch;

use crate::{
    activity::Activity,
    change::Turns,
    clock::Clock,
    faults::Faults,
    mail::{Mail, Templates},
    passwords::Passwords,
    refusals::Refusals,
    replica::{Replica, Tail},
    secret::Keys,
};

#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub pool: PgPool,
    pub replica: Replica,
    pub clock: Clock,
    pub keys: Keys,
    pub mail: Mail,
    /// How letters are worded.
    pub templates: Templates,
    pub passwords: Passwords,
    /// What was refused, until it is written.
    pub refusals: Refusals,
    /// Which sessions were used, until it is written.
    pub activity: Activity,
    /// Who waits for which tenant's lock.
    pub turns: Turns,
    /// What those who watch changes read.
    pub tail: Tail,
    /// Whether the database must have a quorum of standbys.
    pub quorum: bool,
    pub faults: Faults,
    /// Where the links in mails lead, without a slash at the end.
    pub public_url: String,
    /// Turns true when the server stops: streams end then, so that their clients go elsewhere.
    pub stopping: watch::Receiver<bool>,
}

impl App {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The implementation of every service: each feature's `rpc.rs` implements its own for this.
#[derive(Clone)]
pub struct Rpc(pub App);
