//! Faults on purpose, for tests that must see a promise broken: `ROLECALL_FAULTS` in a debug build. A
//! release has none of this: everything here is empty in it, and the setting does not exist.

#[cfg(debug_assertions)]
use std::time::Duration;

/// The awaits of a change, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The transaction is open.
    Begun,
    /// The tenant's row is locked.
    Locked,
    Authorised,
    /// The feature has written its tables.
    Written,
    /// The personal values are written; next is the clock.
    Recorded,
    /// The events are with the database; next is the message that numbers and commits them.
    Staged,
    /// Committed; next is the wait for the replicas.
    Sealed,
    /// Every replica obeys; next is the answer.
    Obeyed,
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    #[cfg(debug_assertions)]
    inner: std::sync::Arc<on_purpose::Inner>,
}

#[cfg(not(debug_assertions))]
impl Faults {
    /// Whether changes wait for the replicas.
    #[must_use]
    pub const fn barrier(&self) -> bool {
        true
    }

    /// Whether answers take a lease.
    #[must_use]
    pub const fn lease(&self) -> bool {
        true
    }

    /// A change has come so far.
    pub async fn reach(&self, _: Point) {}
}

#[cfg(debug_assertions)]
pub use on_purpose::{FaultsError, Held};

#[cfg(debug_assertions)]
mod on_purpose {
    use std::{
        str::FromStr,
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicU32, Ordering},
        },
    };

    use nix::sys::signal::{Signal, raise};
    use tokio::sync::watch;

    use super::{Duration, Faults, Point};

    #[derive(Debug, Default)]
    pub struct Inner {
        no_barrier: bool,
        no_lease: bool,
        stops: Vec<Stop>,
        /// A change that comes to the point waits for the other end to be dropped.
        held: Mutex<Option<(Point, watch::Sender<bool>)>>,
    }

    #[derive(Debug)]
    struct Stop {
        point: Point,
        /// How many more times it is passed by.
        left: AtomicU32,
        /// Nothing: the process stops itself, until it gets SIGCONT.
        pause: Option<Duration>,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("expected `no-barrier`, `no-lease`, `stop=<point>@<n>` or `pause=<point>@<n>:<ms>`")]
    pub struct FaultsError;

    /// A point where the next change stops; it goes on when this is dropped.
    #[derive(Debug)]
    pub struct Held(watch::Receiver<bool>);

    impl Held {
        /// Waits until a change has stopped there.
        pub async fn reached(&mut self) {
            let _ = self.0.wait_for(|reached| *reached).await;
        }
    }

    impl FromStr for Point {
        type Err = FaultsError;

        fn from_str(name: &str) -> Result<Self, FaultsError> {
            Ok(match name {
                "begun" => Self::Begun,
                "locked" => Self::Locked,
                "authorised" => Self::Authorised,
                "written" => Self::Written,
                "recorded" => Self::Recorded,
                "staged" => Self::Staged,
                "sealed" => Self::Sealed,
                "obeyed" => Self::Obeyed,
                _ => return Err(FaultsError),
            })
        }
    }

    impl FromStr for Faults {
        type Err = FaultsError;

        fn from_str(text: &str) -> Result<Self, FaultsError> {
            let mut inner = Inner::default();
            for word in text.split(',').filter(|word| !word.is_empty()) {
                match word.split_once('=') {
                    None if word == "no-barrier" => inner.no_barrier = true,
                    None if word == "no-lease" => inner.no_lease = true,
                    Some(("stop", place)) => inner.stops.push(stop(place, None)?),
                    Some(("pause", place)) => {
                        let (place, millis) = place.split_once(':').ok_or(FaultsError)?;
                        let millis = millis.parse().map_err(|_| FaultsError)?;
                        inner.stops.push(stop(place, Some(Duration::from_millis(millis)))?);
                    }
                    _ => return Err(FaultsError),
                }
            }
            tracing::warn!(faults = text, "this server breaks its promises on purpose");
            Ok(Self { inner: inner.into() })
        }
    }

    fn stop(place: &str, pause: Option<Duration>) -> Result<Stop, FaultsError> {
        let (point, n) = place.split_once('@').ok_or(FaultsError)?;
        let n: u32 = n.parse().map_err(|_| FaultsError)?;
        Ok(Stop { point: point.parse()?, left: n.into(), pause })
    }

    impl Faults {
        /// Whether changes wait for the replicas.
        #[must_use]
        pub fn barrier(&self) -> bool {
            !self.inner.no_barrier
        }

        /// Whether answers take a lease.
        #[must_use]
        pub fn lease(&self) -> bool {
            !self.inner.no_lease
        }

        /// Stops the next change that comes to a point.
        #[must_use]
        pub fn hold(&self, point: Point) -> Held {
            let (reached, held) = watch::channel(false);
            let mut place = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
            *place = Some((point, reached));
            Held(held)
        }

        /// A change has come so far.
        pub async fn reach(&self, point: Point) {
            let held = {
                let mut place = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
                place.take_if(|(held, _)| *held == point)
            };
            if let Some((_, reached)) = held {
                reached.send_replace(true);
                reached.closed().await;
            }
            for stop in self.inner.stops.iter().filter(|stop| stop.point == point) {
                if stop.left.fetch_sub(1, Ordering::Relaxed) != 1 {
                    continue;
                }
                match stop.pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => drop(raise(Signal::SIGSTOP)),
                }
            }
        }
    }
}
