//! Connections to PostgreSQL: the pool of the operations, and single ones for the feed. Every
//! connection works as `rolecall_server` and gives up by itself, so that no frozen peer holds a lock.

use std::{str::FromStr, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long an operation waits for a connection before it is told to come back.
const ACQUIRE: Duration = Duration::from_secs(5);

fn options(url: &SecretString) -> sqlx::Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(url.expose_secret())?
        .application_name("rolecall")
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1))
        .options([
            // Compiling a query takes longer than any query here.
            ("jit", "off"),
            // Nor is any worth the start of another process, and many of them come at once.
            ("max_parallel_workers_per_gather", "0"),
            // Indexes are in memory or on flash.
            ("random_page_cost", "1.1"),
            ("statement_timeout", "30s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "5s"),
            ("tcp_user_timeout", "10s"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ]))
}

/// As the server, and never with commits that a crash of the database would lose.
const AS_SERVER: &str = "set role rolecall_server;
    select set_config('synchronous_commit', 'on', false)
    where current_setting('synchronous_commit') = 'off'";

/// The pool that operations take connections from.
///
/// # Errors
/// When the URL is malformed or the database does not answer.
pub async fn pool(url: &SecretString, size: u32) -> sqlx::Result<PgPool> {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE)
        .after_connect(|conn, _| Box::pin(async move { conn.execute(AS_SERVER).await.map(|_| ()) }))
        .connect_with(options(url)?)
        .await
}

/// A pool of one connection, made when it is needed, for who listens.
///
/// # Errors
/// When the URL is malformed.
pub fn single(url: &SecretString) -> sqlx::Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(1).connect_lazy_with(options(url)?))
}

/// A connection of its own, for what must not wait behind operations.
///
/// # Errors
/// When the URL is malformed or the database does not answer.
pub async fn connect(url: &SecretString) -> sqlx::Result<PgConnection> {
    let mut conn = PgConnection::connect_with(&options(url)?).await?;
    conn.execute(AS_SERVER).await?;
    Ok(conn)
}

/// Brings the schema up to date, with the rights of whoever owns it. Idempotent, one at a time.
///
/// # Errors
/// When the database does not answer or holds a schema with another history.
pub async fn migrate(url: &SecretString) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(url.expose_secret()).map_err(MigrateError::Execute)?;
    let mut conn = PgConnection::connect_with(&options).await.map_err(MigrateError::Execute)?;
    MIGRATIONS.run(&mut conn).await?;
    conn.close().await.map_err(MigrateError::Execute)
}

/// Whether the schema is at least as new as this program; a newer one is served too.
///
/// # Errors
/// When the database does not answer.
pub async fn schema_is_current(conn: &mut PgConnection) -> sqlx::Result<bool> {
    let newest: Option<i64> = sqlx::query_scalar("select max(version) from _sqlx_migrations")
        .fetch_optional(&mut *conn)
        .await
        .or_else(|error| match error.as_database_error().and_then(|e| e.code()) {
            Some(code) if code == "42P01" => Ok(None),
            _ => Err(error),
        })?
        .flatten();
    let wanted = MIGRATIONS.iter().map(|m| m.version).max();
    Ok(newest >= wanted)
}
