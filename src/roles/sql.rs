//! The tables `roles`, `role_includes` and `role_may_grant`.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use sqlx::{PgExecutor, PgPool, types::Json};
use uuid::Uuid;

use super::{Role, Shown, unknown};
use crate::{
    access::Permit,
    change::Change,
    decision::{self, Reach, Time},
    error::{Error, OnConstraint, Result},
    ids::{Key, RoleId, TenantId},
};

struct Row {
    id: Uuid,
    key: String,
    display_names: Json<BTreeMap<String, String>>,
    description: String,
    permissions: Vec<String>,
    reach: Reach,
    exclusive_set: Option<String>,
    max_duration_seconds: Option<i64>,
    locked: bool,
    template: String,
    template_version: i32,
    version: i64,
    created_at: Time,
    updated_at: Time,
    includes: Vec<Uuid>,
    may_grant: Vec<Uuid>,
    include_keys: Vec<String>,
    grant_keys: Vec<String>,
    effective: Vec<String>,
}

impl TryFrom<Row> for Shown {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let key = |text: String| Key::try_from(text).map_err(Error::internal);
        let facts = decision::Role {
            id: row.id.into(),
            key: key(row.key)?,
            permissions: row.permissions.iter().map(SmolStr::new).collect(),
            includes: row.includes.into_iter().map(Into::into).collect(),
            reach: row.reach,
            may_grant: row.may_grant.into_iter().map(Into::into).collect(),
            exclusive_set: row.exclusive_set.map(key).transpose()?,
            max_duration_seconds: row.max_duration_seconds,
            locked: row.locked,
        };
        let role = Role {
            facts,
            display_names: row.display_names.0,
            description: row.description,
            template: row.template,
            template_version: row.template_version,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok(Self {
            role,
            includes: row.include_keys,
            may_grant: row.grant_keys,
            effective_permissions: row.effective,
        })
    }
}

/// Roles by key: the one with this key, or those after a key.
async fn read(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    key: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<Shown>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, key, display_names "display_names: Json<BTreeMap<String, String>>", description,
                  permissions, reach "reach: Reach", exclusive_set, max_duration_seconds, locked,
                  template, template_version, version, created_at, updated_at,
                  array(select included_id from role_includes i
                        where i.tenant_id = $1 and i.role_id = r.id order by 1) "includes!",
                  array(select granted_id from role_may_grant g
                        where g.tenant_id = $1 and g.role_id = r.id order by 1) "may_grant!",
                  array(select x.key from role_includes i
                        join roles x on x.tenant_id = $1 and x.id = i.included_id
                        where i.tenant_id = $1 and i.role_id = r.id order by 1) "include_keys!",
                  array(select x.key from role_may_grant g
                        join roles x on x.tenant_id = $1 and x.id = g.granted_id
                        where g.tenant_id = $1 and g.role_id = r.id order by 1) "grant_keys!",
                  array(with recursive closure (id) as (
                            select r.id union
                            select i.included_id from closure c
                            join role_includes i on i.tenant_id = $1 and i.role_id = c.id)
                        select distinct unnest(x.permissions) from closure c
                        join roles x on x.tenant_id = $1 and x.id = c.id order by 1) "effective!"
           from roles r
           where tenant_id = $1 and ($2::text is null or key = $2) and key > $3
           order by key limit $4"#,
        tenant as TenantId,
        key,
        after,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

async fn one(db: impl PgExecutor<'_>, tenant: TenantId, key: &str) -> Result<Shown> {
    read(db, tenant, Some(key), "", 1).await?.pop().ok_or_else(|| unknown(key))
}

/// A role as this change has made it. The tenant's lock keeps it.
pub async fn find_in(change: &mut Change, key: &str) -> Result<Shown> {
    let tenant = change.tenant().id;
    one(change.conn(), tenant, key).await
}

pub async fn get(pool: &PgPool, permit: &Permit, key: &str) -> Result<Shown> {
    one(pool, permit.tenant(), key).await
}

pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Shown>> {
    read(pool, permit.tenant(), None, after.unwrap_or_default(), limit).await
}

pub async fn names(change: &mut Change) -> Result<Vec<(RoleId, Key, BTreeMap<String, String>)>> {
    let tenant = change.tenant().id;
    let rows = sqlx::query!(
        r#"select id "id: RoleId", key, display_names "names: Json<BTreeMap<String, String>>"
           from roles where tenant_id = $1"#,
        tenant as TenantId
    )
    .fetch_all(change.conn())
    .await?;
    let rows = rows.into_iter().map(|row| {
        let key = Key::try_from(row.key).map_err(Error::internal)?;
        Ok((row.id, key, row.names.0))
    });
    rows.collect()
}

pub async fn keys(pool: &PgPool, permit: &Permit) -> Result<Vec<String>> {
    let keys = sqlx::query_scalar!(
        "select key from roles where tenant_id = $1 order by key",
        permit.tenant() as TenantId
    );
    Ok(keys.fetch_all(pool).await?)
}

fn words(role: &decision::Role) -> Vec<String> {
    role.permissions.iter().map(ToString::to_string).collect()
}

pub async fn insert(change: &mut Change, new: &Role) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into roles (tenant_id, id, key, display_names, description, permissions, reach,
                            exclusive_set, max_duration_seconds, locked, template, template_version,
                            version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        tenant as TenantId,
        new.facts.id as RoleId,
        new.facts.key.as_str(),
        Json(&new.display_names) as _,
        new.description,
        &words(&new.facts),
        new.facts.reach as Reach,
        new.facts.exclusive_set.as_ref().map(Key::as_str),
        new.facts.max_duration_seconds,
        new.facts.locked,
        new.template,
        new.template_version,
        new.version,
        new.created_at,
        new.updated_at
    )
    .execute(change.conn())
    .await
    .on_constraint("roles_key_key", || Error::AlreadyExists {
        kind: "role",
        name: new.facts.key.to_string(),
        remedy: "choose another key, or update the role that has it",
    })?;
    Ok(())
}

