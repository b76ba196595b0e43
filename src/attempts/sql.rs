//! The table `attempts`.

use chrono::TimeDelta;
use sqlx::PgPool;

use crate::{decision::Time, error::Result};

/// Counts one more and returns until when all of them, one in every interval, would take.
pub async fn count(pool: &PgPool, key: &[u8], now: Time, every: TimeDelta) -> Result<Time> {
    let due = sqlx::query_scalar!(
        "insert into attempts as a (key, due) values ($1, $2)
         on conflict (key) do update set due = greatest(a.due, $3) + ($2 - $3::timestamptz)
         returning due",
        key,
        now + every,
        now
    )
    .fetch_one(pool)
    .await?;
    // Each call clears more than it adds, so that the table stays small.
    sqlx::query!(
        "delete from attempts where key in (
             select key from attempts where due <= $1 order by due limit 4 for update skip locked)",
        now
    )
    .execute(pool)
    .await?;
    Ok(due)
}

pub async fn forget(pool: &PgPool, key: &[u8]) -> Result<()> {
    sqlx::query!("delete from attempts where key = $1", key).execute(pool).await?;
    Ok(())
}

pub async fn forgive(pool: &PgPool, key: &[u8], every: TimeDelta) -> Result<()> {
    let seconds = every.as_seconds_f64();
    sqlx::query!(
        "update attempts set due = due - make_interval(secs => $2) where key = $1",
        key,
        seconds
    )
    .execute(pool)
    .await?;
    Ok(())
}
