//! What would turn a denial round, and who may do it.

use smol_str::SmolStr;

use super::{Asked, Ids, Named, role_key};
use crate::{
    change::nearest,
    decision::{
        Explanation, Facts, Flaw, MemberStatus, Permission, Question, Reason, Resource,
        TenantEntry, TenantNotLoaded, There, Time, Who, pattern_matches, scope_text, who_may,
        who_may_give,
    },
    ids::{AssignmentId, RoleId, SubjectId},
};

/// The most people that a remedy names.
const MAX_PEOPLE: usize = 20;
/// The most roles that a remedy names.
const MAX_ROLES: usize = 20;
/// The most assignments that are proposed to be extended or waited for.
const MAX_DATED: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    pub kind: RemedyKind,
    /// The roles that would allow it, the least one first.
    pub roles: Vec<String>,
    /// Where one of them would; nothing is the tenant.
    pub scope: String,
    pub who: Who,
    pub message: String,
    pub assignment: Option<AssignmentId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemedyKind {
    ReactivateMembership,
    EnableAccount,
    AcceptInvitation,
    AssignRole,
    ExtendAssignment,
    Wait,
    Invite,
    ReactivateTenant,
    RestoreTenant,
    SignIn,
    UseAnotherKey,
    CorrectName,
}

impl Remedy {
    fn new(kind: RemedyKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (roles, scope) = (Vec::new(), String::new());
        Self { kind, roles, scope, who: Who::default(), message, assignment: None }
    }

    fn by(self, who: Who) -> Self {
        Self { who, ..self }
    }
}

/// The reason in one sentence.
pub fn sentence(reason: Reason, asked: &Asked<'_>) -> String {
    let (tenant, permission) = (asked.tenant, asked.what.permission.as_str());
    match reason {
        Reason::Allowed => format!("an assignment gives `{permission}` here"),
        Reason::TenantUnknown => format!("there is no tenant `{tenant}`"),
        Reason::TenantPending => format!("tenant `{tenant}` waits for its first administrator"),
        Reason::TenantSuspended => format!("tenant `{tenant}` is suspended"),
        Reason::TenantDeleted => format!("tenant `{tenant}` was deleted"),
        Reason::WorkspaceUnknown => {
            let key = asked.what.resource.workspace.unwrap_or_default();
            format!("there is no workspace `{key}` in tenant `{tenant}`")
        }
        Reason::SubjectUnknown => "there is no such account, session or key here".to_owned(),
        Reason::NotAMember => format!("the subject does not belong to tenant `{tenant}`"),
        Reason::MembershipSuspended => format!("the membership in tenant `{tenant}` is suspended"),
        Reason::AccountDisabled => "the account is disabled everywhere".to_owned(),
        Reason::SessionEnded => "the session was ended".to_owned(),
        Reason::SessionExpired => "the session has expired".to_owned(),
        Reason::SessionElsewhere => format!("the session does not belong to tenant `{tenant}`"),
        Reason::KeyRevoked => "the api key was revoked".to_owned(),
        Reason::KeyExpired => "the api key has expired".to_owned(),
        Reason::Narrowed => format!("the api key is narrowed and leaves out `{permission}`"),
        Reason::NoRole => format!("no assignment of the subject gives `{permission}` here"),
        Reason::AssignmentExpired => {
            format!("the assignment that gave `{permission}` here has ended")
        }
        Reason::AssignmentNotStarted => {
            format!("the assignment that will give `{permission}` here has not started")
        }
    }
}

