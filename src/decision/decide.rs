//! The decision itself. Allowed means: the tenant is active, the subject is active in it, and some
//! assignment that covers the resource and is inside its dates has a role that matches the permission.
//! There is no rule that denies: one more assignment never removes access.

use super::{
    CompiledRole, Facts, MemberFacts, Permission, PermissionSet, Resource, TenantFacts,
    path_covers, record::*,
};
use crate::ids::{
    AssignmentId, GroupId, RoleId, ServiceAccountId, SessionId, SubjectId, TenantId, UserId,
    WorkspaceId,
};

/// May this subject do this here, now?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The tenant's key.
    pub tenant: &'a str,
    pub subject: Subject<'a>,
    pub permission: Permission<'a>,
    pub resource: Resource<'a>,
    pub now: Time,
}

#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    User(UserId),
    Service(ServiceAccountId),
    /// A person through a session whose token was found genuine.
    Session(&'a SessionClaims),
    /// A service account through a key that is in the directory.
    Key(&'a ApiKey),
}

/// What a genuine session token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionClaims {
    pub session: SessionId,
    pub user: UserId,
    pub tenant: TenantId,
    pub expires: Time,
    pub member_epoch: i32,
    pub account_epoch: i32,
    /// A service opened it for the person, so it says nothing about them beyond its tenant.
    pub by_service: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub reason: Reason,
    /// What allowed it.
    pub grounds: Option<Grounds>,
}

impl Decision {
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.reason == Reason::Allowed
    }

    const fn denied(reason: Reason) -> Self {
        Self { reason, grounds: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grounds {
    pub assignment: AssignmentId,
    pub role: RoleId,
    /// The group that carries the assignment; none: the subject's own.
    pub group: Option<GroupId>,
    /// The tenant that the assignment belongs to: the one asked about, or the installation.
    pub home: TenantId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Allowed,
    TenantUnknown,
    TenantPending,
    TenantSuspended,
    WorkspaceUnknown,
    SubjectUnknown,
    NotAMember,
    MembershipSuspended,
    AccountDisabled,
    SessionEnded,
    SessionExpired,
    /// The session was opened in another tenant.
    SessionElsewhere,
    KeyRevoked,
    KeyExpired,
    NoRole,
    AssignmentExpired,
    AssignmentNotStarted,
    /// The key is narrowed to other permissions.
    Narrowed,
}

/// The tenant exists, but its facts are not in memory: load them and ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantNotLoaded(pub TenantId);

/// Answers from the facts alone.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn decide(facts: &Facts, question: &Question<'_>) -> Result<Decision, TenantNotLoaded> {
    let decision = decide_held(facts, question)?;
    match question.subject {
        Subject::Key(key) if decision.allowed() && !key.lets_through(question.permission) => {
            Ok(Decision::denied(Reason::Narrowed))
        }
        _ => Ok(decision),
    }
}

fn decide_held(facts: &Facts, question: &Question<'_>) -> Result<Decision, TenantNotLoaded> {
    let Some(entry) = facts.directory.tenants.get(question.tenant) else {
        return Ok(Decision::denied(Reason::TenantUnknown));
    };
    if let Some(reason) = credential_flaw(facts, entry.id, question.subject, question.now) {
        return Ok(Decision::denied(reason));
    }
    let tenant = facts.tenant(entry.id).ok_or(TenantNotLoaded(entry.id))?;
    let system = facts.tenant(TenantId::SYSTEM).ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
    let Some(place) = Place::find(tenant, question.resource) else {
        let flaw = match active_member(system, question.subject) {
            Some(_) => None,
            None => membership_flaw(tenant, entry.status, question.subject.id()),
        };
        return Ok(Decision::denied(flaw.unwrap_or(Reason::WorkspaceUnknown)));
    };

    let subject = question.subject.id();
    let mut reason = Reason::NoRole;
    if entry.id != TenantId::SYSTEM
        && (entry.status == TenantStatus::Active || question.permission.is_iam())
        && let Some(member) = active_member(system, question.subject)
        && let Some(grounds) = search(system, member, None, question, &mut reason)
    {
        return Ok(Decision { reason: Reason::Allowed, grounds: Some(grounds) });
    }
    if let Some(flaw) = membership_flaw(tenant, entry.status, subject) {
        return Ok(Decision::denied(flaw));
    }
    if let Some(member) = active_member(tenant, question.subject)
        && let Some(grounds) = search(tenant, member, Some(place), question, &mut reason)
    {
        return Ok(Decision { reason: Reason::Allowed, grounds: Some(grounds) });
    }
    Ok(Decision::denied(reason))
}

/// Why the subject may do nothing at all in the tenant, or nothing: its credential, its account, the
/// tenant and its membership there are what [`decide`] would look at first.
///
/// # Errors
/// When the facts of the tenant are not loaded.
pub fn standing(
    facts: &Facts,
    tenant: &str,
    subject: Subject<'_>,
    now: Time,
) -> Result<Option<Reason>, TenantNotLoaded> {
    let Some(entry) = facts.directory.tenants.get(tenant) else {
        return Ok(Some(Reason::TenantUnknown));
    };
    let loaded = facts.tenant(entry.id).ok_or(TenantNotLoaded(entry.id))?;
    Ok(credential_flaw(facts, entry.id, subject, now)
        .or_else(|| membership_flaw(loaded, entry.status, subject.id())))
}

/// Whether the subject is an administrator of the tenant: an active internal member to whom
/// `iam.administer` is given on the tenant with no date anywhere on the path.
#[must_use]
pub fn is_administrator(facts: &Facts, tenant: &TenantFacts, user: UserId, now: Time) -> bool {
    let Some(member) = tenant.members.get(&SubjectId::User(user)) else { return false };
    let active = member.member.status == MemberStatus::Active
        && member.member.kind == MemberKind::Internal
        && !facts.directory.account(user).disabled;
    active
        && holdings(tenant, member).any(|held| {
            held.assignment.ends.is_none()
                && held.dates(now) == Dates::Inside
                && held.is_on_tenant()
                && held.compiled.permissions.matches(Permission::ADMINISTER)
        })
}

/// Where the question is about, with the workspace resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub workspace: Option<WorkspaceId>,
    pub path: &'a str,
}

