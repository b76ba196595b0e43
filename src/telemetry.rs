//! Logs to stderr and metrics for Prometheus. No addresses, tokens or SQL values in either.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, Targets},
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::config::{LogArgs, LogFormat};

/// Seconds; from a check out of memory to a change that waits for a lost replica.
const DURATIONS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.004, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Starts logging.
///
/// # Errors
/// When the filter is malformed, or logging was started before.
pub fn log(args: &LogArgs) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(&args.log)?;
    let registry = tracing_subscriber::registry().with(notices());
    let colours = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    match args.log_format {
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(filter)).try_init()?;
        }
        LogFormat::Pretty => {
            registry.with(layer.with_target(false).with_filter(filter)).try_init()?;
        }
    }
    Ok(())
}

/// Starts collecting metrics; one recorder per process, so tests share it.
///
/// # Errors
/// When the buckets are refused.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATIONS)?
        .build_recorder();
    let handle = HANDLE.get_or_init(|| recorder.handle());
    // A recorder that another thread installed in the meantime is as good.
    let _ = metrics::set_global_recorder(recorder);
    Ok(handle.clone())
}

/// Where sqlx logs what PostgreSQL remarks; it tells in no other way.
const NOTICE: &str = "sqlx::postgres::notice";

tokio::task_local! {
    static NOTICED: Cell<bool>;
}

/// What hears the warnings of PostgreSQL for [`noticing`].
pub fn notices<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>()
-> impl Layer<S> {
    Notices.with_filter(Targets::new().with_target(NOTICE, LevelFilter::WARN))
}

struct Notices;

impl<S: Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let _ = NOTICED.try_with(|noticed| noticed.set(true));
        }
    }
}

/// Commits, and takes a warning for a failure: a commit whose wait for a standby was cut short says that
/// it succeeded, and may be gone after a failover.
///
/// # Errors
/// Those of the commit.
pub async fn noticing<T>(commit: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    NOTICED
        .scope(Cell::new(false), async {
            let done = commit.await?;
            if NOTICED.with(Cell::get) {
                let unsure = "the commit was not confirmed by a standby";
                return Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::Interrupted, unsure)));
            }
            Ok(done)
        })
        .await
}
