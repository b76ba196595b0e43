//! Role assignments: who gives which role to whom, where and until when. Every way to a role, by hand,
//! by invitation or through a group, ends here.

mod rpc;
mod sql;

use std::collections::HashSet;

use chrono::{Days, SecondsFormat, TimeDelta};

use crate::{
    app::App,
    change::{Change, Event, Scope},
    decision::{Assignment, Holding, Record, Resource, Role, Time},
    error::{Error, Result},
    ids::{AssignmentId, Holder, RoleId, SubjectId, UserId, WorkspaceId},
};

pub use rpc::read_ids;
pub use sql::{Shown, shown, shown_by_tenant, shown_now, shown_of_group_now, shown_of_groups};

/// The most assignments that one holder has.
const MAX_HELD: usize = 200;

/// A role to be given, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAssignment {
    /// Where it stands in the request, for messages: `add[2]`.
    pub field: String,
    pub role: String,
    pub scope: String,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}

/// A role with its scope and dates, found and allowed.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub role: Role,
    pub scope: Scope,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}

/// Finds role and scope, checks the dates, and that the caller may assign this there.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field; `PERMISSION_DENIED`.
pub async fn resolve(change: &mut Change, new: &NewAssignment) -> Result<Resolved> {
    let field = |name: &str| format!("{}.{name}", new.field);
    let role = change.role(&field("role"), &new.role)?;
    let scope = change.scope(&field("scope"), &new.scope).await?;
    let ends = end(&field("end_time"), &role, new, change.now())?;
    change.require("iam.roles.assign", &scope.text)?;
    change.require_gift(role.id, &scope, ends)?;
    Ok(Resolved { role, scope, starts: new.starts, ends })
}

/// What one request gives, each [`resolve`]d; nothing of it may replace another part of it.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_all(change: &mut Change, new: &[NewAssignment]) -> Result<Vec<Resolved>> {
    let mut all = Vec::with_capacity(new.len());
    for one in new {
        let resolved = resolve(change, one).await?;
        check_beside(change, &all, &resolved, &one.field)?;
        all.push(resolved);
    }
    Ok(all)
}

/// What one request gives to somebody, who may be the caller.
///
/// # Errors
/// As [`resolve_all`].
pub async fn resolve_for(
    change: &mut Change,
    holder: Holder,
    new: &[NewAssignment],
) -> Result<Vec<Resolved>> {
    let all = resolve_all(change, new).await?;
    for one in &all {
        change.require_no_raise(holder, one.role.id, &one.scope, one.ends)?;
    }
    Ok(all)
}

/// Refuses a role that is given twice, or excluded by another one, on the same scope.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn check_beside(
    change: &Change,
    given: &[Resolved],
    next: &Resolved,
    field: &str,
) -> Result<()> {
    let Some(other) = given.iter().find(|other| {
        let excluded = other.role.exclusive_set.is_some()
            && other.role.exclusive_set == next.role.exclusive_set;
        other.scope == next.scope && (other.role.id == next.role.id || excluded)
    }) else {
        return Ok(());
    };
    let (place, key) = (&change.tenant().key, &other.role.key);
    let place = if next.scope.text.is_empty() { place.as_str() } else { &next.scope.text };
    let wanted = format!("role `{key}` is given on `{place}` already; choose one of the two");
    Err(Error::invalid(field, wanted))
}

fn end(field: &str, role: &Role, new: &NewAssignment, now: Time) -> Result<Option<Time>> {
    let starts = new.starts.map_or(now, |starts| starts.max(now));
    let longest = longest(role, new.starts, now);
    check_end(field, new.starts, new.ends, now)?;
    match (new.ends, longest) {
        (Some(ends), Some(longest)) if ends > longest => {
            let key = &role.key;
            let at = longest.to_rfc3339_opts(SecondsFormat::Secs, true);
            let last = longest.date_naive() - Days::new(1);
            let whole = match last >= starts.date_naive() {
                true => format!(", and {last} is its last whole day"),
                false => String::new(),
            };
            let message = format!("role `{key}` lasts at most until {at}{whole}; end it by then");
            Err(Error::invalid(field, message))
        }
        (ends, longest) => Ok(ends.or(longest)),
    }
}

/// The end of an assignment of the role, for which nobody has chosen one, that is given now.
#[must_use]
pub fn longest(role: &Role, starts: Option<Time>, now: Time) -> Option<Time> {
    let starts = starts.map_or(now, |starts| starts.max(now));
    let longest = TimeDelta::try_seconds(role.max_duration_seconds?)?;
    starts.checked_add_signed(longest)
}

