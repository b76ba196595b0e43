//! What replicas do: leases, facts, rows, and a check that is answered step by step.

use super::{Mutant, Protocol, Standby, Step};
use crate::state::{Check, Renewal, Replica, Row, State, Status, Wrong};

impl Protocol {
    /// Announce, then read, then serve.
    pub(super) fn renewal(&self, state: &State, i: usize, take: &mut impl FnMut(Step, State)) {
        let r = &state.replicas[i];
        if r.status != Status::Running {
            return;
        }
        let (announce, read, publish) = if self.is(Mutant::ReadBeforeAnnouncing) {
            (Renewal::Read, Renewal::Idle, Renewal::Announced)
        } else {
            (Renewal::Idle, Renewal::Announced, Renewal::Read)
        };
        let mut with = |step, change: &dyn Fn(&mut State, &mut Replica)| {
            take(step, changed(state, i, change));
        };
        // The old primary shows what it has, but commits nothing any more.
        if r.renewal == announce && !r.at_old {
            with(Step::Announce(i), &|s, r| self.announce(s, r));
        }
        if r.renewal == read {
            with(Step::Read(i), &|s, r| self.read(s, r));
        }
        if r.renewal == publish
            && (r.applied() >= r.target || self.is(Mutant::LeaseWithoutCatchingUp))
        {
            with(Step::Publish(i), &|_, r| {
                let left =
                    if self.is(Mutant::LeaseFromReply) { self.scope.ticks } else { r.coming };
                r.lease = r.lease.max(left);
                end_renewal(r);
            });
        }
    }

    /// Follows the changes, across a failover too.
    pub(super) fn feed(&self, state: &State, i: usize, take: &mut impl FnMut(Step, State)) {
        let r = &state.replicas[i];
        if r.status != Status::Running {
            return;
        }
        let mut with = |step, change: &dyn Fn(&mut State, &mut Replica)| {
            take(step, changed(state, i, change));
        };
        let applied = r.applied();
        let log = if r.at_old { &state.old } else { &state.log };
        let follows = (r.at_old || r.epoch == state.epoch) && applied < log.length;
        if follows {
            let writer = log.writers[applied as usize];
            with(Step::Apply(i), &|_, r| r.facts |= 1 << writer);
        }
        let early = u8::from(follows && self.is(Mutant::AckBeforeSwap));
        if r.row.present && !r.at_old && r.epoch == state.epoch {
            with(Step::Ack(i), &|_, r| {
                if (r.epoch, applied + early) > (r.row.acked_epoch, r.row.acked) {
                    (r.row.acked_epoch, r.row.acked) = (r.epoch, applied + early);
                }
            });
        }
        if state.epoch != r.epoch && !r.at_old {
            with(Step::Reload(i), &|s, r| {
                *r = Replica {
                    facts: s.log.all(),
                    epoch: s.epoch,
                    row: r.row,
                    ..Replica::default()
                };
            });
        }
        let waited = r.fence == 1 || (r.fence > 0 && self.is(Mutant::NoFenceWait));
        if state.between_timelines() && waited && !r.at_old {
            with(Step::RaiseEpoch(i), &|s, r| {
                s.epoch = 1;
                s.base = s.log.length;
                r.fence = 0;
                s.replicas.iter_mut().for_each(|other| other.fence = 0);
            });
        }
        if r.at_old {
            with(Step::Reconnect(i), &|_, r| {
                r.at_old = false;
                end_renewal(r);
            });
        }
    }

    fn announce(&self, s: &mut State, r: &mut Replica) {
        s.replicated = s.log.length;
        r.coming = self.scope.ticks;
        r.renewal = Renewal::Announced;
        if !r.row.present {
            if self.is(Mutant::ZeroRowsIgnored) {
                return;
            }
            r.row =
                Row { present: true, acked: r.applied(), acked_epoch: r.epoch, ..Row::default() };
        }
        r.row.age = 0;
        if self.loses_rows() {
            r.row.after = s.log.length;
        }
    }

