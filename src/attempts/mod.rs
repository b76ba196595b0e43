//! Attempts: how fast somebody may try what can be guessed or abused, counted over all replicas. Who
//! tries too fast is delayed, a little by waiting and else by being told when to come again; nobody is
//! locked out, and every interval lets one more attempt pass.
//!
//! Owns the count alone; what is limited, and on whom it is counted, the operations say.

mod sql;

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    app::App,
    error::{Error, Result},
};

/// The longest that an attempt waits here rather than at its caller's.
const PATIENCE: TimeDelta = TimeDelta::seconds(2);

/// So many attempts at once, and then one in every interval.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Keeps the counts of different things apart.
    pub what: &'static str,
    pub burst: i32,
    pub every: TimeDelta,
}

/// Counts an attempt before it is made, and waits where it comes a little too fast. `who` is what it is
/// counted on, such as a canonical address.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` with the reason `TOO_MANY_ATTEMPTS` where it would have to wait longer; it then
/// does not count.
pub async fn count(app: &App, limit: Limit, who: &str) -> Result<()> {
    let (now, key) = (app.clock.now(), key(app, limit, who));
    let due = sql::count(&app.pool, &key, now, limit.every).await?;
    let wait = due - limit.every * limit.burst - now;
    let Ok(pause) = wait.to_std() else { return Ok(()) };
    if wait > PATIENCE {
        sql::forgive(&app.pool, &key, limit.every).await?;
        return Err(Error::Exhausted {
            reason: "TOO_MANY_ATTEMPTS",
            message: "this was tried too often",
            retry_after: pause.max(Duration::from_secs(1)),
        });
    }
    tokio::time::sleep(pause).await;
    Ok(())
}

/// Forgets the attempts, after one that succeeded.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(app: &App, limit: Limit, who: &str) -> Result<()> {
    sql::forget(&app.pool, &key(app, limit, who)).await
}

/// Takes one attempt back that did not fail, where others still count.
///
/// # Errors
/// When the database does not answer.
pub async fn forgive(app: &App, limit: Limit, who: &str) -> Result<()> {
    sql::forgive(&app.pool, &key(app, limit, who), limit.every).await
}

fn key(app: &App, limit: Limit, who: &str) -> Vec<u8> {
    app.keys.digest("attempts", &[limit.what.as_bytes(), &[0], who.as_bytes()])
}
