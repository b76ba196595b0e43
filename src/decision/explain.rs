//! Why a decision is what it is, from the same steps that decide it.

use super::{
    Decision, Facts, Holding, Question, Reason, TenantFacts, TenantNotLoaded,
    decide::decide,
    holdings::{Dates, Held, Place, covers, holdings},
    members::Member,
    permission::pattern_matches,
    record::Role,
    standing::active_member,
};
use crate::ids::{GroupId, RoleId, SubjectId, TenantId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub decision: Decision,
    /// The assignment that allowed it; one of them when there are several.
    pub grounds: Option<Considered>,
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
    pub holding: Holding,
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
            grounds: None,
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
    let tenant = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
    let place = Place::find(tenant, question.resource);
    // Also of who is suspended there: the assignments say whether reactivating is enough.
    if let Some(place) = place
        && let Some(member) = tenant.find(question.subject.id())
    {
        explanation.considered.extend(consider(tenant, &member, Some(place), question));
    }
    if entry.id != TenantId::SYSTEM
        && let Some(system) = facts.system()
        && let Some(member) = active_member(system, question.subject)
    {
        explanation.considered.extend(consider(system, &member, None, question));
    }
    if decision.reason == Reason::Allowed {
        let mut sound = explanation.considered.iter().filter(|c| c.flaw.is_none());
        // Like the decision: what holds on the installation comes first.
        let grounds = sound.clone().find(|c| c.home == TenantId::SYSTEM).or_else(|| sound.next());
        explanation.grounds = grounds.cloned();
    } else {
        explanation.roles_that_allow = roles_that_allow(tenant, question);
    }
    if let Some(grounds) = &explanation.grounds
        && let Some(home) = facts.tenant(grounds.home)
    {
        explanation.include_path = include_path(home, grounds.holding.role, question);
        let last = explanation.include_path.last().and_then(|id| home.role(*id));
        explanation.matched = last.map(|role| matched(role, question)).unwrap_or_default();
    }
    Ok(explanation)
}

fn consider(
    home: &TenantFacts,
    member: &Member<'_>,
    place: Option<Place<'_>>,
    question: &Question<'_>,
) -> Vec<Considered> {
    let row = home.matching(question.permission);
    let now = question.now.timestamp_micros();
    let flaw = |held: &Held<'_>| {
        if !row.has(held.grant.role) {
            return Some(Flaw::Permission);
        }
        if !covers(home, member, &held.grant, place, now) {
            return Some(Flaw::Scope);
        }
        match held.grant.dates(now) {
            Dates::Inside => None,
            Dates::Over => Some(Flaw::Expired),
            Dates::Ahead => Some(Flaw::NotStarted),
        }
    };
    let subject: SubjectId = question.subject.id();
    let considered = holdings(home, *member).filter_map(|held| {
        let group = held.group.and_then(|n| home.groups.id(n));
        let holding = home.holding(&held, subject)?;
        Some(Considered { home: home.id, holding, group, flaw: flaw(&held) })
    });
    considered.collect()
}

/// The shortest way over includes from a role to one that names the permission itself.
fn include_path(home: &TenantFacts, from: RoleId, question: &Question<'_>) -> Vec<RoleId> {
    let mut queue = std::collections::VecDeque::from([vec![from]]);
    let mut seen = std::collections::HashSet::from([from]);
    while let Some(path) = queue.pop_front() {
        let Some(role) = path.last().and_then(|id| home.role(*id)) else { continue };
        if role.permissions.iter().any(|p| pattern_matches(p, question.permission)) {
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
    role.permissions
        .iter()
        .filter(|pattern| pattern_matches(pattern, question.permission))
        .max_by_key(|pattern| (!pattern.ends_with('*'), pattern.len()))
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn roles_that_allow(tenant: &TenantFacts, question: &Question<'_>) -> Vec<RoleId> {
    let row = tenant.matching(question.permission);
    let mut roles: Vec<_> = row
        .numbers()
        .filter_map(|n| {
            let (role, compiled) = (tenant.roles.at(n)?, tenant.roles.compiled(n)?);
            // The least first: whoever repairs a denial should not reach for the administrator.
            let patterns = compiled.permissions.patterns().len();
            Some((compiled.permissions.covers("*"), patterns, role.key.clone(), role.id))
        })
        .collect();
    roles.sort();
    roles.into_iter().map(|(.., id)| id).collect()
}
