//! The decision itself. Allowed means: the tenant is active, the subject is active in it, and some
//! assignment that covers the resource and is inside its dates has a role that matches the permission.
//! There is no rule that denies: one more assignment never removes access.

use super::{
    Facts, Permission, Resource, TenantEntry, TenantFacts,
    facts::is_active,
    holdings::{Dates, Place, Search, holdings},
    members::Member,
    packed::Pack,
    permission::pattern_matches,
    record::{ApiKey, MemberKind, Reach, TenantStatus, Time},
    standing::{active_member, credential_flaw, membership_flaw},
};
use crate::ids::{ServiceAccountId, SessionId, SubjectId, TenantId, UserId};

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
}

impl Decision {
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.reason == Reason::Allowed
    }

    #[must_use]
    pub const fn because(reason: Reason) -> Self {
        Self { reason }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Allowed,
    TenantUnknown,
    TenantPending,
    TenantSuspended,
    TenantDeleted,
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
    let Question { tenant, subject, permission, resource, now } = *question;
    match facts.directory.tenants.get(tenant) {
        Some(entry) => Ok(Party::find(facts, entry, subject, now)?.decide(permission, resource)),
        None => Ok(Decision::because(Reason::TenantUnknown)),
    }
}

/// A subject as one tenant knows it: what is the same whatever it asks about there.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    subject: Subject<'a>,
    /// Or why its account or credential is worth nothing.
    before: Result<Before<'a>, Reason>,
}

/// A party before the tenant and the installation.
#[derive(Debug, Clone, Copy)]
struct Before<'a> {
    status: TenantStatus,
    tenant: &'a TenantFacts,
    system: &'a TenantFacts,
    member: Option<Member<'a>>,
    flaw: Option<Reason>,
    /// Microseconds since 1970.
    now: i64,
}

impl<'a> Party<'a> {
    /// # Errors
    /// When the facts of the tenant, or of the installation, are not loaded.
    #[inline]
    pub fn find(
        facts: &'a Facts,
        entry: &'a TenantEntry,
        subject: Subject<'a>,
        now: Time,
    ) -> Result<Self, TenantNotLoaded> {
        if let Some(reason) = credential_flaw(facts, entry, subject, now)? {
            return Ok(Self { subject, before: Err(reason) });
        }
        let tenant = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
        let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
        let now = now.timestamp_micros();
        tenant.ask(now);
        let member = tenant.find(subject.id());
        let flaw = membership_flaw(entry.status, member.as_ref());
        let before = Before { status: entry.status, tenant, system, member, flaw, now };
        Ok(Self { subject, before: Ok(before) })
    }

    #[inline]
    pub(super) fn held(&self) -> Option<Pack<'a>> {
        Some(self.before.as_ref().ok()?.member.as_ref()?.held)
    }

    /// What [`decide`] answers about it.
    #[must_use]
    #[inline]
    pub fn decide(&self, permission: Permission<'_>, resource: Resource<'_>) -> Decision {
        let Self { subject, before } = self;
        let reason = match before {
            Ok(before) => before.decide(*subject, permission, resource),
            Err(reason) => *reason,
        };
        let narrowed = reason == Reason::Allowed && !subject.lets_through(permission);
        Decision::because(if narrowed { Reason::Narrowed } else { reason })
    }
}

impl Before<'_> {
    fn decide(
        &self,
        subject: Subject<'_>,
        permission: Permission<'_>,
        resource: Resource<'_>,
    ) -> Reason {
        let Self { status, tenant, system, ref member, flaw, now } = *self;
        let place = Place::find(tenant, resource);
        let mut reason = Reason::NoRole;
        if flaw.is_none()
            && place.is_some()
            && let Some(member) = member
            && subject.may_hold_in(tenant.id)
        {
            let row = tenant.matching(permission);
            if (Search { home: tenant, member, row, place, now }).finds(&mut reason) {
                return Reason::Allowed;
            }
        }
        // What is held on the installation reaches every tenant.
        let operator = active_member(system, subject);
        if place.is_none() {
            let flaw = if operator.is_some() { None } else { flaw };
            return flaw.unwrap_or(Reason::WorkspaceUnknown);
        }
        if tenant.id != TenantId::SYSTEM
            && (status == TenantStatus::Active || permission.is_iam())
            && let Some(member) = &operator
        {
            let row = system.matching(permission);
            if (Search { home: system, member, row, place: None, now }).finds(&mut reason) {
                return Reason::Allowed;
            }
        }
        flaw.unwrap_or(reason)
    }
}

/// Whether the subject is an administrator of the tenant: an active internal member to whom
/// `iam.administer` is given on the tenant and everything in it, with no date anywhere on the path.
#[must_use]
pub fn is_administrator(facts: &Facts, tenant: &TenantFacts, user: UserId, now: Time) -> bool {
    let Some(member) = tenant.find(SubjectId::User(user)) else { return false };
    let active = is_active(member.head)
        && member.head.kind() == MemberKind::Internal
        && !facts.directory.account(user).disabled;
    let row = tenant.matching(Permission::ADMINISTER);
    let now = now.timestamp_micros();
    active
        && holdings(tenant, member).any(|held| {
            held.grant.ends == i64::MAX
                && held.grant.dates(now) == Dates::Inside
                && held.grant.is_on_tenant()
                && tenant.matrix.reach(held.grant.role) == Reach::Everywhere
                && row.has(held.grant.role)
        })
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

    /// A key may be narrowed to some permissions.
    pub(super) fn lets_through(&self, permission: Permission<'_>) -> bool {
        match self {
            Self::Key(ApiKey { narrowed, .. }) => {
                narrowed.is_empty() || narrowed.iter().any(|p| pattern_matches(p, permission))
            }
            Self::User(_) | Self::Service(_) | Self::Session(_) => true,
        }
    }

    /// A session speaks for its person in the tenant that it was opened in.
    pub(super) fn may_hold_in(&self, tenant: TenantId) -> bool {
        match self {
            Self::Session(claims) => claims.tenant == tenant,
            Self::User(_) | Self::Service(_) | Self::Key(_) => true,
        }
    }
}

impl From<SubjectId> for Subject<'_> {
    fn from(id: SubjectId) -> Self {
        match id {
            SubjectId::User(user) => Self::User(user),
            SubjectId::Service(service) => Self::Service(service),
        }
    }
}
