//! What the model remembers: a database that may have a standby, replicas, writers and one check. All
//! times are what is left of a duration, so that the states are finitely many.

/// The most replicas and writers of a scope.
pub const REPLICAS: usize = 2;
pub const WRITERS: usize = 2;

/// How far a replica's renewal of its lease has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renewal {
    #[default]
    Idle,
    Announced,
    /// The newest revision has been read; the lease begins once it is applied.
    Read,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Running,
    /// Answers nothing any more, but its row is still there.
    Stopped,
    /// Its process has ended.
    Gone,
}

/// A replica's row in the table of leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub present: bool,
    /// Ticks since the renewal that it shows. Every process is taken to have seen that at once: the
    /// earliest deadline is the most dangerous one.
    pub age: u8,
    pub acked: u8,
    pub acked_epoch: u8,
    /// Revisions committed before the renewal. Kept only where a renewal can be lost.
    pub after: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    pub status: Status,
    pub renewal: Renewal,
    /// What the lease under way will have left.
    pub coming: u8,
    /// The revision that the renewal has read.
    pub target: u8,
    /// A bit per writer whose change it has applied.
    pub facts: u8,
    pub epoch: u8,
    /// What its lease has left, as its own slow clock measures it.
    pub lease: u8,
    /// Its lease ended with the last tick. Kept only where that matters.
    pub late: bool,
    /// One more than what it still waits since it first saw the new timeline; 0 before that.
    pub fence: u8,
    /// Its connections still lead to the old primary.
    pub at_old: bool,
    pub row: Row,
}

impl Replica {
    /// The revision that its facts are at.
    pub fn applied(&self) -> u8 {
        self.facts.count_ones() as u8
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Idle,
    /// Lease rows were read before the commit, which only a mutant does.
    Looked,
    /// Committed, or committed earlier and found again; the lease rows are not read yet.
    Committed,
    Waiting,
    /// The outcome did not arrive: the client will ask again with the same request id.
    Unknown,
    Acknowledged,
    /// Acknowledged, and lost in an asynchronous failover.
    Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    pub phase: Phase,
    pub revision: u8,
    pub epoch: u8,
    /// What is left to wait for each replica; 0 when there is nothing to wait for.
    pub waits: [u8; REPLICAS],
    /// A bit per replica whose deadline passed. Kept only where that matters.
    pub expired: u8,
}

/// The changes in the order of their revisions; who wrote each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub length: u8,
    pub writers: [u8; WRITERS],
}

impl Log {
    pub fn push(&mut self, writer: usize) {
        self.writers[self.length as usize] = writer as u8;
        self.length += 1;
    }

    pub fn truncate(&mut self, length: u8) {
        self.length = length;
        for writer in &mut self.writers[length as usize..] {
            *writer = 0;
        }
    }

    /// A bit per writer among the first revisions.
    pub fn facts(&self, revision: u8) -> u8 {
        let revision = revision.min(self.length) as usize;
        self.writers[..revision].iter().fold(0, |facts, writer| facts | 1 << writer)
    }

    pub fn all(&self) -> u8 {
        self.facts(self.length)
    }

    /// Whether these are the facts at some revision of this log.
    pub fn had(&self, facts: u8) -> bool {
        self.facts(facts.count_ones() as u8) == facts
    }
}

/// One check that takes its steps one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub running: bool,
    pub replica: u8,
    /// What was acknowledged when it was asked.
    pub owed: u8,
    pub facts: u8,
    pub lease: u8,
}

/// What must never happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wrong {
    #[default]
    Nothing,
    /// An answer without a change that was acknowledged before the question.
    Stale,
    /// A change that the quorum promised to keep is gone.
    Lost,
    /// A replica answers by a timeline that has ended.
    OldTimeline,
    /// "Nothing to change", said of a state that an acknowledged change had already replaced.
    Untrue,
    /// A revision that was lost is taken for one that is there.
    Unreported,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub replicas: [Replica; REPLICAS],
    pub writers: [Writer; WRITERS],
    pub log: Log,
    /// Revisions that the standby is sure to have.
    pub replicated: u8,
    /// A bit per change that was acknowledged, itself or by an answer that rests on it.
    pub acknowledged: u8,
    pub epoch: u8,
    /// The revisions of the old epoch that are still good.
    pub base: u8,
    pub failed_over: bool,
    /// What the old primary still shows to those who ask it.
    pub old: Log,
    pub crashes: u8,
    pub check: Check,
    pub wrong: Wrong,
}

impl State {
    /// Whether the clock row still names the timeline before the failover.
    pub fn between_timelines(&self) -> bool {
        self.failed_over && self.epoch == 0
    }
}

macro_rules! variants {
    ($($name:ident [$($variant:ident),+];)*) => {$(
        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
    )*};
}

variants! {
    Renewal [Idle, Announced, Read];
    Status [Running, Stopped, Gone];
    Phase [Idle, Looked, Committed, Waiting, Unknown, Acknowledged, Lost];
    Wrong [Nothing, Stale, Lost, OldTimeline, Untrue, Unreported];
}

