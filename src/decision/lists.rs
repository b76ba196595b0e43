//! The questions behind a check: who may do something here, where may somebody do something, and what may
//! somebody do here. Each is answered by the same rule as the check itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Facts, Gift, Permission, PermissionSet, Question, Reason, Resource, Subject, TenantFacts,
    TenantNotLoaded,
    authority::may_give,
    decide::decide,
    holdings::{Dates, Held, Place, Search, covers, holdings},
    members::{Member, Members},
    packed::{Item, TENANT},
    record::{Reach, TenantStatus, Time},
    roles::Row,
    scope_text,
    standing::{active_member, credential_flaw, standing},
};
use crate::ids::{GroupId, RoleId, ServiceAccountId, SubjectId, TenantId, UserId};

/// The most members that one page looks at; the next page goes on where it stopped.
const LOOKS: usize = 20_000;

/// Some people, in the order of their ids, and whether there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    pub people: Vec<UserId>,
    pub more: bool,
}

/// Where somebody is looked for.
#[derive(Debug, Clone, Copy)]
pub struct There<'a> {
    /// The tenant's key.
    pub tenant: &'a str,
    pub resource: Resource<'a>,
    pub now: Time,
}

/// Somebody who may, and through what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub subject: SubjectId,
    /// An assignment of their own gives it.
    pub direct: bool,
    /// Groups of theirs that give it.
    pub groups: Vec<GroupId>,
    /// A role on the installation gives it.
    pub installation: bool,
}

/// A part of the subjects who may, in the order of their ids, people first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    pub found: Vec<Access>,
    /// Where the next page starts; nothing: this was the last one.
    pub next: Option<SubjectId>,
    /// Why there is nobody, where the first page says so.
    pub reason: Option<Reason>,
}

impl Subjects {
    fn nobody(reason: Reason) -> Self {
        Self { reason: Some(reason), ..Self::default() }
    }
}

/// Who may do something there: everybody after a subject for whom [`decide`] says so, until there are
/// enough of them.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn subjects(
    facts: &Facts,
    there: &There<'_>,
    permission: Permission<'_>,
    after: Option<SubjectId>,
    limit: usize,
) -> Result<Subjects, TenantNotLoaded> {
    let There { tenant: key, resource, now } = *there;
    let Some(entry) = facts.directory.tenants.get(key) else {
        return Ok(Subjects::nobody(Reason::TenantUnknown));
    };
    let tenant = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
    let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
    tenant.ask(now.timestamp_micros());
    if Place::find(tenant, resource).is_none() {
        return Ok(Subjects::nobody(Reason::WorkspaceUnknown));
    }
    let index = Index::of(tenant, system, permission, resource);
    let mut page = Subjects::default();
    for (looks, subject) in index.candidates(after).enumerate() {
        if page.found.len() == limit || looks == LOOKS {
            return Ok(page);
        }
        page.next = Some(subject);
        let asked = Question { tenant: key, subject: subject.into(), permission, resource, now };
        if decide(facts, &asked)?.allowed() {
            page.found.push(index.access(subject, now));
        }
    }
    page.next = None;
    if page.found.is_empty() && after.is_none() {
        page.reason = Some(match entry.status {
            TenantStatus::Pending => Reason::TenantPending,
            TenantStatus::Suspended => Reason::TenantSuspended,
            TenantStatus::Deleted | TenantStatus::Purged => Reason::TenantDeleted,
            TenantStatus::Active => Reason::NoRole,
        });
    }
    Ok(page)
}

/// What an answer to [`subjects`] looks through: a part of the members, found by what they hold.
struct Index<'a> {
    tenant: &'a TenantFacts,
    /// The installation, unless it is the tenant itself.
    system: Option<&'a TenantFacts>,
    row: Row<'a>,
    system_row: Row<'a>,
    place: Option<Place<'a>>,
    wanted: Vec<Item>,
    system_wanted: Vec<Item>,
}