/// What would turn the denial round, the simplest first.
///
/// # Errors
/// When the facts of a tenant are not loaded.
pub fn remedies(
    facts: &Facts,
    asked: &Asked<'_>,
    question: Option<&Question<'_>>,
    explanation: &Explanation,
    invited: bool,
    ids: &Ids,
    now: Time,
) -> Result<Vec<Remedy>, TenantNotLoaded> {
    let reason = explanation.decision.reason;
    let there = There { tenant: asked.tenant, resource: asked.what.resource, now };
    let on_tenant = There { resource: Resource::TENANT, ..there };
    let subject = question.map(|question| question.subject.id());
    let may = |permission| who_may(facts, &on_tenant, permission, subject, MAX_PEOPLE);
    let givers = |roles: &[RoleId]| who_may_give(facts, &there, roles, subject, MAX_PEOPLE);
    let first = match reason {
        Reason::TenantUnknown | Reason::WorkspaceUnknown => {
            return Ok(vec![correct_name()]);
        }
        Reason::TenantPending => {
            let message = "the invited first administrator accepts the invitation";
            return Ok(vec![Remedy::new(RemedyKind::AcceptInvitation, message)]);
        }
        Reason::TenantSuspended => {
            let message = "an operator reactivates the tenant";
            let remedy = Remedy::new(RemedyKind::ReactivateTenant, message);
            if !belongs(facts, asked.tenant, subject) {
                return Ok([vec![remedy], strangers(asked, invited, may)?].concat());
            }
            Some(remedy)
        }
        Reason::TenantDeleted => {
            let message = "an operator restores the tenant, unless it was purged";
            return Ok(vec![Remedy::new(RemedyKind::RestoreTenant, message)]);
        }
        Reason::SubjectUnknown | Reason::NotAMember => return strangers(asked, invited, may),
        Reason::MembershipSuspended => {
            let message = "somebody who may suspend members reactivates the membership";
            let remedy = Remedy::new(RemedyKind::ReactivateMembership, message);
            Some(remedy.by(may(Permission::SUSPEND)?))
        }
        Reason::AccountDisabled => {
            Some(Remedy::new(RemedyKind::EnableAccount, "an operator enables the account"))
        }
        Reason::SessionElsewhere if !belongs(facts, asked.tenant, subject) => {
            let mut remedies = strangers(asked, invited, may)?;
            remedies.insert(1, sign_in());
            return Ok(remedies);
        }
        Reason::SessionEnded | Reason::SessionExpired | Reason::SessionElsewhere => Some(sign_in()),
        Reason::KeyRevoked | Reason::KeyExpired | Reason::Narrowed => Some(another_key()),
        Reason::Allowed
        | Reason::NoRole
        | Reason::AssignmentExpired
        | Reason::AssignmentNotStarted => None,
    };
    let mut remedies: Vec<Remedy> = first.into_iter().collect();
    if lies_nowhere(facts, asked) {
        remedies.push(correct_name());
        return Ok(remedies);
    }
    // Reactivating alone does not help whom no assignment would then give it.
    if !explanation.considered.iter().any(|considered| considered.flaw.is_none()) {
        remedies.extend(dated(facts, explanation, ids, givers)?);
        remedies.push(assign(facts, asked, explanation, givers)?);
        remedies.extend(misspelt(facts, asked));
    }
    Ok(remedies)
}

/// Whether the question is about a workspace that is not there.
fn lies_nowhere(facts: &Facts, asked: &Asked<'_>) -> bool {
    let tenant = facts.directory.tenants.get(asked.tenant).and_then(TenantEntry::facts);
    let missing = |key| tenant.is_some_and(|tenant| tenant.workspace(key).is_none());
    asked.what.resource.workspace.is_some_and(missing)
}

/// What to do about an application's permission that no role of the tenant has but by having everything.
fn misspelt(facts: &Facts, asked: &Asked<'_>) -> Option<Remedy> {
    let tenant = facts.directory.tenants.get(asked.tenant).and_then(TenantEntry::facts)?;
    let permission = asked.what.permission;
    let names = |pattern: &SmolStr| pattern != "*" && pattern_matches(pattern, permission);
    if permission.is_iam() || tenant.roles().any(|role| role.permissions.iter().any(names)) {
        return None;
    }
    let word = permission.as_str();
    let mut message =
        format!("no role of the tenant names `{word}`; correct the word, if it is wrong");
    let likely = nearest(word, tenant.words());
    if !likely.is_empty() {
        message += &format!(": did you mean `{}`?", likely.join("`, `"));
    }
    Some(Remedy::new(RemedyKind::CorrectName, message))
}

/// Whether the subject has a membership in the tenant that has not ended.
fn belongs(facts: &Facts, tenant: &str, subject: Option<SubjectId>) -> bool {
    let tenant = facts.directory.tenants.get(tenant).and_then(TenantEntry::facts);
    let member = tenant.zip(subject).and_then(|(tenant, subject)| tenant.member(subject));
    member.is_some_and(|member| member.status != MemberStatus::Removed)
}

