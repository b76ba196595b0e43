//! What becomes of an invitation by its own person: accepted, declined, or asked for again.

use super::{Invitation, letter, sql};
use crate::{
    change::{Change, Event},
    decision::InvitationStatus,
    error::Result,
    ids::UserId,
    outbox,
};

/// The most administrators who are told of a request.
const MOST_TOLD: usize = 5;

/// Uses an invitation up; `skipped` are the roles that could not be given any more.
///
/// # Errors
/// `ABORTED` when it is not as it was read.
pub async fn accept(
    change: &mut Change,
    before: &Invitation,
    user: UserId,
    skipped: &[String],
) -> Result<()> {
    let mut after = before.next(InvitationStatus::Accepted);
    after.accepted_by = Some(user);
    sql::update(change, before, &after).await?;
    let event = Event::new("invitation.accepted", before.id)
        .before(before.record())
        .after(after.record())
        .change("skipped_roles", &[].as_slice(), &skipped)
        .change("accepted_by", &None, &Some(user));
    change.record(event)
}

/// Ends a pending invitation by the will of its person.
///
/// # Errors
/// `ABORTED` when it is not as it was read.
pub async fn decline(change: &mut Change, before: &Invitation) -> Result<()> {
    let after = before.next(InvitationStatus::Declined);
    sql::update(change, before, &after).await?;
    outbox::withdraw(change, before.id, "the invitation was declined").await?;
    let event = Event::new("invitation.declined", before.id);
    change.record(event.before(before.record()).after(after.record()))
}

/// Tells whoever invited, or the administrators when they are gone, that the person asks for a new link.
///
/// # Errors
/// When the database does not answer.
pub async fn request(change: &mut Change, invitation: &Invitation) -> Result<()> {
    let inviter = invitation.invited_by.parse::<UserId>().ok();
    let mut told = match inviter {
        // Only whoever could send a new one.
        Some(inviter) if super::inviter_vouches(change, invitation).await? => {
            sql::reachable(change, &[inviter]).await?
        }
        Some(_) | None => Vec::new(),
    };
    if told.is_empty() {
        let tenant = change.tenant().id;
        let mut administrators = change.administrators(tenant, MOST_TOLD).await?;
        administrators.truncate(MOST_TOLD);
        told = sql::reachable(change, &administrators).await?;
    }
    for recipient in told {
        letter::queue_request(change, invitation, recipient).await?;
    }
    change.record(Event::new("invitation.requested", invitation.id))
}
