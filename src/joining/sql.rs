//! What the page of an invitation reads of others' tables.

use sqlx::PgPool;

use super::Offer;
use crate::{
    decision::{TenantStatus, Time},
    error::Result,
    ids::{InvitationId, TenantId},
};

/// A tenant as a page shows it.
pub struct Place {
    pub name: String,
    pub status: TenantStatus,
    pub home_url: String,
}

pub async fn place(pool: &PgPool, tenant: TenantId) -> Result<Place> {
    let place = sqlx::query_as!(
        Place,
        r#"select t.display_name "name", t.status "status: TenantStatus",
                  coalesce(s.home_url, '') "home_url!"
           from tenants t left join mail_settings s on s.tenant_id = t.id
           where t.id = $1"#,
        tenant as TenantId
    );
    Ok(place.fetch_one(pool).await?)
}

/// The roles of an invitation that can still be given.
pub async fn offers(
    pool: &PgPool,
    tenant: TenantId,
    invitation: InvitationId,
    language: &str,
    now: Time,
) -> Result<Vec<Offer>> {
    let offers = sqlx::query_as!(
        Offer,
        r#"select coalesce(r.display_names ->> $3, r.display_names ->> 'en', r.key) "role!",
                  coalesce(w.display_name, '') "workspace!", i.path, i.ends_at "ends"
           from invitation_roles i
           join roles r on r.tenant_id = i.tenant_id and r.id = i.role_id
           left join workspaces w on w.tenant_id = i.tenant_id and w.id = i.workspace_id
           where i.tenant_id = $1 and i.invitation_id = $2 and w.deleted_at is null
             and (i.ends_at is null or i.ends_at > $4)
           order by w.key nulls first, i.path, r.key"#,
        tenant as TenantId,
        invitation as InvitationId,
        language,
        now
    );
    Ok(offers.fetch_all(pool).await?)
}