pub async fn update(change: &mut Change, after: &Role) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update roles set display_names = $3, description = $4, permissions = $5, reach = $6,
                          exclusive_set = $7, max_duration_seconds = $8, version = $9,
                          updated_at = $10
         where tenant_id = $1 and id = $2",
        tenant as TenantId,
        after.facts.id as RoleId,
        Json(&after.display_names) as _,
        after.description,
        &words(&after.facts),
        after.facts.reach as Reach,
        after.facts.exclusive_set.as_ref().map(Key::as_str),
        after.facts.max_duration_seconds,
        after.version,
        after.updated_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Makes the role name exactly the roles that it now includes and may grant.
pub async fn link(change: &mut Change, role: &decision::Role) -> Result<()> {
    let tenant = change.tenant().id;
    let uuids = |ids: &[RoleId]| ids.iter().map(|id| id.uuid()).collect::<Vec<_>>();
    let (includes, may_grant) = (uuids(&role.includes), uuids(&role.may_grant));
    sqlx::query!(
        "with gone as (delete from role_includes
                       where tenant_id = $1 and role_id = $2 and included_id <> all($3))
         insert into role_includes (tenant_id, role_id, included_id)
         select $1, $2, unnest($3::uuid[]) on conflict do nothing",
        tenant as TenantId,
        role.id as RoleId,
        &includes
    )
    .execute(change.conn())
    .await?;
    sqlx::query!(
        "with gone as (delete from role_may_grant
                       where tenant_id = $1 and role_id = $2 and granted_id <> all($3))
         insert into role_may_grant (tenant_id, role_id, granted_id)
         select $1, $2, unnest($3::uuid[]) on conflict do nothing",
        tenant as TenantId,
        role.id as RoleId,
        &may_grant
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Invitations that would give the role if they were accepted now.
pub async fn count_invited(change: &mut Change, role: RoleId) -> Result<i64> {
    let (tenant, now) = (change.tenant().id, change.now());
    let count = sqlx::query_scalar!(
        r#"select count(distinct i.id) "count!" from invitation_roles r
           join invitations i on i.tenant_id = $1 and i.id = r.invitation_id
           where r.tenant_id = $1 and r.role_id = $2 and i.status = 'pending' and i.expires_at > $3"#,
        tenant as TenantId,
        role as RoleId,
        now
    )
    .fetch_one(change.conn())
    .await?;
    Ok(count)
}

/// Deletes a role that nothing names any more; invitations that are over forget it.
pub async fn delete(change: &mut Change, id: RoleId) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "delete from roles where tenant_id = $1 and id = $2",
        tenant as TenantId,
        id as RoleId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Leaves the keys, as the audit log has them.
pub async fn erase(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update roles set display_names = '{}', description = '' where tenant_id = $1",
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}
