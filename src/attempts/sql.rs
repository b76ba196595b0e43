//! The table `attempts`.

use chrono::TimeDelta;
use sqlx::PgPool;

use crate::{decision::Time, error::Result};

/// Counts one more and returns how many there were since when.
pub async fn count(pool: &PgPool, key: &[u8], now: Time, period: TimeDelta) -> Result<(i32, Time)> {
    let row = sqlx::query!(
        "insert into attempts as a (key, count, since, until) values ($1, 1, $2, $3)
         on conflict (key) do update set
             count = case when a.until <= $2 then 1 else a.count + 1 end,
             since = case when a.until <= $2 then $2 else a.since end,
             until = case when a.until <= $2 then $3 else a.until end
         returning count, since",
        key,
        now,
        now + period
    )
    .fetch_one(pool)
    .await?;
    // Each call clears more than it adds, so that the table stays small.
    sqlx::query!(
        "delete from attempts
         where key in (select key from attempts where until <= $1 order by until limit 4)",
        now
    )
    .execute(pool)
    .await?;
    Ok((row.count, row.since))
}

pub async fn forget(pool: &PgPool, key: &[u8]) -> Result<()> {
    sqlx::query!("delete from attempts where key = $1", key).execute(pool).await?;
    Ok(())
}

pub async fn forgive(pool: &PgPool, key: &[u8]) -> Result<()> {
    sqlx::query!("update attempts set count = count - 1 where key = $1", key).execute(pool).await?;
    Ok(())
}
