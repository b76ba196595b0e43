//! The rows by which replicas know of each other, and the clock that they read with them. The only file
//! that writes the table `replicas`.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::epochs::{Epoch, Epochs};
use crate::ids::Revision;

/// Where hints are sent.
pub const CHANNEL: &str = "rolecall_changes";

/// What a process says of itself when it begins to answer.
#[derive(Debug, Clone)]
pub struct Registration {
    pub name: String,
    /// The newest event format that it applies.
    pub format: i32,
    pub lease: Duration,
    /// The identity of the lock that it holds.
    pub proof: Option<Uuid>,
}

/// A replica as its row shows it.
#[derive(Debug, Clone)]
pub struct Row {
    pub session: Uuid,
    pub name: String,
    pub version: String,
    pub format: i32,
    pub lease: Duration,
    pub seq: i64,
    /// What it obeys.
    pub epoch: u32,
    pub ack: u64,
    /// Why it does not answer; nothing while it may.
    pub trouble: Option<String>,
    pub started_at: DateTime<Utc>,
    pub renewed_at: DateTime<Utc>,
}

/// The clock and all rows, read at once.
#[derive(Debug)]
pub struct State {
    /// What is committed.
    pub revision: Revision,
    /// The history that the clock counts in.
    pub timeline: String,
    pub now: DateTime<Utc>,
    pub rows: Vec<Row>,
}

/// Announces that the replica goes on answering, or why it does not; `false` when it has no row.
pub async fn announce(
    conn: &mut PgConnection,
    session: Uuid,
    trouble: Option<&str>,
) -> sqlx::Result<bool> {
    let updated = sqlx::query!(
        "update replicas set seq = seq + 1, renewed_at = clock_timestamp(), trouble = $2
         where session = $1",
        session,
        trouble
    )
    .execute(conn)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Announces a replica for the first time.
pub async fn insert(
    conn: &mut PgConnection,
    registration: &Registration,
    applied: Revision,
    trouble: Option<&str>,
) -> sqlx::Result<Uuid> {
    let Registration { name, format, lease, proof } = registration;
    sqlx::query_scalar!(
        "insert into replicas (name, version, format, lease_ms, proof, epoch, ack, trouble)
         values ($1, $2, $3, $4, $5, $6, $7, $8) returning session",
        name,
        env!("CARGO_PKG_VERSION"),
        format,
        i32::try_from(lease.as_millis()).unwrap_or(i32::MAX),
        *proof,
        i64::from(applied.epoch),
        applied.number.cast_signed(),
        trouble
    )
    .fetch_one(conn)
    .await
}

/// Tells the others what this replica obeys.
pub async fn acknowledge(
    conn: &mut PgConnection,
    session: Uuid,
    revision: Revision,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update replicas set epoch = $2, ack = $3 where session = $1",
        session,
        i64::from(revision.epoch),
        revision.number.cast_signed()
    )
    .execute(conn)
    .await
    .map(drop)
}

/// Takes leave. Whoever does has stopped answering.
pub async fn delete(conn: &mut PgConnection, session: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from replicas where session = $1", session).execute(conn).await.map(drop)
}

/// Removes those who held a lock before the caller: they are dead.
pub async fn delete_dead(conn: &mut PgConnection, proof: Uuid) -> sqlx::Result<u64> {
    let deleted =
        sqlx::query!("delete from replicas where proof = $1", proof).execute(conn).await?;
    Ok(deleted.rows_affected())
}

/// Removes a replica whose lease is over, unless it has announced itself again.
pub async fn reap(conn: &mut PgConnection, session: Uuid, seq: i64) -> sqlx::Result<bool> {
    let deleted =
        sqlx::query!("delete from replicas where session = $1 and seq = $2", session, seq)
            .execute(conn)
            .await?;
    Ok(deleted.rows_affected() == 1)
}

/// Tells every replica that something was committed. In a transaction of its own, after the change: it
/// is a hint, and would hold up all commits of the database.
pub async fn hint(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(conn).await.map(drop)
}

