//! What a caller of ours may do: the decision about itself, narrowed by its key, and intersected with
//! the person on whose behalf it acts. Also who may give which role.

use std::{collections::HashSet, sync::Arc};

use super::{
    Facts, Permission, PermissionSet, Question, Reason, Resource, SessionClaims, Subject,
    TenantFacts, TenantNotLoaded,
    decide::decide,
    holdings::{Dates, Held, Place, covers, holdings},
    members::Member,
    packed::TENANT,
    record::{ApiKey, MemberStatus, Reach, Time},
    roles::CompiledRole,
    standing::active_member,
};
use crate::ids::{RoleId, SubjectId, TenantId, UserId, WorkspaceId};

/// Who calls, authenticated, and for whom.
#[derive(Debug, Clone)]
pub struct Authority {
    pub credential: Credential,
    /// The person on whose behalf the caller acts; allowed is then what both may do.
    pub on_behalf_of: Option<UserId>,
}

#[derive(Debug, Clone)]
pub enum Credential {
    Session(SessionClaims),
    ApiKey(Arc<ApiKey>),
}

/// Why the caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Caller(Reason),
    /// The caller may, the person it acts for may not.
    OnBehalfOf(Reason),
    /// The caller lacks `iam.act_as`, or the person has rights on the installation.
    ActAs,
}

/// A role that somebody wants to give, and where.
#[derive(Debug, Clone, Copy)]
pub struct Gift<'a> {
    pub role: RoleId,
    pub workspace: Option<WorkspaceId>,
    pub path: &'a str,
    pub ends: Option<Time>,
    /// What a role lists as to be given is for others.
    pub to_oneself: bool,
}

impl Authority {
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        match &self.credential {
            Credential::Session(claims) => Subject::Session(claims),
            Credential::ApiKey(key) => Subject::Key(key),
        }
    }

    /// The tenant that the credential belongs to.
    #[must_use]
    pub fn home(&self) -> TenantId {
        match &self.credential {
            Credential::Session(claims) => claims.tenant,
            Credential::ApiKey(key) => key.tenant,
        }
    }

    /// The subjects whose facts a decision about this caller reads.
    pub fn subjects(&self) -> impl Iterator<Item = SubjectId> {
        let behalf = self.on_behalf_of.map(SubjectId::User);
        [Some(self.subject().id()), behalf].into_iter().flatten()
    }

    /// Whether the caller may do this here; the inner result says why not.
    ///
    /// # Errors
    /// When a tenant's facts are not loaded.
    pub fn may(
        &self,
        facts: &Facts,
        tenant: &str,
        permission: Permission<'_>,
        resource: Resource<'_>,
        now: Time,
    ) -> Result<Result<(), Refusal>, TenantNotLoaded> {
        let question = Question { tenant, subject: self.subject(), permission, resource, now };
        let own = decide(facts, &question)?;
        if !own.allowed() {
            return Ok(Err(Refusal::Caller(own.reason)));
        }
        let Some(user) = self.on_behalf_of else { return Ok(Ok(())) };
        if !self.may_act_as(facts, &question, user)? {
            return Ok(Err(Refusal::ActAs));
        }
        let theirs = decide(facts, &Question { subject: Subject::User(user), ..question })?;
        Ok(if theirs.allowed() { Ok(()) } else { Err(Refusal::OnBehalfOf(theirs.reason)) })
    }

    fn may_act_as(
        &self,
        facts: &Facts,
        question: &Question<'_>,
        user: UserId,
    ) -> Result<bool, TenantNotLoaded> {
        let asked =
            Question { permission: Permission::ACT_AS, resource: Resource::TENANT, ..*question };
        let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
        let privileged = system
            .member(SubjectId::User(user))
            .is_some_and(|member| member.status != MemberStatus::Removed);
        Ok(!privileged && decide(facts, &asked)?.allowed())
    }

    fn narrowed(&self) -> Option<PermissionSet> {
        match &self.credential {
            Credential::ApiKey(key) if !key.narrowed.is_empty() => {
                Some(PermissionSet::of(&key.narrowed))
            }
            _ => None,
        }
    }

    /// Whether the caller, and the person it acts for, may give this role there: each holds all that
    /// the role allows, at least as far and as long, or a role of theirs lists it as theirs to give.
    #[must_use]
    pub fn may_give(
        &self,
        facts: &Facts,
        tenant: &TenantFacts,
        gift: &Gift<'_>,
        now: Time,
    ) -> bool {
        let caller = may_give(facts, tenant, self.subject(), gift, now, self.narrowed().as_ref());
        caller
            && self
                .on_behalf_of
                .is_none_or(|user| may_give(facts, tenant, Subject::User(user), gift, now, None))
    }

    /// Whether neither the caller nor the person it acts for is raised by a role that reaches them: what
    /// a role of theirs lists as to be given is for others.
    #[must_use]
    pub fn may_have(
        &self,
        facts: &Facts,
        tenant: &TenantFacts,
        gift: &Gift<'_>,
        reaches: impl Fn(SubjectId) -> bool,
        now: Time,
    ) -> bool {
        let (gift, narrowed) = (Gift { to_oneself: true, ..*gift }, self.narrowed());
        let may_have = |subject: Subject<'_>, narrowed| {
            !reaches(subject.id()) || may_give(facts, tenant, subject, &gift, now, narrowed)
        };
        may_have(self.subject(), narrowed.as_ref())
            && self.on_behalf_of.is_none_or(|user| may_have(Subject::User(user), None))
    }

    /// Whether the caller holds all of these patterns on the whole tenant, without an end.
    #[must_use]
    pub fn holds(
        &self,
        facts: &Facts,
        tenant: &TenantFacts,
        patterns: &PermissionSet,
        now: Time,
    ) -> bool {
        let scope = Scope { workspace: None, path: "", ends: None, reach: Reach::Everywhere };
        let narrowed = self.narrowed();
        let holds = |subject, narrowed| {
            let held = held_there(facts, tenant, subject, &scope, now);
            covers_all(&held, patterns, narrowed)
        };
        holds(self.subject(), narrowed.as_ref())
            && self.on_behalf_of.is_none_or(|user| holds(Subject::User(user), None))
    }
}

