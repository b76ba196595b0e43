//! What a change does, and one that finds nothing to change, and one that is asked for again.

use super::{Mutant, Protocol, Step};
use crate::state::{Phase, REPLICAS, Row, State, Writer, Wrong};

impl Protocol {
    pub(super) fn write(&self, state: &State, w: usize, take: &mut impl FnMut(Step, State)) {
        let writer = &state.writers[w];
        let open = !state.between_timelines();
        let mut with = |step, change: &dyn Fn(&mut State, &mut Writer)| {
            let mut s = *state;
            let mut writer = s.writers[w];
            change(&mut s, &mut writer);
            s.writers[w] = writer;
            take(step, s);
        };
        match writer.phase {
            Phase::Idle | Phase::Looked => {
                if open || self.is(Mutant::SealNotFenced) {
                    with(Step::Commit(w), &|s, writer| self.commit(s, writer, w));
                }
                if self.is(Mutant::RowsReadBeforeCommit) && writer.phase == Phase::Idle {
                    with(Step::LookAtRows(w), &|s, writer| {
                        let coming = Writer { revision: s.log.length + 1, ..*writer };
                        *writer = Writer { waits: self.waits(s, &coming), ..*writer };
                        writer.phase = Phase::Looked;
                    });
                }
                if open && state.log.length > 0 && writer.phase == Phase::Idle {
                    with(Step::CommitNothing(w), &|s, writer| {
                        if self.is(Mutant::NoOpSkipsBarrier) {
                            s.acknowledged |= s.log.all();
                        }
                        if !self.is(Mutant::NoOpWithoutCommit) {
                            s.replicated = s.log.length;
                        }
                        let (revision, epoch) = (s.log.length, s.epoch);
                        *writer = Writer { phase: Phase::Committed, revision, epoch, ..*writer };
                    });
                }
                let old = state.replicas.iter().any(|r| r.at_old);
                if old && self.is(Mutant::NoOpWithoutCommit) {
                    with(Step::CommitNothing(w), &|s, _| {
                        if s.acknowledged & !s.old.all() != 0 {
                            s.wrong = Wrong::Untrue;
                        }
                    });
                }
            }
            Phase::Committed => with(Step::ReadRows(w), &|s, writer| {
                writer.phase = Phase::Waiting;
                writer.waits = self.waits(s, writer);
            }),
            Phase::Unknown if open => with(Step::Replay(w), &|s, writer| {
                if self.is(Mutant::ReplaySkipsBarrier) {
                    s.acknowledged |= s.log.facts(writer.revision);
                }
                if !self.is(Mutant::ReplayWithoutCommit) {
                    s.replicated = s.log.length;
                }
                *writer = Writer { phase: Phase::Committed, epoch: s.epoch, ..*writer };
            }),
            Phase::Unknown | Phase::Waiting | Phase::Acknowledged | Phase::Lost => {}
        }
    }

    fn commit(&self, s: &mut State, writer: &mut Writer, w: usize) {
        s.log.push(w);
        if !self.is(Mutant::CommitNotAwaited) {
            s.replicated = s.log.length;
        }
        let looked = writer.phase == Phase::Looked;
        writer.phase = if looked { Phase::Waiting } else { Phase::Committed };
        (writer.revision, writer.epoch) = (s.log.length, s.epoch);
    }

    /// How long the writer may have to wait for each replica.
    fn waits(&self, s: &State, writer: &Writer) -> [u8; REPLICAS] {
        let margin = u8::from(self.is(Mutant::NoMargin));
        s.replicas.map(|r| {
            let waiting = r.row.present && !self.acked(&r.row, writer);
            if waiting { (self.scope.ticks - margin).saturating_sub(r.row.age) } else { 0 }
        })
    }

    pub(super) fn acked(&self, row: &Row, writer: &Writer) -> bool {
        if self.is(Mutant::AckWithoutEpoch) {
            return row.acked >= writer.revision;
        }
        (row.acked_epoch, row.acked) >= (writer.epoch, writer.revision)
    }
}
