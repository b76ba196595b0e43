//! Joining: accepting an invitation. Proves who comes with a link, and makes of the invitation an
//! account where there is none, a membership, and the roles that were promised.
//!
//! A refusal leaves the invitation as it was.

mod look;
mod page;
mod rpc;
mod sql;

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    accounts::{self, Credentials, NewUser},
    app::App,
    assignments,
    attempts::{self, Limit},
    caller::Call,
    change::Change,
    decision::{Credential, InvitationStatus, MemberKind, MemberStatus, TenantStatus, Time},
    error::{Error, Result},
    ids::{Holder, InvitationId, Key, SubjectId, TenantId, UserId},
    invitations::{self, Invitation, Promise},
    memberships::{self, NewMember, Profile},
    passwords::Passwords,
    tenants,
};

/// Passwords that may be tried with one link.
const GUESSES: Limit = Limit { what: "accept", burst: 10, every: TimeDelta::minutes(6) };

/// New links that may be asked for.
const REQUESTS: Limit = Limit { what: "invitation request", burst: 3, every: TimeDelta::hours(8) };
const DECLINED: &str = "INVITATION_DECLINED";

pub use look::{LinkState, Look, Offer, look};
pub use page::{ask, join, say_no};

/// A genuine link; whether it is still good is judged when it is used.
#[derive(Debug, Clone)]
pub struct Link {
    tenant: TenantId,
    key: Key,
    invitation: InvitationId,
    generation: i32,
}

/// How whoever comes with a link says who they are.
pub enum Means {
    /// By the session they call with, if any.
    Session,
    New {
        password: SecretString,
        /// Empty: that of the invitation.
        first_name: String,
        last_name: String,
    },
    Password(SecretString),
}

/// What was found out before the change, where passwords can take their time.
#[derive(Clone)]
pub enum Proof {
    Nothing,
    Session(UserId),
    /// The password of the account that had this hash.
    Password(UserId, SecretString),
    New {
        password_hash: SecretString,
        first_name: String,
        last_name: String,
    },
}

/// Reads the token of a link.
///
/// # Errors
/// `NOT_FOUND` for one that was not made here.
pub fn open(app: &App, token: &str) -> Result<Link> {
    let (tenant, invitation, generation) = app.keys.open_invitation(token).ok_or_else(unknown)?;
    let key = app.replica.facts().directory.tenant_keys.get(&tenant).cloned();
    Ok(Link { tenant, key: key.ok_or_else(unknown)?, invitation, generation })
}

/// Hashes or verifies the password, if the link is still good for something.
///
/// # Errors
/// `UNAUTHENTICATED` for a wrong password; `RESOURCE_EXHAUSTED` after too many; what [`accept`] refuses,
/// as far as it can be known before.
pub async fn prove(app: &App, call: &Call, link: &Link, means: Means) -> Result<Proof> {
    let found = invitations::find(&app.pool, link.tenant, link.invitation).await?;
    let invitation = check(found, link.generation, app.clock.now())?;
    let account = find_account(&app.pool, &invitation).await?;
    let accepted = invitation.status == InvitationStatus::Accepted;
    match (means, account) {
        (Means::Session, _) => Ok(signed_in(call).map_or(Proof::Nothing, Proof::Session)),
        (Means::Password(password), Some(account)) => verify(app, link, password, account).await,
        (Means::Password(_), None) => Err(account_needed()),
        (Means::New { .. }, Some(_)) if accepted => Ok(Proof::Nothing),
        (Means::New { .. }, Some(_)) => Err(account_exists()),
        // Nobody has the invited account yet, so the session is somebody else's.
        (Means::New { .. }, None) if signed_in(call).is_some() => Err(signed_in_as_another()),
        (Means::New { password, first_name, last_name }, None) => {
            Passwords::check("new_account.password", &password, invitation.email.as_str())?;
            let password_hash = app.passwords.hash(password).await?.into();
            Ok(Proof::New { password_hash, first_name, last_name })
        }
    }
}

async fn verify(
    app: &App,
    link: &Link,
    password: SecretString,
    account: Credentials,
) -> Result<Proof> {
    let who = link.invitation.to_string();
    attempts::count(app, GUESSES, &who).await?;
    let hash = account.password_hash.as_ref().map(ExposeSecret::expose_secret);
    let right = app.passwords.verify(password, hash).await?;
    match account.password_hash.filter(|_| right) {
        Some(hash) => {
            attempts::forget(app, GUESSES, &who).await?;
            Ok(Proof::Password(account.user.id, hash))
        }
        None => Err(password_wrong()),
    }
}

