//! The members of a tenant, sorted by id: a tree of fixed depth with packed leaves. A changed copy
//! shares all but one leaf and the two lists that lead to it, and a member costs what it holds and some
//! twenty-five bytes.

use std::{mem::offset_of, sync::Arc};

use super::{
    leaf::{Leaf, fill},
    packed::{Draft, Item, Pack, Packed},
    record::{MemberKind, MemberStatus},
};

/// The most members of a leaf.
const LEAF: usize = 128;
/// The most items of a leaf that has more than one member.
const ITEMS: usize = 1024;
/// The most leaves of a node.
const NODE: usize = 128;

/// What is known of a member besides what it holds, in 40 bits: kind and status, then the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(u64);

impl Head {
    pub const BITS: u32 = 40;

    #[must_use]
    pub fn new(kind: MemberKind, status: MemberStatus, epoch: i32) -> Self {
        let kind = match kind {
            MemberKind::Internal => 0,
            MemberKind::External => 1,
            MemberKind::Service => 2,
        };
        let status = match status {
            MemberStatus::Active => 0,
            MemberStatus::Suspended => 1,
            MemberStatus::Removed => 2,
        };
        Self((kind << 4 | status) << 32 | u64::from(epoch.cast_unsigned()))
    }

    #[must_use]
    pub const fn of_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub fn kind(self) -> MemberKind {
        match self.0 >> 36 & 0xf {
            0 => MemberKind::Internal,
            1 => MemberKind::External,
            _ => MemberKind::Service,
        }
    }

    #[must_use]
    pub fn status(self) -> MemberStatus {
        match self.0 >> 32 & 0xf {
            0 => MemberStatus::Active,
            1 => MemberStatus::Suspended,
            _ => MemberStatus::Removed,
        }
    }

    /// Sessions made under an earlier epoch are over.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub fn epoch(self) -> i32 {
        (self.0 as u32).cast_signed()
    }
}

#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Members {
    root: Root,
    len: usize,
    bytes: usize,
}

#[derive(Debug, Clone)]
enum Root {
    /// As most tenants have it: no more than one leaf holds, nothing on the way to it.
    Few(Option<Words>),
    Many(Vec<Node>),
}

impl Default for Root {
    fn default() -> Self {
        Self::Few(None)
    }
}

/// Ids from `first` on; those of the first node may be lower.
#[derive(Debug, Clone)]
struct Node {
    first: u128,
    leaves: Arc<[Entry]>,
}

type Entry = (u128, Words);
/// What a [`Leaf`] is read from.
type Words = Arc<[u64]>;

/// One member, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub id: u128,
    pub head: Head,
    pub held: Pack<'a>,
}

/// A member apart from where it is kept, to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDraft {
    pub head: Head,
    pub grants: Vec<Draft>,
    pub groups: Vec<u32>,
}

impl Members {
    /// Where a search has seen all that it needs to go on.
    pub const ROOT: usize = offset_of!(Self, root) + size_of::<Root>();

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Builds the tree at once from members sorted by id.
    #[must_use]
    pub fn build<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Self {
        let mut leaves = Vec::new();
        let mut pending: Vec<Member<'_>> = Vec::with_capacity(LEAF);
        let mut items = 0;
        for member in members {
            let full = pending.len() == LEAF || items + member.held.len() > ITEMS;
            if full && !pending.is_empty() {
                leaves.push((pending[0].id, fill(&pending, true)));
                pending.clear();
                items = 0;
            }
            items += member.held.len();
            pending.push(member);
        }
        if !pending.is_empty() {
            let outlined = !leaves.is_empty();
            leaves.push((pending[0].id, fill(&pending, outlined)));
        }
        let len = leaves.iter().map(|(_, words)| Leaf::read(words).len()).sum();
        let bytes = leaves.iter().map(|(_, words)| bytes(words)).sum();
        Self { root: Root::of(leaves), len, bytes }
    }

