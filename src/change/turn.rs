//! Turns: changes of one tenant queue here, before they take a connection, so that a storm in one
//! tenant holds one connection and leaves the others to everybody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    error::{Error, Result},
    ids::TenantId,
};

/// How many changes of one tenant may wait.
const WAITING: usize = 64;
/// How long one of them waits.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Turns(Mutex<HashMap<TenantId, Weak<Queue>>>);

struct Queue {
    turn: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// One change's turn; the next one starts when it is dropped.
pub struct Turn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
    _queue: Arc<Queue>,
}

impl Turns {
    /// Waits for the tenant's turn.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait already, or it takes too long.
    pub async fn wait(&self, tenant: TenantId) -> Result<Turn> {
        let queue = self.queue(tenant);
        let place = queue.places.clone().try_acquire_owned().map_err(|_| full())?;
        let turn = tokio::time::timeout(PATIENCE, queue.turn.clone().acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(Turn { _turn: turn, _place: place, _queue: queue }),
            Ok(Err(_)) | Err(_) => Err(full()),
        }
    }

    fn queue(&self, tenant: TenantId) -> Arc<Queue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&tenant).and_then(Weak::upgrade) {
            return queue;
        }
        // Before it grows: tenants that nobody changes any more need no queue.
        if queues.len() == queues.capacity() {
            queues.retain(|_, queue| queue.strong_count() > 0);
        }
        let queue = Arc::new(Queue {
            turn: Arc::new(Semaphore::new(1)),
            places: Arc::new(Semaphore::new(WAITING)),
        });
        queues.insert(tenant, Arc::downgrade(&queue));
        queue
    }
}

const fn full() -> Error {
    Error::Exhausted {
        reason: "TENANT_BUSY",
        message: "too many changes of this tenant are waiting",
        retry_after: Duration::from_secs(1),
    }
}
