//! The newest events, read once for everybody who follows them. Whoever is further behind reads alone,
//! a few at a time, so that no number of followers is a storm of queries.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError},
};

use sqlx::PgPool;
use tokio::sync::{Mutex, Semaphore};

use crate::{
    decision::Time,
    error::{Error, Result},
    ids::{Revision, TenantId},
};

/// The most events in one read.
const BATCH: usize = 200;
/// How many revisions are kept for everybody, and how many bytes of events.
const KEPT: usize = 1_000;
const KEPT_BYTES: usize = 8 << 20;
/// How many may read history at the same time.
const READERS: usize = 2;
/// The most followers of this process.
const FOLLOWERS: usize = 1_000;
/// The most of them that come from one tenant; the installation's own are not counted so.
const FOLLOWERS_OF_TENANT: usize = 100;

/// What one change did.
#[derive(Debug)]
pub struct Committed {
    pub number: u64,
    pub events: Vec<EventText>,
}

/// An event as it is stored, without the personal values beside it.
#[derive(Debug)]
pub struct EventText {
    pub tenant: TenantId,
    pub n: i32,
    pub at: Time,
    pub body: String,
    pub hash: Vec<u8>,
}

/// Everything that happened up to a revision.
#[derive(Debug)]
pub struct Stretch {
    pub revisions: Vec<Arc<Committed>>,
    pub until: u64,
}

pub struct Tail {
    kept: Mutex<Kept>,
    readers: Semaphore,
    places: Arc<std::sync::Mutex<HashMap<TenantId, usize>>>,
}

/// All revisions after `start` up to `end`, of one epoch's history.
#[derive(Default)]
struct Kept {
    epoch: u32,
    start: u64,
    end: u64,
    revisions: VecDeque<Arc<Committed>>,
    bytes: usize,
}

/// The right to follow; dropped when it ends.
pub struct Place {
    tenant: TenantId,
    places: Arc<std::sync::Mutex<HashMap<TenantId, usize>>>,
}

impl Default for Tail {
    fn default() -> Self {
        Self { kept: Mutex::default(), readers: Semaphore::new(READERS), places: Arc::default() }
    }
}

impl Tail {
    /// Takes a place for a follower from this tenant.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there are too many, of all or of the tenant.
    pub fn join(&self, tenant: TenantId) -> Result<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = places.values().sum();
        let taken = places.entry(tenant).or_default();
        if all >= FOLLOWERS || (tenant != TenantId::SYSTEM && *taken >= FOLLOWERS_OF_TENANT) {
            return Err(Error::Exhausted {
                reason: "TOO_MANY_WATCHERS",
                message: "too many streams of changes are open; end some, or share one",
                retry_after: std::time::Duration::from_secs(10),
            });
        }
        *taken += 1;
        metrics::gauge!("rolecall_watchers").increment(1);
        Ok(Place { tenant, places: self.places.clone() })
    }

    /// What came after a revision, in the tenant or in all, up to `applied` or not so far. Revisions of
    /// other tenants may be among them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn after(
        &self,
        pool: &PgPool,
        tenant: Option<TenantId>,
        after: u64,
        applied: Revision,
    ) -> Result<Stretch> {
        if let Some(stretch) = self.shared(pool, after, applied).await? {
            return Ok(stretch);
        }
        let _turn = self.readers.acquire().await.map_err(Error::internal)?;
        read(pool, tenant, after, applied.number).await
    }

    /// From what is kept, read on to `applied` by whoever comes first.
    async fn shared(
        &self,
        pool: &PgPool,
        after: u64,
        applied: Revision,
    ) -> Result<Option<Stretch>> {
        let reach = KEPT as u64;
        let Revision { epoch, number: applied, .. } = applied;
        let mut kept = self.kept.lock().await;
        if kept.epoch != epoch || applied.saturating_sub(kept.end) > reach {
            // Nobody followed for a while, and nobody need read what happened meanwhile.
            let start = if applied.saturating_sub(after) <= reach { after } else { applied };
            *kept = Kept { epoch, start, end: start, ..Kept::default() };
        }
        if after < kept.start {
            return Ok(None);
        }
        while kept.end < applied {
            let Stretch { revisions, until } = read(pool, None, kept.end, applied).await?;
            kept.append(revisions, until);
            if after < kept.start {
                return Ok(None);
            }
        }
        let from = kept.revisions.partition_point(|revision| revision.number <= after);
        let revisions: Vec<_> = kept.revisions.iter().skip(from).cloned().collect();
        Ok(Some(Stretch { revisions, until: kept.end.max(after) }))
    }
}

