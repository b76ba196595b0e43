//! What a question about an address reads: who has it, and whether it was invited.

use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    access::Permit,
    decision::Time,
    error::Result,
    ids::{TenantId, UserId},
    text::Email,
};

/// Somebody who is or was a member of the tenant, or of the installation. Whether others have an account
/// is not for the tenant to know.
pub async fn find_person(pool: &PgPool, permit: &Permit, email: &Email) -> Result<Option<UserId>> {
    let found = sqlx::query_scalar!(
        "select id from users u
         where email_canonical = $1
           and exists (select from memberships m
                       where m.user_id = u.id and m.tenant_id in ($2, $3))",
        email.canonical(),
        permit.tenant() as TenantId,
        TenantId::SYSTEM as TenantId
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(Into::into))
}

pub async fn is_invited(pool: &PgPool, permit: &Permit, email: &Email, now: Time) -> Result<bool> {
    let found: Option<Uuid> = sqlx::query_scalar!(
        "select id from invitations
         where tenant_id = $1 and email_canonical = $2 and status = 'pending' and expires_at > $3",
        permit.tenant() as TenantId,
        email.canonical(),
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.is_some())
}

pub async fn is_person_invited(
    pool: &PgPool,
    permit: &Permit,
    user: UserId,
    now: Time,
) -> Result<bool> {
    let found: Option<Uuid> = sqlx::query_scalar!(
        "select i.id from invitations i join users u on u.email_canonical = i.email_canonical
         where i.tenant_id = $1 and u.id = $2 and i.status = 'pending' and i.expires_at > $3",
        permit.tenant() as TenantId,
        user as UserId,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.is_some())
}
