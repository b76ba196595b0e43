//! Sessions: signed-in people, each in one tenant. A token proves itself, so the rows are for the lists
//! that people see; ending a session is an event, opening one with a password is not.

mod sql;

use crate::{
    change::{Change, Event},
    decision::{Record, SessionEnd},
    error::Result,
    ids::{SessionId, UserId},
};

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

fn record_end(change: &mut Change, end: SessionEnd) -> Result<()> {
    let event = Event::new("session.ended", end.session).after(Record::SessionEnd(end));
    change.record(event)
}
