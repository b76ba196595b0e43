//! The protocol of CONSISTENCY.md as steps of the model, and what is left out of it one thing at a time.
//!
//! What only makes the protocol safer is not modelled: a lease counts from its announcement and not from
//! a moment before it, a replica's clock is as slow as allowed, every process sees every renewal at once,
//! and a writer learns at once that it need not wait any longer. A process that dies without a word is one
//! that takes no more steps.

mod database;
mod replica;
mod writer;

use crate::state::{Check, Log, Phase, REPLICAS, Row, State, Status, Wrong};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// A commit waits until the standby has it.
    Quorum,
    Asynchronous,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    pub replicas: usize,
    pub writers: usize,
    pub crashes: u8,
    pub failover: Option<Standby>,
    /// Whether one check takes its steps one by one, rather than every replica being judged at all times.
    pub check: bool,
    /// How long a lease lasts on the slowest clock, in ticks; a deadline waits as long.
    pub ticks: u8,
}

/// One thing done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    AckBeforeSwap,
    AckWithoutEpoch,
    AsynchronousRenewals,
    CachedClock,
    CommitNotAwaited,
    LeaseAcrossTimelines,
    LeaseFromReply,
    LeaseReadAfterFacts,
    LeaseWithoutCatchingUp,
    NoFenceWait,
    NoMargin,
    NoOpSkipsBarrier,
    NoOpWithoutCommit,
    NoReload,
    PredecessorWithoutProof,
    ReadBeforeAnnouncing,
    ReapIgnoresSequence,
    ReapTooEarly,
    ReplaySkipsBarrier,
    ReplayWithoutCommit,
    RowDeletedBeforeStop,
    RowsReadBeforeCommit,
    SealNotFenced,
    TokenByNumber,
    ZeroRowsIgnored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Tick,
    Announce(usize),
    Read(usize),
    Publish(usize),
    Apply(usize),
    Ack(usize),
    Stop(usize),
    DeleteRow(usize),
    Kill(usize),
    Restart(usize),
    Reap(usize),
    Reconnect(usize),
    RaiseEpoch(usize),
    Reload(usize),
    LookAtRows(usize),
    Commit(usize),
    CommitNothing(usize),
    Replay(usize),
    ReadRows(usize),
    Ask(usize),
    Answer,
    /// Who had a commit under way that was stored; whether acknowledgements were forgotten; rows lost.
    Crash(Option<usize>, bool, u8),
    /// How many revisions the standby has, who had a commit under way that it has, rows it lacks.
    Failover(u8, Option<usize>, u8),
}

pub struct Protocol {
    pub scope: Scope,
    pub mutant: Option<Mutant>,
}

impl Protocol {
    pub fn start(&self) -> State {
        let mut state = State { crashes: self.scope.crashes, ..State::default() };
        for replica in &mut state.replicas[self.scope.replicas..] {
            replica.status = Status::Gone;
        }
        for writer in &mut state.writers[self.scope.writers..] {
            writer.phase = Phase::Acknowledged;
        }
        if self.is(Mutant::ZeroRowsIgnored) {
            let row = Row { present: true, age: self.scope.ticks, ..Row::default() };
            state.replicas.iter_mut().for_each(|replica| replica.row = row);
        }
        state
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Every state that one step can lead to.
    pub fn next(&self, state: &State, next: &mut Vec<(Step, State)>) {
        let mut take = |step, mut then: State| {
            self.settle(&mut then);
            if then != *state {
                self.judge(&mut then);
                next.push((step, then));
            }
        };
        take(Step::Tick, self.tick(*state));
        for i in 0..REPLICAS {
            self.renewal(state, i, &mut take);
            self.feed(state, i, &mut take);
            self.life(state, i, &mut take);
        }
        for w in 0..state.writers.len() {
            self.write(state, w, &mut take);
        }
        if state.check.running {
            take(Step::Answer, self.answer(*state));
        }
        if state.crashes > 0 {
            self.crash(state, &mut take);
        }
        if let Some(standby) = self.scope.failover.filter(|_| !state.failed_over) {
            self.failover(state, standby, &mut take);
        }
    }

    fn tick(&self, mut s: State) -> State {
        for r in &mut s.replicas {
            r.late = self.is(Mutant::CachedClock) && r.lease == 1;
            r.lease = r.lease.saturating_sub(1);
            r.coming = r.coming.saturating_sub(1);
            r.fence -= u8::from(r.fence > 1);
            r.row.age += u8::from(r.row.present && r.row.age < self.scope.ticks);
        }
        for w in &mut s.writers {
            for i in 0..REPLICAS {
                if w.waits[i] == 1 && self.is(Mutant::ReapIgnoresSequence) {
                    w.expired |= 1 << i;
                }
                w.waits[i] = w.waits[i].saturating_sub(1);
            }
        }
        s.check.lease = s.check.lease.saturating_sub(1);
        s
    }

    /// What follows at once: writers that need not wait any more, and what nobody looks at any more.
    fn settle(&self, s: &mut State) {
        for w in 0..s.writers.len() {
            let mut writer = s.writers[w];
            let waiting = writer.phase == Phase::Waiting;
            for (i, r) in s.replicas.iter().enumerate() {
                if !r.row.present {
                    // The row of a new session is another row.
                    writer.expired &= !(1 << i);
                }
                if waiting && (!r.row.present || self.acked(&r.row, &writer)) {
                    writer.waits[i] = 0;
                }
            }
            if waiting && writer.waits == [0; REPLICAS] {
                s.acknowledged |= s.log.facts(writer.revision);
                writer.phase = Phase::Acknowledged;
            }
            s.writers[w] = writer;
        }
        if s.replicas.iter().all(|r| !r.at_old) {
            s.old = Log::default();
        }
        if s.check.lease == 0 && !self.is(Mutant::LeaseReadAfterFacts) {
            s.check = Check::default();
        }
    }

    fn judge(&self, s: &mut State) {
        if s.wrong != Wrong::Nothing {
            return;
        }
        for r in s.replicas.iter().filter(|r| r.lease > 0) {
            if s.acknowledged & !r.facts != 0 {
                s.wrong = Wrong::Stale;
            } else if s.epoch == 1 && (r.epoch == 0 || !s.log.had(r.facts)) {
                s.wrong = Wrong::OldTimeline;
            }
            let applied = r.applied();
            for w in s.writers.iter().filter(|w| w.phase == Phase::Lost && s.epoch == 1) {
                let good = w.revision <= s.base || self.is(Mutant::TokenByNumber);
                if good && applied >= w.revision {
                    s.wrong = Wrong::Unreported;
                }
            }
        }
    }
}
