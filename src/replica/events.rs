//! Reading and applying events: in order, without gaps, and in the one history that the facts are of.

use sqlx::PgConnection;

use super::rows;
use crate::{
    decision::{Facts, Record, Time, Transition},
    ids::{Revision, TenantId},
};

/// The newest event format that this program can apply.
pub const FORMAT: i32 = 1;
/// The most events in one read.
const BATCH: i64 = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("expected revision {expected}, found {found}")]
    Gap { expected: u64, found: u64 },
    #[error(
        "the database has another history: it does not have revision {0} as it was applied here"
    )]
    History(Revision),
    #[error("another epoch has begun")]
    Epoch,
    #[error(
        "event {revision}.{n} needs format {format}, this program applies {FORMAT}; upgrade it"
    )]
    Format { revision: i64, n: i32, format: i32 },
    #[error("event {revision}.{n} cannot be read: {source}")]
    Body { revision: i64, n: i32, source: serde_json::Error },
}

/// The last event that was applied: a history without it, or with another one in its place, is not the
/// one that the facts are of.
#[derive(Debug, Clone, Default)]
pub struct Anchor {
    pub n: i32,
    /// Nothing before the first event of all.
    pub hash: Option<Vec<u8>>,
}

#[derive(Debug)]
pub struct EventRow {
    pub tenant_id: TenantId,
    pub revision: i64,
    pub n: i32,
    format: i32,
    pub at: Time,
    body: String,
    hash: Vec<u8>,
    epoch: i64,
    pub now: Time,
}

/// The part of an event's body that changes facts.
#[derive(serde::Deserialize)]
pub struct Effect {
    pub before: Option<Record>,
    pub after: Option<Record>,
}

impl EventRow {
    /// What it does to the facts.
    ///
    /// # Errors
    /// When it is of a newer format, or malformed.
    pub fn effect(&self) -> Result<Effect, FeedError> {
        let Self { revision, n, format, .. } = *self;
        if format > FORMAT {
            return Err(FeedError::Format { revision, n, format });
        }
        serde_json::from_str(&self.body).map_err(|source| FeedError::Body { revision, n, source })
    }

    pub fn anchor(&self) -> Anchor {
        Anchor { n: self.n, hash: Some(self.hash.clone()) }
    }
}

/// The last event of the history that this snapshot sees.
pub async fn anchor(conn: &mut PgConnection) -> sqlx::Result<Anchor> {
    let last = sqlx::query!("select n, hash from events order by revision desc, n desc limit 1")
        .fetch_optional(conn)
        .await?;
    Ok(last.map_or_else(Anchor::default, |row| Anchor { n: row.n, hash: Some(row.hash) }))
}

/// What came after a revision.
///
/// # Errors
/// [`FeedError::Epoch`] and [`FeedError::History`] when the anchor is not in the database as it was.
pub async fn since(
    conn: &mut PgConnection,
    revision: Revision,
    anchor: &Anchor,
) -> Result<Vec<EventRow>, FeedError> {
    let from = revision.number.cast_signed();
    let mut rows = sqlx::query_as!(
        EventRow,
        r#"select tenant_id "tenant_id: TenantId", revision, n, format, at, body::text "body!", hash,
                  (select epoch from clock) "epoch!", clock_timestamp() "now!"
           from events where (revision, n) >= ($1, $2) order by revision, n limit $3"#,
        from,
        anchor.n,
        BATCH + 1
    )
    .fetch_all(&mut *conn)
    .await?;
    if rows.first().is_some_and(|row| row.epoch != i64::from(revision.epoch)) {
        return Err(FeedError::Epoch);
    }
    if let Some(hash) = &anchor.hash {
        let same = |row: &&EventRow| (row.revision, row.n) == (from, anchor.n) && row.hash == *hash;
        if rows.first().filter(same).is_none() {
            let here = rows::position(conn).await?;
            return Err(if here.epoch == revision.epoch {
                FeedError::History(revision)
            } else {
                FeedError::Epoch
            });
        }
        rows.remove(0);
    }
    Ok(whole(conn, None, rows).await?)
}

/// What happened in a tenant after a revision.
pub async fn of_tenant(
    conn: &mut PgConnection,
    tenant: TenantId,
    after: u64,
) -> sqlx::Result<Vec<EventRow>> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"select tenant_id "tenant_id: TenantId", revision, n, format, at, body::text "body!", hash,
                  (select epoch from clock) "epoch!", clock_timestamp() "now!"
           from events where tenant_id = $3 and revision > $1
           order by tenant_id, revision, n limit $2"#,
        after.cast_signed(),
        BATCH,
        tenant as TenantId
    )
    .fetch_all(&mut *conn)
    .await?;
    whole(conn, Some(tenant), rows).await
}

/// A revision is applied whole or not at all: leaves one that the limit may have cut to the next read,
/// unless it is the only one.
async fn whole(
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    mut rows: Vec<EventRow>,
) -> sqlx::Result<Vec<EventRow>> {
    if rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX)
        && let (Some(first), Some(last)) =
            (rows.first().map(|r| r.revision), rows.last().map(|r| r.revision))
    {
        if first == last {
            return whole_revision(conn, tenant, first).await;
        }
        rows.retain(|row| row.revision < last);
    }
    Ok(rows)
}

async fn whole_revision(
    conn: &mut PgConnection,
    tenant: Option<TenantId>,
    revision: i64,
) -> sqlx::Result<Vec<EventRow>> {
    sqlx::query_as!(
        EventRow,
        r#"select tenant_id "tenant_id: TenantId", revision, n, format, at, body::text "body!", hash,
                  (select epoch from clock) "epoch!", clock_timestamp() "now!"
           from events where revision = $1 and ($2::uuid is null or tenant_id = $2) order by n"#,
        revision,
        tenant.map(TenantId::uuid)
    )
    .fetch_all(conn)
    .await
}

/// Refuses tables that hold what only a newer program understands.
pub async fn readable(conn: &mut PgConnection) -> Result<(), FeedError> {
    let newer = sqlx::query!(
        "select revision, n, format from events where format > 1 and format > $1
         order by revision limit 1",
        FORMAT
    )
    .fetch_optional(conn)
    .await?;
    match newer {
        None => Ok(()),
        Some(row) => {
            Err(FeedError::Format { revision: row.revision, n: row.n, format: row.format })
        }
    }
}

/// Applies whole revisions.
pub fn apply(facts: &mut Facts, rows: &[EventRow]) -> Result<(), FeedError> {
    for row in rows {
        let found = row.revision.unsigned_abs();
        let reached = facts.revision.number;
        let expected = if row.n == 0 { reached + 1 } else { reached };
        if found != expected {
            return Err(FeedError::Gap { expected, found });
        }
        let Effect { before, after } = row.effect()?;
        facts.apply(&Transition { tenant: row.tenant_id, before, after });
        facts.revision.number = found;
    }
    Ok(())
}
