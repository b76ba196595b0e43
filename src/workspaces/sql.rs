//! The table `workspaces`.

use std::collections::BTreeMap;

use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{Workspace, unknown};
use crate::{
    access::Permit,
    change::Change,
    decision::Time,
    error::{Error, OnConstraint, Result},
    ids::{TenantId, WorkspaceId},
};

struct Row {
    id: Uuid,
    key: String,
    display_name: String,
    external_id: String,
    metadata: Json<BTreeMap<String, String>>,
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl TryFrom<Row> for Workspace {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.into(),
            key: row.key.try_into().map_err(Error::internal)?,
            display_name: row.display_name,
            external_id: row.external_id,
            metadata: row.metadata.0,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub async fn insert(change: &mut Change, new: &Workspace) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into workspaces (tenant_id, id, key, display_name, external_id, metadata, version,
                                 created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        tenant as TenantId,
        new.id as WorkspaceId,
        new.key.as_str(),
        new.display_name,
        new.external_id,
        Json(&new.metadata) as _,
        new.version,
        new.created_at,
        new.updated_at
    )
    .execute(change.conn())
    .await
    .on_constraint("workspaces_key_key", || Error::AlreadyExists {
        kind: "workspace",
        name: new.key.to_string(),
        remedy: "choose another key; one that was deleted is never given again",
    })?;
    Ok(())
}

pub async fn lock(change: &mut Change, key: &str) -> Result<Workspace> {
    let tenant = change.tenant().id;
    let row = sqlx::query_as!(
        Row,
        r#"select id, key, display_name, external_id,
                  metadata "metadata: Json<BTreeMap<String, String>>", version, created_at, updated_at
           from workspaces where tenant_id = $1 and key = $2 and deleted_at is null for update"#,
        tenant as TenantId,
        key
    )
    .fetch_optional(change.conn())
    .await?;
    row.ok_or_else(|| unknown(key))?.try_into()
}

pub async fn update(change: &mut Change, after: &Workspace) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update workspaces set display_name = $3, external_id = $4, metadata = $5, version = $6,
                               updated_at = $7
         where tenant_id = $1 and id = $2",
        tenant as TenantId,
        after.id as WorkspaceId,
        after.display_name,
        after.external_id,
        Json(&after.metadata) as _,
        after.version,
        after.updated_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn delete(change: &mut Change, id: WorkspaceId) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    sqlx::query!(
        "update workspaces set deleted_at = $3 where tenant_id = $1 and id = $2",
        tenant as TenantId,
        id as WorkspaceId,
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn get(pool: &PgPool, permit: &Permit, key: &str) -> Result<Workspace> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, key, display_name, external_id,
                  metadata "metadata: Json<BTreeMap<String, String>>", version, created_at, updated_at
           from workspaces where tenant_id = $1 and key = $2 and deleted_at is null"#,
        permit.tenant() as TenantId,
        key
    )
    .fetch_optional(pool)
    .await?;
    row.ok_or_else(|| unknown(key))?.try_into()
}

pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Workspace>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, key, display_name, external_id,
                  metadata "metadata: Json<BTreeMap<String, String>>", version, created_at, updated_at
           from workspaces
           where tenant_id = $1 and deleted_at is null and key > $2 order by key limit $3"#,
        permit.tenant() as TenantId,
        after.unwrap_or_default(),
        limit
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Leaves the keys, as the audit log has them.
pub async fn erase(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update workspaces set display_name = key, external_id = '', metadata = '{}'
         where tenant_id = $1",
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}
