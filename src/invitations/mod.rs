//! Invitations: how people join a tenant. Owns who is invited, as what and until when; the link that
//! proves an invitation is derived from the installation's key and only ever travels by mail. What
//! accepting one does is in `joining`.

mod letter;
mod list;
mod person;
mod promise;
mod reminder;
mod rpc;
mod sql;

use chrono::TimeDelta;
use sqlx::PgPool;

pub use list::{Filter, ShownInvitation, ShownRole, list, shown_now};
pub use person::{accept, decline, request};
pub use promise::{Promise, inviter_vouches, promises, require_any};
pub use reminder::{remind, remind_now};
pub use rpc::read_status;
pub use sql::name_of;

use crate::{
    access::{Claim, claim_first},
    accounts,
    app::App,
    assignments::{self, NewAssignment, Resolved},
    caller::Call,
    change::{Change, Event},
    decision::{InvitationStatus, InvitedRole, MemberKind, MemberStatus, Record, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{InvitationId, TenantId, UserId, WorkspaceId},
    memberships::{self, Profile},
    text::Email,
};

/// The key of the built-in role that a promised administrator gets.
const ADMINISTRATOR: &str = "administrator";

#[derive(Debug, Clone)]
pub struct Invitation {
    pub id: InvitationId,
    pub email: Email,
    pub kind: MemberKind,
    pub profile: Profile,
    pub message: String,
    /// `en` or `fr`.
    pub language: String,
    /// As it is stored: a pending one may be past its time.
    pub status: InvitationStatus,
    /// Links of an earlier generation are dead.
    pub generation: i32,
    pub expires_at: Time,
    /// Who invited, or last sent it again: whoever vouches for the roles.
    pub invited_by: String,
    pub accepted_by: Option<UserId>,
    pub roles: Vec<InvitedRole>,
    pub version: i64,
    pub created_at: Time,
}

impl Invitation {
    fn record(&self) -> Record {
        Record::Invitation(crate::decision::Invitation {
            id: self.id,
            kind: self.kind,
            status: self.status,
            generation: self.generation,
            expires: self.expires_at,
            roles: self.roles.clone(),
        })
    }

    /// What the inviter calls the person; may be empty.
    fn name(&self) -> String {
        format!("{} {}", self.profile.first_name, self.profile.last_name).trim().to_owned()
    }

    /// The next state of the invitation, to be filled in.
    fn next(&self, status: InvitationStatus) -> Self {
        Self { status, version: self.version + 1, ..self.clone() }
    }
}

#[derive(Debug, Clone)]
pub struct NewInvitation {
    pub email: Email,
    pub kind: MemberKind,
    pub profile: Profile,
    pub roles: Vec<NewAssignment>,
    pub message: String,
    /// `None`: the tenant's.
    pub language: Option<String>,
}

/// Invites a person with roles that the caller may give, or with the tenant's default role, and queues
/// the mail. One role that is refused refuses everything.
///
/// # Errors
/// `PERMISSION_DENIED` and `INVALID_ARGUMENT` for a role; `ALREADY_EXISTS` for a member or a person with
/// an open invitation; `FAILED_PRECONDITION` for a domain that is not allowed.
pub async fn create(change: &mut Change, new: NewInvitation) -> Result<InvitationId> {
    change.require_kept()?;
    let mut roles = assignments::resolve_all(change, &new.roles).await?;
    if let ([], Some(default)) = (roles.as_slice(), change.tenant().default_role) {
        roles.push(assignments::unchosen(change, default)?);
    }
    // How long a role lasts at most counts from when it is given, so only a chosen end is promised.
    let chosen = new.roles.iter().map(|role| role.ends).chain(std::iter::repeat(None));
    roles.iter_mut().zip(chosen).for_each(|(role, ends)| role.ends = ends);
    memberships::require_domain(change, new.kind, &new.email)?;
    check_stranger(change, &new.email).await?;
    insert(change, new, &roles).await
}

/// Invites one of many: where it is refused nothing of it happened, and the change goes on.
///
/// # Errors
/// When the change cannot go on; the inner result is that of [`create`].
pub async fn create_among(change: &mut Change, new: NewInvitation) -> Result<Result<InvitationId>> {
    let mark = change.mark().await?;
    let made = match require_scopes(change, &new).await {
        Ok(()) => create(change, new).await,
        Err(refusal) => Err(refusal),
    };
    change.settle(mark, made).await
}

/// Refuses unless the caller may invite such a person on each scope of the roles, or on the tenant.
async fn require_scopes(change: &mut Change, new: &NewInvitation) -> Result<()> {
    let permission = permission(new.kind);
    if new.roles.is_empty() {
        return change.require(permission, "");
    }
    for role in &new.roles {
        let found = change.scope(&format!("{}.scope", role.field), &role.scope).await;
        match found {
            // Only whoever may invite everywhere learns that there is no such workspace.
            Err(unknown) if change.require(permission, "").is_ok() => return Err(unknown),
            Ok(_) | Err(_) => change.require(permission, &role.scope)?,
        }
    }
    Ok(())
}

/// The first administrator of a tenant that was just made.
#[derive(Debug, Clone)]
pub struct NewAdministrator {
    pub email: Email,
    pub first_name: String,
    pub last_name: String,
    /// `None`: the tenant's.
    pub language: Option<String>,
}

/// Invites the first administrator; accepting opens the tenant.
///
/// # Errors
/// `INVALID_ARGUMENT` when the tenant lacks its built-in roles.
pub async fn promise_administrator(
    change: &mut Change,
    administrator: NewAdministrator,
) -> Result<InvitationId> {
    let role = change.role("administrator", ADMINISTRATOR)?;
    let role = assignments::unchosen(change, role.id)?;
    let NewAdministrator { email, first_name, last_name, language } = administrator;
    let new = NewInvitation {
        email,
        kind: MemberKind::Internal,
        profile: Profile { first_name, last_name, ..Profile::default() },
        roles: Vec::new(),
        message: String::new(),
        language,
    };
    insert(change, new, &[role]).await
}

async fn insert(
    change: &mut Change,
    new: NewInvitation,
    roles: &[Resolved],
) -> Result<InvitationId> {
    let invited: Vec<InvitedRole> = roles.iter().map(promise::invited).collect();
    let invitation = Invitation {
        id: change.id()?,
        email: new.email,
        kind: new.kind,
        profile: new.profile,
        message: new.message,
        language: new.language.unwrap_or_else(|| change.tenant().language.clone()),
        status: InvitationStatus::Pending,
        generation: 1,
        expires_at: expiry(change, &invited),
        invited_by: inviter(change),
        accepted_by: None,
        roles: invited,
        version: 1,
        created_at: change.now(),
    };
    sql::insert(change, &invitation).await?;
    letter::queue(change, &invitation).await?;
    let (id, profile) = (invitation.id, &invitation.profile);
    let promises = roles.iter().map(promise::named).collect::<Vec<_>>();
    let mut event = Event::new("invitation.created", id).after(invitation.record()).change(
        "promises",
        &Vec::new(),
        &promises,
    );
    for (field, value) in [
        ("email", invitation.email.as_str()),
        ("first_name", &profile.first_name),
        ("last_name", &profile.last_name),
        ("department", &profile.department),
        ("job_title", &profile.job_title),
        ("phone", &profile.phone),
        ("location", &profile.location),
        ("message", &invitation.message),
    ] {
        event = event.personal(id, field, &"", &value);
    }
    change.record(event)?;
    Ok(id)
}

/// Sends a new link with a new lifetime; the old link is dead.
///
/// # Errors
/// `NOT_FOUND`; `FAILED_PRECONDITION` when it was accepted or cancelled; refusals as in [`create`].
pub async fn resend(change: &mut Change, id: InvitationId, etag: &str) -> Result<()> {
    let before = lock_for_caller(change, id).await?;
    check_etag(etag, before.version)?;
    if matches!(before.status, InvitationStatus::Accepted | InvitationStatus::Cancelled) {
        return Err(ended(&before));
    }
    change.require_kept()?;
    promise::require_any(change, &before).await?;
    promise::require_gifts(change, &before).await?;
    memberships::require_domain(change, before.kind, &before.email)?;
    match before.status {
        // Somebody may have invited the person anew since.
        InvitationStatus::Expired | InvitationStatus::Declined => {
            check_stranger(change, &before.email).await?;
        }
        _ => check_not_member(change, &before.email).await?,
    }
    let mut after = before.next(InvitationStatus::Pending);
    after.generation += 1;
    after.expires_at = expiry(change, &before.roles);
    after.invited_by = inviter(change);
    sql::update(change, &before, &after).await?;
    crate::outbox::withdraw(change, id, "a newer mail replaced it").await?;
    letter::queue(change, &after).await?;
    let event = Event::new("invitation.resent", id);
    change.record(event.before(before.record()).after(after.record()))
}

/// Ends an invitation; its link is dead.
///
/// # Errors
/// `NOT_FOUND`; `FAILED_PRECONDITION` when it was accepted; refusals as in [`create`].
pub async fn cancel(change: &mut Change, id: InvitationId, etag: &str) -> Result<()> {
    let before = lock_for_caller(change, id).await?;
    match before.status {
        InvitationStatus::Cancelled => return Ok(()),
        InvitationStatus::Accepted => return Err(ended(&before)),
        InvitationStatus::Pending | InvitationStatus::Expired | InvitationStatus::Declined => {}
    }
    check_etag(etag, before.version)?;
    promise::require_gifts(change, &before).await?;
    end(change, &before).await
}

/// Ends the open invitations that promise nothing outside a workspace, which is being deleted; how many
/// they are.
///
/// # Errors
/// When the database does not answer.
pub async fn cancel_within(change: &mut Change, workspace: WorkspaceId) -> Result<usize> {
    let ids = sql::pending_within(change, workspace).await?;
    for id in &ids {
        if let Some(before) = sql::lock(change, *id).await? {
            end(change, &before).await?;
        }
    }
    Ok(ids.len())
}

async fn end(change: &mut Change, before: &Invitation) -> Result<()> {
    let after = before.next(InvitationStatus::Cancelled);
    sql::update(change, before, &after).await?;
    crate::outbox::withdraw(change, before.id, "the invitation was cancelled").await?;
    let event = Event::new("invitation.cancelled", before.id);
    change.record(event.before(before.record()).after(after.record()))
}

/// The invitations of this tenant that are about a person and that nobody can accept any more.
///
/// # Errors
/// When the database does not answer.
pub async fn of_person(
    change: &mut Change,
    user: UserId,
    email: &str,
) -> Result<Vec<InvitationId>> {
    let email = Email::parse("email", email).map_err(Error::internal)?;
    sql::of_person(change, user, &email).await
}

/// Deletes invitations; what they said is in no event.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change, ids: &[InvitationId]) -> Result<u64> {
    sql::delete(change, ids).await
}

