//! What the pages behind the links of recovery show and do.

use secrecy::SecretString;

use super::{Link, check, dead};
use crate::{
    accounts::{self, User},
    app::App,
    caller::Call,
    change::{self, Options},
    error::Result,
    ids::Key,
};

/// Whose password a link replaces. Looking uses nothing up.
///
/// # Errors
/// `NOT_FOUND` for a dead link.
pub async fn look_at_reset(app: &App, link: &Link) -> Result<User> {
    let account = accounts::find(&app.pool, link.user).await?.ok_or_else(dead)?;
    check(&account, account.reset_generation, link)?;
    Ok(account.user)
}

/// Whose address a link changes, and to which. Looking uses nothing up.
///
/// # Errors
/// `NOT_FOUND` for a dead link.
pub async fn look_at_email(app: &App, link: &Link) -> Result<(User, String)> {
    let account = accounts::find(&app.pool, link.user).await?.ok_or_else(dead)?;
    check(&account, account.email_generation, link)?;
    let email = account.pending_email.ok_or_else(dead)?;
    Ok((account.user, email))
}

/// Sets a new password.
///
/// # Errors
/// What [`super::prepare`] and [`super::reset`] refuse.
pub async fn set_password(
    app: &App,
    call: &Call,
    link: Link,
    password: SecretString,
) -> Result<()> {
    let hash = super::prepare(app, call, &link, password).await?;
    let claim = call.claim_link(Key::SYSTEM)?;
    change::run(app, call, claim, Options::default(), (link, hash), |change, (link, hash)| {
        Box::pin(async move { super::reset(change, &link, &hash).await })
    })
    .await
}

/// Lets a new address count.
///
/// # Errors
/// What [`super::confirm_email`] refuses.
pub async fn confirm(app: &App, call: &Call, link: Link) -> Result<()> {
    let claim = call.claim_link(Key::SYSTEM)?;
    change::run(app, call, claim, Options::default(), link, |change, link| {
        Box::pin(async move { super::confirm_email(change, &link).await.map(drop) })
    })
    .await
}