impl<'a> Place<'a> {
    pub fn find(tenant: &TenantFacts, resource: Resource<'a>) -> Option<Self> {
        let workspace = match resource.workspace {
            Some(key) => Some(*tenant.workspaces.get(key)?),
            None => None,
        };
        Some(Self { workspace, path: resource.path })
    }
}

/// An assignment that a member holds, its own or through a group.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub assignment: &'a Assignment,
    pub role: &'a Role,
    pub compiled: &'a CompiledRole,
    pub group: Option<GroupId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    Inside,
    Over,
    Ahead,
}

impl Held<'_> {
    pub fn dates(&self, now: Time) -> Dates {
        if self.assignment.ends.is_some_and(|ends| now >= ends) {
            Dates::Over
        } else if self.assignment.starts.is_some_and(|starts| now < starts) {
            Dates::Ahead
        } else {
            Dates::Inside
        }
    }

    pub fn is_on_tenant(&self) -> bool {
        self.assignment.workspace.is_none() && self.assignment.path.is_empty()
    }
}

pub(super) fn holdings<'a>(
    tenant: &'a TenantFacts,
    member: &'a MemberFacts,
) -> impl Iterator<Item = Held<'a>> {
    let own = member.assignments.iter().map(|a| (a, None));
    let through_groups = member.groups.iter().flat_map(|id| {
        let group = tenant.groups.get(id);
        group.into_iter().flat_map(|g| g.assignments.iter().map(|a| (a, Some(*id))))
    });
    own.chain(through_groups).filter_map(|(assignment, group)| {
        let role = tenant.roles.get(&assignment.role)?;
        let compiled = tenant.compiled.get(&assignment.role)?;
        Some(Held { assignment, role, compiled, group })
    })
}

/// Whether the assignment reaches the place. `None` is a place in a tenant below the installation.
pub(super) fn covers(
    tenant: &TenantFacts,
    member: &MemberFacts,
    held: &Held<'_>,
    place: Option<Place<'_>>,
    now: Time,
) -> bool {
    let Some(place) = place else {
        return held.is_on_tenant() && held.role.reach == Reach::Everywhere;
    };
    if !held.is_on_tenant() {
        return held.assignment.workspace == place.workspace
            && path_covers(&held.assignment.path, place.path);
    }
    match (held.role.reach, place.workspace) {
        (Reach::Everywhere, _) => true,
        (_, None) => place.path.is_empty(),
        (Reach::Here, Some(_)) => false,
        (Reach::Joined, Some(workspace)) => has_joined(tenant, member, workspace, now),
    }
}