/// A state in 128 bits: what is remembered of each is the state itself and not a hash of it.
struct Packer {
    bits: u128,
    at: u32,
    reading: bool,
}

impl Packer {
    fn field(&mut self, value: &mut u8, width: u32) {
        if self.reading {
            *value = (self.bits >> self.at) as u8 & ((1 << width) - 1);
        } else {
            debug_assert!(*value < 1 << width, "{value} in {width} bits");
            self.bits |= u128::from(*value) << self.at;
        }
        self.at += width;
    }

    fn flag(&mut self, value: &mut bool) {
        let mut bit = u8::from(*value);
        self.field(&mut bit, 1);
        *value = bit == 1;
    }

    fn variant<T: Copy + PartialEq>(&mut self, value: &mut T, all: &[T], width: u32) {
        let mut index = all.iter().position(|one| one == value).unwrap() as u8;
        self.field(&mut index, width);
        *value = all[index as usize];
    }

    fn replica(&mut self, r: &mut Replica) {
        self.variant(&mut r.status, Status::ALL, 2);
        self.variant(&mut r.renewal, Renewal::ALL, 2);
        self.field(&mut r.coming, 2);
        self.field(&mut r.target, 2);
        self.field(&mut r.facts, 2);
        self.field(&mut r.epoch, 1);
        self.field(&mut r.lease, 2);
        self.flag(&mut r.late);
        self.field(&mut r.fence, 3);
        self.flag(&mut r.at_old);
        self.flag(&mut r.row.present);
        self.field(&mut r.row.age, 2);
        self.field(&mut r.row.acked, 2);
        self.field(&mut r.row.acked_epoch, 1);
        self.field(&mut r.row.after, 2);
    }

    fn writer(&mut self, w: &mut Writer) {
        self.variant(&mut w.phase, Phase::ALL, 3);
        self.field(&mut w.revision, 2);
        self.field(&mut w.epoch, 1);
        for wait in &mut w.waits {
            self.field(wait, 2);
        }
        self.field(&mut w.expired, 2);
    }

    fn log(&mut self, log: &mut Log) {
        self.field(&mut log.length, 2);
        for writer in &mut log.writers {
            self.field(writer, 1);
        }
    }

    fn state(&mut self, s: &mut State) {
        for replica in &mut s.replicas {
            self.replica(replica);
        }
        for writer in &mut s.writers {
            self.writer(writer);
        }
        self.log(&mut s.log);
        self.log(&mut s.old);
        self.field(&mut s.replicated, 2);
        self.field(&mut s.acknowledged, 2);
        self.field(&mut s.epoch, 1);
        self.field(&mut s.base, 2);
        self.flag(&mut s.failed_over);
        self.field(&mut s.crashes, 1);
        self.flag(&mut s.check.running);
        self.field(&mut s.check.replica, 1);
        self.field(&mut s.check.owed, 2);
        self.field(&mut s.check.facts, 2);
        self.field(&mut s.check.lease, 2);
        self.variant(&mut s.wrong, Wrong::ALL, 3);
    }
}

impl State {
    pub fn pack(mut self) -> u128 {
        let mut packer = Packer { bits: 0, at: 0, reading: false };
        packer.state(&mut self);
        assert!(packer.at <= u128::BITS);
        packer.bits
    }

    pub fn unpack(bits: u128) -> Self {
        let mut state = Self::default();
        Packer { bits, at: 0, reading: true }.state(&mut state);
        state
    }

    /// The same state with replicas and writers in one order: who is which does not matter.
    pub fn sorted(mut self) -> Self {
        let rank = |w: &Writer| (w.phase as u8, w.revision, w.epoch, w.expired);
        if rank(&self.writers[1]) < rank(&self.writers[0]) {
            self.swap_writers();
        }
        let rank = |r: &Replica| {
            let mut packer = Packer { bits: 0, at: 0, reading: false };
            packer.replica(&mut { *r });
            packer.bits
        };
        if rank(&self.replicas[1]) < rank(&self.replicas[0]) {
            self.swap_replicas();
        }
        self
    }

    fn swap_writers(&mut self) {
        self.writers.swap(0, 1);
        for log in [&mut self.log, &mut self.old] {
            for writer in &mut log.writers[..log.length as usize] {
                *writer = 1 - *writer;
            }
        }
        let mut sets = vec![&mut self.acknowledged, &mut self.check.owed, &mut self.check.facts];
        sets.extend(self.replicas.iter_mut().map(|replica| &mut replica.facts));
        for set in sets {
            *set = swap_bits(*set);
        }
    }

    fn swap_replicas(&mut self) {
        self.replicas.swap(0, 1);
        for writer in &mut self.writers {
            writer.waits.swap(0, 1);
            writer.expired = swap_bits(writer.expired);
        }
        if self.check.running {
            self.check.replica = 1 - self.check.replica;
        }
    }
}

fn swap_bits(set: u8) -> u8 {
    (set & 1) << 1 | set >> 1
}
