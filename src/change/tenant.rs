//! The row of the tenant that a change locks, and that of the caller's own.

use sqlx::PgConnection;

use crate::{
    decision::{Tenant, TenantStatus},
    error::{Error, Result},
    ids::{Key, RoleId, TenantId},
};

/// The locked tenant, as the change found it.
#[derive(Debug, Clone)]
pub struct TenantRow {
    pub id: TenantId,
    pub key: Key,
    pub status: TenantStatus,
    pub default_role: Option<RoleId>,
    pub display_name: String,
    pub language: String,
    pub invitation_lifetime_seconds: i64,
    pub allowed_email_domains: Vec<String>,
    pub retention_seconds: i64,
}

impl TenantRow {
    pub(super) fn unknown() -> Self {
        Self {
            id: TenantId::SYSTEM,
            key: Key::system(),
            status: TenantStatus::Suspended,
            default_role: None,
            display_name: String::new(),
            language: String::new(),
            invitation_lifetime_seconds: 0,
            allowed_email_domains: Vec::new(),
            retention_seconds: 0,
        }
    }

    #[must_use]
    pub fn record(&self) -> Tenant {
        Tenant {
            id: self.id,
            key: self.key.clone(),
            status: self.status,
            default_role: self.default_role,
        }
    }

    /// The tenant as it is stored, for a read.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn get(pool: &sqlx::PgPool, permit: &crate::access::Permit) -> Result<Self> {
        Self::read(&mut *pool.acquire().await?, permit.tenant()).await
    }

    pub(super) async fn read(conn: &mut PgConnection, id: TenantId) -> Result<Self> {
        let row = sqlx::query_as!(
            RawTenant,
            r#"select id "id: TenantId", key, status "status: TenantStatus", default_role_id,
                      display_name, language, invitation_lifetime_seconds, allowed_email_domains,
                      retention_seconds
               from tenants where id = $1"#,
            id as TenantId
        )
        .fetch_one(conn)
        .await?;
        row.try_into()
    }
}

struct RawTenant {
    id: TenantId,
    key: String,
    status: TenantStatus,
    default_role_id: Option<uuid::Uuid>,
    display_name: String,
    language: String,
    invitation_lifetime_seconds: i64,
    allowed_email_domains: Vec<String>,
    retention_seconds: i64,
}

impl TryFrom<RawTenant> for TenantRow {
    type Error = Error;

    fn try_from(row: RawTenant) -> Result<Self> {
        Ok(Self {
            id: row.id,
            key: row.key.try_into().map_err(Error::internal)?,
            status: row.status,
            default_role: row.default_role_id.map(Into::into),
            display_name: row.display_name,
            language: row.language,
            invitation_lifetime_seconds: row.invitation_lifetime_seconds,
            allowed_email_domains: row.allowed_email_domains,
            retention_seconds: row.retention_seconds,
        })
    }
}

/// Keeps changes of another tenant from committing before this one ends.
pub(super) async fn share(conn: &mut PgConnection, tenant: TenantId) -> Result<()> {
    sqlx::query!("select id from tenants where id = $1 for share", tenant as TenantId)
        .fetch_one(conn)
        .await?;
    Ok(())
}

/// Locks the tenant's row. `no key update`: references to it from elsewhere need not wait.
pub(super) async fn lock(conn: &mut PgConnection, tenant: &str) -> Result<TenantRow> {
    let row = sqlx::query_as!(
        RawTenant,
        r#"select id "id: TenantId", key, status "status: TenantStatus", default_role_id,
                  display_name, language, invitation_lifetime_seconds, allowed_email_domains,
                      retention_seconds
           from tenants where key = $1 for no key update"#,
        tenant
    )
    .fetch_optional(conn)
    .await?;
    row.ok_or_else(|| Error::not_found("tenant", tenant))?.try_into()
}
