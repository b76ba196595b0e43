//! The mails about an invitation.

use super::{Invitation, sql, sql::Recipient};
use crate::{
    change::Change,
    decision::InvitationStatus,
    error::Result,
    outbox::{self, Content, NewMail, Template},
    text,
};

/// Queues the mail with the link of the invitation's present generation.
///
/// # Errors
/// When the database does not answer.
pub async fn queue(change: &mut Change, invitation: &Invitation) -> Result<()> {
    let tenant = change.tenant().id;
    let inviter = match change.call().person() {
        Some(user) => sql::name_of(change.conn(), tenant, user).await?,
        None => String::new(),
    };
    let content = content([
        ("tenant", change.tenant().display_name.as_str()),
        ("inviter", &inviter),
        ("message", &invitation.message),
        ("expires", &text::moment(invitation.expires_at, &invitation.language)),
    ]);
    let mail = NewMail {
        template: Template::Invitation,
        language: invitation.language.clone(),
        to: invitation.email.clone(),
        name: invitation.name(),
        invitation: Some((invitation.id, invitation.generation)),
        account: None,
        content,
    };
    outbox::queue(change, &mail).await?;
    Ok(())
}

/// Queues the mail that tells somebody who can renew the invitation that its person asks for it.
///
/// # Errors
/// When the database does not answer.
pub async fn queue_request(
    change: &mut Change,
    invitation: &Invitation,
    to: Recipient,
) -> Result<()> {
    let state = match invitation.status {
        InvitationStatus::Pending if invitation.expires_at > change.now() => "pending",
        InvitationStatus::Pending | InvitationStatus::Expired => "expired",
        InvitationStatus::Cancelled => "cancelled",
        InvitationStatus::Declined => "declined",
        InvitationStatus::Accepted => "accepted",
    };
    let content = content([
        ("tenant", change.tenant().display_name.as_str()),
        ("email", invitation.email.as_str()),
        ("person", &invitation.name()),
        ("state", state),
    ]);
    let mail = NewMail {
        template: Template::Request,
        language: to.language,
        to: to.email,
        name: to.name,
        invitation: None,
        account: None,
        content,
    };
    outbox::queue(change, &mail).await?;
    Ok(())
}

fn content<const N: usize>(values: [(&str, &str); N]) -> Content {
    values.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
