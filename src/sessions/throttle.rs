//! How often a sign-in may fail. Each address, each source and each pair of them has an allowance that
//! refills; a success is not counted. Unknown addresses are treated as known ones, and a source that
//! has signed in to the account before is not held up by what others try on it.

use chrono::TimeDelta;

use super::sql;
use crate::{
    app::App,
    error::{Error, Result},
    text::Email,
};

/// So many failures at once, and then one in each interval.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    purpose: &'static str,
    burst: i32,
    interval: TimeDelta,
}

const PAIR: Allowance = Allowance { purpose: "pair", burst: 10, interval: TimeDelta::seconds(36) };
const ADDRESS: Allowance =
    Allowance { purpose: "address", burst: 30, interval: TimeDelta::seconds(36) };
/// Wide, because a product that signs its people in has one address for all of them.
const SOURCE: Allowance =
    Allowance { purpose: "source", burst: 200, interval: TimeDelta::milliseconds(500) };

/// One attempt: what it counts against.
pub struct Attempt {
    counted: Vec<(Allowance, Vec<u8>)>,
}

impl Attempt {
    /// An address that is none counts against its source alone.
    pub fn new(app: &App, email: Option<&Email>, source: &str) -> Self {
        let key = |allowance: Allowance, parts: [&str; 2]| {
            let [first, second] = parts.map(str::as_bytes);
            let key = app
                .keys
                .digest("attempts", &[allowance.purpose.as_bytes(), &[0], first, &[0], second]);
            (allowance, key)
        };
        let mut counted = Vec::new();
        if let Some(email) = email {
            counted.push(key(PAIR, [email.canonical(), source]));
            counted.push(key(ADDRESS, [email.canonical(), ""]));
        }
        if !source.is_empty() {
            counted.push(key(SOURCE, ["", source]));
        }
        // In one order for everybody, so that two attempts never wait for each other.
        counted.sort_by(|a, b| a.1.cmp(&b.1));
        Self { counted }
    }

    /// Counts the attempt before it is made, so that many at once are counted too.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when an allowance is used up; the attempt is then not counted.
    pub async fn count(&self, app: &App, email: Option<&Email>, source: &str) -> Result<()> {
        let now = app.clock.now();
        let mut tx = app.pool.begin().await?;
        let familiar = match email {
            Some(email) if !source.is_empty() => {
                sql::is_familiar(&mut tx, email, source, now).await?
            }
            _ => false,
        };
        for (allowance, key) in &self.counted {
            let full_at = sql::count(&mut tx, key, now, allowance.interval).await?;
            let over = full_at - now - allowance.interval * allowance.burst;
            if over > TimeDelta::zero() && !(familiar && allowance.purpose == ADDRESS.purpose) {
                return Err(Error::Exhausted {
                    reason: "TOO_MANY_ATTEMPTS",
                    message: "too many sign-ins failed",
                    retry_after: over.to_std().unwrap_or_default(),
                });
            }
        }
        sql::forget_full(&mut tx, now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Takes back what [`Attempt::count`] counted.
    pub async fn forgive(&self, app: &App) -> Result<()> {
        let mut tx = app.pool.begin().await?;
        for (allowance, key) in &self.counted {
            sql::uncount(&mut tx, key, allowance.interval).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