/// What helps whoever does not belong to the tenant.
fn strangers(
    asked: &Asked<'_>,
    invited: bool,
    may: impl Fn(Permission<'static>) -> Result<Who, TenantNotLoaded>,
) -> Result<Vec<Remedy>, TenantNotLoaded> {
    let mut remedies = no_member(asked, invited);
    for remedy in remedies.iter_mut().filter(|r| r.kind == RemedyKind::Invite) {
        remedy.who = may(Permission::INVITE)?;
    }
    Ok(remedies)
}

fn no_member(asked: &Asked<'_>, invited: bool) -> Vec<Remedy> {
    let tenant = asked.tenant;
    match asked.subject {
        _ if invited => {
            let message = format!("the person accepts the open invitation to tenant `{tenant}`");
            vec![Remedy::new(RemedyKind::AcceptInvitation, message)]
        }
        Named::Session(None) => vec![sign_in()],
        Named::Key(_) => vec![another_key()],
        Named::Id(SubjectId::Service(_)) => vec![correct_name()],
        _ => {
            let message = format!("invite them to tenant `{tenant}`");
            vec![Remedy::new(RemedyKind::Invite, message), correct_name()]
        }
    }
}

fn correct_name() -> Remedy {
    let message = "correct the name of the tenant, the workspace or the subject";
    Remedy::new(RemedyKind::CorrectName, message)
}

fn sign_in() -> Remedy {
    Remedy::new(RemedyKind::SignIn, "the person signs in again, to this tenant")
}

fn another_key() -> Remedy {
    Remedy::new(RemedyKind::UseAnotherKey, "use an api key that is live and not narrowed")
}

/// Assignments that would give it at another time.
fn dated(
    facts: &Facts,
    explanation: &Explanation,
    ids: &Ids,
    givers: impl Fn(&[RoleId]) -> Result<Who, TenantNotLoaded>,
) -> Result<Vec<Remedy>, TenantNotLoaded> {
    let mut remedies = Vec::new();
    for considered in &explanation.considered {
        let role = role_key(facts, considered.home, considered.holding.role);
        let (kind, message) = match considered.flaw {
            Some(Flaw::Expired) => {
                let message = format!("give the assignment of role `{role}` a later end");
                (RemedyKind::ExtendAssignment, message)
            }
            Some(Flaw::NotStarted) => {
                let starts = considered.holding.starts.map(|at| at.to_rfc3339());
                let at = starts.unwrap_or_default();
                let message = format!("wait until the assignment of role `{role}` starts, at {at}");
                (RemedyKind::Wait, message)
            }
            _ => continue,
        };
        let who = givers(&[considered.holding.role])?;
        let assignment = ids.get(&considered.holding).copied();
        remedies.push(Remedy { assignment, ..Remedy::new(kind, message).by(who) });
        if remedies.len() == MAX_DATED {
            break;
        }
    }
    Ok(remedies)
}

fn assign(
    facts: &Facts,
    asked: &Asked<'_>,
    explanation: &Explanation,
    givers: impl Fn(&[RoleId]) -> Result<Who, TenantNotLoaded>,
) -> Result<Remedy, TenantNotLoaded> {
    let roles: Vec<RoleId> = explanation.roles_that_allow.iter().take(MAX_ROLES).copied().collect();
    let Some(entry) = facts.directory.tenants.get(asked.tenant) else {
        return Ok(correct_name());
    };
    let keys: Vec<String> = roles.iter().map(|role| role_key(facts, entry.id, *role)).collect();
    let permission = asked.what.permission.as_str();
    // A role that reaches no further than where it is assigned helps here only.
    let scope = scope_text(asked.what.resource.workspace, asked.what.resource.path);
    let place = match scope.as_str() {
        "" => "the tenant".to_owned(),
        scope => format!("`{scope}`"),
    };
    let message = match keys.as_slice() {
        [] => format!(
            "no role of the tenant has `{permission}`; give it to one, and assign that on {place}"
        ),
        [key] => format!("assign role `{key}` on {place}"),
        [key, ..] => format!("assign one of the roles on {place}, the least is `{key}`"),
    };
    let who = givers(&roles)?;
    Ok(Remedy { roles: keys, scope, ..Remedy::new(RemedyKind::AssignRole, message).by(who) })
}