    /// Whether a renewal can be lost, so that it matters what was committed before it.
    pub(super) fn loses_rows(&self) -> bool {
        self.is(Mutant::AsynchronousRenewals) || self.scope.failover == Some(Standby::Asynchronous)
    }

    fn read(&self, s: &mut State, r: &mut Replica) {
        if !r.at_old {
            if s.between_timelines() {
                if r.fence == 0 {
                    r.fence = self.scope.ticks + 1;
                }
                if !self.is(Mutant::LeaseAcrossTimelines) {
                    r.lease = 0;
                    return end_renewal(r);
                }
            }
            if s.epoch != r.epoch {
                if !self.is(Mutant::NoReload) {
                    r.lease = 0;
                    return end_renewal(r);
                }
                r.epoch = s.epoch;
            }
        }
        r.target = if r.at_old { s.old.length } else { s.log.length };
        r.renewal = Renewal::Read;
    }

    /// Beginning and ending of processes and of their rows.
    pub(super) fn life(&self, state: &State, i: usize, take: &mut impl FnMut(Step, State)) {
        let r = &state.replicas[i];
        let mut with = |step, replica: Replica| {
            let mut s = *state;
            s.replicas[i] = replica;
            if s.check.running && s.check.replica as usize == i && replica.status != r.status {
                s.check = Check::default();
            }
            take(step, s);
        };
        let ended = |status| Replica { status, row: r.row, ..Replica::default() };
        let rowless = Replica { row: Row::default(), ..*r };
        match r.status {
            Status::Running => {
                with(Step::Stop(i), ended(Status::Stopped));
                with(Step::Kill(i), ended(Status::Gone));
                if self.is(Mutant::RowDeletedBeforeStop) || self.is(Mutant::PredecessorWithoutProof)
                {
                    with(Step::DeleteRow(i), rowless);
                }
            }
            Status::Stopped => {
                with(Step::DeleteRow(i), Replica { status: Status::Gone, ..rowless });
            }
            // The successor holds the lock that its predecessor held until the end.
            Status::Gone => {
                let running = state.replicas.iter().filter(|r| r.status != Status::Gone).count();
                if running < self.scope.replicas {
                    let (facts, epoch) = (state.log.all(), state.epoch);
                    with(Step::Restart(i), Replica { facts, epoch, ..Replica::default() });
                }
            }
        }
        let early = u8::from(self.is(Mutant::ReapTooEarly));
        let other = self.is(Mutant::ReapIgnoresSequence)
            && state.writers.iter().any(|w| w.expired & 1 << i != 0);
        if r.row.present && (r.row.age + early >= self.scope.ticks || other) {
            with(Step::Reap(i), rowless);
        }
        if self.scope.check && !state.check.running && r.status == Status::Running {
            let lease = r.lease.max(u8::from(r.late));
            if lease > 0 || self.is(Mutant::LeaseReadAfterFacts) {
                let (owed, facts) = (state.acknowledged, r.facts);
                let check = Check { running: true, replica: i as u8, owed, facts, lease };
                take(Step::Ask(i), State { check, ..*state });
            }
        }
    }

    pub(super) fn answer(&self, mut s: State) -> State {
        let check = std::mem::take(&mut s.check);
        let lease = if self.is(Mutant::LeaseReadAfterFacts) {
            s.replicas[check.replica as usize].lease
        } else {
            check.lease
        };
        if lease > 0 && check.owed & !check.facts != 0 {
            s.wrong = Wrong::Stale;
        }
        s
    }
}

fn changed(state: &State, i: usize, change: &dyn Fn(&mut State, &mut Replica)) -> State {
    let mut s = *state;
    let mut replica = s.replicas[i];
    change(&mut s, &mut replica);
    s.replicas[i] = replica;
    s
}

pub(super) fn end_renewal(r: &mut Replica) {
    (r.renewal, r.coming, r.target) = (Renewal::Idle, 0, 0);
}
