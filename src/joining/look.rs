//! What a link leads to, for the page that shows it. Looking uses nothing up: mail scanners look, too.

use super::{Link, sql, unknown};
use crate::{
    app::App,
    decision::{InvitationStatus, Time},
    error::Result,
    ids::{Key, UserId},
    invitations::{self, Invitation},
};

/// Where a link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    Open,
    Expired,
    Replaced,
    Cancelled,
    Declined,
    Accepted,
    /// Open, were the tenant.
    TenantSuspended,
}

/// An invitation as its person sees it.
#[derive(Debug, Clone)]
pub struct Look {
    pub state: LinkState,
    pub tenant: Key,
    pub tenant_name: String,
    pub email: String,
    pub has_account: bool,
    /// Empty when no person invited.
    pub inviter_name: String,
    pub offers: Vec<Offer>,
    pub message: String,
    pub language: String,
    pub expires_at: Time,
    pub first_name: String,
    pub last_name: String,
    pub home_url: String,
}

/// A role that is offered, by the names that people know.
#[derive(Debug, Clone)]
pub struct Offer {
    pub role: String,
    /// Empty: the tenant.
    pub workspace: String,
    pub path: String,
    pub ends: Option<Time>,
}

/// Where a link of this generation leads, the tenant aside.
pub(super) fn state(invitation: &Invitation, generation: i32, now: Time) -> LinkState {
    match invitation.status {
        InvitationStatus::Accepted => LinkState::Accepted,
        InvitationStatus::Cancelled => LinkState::Cancelled,
        _ if invitation.generation != generation => LinkState::Replaced,
        InvitationStatus::Declined => LinkState::Declined,
        InvitationStatus::Pending if invitation.expires_at > now => LinkState::Open,
        InvitationStatus::Pending | InvitationStatus::Expired => LinkState::Expired,
    }
}

/// Shows what a link leads to.
///
/// # Errors
/// `NOT_FOUND` when there is no such invitation.
pub async fn look(app: &App, link: &Link) -> Result<Look> {
    let found = invitations::find(&app.pool, link.tenant, link.invitation).await?;
    let invitation = found.ok_or_else(unknown)?;
    let place = sql::place(&app.pool, link.tenant).await?;
    let inviter_name = match invitation.invited_by.parse::<UserId>() {
        Ok(inviter) => invitations::name_of(&app.pool, link.tenant, inviter).await?,
        Err(_) => String::new(),
    };
    let account = super::find_account(&app.pool, &invitation).await?;
    let (language, now) = (invitation.language.clone(), app.clock.now());
    let offers = sql::offers(&app.pool, link.tenant, link.invitation, &language, now).await?;
    let state = match state(&invitation, link.generation, now) {
        LinkState::Open if place.status.is_closed() => LinkState::TenantSuspended,
        state => state,
    };
    Ok(Look {
        state,
        tenant: link.key.clone(),
        tenant_name: place.name,
        email: invitation.email.as_str().to_owned(),
        has_account: account.is_some(),
        inviter_name,
        offers,
        message: invitation.message,
        language,
        expires_at: invitation.expires_at,
        first_name: invitation.profile.first_name,
        last_name: invitation.profile.last_name,
        home_url: place.home_url,
    })
}