impl Kept {
    fn append(&mut self, revisions: Vec<Arc<Committed>>, until: u64) {
        self.end = until;
        self.bytes += revisions.iter().map(|revision| revision.bytes()).sum::<usize>();
        self.revisions.extend(revisions);
        while (self.revisions.len() > KEPT || self.bytes > KEPT_BYTES)
            && let Some(oldest) = self.revisions.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.start = oldest.number;
        }
    }
}

impl Committed {
    fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.body.len()).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.tenant);
            }
        }
        metrics::gauge!("rolecall_watchers").decrement(1);
    }
}

struct Row {
    tenant_id: TenantId,
    revision: i64,
    n: i32,
    at: Time,
    body: String,
    hash: Vec<u8>,
}

/// Whole revisions, in order.
async fn read(pool: &PgPool, tenant: Option<TenantId>, after: u64, to: u64) -> Result<Stretch> {
    let first = i64::try_from(after).map_err(Error::internal)?;
    let last = i64::try_from(to).map_err(Error::internal)?;
    let limit = i64::try_from(BATCH).map_err(Error::internal)?;
    let mut rows =
        match tenant {
            None => sqlx::query_as!(
                Row,
                r#"select tenant_id "tenant_id: TenantId", revision, n, at, body::text "body!", hash
               from events where revision > $1 and revision <= $2
               order by revision, n limit $3"#,
                first,
                last,
                limit
            )
            .fetch_all(pool)
            .await?,
            Some(tenant) => sqlx::query_as!(
                Row,
                r#"select tenant_id "tenant_id: TenantId", revision, n, at, body::text "body!", hash
               from events where tenant_id = $4 and revision > $1 and revision <= $2
               order by tenant_id, revision, n limit $3"#,
                first,
                last,
                limit,
                tenant as TenantId
            )
            .fetch_all(pool)
            .await?,
        };
    let mut until = to;
    if rows.len() == BATCH
        && let (Some(first), Some(last)) =
            (rows.first().map(|row| row.revision), rows.last().map(|row| row.revision))
    {
        // The limit may have cut the last revision: leave it to the next read, unless it is the only
        // one.
        if first == last {
            rows = whole(pool, tenant, first).await?;
        } else {
            rows.retain(|row| row.revision < last);
        }
        until = rows.last().map_or(after, |row| row.revision.unsigned_abs());
    }
    Ok(Stretch { revisions: grouped(rows), until })
}

async fn whole(pool: &PgPool, tenant: Option<TenantId>, revision: i64) -> Result<Vec<Row>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select tenant_id "tenant_id: TenantId", revision, n, at, body::text "body!", hash
           from events where revision = $1 and ($2::uuid is null or tenant_id = $2) order by n"#,
        revision,
        tenant.map(TenantId::uuid)
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

fn grouped(rows: Vec<Row>) -> Vec<Arc<Committed>> {
    let mut revisions: Vec<Committed> = Vec::new();
    for row in rows {
        let number = row.revision.unsigned_abs();
        let Row { tenant_id: tenant, n, at, body, hash, .. } = row;
        let event = EventText { tenant, n, at, body, hash };
        match revisions.last_mut() {
            Some(last) if last.number == number => last.events.push(event),
            _ => revisions.push(Committed { number, events: vec![event] }),
        }
    }
    revisions.into_iter().map(Arc::new).collect()
}
