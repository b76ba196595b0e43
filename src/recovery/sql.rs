//! The table `password_resets`, and what the tenants of a person say of an address.

use sqlx::PgPool;
use uuid::Uuid;

use crate::{change::Change, decision::Time, error::Result, ids::UserId};

pub async fn insert(pool: &PgPool, id: Uuid, email: &str, now: Time) -> Result<()> {
    sqlx::query!(
        "insert into password_resets (id, email, requested_at) values ($1, $2, $3)",
        id,
        email,
        now
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Takes some that nobody answers at the moment.
pub async fn claim(pool: &PgPool, now: Time, abandoned: Time) -> Result<Vec<(Uuid, String)>> {
    let rows = sqlx::query!(
        "update password_resets set claimed_at = $1
         where id in (select id from password_resets
                      where claimed_at is null or claimed_at < $2
                      order by requested_at limit 8 for update skip locked)
         returning id, email",
        now,
        abandoned
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.email)).collect())
}

pub async fn delete(pool: &PgPool, id: Uuid) -> Result<()> {
    sqlx::query!("delete from password_resets where id = $1", id).execute(pool).await?;
    Ok(())
}

/// A tenant where the person is internal and which allows other domains only.
pub async fn tenant_refusing(
    change: &mut Change,
    user: UserId,
    domain: &str,
) -> Result<Option<String>> {
    let tenant = sqlx::query_scalar!(
        "select t.key from memberships m join tenants t on t.id = m.tenant_id
         where m.user_id = $1 and m.status <> 'removed' and m.kind = 'internal'
           and cardinality(t.allowed_email_domains) > 0 and not $2 = any(t.allowed_email_domains)
         order by t.key limit 1",
        user as UserId,
        domain
    )
    .fetch_optional(change.conn())
    .await?;
    Ok(tenant)
}