/// Reads the clock and all rows in one snapshot.
///
/// # Errors
/// When the database does not answer.
pub async fn state(conn: &mut PgConnection) -> sqlx::Result<State> {
    let found = sqlx::query!(
        r#"select c.installation, c.epoch clock_epoch, c.timeline, clock_timestamp() "now!",
                  coalesce((select revision from events order by revision desc, n desc limit 1), 0)
                      "newest!",
                  r.session "session?", r.name "name?", r.version "version?", r.format "format?",
                  r.lease_ms "lease_ms?", r.seq "seq?", r.epoch "epoch?", r.ack "ack?",
                  r.trouble, r.started_at "started_at?", r.renewed_at "renewed_at?"
           from clock c left join replicas r on true where c.single
           order by r.name, r.started_at"#
    )
    .fetch_all(conn)
    .await?;
    let clock = found.first().ok_or(sqlx::Error::RowNotFound)?;
    let revision = revision(clock.installation, clock.clock_epoch, clock.newest)?;
    let (timeline, now) = (clock.timeline.clone(), clock.now);
    let rows = found.into_iter().filter_map(|row| {
        Some(Row {
            session: row.session?,
            name: row.name?,
            version: row.version?,
            format: row.format?,
            lease: Duration::from_millis(row.lease_ms?.unsigned_abs().into()),
            seq: row.seq?,
            epoch: u32::try_from(row.epoch?).unwrap_or_default(),
            ack: row.ack?.unsigned_abs(),
            trouble: row.trouble,
            started_at: row.started_at?,
            renewed_at: row.renewed_at?,
        })
    });
    Ok(State { revision, timeline, now, rows: rows.collect() })
}

/// The newest revision that this transaction's snapshot sees.
///
/// # Errors
/// When the database does not answer.
pub async fn position(conn: &mut PgConnection) -> sqlx::Result<Revision> {
    let row = sqlx::query!(
        r#"select installation, epoch,
                  coalesce((select revision from events order by revision desc, n desc limit 1), 0)
                      "newest!"
           from clock"#
    )
    .fetch_one(conn)
    .await?;
    revision(row.installation, row.epoch, row.newest)
}

/// Every epoch of the installation.
pub async fn epochs(conn: &mut PgConnection) -> sqlx::Result<Epochs> {
    let rows = sqlx::query!("select epoch, base from epochs").fetch_all(conn).await?;
    let epoch = |row: (i64, i64)| Ok(Epoch { number: narrow(row.0)?, base: row.1.unsigned_abs() });
    let epochs: sqlx::Result<_> =
        rows.into_iter().map(|row| epoch((row.epoch, row.base))).collect();
    Ok(Epochs::new(epochs?))
}

/// Begins another epoch after `applied`, unless that was done already, and reports what it lacks.
pub async fn fence(conn: &mut PgConnection, applied: Revision) -> sqlx::Result<()> {
    sqlx::query!("select fence($1, $2)", i64::from(applied.epoch), applied.number.cast_signed())
        .execute(conn)
        .await
        .map(drop)
}

/// The history that the server at the other end writes; it stays the same for as long as a connection.
///
/// # Errors
/// When it is a standby, which writes none.
pub async fn timeline(conn: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar!(r#"select timeline() "timeline!""#).fetch_one(conn).await
}

/// What the database says of a revision.
///
/// # Errors
/// For numbers that it cannot have.
pub fn revision(installation: i64, epoch: i64, number: i64) -> sqlx::Result<Revision> {
    let (installation, epoch) = (narrow(installation)?, narrow(epoch)?);
    Ok(Revision { installation, epoch, number: number.unsigned_abs() })
}

fn narrow(number: i64) -> sqlx::Result<u32> {
    u32::try_from(number).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// For operators: a line for each replica, under a line of headings.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, now, rows, .. } = self;
        writeln!(f, "revision {revision}, {} replicas", rows.len())?;
        write!(
            f,
            "{:<28} {:<8} {:>6} {:>12} {:>8} {:>10} {:>10}  STATE",
            "REPLICA", "VERSION", "FORMAT", "REVISION", "LAG", "RENEWED", "LEASE"
        )?;
        for row in rows {
            let lag = if row.epoch == revision.epoch {
                revision.number.saturating_sub(row.ack).to_string()
            } else {
                "epoch".to_owned()
            };
            let renewed = (*now - row.renewed_at).to_std().unwrap_or_default();
            let state = match &row.trouble {
                Some(trouble) => trouble,
                None if renewed > row.lease => "gone without a word",
                None => "answers",
            };
            write!(
                f,
                "\n{:<28} {:<8} {:>6} {:>12} {:>8} {:>8.1} s {:>8.1} s  {state}",
                row.name,
                row.version,
                row.format,
                row.ack,
                lag,
                renewed.as_secs_f64(),
                row.lease.saturating_sub(renewed).as_secs_f64(),
            )?;
        }
        Ok(())
    }
}