/// A member has joined the workspaces on which it holds an assignment inside its dates.
pub(super) fn has_joined(
    tenant: &TenantFacts,
    member: &MemberFacts,
    workspace: WorkspaceId,
    now: Time,
) -> bool {
    holdings(tenant, member).any(|held| {
        held.assignment.workspace == Some(workspace)
            && held.assignment.path.is_empty()
            && held.dates(now) == Dates::Inside
    })
}

fn search(
    home: &TenantFacts,
    member: &MemberFacts,
    place: Option<Place<'_>>,
    question: &Question<'_>,
    reason: &mut Reason,
) -> Option<Grounds> {
    for held in holdings(home, member) {
        if !held.compiled.permissions.matches(question.permission)
            || !covers(home, member, &held, place, question.now)
        {
            continue;
        }
        match held.dates(question.now) {
            Dates::Inside => {
                return Some(Grounds {
                    assignment: held.assignment.id,
                    role: held.assignment.role,
                    group: held.group,
                    home: home.id,
                });
            }
            Dates::Over if *reason == Reason::NoRole => *reason = Reason::AssignmentExpired,
            Dates::Over => {}
            Dates::Ahead => *reason = Reason::AssignmentNotStarted,
        }
    }
    None
}

/// The member's facts, when active there and when the session, if any, was opened there.
pub(super) fn active_member<'a>(
    tenant: &'a TenantFacts,
    subject: Subject<'_>,
) -> Option<&'a MemberFacts> {
    if let Subject::Session(claims) = subject
        && claims.tenant != tenant.id
    {
        return None;
    }
    let member = tenant.members.get(&subject.id())?;
    (member.member.status == MemberStatus::Active).then_some(member)
}

fn membership_flaw(
    tenant: &TenantFacts,
    status: TenantStatus,
    subject: SubjectId,
) -> Option<Reason> {
    match status {
        TenantStatus::Pending => return Some(Reason::TenantPending),
        TenantStatus::Suspended => return Some(Reason::TenantSuspended),
        TenantStatus::Active => {}
    }
    match tenant.members.get(&subject).map(|m| m.member.status) {
        Some(MemberStatus::Active) => None,
        Some(MemberStatus::Suspended) => Some(Reason::MembershipSuspended),
        Some(MemberStatus::Removed) | None => Some(Reason::NotAMember),
    }
}

/// What makes the account or the credential worthless wherever it is used.
fn credential_flaw(
    facts: &Facts,
    tenant: TenantId,
    subject: Subject<'_>,
    now: Time,
) -> Option<Reason> {
    let directory = &facts.directory;
    match subject {
        Subject::User(user) => directory.account(user).disabled.then_some(Reason::AccountDisabled),
        Subject::Service(_) => None,
        Subject::Session(claims) => session_flaw(facts, claims, now).or_else(|| {
            let reaches = claims.tenant == tenant || claims.tenant == TenantId::SYSTEM;
            (!reaches).then_some(Reason::SessionElsewhere)
        }),
        Subject::Key(key) => {
            if key.revoked {
                Some(Reason::KeyRevoked)
            } else if key.expires.is_some_and(|expires| now >= expires) {
                Some(Reason::KeyExpired)
            } else {
                None
            }
        }
    }
}

/// Why a genuine session is not live, or nothing. A membership that is not loaded counts as unchanged;
/// the decision itself refuses to answer without it.
pub(super) fn session_flaw(facts: &Facts, claims: &SessionClaims, now: Time) -> Option<Reason> {
    let account = facts.directory.account(claims.user);
    if now >= claims.expires {
        return Some(Reason::SessionExpired);
    }
    if account.disabled {
        return Some(Reason::AccountDisabled);
    }
    let member_epoch = facts
        .tenant(claims.tenant)
        .and_then(|t| t.members.get(&SubjectId::User(claims.user)))
        .map(|m| m.member.epoch);
    let ended = facts.directory.ended_sessions.contains_key(&claims.session)
        || account.epoch != claims.account_epoch
        || member_epoch.is_some_and(|epoch| epoch != claims.member_epoch);
    ended.then_some(Reason::SessionEnded)
}

impl ApiKey {
    fn lets_through(&self, permission: Permission<'_>) -> bool {
        self.narrowed.is_empty() || PermissionSet::of(&self.narrowed).matches(permission)
    }
}

impl Subject<'_> {
    #[must_use]
    pub fn id(&self) -> SubjectId {
        match self {
            Self::User(user) => SubjectId::User(*user),
            Self::Service(service) => SubjectId::Service(*service),
            Self::Session(claims) => SubjectId::User(claims.user),
            Self::Key(key) => SubjectId::Service(key.service_account),
        }
    }
}
