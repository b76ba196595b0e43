//! Sessions: signed-in people, each in one tenant. A token proves itself, so the rows are for the lists
//! that people see; ending a session is an event, opening one with a password is not.

mod open;
mod rpc;
mod sql;
mod throttle;

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    access::Claim,
    app::App,
    assignments,
    caller::Call,
    change::{self, Change, Event, Options},
    decision::{MemberStatus, Record, SessionEnd, TenantStatus, Time},
    error::{Error, Result},
    ids::{Key, SessionId, SubjectId, UserId},
};

pub use open::{Choice, Opened, SignIn, SignedIn, prove, sign_in, switch};
pub use throttle::forget_failures;

#[derive(Debug, Clone)]
pub struct Session {
    pub id: SessionId,
    pub user: UserId,
    pub tenant: Key,
    pub created_at: Time,
    pub expires_at: Time,
    /// As far as it is written.
    pub last_used_at: Time,
    /// The network address and the program it was opened from.
    pub source: String,
    pub user_agent: String,
}

/// A session for somebody whom another product signed in.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub user: UserId,
    pub source: String,
    pub user_agent: String,
    /// Opened for the person rather than by them.
    pub by_service: bool,
}

/// Opens a session for a member who may do no more than the caller.
///
/// # Errors
/// `NOT_FOUND` for who is no member; `FAILED_PRECONDITION` for who has no access now;
/// `PERMISSION_DENIED` with the reason `MEMBER_OUTRANKS_CALLER`.
pub async fn create(change: &mut Change, new: NewSession) -> Result<Opened> {
    let user = new.user;
    let tenant = change.tenant().key.clone();
    let entry = sql::entry(change.conn(), tenant.as_str(), user).await?;
    let entry = entry.filter(|entry| entry.member_status != MemberStatus::Removed);
    let entry = entry.ok_or_else(|| unknown_member(user))?;
    let refuse = |reason, message: String| Err(Error::precondition(reason, user, message));
    if entry.tenant_status != TenantStatus::Active {
        return refuse(
            "TENANT_NOT_ACTIVE",
            format!("tenant `{tenant}` is not active; activate it"),
        );
    }
    if entry.member_status == MemberStatus::Suspended {
        return refuse(
            "MEMBERSHIP_SUSPENDED",
            format!("{user} is suspended here; reactivate them"),
        );
    }
    if entry.disabled {
        return refuse(
            "ACCOUNT_DISABLED",
            format!("{user} is disabled; an operator can enable it"),
        );
    }
    if sql::is_of_installation(change.conn(), user).await? {
        return Err(Error::Denied {
            reason: "MEMBER_OUTRANKS_CALLER",
            message: format!("{user} has rights on the installation; they sign in themselves"),
        });
    }
    assignments::require_no_more(change, SubjectId::User(user)).await?;
    let app = change.app().clone();
    let (id, now) = (change.id()?, change.now());
    let opened = open::insert(&app, change.conn(), &entry, new, id, now, None).await?;
    // The session itself is bookkeeping; that a service opened it for a person is told.
    let event =
        Event::new("session.created", user).change("session", &String::new(), &id.to_string());
    change.record(event)?;
    Ok(opened)
}

/// Ends one session; one that has ended already stays as it is.
///
/// # Errors
/// `NOT_FOUND` for a session that never was in this tenant.
pub async fn end(change: &mut Change, session: SessionId) -> Result<()> {
    let found = sql::lock(change, session).await?;
    let (end, ended) = found.ok_or_else(|| Error::not_found("session", session))?;
    if ended || end.expires <= change.now() {
        return Ok(());
    }
    sql::end(change, session).await?;
    record_end(change, end)
}

/// Ends every session of a member in this tenant.
///
/// # Errors
/// `NOT_FOUND` for who is no member.
pub async fn end_all(change: &mut Change, user: UserId) -> Result<()> {
    let ended = sql::end_all(change, user).await?.ok_or_else(|| unknown_member(user))?;
    ended.into_iter().try_for_each(|end| record_end(change, end))
}

/// Erases the sessions of somebody who left the tenant of this change, and when they were seen.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change, user: UserId) -> Result<u64> {
    sql::delete(change, user).await
}

/// Ends every live session of a person but one, in all tenants; returns how many.
///
/// Locks the account first, so that nobody signs in beside it with what is just being changed.
///
/// # Errors
/// When the database does not answer.
pub async fn end_others(change: &mut Change, user: UserId, keep: SessionId) -> Result<usize> {
    let ended = sql::end_others(change, user, keep).await?;
    let count = ended.len();
    for end in ended {
        record_end(change, end)?;
    }
    Ok(count)
}

/// How often it is written which sessions were used.
pub const BATCH: Duration = Duration::from_secs(30);
/// How long a use may stay unwritten, on whichever server: nothing is idle before that.
const GRACE: TimeDelta = TimeDelta::seconds(90);
/// The most uses written by one statement.
const CHUNK: usize = 5_000;

/// Writes which sessions were used since the last time.
///
/// # Errors
/// When the database does not answer.
pub async fn write_activity(app: &App) -> Result<()> {
    for chunk in app.activity.take().chunks(CHUNK) {
        sql::write_uses(&app.pool, chunk).await?;
    }
    Ok(())
}

/// Ends the sessions that nobody used for as long as their tenant allows; returns how many. Late by a
/// few batches of activity, never early.
///
/// # Errors
/// When the database does not answer.
pub async fn end_idle(app: &App) -> Result<usize> {
    let mut count = 0;
    for (tenant, sessions) in sql::idle(&app.pool, app.clock.now(), GRACE).await? {
        count += sessions.len();
        let call = Call::installation();
        let claim = Claim::installation(&call, tenant.as_str())?;
        let options = Options::default();
        change::run(app, &call, claim, options, sessions, |change, sessions| {
            Box::pin(async move {
                for session in sessions {
                    // It may have been used while this change waited for its turn.
                    if sql::is_idle(change, session, GRACE).await? {
                        end(change, session).await?;
                    }
                }
                Ok(())
            })
        })
        .await?;
    }
    Ok(count)
}

fn unknown_member(user: UserId) -> Error {
    Error::not_found("member", user)
}

fn record_end(change: &mut Change, end: SessionEnd) -> Result<()> {
    change.record(Event::new("session.ended", end.user).after(Record::SessionEnd(end)))
}
