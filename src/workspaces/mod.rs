//! Workspaces: parts of a tenant with roles of their own.

mod rpc;
mod sql;

use std::collections::BTreeMap;

use crate::{
    assignments,
    change::{Change, Event},
    decision::{Record, Time, scope_text},
    edit::check_etag,
    error::{Error, Result},
    ids::{Holder, Key, WorkspaceId},
    invitations,
};

#[derive(Debug, Clone)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub key: Key,
    pub display_name: String,
    pub external_id: String,
    pub metadata: BTreeMap<String, String>,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

impl Workspace {
    fn record(&self) -> Record {
        Record::Workspace(crate::decision::Workspace { id: self.id, key: self.key.clone() })
    }
}

#[derive(Debug, Clone)]
pub struct NewWorkspace {
    pub key: Key,
    pub display_name: String,
    pub external_id: String,
    pub metadata: BTreeMap<String, String>,
}

/// Creates a workspace without assignments.
///
/// # Errors
/// `ALREADY_EXISTS` when the key is or once was in use.
pub async fn create(change: &mut Change, new: NewWorkspace) -> Result<Workspace> {
    let workspace = Workspace {
        id: change.id()?,
        key: new.key,
        display_name: new.display_name,
        external_id: new.external_id,
        metadata: new.metadata,
        version: 1,
        created_at: change.now(),
        updated_at: change.now(),
    };
    sql::insert(change, &workspace).await?;
    let event = Event::new("workspace.created", &workspace.key).after(workspace.record()).change(
        "display_name",
        &"",
        &workspace.display_name.as_str(),
    );
    change.record(event)?;
    Ok(workspace)
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct WorkspaceEdit {
    pub key: String,
    pub display_name: Option<String>,
    pub external_id: Option<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub etag: String,
}

/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag.
pub async fn update(change: &mut Change, edit: WorkspaceEdit) -> Result<Workspace> {
    let before = sql::lock(change, &edit.key).await?;
    check_etag(&edit.etag, before.version)?;
    let mut after = before.clone();
    after.display_name = edit.display_name.unwrap_or(after.display_name);
    after.external_id = edit.external_id.unwrap_or(after.external_id);
    after.metadata = edit.metadata.unwrap_or(after.metadata);
    let event = Event::new("workspace.updated", &after.key)
        .before(before.record())
        .after(after.record())
        .change("display_name", &before.display_name, &after.display_name)
        .change("external_id", &before.external_id, &after.external_id)
        .change("metadata", &before.metadata, &after.metadata);
    if !event.changes_anything() {
        return Ok(before);
    }
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// What somebody loses with a workspace.
#[derive(Debug, Clone)]
pub struct Loss {
    pub holder: Holder,
    pub role: String,
    pub scope: String,
    pub ends: Option<Time>,
}

/// What a deletion takes along.
#[derive(Debug, Clone)]
pub struct Deleted {
    pub losses: Vec<Loss>,
    pub cancelled_invitations: usize,
}

/// Deletes a workspace for good, with every assignment on it and below it and what invites to nothing
/// else.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag.
pub async fn delete(change: &mut Change, key: &str, etag: &str) -> Result<Deleted> {
    let workspace = sql::lock(change, key).await?;
    check_etag(etag, workspace.version)?;
    let cancelled_invitations = invitations::cancel_within(change, workspace.id).await?;
    let ended = assignments::remove_workspace(change, workspace.id).await?;
    sql::delete(change, workspace.id).await?;
    change.record(Event::new("workspace.deleted", &workspace.key).before(workspace.record()))?;
    let (facts, now) = (change.facts()?, change.now());
    let live = ended.into_iter().filter(|held| held.ends.is_none_or(|ends| ends > now));
    let losses = live.map(|assignment| Loss {
        holder: assignment.holder,
        role: facts.role(assignment.role).map_or_else(String::new, |role| role.key.to_string()),
        scope: scope_text(Some(key), &assignment.path),
        ends: assignment.ends,
    });
    Ok(Deleted { losses: losses.collect(), cancelled_invitations })
}

fn unknown(key: &str) -> Error {
    Error::not_found("workspace", key)
}

/// Forgets what the workspaces of a tenant that is being erased are called, but their keys.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change) -> Result<()> {
    sql::erase(change).await
}