/// Deletes all that are left in a tenant that is being erased.
///
/// # Errors
/// When the database does not answer.
pub async fn erase_all(change: &mut Change) -> Result<()> {
    sql::delete_all(change).await
}

/// The invitation, for whoever may invite people of its kind.
async fn lock_for_caller(change: &mut Change, id: InvitationId) -> Result<Invitation> {
    let invitation = sql::lock(change, id).await?.ok_or_else(|| unknown(id))?;
    promise::require_reach(change, &invitation).await?;
    Ok(invitation)
}

/// Claims what it takes to act on an invitation: to invite such people on each scope of its roles, or on
/// the tenant.
///
/// # Errors
/// When the database does not answer.
pub async fn claim(app: &App, call: &Call, tenant: &str, id: InvitationId) -> Result<Claim> {
    let mut claims = Vec::new();
    if let Some((kind, scopes)) = sql::reach(&app.pool, tenant, id).await? {
        claims.push(call.claim_each(tenant, permission(kind), scopes)?);
    }
    // Last, since its refusal tells nothing of the invitation.
    for permission in [permission(MemberKind::Internal), permission(MemberKind::External)] {
        claims.push(call.claim_each(tenant, permission, [""])?);
    }
    claim_first(app, call, claims).await
}

/// Claims what it takes to make the first of these invitations that the caller may make, since each of
/// them is judged by itself; whoever may make none is refused.
///
/// # Errors
/// `INVALID_ARGUMENT` for a malformed scope.
pub async fn claim_some<'a>(
    app: &App,
    call: &Call,
    tenant: &str,
    new: impl Iterator<Item = &'a NewInvitation>,
) -> Result<Claim> {
    let mut claims = Vec::new();
    for new in new {
        let scopes = new.roles.iter().map(|role| role.scope.as_str());
        claims.push(call.claim_each(tenant, permission(new.kind), scopes)?);
    }
    for permission in [permission(MemberKind::Internal), permission(MemberKind::External)] {
        claims.push(call.claim_each(tenant, permission, [""])?);
    }
    claim_first(app, call, claims).await
}

