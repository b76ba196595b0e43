//! The decision itself. Allowed means: the tenant is active, the subject is active in it, and some
//! assignment that covers the resource and is inside its dates has a role that matches the permission.
//! There is no rule that denies: one more assignment never removes access.

use super::{
    Facts, Permission, Resource, TenantEntry, TenantFacts,
    facts::is_active,
    members::Member,
    packed::{Grant, Item, Kind, Pack, TENANT},
    path_covers,
    permission::pattern_matches,
    record::{ApiKey, MemberKind, MemberStatus, Reach, TenantStatus, Time},
    roles::Row,
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
        let Self { status, tenant, system, member, flaw, now } = *self;
        let place = Place::find(tenant, resource);
        let mut reason = Reason::NoRole;
        if flaw.is_none()
            && place.is_some()
            && let Some(member) = member.as_ref().filter(|_| subject.may_hold_in(tenant.id))
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

/// What a member holds that reaches a place and matches a permission.
pub(super) struct Search<'a> {
    pub home: &'a TenantFacts,
    pub member: &'a Member<'a>,
    /// The roles that match.
    pub row: Row<'a>,
    /// `None` is a place in a tenant below the installation.
    pub place: Option<Place<'a>>,
    /// Microseconds since 1970.
    pub now: i64,
}

impl<'a> Search<'a> {
    /// Whether something is in force; notes why not when only dates stand in the way.
    fn finds(&self, reason: &mut Reason) -> bool {
        let held = self.member.held;
        held.items().any(|item| match item.kind() {
            Kind::Group(n) => self.home.groups.at(n).is_some_and(|group| {
                group.held.items().any(|item| self.allows(group.held, item, reason))
            }),
            Kind::Plain { .. } | Kind::Special { .. } => self.allows(held, item, reason),
        })
    }

    fn allows(&self, held: Pack<'_>, item: Item, reason: &mut Reason) -> bool {
        let Self { home, member, row, place, now } = *self;
        // What the item itself says rules out most of them, and no details are touched.
        let role = match item.kind() {
            Kind::Plain { role, at }
                if place.is_none_or(|place| at == place.workspace || at == TENANT) =>
            {
                role
            }
            Kind::Special { role, .. } => role,
            Kind::Plain { .. } | Kind::Group(_) => return false,
        };
        if !row.has(role) {
            return false;
        }
        let Some(grant) = held.grant(item) else { return false };
        if !covers(home, member, &grant, place, now) {
            return false;
        }
        match grant.dates(now) {
            Dates::Inside => return true,
            Dates::Over if *reason == Reason::NoRole => *reason = Reason::AssignmentExpired,
            Dates::Over => {}
            Dates::Ahead => *reason = Reason::AssignmentNotStarted,
        }
        false
    }

    /// What matches and reaches the place, whenever it holds.
    fn matches(&self) -> impl Iterator<Item = Held<'a>> {
        let Self { home, member, row, place, now } = *self;
        holdings(home, *member)
            .filter(move |held| row.has(held.grant.role))
            .filter(move |held| covers(home, member, &held.grant, place, now))
    }

    /// What gives the permission there now.
    pub fn grounds(&self) -> impl Iterator<Item = Held<'a>> {
        let now = self.now;
        self.matches().filter(move |held| held.grant.dates(now) == Dates::Inside)
    }
}

/// Why the subject may do nothing at all in the tenant, or nothing: its credential, its account, the
/// tenant and its membership there are what [`decide`] would look at first.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn standing(
    facts: &Facts,
    tenant: &str,
    subject: Subject<'_>,
    now: Time,
) -> Result<Option<Reason>, TenantNotLoaded> {
    let Some(entry) = facts.directory.tenants.get(tenant) else {
        return Ok(Some(Reason::TenantUnknown));
    };
    let loaded = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
    Ok(credential_flaw(facts, entry, subject, now)?
        .or_else(|| membership_flaw(entry.status, loaded.find(subject.id()).as_ref())))
}

/// Whether the subject is an administrator of the tenant: an active internal member to whom
/// `iam.administer` is given on the tenant and everything in it, with no date anywhere on the path.
#[must_use]
pub fn is_administrator(facts: &Facts, tenant: &TenantFacts, user: UserId, now: Time) -> bool {
    let Some(member) = tenant.find(SubjectId::User(user)) else { return false };
    let active = is_active(member.head)
        && member.head.kind == MemberKind::Internal
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

/// Where the question is about, with the workspace found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The number of the workspace, or [`TENANT`].
    pub workspace: u32,
    pub path: &'a str,
}

impl<'a> Place<'a> {
    pub fn find(tenant: &TenantFacts, resource: Resource<'a>) -> Option<Self> {
        let workspace = match resource.workspace {
            Some(key) => tenant.workspaces.find(key)?,
            None => TENANT,
        };
        Some(Self { workspace, path: resource.path })
    }
}

/// An assignment that a member holds, its own or through a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held<'a> {
    pub grant: Grant<'a>,
    /// The number of the group.
    pub group: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    Inside,
    Over,
    Ahead,
}