/// The account of the invited address, or the one that accepted.
async fn find_account(
    db: impl sqlx::PgExecutor<'_>,
    invitation: &Invitation,
) -> Result<Option<Credentials>> {
    match invitation.accepted_by {
        Some(user) => accounts::find(db, user).await,
        None => accounts::find_by_email(db, &invitation.email).await,
    }
}

/// The invitation, if the link leads to it and it can be, or was, accepted.
fn check(found: Option<Invitation>, generation: i32, now: Time) -> Result<Invitation> {
    let invitation = found.filter(|i| i.generation == generation).ok_or_else(unknown)?;
    let ended = |reason, message| Err(Error::precondition(reason, invitation.id, message));
    match look::state(&invitation, generation, now) {
        LinkState::Replaced | LinkState::Cancelled => Err(unknown()),
        LinkState::Expired => ended(
            "INVITATION_EXPIRED",
            "the invitation has expired; ask whoever invited you to send it again",
        ),
        LinkState::Declined => {
            ended(DECLINED, "the invitation was declined; ask whoever invited you to send it again")
        }
        LinkState::Open | LinkState::Accepted | LinkState::TenantSuspended => Ok(invitation),
    }
}

/// Makes whoever proved to be the invited person a member with the promised roles, and returns who.
///
/// # Errors
/// `NOT_FOUND`, `FAILED_PRECONDITION`, `PERMISSION_DENIED` and `UNAUTHENTICATED` as `AcceptInvitation`
/// documents them.
pub async fn accept(change: &mut Change, link: &Link, proof: Proof) -> Result<UserId> {
    let found = invitations::lock(change, link.invitation).await?;
    let invitation = check(found, link.generation, change.now())?;
    let account = find_account(change.conn(), &invitation).await?;
    let caller = signed_in(change.call());
    if caller.is_some() && caller != account.as_ref().map(|account| account.user.id) {
        return Err(signed_in_as_another());
    }
    if invitation.status == InvitationStatus::Accepted {
        return accepted_before(change, account, &proof).await;
    }
    if change.tenant().status.is_closed() {
        let message = "the tenant is closed; open the link again when it is not";
        return Err(Error::precondition("TENANT_SUSPENDED", &change.tenant().key, message));
    }
    invitations::require_any(change, &invitation).await?;
    if !invitations::inviter_vouches(change, &invitation).await? {
        let message = "whoever invited you may not give these roles any more; ask for a new link, \
                       which an administrator can send";
        return Err(Error::precondition("INVITER_LOST_RIGHT", invitation.id, message));
    }
    // Whoever made the tenant has chosen its first administrator.
    if change.tenant().status != TenantStatus::Pending {
        // Which domains are allowed is nothing for whoever has the link.
        memberships::require_domain(change, invitation.kind, &invitation.email).map_err(|_| {
            let message = "the tenant allows no address of this domain any more; ask whoever invited \
                           you to invite another address";
            Error::precondition("EMAIL_DOMAIN_NOT_ALLOWED", invitation.id, message)
        })?;
    }
    let profile = profile(&invitation.profile, &proof, account.as_ref());
    let user = match (account, proof) {
        (Some(account), proof) => proved(change, &account, &proof).await?,
        (None, Proof::New { password_hash, .. }) => {
            let new = NewUser {
                email: invitation.email.clone(),
                first_name: profile.first_name.clone(),
                last_name: profile.last_name.clone(),
                language: invitation.language.clone(),
                password_hash: Some(password_hash),
            };
            accounts::create(change, new).await?.id
        }
        (None, _) => return Err(account_needed()),
    };
    change.identify(user);
    enrol(change, &invitation, user, profile).await?;
    Ok(user)
}

async fn accepted_before(
    change: &mut Change,
    account: Option<Credentials>,
    proof: &Proof,
) -> Result<UserId> {
    let proved = match &account {
        Some(account) => proved(change, account, proof).await.ok(),
        None => None,
    };
    let user = proved.ok_or_else(used)?;
    // Whoever was removed since comes back by a new invitation.
    let member = memberships::find(change, user).await?;
    member.filter(|member| member.status != MemberStatus::Removed).map(|_| user).ok_or_else(used)
}

/// Who has the account, if the proof is of this one and it is open.
async fn proved(change: &mut Change, account: &Credentials, proof: &Proof) -> Result<UserId> {
    let id = account.user.id;
    let still = match proof {
        Proof::Session(user) if *user == id => true,
        // It may have been changed while the old one was verified.
        Proof::Password(user, hash) if *user == id => {
            accounts::confirm(change.conn(), id, hash).await?
        }
        Proof::Session(_) | Proof::Password(..) | Proof::New { .. } | Proof::Nothing => {
            return Err(account_exists());
        }
    };
    match (account.user.disabled, still) {
        (false, true) => Ok(id),
        (false, false) => Err(password_wrong()),
        (true, _) => Err(Error::Unauthenticated {
            reason: "ACCOUNT_DISABLED",
            message: "the account is disabled; ask an operator",
        }),
    }
}

