//! How fast sign-ins may fail: for each address, each source, each pair of them, and each tenant. A
//! success does not count. Unknown addresses and tenants are treated as known ones, and a source that has
//! signed in to the account before is not held up by what others try on it.

use chrono::TimeDelta;

use super::sql;
use crate::{
    app::App,
    attempts::{self, Limit},
    error::Result,
    text::Email,
};

const PAIR: Limit = Limit { what: "sign-in-pair", burst: 10, every: TimeDelta::seconds(30) };
const ADDRESS: Limit = Limit { what: "sign-in-address", burst: 50, every: TimeDelta::seconds(20) };
/// Wide, because a product that signs its people in has one source for all of them.
const SOURCE: Limit =
    Limit { what: "sign-in-source", burst: 500, every: TimeDelta::milliseconds(600) };
const TENANT: Limit =
    Limit { what: "sign-in-tenant", burst: 1_000, every: TimeDelta::milliseconds(100) };

/// An attempt, and what it counted against.
#[derive(Default)]
pub struct Attempt(Vec<(Limit, String)>);

/// Counts an attempt before it is made, so that many at once are counted too. What is no address counts
/// against its source and tenant alone.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` after too many failures.
pub async fn count(
    app: &App,
    email: Option<&Email>,
    source: &str,
    tenant: &str,
) -> Result<Attempt> {
    let mut limits = Vec::new();
    // What a source counts for itself where it is familiar: as much, so that it takes as long.
    let mut alone = String::new();
    if let Some(email) = email {
        let address = email.canonical();
        let pair = format!("{address} {source}");
        if !source.is_empty() && sql::is_familiar(&app.pool, email, source, app.clock.now()).await?
        {
            alone = format!(" {pair}");
        }
        limits.push((PAIR, pair));
        limits.push((ADDRESS, format!("{address}{alone}")));
    }
    if !source.is_empty() {
        limits.push((SOURCE, source.to_owned()));
    }
    if !tenant.is_empty() {
        limits.push((TENANT, format!("{tenant}{alone}")));
    }
    let mut attempt = Attempt::default();
    for (limit, who) in limits {
        if let Err(refusal) = attempts::count(app, limit, &who).await {
            // It was not made, so nothing of it counts.
            attempt.forgive(app).await?;
            return Err(refusal);
        }
        attempt.0.push((limit, who));
    }
    Ok(attempt)
}

/// Forgets what was counted against an address, also from this source.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_failures(app: &App, email: &Email, source: &str) -> Result<()> {
    let address = email.canonical();
    let pair = format!("{address} {source}");
    attempts::forget(app, PAIR, &pair).await?;
    attempts::forget(app, ADDRESS, address).await?;
    attempts::forget(app, ADDRESS, &format!("{address} {pair}")).await
}

impl Attempt {
    /// Takes back what [`count`] counted.
    pub async fn forgive(&self, app: &App) -> Result<()> {
        for (limit, who) in &self.0 {
            attempts::forgive(app, *limit, who).await?;
        }
        Ok(())
    }
}