impl<'a> Index<'a> {
    fn of(
        tenant: &'a TenantFacts,
        system: &'a TenantFacts,
        permission: Permission<'_>,
        resource: Resource<'a>,
    ) -> Self {
        let place = Place::find(tenant, resource);
        let (row, system_row) = (tenant.matching(permission), system.matching(permission));
        let system = (tenant.id != TenantId::SYSTEM).then_some(system);
        let workspace = place.map_or(TENANT, |place| place.workspace);
        let wanted = wanted(tenant, row, workspace);
        let system_wanted =
            system.map(|system| self::wanted(system, system_row, TENANT)).unwrap_or_default();
        Self { tenant, system, row, system_row, place, wanted, system_wanted }
    }

    /// Everybody who may hold something that gives the permission there, and others beside them.
    fn candidates(&self, after: Option<SubjectId>) -> impl Iterator<Item = SubjectId> {
        let user = after.and_then(SubjectId::user).map(|id| id.uuid().as_u128());
        let service = after.and_then(SubjectId::service).map(|id| id.uuid().as_u128());
        // People come first: after a service account there are none.
        let users = service.is_none().then(|| self.merged(user, |facts| &facts.users));
        let users = users.into_iter().flatten();
        let services = self.merged(service, |facts| &facts.services);
        let user = |id| SubjectId::User(UserId::from_uuid(uuid::Uuid::from_u128(id)));
        let service =
            |id| SubjectId::Service(ServiceAccountId::from_uuid(uuid::Uuid::from_u128(id)));
        users.map(user).chain(services.map(service))
    }

    fn merged(
        &self,
        after: Option<u128>,
        members: impl Fn(&'a TenantFacts) -> &'a Members,
    ) -> impl Iterator<Item = u128> {
        let own = members(self.tenant).search(after, &self.wanted).map(|member| member.id);
        let system = self.system.into_iter().map(members);
        let operators = system.flat_map(move |m| m.search(after, &self.system_wanted));
        let mut own = own.peekable();
        let mut operators = operators.map(|member| member.id).peekable();
        std::iter::from_fn(move || match (own.peek(), operators.peek()) {
            (Some(a), Some(b)) if a == b => {
                operators.next();
                own.next()
            }
            (Some(a), Some(b)) if b < a => operators.next(),
            (Some(_), _) => own.next(),
            (None, _) => operators.next(),
        })
    }

    /// Through what somebody may.
    fn access(&self, subject: SubjectId, now: Time) -> Access {
        let now = now.timestamp_micros();
        let mut access = Access { subject, direct: false, groups: Vec::new(), installation: false };
        if let Some(member) = active_member(self.tenant, subject.into())
            && let Some(place) = self.place
        {
            let (home, place) = (self.tenant, Some(place));
            for held in (Search { home, member: &member, row: self.row, place, now }).grounds() {
                match held.group {
                    None => access.direct = true,
                    Some(n) => access.groups.extend(home.groups.id(n)),
                }
            }
            access.groups.sort_unstable();
            access.groups.dedup();
        }
        if let Some(home) = self.system
            && let Some(member) = active_member(home, subject.into())
        {
            let row = self.system_row;
            let search = Search { home, member: &member, row, place: None, now };
            access.installation = search.grounds().next().is_some();
        }
        access
    }
}

/// What somebody holds who may: a role that matches, on the tenant or the workspace, or a group that
/// carries one. Sorted.
fn wanted(tenant: &TenantFacts, row: Row<'_>, workspace: u32) -> Vec<Item> {
    let places = [workspace, TENANT];
    let places = if workspace == TENANT { &places[..1] } else { &places };
    let on = |role, at: &u32| [Item::plain(role, *at), Item::special(role, *at)];
    let mut wanted: Vec<Item> =
        row.numbers().flat_map(|role| places.iter().flat_map(move |at| on(role, at))).collect();
    let groups = tenant.groups.all().filter(|(_, group)| {
        let mut grants = group.held.grants();
        grants.any(|grant| row.has(grant.role) && places.contains(&grant.workspace))
    });
    wanted.extend(groups.map(|(n, _)| Item::group(n)));
    wanted.sort_unstable();
    wanted
}

/// Members who have the permission there, without one whom it would help.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn who_may(
    facts: &Facts,
    there: &There<'_>,
    permission: Permission<'_>,
    except: Option<SubjectId>,
    limit: usize,
) -> Result<Who, TenantNotLoaded> {
    who(facts, there, permission, except, limit, |_, _| true)
}

