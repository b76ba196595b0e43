//! What this replica answers from: the facts, and until when they may be taken for current. One value,
//! replaced as a whole, so that no answer sees the one without the other.

use std::{
    collections::VecDeque,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::epochs::Epochs;
use crate::{
    clock::Moment,
    decision::Facts,
    error::{Error, Result},
    ids::Revision,
};

/// Grants that wait for the facts to come as far; a replica further behind has no lease to lose.
const GRANTS: usize = 32;

/// The facts, and how long they count. Reads as the facts.
#[derive(Debug, Clone)]
pub struct View {
    facts: Facts,
    /// Invariant: no change that the facts lack is acknowledged before this moment.
    until: Moment,
    /// The facts have everything that was acknowledged before this moment.
    current_at: Moment,
    lapse: Lapse,
    epochs: Arc<Epochs>,
}

/// Why a replica does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    Starting,
    /// No renewal came through.
    Unconfirmed,
    /// There is an event that this program cannot apply.
    Unreadable,
    /// The database has another history than the facts.
    History,
    Stopping,
}

/// A promise of the database: what is committed after this announcement waits for this replica.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// What was committed when it was asked, after the announcement.
    pub revision: Revision,
    /// Before the announcement.
    pub from: Moment,
    pub lease: Duration,
}

/// The one place where the view is replaced.
pub struct Published {
    view: ArcSwap<View>,
    writing: Mutex<Writing>,
    applied: watch::Sender<Revision>,
}

#[derive(Default)]
struct Writing {
    /// In the order of their announcements.
    grants: VecDeque<Grant>,
    /// While set, nothing is granted.
    halted: bool,
    retired: bool,
    /// Why, in the words that are shown to operators.
    trouble: Option<String>,
}

impl Deref for View {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl View {
    /// Whether what was found in the facts still is an answer. Asked after it was found: the clock has
    /// the last word.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the lease is over.
    pub fn confirm(&self) -> Result<()> {
        if self.holds() { Ok(()) } else { Err(self.lapse.into()) }
    }

    #[must_use]
    pub fn holds(&self) -> bool {
        Moment::now() < self.until
    }

    /// How long ago the facts were certainly current.
    #[must_use]
    pub fn age(&self) -> Duration {
        Moment::now().since(self.current_at)
    }

    /// How much longer the facts count.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.until.since(Moment::now())
    }

    #[must_use]
    pub fn lapse(&self) -> Lapse {
        self.lapse
    }

    #[must_use]
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }
}

impl Published {
    pub fn new(facts: Facts, epochs: Epochs) -> Self {
        let (applied, _) = watch::channel(facts.revision);
        let (until, current_at) = (Moment::LONG_AGO, Moment::LONG_AGO);
        let (lapse, epochs) = (Lapse::Starting, Arc::new(epochs));
        let view = View { facts, until, current_at, lapse, epochs };
        Self { view: ArcSwap::from_pointee(view), writing: Mutex::default(), applied }
    }

    pub fn load(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    pub fn load_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// Replaces the facts by later ones of the same epoch.
    pub fn swap(&self, facts: Facts) {
        self.write(|view, writing| {
            view.facts = facts;
            view.take(&mut writing.grants);
        });
    }

    /// Replaces the facts by what was read anew, perhaps in another epoch.
    pub fn restart(&self, facts: Facts, epochs: Epochs) {
        self.write(|view, writing| {
            (view.until, view.lapse) = (Moment::LONG_AGO, Lapse::Unconfirmed);
            (view.facts, view.epochs) = (facts, Arc::new(epochs));
            (writing.halted, writing.trouble) = (false, None);
            view.take(&mut writing.grants);
        });
    }

    /// Lets the facts count longer, as soon as they have come as far as the grant.
    pub fn grant(&self, grant: Grant) {
        self.write(|view, writing| {
            if writing.halted || writing.retired {
                return;
            }
            writing.grants.push_back(grant);
            if writing.grants.len() > GRANTS {
                writing.grants.pop_front();
            }
            view.take(&mut writing.grants);
        });
    }

    /// Ends the lease at once, and grants nothing until [`Published::proceed`].
    pub fn halt(&self, lapse: Lapse, trouble: &str) {
        self.write(|view, writing| {
            writing.grants.clear();
            writing.halted = true;
            writing.trouble = Some(trouble.to_owned());
            (view.until, view.lapse) = (Moment::LONG_AGO, lapse);
        });
    }

    /// What stood in the way is gone.
    pub fn proceed(&self) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (writing.halted, writing.trouble) = (false, None);
    }

    /// Ends the lease for good.
    pub fn retire(&self) {
        self.write(|view, writing| {
            writing.grants.clear();
            writing.retired = true;
            (view.until, view.lapse) = (Moment::LONG_AGO, Lapse::Stopping);
        });
    }