/// What inviting somebody of this kind takes.
#[must_use]
pub fn permission(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::External => "iam.members.invite.external",
        MemberKind::Internal | MemberKind::Service => "iam.members.invite.internal",
    }
}

/// An invitation by the id that its link names. It says nothing of whether the link is good.
///
/// # Errors
/// When the database does not answer.
pub async fn find(pool: &PgPool, tenant: TenantId, id: InvitationId) -> Result<Option<Invitation>> {
    sql::find(pool, tenant, id).await
}

/// The invitation, until the change ends.
///
/// # Errors
/// When the database does not answer.
pub async fn lock(change: &mut Change, id: InvitationId) -> Result<Option<Invitation>> {
    sql::lock(change, id).await
}

/// Refuses somebody who is a member or has an open invitation. One that is past its time makes room.
async fn check_stranger(change: &mut Change, email: &Email) -> Result<()> {
    check_not_member(change, email).await?;
    let Some(before) = sql::lock_pending(change, email).await? else { return Ok(()) };
    if before.expires_at > change.now() {
        return Err(pending(email));
    }
    let after = before.next(InvitationStatus::Expired);
    sql::update(change, &before, &after).await?;
    let event = Event::new("invitation.expired", before.id);
    change.record(event.before(before.record()).after(after.record()))
}

