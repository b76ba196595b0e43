//! Some members of a tenant in one piece of memory, so that a question touches as few lines and pages of
//! it as it can.
//!
//! In words of eight bytes: the counts; a byte of each id, by which one is found without touching the
//! others; three words for each member; all items; the filter; the details of the items.

use std::{ops::Range, sync::Arc};

use super::{
    ahead::touch,
    members::{Head, Member},
    packed::{Item, Pack, Packed, extend},
};

/// A member's id in two words, and what else is known of it.
const SLOT: usize = 3;
/// Words before the first byte of an id.
const COUNTS: usize = 1;
/// Items for which the filter has a word.
const FILTERED: usize = 4;

/// A leaf, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    tags: &'a [u8],
    slots: &'a [[u64; SLOT]],
    items: &'a [u64],
    /// Tells a search by what is held whether to look in here; the only leaf of a tree has none.
    filter: &'a [u64],
    details: &'a [u8],
}

/// Writes a leaf of members in the order of their ids.
pub fn fill(members: &[Member<'_>], filtered: bool) -> Arc<[u64]> {
    let mut packed = Packed::default();
    let slots: Vec<[u64; SLOT]> = members
        .iter()
        .map(|member| {
            packed.copy(member.held);
            let (end, _) = packed.parts();
            [high(member.id), low(member.id), meta(member.head, end.len())]
        })
        .collect();
    let filter = if filtered { filter(packed.view()) } else { Vec::new() };
    let (items, details) = packed.parts();
    let tags = members.iter().map(|member| tag(member.id)).collect::<Vec<u8>>();
    let mut words = Vec::with_capacity(
        COUNTS
            + tags.len().div_ceil(8)
            + SLOT * slots.len()
            + items.len()
            + filter.len()
            + details.len().div_ceil(8),
    );
    words.push(counts(members.len(), items.len(), filter.len()));
    extend(&mut words, &tags);
    words.extend(slots.as_flattened());
    words.extend(items);
    words.extend(&filter);
    extend(&mut words, details);
    words.into()
}

impl<'a> Leaf<'a> {
    #[must_use]
    #[inline]
    pub fn read(words: &'a [u64]) -> Self {
        let [members, items, filter] = counted(words[0]);
        let mut at = COUNTS;
        let mut next = |count: usize| -> Range<usize> {
            at += count;
            at - count..at
        };
        let tags = &bytemuck::cast_slice(&words[next(members.div_ceil(8))])[..members];
        let (slots, _) = words[next(SLOT * members)].as_chunks();
        let (items, filter) = (&words[next(items)], &words[next(filter)]);
        let details = bytemuck::cast_slice(&words[at..]);
        Self { tags, slots, items, filter, details }
    }

    /// Touches the counts and the bytes of ids.
    #[inline]
    pub fn approach(words: &[u64]) {
        const LINE: usize = 8;
        touch((words.first().copied(), words.get(LINE).copied(), words.get(2 * LINE).copied()));
    }

    #[must_use]
    pub fn len(self) -> usize {
        self.slots.len()
    }

    #[must_use]
    #[inline]
    pub fn get(self, id: u128) -> Option<Member<'a>> {
        let mut found = memchr::memchr_iter(tag(id), self.tags);
        found.find(|n| self.id(*n) == id).map(|n| self.member(n))
    }

    #[inline]
    fn id(self, n: usize) -> u128 {
        let [high, low, _] = self.slots[n];
        u128::from(high) << 64 | u128::from(low)
    }

    #[inline]
    fn member(self, n: usize) -> Member<'a> {
        let start = n.checked_sub(1).map_or(0, |before| end(self.slots[before][2]));
        let [.., meta] = self.slots[n];
        let held = Pack::new(&self.items[start..end(meta)], self.details);
        Member { id: self.id(n), head: Head::of_bits(meta), held }
    }

    pub fn members_after(self, id: Option<u128>) -> impl Iterator<Item = Member<'a>> {
        let after = |[high, low, _]: &[u64; SLOT]| {
            id.is_some_and(|id| u128::from(*high) << 64 | u128::from(*low) <= id)
        };
        (self.slots.partition_point(after)..self.len()).map(move |n| self.member(n))
    }

    /// Whether somebody here may hold one of these; yes for all that somebody does.
    #[must_use]
    pub fn may_hold(self, wanted: &[Item]) -> bool {
        let has = |item: &Item| {
            let (word, bits) = place(*item, self.filter.len());
            self.filter[word] & bits == bits
        };
        self.filter.is_empty() || wanted.iter().any(has)
    }
}

/// A Bloom filter in which all bits of an item lie in one word.
fn filter(held: Pack<'_>) -> Vec<u64> {
    let mut outlines: Vec<Item> = held.items().map(|item| held.outline(item)).collect();
    outlines.sort_unstable();
    outlines.dedup();
    let mut filter = vec![0; outlines.len().div_ceil(FILTERED)];
    for item in outlines {
        let (word, bits) = place(item, filter.len());
        filter[word] |= bits;
    }
    filter
}

/// The word of an item, and its bits there.
fn place(item: Item, words: usize) -> (usize, u64) {
    // SplitMix64: items differ in few bits, and every bit of the hash must depend on all of them.
    let mut hash = item.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let word = ((hash >> 32) * words as u64) >> 32;
    let bits = (0..4).fold(0, |bits, n| bits | 1 << ((hash >> (6 * n)) & 63));
    (word as usize, bits)
}

// Invariant: a leaf has at most 128 members, and its items are numbered in 24 bits, which is more than
// anybody holds.
fn counts(members: usize, items: usize, filter: usize) -> u64 {
    members as u64 | (items as u64) << 8 | (filter as u64) << 32
}

#[expect(clippy::cast_possible_truncation, reason = "as it was written")]
fn counted(word: u64) -> [usize; 3] {
    [word & 0xff, word >> 8 & 0xff_ffff, word >> 32].map(|count| count as usize)
}

/// The end of a member's items in the upper 24 bits, then its head.
fn meta(head: Head, end: usize) -> u64 {
    (end as u64) << Head::BITS | head.bits()
}

fn end(meta: u64) -> usize {
    (meta >> Head::BITS) as usize
}

fn high(id: u128) -> u64 {
    (id >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn low(id: u128) -> u64 {
    id as u64
}

/// The last byte, which is random.
#[expect(clippy::cast_possible_truncation, reason = "the last byte is wanted")]
fn tag(id: u128) -> u8 {
    id as u8
}
