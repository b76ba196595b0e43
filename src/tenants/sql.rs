//! The table `tenants`.

use std::collections::BTreeMap;

use sqlx::{PgExecutor, PgPool, types::Json};
use uuid::Uuid;

use super::Tenant;
use crate::{
    access::Permit,
    catalogue::Words,
    change::Change,
    decision::{TenantStatus, Time},
    error::{Error, OnConstraint, Result},
    ids::{Key, RoleId, TenantId},
};

struct Row {
    id: Uuid,
    key: String,
    display_name: String,
    status: TenantStatus,
    default_role_id: Option<Uuid>,
    default_role_key: String,
    invitation_lifetime_seconds: i64,
    retention_seconds: i64,
    purge_automatically: bool,
    session_lifetime_seconds: i64,
    session_idle_seconds: i64,
    language: String,
    allowed_email_domains: Vec<String>,
    permission_words: Words,
    external_id: String,
    metadata: Json<BTreeMap<String, String>>,
    opened_at: Option<Time>,
    status_before: Option<TenantStatus>,
    purge_at: Option<Time>,
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl TryFrom<Row> for Tenant {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.into(),
            key: row.key.try_into().map_err(Error::internal)?,
            display_name: row.display_name,
            status: row.status,
            default_role: row.default_role_id.map(Into::into),
            default_role_key: row.default_role_key,
            invitation_lifetime_seconds: row.invitation_lifetime_seconds,
            retention_seconds: row.retention_seconds,
            purge_automatically: row.purge_automatically,
            session_lifetime_seconds: row.session_lifetime_seconds,
            session_idle_seconds: row.session_idle_seconds,
            language: row.language,
            allowed_email_domains: row.allowed_email_domains,
            permission_words: row.permission_words,
            external_id: row.external_id,
            metadata: row.metadata.0,
            opened_at: row.opened_at,
            status_before: row.status_before,
            purge_at: row.purge_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Writes the row without its default role, which needs the tenant to be there first.
pub async fn insert(change: &mut Change, new: &Tenant) -> Result<()> {
    sqlx::query!(
        "insert into tenants (id, key, display_name, status, invitation_lifetime_seconds, language,
                              allowed_email_domains, external_id, metadata, version, created_at,
                              updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        new.id as TenantId,
        new.key.as_str(),
        new.display_name,
        new.status as TenantStatus,
        new.invitation_lifetime_seconds,
        new.language,
        &new.allowed_email_domains,
        new.external_id,
        Json(&new.metadata) as _,
        new.version,
        new.created_at,
        new.updated_at
    )
    .execute(change.conn())
    .await
    .on_constraint("tenants_key_key", || Error::AlreadyExists {
        kind: "tenant",
        name: new.key.to_string(),
        remedy: "choose another key; one that was used is never given again",
    })?;
    Ok(())
}

pub async fn update(change: &mut Change, after: &Tenant) -> Result<()> {
    sqlx::query!(
        "update tenants set display_name = $2, status = $3, default_role_id = $4,
                            invitation_lifetime_seconds = $5, language = $6,
                            allowed_email_domains = $7, permission_words = $8, external_id = $9,
                            metadata = $10, version = $11, updated_at = $12,
                            retention_seconds = $13, purge_automatically = $14,
                            session_lifetime_seconds = $15, session_idle_seconds = $16,
                            status_before = $17, purge_at = $18, opened_at = $19
         where id = $1",
        after.id as TenantId,
        after.display_name,
        after.status as TenantStatus,
        after.default_role.map(RoleId::uuid),
        after.invitation_lifetime_seconds,
        after.language,
        &after.allowed_email_domains,
        after.permission_words as Words,
        after.external_id,
        Json(&after.metadata) as _,
        after.version,
        after.updated_at,
        after.retention_seconds,
        after.purge_automatically,
        after.session_lifetime_seconds,
        after.session_idle_seconds,
        after.status_before as Option<TenantStatus>,
        after.purge_at,
        after.opened_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// The tenant of the change, as the change has made it.
pub async fn find_in(change: &mut Change) -> Result<Tenant> {
    let tenant = change.tenant().id;
    find(change.conn(), tenant).await
}

pub async fn get(pool: &PgPool, permit: &Permit) -> Result<Tenant> {
    find(pool, permit.tenant()).await
}

async fn find(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<Tenant> {
    let row = sqlx::query_as!(
        Row,
        r#"select t.id, t.key, t.display_name, t.status "status: TenantStatus", t.default_role_id,
                  coalesce(r.key, '') "default_role_key!", t.invitation_lifetime_seconds,
                  t.retention_seconds, t.purge_automatically, t.session_lifetime_seconds,
                  t.session_idle_seconds, t.language,
                  t.allowed_email_domains, t.permission_words "permission_words: Words",
                  t.external_id, t.metadata "metadata: Json<BTreeMap<String, String>>",
                  t.opened_at,
                  t.status_before "status_before: TenantStatus", t.purge_at, t.version,
                  t.created_at, t.updated_at
           from tenants t
           left join roles r on r.tenant_id = t.id and r.id = t.default_role_id
           where t.id = $1"#,
        tenant as TenantId
    )
    .fetch_one(db)
    .await?;
    row.try_into()
}

/// Tenants by key. Only for whoever may read them all: the permit is of the installation.
pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    filter: &super::Filter,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Tenant>> {
    if permit.tenant() != TenantId::SYSTEM {
        return Err(Error::internal("tenants are listed by the installation only"));
    }
    let rows = sqlx::query_as!(
        Row,
        r#"select t.id, t.key, t.display_name, t.status "status: TenantStatus", t.default_role_id,
                  coalesce(r.key, '') "default_role_key!", t.invitation_lifetime_seconds,
                  t.retention_seconds, t.purge_automatically, t.session_lifetime_seconds,
                  t.session_idle_seconds, t.language,
                  t.allowed_email_domains, t.permission_words "permission_words: Words",
                  t.external_id, t.metadata "metadata: Json<BTreeMap<String, String>>",
                  t.opened_at,
                  t.status_before "status_before: TenantStatus", t.purge_at, t.version,
                  t.created_at, t.updated_at
           from tenants t
           left join roles r on r.tenant_id = t.id and r.id = t.default_role_id
           where t.key > $1 and starts_with(t.key, $2) and case when $3::text is null then t.status not in ('deleted', 'purged')
                                                               else t.status = $3 end
           order by t.key limit $4"#,
        after.unwrap_or_default(),
        filter.key_prefix,
        filter.status as Option<TenantStatus>,
        limit
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Deleted tenants whose time is over, where they want to be erased then.
pub async fn due(pool: &PgPool, now: Time) -> Result<Vec<Key>> {
    let keys = sqlx::query_scalar!(
        "select key from tenants where status = 'deleted' and purge_at <= $1 and purge_automatically
         order by purge_at limit 100",
        now
    )
    .fetch_all(pool)
    .await?;
    keys.into_iter().map(|key| key.try_into().map_err(Error::internal)).collect()
}

/// Purged tenants of which something may be left.
pub async fn erasing(pool: &PgPool) -> Result<Vec<Key>> {
    let keys = sqlx::query_scalar!(
        "select key from tenants where status = 'purged' and erased_at is null order by id limit 100"
    )
    .fetch_all(pool)
    .await?;
    keys.into_iter().map(|key| key.try_into().map_err(Error::internal)).collect()
}

/// Leaves the key alone, which stays taken.
pub async fn erase(change: &mut Change) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    sqlx::query!(
        "update tenants set display_name = key, external_id = '', metadata = '{}',
                            allowed_email_domains = '{}', erased_at = $2, version = version + 1,
                            updated_at = $2
         where id = $1",
        tenant as TenantId,
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Members who hold one of these roles on the whole tenant without an end, themselves or through a
/// group. Whether that makes them administrators, the decision engine says.
pub async fn holders(pool: &PgPool, tenant: TenantId, roles: &[Uuid]) -> Result<Vec<Uuid>> {
    let users = sqlx::query_scalar!(
        r#"select a.user_id "user!" from role_assignments a
           where a.tenant_id = $1 and a.role_id = any($2) and a.user_id is not null
             and a.workspace_id is null and a.path = '' and a.ends_at is null
           union
           select g.user_id from role_assignments a
           join group_members g on g.tenant_id = $1 and g.group_id = a.group_id
           where a.tenant_id = $1 and a.role_id = any($2)
             and a.workspace_id is null and a.path = '' and a.ends_at is null"#,
        tenant as TenantId,
        roles
    )
    .fetch_all(pool)
    .await?;
    Ok(users)
}