async fn check_not_member(change: &mut Change, email: &Email) -> Result<()> {
    let account = accounts::find_by_email(change.conn(), email).await?;
    let Some(account) = account else { return Ok(()) };
    let member = memberships::find(change, account.user.id).await?;
    if member.is_some_and(|member| member.status != MemberStatus::Removed) {
        return Err(Error::AlreadyExists {
            kind: "member",
            name: email.as_str().to_owned(),
            remedy: "change the roles they have, or reactivate them",
        });
    }
    Ok(())
}

/// When the tenant says, or with the last of the roles, when they all end before.
fn expiry(change: &Change, roles: &[InvitedRole]) -> Time {
    let latest = change.now() + TimeDelta::seconds(change.tenant().invitation_lifetime_seconds);
    let ends: Option<Vec<Time>> = roles.iter().map(|role| role.ends).collect();
    ends.into_iter().flatten().max().map_or(latest, |end| end.min(latest))
}

/// Who invites: the person for whom a service acts rather than the service.
fn inviter(change: &Change) -> String {
    change.call().person().map_or_else(|| change.call().actor(), |user| user.to_string())
}

fn pending(email: &Email) -> Error {
    Error::AlreadyExists {
        kind: "invitation",
        name: email.as_str().to_owned(),
        remedy: "resend it, or cancel it first",
    }
}

fn ended(invitation: &Invitation) -> Error {
    let message = match invitation.status {
        InvitationStatus::Accepted => "the invitation was accepted; the person is a member now",
        _ => "the invitation was cancelled; make a new one",
    };
    Error::precondition("INVITATION_NOT_PENDING", invitation.id, message)
}

fn unknown(id: impl ToString) -> Error {
    Error::not_found("invitation", id)
}
