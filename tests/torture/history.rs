//! What clients saw.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The state of an answer: a revision, later ones greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub epoch: u32,
    pub number: u64,
}

impl At {
    /// Reads what is opaque to callers.
    pub fn parse(revision: &str) -> Self {
        let digits = revision.strip_prefix("rev_").unwrap();
        let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(digits).unwrap().try_into().unwrap();
        let [_, _, _, _, a, b, c, d, number @ ..] = bytes;
        let epoch = u32::from_be_bytes([a, b, c, d]);
        Self { epoch, number: u64::from_be_bytes(number) }
    }
}

/// The moment in milliseconds since the run began.
pub type Millis = u32;

/// One call that asked one question, or many of one tenant.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The newest revision that anybody had seen acknowledged when it was asked.
    pub floor: At,
    /// The revision that it asked to be at least as fresh as; the lowest when it did not.
    pub wanted: At,
    pub at: At,
    pub begun: Millis,
    pub ended: Millis,
    pub client: u16,
    pub replica: u8,
    /// Which process the replica was.
    pub life: u16,
    /// The first question.
    pub question: u32,
    pub allowed: Allowed,
}

#[derive(Debug, Clone)]
pub enum Allowed {
    One(bool),
    /// So many questions, from the first on.
    Many(u32, Box<[u64]>),
}

impl Allowed {
    pub fn many(answers: impl ExactSizeIterator<Item = bool>) -> Self {
        let count = answers.len();
        let mut bits = vec![0u64; count.div_ceil(64)].into_boxed_slice();
        for (n, allowed) in answers.enumerate() {
            bits[n / 64] |= u64::from(allowed) << (n % 64);
        }
        Self::Many(u32::try_from(count).unwrap(), bits)
    }

    pub fn count(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::Many(count, _) => *count,
        }
    }

    pub fn get(&self, n: u32) -> bool {
        match self {
            Self::One(allowed) => *allowed,
            Self::Many(_, bits) => bits[n as usize / 64] >> (n % 64) & 1 == 1,
        }
    }
}

/// A change that a client wanted, from its first attempt to the end of its last.
#[derive(Debug, Clone)]
pub struct Mutation {
    pub client: u16,
    pub switch: u32,
    pub on: bool,
    pub begun: Millis,
    pub ended: Millis,
    pub attempts: u32,
    /// Where the last attempt went.
    pub replica: u8,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged(At),
    /// With a definite error.
    Refused(String),
    Unknown,
}

/// What one client or all of them did.
#[derive(Debug, Default)]
pub struct History {
    pub answers: Vec<Answer>,
    pub mutations: Vec<Mutation>,
    /// Calls that got no answer, by their status.
    pub failures: std::collections::BTreeMap<String, u64>,
}

impl History {
    pub fn absorb(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.mutations.extend(other.mutations);
        for (status, count) in other.failures {
            *self.failures.entry(status).or_default() += count;
        }
    }
}

/// What all clients know of time, and of what was acknowledged.
pub struct Known {
    begun: Instant,
    newest: Mutex<At>,
}

impl Default for Known {
    fn default() -> Self {
        Self { begun: Instant::now(), newest: Mutex::default() }
    }
}

impl Known {
    pub fn now(&self) -> Millis {
        u32::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    pub fn newest(&self) -> At {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acknowledged(&self, at: At) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = at.max(*newest);
    }
}