/// Members who may give one of the roles there, without one whom it would help.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn who_may_give(
    facts: &Facts,
    there: &There<'_>,
    roles: &[RoleId],
    except: Option<SubjectId>,
    limit: usize,
) -> Result<Who, TenantNotLoaded> {
    let There { resource, now, .. } = *there;
    who(facts, there, Permission::ASSIGN, except, limit, |tenant, user| {
        let workspace = resource.workspace.and_then(|key| tenant.workspace(key));
        roles.iter().any(|role| {
            let (path, ends, to_oneself) = (resource.path, None, false);
            let gift = Gift { role: *role, workspace, path, ends, to_oneself };
            may_give(facts, tenant, Subject::User(user), &gift, now, None)
        })
    })
}

fn who(
    facts: &Facts,
    there: &There<'_>,
    permission: Permission<'_>,
    except: Option<SubjectId>,
    limit: usize,
    suits: impl Fn(&TenantFacts, UserId) -> bool,
) -> Result<Who, TenantNotLoaded> {
    let mut who = Who::default();
    let Some(tenant) = facts.directory.tenants.get(there.tenant).and_then(|entry| entry.facts())
    else {
        return Ok(who);
    };
    let mut after = None;
    // A few pages at most: a remedy names some people, it is no list.
    for _ in 0..8 {
        let page = subjects(facts, there, permission, after, limit + 1)?;
        let people = page.found.iter().filter_map(|access| access.subject.user());
        for user in people.filter(|user| Some(SubjectId::User(*user)) != except) {
            // Who may only because of the installation is not of the tenant.
            let ours = tenant.member(SubjectId::User(user)).is_some();
            if ours && suits(tenant, user) {
                if who.people.len() == limit {
                    who.more = true;
                    return Ok(who);
                }
                who.people.push(user);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(who);
        }
    }
    who.more = true;
    Ok(who)
}

/// A scope on which somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// As a resource is written; empty is the tenant.
    pub text: String,
    /// Everything below the scope is meant as well.
    pub below: bool,
}

/// Where in a tenant the subject may do something: the widest scopes, sorted, none inside another. The
/// reason says why there are none at all.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn scopes(
    facts: &Facts,
    tenant: &str,
    subject: Subject<'_>,
    permission: Permission<'_>,
    now: Time,
) -> Result<Result<Vec<Scope>, Reason>, TenantNotLoaded> {
    let Some(entry) = facts.directory.tenants.get(tenant) else {
        return Ok(Err(Reason::TenantUnknown));
    };
    let loaded = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
    let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
    if let Some(flaw) = credential_flaw(facts, entry, subject, now)? {
        return Ok(Err(flaw));
    }
    if !subject.lets_through(permission) {
        return Ok(Err(Reason::Narrowed));
    }
    let open = entry.status == TenantStatus::Active || permission.is_iam();
    if let Some(member) = operator(entry.id, system, subject).filter(|_| open) {
        let row = system.matching(permission);
        let now = now.timestamp_micros();
        let search = Search { home: system, member: &member, row, place: None, now };
        if search.grounds().next().is_some() {
            return Ok(Ok(vec![Scope { text: String::new(), below: true }]));
        }
    }
    if let Some(flaw) = standing(facts, tenant, subject, now)? {
        return Ok(Err(flaw));
    }
    let member = active_member(loaded, subject);
    let found = member.map(|m| held_scopes(loaded, &m, permission, now.timestamp_micros()));
    Ok(found.filter(|found| !found.is_empty()).ok_or(Reason::NoRole))
}

/// The subject as a member of the installation, whose roles reach into the tenant.
fn operator<'a>(
    tenant: TenantId,
    system: &'a TenantFacts,
    subject: Subject<'_>,
) -> Option<Member<'a>> {
    active_member(system, subject).filter(|_| tenant != TenantId::SYSTEM)
}

