//! Small numbers for ids, so that what refers to a role or a workspace takes four bytes.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Gives every id a number of its own, from 0 on. A number is never given again: what still refers to
/// something deleted must not come to mean something new.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    ids: Vec<u128>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Numbers {
    #[must_use]
    pub fn get(&self, id: u128) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.index.find(hash, |n| self.ids[*n as usize] == id).copied()
    }

    /// The number of the id; a new one when it has none yet.
    pub fn number(&mut self, id: u128) -> u32 {
        if let Some(n) = self.get(id) {
            return n;
        }
        let n = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.push(id);
        let Self { ids, index, hasher } = self;
        index.insert_unique(hasher.hash_one(id), n, |n| hasher.hash_one(ids[*n as usize]));
        n
    }

    #[must_use]
    pub fn id(&self, number: u32) -> Option<u128> {
        self.ids.get(number as usize).copied()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ids.capacity() * 16 + self.index.allocation_size()
    }
}
