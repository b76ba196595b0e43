//! Groups: teams and departments whose role assignments hold for everyone in them. Owns who is in which
//! group; what a group carries is `assignments`. Service accounts are in no group.

mod rpc;
mod sql;

use crate::{
    assignments::{self, NewAssignment, Shown},
    change::{Change, Event},
    decision::{GroupMember, Record, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{AssignmentId, GroupId, Holder, Key, UserId},
};

#[derive(Debug, Clone)]
pub struct Group {
    pub id: GroupId,
    pub key: Key,
    pub display_name: String,
    pub member_count: i64,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

/// A group with what it carries.
#[derive(Debug, Clone)]
pub struct Described {
    pub group: Group,
    pub roles: Vec<Shown>,
}

/// Somebody in a group, as the tenant knows them.
#[derive(Debug, Clone)]
pub struct Joined {
    pub user: UserId,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
}

impl Group {
    fn record(&self) -> Record {
        Record::Group(crate::decision::Group { id: self.id, key: self.key.clone() })
    }

    fn holder(&self) -> Holder {
        Holder::Group(self.id)
    }
}

/// Creates an empty group that carries nothing.
///
/// # Errors
/// `ALREADY_EXISTS` when the key is in use.
pub async fn create(change: &mut Change, key: Key, display_name: String) -> Result<Described> {
    let group = Group {
        id: change.id()?,
        key,
        display_name,
        member_count: 0,
        version: 1,
        created_at: change.now(),
        updated_at: change.now(),
    };
    sql::insert(change, &group).await?;
    let event = Event::new("group.created", &group.key).after(group.record()).change(
        "display_name",
        &"",
        &group.display_name.as_str(),
    );
    change.record(event)?;
    Ok(Described { group, roles: Vec::new() })
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct GroupEdit {
    pub key: String,
    pub display_name: Option<String>,
    pub etag: String,
}

/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag.
pub async fn update(change: &mut Change, edit: GroupEdit) -> Result<Described> {
    let mut group = sql::find_in(change, &edit.key).await?;
    check_etag(&edit.etag, group.version)?;
    let display_name = edit.display_name.unwrap_or_else(|| group.display_name.clone());
    let event = Event::new("group.updated", &group.key)
        .before(group.record())
        .after(group.record())
        .change("display_name", &group.display_name, &display_name);
    if event.changes_anything() {
        group.display_name = display_name;
        touch(change, &mut group).await?;
        change.record(event)?;
    }
    describe(change, &edit.key).await
}

async fn touch(change: &mut Change, group: &mut Group) -> Result<()> {
    group.version += 1;
    group.updated_at = change.now();
    sql::update(change, group).await
}

/// Deletes a group; what it gave ends at once for everyone in it.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` when it carries a role that is not the
/// caller's to give.
pub async fn delete(change: &mut Change, key: &str, etag: &str) -> Result<()> {
    let group = sql::find_in(change, key).await?;
    check_etag(etag, group.version)?;
    assignments::require_gifts(change, group.holder()).await?;
    let members = sql::remove_members(change, group.id, None).await?;
    record_left(change, (group.id, group.key.as_str()), &members)?;
    assignments::remove_all(change, group.holder()).await?;
    sql::delete(change, group.id).await?;
    change.record(Event::new("group.deleted", &group.key).before(group.record()))
}

/// Puts members of the tenant into a group. Who is in it already stays.
///
/// # Errors
/// `NOT_FOUND` for the group, or somebody who is not a member of the tenant; `PERMISSION_DENIED` when
/// the group carries a role that is not the caller's to give.
pub async fn add_members(change: &mut Change, key: &str, users: &[UserId]) -> Result<Described> {
    let mut group = sql::find_in(change, key).await?;
    assignments::require_gifts_to(change, group.holder(), users).await?;
    let members = sql::members_among(change, users).await?;
    if let Some(stranger) = users.iter().find(|user| !members.contains(user)) {
        return Err(Error::not_found("member", stranger));
    }
    let joined = sql::add_members(change, group.id, &members).await?;
    for user in &joined {
        let joined = Record::GroupMember(GroupMember { group: group.id, user: *user });
        let event = Event::new("group.joined", user).after(joined);
        change.record(event.named("group_key", &group.key, &group.key))?;
    }
    if !joined.is_empty() {
        touch(change, &mut group).await?;
    }
    describe(change, key).await
}

/// Takes members out of a group. Who is not in it is passed over.
///
/// # Errors
/// `NOT_FOUND` for the group; `PERMISSION_DENIED` when it carries a role that is not the caller's to
/// give.
pub async fn remove_members(change: &mut Change, key: &str, users: &[UserId]) -> Result<Described> {
    let mut group = sql::find_in(change, key).await?;
    assignments::require_gifts(change, group.holder()).await?;
    let left = sql::remove_members(change, group.id, Some(users)).await?;
    record_left(change, (group.id, group.key.as_str()), &left)?;
    if !left.is_empty() {
        touch(change, &mut group).await?;
    }
    describe(change, key).await
}

/// Takes somebody who leaves the tenant out of every group.
///
/// # Errors
/// When the database does not answer.
pub async fn leave_all(change: &mut Change, user: UserId) -> Result<()> {
    for (group, key) in sql::leave_all(change, user).await? {
        record_left(change, (group, &key), &[user])?;
    }
    Ok(())
}

fn record_left(change: &mut Change, (group, key): (GroupId, &str), users: &[UserId]) -> Result<()> {
    for user in users {
        let left = Record::GroupMember(GroupMember { group, user: *user });
        change.record(Event::new("group.left", user).before(left).named("group_key", key, key))?;
    }
    Ok(())
}

/// Which roles to give and which assignments to end.
#[derive(Debug, Clone)]
pub struct RolesEdit {
    pub key: String,
    pub add: Vec<NewAssignment>,
    pub remove: Vec<AssignmentId>,
    pub etag: String,
}

/// Gives roles to everyone in a group and takes others away, all or none.
///
/// # Errors
/// `NOT_FOUND` for the group or an assignment; those of [`assignments::resolve`]; `ABORTED` for a stale
/// etag.
pub async fn update_roles(change: &mut Change, edit: RolesEdit) -> Result<Described> {
    let mut group = sql::find_in(change, &edit.key).await?;
    check_etag(&edit.etag, group.version)?;
    let resolved = assignments::resolve_for(change, group.holder(), &edit.add).await?;
    let before = assignments::shown_of_group_now(change, group.id).await?;
    assignments::remove(change, group.holder(), &edit.remove).await?;
    for new in &resolved {
        assignments::give(change, group.holder(), new).await?;
    }
    if before != assignments::shown_of_group_now(change, group.id).await? {
        touch(change, &mut group).await?;
    }
    describe(change, &edit.key).await
}

async fn describe(change: &mut Change, key: &str) -> Result<Described> {
    let group = sql::find_in(change, key).await?;
    let roles = assignments::shown_of_group_now(change, group.id).await?;
    Ok(Described { group, roles })
}

fn unknown(key: &str) -> Error {
    Error::not_found("group", key)
}

/// Forgets what the groups of a tenant that is being erased are called, but their keys.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change) -> Result<()> {
    sql::erase(change).await
}
