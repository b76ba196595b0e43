//! The tables `service_accounts` and `api_keys`.

use sqlx::PgPool;
use uuid::Uuid;

use super::{ApiKey, ServiceAccount, unknown, unknown_key};
use crate::{
    access::Permit,
    change::Change,
    decision::Time,
    error::{Error, OnConstraint, Result},
    ids::{ApiKeyId, ServiceAccountId, TenantId},
};

struct Row {
    id: ServiceAccountId,
    key: String,
    display_name: String,
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl TryFrom<Row> for ServiceAccount {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            key: row.key.try_into().map_err(Error::internal)?,
            display_name: row.display_name,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub async fn insert(change: &mut Change, new: &ServiceAccount) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into service_accounts (tenant_id, id, key, display_name, status, version, created_at,
                                       updated_at)
         values ($1, $2, $3, $4, 'active', $5, $6, $7)",
        tenant as TenantId,
        new.id as ServiceAccountId,
        new.key.as_str(),
        new.display_name,
        new.version,
        new.created_at,
        new.updated_at
    )
    .execute(change.conn())
    .await
    .on_constraint("service_accounts_key_key", || Error::AlreadyExists {
        kind: "service account",
        name: new.key.to_string(),
        remedy: "choose another key",
    })?;
    Ok(())
}

pub async fn lock(change: &mut Change, id: ServiceAccountId) -> Result<ServiceAccount> {
    let tenant = change.tenant().id;
    let row = sqlx::query_as!(
        Row,
        r#"select id "id: ServiceAccountId", key, display_name, version, created_at, updated_at
           from service_accounts
           where tenant_id = $1 and id = $2 and status <> 'removed' for update"#,
        tenant as TenantId,
        id as ServiceAccountId
    )
    .fetch_optional(change.conn())
    .await?;
    row.ok_or_else(|| unknown(id))?.try_into()
}

pub async fn update(change: &mut Change, after: &ServiceAccount) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update service_accounts set display_name = $3, version = $4, updated_at = $5
         where tenant_id = $1 and id = $2",
        tenant as TenantId,
        after.id as ServiceAccountId,
        after.display_name,
        after.version,
        after.updated_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn delete(change: &mut Change, id: ServiceAccountId) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    sqlx::query!(
        "update service_accounts set status = 'removed', version = version + 1, updated_at = $3
         where tenant_id = $1 and id = $2",
        tenant as TenantId,
        id as ServiceAccountId,
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn live(change: &mut Change) -> Result<Vec<ServiceAccountId>> {
    let tenant = change.tenant().id;
    let ids = sqlx::query_scalar!(
        r#"select id "id: ServiceAccountId" from service_accounts
           where tenant_id = $1 and status <> 'removed' order by id"#,
        tenant as TenantId
    )
    .fetch_all(change.conn())
    .await?;
    Ok(ids)
}

/// Forgets what accounts and keys were called.
pub async fn erase(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "with keys as (update api_keys set display_name = '' where tenant_id = $1)
         update service_accounts set display_name = '' where tenant_id = $1",
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn get(pool: &PgPool, permit: &Permit, id: ServiceAccountId) -> Result<ServiceAccount> {
    let row = sqlx::query_as!(
        Row,
        r#"select id "id: ServiceAccountId", key, display_name, version, created_at, updated_at
           from service_accounts where tenant_id = $1 and id = $2 and status <> 'removed'"#,
        permit.tenant() as TenantId,
        id as ServiceAccountId
    )
    .fetch_optional(pool)
    .await?;
    row.ok_or_else(|| unknown(id))?.try_into()
}

pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<ServiceAccount>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id "id: ServiceAccountId", key, display_name, version, created_at, updated_at
           from service_accounts
           where tenant_id = $1 and status <> 'removed' and key > $2 order by key limit $3"#,
        permit.tenant() as TenantId,
        after.unwrap_or_default(),
        limit
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

struct KeyRow {
    id: ApiKeyId,
    service_account_id: ServiceAccountId,
    display_name: String,
    hash: Vec<u8>,
    narrowed: Vec<String>,
    expires_at: Option<Time>,
    revoked_at: Option<Time>,
    created_at: Time,
    created_by: String,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = Error;

    fn try_from(row: KeyRow) -> Result<Self> {
        let hash = row.hash.try_into();
        Ok(Self {
            id: row.id,
            service_account: row.service_account_id,
            display_name: row.display_name,
            hash: hash.map_err(|_| Error::internal("the hash of an api key has another length"))?,
            narrowed: row.narrowed,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            created_at: row.created_at,
            created_by: row.created_by,
        })
    }
}

pub async fn insert_key(change: &mut Change, new: &ApiKey) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into api_keys (tenant_id, id, service_account_id, display_name, hash, narrowed,
                               expires_at, created_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        tenant as TenantId,
        new.id as ApiKeyId,
        new.service_account as ServiceAccountId,
        new.display_name,
        new.hash.as_slice(),
        &new.narrowed,
        new.expires_at,
        new.created_at,
        new.created_by
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// The keys that still work, locked.
pub async fn live_keys(change: &mut Change, account: ServiceAccountId) -> Result<Vec<ApiKey>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select id "id: ApiKeyId", service_account_id "service_account_id: ServiceAccountId",
                  display_name, hash, narrowed, expires_at, revoked_at, created_at, created_by
           from api_keys
           where tenant_id = $1 and service_account_id = $2 and revoked_at is null
             and (expires_at is null or expires_at > $3)
           order by id for update"#,
        tenant as TenantId,
        account as ServiceAccountId,
        now
    )
    .fetch_all(change.conn())
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

pub async fn lock_key(change: &mut Change, id: ApiKeyId) -> Result<ApiKey> {
    let tenant = change.tenant().id;
    let row = sqlx::query_as!(
        KeyRow,
        r#"select id "id: ApiKeyId", service_account_id "service_account_id: ServiceAccountId",
                  display_name, hash, narrowed, expires_at, revoked_at, created_at, created_by
           from api_keys where tenant_id = $1 and id = $2 for update"#,
        tenant as TenantId,
        id as ApiKeyId
    )
    .fetch_optional(change.conn())
    .await?;
    row.ok_or_else(|| unknown_key(id))?.try_into()
}

pub async fn revoke(change: &mut Change, id: ApiKeyId) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    sqlx::query!(
        "update api_keys set revoked_at = $3 where tenant_id = $1 and id = $2",
        tenant as TenantId,
        id as ApiKeyId,
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// The keys of a service account, newest first: their ids are in the order in which they were made.
pub async fn list_keys(
    pool: &PgPool,
    permit: &Permit,
    account: ServiceAccountId,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ApiKey>> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select id "id: ApiKeyId", service_account_id "service_account_id: ServiceAccountId",
                  display_name, hash, narrowed, expires_at, revoked_at, created_at, created_by
           from api_keys
           where tenant_id = $1 and service_account_id = $2 and ($3::uuid is null or id < $3)
           order by id desc limit $4"#,
        permit.tenant() as TenantId,
        account as ServiceAccountId,
        before,
        limit
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}
