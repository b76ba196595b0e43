//! Roles: named sets of permissions that a tenant gives on its scopes. Owns what a role is and who may
//! make one; who holds it is `assignments`. Which role joins without being chosen is the tenant's.

mod install;
mod rpc;
mod sql;
pub mod templates;

use std::{collections::BTreeMap, sync::Arc};

use smol_str::SmolStr;
use sqlx::PgPool;

use crate::{
    access::Permit,
    assignments, catalogue,
    change::{Change, Event, Scope},
    decision::{self, CompiledRole, PermissionSet, Reach, Record, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{Key, RoleId},
};

pub use install::{Installed, Plan, add_builtin, install, plan_builtin};

/// Key of the built-in role that allows everything in a tenant.
pub const ADMINISTRATOR: &str = "administrator";

/// The most roles of one tenant: every change in it reads them all.
const MAX_ROLES: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Role {
    pub facts: decision::Role,
    /// By language.
    pub display_names: BTreeMap<String, String>,
    pub description: String,
    /// The sector it came from; empty: the tenant's own.
    pub template: String,
    pub template_version: i32,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

/// A role as it is shown: with the keys of the roles that it names, and all that it gives.
#[derive(Debug, Clone)]
pub struct Shown {
    pub role: Role,
    pub includes: Vec<String>,
    pub may_grant: Vec<String>,
    pub effective_permissions: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct NewRole {
    pub key: Key,
    pub display_names: BTreeMap<String, String>,
    pub description: String,
    pub permissions: Vec<String>,
    pub includes: Vec<String>,
    pub reach: Reach,
    pub may_grant: Vec<String>,
    pub exclusive_set: Option<Key>,
    pub max_duration_seconds: Option<i64>,
}

/// Creates a role of the tenant's own.
///
/// # Errors
/// `ALREADY_EXISTS` when the key is in use; `INVALID_ARGUMENT` for a role that is not there or a permission
/// that is not in the catalogue; `PERMISSION_DENIED` when it would have more than the caller.
pub async fn create(change: &mut Change, new: NewRole) -> Result<Shown> {
    require_room(change, 1)?;
    catalogue::require_known(change, &new.permissions, &[""; 0], templates::modules()).await?;
    let role = Role {
        facts: decision::Role {
            id: change.id()?,
            key: new.key,
            permissions: sorted(&new.permissions),
            includes: named(change, "includes", &new.includes)?,
            reach: new.reach,
            may_grant: named(change, "may_grant", &new.may_grant)?,
            exclusive_set: new.exclusive_set,
            max_duration_seconds: new.max_duration_seconds,
            locked: false,
        },
        display_names: new.display_names,
        description: new.description,
        template: String::new(),
        template_version: 0,
        version: 1,
        created_at: change.now(),
        updated_at: change.now(),
    };
    require_all_of(change, &compiled(change, &role.facts)?)?;
    sql::insert(change, &role).await?;
    sql::link(change, &role.facts).await?;
    change.record(created(change, &role, &[])?)?;
    sql::find_in(change, role.facts.key.as_str()).await
}

/// `beside` are roles that are made together with it.
fn created(change: &Change, role: &Role, beside: &[Role]) -> Result<Event> {
    let event = Event::new("role.created", &role.facts.key)
        .after(Record::Role(role.facts.clone()))
        .change("display_names", &BTreeMap::new(), &role.display_names)
        .change("description", &"", &role.description.as_str())
        .change("template", &"", &role.template.as_str());
    with_keys(change, event, role, role, beside)
}

/// Adds what the roles are called that a role names, before and after.
fn with_keys(
    change: &Change,
    event: Event,
    before: &Role,
    after: &Role,
    beside: &[Role],
) -> Result<Event> {
    let keys = |roles: &[RoleId]| keys_of(change, roles, beside);
    let (before, after) = (&before.facts, &after.facts);
    Ok(event.named("include_keys", keys(&before.includes)?, keys(&after.includes)?).named(
        "may_grant_keys",
        keys(&before.may_grant)?,
        keys(&after.may_grant)?,
    ))
}

/// What roles are called to whoever reads of them.
fn keys_of(change: &Change, roles: &[RoleId], beside: &[Role]) -> Result<Vec<Key>> {
    let facts = change.facts()?;
    let known = |id: &RoleId| facts.role(*id).map(|role| &**role);
    let made = |id: &RoleId| beside.iter().map(|role| &role.facts).find(|role| role.id == *id);
    let found = roles.iter().filter_map(|id| known(id).or_else(|| made(id)));
    Ok(found.map(|role| role.key.clone()).collect())
}

/// What the roles of the tenant are called, by language.
///
/// # Errors
/// When the database does not answer.
pub async fn names(change: &mut Change) -> Result<Vec<(RoleId, Key, BTreeMap<String, String>)>> {
    sql::names(change).await
}

/// The keys of the tenant's roles, sorted.
///
/// # Errors
/// When the database does not answer.
pub async fn keys(pool: &PgPool, permit: &Permit) -> Result<Vec<String>> {
    sql::keys(pool, permit).await
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct RoleEdit {
    pub key: String,
    pub display_names: Option<BTreeMap<String, String>>,
    pub description: Option<String>,
    pub permissions: Option<Vec<String>>,
    pub includes: Option<Vec<String>>,
    pub reach: Option<Reach>,
    pub may_grant: Option<Vec<String>>,
    pub exclusive_set: Option<Option<Key>>,
    pub max_duration_seconds: Option<Option<i64>>,
    pub etag: String,
}

/// Changes a role for all its holders.
///
/// # Errors
/// Those of [`create`]; `INVALID_ARGUMENT` for roles that include each other in a circle;
/// `FAILED_PRECONDITION` for a locked role; `ABORTED` for a stale etag.
pub async fn update(change: &mut Change, edit: RoleEdit) -> Result<Shown> {
    let shown = sql::find_in(change, &edit.key).await?;
    let before = &shown.role;
    check_etag(&edit.etag, before.version)?;
    require_unlocked(before)?;
    let mut after = before.clone();
    let facts = &mut after.facts;
    if let Some(permissions) = edit.permissions {
        let had = &before.facts.permissions;
        catalogue::require_known(change, &permissions, had, templates::modules()).await?;
        facts.permissions = sorted(&permissions);
    }
    if let Some(includes) = &edit.includes {
        facts.includes = named(change, "includes", includes)?;
    }
    if let Some(may_grant) = &edit.may_grant {
        facts.may_grant = named(change, "may_grant", may_grant)?;
    }
    facts.reach = edit.reach.unwrap_or(before.facts.reach);
    facts.exclusive_set = edit.exclusive_set.unwrap_or_else(|| before.facts.exclusive_set.clone());
    facts.max_duration_seconds =
        edit.max_duration_seconds.unwrap_or(before.facts.max_duration_seconds);
    after.display_names = edit.display_names.unwrap_or(after.display_names);
    after.description = edit.description.unwrap_or(after.description);

    require_no_circle(change, &after.facts)?;
    require_all_of(change, &compiled(change, &before.facts)?)?;
    require_all_of(change, &compiled(change, &after.facts)?)?;
    if !rewrite(change, before, &mut after).await? {
        return Ok(shown);
    }
    sql::find_in(change, &edit.key).await
}

/// Writes what differs and notes it; `false` when nothing does.
async fn rewrite(change: &mut Change, before: &Role, after: &mut Role) -> Result<bool> {
    let event = Event::new("role.updated", &after.facts.key)
        .before(Record::Role(before.facts.clone()))
        .after(Record::Role(after.facts.clone()))
        .change("display_names", &before.display_names, &after.display_names)
        .change("description", &before.description, &after.description);
    if !event.changes_anything() {
        return Ok(false);
    }
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, after).await?;
    sql::link(change, &after.facts).await?;
    change.record(with_keys(change, event, before, after, &[])?)?;
    Ok(true)
}

/// Deletes a role that nobody has and nothing needs. Roles whose holders may give it forget it.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `FAILED_PRECONDITION` for a locked role or one in use;
/// `PERMISSION_DENIED` when it has more than the caller.
pub async fn delete(change: &mut Change, key: &str, etag: &str) -> Result<()> {
    let role = sql::find_in(change, key).await?.role;
    check_etag(etag, role.version)?;
    require_unlocked(&role)?;
    require_all_of(change, &compiled(change, &role.facts)?)?;
    require_unused(change, &role.facts).await?;
    let id = role.facts.id;
    let givers = change.facts()?.roles().filter(|giver| giver.may_grant.contains(&id));
    let givers: Vec<Key> =
        givers.filter(|giver| giver.id != id).map(|giver| giver.key.clone()).collect();
    for giver in givers {
        let before = sql::find_in(change, giver.as_str()).await?.role;
        let mut after = before.clone();
        after.facts.may_grant.retain(|given| *given != id);
        rewrite(change, &before, &mut after).await?;
    }
    sql::delete(change, id).await?;
    let event = Event::new("role.deleted", key).before(Record::Role(role.facts.clone()));
    change.record(with_keys(change, event, &role, &role, &[])?)
}

async fn require_unused(change: &mut Change, role: &decision::Role) -> Result<()> {
    let assigned = assignments::clear_role(change, role.id).await?;
    let invited = sql::count_invited(change, role.id).await?;
    let roles = change.facts()?.roles();
    let including = roles.filter(|other| other.includes.contains(&role.id));
    let including: Vec<&str> = including.map(|other| other.key.as_str()).collect();
    let mut uses = Vec::new();
    if assigned > 0 {
        uses.push(format!("assigned {assigned} times"));
    }
    if invited > 0 {
        uses.push(format!("in {invited} pending invitations"));
    }
    if !including.is_empty() {
        uses.push(format!("included by `{}`", including.join("`, `")));
    }
    if change.tenant().default_role == Some(role.id) {
        uses.push("the default role of the tenant".to_owned());
    }
    if uses.is_empty() {
        return Ok(());
    }
    let message = format!("role `{}` is {}; end that first", role.key, uses.join(", "));
    Err(Error::precondition("ROLE_IN_USE", &role.key, message))
}

fn require_unlocked(role: &Role) -> Result<()> {
    if !role.facts.locked {
        return Ok(());
    }
    let key = &role.facts.key;
    let message = format!(
        "role `{key}` is built in and cannot be changed or deleted; make a role of your own"
    );
    Err(Error::precondition("ROLE_LOCKED", key, message))
}

fn require_room(change: &Change, more: usize) -> Result<()> {
    if change.facts()?.roles().count() + more <= MAX_ROLES {
        return Ok(());
    }
    let tenant = &change.tenant().key;
    let message = format!("a tenant has at most {MAX_ROLES} roles; delete some first");
    Err(Error::precondition("TOO_MANY_ROLES", tenant, message))
}

/// Each once.
fn sorted(permissions: &[String]) -> Arc<[SmolStr]> {
    let mut words: Vec<SmolStr> = permissions.iter().map(SmolStr::new).collect();
    words.sort_unstable();
    words.dedup();
    words.into()
}

/// The ids of the roles with these keys, each once.
fn named(change: &Change, field: &str, keys: &[String]) -> Result<Vec<RoleId>> {
    let mut ids = Vec::with_capacity(keys.len());
    for (n, key) in keys.iter().enumerate() {
        ids.push(change.role(&format!("{field}[{n}]"), key)?.id);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// What the role would give with all that it includes, were it as given. Nothing of it holds yet:
/// whoever has the role cannot vouch for its new rights with those very rights.
fn compiled(change: &Change, role: &decision::Role) -> Result<CompiledRole> {
    let mut facts = change.facts()?.clone();
    facts.apply(None, Some(&Record::Role(role.clone())));
    Ok(facts.compiled(role.id).cloned().unwrap_or_default())
}

/// Refuses unless the caller holds all that the role gives, and may give all that its holders may.
fn require_all_of(change: &Change, role: &CompiledRole) -> Result<()> {
    change.require_all(&role.permissions)?;
    let tenant = Scope { workspace: None, path: String::new(), text: String::new() };
    let mut grantable = role.may_grant.iter().filter(|id| {
        // A role that is made in this change gives nothing that was not asked for already.
        change.facts().is_ok_and(|facts| facts.role(**id).is_some())
    });
    grantable.try_for_each(|id| change.require_gift(*id, &tenant, None))
}

fn require_no_circle(change: &Change, role: &decision::Role) -> Result<()> {
    let facts = change.facts()?;
    let mut seen = std::collections::HashSet::new();
    let mut pending = role.includes.clone();
    while let Some(id) = pending.pop() {
        if id == role.id {
            let key = &role.key;
            let wanted = format!("role `{key}` would include itself; leave out what includes it");
            return Err(Error::invalid("includes", wanted));
        }
        if seen.insert(id) {
            pending.extend(facts.role(id).into_iter().flat_map(|included| &included.includes));
        }
    }
    Ok(())
}

/// All that shipped roles would give, by key, when they include only each other.
fn effective(role: &templates::Template, beside: &[templates::Template]) -> PermissionSet {
    let mut set = PermissionSet::default();
    let mut seen = std::collections::HashSet::from([role.key.as_str()]);
    let mut pending = vec![role];
    while let Some(next) = pending.pop() {
        set.extend(&PermissionSet::of(&next.permissions));
        let included = beside.iter().filter(|other| next.includes.contains(&other.key));
        pending.extend(included.filter(|other| seen.insert(&other.key)));
    }
    set
}

fn unknown(key: &str) -> Error {
    Error::not_found("role", key)
}

/// Forgets what the roles of a tenant that is being erased are called, but their keys.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change) -> Result<()> {
    sql::erase(change).await
}
