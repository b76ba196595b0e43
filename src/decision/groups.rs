//! The groups of a tenant by number, each in one piece of memory: how many items it holds and how long
//! its key is; the items; the key; the details of the items.

use std::sync::Arc;

use imbl::Vector;
use uuid::Uuid;

use super::{
    numbers::Numbers,
    packed::{Draft, Pack, Packed, extend},
};
use crate::ids::{GroupId, Key};

#[derive(Debug, Clone, Default)]
pub struct Groups {
    numbers: Arc<Numbers>,
    /// By number; nothing for a group that was deleted, or that is only referred to.
    list: Vector<Option<Arc<[u64]>>>,
}

/// A group, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    key: &'a [u8],
    pub held: Pack<'a>,
}

impl<'a> Group<'a> {
    #[inline]
    fn read(words: &'a [u64]) -> Self {
        let (count, rest) = words.split_first().unwrap_or((&0, &[]));
        let (items, rest) = rest.split_at((count >> 8) as usize);
        let (key, details) = bytemuck::cast_slice(rest).split_at((count & 0xff) as usize);
        Self { key, held: Pack::new(items, details) }
    }

    #[must_use]
    pub fn key(self) -> &'a str {
        std::str::from_utf8(self.key).unwrap_or_default()
    }
}

// Invariant: a key has at most 63 bytes.
fn fill(key: &str, held: &Packed) -> Arc<[u64]> {
    let (items, details) = held.parts();
    let mut words = vec![(items.len() as u64) << 8 | key.len() as u64];
    words.extend(items);
    extend(&mut words, &[key.as_bytes(), details].concat());
    words.into()
}

impl Groups {
    pub fn refer(&mut self, id: GroupId) -> u32 {
        let id = id.uuid().as_u128();
        self.numbers.get(id).unwrap_or_else(|| {
            self.list.push_back(None);
            Arc::make_mut(&mut self.numbers).number(id)
        })
    }

    #[must_use]
    pub fn number(&self, id: GroupId) -> Option<u32> {
        self.numbers.get(id.uuid().as_u128())
    }

    #[must_use]
    pub fn id(&self, number: u32) -> Option<GroupId> {
        self.numbers.id(number).map(|id| Uuid::from_u128(id).into())
    }

    #[must_use]
    #[inline]
    pub fn at(&self, number: u32) -> Option<Group<'_>> {
        Some(Group::read(self.list.get(number as usize)?.as_ref()?))
    }

    pub fn all(&self) -> impl Iterator<Item = (u32, Group<'_>)> {
        (0..).zip(&self.list).filter_map(|(n, words)| Some((n, Group::read(words.as_ref()?))))
    }

    /// Puts a group, or gives it another key.
    pub fn put(&mut self, id: GroupId, key: &Key) {
        let n = self.refer(id);
        let known = self.at(n);
        if known.is_some_and(|group| group.key() == key.as_str()) {
            return;
        }
        let drafts = known.map(|group| group.held.drafts().0).unwrap_or_default();
        self.set(n, key.as_str(), drafts);
    }

    pub fn take(&mut self, id: GroupId) {
        if let Some(n) = self.number(id) {
            self.list.set(n as usize, None);
        }
    }

    /// Changes what a group holds; nothing for one that is not there.
    pub fn change(&mut self, id: GroupId, change: impl FnOnce(&mut Vec<Draft>)) {
        let Some(n) = self.number(id) else { return };
        let Some(group) = self.at(n) else { return };
        let (mut drafts, _) = group.held.drafts();
        change(&mut drafts);
        let key = group.key().to_owned();
        self.set(n, &key, drafts);
    }

    fn set(&mut self, number: u32, key: &str, drafts: Vec<Draft>) {
        let words = fill(key, &Packed::of(drafts, Vec::new()));
        self.list.set(number as usize, Some(words));
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        let held = self.list.iter().flatten().map(|words| size_of_val(&**words) + 16);
        self.numbers.bytes() + self.list.len() * 16 + held.sum::<usize>()
    }
}
