//! The keys of a tenant's workspaces in one piece of memory, so that a question touches two lines of it
//! as a rule.

use std::{
    hash::BuildHasher,
    sync::{Arc, LazyLock},
};

use foldhash::fast::RandomState;

use super::{ahead::touch, packed::extend};

/// The same for all tenants: a hasher of its own would be one more line to touch.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Keys by number and numbers by key.
///
/// In words of eight bytes: places by hash, of which at least half are empty, each the number of a
/// workspace and where its key stands; for each number where its key stands, in half a word; the keys,
/// each after its length. Nothing stands at 0, which means that there is nothing.
#[derive(Debug, Clone, Default)]
pub struct Workspaces {
    words: Arc<[u64]>,
    /// How many places there are: a power of two, or none.
    places: u32,
    /// How many numbers.
    numbers: u32,
}

impl Workspaces {
    #[must_use]
    #[inline]
    pub fn find(&self, key: &str) -> Option<u32> {
        let places: &[[u32; 2]] = bytemuck::cast_slice(&self.words[..self.places as usize]);
        let mut at = place(key, self.places)?;
        loop {
            let [number, start] = places[at];
            if start == 0 {
                return None;
            }
            if self.text(start) == key.as_bytes() {
                return Some(number);
            }
            at = (at + 1) & (places.len() - 1);
        }
    }

    /// Touches what [`Workspaces::find`] reads first.
    #[inline]
    pub fn approach(&self, key: &str) {
        touch(place(key, self.places).and_then(|at| self.words.get(at).copied()));
    }

    #[must_use]
    pub fn key(&self, number: u32) -> Option<&str> {
        let words = &self.words[self.places as usize..];
        let starts: &[u32] = bytemuck::cast_slice(words);
        let start = starts[..self.numbers as usize].get(number as usize)?;
        let text = (*start > 0).then(|| self.text(*start))?;
        std::str::from_utf8(text).ok()
    }

    /// A copy in which these numbers have other keys, or none.
    #[must_use]
    pub fn with<'a>(&'a self, changes: impl IntoIterator<Item = (u32, Option<&'a str>)>) -> Self {
        let mut keys: Vec<Option<&str>> = (0..self.numbers).map(|n| self.key(n)).collect();
        for (number, key) in changes {
            let number = number as usize;
            keys.resize(keys.len().max(number + 1), None);
            keys[number] = key;
        }
        Self::of(&keys)
    }

    // Invariant: a key has at most 63 bytes, and the keys of a tenant fit into 4 GiB.
    #[expect(clippy::cast_possible_truncation, reason = "by the invariant")]
    fn of(keys: &[Option<&str>]) -> Self {
        let named = keys.iter().flatten().count();
        let count = if named == 0 { 0 } else { (2 * named).next_power_of_two() };
        let mut words = vec![0; count + keys.len().div_ceil(2)];
        let before = 8 * words.len();
        let (places, starts) = words.split_at_mut(count);
        let places: &mut [[u32; 2]] = bytemuck::cast_slice_mut(places);
        let starts: &mut [u32] = bytemuck::cast_slice_mut(starts);
        let mut texts: Vec<u8> = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            let Some(key) = key else { continue };
            let start = (before + texts.len()) as u32;
            starts[number] = start;
            texts.push(key.len() as u8);
            texts.extend_from_slice(key.as_bytes());
            let mut at = place(key, count as u32).unwrap_or_default();
            while places[at] != [0; 2] {
                at = (at + 1) & (count - 1);
            }
            places[at] = [number as u32, start];
        }
        extend(&mut words, &texts);
        Self { words: words.into(), places: count as u32, numbers: keys.len() as u32 }
    }

    #[inline]
    fn text(&self, start: u32) -> &[u8] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        let (length, rest) = bytes[start as usize..].split_first().unwrap_or((&0, &[]));
        &rest[..usize::from(*length)]
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words) + 16
    }
}

/// Where the search for a key begins; nowhere without places.
#[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
fn place(key: &str, places: u32) -> Option<usize> {
    let mask = places.checked_sub(1)?;
    Some((HASHER.hash_one(key) as u32 & mask) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_is_found_under_its_number_and_no_other(
            changes in prop::collection::vec((0u32..40, prop::option::of("[a-c]{1,3}|[a-c]{63}")), 0..120),
        ) {
            let (mut packed, mut plain) = (Workspaces::default(), BTreeMap::new());
            for (number, key) in &changes {
                if key.is_some() && plain.values().any(|other| other == key) {
                    continue;
                }
                packed = packed.with([(*number, key.as_deref())]);
                plain.insert(*number, key.clone());
            }
            for (number, key) in &plain {
                prop_assert_eq!(packed.key(*number), key.as_deref());
            }
            for key in ["a", "b", "ab", "abc", "cc", "zz", ""] {
                let number = plain.iter().find(|(_, other)| other.as_deref() == Some(key));
                prop_assert_eq!(packed.find(key), number.map(|(number, _)| *number));
            }
            prop_assert_eq!(packed.key(1000), None);
        }
    }
}
