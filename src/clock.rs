//! The time that dates are judged by: PostgreSQL's, by an offset that the feed measures, so that no
//! replica's wall clock matters. Tests move it; nothing else does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};

#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Microseconds from this machine's wall clock to PostgreSQL's.
    offset: Arc<AtomicI64>,
    /// Microseconds that a test moved the time by.
    moved: Arc<AtomicI64>,
}

impl Clock {
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let shift = self.offset.load(Ordering::Relaxed) + self.moved.load(Ordering::Relaxed);
        // In plain numbers: a check asks for the time, too.
        DateTime::from_timestamp_micros(wall_micros() + shift).unwrap_or_default()
    }

    /// Takes over PostgreSQL's time, read just now.
    pub fn follow(&self, database: DateTime<Utc>) {
        let offset = database.timestamp_micros() - wall_micros();
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Moves the time forward, here and in the times of events.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.moved.fetch_add(micros, Ordering::Relaxed);
    }

    /// Seconds that [`Clock::advance`] moved the time by.
    #[must_use]
    pub fn moved_seconds(&self) -> f64 {
        let micros = self.moved.load(Ordering::Relaxed);
        Duration::from_micros(micros.unsigned_abs()).as_secs_f64()
    }
}

/// Microseconds since 1970, as PostgreSQL keeps time: what is answered now is what will be read later.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn wall_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
