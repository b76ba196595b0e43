//! Why a decision is what it is, from the same steps that decide it.

use super::{
    Decision, Facts, MemberFacts, PermissionSet, Question, Reason, TenantFacts, TenantNotLoaded,
    decide::{Dates, Held, Place, active_member, covers, decide, holdings},
    record::*,
};
use crate::ids::{GroupId, RoleId, TenantId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub decision: Decision,
    /// Roles from the assigned one to the one that names the permission.
    pub include_path: Vec<RoleId>,
    /// The permission as the last of them writes it; empty when nothing allows.
    pub matched: String,
    /// Every assignment of the subject that could reach the resource, with what it lacks.
    pub considered: Vec<Considered>,
    /// Roles of the tenant that match the permission: assigning one of them here would allow it.
    pub roles_that_allow: Vec<RoleId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    pub home: TenantId,
    pub assignment: Assignment,
    pub group: Option<GroupId>,
    /// Why it does not allow; none: it does, or would if nothing else stood in the way.
    pub flaw: Option<Flaw>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its role, with all it includes, does not have the permission.
    Permission,
    /// It holds elsewhere, or its role does not reach that far.
    Scope,
    Expired,
    NotStarted,
}

impl Explanation {
    /// A decision that no assignment had a part in.
    #[must_use]
    pub fn of(decision: Decision) -> Self {
        Self {
            decision,
            include_path: Vec::new(),
            matched: String::new(),
            considered: Vec::new(),
            roles_that_allow: Vec::new(),
        }
    }
}

/// Explains what [`decide`] answers.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn explain(facts: &Facts, question: &Question<'_>) -> Result<Explanation, TenantNotLoaded> {
    let decision = decide(facts, question)?;
    let mut explanation = Explanation::of(decision);
    let Some(entry) = facts.directory.tenants.get(question.tenant) else {
        return Ok(explanation);
    };
    let tenant = facts.tenant(entry.id).ok_or(TenantNotLoaded(entry.id))?;
    let place = Place::find(tenant, question.resource);
    // Also of who is suspended there: the assignments say whether reactivating is enough.
    if let Some(place) = place
        && let Some(member) = tenant.members.get(&question.subject.id())
    {
        consider(tenant, member, Some(place), question, &mut explanation.considered);
    }
    if entry.id != TenantId::SYSTEM
        && let Some(system) = facts.tenant(TenantId::SYSTEM)
        && let Some(member) = active_member(system, question.subject)
    {
        consider(system, member, None, question, &mut explanation.considered);
    }
    if let Some(grounds) = decision.grounds
        && let Some(home) = facts.tenant(grounds.home)
    {
        explanation.include_path = include_path(home, grounds.role, question);
        let last = explanation.include_path.last().and_then(|id| home.roles.get(id));
        explanation.matched = last.map(|role| matched(role, question)).unwrap_or_default();
    }
    if decision.reason != Reason::Allowed {
        explanation.roles_that_allow = roles_that_allow(tenant, question);
    }
    Ok(explanation)
}

fn consider(
    home: &TenantFacts,
    member: &MemberFacts,
    place: Option<Place<'_>>,
    question: &Question<'_>,
    considered: &mut Vec<Considered>,
) {
    let flaw = |held: &Held<'_>| {
        if !held.compiled.permissions.matches(question.permission) {
            return Some(Flaw::Permission);
        }
        if !covers(home, member, held, place, question.now) {
            return Some(Flaw::Scope);
        }
        match held.dates(question.now) {
            Dates::Inside => None,
            Dates::Over => Some(Flaw::Expired),
            Dates::Ahead => Some(Flaw::NotStarted),
        }
    };
    considered.extend(holdings(home, member).map(|held| Considered {
        home: home.id,
        assignment: held.assignment.clone(),
        group: held.group,
        flaw: flaw(&held),
    }));
}

/// The shortest way over includes from a role to one that names the permission itself.
fn include_path(home: &TenantFacts, from: RoleId, question: &Question<'_>) -> Vec<RoleId> {
    let mut queue = std::collections::VecDeque::from([vec![from]]);
    let mut seen = std::collections::HashSet::from([from]);
    while let Some(path) = queue.pop_front() {
        let Some(role) = path.last().and_then(|id| home.roles.get(id)) else { continue };
        if PermissionSet::of(&role.permissions).matches(question.permission) {
            return path;
        }
        for next in role.includes.iter().filter(|id| seen.insert(**id)) {
            queue.push_back([path.as_slice(), &[*next]].concat());
        }
    }
    Vec::new()
}

/// The narrowest pattern of the role that matches.
fn matched(role: &Role, question: &Question<'_>) -> String {
    let matches = |p: &&String| PermissionSet::of(&[p]).matches(question.permission);
    role.permissions
        .iter()
        .filter(matches)
        .max_by_key(|p| (!p.ends_with('*'), p.len()))
        .cloned()
        .unwrap_or_default()
}

fn roles_that_allow(tenant: &TenantFacts, question: &Question<'_>) -> Vec<RoleId> {
    let mut roles: Vec<_> = tenant
        .compiled
        .iter()
        .filter(|(_, role)| role.permissions.matches(question.permission))
        .filter_map(|(id, role)| {
            // The least first: whoever repairs a denial should not reach for the administrator.
            let (wide, count) = (role.permissions.covers("*"), role.permissions.patterns().len());
            Some((wide, count, tenant.roles.get(id)?.key.clone(), *id))
        })
        .collect();
    roles.sort();
    roles.into_iter().map(|(.., id)| id).collect()
}
