//! Reminding people of invitations that wait, once for each link, where the tenant wants it.

use std::time::Duration;

use tokio::sync::watch;

use super::{letter, sql};
use crate::{app::App, error::Result, outbox};

const EVERY: Duration = Duration::from_secs(60);
/// How many are looked at together.
const BATCH: i64 = 100;

/// Reminds whoever it is time to remind, until it is told to stop. Any number of servers may do so.
pub async fn remind(app: App, mut stop: watch::Receiver<bool>) {
    loop {
        if let Err(error) = remind_now(&app).await {
            tracing::warn!(%error, "people were not reminded of their invitations");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Queues the reminders that are due now, and returns how many.
///
/// # Errors
/// When the database does not answer.
pub async fn remind_now(app: &App) -> Result<u64> {
    let mut queued = 0;
    loop {
        let due = sql::due_for_reminder(&app.pool, app.clock.now(), BATCH).await?;
        let more = due.len() == usize::try_from(BATCH).unwrap_or(usize::MAX);
        for waiting in due {
            let mail = letter::reminder(&app.pool, &waiting).await?;
            queued += u64::from(outbox::queue_reminder(app, waiting.tenant, &mail).await?);
        }
        if !more {
            return Ok(queued);
        }
    }
}