    pub fn trouble(&self) -> Option<String> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    fn write(&self, change: impl FnOnce(&mut View, &mut Writing)) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&self.view.load());
        change(&mut view, &mut writing);
        let revision = view.facts.revision;
        self.view.store(Arc::new(view));
        // Only now: whoever waits for the revision must find it in the facts.
        self.applied.send_if_modified(|applied| std::mem::replace(applied, revision) != revision);
    }
}

impl View {
    /// Takes the grants that the facts have come as far as.
    fn take(&mut self, grants: &mut VecDeque<Grant>) {
        let reached = self.facts.revision;
        grants.retain(|grant| grant.revision.epoch >= reached.epoch);
        // Invariant: of the same epoch, because numbers of different epochs say nothing of each other.
        let counts = |grant: &&Grant| {
            grant.revision.epoch == reached.epoch && grant.revision.number <= reached.number
        };
        while let Some(grant) = grants.front().filter(counts).copied() {
            grants.pop_front();
            self.until = self.until.max(grant.from.after(grant.lease));
            self.current_at = self.current_at.max(grant.from);
            self.lapse = Lapse::Unconfirmed;
        }
    }
}

impl Lapse {
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Unconfirmed => "unconfirmed",
            Self::Unreadable => "unreadable_event",
            Self::History => "other_history",
            Self::Stopping => "stopping",
        }
    }
}

impl From<Lapse> for Error {
    fn from(lapse: Lapse) -> Self {
        let (message, retry_after) = match lapse {
            Lapse::Starting => ("this server has only just started", 500),
            Lapse::Unconfirmed => (
                "the database has not confirmed for too long that this server knows everything; ask \
                 another server, or accept older answers with `max_staleness`",
                1_000,
            ),
            Lapse::Unreadable => (
                "this server is older than the events that it would have to apply; ask another one \
                 until it is upgraded",
                5_000,
            ),
            Lapse::History => {
                ("the database has failed over or was restored; this server reads it anew", 1_000)
            }
            Lapse::Stopping => ("this server stops; ask another one", 100),
        };
        Self::Unavailable { message, retry_after: Duration::from_millis(retry_after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Directory;

    fn at(epoch: u32, number: u64) -> Facts {
        let revision = Revision { installation: 1, epoch, number };
        Facts::new(revision, Directory::default())
    }

    fn at_first(facts: Facts) -> Published {
        Published::new(facts, Epochs::default())
    }

    fn grant(epoch: u32, number: u64) -> Grant {
        let revision = at(epoch, number).revision;
        Grant { revision, from: Moment::now(), lease: Duration::from_secs(60) }
    }

    #[test]
    fn nothing_counts_before_the_facts_have_come_as_far_as_the_grant() {
        let published = at_first(at(1, 5));
        assert!(!published.load().holds());
        published.grant(grant(1, 7));
        assert!(!published.load().holds());
        published.swap(at(1, 6));
        assert!(!published.load().holds());
        published.swap(at(1, 7));
        assert!(published.load().holds());
    }

    #[test]
    fn a_later_grant_does_not_replace_one_that_is_nearer() {
        let published = at_first(at(1, 5));
        published.grant(grant(1, 6));
        published.grant(grant(1, 9));
        published.swap(at(1, 6));
        assert!(published.load().holds());
    }

    #[test]
    fn a_lease_does_not_grow_shorter() {
        let published = at_first(at(1, 5));
        published.grant(grant(1, 5));
        let long = published.load().until;
        published.grant(Grant { lease: Duration::from_millis(1), ..grant(1, 5) });
        assert_eq!(published.load().until, long);
    }

    #[test]
    fn a_grant_of_another_epoch_does_not_count() {
        let published = at_first(at(2, 5));
        published.grant(grant(1, 3));
        assert!(!published.load().holds());
        published.grant(grant(2, 5));
        assert!(published.load().holds());
        published.restart(at(3, 4), Epochs::default());
        assert!(!published.load().holds(), "what was granted to other facts");
        published.grant(grant(2, 3));
        assert!(!published.load().holds());
        published.grant(grant(3, 4));
        assert!(published.load().holds());
    }

    #[test]
    fn what_halts_ends_the_lease_at_once_and_grants_on_their_way_do_not_count() {
        let published = at_first(at(1, 5));
        published.grant(grant(1, 5));
        published.grant(grant(1, 6));
        published.halt(Lapse::Unreadable, "why");
        assert!(!published.load().holds());
        published.grant(grant(1, 5));
        published.swap(at(1, 6));
        assert!(!published.load().holds());
        assert_eq!(published.load().lapse(), Lapse::Unreadable);
        published.proceed();
        published.grant(grant(1, 6));
        assert!(published.load().holds());
    }

    #[test]
    fn who_has_retired_answers_nothing_more() {
        let published = at_first(at(1, 5));
        published.grant(grant(1, 5));
        published.retire();
        published.grant(grant(1, 5));
        published.proceed();
        published.grant(grant(1, 5));
        assert!(!published.load().holds());
    }
}
