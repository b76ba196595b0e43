//! How a change ends: its events are numbered, chained and committed, or what it read is confirmed.

use sqlx::{Executor, Row};

use super::{Change, audit, ended};
use crate::{
    error::{Error, Result},
    faults::Point,
    ids::Revision,
    replica::{self, FORMAT},
    telemetry,
};

/// Numbers, chains and commits, in one message: nobody holds the clock while idle.
const SEAL: &str = "select sealed_epoch, sealed_revision from seal(); commit";

const SOON: std::time::Duration = std::time::Duration::from_millis(500);

impl Change {
    /// Undoes everything and returns the revision that what was read belongs to.
    pub(super) async fn abandon(self) -> Result<Revision> {
        self.end(None).await
    }

    /// Ends a change that changed nothing: what it read was no past that a failover has undone or can undo.
    /// May keep its answer for a repeated request.
    pub(super) async fn end(mut self, kept: Option<serde_json::Value>) -> Result<Revision> {
        let mut conn = self.conn.take().ok_or_else(ended)?;
        conn.execute("rollback").await?;
        let confirming = sqlx::query!(
            r#"select installation "installation!", epoch "epoch!", revision "revision!"
               from confirm($1, $2)"#,
            self.app.quorum,
            kept
        )
        .fetch_one(&mut *conn);
        let confirmed = telemetry::noticing(confirming).await.map_err(unsealed)?;
        let (installation, epoch) = (confirmed.installation, confirmed.epoch);
        Ok(replica::revision(installation, epoch, confirmed.revision)?)
    }

    /// Numbers, chains and commits, in one message. From here on the outcome is the database's.
    pub(super) async fn seal(mut self, kept: Option<serde_json::Value>) -> Result<Revision> {
        let drafts = std::mem::take(&mut self.drafts);
        let erased = std::mem::take(&mut self.erased);
        audit::insert_values(self.conn(), &drafts, &erased).await?;
        self.app.faults.reach(Point::Recorded).await;
        let pending = serde_json::json!({
            "skew": self.app.clock.moved_seconds(),
            "quorum": self.app.quorum,
            "events": drafts.iter().map(|draft| serde_json::json!({
                "tenant": draft.tenant.uuid(),
                "format": FORMAT,
                "body": draft.body,
            })).collect::<Vec<_>>(),
            "request": kept,
        });
        sqlx::query("select set_config('rolecall.pending', $1, true)")
            .bind(pending.to_string())
            .execute(self.conn())
            .await?;
        self.app.faults.reach(Point::Staged).await;
        let installation = self.facts.revision.installation;
        let mut conn = self.conn.take().ok_or_else(ended)?;
        let sealing = sqlx::raw_sql(SEAL).fetch_one(&mut *conn);
        let sealed = telemetry::noticing(sealing).await;
        let number = match sealed {
            Ok(row) => row.try_get("sealed_epoch").and_then(|epoch: i64| {
                replica::revision(installation.into(), epoch, row.try_get("sealed_revision")?)
            }),
            Err(error) => Err(error),
        };
        number.map_err(|error| {
            // Whether it was committed is not known here: never reuse the connection.
            conn.close_on_drop();
            unsealed(error)
        })
    }
}

/// Why a change was not sealed, or may not have been.
fn unsealed(error: sqlx::Error) -> Error {
    let unavailable = |message| Error::Unavailable { message, retry_after: SOON };
    let code = error.as_database_error().and_then(|e| e.code()).map(|code| code.to_string());
    match code.as_deref() {
        Some("RC001") => unavailable(
            "the database has failed over or was restored; changes wait until it is fenced",
        ),
        Some("RC002") => Error::precondition(
            "REPLICA_TOO_OLD",
            "replicas",
            "an older server still runs that could not obey this change; finish the upgrade, \
             `rolecall replicas` shows which",
        ),
        Some("RC003") => unavailable("the database does not wait for a standby, as it has to here"),
        _ => match Error::from(error) {
            Error::Internal(error) => Error::Internal(error),
            error @ Error::Aborted { .. } => error,
            _ => unavailable("whether the change was stored is not known"),
        },
    }
}