/// Refuses an end that is past, or before the start.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn check_end(field: &str, starts: Option<Time>, ends: Option<Time>, now: Time) -> Result<()> {
    match ends {
        Some(ends) if ends <= starts.map_or(now, |starts| starts.max(now)) => {
            Err(Error::invalid(field, "it must be in the future and after the start"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Gives a resolved role. A role of the same exclusive set on that scope is replaced; the same role
/// there changes its dates.
///
/// # Errors
/// `FAILED_PRECONDITION` when the holder has too many.
pub async fn give(change: &mut Change, holder: Holder, new: &Resolved) -> Result<Assignment> {
    let held = sql::held(change, holder).await?;
    let there = |a: &&Assignment| a.workspace == new.scope.workspace && a.path == new.scope.path;
    if let Some(same) = held.iter().filter(there).find(|a| a.role == new.role.id) {
        let dated = Assignment { starts: new.starts, ends: new.ends, ..same.clone() };
        if dated != *same {
            require_takeable(change, same).await?;
            sql::update_dates(change, &dated).await?;
            note(change, "role.redated", same, Some(same), Some(&dated)).await?;
        }
        return Ok(dated);
    }
    if held.len() >= MAX_HELD {
        let message =
            format!("{holder} has {MAX_HELD} role assignments; remove some, or use a group");
        return Err(Error::precondition("TOO_MANY_ASSIGNMENTS", holder, message));
    }
    for other in held.iter().filter(there) {
        if exclusive(change, other, &new.role)? {
            require_takeable(change, other).await?;
            remove_one(change, other).await?;
        }
    }
    let assignment = Assignment {
        id: change.id()?,
        holder,
        role: new.role.id,
        workspace: new.scope.workspace,
        path: new.scope.path.clone(),
        starts: new.starts,
        ends: new.ends,
    };
    sql::insert(change, &assignment).await?;
    note(change, "role.assigned", &assignment, None, Some(&assignment)).await?;
    Ok(assignment)
}

fn exclusive(change: &Change, held: &Assignment, given: &Role) -> Result<bool> {
    let set = change.facts()?.role(held.role).and_then(|r| r.exclusive_set.clone());
    Ok(set.is_some() && set == given.exclusive_set)
}

/// Refuses unless the caller may take the assignment away. Whoever replaces what is their own, such as
/// by accepting an invitation, need not be able to give it.
async fn require_takeable(change: &mut Change, assignment: &Assignment) -> Result<()> {
    let holder = assignment.holder.subject().and_then(SubjectId::user);
    if holder.is_some_and(|user| change.call().is_oneself(user)) {
        return Ok(());
    }
    let scope = sql::scope(change, assignment.workspace, &assignment.path).await?;
    change.require("iam.roles.assign", &scope.text)?;
    change.require_gift(assignment.role, &scope, assignment.ends)
}

/// Takes assignments away from their holder; the caller must be able to give each of them.
///
/// # Errors
/// `NOT_FOUND` for an assignment of somebody else; `PERMISSION_DENIED`.
pub async fn remove(change: &mut Change, holder: Holder, ids: &[AssignmentId]) -> Result<()> {
    let held = sql::held(change, holder).await?;
    let mut seen = HashSet::new();
    for id in ids.iter().filter(|id| seen.insert(**id)) {
        let assignment = held.iter().find(|a| a.id == *id);
        let assignment = assignment.ok_or_else(|| Error::not_found("role assignment", id))?;
        let scope = sql::scope(change, assignment.workspace, &assignment.path).await?;
        change.require("iam.roles.assign", &scope.text)?;
        change.require_gift(assignment.role, &scope, assignment.ends)?;
        remove_one(change, assignment).await?;
    }
    Ok(())
}

/// Takes everything away from a holder who leaves, is removed or is deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn remove_all(change: &mut Change, holder: Holder) -> Result<()> {
    for assignment in &sql::held(change, holder).await? {
        remove_one(change, assignment).await?;
    }
    Ok(())
}

/// Ends every assignment on a workspace and below it; returns them.
///
/// # Errors
/// When the database does not answer.
pub async fn remove_workspace(
    change: &mut Change,
    workspace: WorkspaceId,
) -> Result<Vec<Assignment>> {
    let ended = sql::in_workspace(change, workspace).await?;
    for assignment in &ended {
        remove_one(change, assignment).await?;
    }
    Ok(ended)
}

async fn remove_one(change: &mut Change, assignment: &Assignment) -> Result<()> {
    sql::delete(change, assignment.id).await?;
    note(change, "role.unassigned", assignment, Some(assignment), None).await
}

/// Notes what became of an assignment, with what its ids are called to whoever reads it.
async fn note(
    change: &mut Change,
    verb: &'static str,
    assignment: &Assignment,
    before: Option<&Assignment>,
    after: Option<&Assignment>,
) -> Result<()> {
    let role = change.facts()?.role(assignment.role).map(|role| role.key.clone());
    let workspace = match assignment.workspace {
        Some(id) => Some(change.workspace_key(id).await?),
        None => None,
    };
    let target = match assignment.holder {
        Holder::Group(id) => change.group_key(id).await?,
        Holder::Subject(subject) => subject.to_string(),
    };
    let record = |assignment: Option<&Assignment>| assignment.cloned().map(Record::Assignment);
    let mut event = Event::new(verb, target)
        .before(record(before))
        .after(record(after))
        .named("role_key", &role, &role);
    if let Some(key) = &workspace {
        event = event.named("workspace_key", key, key);
    }
    change.record(event)
}

/// Refuses to act on somebody who may do what the caller may not give.
///
/// # Errors
/// `PERMISSION_DENIED` with the reason `MEMBER_OUTRANKS_CALLER`.
pub async fn require_outranked(change: &mut Change, subject: SubjectId) -> Result<()> {
    let yours = |change: &Change, role, scope: &Scope, ends| {
        Ok(change.require_gift(role, scope, ends).is_ok())
    };
    require_of_all(change, subject, yours).await
}

/// Refuses to act as somebody who may do what the caller may not.
///
/// # Errors
/// `PERMISSION_DENIED` with the reason `MEMBER_OUTRANKS_CALLER`.
pub async fn require_no_more(change: &mut Change, subject: SubjectId) -> Result<()> {
    let held =
        |change: &Change, role, scope: &Scope, ends| change.may_have(role, scope, ends, |_| true);
    require_of_all(change, subject, held).await
}

async fn require_of_all(
    change: &mut Change,
    subject: SubjectId,
    is_yours: impl Fn(&Change, RoleId, &Scope, Option<Time>) -> Result<bool>,
) -> Result<()> {
    for assignment in held_through_groups(change, subject).await? {
        if is_over(change, assignment.ends) {
            continue;
        }
        let scope = sql::scope(change, assignment.workspace, &assignment.path).await?;
        if is_yours(change, assignment.role, &scope, assignment.ends)? {
            continue;
        }
        let role = match change.require("iam.members.read", "") {
            Ok(()) => format!("role `{}`", change.role_key(assignment.role)?),
            Err(_) => "a role".to_owned(),
        };
        return Err(Error::Denied {
            reason: "MEMBER_OUTRANKS_CALLER",
            message: format!(
                "{subject} has {role} that goes beyond yours, so this is not yours to do; ask an \
                 administrator"
            ),
        });
    }
    Ok(())
}

/// Refuses unless the caller may give every role that the holder has.
///
/// # Errors
/// `PERMISSION_DENIED` with the reason `ROLE_NOT_GRANTABLE`.
pub async fn require_gifts(change: &mut Change, holder: Holder) -> Result<()> {
    require_gifts_to(change, holder, &[]).await
}

/// As [`require_gifts`], for people who get what the holder has; one of them may be the caller.
///
/// # Errors
/// As [`require_gifts`].
pub async fn require_gifts_to(change: &mut Change, holder: Holder, users: &[UserId]) -> Result<()> {
    for Assignment { role, workspace, path, ends, .. } in sql::held(change, holder).await? {
        if is_over(change, ends) {
            continue;
        }
        let scope = sql::scope(change, workspace, &path).await?;
        change.require_gift(role, &scope, ends)?;
        for user in users {
            change.require_no_raise(Holder::Subject(SubjectId::User(*user)), role, &scope, ends)?;
        }
    }
    Ok(())
}

/// What is over gives nobody anything.
fn is_over(change: &Change, ends: Option<Time>) -> bool {
    ends.is_some_and(|ends| ends <= change.now())
}

async fn held_through_groups(change: &mut Change, subject: SubjectId) -> Result<Vec<Holding>> {
    change.load(&[subject]).await?;
    Ok(change.facts()?.holdings_of(subject).collect())
}

/// The scopes on which a request to give and take roles must be allowed, for its claim. What is to be
/// taken but is not there counts as held on the tenant: only whoever may assign there learns so.
///
/// # Errors
/// `INVALID_ARGUMENT` for a malformed scope.
pub async fn claimed_scopes(
    app: &App,
    tenant: &str,
    add: &[NewAssignment],
    remove: &[AssignmentId],
) -> Result<Vec<String>> {
    let mut scopes = Vec::with_capacity(add.len() + remove.len());
    for new in add {
        Resource::parse(&new.scope)
            .map_err(|error| Error::invalid(format!("{}.scope", new.field), error))?;
        scopes.push(new.scope.clone());
    }
    if !remove.is_empty() {
        let found = sql::scopes(&app.pool, tenant, remove).await?;
        scopes.extend(remove.iter().map(|id| found.get(id).cloned().unwrap_or_default()));
    }
    scopes.sort_unstable();
    scopes.dedup();
    Ok(scopes)
}

/// Takes away what is over of a role that is to be deleted; says how often it is assigned still.
///
/// # Errors
/// When the database does not answer.
pub async fn clear_role(change: &mut Change, role: RoleId) -> Result<i64> {
    for assignment in &sql::ended_of_role(change, role).await? {
        remove_one(change, assignment).await?;
    }
    sql::count_of_role(change, role).await
}

/// A role of the tenant's own that somebody gets without anybody choosing it.
///
/// # Errors
/// When the role does not exist.
pub fn unchosen(change: &Change, role: RoleId) -> Result<Resolved> {
    let found = change.facts()?.role(role).ok_or_else(|| Error::not_found("role", role))?;
    let role = Role::clone(found);
    let scope = Scope { workspace: None, path: String::new(), text: String::new() };
    let new = NewAssignment {
        field: "role".to_owned(),
        role: role.key.to_string(),
        scope: String::new(),
        starts: None,
        ends: None,
    };
    let ends = end("role", &role, &new, change.now())?;
    Ok(Resolved { role, scope, starts: None, ends })
}
