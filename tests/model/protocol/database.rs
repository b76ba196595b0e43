//! What befalls PostgreSQL.

use super::{Mutant, Protocol, Standby, Step, replica::end_renewal};
use crate::state::{Phase, REPLICAS, Row, State, Status, Writer, Wrong};

impl Protocol {
    /// PostgreSQL stops and comes back with what was stored, whether or not a standby has it.
    pub(super) fn crash(&self, state: &State, take: &mut impl FnMut(Step, State)) {
        for under_way in self.under_way(state) {
            for forgotten in [false, true] {
                for lost in 0..1 << REPLICAS {
                    let mut s = *state;
                    let lost = lost & self.losable(&s, s.log.length);
                    s.crashes -= 1;
                    s.replicas.iter_mut().filter(|r| !r.at_old).for_each(end_renewal);
                    if forgotten {
                        s.replicas.iter_mut().for_each(|r| {
                            (r.row.acked, r.row.acked_epoch) = (0, 0);
                        });
                    }
                    if self.is(Mutant::AsynchronousRenewals) {
                        lose_rows(&mut s, lost);
                    } else if lost > 0 {
                        continue;
                    }
                    store(&mut s, under_way);
                    take(Step::Crash(under_way, forgotten, lost), s);
                }
            }
        }
    }

    /// Nobody, or one of the writers that may have a commit under way.
    fn under_way(&self, state: &State) -> impl Iterator<Item = Option<usize>> {
        let open = !state.between_timelines();
        let writers = state.writers;
        let idle = move |w: &usize| writers[*w].phase == Phase::Idle && open;
        std::iter::once(None).chain((0..writers.len()).filter(idle).map(Some))
    }

    /// Rows with nothing committed after them among the revisions that are kept.
    fn losable(&self, s: &State, kept: u8) -> u8 {
        let rows = s.replicas.iter().enumerate();
        let lost = rows.filter(|(_, r)| r.row.present && r.row.after >= kept);
        lost.fold(0, |set, (i, _)| set | 1 << i)
    }

    pub(super) fn failover(
        &self,
        state: &State,
        standby: Standby,
        take: &mut impl FnMut(Step, State),
    ) {
        let least = if standby == Standby::Quorum { state.replicated } else { 0 };
        for kept in least..=state.log.length {
            for under_way in self.under_way(state) {
                if under_way.is_some() && kept < state.log.length {
                    continue;
                }
                let losable = match standby {
                    Standby::Quorum => 0,
                    Standby::Asynchronous => self.losable(state, kept),
                };
                for lost in (0..1 << REPLICAS).filter(|lost| lost & !losable == 0) {
                    let mut s = *state;
                    self.promote(&mut s, standby, kept);
                    lose_rows(&mut s, lost);
                    store(&mut s, under_way);
                    take(Step::Failover(kept, under_way, lost), s);
                }
            }
        }
    }

    fn promote(&self, s: &mut State, standby: Standby, kept: u8) {
        s.failed_over = true;
        let quorum = standby == Standby::Quorum;
        if quorum {
            s.old = s.log;
        }
        s.log.truncate(kept);
        s.replicated = kept;
        for r in s.replicas.iter_mut().filter(|r| r.status == Status::Running) {
            // An asynchronous failover is only made once the old primary is known to be dead.
            r.at_old = quorum;
            if !quorum {
                end_renewal(r);
            }
        }
        if s.acknowledged & !s.log.all() != 0 {
            if quorum {
                s.wrong = Wrong::Lost;
            }
            s.acknowledged &= s.log.all();
            s.check.owed &= s.log.all();
        }
        for w in &mut s.writers {
            let gone = w.revision > kept;
            w.phase = match w.phase {
                Phase::Acknowledged if gone => Phase::Lost,
                Phase::Committed | Phase::Waiting | Phase::Unknown if gone => Phase::Idle,
                Phase::Committed | Phase::Waiting if !quorum => Phase::Unknown,
                same => same,
            };
            if w.phase == Phase::Idle {
                *w = Writer::default();
            }
            if matches!(w.phase, Phase::Unknown | Phase::Lost) {
                w.waits = [0; REPLICAS];
            }
        }
    }
}

fn lose_rows(s: &mut State, lost: u8) {
    for (i, r) in s.replicas.iter_mut().enumerate() {
        if lost & 1 << i != 0 {
            r.row = Row::default();
        }
    }
}

/// Stores a change whose writer never hears of it.
fn store(s: &mut State, under_way: Option<usize>) {
    if let Some(w) = under_way {
        s.log.push(w);
        let (revision, epoch) = (s.log.length, s.epoch);
        s.writers[w] = Writer { phase: Phase::Unknown, revision, epoch, ..Writer::default() };
    }
}
