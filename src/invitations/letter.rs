//! The mails about an invitation.

use sqlx::PgPool;

use super::{
    Invitation,
    sql::{self, Recipient, Waiting},
};
use crate::{
    change::Change,
    decision::InvitationStatus,
    error::{Error, Result},
    ids::UserId,
    outbox::{self, Content, NewMail, Template},
    text::{self, Email},
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

/// The mail that reminds somebody of their invitation; its link is that of the invitation's own mail.
///
/// # Errors
/// When the database does not answer.
pub async fn reminder(pool: &PgPool, waiting: &Waiting) -> Result<NewMail> {
    let inviter = match waiting.invited_by.parse::<UserId>() {
        Ok(user) => sql::name_of(pool, waiting.tenant, user).await?,
        Err(_) => String::new(),
    };
    let content = content([
        ("tenant", waiting.tenant_name.as_str()),
        ("inviter", &inviter),
        ("message", &waiting.message),
        ("expires", &text::moment(waiting.expires_at, &waiting.language)),
    ]);
    Ok(NewMail {
        template: Template::Reminder,
        language: waiting.language.clone(),
        to: Email::parse("email", &waiting.email).map_err(Error::internal)?,
        name: waiting.name.clone(),
        invitation: Some((waiting.invitation, waiting.generation)),
        account: None,
        content,
    })
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
