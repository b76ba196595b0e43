//! The time that dates are judged by: PostgreSQL's, which each renewal of the lease reads and which goes on
//! by this machine's own moments until the next, so that nobody who sets a replica's wall clock matters.
//! Tests move it; nothing else does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};

#[derive(Debug, Clone)]
pub struct Clock {
    /// Microseconds from [`Moment`] zero to PostgreSQL's 1970; by the wall clock until that is known.
    offset: Arc<AtomicI64>,
    /// Microseconds that a test moved the time by.
    moved: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        let offset = wall_micros() - Moment::now().micros();
        Self { offset: Arc::new(offset.into()), moved: Arc::default() }
    }
}

impl Clock {
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let shift = self.offset.load(Ordering::Relaxed) + self.moved.load(Ordering::Relaxed);
        // In plain numbers: a check asks for the time, too.
        DateTime::from_timestamp_micros(Moment::now().micros() + shift).unwrap_or_default()
    }

    /// Takes over PostgreSQL's time, read just now.
    pub fn follow(&self, database: DateTime<Utc>) {
        let offset = database.timestamp_micros() - Moment::now().micros();
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Seconds from this machine's wall clock to PostgreSQL's.
    #[must_use]
    pub fn offset_seconds(&self) -> f64 {
        let known = Moment::now().micros() + self.offset.load(Ordering::Relaxed);
        let micros = known - wall_micros();
        Duration::from_micros(micros.unsigned_abs()).as_secs_f64().copysign(micros.signum() as f64)
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

/// A moment of this machine's own clock, which nobody sets, and which goes on while the machine sleeps:
/// what a lease is measured by. Those of different machines have nothing to do with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Before all others.
    pub const LONG_AGO: Self = Self(0);

    #[must_use]
    pub fn now() -> Self {
        // The monotonic clock stands still in suspend where there is another one.
        #[cfg(target_os = "linux")]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(CLOCK);
        Self(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
    }

    fn micros(self) -> i64 {
        i64::try_from(self.0 / 1_000).unwrap_or(i64::MAX)
    }

    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// Nothing when the other one is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