    #[must_use]
    #[inline]
    pub fn get(&self, id: u128) -> Option<Member<'_>> {
        Leaf::read(self.leaf_of(id)?).get(id)
    }

    /// Touches what [`Members::get`] reads first of the leaf.
    #[inline]
    pub fn approach(&self, id: u128) {
        if let Some(words) = self.leaf_of(id) {
            Leaf::approach(words);
        }
    }

    #[inline]
    fn leaf_of(&self, id: u128) -> Option<&Words> {
        match &self.root {
            Root::Few(words) => words.as_ref(),
            Root::Many(nodes) => {
                let (node, leaf) = place(nodes, id);
                Some(&nodes[node].leaves[leaf].1)
            }
        }
    }

    /// All members after an id, in order.
    pub fn after(&self, id: Option<u128>) -> impl Iterator<Item = Member<'_>> {
        self.leaves_after(id).flat_map(move |leaf| leaf.members_after(id))
    }

    /// Members after an id who hold one of these items, or groups among them, in order. `wanted` is
    /// sorted.
    pub fn search<'a>(
        &'a self,
        id: Option<u128>,
        wanted: &'a [Item],
    ) -> impl Iterator<Item = Member<'a>> {
        self.leaves_after(id)
            .filter(|leaf| leaf.may_hold(wanted))
            .flat_map(move |leaf| leaf.members_after(id))
            .filter(|member| {
                let mut outlines = member.held.items().map(|item| member.held.outline(item));
                outlines.any(|item| wanted.binary_search(&item).is_ok())
            })
    }

    fn leaves_after(&self, id: Option<u128>) -> impl Iterator<Item = Leaf<'_>> {
        let (few, nodes) = match &self.root {
            Root::Few(leaf) => (leaf.as_ref(), &[][..]),
            Root::Many(nodes) => (None, nodes.as_slice()),
        };
        let (node, leaf) = id.map(|id| place(nodes, id)).unwrap_or_default();
        let first = nodes.get(node).into_iter().flat_map(move |node| &node.leaves[leaf..]);
        let rest = nodes.iter().skip(node + 1).flat_map(|node| node.leaves.iter());
        few.into_iter()
            .chain(first.chain(rest).map(|(_, words)| words))
            .map(|words| Leaf::read(words))
    }

    /// Replaces one member by what `change` makes of it: nothing stands for not being there.
    pub fn change(
        &mut self,
        id: u128,
        change: impl FnOnce(Option<MemberDraft>) -> Option<MemberDraft>,
    ) {
        let old = match &self.root {
            Root::Few(words) => words.clone(),
            Root::Many(nodes) => {
                let (node, leaf) = place(nodes, id);
                Some(nodes[node].leaves[leaf].1.clone())
            }
        };
        let found = old.as_ref().and_then(|words| Leaf::read(words).get(id));
        let changed = change(found.as_ref().map(Member::draft));
        if changed.is_none() && found.is_none() {
            return;
        }
        self.len = self.len + usize::from(changed.is_some()) - usize::from(found.is_some());
        let packed = changed.map(|draft| (draft.head, Packed::of(draft.grants, draft.groups)));
        let new =
            packed.as_ref().map(|(head, packed)| Member { id, head: *head, held: packed.view() });
        let mut members: Vec<Member<'_>> = Vec::with_capacity(LEAF + 1);
        if let Some(words) = &old {
            let leaf = Leaf::read(words);
            members.extend(leaf.members_after(None).filter(|member| member.id != id));
            self.bytes -= bytes(words);
        }
        let at = members.partition_point(|member| member.id < id);
        members.splice(at..at, new);
        let parts = parts(&members, at);
        let outlined = parts.len() > 1 || matches!(self.root, Root::Many(_));
        let leaf = |part: &&[Member<'_>]| (part[0].id, fill(part, outlined));
        let fresh: Vec<Entry> = parts.iter().map(leaf).collect();
        self.bytes += fresh.iter().map(|(_, words)| bytes(words)).sum::<usize>();
        self.root.replace(id, fresh);
    }
}

impl Root {
    fn of(leaves: Vec<Entry>) -> Self {
        if leaves.len() > 1 {
            Self::Many(leaves.chunks(NODE).map(Node::of).collect())
        } else {
            Self::Few(leaves.into_iter().next().map(|(_, leaf)| leaf))
        }
    }

    /// Puts other leaves where the leaf of an id was.
    fn replace(&mut self, id: u128, fresh: Vec<Entry>) {
        let Self::Many(nodes) = self else {
            *self = Self::of(fresh);
            return;
        };
        let (node, leaf) = place(nodes, id);
        let mut leaves = nodes[node].leaves.to_vec();
        leaves.splice(leaf..=leaf, fresh);
        let half = if leaves.len() > NODE { leaves.len().div_ceil(2) } else { NODE };
        nodes.splice(node..=node, leaves.chunks(half).map(Node::of));
        if nodes.is_empty() {
            *self = Self::Few(None);
        }
    }
}

impl Node {
    fn of(leaves: &[Entry]) -> Self {
        Self { first: leaves[0].0, leaves: leaves.into() }
    }
}

/// With what counts its owners.
fn bytes(words: &Words) -> usize {
    size_of_val(&**words) + 16
}

/// Node and leaf where the id is, or would be.
fn place(nodes: &[Node], id: u128) -> (usize, usize) {
    let node = nodes.partition_point(|node| node.first <= id).saturating_sub(1);
    let leaves = nodes.get(node).map_or(&[][..], |node| &node.leaves);
    (node, leaves.partition_point(|(first, _)| *first <= id).saturating_sub(1))
}

/// One leaf's worth of members, or two, or none. Ids grow with time: a leaf that overflows at its end
/// stays full, and only what was put between others splits it in the middle.
fn parts<'m, 'a>(members: &'m [Member<'a>], changed: usize) -> Vec<&'m [Member<'a>]> {
    let items: usize = members.iter().map(|member| member.held.len()).sum();
    let count = members.len();
    let too_full = count > LEAF || items > ITEMS;
    match count {
        0 => Vec::new(),
        1 => vec![members],
        _ if too_full => {
            let at = if changed + 1 == count { changed } else { count / 2 };
            let (low, high) = members.split_at(at);
            vec![low, high]
        }
        _ => vec![members],
    }
}

impl Member<'_> {
    #[must_use]
    pub fn draft(&self) -> MemberDraft {
        let (grants, groups) = self.held.drafts();
        MemberDraft { head: self.head, grants, groups }
    }
}
