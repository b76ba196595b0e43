//! Who in the tenant may do something: whom a denied person can turn to.

use super::{
    Facts, Gift, Permission, Question, Resource, Subject, TenantFacts, TenantNotLoaded,
    authority::may_give,
    decide::{decide, holdings},
    record::{MemberStatus, Time},
};
use crate::ids::{RoleId, SubjectId, UserId};

/// Some people, in the order of their ids, and whether there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    pub people: Vec<UserId>,
    pub more: bool,
}

/// Where somebody is looked for, and how many are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The tenant's key.
    pub tenant: &'a str,
    pub resource: Resource<'a>,
    pub now: Time,
    /// Whom it would help, who cannot do it for themselves.
    pub except: Option<SubjectId>,
    pub limit: usize,
}

/// Members who have the permission there.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn who_may(
    facts: &Facts,
    search: &Search<'_>,
    permission: Permission<'_>,
) -> Result<Who, TenantNotLoaded> {
    who(facts, search, permission, |_, _| true)
}

/// Members who may give one of the roles there.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn who_may_give(
    facts: &Facts,
    search: &Search<'_>,
    roles: &[RoleId],
) -> Result<Who, TenantNotLoaded> {
    let Search { resource, now, .. } = *search;
    who(facts, search, Permission::ASSIGN, |tenant, user| {
        let workspace = resource.workspace.and_then(|key| tenant.workspaces.get(key)).copied();
        roles.iter().any(|role| {
            let gift = Gift { role: *role, workspace, path: resource.path, ends: None };
            may_give(facts, tenant, Subject::User(user), &gift, now, None)
        })
    })
}

fn who(
    facts: &Facts,
    search: &Search<'_>,
    permission: Permission<'_>,
    suits: impl Fn(&TenantFacts, UserId) -> bool,
) -> Result<Who, TenantNotLoaded> {
    let Search { tenant: key, resource, now, except, limit } = *search;
    let Some(entry) = facts.directory.tenants.get(key) else {
        return Ok(Who::default());
    };
    let tenant = facts.tenant(entry.id).ok_or(TenantNotLoaded(entry.id))?;
    let mut found = Who::default();
    for user in candidates(tenant, permission) {
        if Some(SubjectId::User(user)) == except {
            continue;
        }
        let subject = Subject::User(user);
        let asked = Question { tenant: key, subject, permission, resource, now };
        if decide(facts, &asked)?.allowed() && suits(tenant, user) {
            if found.people.len() == limit {
                found.more = true;
                break;
            }
            found.people.push(user);
        }
    }
    Ok(found)
}

/// Active people with a role that has the permission somewhere, sorted.
fn candidates(tenant: &TenantFacts, permission: Permission<'_>) -> Vec<UserId> {
    let mut people: Vec<UserId> = tenant
        .members
        .iter()
        .filter(|(_, member)| {
            member.member.status == MemberStatus::Active
                && holdings(tenant, member).any(|h| h.compiled.permissions.matches(permission))
        })
        .filter_map(|(subject, _)| subject.user())
        .collect();
    people.sort_unstable();
    people
}