impl Grant<'_> {
    pub fn dates(&self, now: i64) -> Dates {
        if now >= self.ends {
            Dates::Over
        } else if now < self.starts {
            Dates::Ahead
        } else {
            Dates::Inside
        }
    }
}

pub(super) fn holdings<'a>(
    tenant: &'a TenantFacts,
    member: Member<'a>,
) -> impl Iterator<Item = Held<'a>> {
    let own = member.held.grants().map(|grant| Held { grant, group: None });
    let groups = member.held.items().filter_map(|item| match item.kind() {
        Kind::Group(n) => Some((n, tenant.groups.at(n)?.held)),
        Kind::Plain { .. } | Kind::Special { .. } => None,
    });
    own.chain(
        groups.flat_map(|(n, held)| held.grants().map(move |grant| Held { grant, group: Some(n) })),
    )
}

/// Whether the assignment reaches the place. `None` is a place in a tenant below the installation.
#[inline]
pub(super) fn covers(
    tenant: &TenantFacts,
    member: &Member<'_>,
    grant: &Grant<'_>,
    place: Option<Place<'_>>,
    now: i64,
) -> bool {
    let Some(place) = place else {
        return grant.is_on_tenant() && tenant.matrix.reach(grant.role) == Reach::Everywhere;
    };
    if !grant.is_on_tenant() {
        return grant.workspace == place.workspace && path_covers(grant.path, place.path);
    }
    match tenant.matrix.reach(grant.role) {
        Reach::Everywhere => true,
        Reach::Here | Reach::Joined if place.workspace == TENANT => place.path.is_empty(),
        Reach::Here => false,
        Reach::Joined => has_joined(tenant, member, place.workspace, now),
    }
}

/// A member has joined the workspaces on which it holds an assignment inside its dates.
pub(super) fn has_joined(
    tenant: &TenantFacts,
    member: &Member<'_>,
    workspace: u32,
    now: i64,
) -> bool {
    holdings(tenant, *member).any(|held| {
        held.grant.workspace == workspace
            && held.grant.path.is_empty()
            && held.grant.dates(now) == Dates::Inside
    })
}

/// The member, when active there and when the session, if any, was opened there.
pub(super) fn active_member<'a>(
    tenant: &'a TenantFacts,
    subject: Subject<'_>,
) -> Option<Member<'a>> {
    if !subject.may_hold_in(tenant.id) {
        return None;
    }
    tenant.find(subject.id()).filter(|member| is_active(member.head))
}

fn membership_flaw(status: TenantStatus, member: Option<&Member<'_>>) -> Option<Reason> {
    match status {
        TenantStatus::Pending => return Some(Reason::TenantPending),
        TenantStatus::Suspended => return Some(Reason::TenantSuspended),
        TenantStatus::Deleted | TenantStatus::Purged => return Some(Reason::TenantDeleted),
        TenantStatus::Active => {}
    }
    match member.map(|member| member.head.status) {
        Some(MemberStatus::Active) => None,
        Some(MemberStatus::Suspended) => Some(Reason::MembershipSuspended),
        Some(MemberStatus::Removed) | None => Some(Reason::NotAMember),
    }
}

/// What makes the account or the credential worthless; of an account that was disabled, what the tenant
/// may know.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub(super) fn credential_flaw(
    facts: &Facts,
    entry: &TenantEntry,
    subject: Subject<'_>,
    now: Time,
) -> Result<Option<Reason>, TenantNotLoaded> {
    Ok(match subject {
        Subject::User(user) if facts.directory.account(user).disabled => {
            let tenant = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
            let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
            let belongs = |home: &TenantFacts| {
                let member = home.find(subject.id());
                member.is_some_and(|member| member.head.status != MemberStatus::Removed)
            };
            // What became of an account is told where it belongs; elsewhere it looks like any other.
            match belongs(tenant) || belongs(system) {
                true => Some(Reason::AccountDisabled),
                false => membership_flaw(entry.status, None),
            }
        }
        Subject::User(_) | Subject::Service(_) => None,
        Subject::Session(claims)
            if claims.tenant != entry.id && claims.tenant != TenantId::SYSTEM =>
        {
            Some(Reason::SessionElsewhere)
        }
        Subject::Session(claims) => session_flaw(facts, claims, now),
        Subject::Key(key) => {
            if key.revoked {
                Some(Reason::KeyRevoked)
            } else if key.expires.is_some_and(|expires| now >= expires) {
                Some(Reason::KeyExpired)
            } else {
                None
            }
        }
    })
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
        .and_then(|tenant| tenant.find(SubjectId::User(claims.user)))
        .map(|member| member.head.epoch);
    let ended = facts.directory.ended_sessions.contains_key(&claims.session)
        || account.epoch != claims.account_epoch
        || member_epoch.is_some_and(|epoch| epoch != claims.member_epoch);
    ended.then_some(Reason::SessionEnded)
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
    fn may_hold_in(&self, tenant: TenantId) -> bool {
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
