//! The security log: failed sign-ins and refused changes, for whoever looks after a tenant. It is apart
//! from the audit trail and bounded, so that an attacker fills neither.

mod rpc;
mod sql;

use chrono::TimeDelta;

use crate::{
    app::App,
    change::Change,
    decision::Time,
    error::Result,
    ids::UserId,
    random,
    refusals::{Kind, Times},
};

pub use rpc::list_security_events;

/// How long an entry is kept.
const KEPT: TimeDelta = TimeDelta::days(90);

/// An entry, which stands for all that were the same within a minute.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: uuid::Uuid,
    pub kind: Kind,
    pub reason: String,
    pub method: String,
    pub user: Option<UserId>,
    pub caller: String,
    pub source: String,
    pub count: i64,
    pub minute: Time,
    pub last_at: Time,
}

/// Which entries to list. Filters are joined by "and".
#[derive(Debug, Clone)]
pub struct Filter {
    pub kind: Option<Kind>,
    pub user: Option<UserId>,
    /// Empty: from anywhere.
    pub source: String,
    pub from: Option<Time>,
    pub until: Option<Time>,
}

/// Writes what was refused since the last time, and deletes some of what is too old.
///
/// # Errors
/// When the database does not answer.
pub async fn flush(app: &App) -> Result<()> {
    for (tenant, refusal, Times { count, last }) in app.refusals.take() {
        let id = random::id::<uuid::Uuid>(last)?;
        sql::upsert(&app.pool, tenant, id, &refusal, count, last).await?;
    }
    sql::forget(&app.pool, app.clock.now() - KEPT).await
}

/// Erases what the log says about somebody whom the tenant of this change forgets.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change, user: UserId) -> Result<()> {
    sql::erase(change, user).await
}

/// Erases it in every tenant, for when the account goes.
///
/// # Errors
/// When the database does not answer.
pub async fn erase_everywhere(change: &mut Change, user: UserId) -> Result<()> {
    sql::erase_everywhere(change, user).await
}

/// Erases all that it says about the tenant of this change.
///
/// # Errors
/// When the database does not answer.
pub async fn erase_all(change: &mut Change) -> Result<()> {
    sql::erase_all(change).await
}