fn held_scopes(
    tenant: &TenantFacts,
    member: &Member<'_>,
    permission: Permission<'_>,
    now: i64,
) -> Vec<Scope> {
    let row = tenant.matching(permission);
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    let mut add = |text: String, below| *found.entry(text).or_default() |= below;
    let inside = || holdings(tenant, *member).filter(|held| held.grant.dates(now) == Dates::Inside);
    for Held { grant, .. } in inside().filter(|held| row.has(held.grant.role)) {
        let workspace = tenant.workspaces.key(grant.workspace);
        if !grant.is_on_tenant() {
            // A workspace that was deleted is nowhere.
            if grant.workspace == TENANT || workspace.is_some() {
                add(scope_text(workspace, grant.path), true);
            }
            continue;
        }
        let reach = tenant.matrix.reach(grant.role);
        add(String::new(), reach == Reach::Everywhere);
        if reach == Reach::Joined {
            let joined = inside().filter(|other| other.grant.path.is_empty());
            let keys: BTreeSet<_> =
                joined.filter_map(|other| tenant.workspaces.key(other.grant.workspace)).collect();
            keys.into_iter().for_each(|key| add(scope_text(Some(key), ""), true));
        }
    }
    let reaches_down = |text: &str| found.get(text) == Some(&true);
    let is_within = |text: &str| {
        let mut wider = text.match_indices('/').map(|(at, _)| &text[..at]);
        !text.is_empty() && (reaches_down("") || wider.any(reaches_down))
    };
    let widest = found.iter().filter(|(text, _)| !is_within(text));
    widest.map(|(text, below)| Scope { text: text.clone(), below: *below }).collect()
}

/// What the subject may do on a resource, as patterns: all that its roles there give. The reason says why
/// there is nothing at all.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn effective_permissions(
    facts: &Facts,
    there: &There<'_>,
    subject: Subject<'_>,
) -> Result<Result<PermissionSet, Reason>, TenantNotLoaded> {
    let There { tenant: key, resource, now } = *there;
    let Some(entry) = facts.directory.tenants.get(key) else {
        return Ok(Err(Reason::TenantUnknown));
    };
    let loaded = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
    let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
    if let Some(flaw) = credential_flaw(facts, entry, subject, now)? {
        return Ok(Err(flaw));
    }
    let flaw = standing(facts, key, subject, now)?;
    let operator = operator(entry.id, system, subject);
    let Some(place) = Place::find(loaded, resource) else {
        let flaw = flaw.filter(|_| operator.is_none());
        return Ok(Err(flaw.unwrap_or(Reason::WorkspaceUnknown)));
    };
    let now = now.timestamp_micros();
    let mut set = PermissionSet::default();
    if let Some(member) = operator {
        set = given(system, &member, None, now);
        if entry.status != TenantStatus::Active {
            set = set.intersection(&PermissionSet::of(&["iam.*"]));
        }
    }
    if let Some(member) = active_member(loaded, subject).filter(|_| flaw.is_none()) {
        set.extend(&given(loaded, &member, Some(place), now));
    }
    if let Subject::Key(key) = subject
        && !key.narrowed.is_empty()
    {
        set = set.intersection(&PermissionSet::of(&key.narrowed));
    }
    Ok(if set.patterns().is_empty() { Err(flaw.unwrap_or(Reason::NoRole)) } else { Ok(set) })
}

/// All that a member's roles give that reach a place and are inside their dates.
fn given(
    home: &TenantFacts,
    member: &Member<'_>,
    place: Option<Place<'_>>,
    now: i64,
) -> PermissionSet {
    let mut set = PermissionSet::default();
    for held in holdings(home, *member) {
        if held.grant.dates(now) == Dates::Inside
            && covers(home, member, &held.grant, place, now)
            && let Some(role) = home.roles.compiled(held.grant.role)
        {
            set.extend(&role.permissions);
        }
    }
    set
}
