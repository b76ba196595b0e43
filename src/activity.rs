//! Activity: which sessions were used, and when last, gathered until it is written. A use costs a lock
//! of a small part and nothing else, and touches no row.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    decision::{SessionClaims, Time},
    ids::{SessionId, TenantId, UserId},
};

const SHARDS: usize = 16;

/// A session was used.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    pub session: SessionId,
    pub tenant: TenantId,
    pub user: UserId,
    pub at: Time,
}

#[derive(Default)]
pub struct Activity([Mutex<HashMap<SessionId, Use>>; SHARDS]);

impl Activity {
    pub fn note(&self, claims: &SessionClaims, now: Time) {
        let SessionClaims { session, tenant, user, .. } = *claims;
        // The end of an id is random.
        let shard = usize::from(session.uuid().as_bytes()[15]) % SHARDS;
        let mut uses = self.0[shard].lock().unwrap_or_else(PoisonError::into_inner);
        uses.insert(session, Use { session, tenant, user, at: now });
    }

    /// What was gathered since the last time, by session.
    pub fn take(&self) -> Vec<Use> {
        let mut uses: Vec<Use> = Vec::new();
        for shard in &self.0 {
            let taken = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            uses.extend(taken.into_values());
        }
        uses.sort_unstable_by_key(|one| (one.tenant.uuid(), one.session.uuid()));
        uses
    }
}
