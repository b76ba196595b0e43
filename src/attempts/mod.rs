//! Attempts: how often somebody may try what can be guessed or abused, counted over all replicas.
//!
//! Owns the count alone; what is limited, and on whom it is counted, the operations say.

mod sql;

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    app::App,
    error::{Error, Result},
};

/// So many attempts in a period; the next period begins with the first attempt after it.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Keeps the counts of different things apart.
    pub what: &'static str,
    pub most: i32,
    pub period: TimeDelta,
}

/// Counts an attempt, before it is made. `who` is what it is counted on, such as a canonical address.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` with the reason `TOO_MANY_ATTEMPTS` above the limit.
pub async fn count(app: &App, limit: Limit, who: &str) -> Result<()> {
    let now = app.clock.now();
    let (count, since) = sql::count(&app.pool, &key(app, limit, who), now, limit.period).await?;
    if count <= limit.most {
        return Ok(());
    }
    let rest = (since + limit.period - now).to_std().unwrap_or_default();
    Err(Error::Exhausted {
        reason: "TOO_MANY_ATTEMPTS",
        message: "this was tried too often",
        retry_after: rest.max(Duration::from_secs(1)),
    })
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
    sql::forgive(&app.pool, &key(app, limit, who)).await
}

fn key(app: &App, limit: Limit, who: &str) -> Vec<u8> {
    app.keys.digest("attempts", &[limit.what.as_bytes(), &[0], who.as_bytes()])
}
