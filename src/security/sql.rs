//! The table `security_log`.

use chrono::DurationRound;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Entry, Filter};
use crate::{
    access::Permit,
    change::Change,
    decision::Time,
    error::{Error, Result},
    ids::{TenantId, UserId},
    refusals::{Kind, Refusal},
};

pub async fn upsert(
    pool: &PgPool,
    tenant: TenantId,
    id: Uuid,
    refusal: &Refusal,
    count: i64,
    last: Time,
) -> Result<()> {
    let minute = last.duration_trunc(chrono::TimeDelta::minutes(1)).map_err(Error::internal)?;
    sqlx::query!(
        "insert into security_log as s (tenant_id, id, minute, kind, reason, method, user_id, caller,
                                        source, count, last_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict on constraint security_log_once_key
             do update set count = s.count + excluded.count,
                           last_at = greatest(s.last_at, excluded.last_at)",
        tenant as TenantId,
        id,
        minute,
        refusal.kind as Kind,
        refusal.reason,
        refusal.method,
        refusal.user.map(Uuid::from),
        refusal.caller,
        refusal.source,
        count,
        last
    )
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn forget(pool: &PgPool, before: Time) -> Result<()> {
    sqlx::query!(
        "delete from security_log where (tenant_id, id) in (
             select tenant_id, id from security_log where last_at < $1 limit 1000)",
        before
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The entries of a tenant, newest first.
pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Entry>> {
    let rows = sqlx::query_as!(
        Entry,
        r#"select id, kind "kind: Kind", reason, method, user_id "user: UserId", caller, source,
                  count, minute, last_at
           from security_log
           where tenant_id = $1 and ($2::text is null or kind = $2)
             and ($3::uuid is null or user_id = $3) and ($4 = '' or source = $4)
             and ($5::timestamptz is null or last_at >= $5)
             and ($6::timestamptz is null or last_at < $6) and ($7::uuid is null or id < $7)
           order by id desc limit $8"#,
        permit.tenant() as TenantId,
        filter.kind as Option<Kind>,
        filter.user.map(Uuid::from),
        filter.source,
        filter.from,
        filter.until,
        before,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

pub async fn erase(change: &mut Change, user: UserId) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "delete from security_log where user_id = $1 and tenant_id = $2",
        user as UserId,
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn erase_everywhere(change: &mut Change, user: UserId) -> Result<()> {
    sqlx::query!("delete from security_log where user_id = $1", user as UserId)
        .execute(change.conn())
        .await?;
    Ok(())
}

pub async fn erase_all(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!("delete from security_log where tenant_id = $1", tenant as TenantId)
        .execute(change.conn())
        .await?;
    Ok(())
}
