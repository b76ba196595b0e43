//! Loading tenants: readers read them from the tables, each in one snapshot, and the feed puts them
//! beside the others when it has brought them to the same revision.

use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::{
    Load,
    events::{self, FeedError},
    feed::{Feed, RETRY},
    load, rows,
};
use crate::{
    db,
    decision::{Facts, TenantFacts},
    error::Error,
    ids::{Revision, TenantId},
};

/// The most tenants read at once.
pub const READERS: usize = 4;
/// How long a reader may take; after that its connection is taken for lost.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A tenant read from the tables, and the revision it was read at.
pub struct Loaded {
    facts: TenantFacts,
    revision: Revision,
}

/// What a reader brings back, and the connection it used, for the next one.
pub struct Reading {
    tenant: TenantId,
    loaded: Result<(Loaded, PgConnection), FeedError>,
}

impl Feed {
    pub(super) fn enqueue(&mut self, load: Load) {
        if self.published.load().tenant(load.tenant).is_some() {
            let _ = load.done.send(Ok(()));
            return;
        }
        let waiting = self.waiting.entry(load.tenant).or_default();
        if waiting.is_empty() {
            self.queue.push_back(load.tenant);
        }
        waiting.push(load.done);
        self.start_readers();
    }

    fn start_readers(&mut self) {
        while self.reading < READERS
            && let Some(tenant) = self.queue.pop_front()
        {
            self.reading += 1;
            let (url, done, idle) = (self.url.clone(), self.read.0.clone(), self.idle.pop());
            tokio::spawn(async move {
                let loaded = timeout(PATIENCE, read_tenant(&url, idle, tenant)).await;
                let loaded = loaded.unwrap_or(Err(FeedError::Database(sqlx::Error::PoolTimedOut)));
                let _ = done.send(Reading { tenant, loaded }).await;
            });
        }
    }

    /// Brings what a reader read to the revision of the facts, and puts it there.
    pub(super) async fn publish(&mut self, reading: Reading) {
        let Reading { tenant, loaded } = reading;
        self.reading -= 1;
        let published = match loaded {
            Ok((loaded, conn)) => {
                self.idle.push(conn);
                self.merge(loaded).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &published {
            tracing::warn!(%tenant, %error, "a tenant was not loaded");
        }
        for done in self.waiting.remove(&tenant).unwrap_or_default() {
            let _ = done.send(match &published {
                Ok(()) => Ok(()),
                Err(_) => Err(Error::Unavailable {
                    message: "the tenant could not be loaded",
                    retry_after: RETRY,
                }),
            });
        }
        self.start_readers();
    }

    /// Invariant: what is published was read from the history that the facts are of, and is exactly as
    /// new as they are. Whatever fails is forgotten; who waits asks again.
    async fn merge(&mut self, mut loaded: Loaded) -> Result<(), FeedError> {
        // The snapshot may be ahead of the facts: never publish a tenant newer than its neighbours. This
        // read comes after the snapshot, so when it still finds the facts' own last event, the snapshot
        // was of the same history.
        self.follow().await?;
        let target = self.published.load().revision;
        if loaded.revision.epoch != target.epoch || loaded.revision > target {
            return Err(FeedError::History(loaded.revision));
        }
        // Or behind them: bring it forward by its own events.
        let id = loaded.facts.id;
        let mut reached = loaded.revision.number;
        'behind: while reached < target.number {
            let read =
                self.line.with(async |open| events::of_tenant(&mut open.conn, id, reached).await);
            let rows = read.await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let revision = row.revision.unsigned_abs();
                if revision > target.number {
                    break 'behind;
                }
                let effect = row.effect()?;
                loaded.facts.apply(effect.before.as_ref(), effect.after.as_ref());
                reached = revision;
            }
        }
        let mut facts = Facts::clone(&self.published.load());
        loaded.facts.share(&mut self.pool);
        loaded.facts.ask(self.clock.now().timestamp_micros());
        facts.insert_tenant(loaded.facts);
        self.memory.weigh(&facts, id);
        self.memory.make_room(&mut facts, id);
        self.published.swap(facts);
        Ok(())
    }
}

async fn read_tenant(
    url: &SecretString,
    idle: Option<PgConnection>,
    tenant: TenantId,
) -> Result<(Loaded, PgConnection), FeedError> {
    if let Some(mut conn) = idle {
        match read_with(&mut conn, tenant).await {
            // It may have been lost while it was idle: once more, with a new one.
            Err(FeedError::Database(_)) => {}
            read => return Ok((read?, conn)),
        }
    }
    let mut conn = db::connect(url).await?;
    Ok((read_with(&mut conn, tenant).await?, conn))
}

async fn read_with(conn: &mut PgConnection, tenant: TenantId) -> Result<Loaded, FeedError> {
    let mut tx = conn.begin_with("begin isolation level repeatable read, read only").await?;
    // First the revision: it fixes the snapshot, so that nothing read later is newer than it says.
    let revision = rows::position(&mut tx).await?;
    events::readable(&mut tx).await?;
    let facts = load::tenant(&mut tx, tenant).await?;
    tx.commit().await?;
    Ok(Loaded { facts, revision })
}
