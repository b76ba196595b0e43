//! Who in the tenant may do something: whom a denied person can turn to.

use super::{
    Facts, Gift, Permission, Question, Resource, Subject, TenantFacts, TenantNotLoaded,
    authority::may_give,
    decide::{decide, holdings},
    record::MemberStatus,
};
use crate::ids::{RoleId, SubjectId, UserId};

/// Some people, in the order of their ids, and whether there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    pub people: Vec<UserId>,
    pub more: bool,
}

/// Members, other than the subject of the question, who have the permission where it asks.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn who_may(
    facts: &Facts,
    question: &Question<'_>,
    permission: Permission<'_>,
    resource: Resource<'_>,
    limit: usize,
) -> Result<Who, TenantNotLoaded> {
    who(facts, question, permission, resource, limit, |_, _| true)
}

/// Members, other than the subject of the question, who may give one of the roles where it asks.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn who_may_give(
    facts: &Facts,
    question: &Question<'_>,
    roles: &[RoleId],
    limit: usize,
) -> Result<Who, TenantNotLoaded> {
    let Question { resource, now, .. } = *question;
    who(facts, question, Permission::ASSIGN, resource, limit, |tenant, user| {
        let workspace = resource.workspace.and_then(|key| tenant.workspaces.get(key)).copied();
        roles.iter().any(|role| {
            let gift = Gift { role: *role, workspace, path: resource.path, ends: None };
            may_give(facts, tenant, Subject::User(user), &gift, now, None)
        })
    })
}

fn who(
    facts: &Facts,
    question: &Question<'_>,
    permission: Permission<'_>,
    resource: Resource<'_>,
    limit: usize,
    suits: impl Fn(&TenantFacts, UserId) -> bool,
) -> Result<Who, TenantNotLoaded> {
    let Some(entry) = facts.directory.tenants.get(question.tenant) else {
        return Ok(Who::default());
    };
    let tenant = facts.tenant(entry.id).ok_or(TenantNotLoaded(entry.id))?;
    let mut found = Who::default();
    for user in candidates(tenant, permission) {
        if SubjectId::User(user) == question.subject.id() {
            continue;
        }
        let asked = Question { subject: Subject::User(user), permission, resource, ..*question };
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