/// Whether somebody who does not call may, by themselves and now, do this on each of the scopes, and give
/// each of the roles.
///
/// # Errors
/// When a tenant's facts are not loaded.
pub fn vouches(
    facts: &Facts,
    tenant: (&str, &TenantFacts),
    subject: Subject<'_>,
    may: (Permission<'_>, &[Resource<'_>]),
    gifts: &[Gift<'_>],
    now: Time,
) -> Result<bool, TenantNotLoaded> {
    let (key, tenant_facts) = tenant;
    let (permission, scopes) = may;
    for resource in scopes {
        let question = Question { tenant: key, subject, permission, resource: *resource, now };
        if !decide(facts, &question)?.allowed() {
            return Ok(false);
        }
    }
    Ok(gifts.iter().all(|gift| may_give(facts, tenant_facts, subject, gift, now, None)))
}

/// Where, how far and how long something has to be held.
struct Scope<'a> {
    workspace: Option<WorkspaceId>,
    path: &'a str,
    ends: Option<Time>,
    reach: Reach,
}

pub(super) fn may_give(
    facts: &Facts,
    tenant: &TenantFacts,
    subject: Subject<'_>,
    gift: &Gift<'_>,
    now: Time,
    narrowed: Option<&PermissionSet>,
) -> bool {
    let giver = Giver { facts, tenant, subject, narrowed, now };
    giver.may_give(gift, &mut HashSet::new())
}

/// Who gives, with all that bounds it.
struct Giver<'a> {
    facts: &'a Facts,
    tenant: &'a TenantFacts,
    subject: Subject<'a>,
    narrowed: Option<&'a PermissionSet>,
    now: Time,
}