/// What the tenant will know about the person: their own names before the inviter's.
fn profile(invited: &Profile, proof: &Proof, account: Option<&Credentials>) -> Profile {
    let mut profile = invited.clone();
    if let Proof::New { first_name, last_name, .. } = proof {
        for (known, own) in
            [(&mut profile.first_name, first_name), (&mut profile.last_name, last_name)]
        {
            if !own.is_empty() {
                known.clone_from(own);
            }
        }
    }
    if let Some(account) = account
        && profile.first_name.is_empty()
        && profile.last_name.is_empty()
    {
        profile.first_name.clone_from(&account.user.first_name);
        profile.last_name.clone_from(&account.user.last_name);
    }
    profile
}

async fn enrol(
    change: &mut Change,
    invitation: &Invitation,
    user: UserId,
    profile: Profile,
) -> Result<()> {
    memberships::add(change, NewMember { user, kind: invitation.kind, profile }).await?;
    let holder = Holder::Subject(SubjectId::User(user));
    let mut skipped = Vec::new();
    let mut administers = false;
    for promise in invitations::promises(change, invitation).await? {
        match promise {
            Promise::Kept(role) => {
                administers |= role.scope.text.is_empty()
                    && role.ends.is_none()
                    && change.facts()?.administering().any(|id| id == role.role.id);
                assignments::give(change, holder, &role).await?;
            }
            Promise::Void(what) => skipped.push(what),
        }
    }
    invitations::accept(change, invitation, user, &skipped).await?;
    if administers && invitation.kind == MemberKind::Internal {
        tenants::activate(change).await?;
    }
    Ok(())
}

/// Says no to an invitation. Saying so twice changes nothing.
///
/// # Errors
/// `NOT_FOUND`, and `FAILED_PRECONDITION` for one that has ended otherwise.
pub async fn decline(change: &mut Change, link: &Link) -> Result<()> {
    let found = invitations::lock(change, link.invitation).await?;
    let invitation = match check(found, link.generation, change.now()) {
        Err(Error::Precondition { reason: DECLINED, .. }) => return Ok(()),
        checked => checked?,
    };
    match invitation.status {
        InvitationStatus::Accepted => Err(used()),
        _ => invitations::decline(change, &invitation).await,
    }
}

/// Counts a request for a new link, before it is made.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` after too many.
pub async fn count_request(app: &App, link: &Link) -> Result<()> {
    attempts::count(app, REQUESTS, &link.invitation.to_string()).await
}

/// Asks whoever invited for a new link, also by one that is dead.
///
/// # Errors
/// `FAILED_PRECONDITION` when the invitation was accepted.
pub async fn request(change: &mut Change, link: &Link) -> Result<()> {
    let invitation = invitations::lock(change, link.invitation).await?.ok_or_else(unknown)?;
    match invitation.status {
        InvitationStatus::Accepted => Err(used()),
        _ => invitations::request(change, &invitation).await,
    }
}

/// The person whose own session calls. Somebody who acts for a person proves nothing about them.
fn signed_in(call: &Call) -> Option<UserId> {
    let authority = call.authority()?;
    match &authority.credential {
        Credential::Session(claims) if authority.on_behalf_of.is_none() && !claims.by_service => {
            Some(claims.user)
        }
        Credential::Session(_) | Credential::ApiKey(_) => None,
    }
}

fn signed_in_as_another() -> Error {
    Error::Denied {
        reason: "SIGNED_IN_AS_ANOTHER",
        message: "you are signed in with another account than the invited one; sign out, and open \
                  the link again"
            .to_owned(),
    }
}

fn unknown() -> Error {
    Error::no_link()
}

fn used() -> Error {
    let message = "the invitation was accepted before; sign in to the tenant";
    Error::precondition("INVITATION_ACCEPTED", "link", message)
}

fn account_exists() -> Error {
    let message = "there is an account for the invited address; give its password, or sign in";
    Error::precondition("ACCOUNT_EXISTS", "account", message)
}

fn account_needed() -> Error {
    let message = "there is no account for the invited address; choose a password for a new one";
    Error::precondition("ACCOUNT_NEEDED", "account", message)
}

const fn password_wrong() -> Error {
    Error::Unauthenticated {
        reason: "PASSWORD_WRONG",
        message: "the password is not that of the invited account; try again",
    }
}
