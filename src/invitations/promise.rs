//! The roles of an invitation: promised when it is made, checked against the caller, and kept when it is
//! accepted, as far as they still can be.

use std::collections::BTreeMap;

use super::{Invitation, sql};
use crate::{
    assignments::{self, Resolved},
    change::Change,
    decision::{InvitedRole, Role, TenantStatus, scope_text},
    error::{Error, Result},
    ids::SubjectId,
};

/// How the installation itself is named as an inviter.
const INSTALLATION: &str = "installation";

/// A role of an invitation, as it can be given now.
#[derive(Debug, Clone)]
pub enum Promise {
    Kept(Box<Resolved>),
    /// The role, the workspace or the time is gone; which role that was.
    Void(String),
}

/// What the roles of an invitation come to now.
///
/// # Errors
/// When the database does not answer.
pub async fn promises(change: &mut Change, invitation: &Invitation) -> Result<Vec<Promise>> {
    let keys = sql::workspace_keys(change, invitation).await?;
    let mut promises = Vec::with_capacity(invitation.roles.len());
    for InvitedRole { role, workspace, path, starts, ends } in &invitation.roles {
        let Some(role) = change.facts()?.role(*role).map(|role| Role::clone(role)) else {
            promises.push(Promise::Void(role.to_string()));
            continue;
        };
        let key = workspace.map(|workspace| keys.get(&workspace.uuid()));
        if key == Some(None) || ends.is_some_and(|ends| ends <= change.now()) {
            promises.push(Promise::Void(role.key.to_string()));
            continue;
        }
        let text = scope_text(key.flatten().map(String::as_str), path);
        let scope = change.scope("scope", &text).await?;
        let ends = ends.or_else(|| assignments::longest(&role, *starts, change.now()));
        let kept = Resolved { role, scope, starts: *starts, ends };
        promises.push(Promise::Kept(Box::new(kept)));
    }
    Ok(promises)
}

/// Refuses an invitation of which no role can be given any more: nobody chose what it would come to.
///
/// # Errors
/// `FAILED_PRECONDITION` with the reason `INVITATION_VOID`.
pub async fn require_any(change: &mut Change, invitation: &Invitation) -> Result<()> {
    let promises = promises(change, invitation).await?;
    if promises.iter().any(|promise| matches!(promise, Promise::Kept(_))) {
        return Ok(());
    }
    let message = "no role that it promised can be given any more: the role, the workspace or the time \
                   is gone; invite the person anew";
    Err(Error::precondition("INVITATION_VOID", invitation.id, message))
}

/// Refuses unless the caller may invite people of this kind wherever the invitation's roles lie or lay,
/// as far as it exists.
pub async fn require_reach(change: &mut Change, invitation: &Invitation) -> Result<()> {
    let permission = super::permission(invitation.kind);
    let keys = sql::workspace_keys(change, invitation).await?;
    let mut reached = false;
    for InvitedRole { workspace, path, .. } in &invitation.roles {
        let key = workspace.map(|workspace| keys.get(&workspace.uuid()));
        if key != Some(None) {
            change.require(permission, &scope_text(key.flatten().map(String::as_str), path))?;
            reached = true;
        }
    }
    if reached { Ok(()) } else { change.require(permission, "") }
}

/// Refuses unless the caller may give every role of the invitation that is not the default one.
pub async fn require_gifts(change: &mut Change, invitation: &Invitation) -> Result<()> {
    let default = change.tenant().default_role;
    for promise in promises(change, invitation).await? {
        let Promise::Kept(kept) = promise else { continue };
        let Resolved { role, scope, ends, .. } = *kept;
        if Some(role.id) != default || !scope.text.is_empty() {
            change.require("iam.roles.assign", &scope.text)?;
            change.require_gift(role.id, &scope, ends)?;
        }
    }
    Ok(())
}

/// Whether whoever invited could still do so: may invite such people wherever the roles lie, and give
/// them. Whoever runs the installation always could, and a tenant that waits for its first administrator
/// was promised to them by whoever made it.
///
/// # Errors
/// When the database does not answer.
pub async fn inviter_vouches(change: &mut Change, invitation: &Invitation) -> Result<bool> {
    if change.tenant().status == TenantStatus::Pending {
        return Ok(true);
    }
    let Ok(inviter) = invitation.invited_by.parse::<SubjectId>() else {
        return Ok(invitation.invited_by == INSTALLATION);
    };
    let default = change.tenant().default_role;
    let mut gifts = Vec::new();
    for promise in promises(change, invitation).await? {
        let Promise::Kept(kept) = promise else { continue };
        let Resolved { role, scope, ends, .. } = *kept;
        if Some(role.id) != default || !scope.text.is_empty() {
            gifts.push((role.id, scope, ends));
        }
    }
    change.vouches(inviter, super::permission(invitation.kind), &gifts).await
}

/// What is promised, to whoever reads of it.
pub fn named(role: &Resolved) -> BTreeMap<&'static str, String> {
    [("role", role.role.key.to_string()), ("scope", role.scope.text.clone())].into()
}

pub fn invited(role: &Resolved) -> InvitedRole {
    InvitedRole {
        role: role.role.id,
        workspace: role.scope.workspace,
        path: role.scope.path.clone(),
        starts: role.starts,
        ends: role.ends,
    }
}