impl Giver<'_> {
    /// A role that lets its holders give further roles is given only by those who may give them too;
    /// `seen` are the roles that the answer waits for already.
    fn may_give(&self, gift: &Gift<'_>, seen: &mut HashSet<RoleId>) -> bool {
        let Self { facts, tenant, subject, narrowed, now } = *self;
        let (Some(role), Some(given)) = (tenant.role(gift.role), tenant.compiled(gift.role)) else {
            return false;
        };
        let scope = Scope {
            workspace: gift.workspace,
            path: gift.path,
            ends: gift.ends,
            reach: role.reach,
        };
        let held = held_there(facts, tenant, subject, &scope, now);
        // What `may_grant` lists may be given wherever its holder may assign at all, however far it
        // reaches: that is what the list is for. An end of the giver's own still bounds the gift.
        // A narrowed key gives nothing that it leaves out.
        let listed = Scope { reach: Reach::Here, ..scope };
        let unnarrowed = narrowed.is_none_or(|set| {
            given.permissions.patterns().iter().all(|pattern| set.covers(pattern))
        });
        let listed = unnarrowed
            && !gift.to_oneself
            && held_there(facts, tenant, subject, &listed, now)
                .iter()
                .any(|held| held.may_grant.contains(&gift.role));
        if listed {
            return true;
        }
        seen.insert(gift.role);
        covers_all(&held, &given.permissions, narrowed)
            && given.may_grant.iter().all(|next| {
                let next = Gift { role: *next, to_oneself: false, ..*gift };
                seen.contains(&next.role) || self.may_give(&next, seen)
            })
    }
}

fn covers_all(
    held: &[&CompiledRole],
    patterns: &PermissionSet,
    narrowed: Option<&PermissionSet>,
) -> bool {
    patterns.patterns().iter().all(|pattern| {
        narrowed.is_none_or(|set| set.covers(pattern))
            && held.iter().any(|role| role.permissions.covers(pattern))
    })
}

/// The roles that the subject holds in the tenant or on the installation and that span the whole scope.
fn held_there<'a>(
    facts: &'a Facts,
    tenant: &'a TenantFacts,
    subject: Subject<'a>,
    scope: &Scope<'_>,
    now: Time,
) -> Vec<&'a CompiledRole> {
    let now = now.timestamp_micros();
    let mut found = Vec::new();
    if let Some(member) = active_member(tenant, subject) {
        let workspace = scope.workspace.map_or(TENANT, |id| tenant.workspace_numbered(id));
        let place = Place { workspace, path: scope.path };
        let there = There { home: tenant, member: &member, place: Some(place), scope, now };
        found.extend(there.roles());
    }
    if tenant.id != TenantId::SYSTEM
        && let Some(system) = facts.system()
        && let Some(member) = active_member(system, subject)
    {
        let there = There { home: system, member: &member, place: None, scope, now };
        found.extend(there.roles());
    }
    found
}

/// What a member holds that spans a scope.
struct There<'a, 's> {
    home: &'a TenantFacts,
    member: &'s Member<'a>,
    place: Option<Place<'s>>,
    scope: &'s Scope<'s>,
    now: i64,
}

impl<'a> There<'a, '_> {
    fn roles(&self) -> Vec<&'a CompiledRole> {
        let spanning = holdings(self.home, *self.member).filter(|held| {
            self.lasts(held)
                && self.spans(held)
                && self.stays(held)
                && covers(self.home, self.member, &held.grant, self.place, self.now)
        });
        spanning.filter_map(|held| self.home.roles.compiled(held.grant.role)).collect()
    }

    fn lasts(&self, held: &Held<'_>) -> bool {
        let wanted = self.scope.ends.map_or(i64::MAX, |ends| ends.timestamp_micros());
        held.grant.dates(self.now) == Dates::Inside && held.grant.ends >= wanted
    }

    fn spans(&self, held: &Held<'_>) -> bool {
        let whole_tenant = self.scope.workspace.is_none() && self.scope.path.is_empty();
        self.place.is_none()
            || !whole_tenant
            || self.home.matrix.reach(held.grant.role) >= self.scope.reach
    }

    /// What reaches a workspace by having joined it lasts no longer than what joined it.
    fn stays(&self, held: &Held<'_>) -> bool {
        let joined =
            held.grant.is_on_tenant() && self.home.matrix.reach(held.grant.role) == Reach::Joined;
        let Some(place) = self.place.filter(|place| joined && place.workspace != TENANT) else {
            return true;
        };
        holdings(self.home, *self.member).any(|other| {
            other.grant.workspace == place.workspace
                && other.grant.path.is_empty()
                && self.lasts(&other)
        })
    }
}
