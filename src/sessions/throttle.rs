//! How often a sign-in may fail: for each address, each source and each pair of them. A success does not
//! count. Unknown addresses are treated as known ones, and a source that has signed in to the account
//! before is not held up by what others try on it.

use chrono::TimeDelta;

use super::sql;
use crate::{
    app::App,
    attempts::{self, Limit},
    error::Result,
    text::Email,
};

const PAIR: Limit = Limit { what: "sign-in-pair", most: 10, period: TimeDelta::minutes(6) };
const ADDRESS: Limit = Limit { what: "sign-in-address", most: 50, period: TimeDelta::minutes(30) };
/// Wide, because a product that signs its people in has one source for all of them.
const SOURCE: Limit = Limit { what: "sign-in-source", most: 500, period: TimeDelta::minutes(5) };

/// An attempt, and what it counted against.
pub struct Attempt(Vec<(Limit, String)>);

/// Counts an attempt before it is made, so that many at once are counted too. What is no address counts
/// against its source alone.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` after too many failures.
pub async fn count(app: &App, email: Option<&Email>, source: &str) -> Result<Attempt> {
    let mut counted = Vec::new();
    if let Some(email) = email {
        let address = email.canonical();
        counted.push((PAIR, format!("{address} {source}")));
        let known = !source.is_empty();
        if !known || !sql::is_familiar(&app.pool, email, source, app.clock.now()).await? {
            counted.push((ADDRESS, address.to_owned()));
        }
    }
    if !source.is_empty() {
        counted.push((SOURCE, source.to_owned()));
    }
    for (limit, who) in &counted {
        attempts::count(app, *limit, who).await?;
    }
    Ok(Attempt(counted))
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
