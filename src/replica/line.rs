//! Connections of the replica's own tasks: no operation can keep them busy, and none of them waits for
//! ever for a peer that is gone without a word.

use std::{io, time::Duration};

use secrecy::SecretString;
use sqlx::{Executor, PgConnection};

use super::rows;
use crate::db;

/// How long an answer may take. A connection whose answer did not come is not used again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for reading everything.
const LONG_PATIENCE: Duration = Duration::from_secs(120);

/// A connection, made when it is needed.
pub struct Line {
    url: SecretString,
    /// What is written may be lost in a crash of the database.
    careless: bool,
    open: Option<Open>,
}

pub struct Open {
    pub conn: PgConnection,
    /// The history that the server at the other end writes.
    pub timeline: String,
}

impl Line {
    /// For announcements, which must be as durable as changes.
    pub fn new(url: SecretString) -> Self {
        Self { url, careless: false, open: None }
    }

    /// For what may be lost.
    pub fn careless(url: SecretString) -> Self {
        Self { careless: true, ..Self::new(url) }
    }

    /// Does something with the connection, in time; closes it when that fails.
    pub async fn with<T, E: From<sqlx::Error>>(
        &mut self,
        work: impl AsyncFnOnce(&mut Open) -> Result<T, E>,
    ) -> Result<T, E> {
        self.within(PATIENCE, work).await
    }

    /// The same for what takes its time.
    pub async fn slowly<T, E: From<sqlx::Error>>(
        &mut self,
        work: impl AsyncFnOnce(&mut Open) -> Result<T, E>,
    ) -> Result<T, E> {
        self.within(LONG_PATIENCE, work).await
    }

    async fn within<T, E: From<sqlx::Error>>(
        &mut self,
        patience: Duration,
        work: impl AsyncFnOnce(&mut Open) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => within(PATIENCE, self.connect()).await?,
        };
        let done = within(patience, work(&mut open)).await;
        if done.is_ok() {
            self.open = Some(open);
        }
        done
    }

    async fn connect(&self) -> sqlx::Result<Open> {
        let mut conn = db::connect(&self.url).await?;
        if self.careless {
            conn.execute("set synchronous_commit = off").await?;
        }
        let timeline = rows::timeline(&mut conn).await?;
        Ok(Open { conn, timeline })
    }
}

/// What did not come in time is an error.
async fn within<T, E: From<sqlx::Error>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => {
            let late =
                io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time");
            Err(sqlx::Error::Io(late).into())
        }
    }
}
