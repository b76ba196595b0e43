//! Puts shipped roles into a tenant: the built-in ones when it is made, a sector's by choice. What is
//! there from the same template stays as the tenant has made it.

use std::collections::HashMap;

use super::{
    Role, Shown, compiled, created, require_all_of, require_room, rewrite, sql,
    templates::{self, Sector, Template},
};
use smol_str::SmolStr;

use crate::{
    change::Change,
    decision::{self, Record},
    error::{Error, Result},
    ids::{Key, RoleId},
};

/// Where the built-in roles say that they come from.
const BUILTIN: &str = "builtin";

/// Roles with their ids, ready to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    roles: Vec<Role>,
    pub default_role: Option<RoleId>,
}

/// The built-in roles that the tenant of this change, or one that it makes, has not yet.
///
/// # Errors
/// When a shipped role names another that is not there.
pub fn plan_builtin(change: &Change, system: bool) -> Result<Plan> {
    let version = templates::builtin_version();
    let roles =
        plan(change, BUILTIN, version, &change.tenant().language, templates::builtin(system))?;
    let default = templates::builtin_default_role();
    let default_role = roles.iter().find(|role| role.facts.key.as_str() == default);
    Ok(Plan { default_role: default_role.map(|role| role.facts.id), roles })
}

/// Writes planned roles.
///
/// # Errors
/// When the database does not answer.
pub async fn add_builtin(change: &mut Change, plan: &Plan) -> Result<()> {
    write(change, &plan.roles).await
}

/// What installing a sector did.
#[derive(Debug, Clone)]
pub struct Installed {
    pub roles: Vec<Shown>,
    pub skipped: Vec<String>,
    pub default_role: RoleId,
}

/// Adds the roles of a sector. Those that came from it before are left alone.
///
/// # Errors
/// `NOT_FOUND` for an unknown sector; `ALREADY_EXISTS` when a role of the tenant's own has the key;
/// `PERMISSION_DENIED` when a role has more than the caller.
pub async fn install(change: &mut Change, sector: &str) -> Result<Installed> {
    let sector = templates::sector(sector).ok_or_else(|| Error::not_found("sector", sector))?;
    let mut skipped = Vec::new();
    for template in &sector.roles {
        if let Some(taken) = find(change, &template.key)? {
            let there = sql::find_in(change, taken.as_str()).await?.role;
            if there.template != sector.key {
                return Err(Error::AlreadyExists {
                    kind: "role",
                    name: template.key.clone(),
                    remedy: "it is not of this sector; delete it, and make it anew under another key",
                });
            }
            skipped.push(template.key.clone());
        }
    }
    let roles =
        plan(change, &sector.key, sector.version, &change.tenant().language, &sector.roles)?;
    require_room(change, roles.len())?;
    require_each(change, &roles)?;
    write(change, &roles).await?;
    extend_builtin(change, sector).await?;
    let mut added = Vec::with_capacity(roles.len());
    for role in &roles {
        added.push(sql::find_in(change, role.facts.key.as_str()).await?);
    }
    let default_role = id_of(change, &sector.default_role)?;
    Ok(Installed { roles: added, skipped, default_role })
}

/// Refuses unless the caller holds all that the new roles give, judged beside each other.
fn require_each(change: &Change, roles: &[Role]) -> Result<()> {
    let mut with_all = change.facts()?.clone();
    for role in roles {
        with_all.apply(None, Some(&Record::Role(role.facts.clone())));
    }
    let mut closures = roles.iter().filter_map(|role| with_all.compiled(role.facts.id));
    closures.try_for_each(|closure| require_all_of(change, closure))
}

/// A sector can put a built-in role into an exclusive set with its own roles: the one thing about a
/// locked role that changes.
async fn extend_builtin(change: &mut Change, sector: &Sector) -> Result<()> {
    for (key, extension) in &sector.builtin {
        let before = sql::find_in(change, key).await?.role;
        let set = extension.exclusive_set.as_deref().map(key_of).transpose()?;
        if set.is_none() || before.facts.exclusive_set == set {
            continue;
        }
        require_all_of(change, &compiled(change, &before.facts)?)?;
        let mut after = before.clone();
        after.facts.exclusive_set = set;
        rewrite(change, &before, &mut after).await?;
    }
    Ok(())
}

/// The shipped roles that are missing, with the ids of those that they name.
fn plan(
    change: &Change,
    template: &str,
    version: u32,
    language: &str,
    shipped: &[Template],
) -> Result<Vec<Role>> {
    let facts = change.facts()?;
    let mut ids: HashMap<&str, RoleId> =
        facts.roles().map(|role| (role.key.as_str(), role.id)).collect();
    let missing: Vec<&Template> =
        shipped.iter().filter(|template| !ids.contains_key(template.key.as_str())).collect();
    for template in &missing {
        ids.insert(&template.key, change.id()?);
    }
    let id = |key: &String| {
        ids.get(key.as_str()).copied().ok_or_else(|| Error::internal(format!("no role `{key}`")))
    };
    let all = |keys: &[String]| {
        let mut ids = keys.iter().map(id).collect::<Result<Vec<_>>>()?;
        ids.sort_unstable();
        Ok::<_, Error>(ids)
    };
    let role = |shipped: &&Template| {
        let names = [("en", &shipped.names.en), ("fr", &shipped.names.fr)];
        Ok(Role {
            facts: decision::Role {
                id: id(&shipped.key)?,
                key: key_of(&shipped.key)?,
                permissions: shipped.permissions.iter().map(SmolStr::new).collect(),
                includes: all(&shipped.includes)?,
                reach: shipped.reach,
                may_grant: all(&shipped.may_grant)?,
                exclusive_set: shipped.exclusive_set.as_deref().map(key_of).transpose()?,
                max_duration_seconds: shipped
                    .max_duration_days
                    .map(|days| i64::from(days) * 86_400),
                locked: shipped.locked,
            },
            display_names: names.map(|(k, v)| (k.to_owned(), v.clone())).into(),
            description: shipped.description.in_language(language).to_owned(),
            template: template.to_owned(),
            template_version: i32::try_from(version).map_err(Error::internal)?,
            version: 1,
            created_at: change.now(),
            updated_at: change.now(),
        })
    };
    missing.iter().map(role).collect()
}

/// All rows first: the roles may name each other.
async fn write(change: &mut Change, roles: &[Role]) -> Result<()> {
    for role in roles {
        sql::insert(change, role).await?;
    }
    for role in roles {
        sql::link(change, &role.facts).await?;
        change.record(created(change, role, roles)?)?;
    }
    Ok(())
}

fn find(change: &Change, key: &str) -> Result<Option<Key>> {
    Ok(change.facts()?.role_named(key).map(|role| role.key.clone()))
}

fn id_of(change: &Change, key: &str) -> Result<RoleId> {
    change.facts()?.role_named(key).map(|role| role.id).ok_or_else(|| Error::not_found("role", key))
}

fn key_of(text: &str) -> Result<Key> {
    text.parse().map_err(Error::internal)
}
