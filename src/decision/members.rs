//! The members of a tenant, sorted by id: a tree of fixed depth with packed leaves. A changed copy
//! shares all but one leaf and the two lists that lead to it, and a member costs what it holds and some
//! thirty bytes.

use std::sync::Arc;

use super::{
    packed::{Draft, Item, Packed},
    record::{MemberKind, MemberStatus},
};

/// The most members of a leaf.
const LEAF: usize = 128;
/// The most items of a leaf that has more than one member.
const ITEMS: usize = 1024;
/// The most leaves of a node.
const NODE: usize = 128;

/// What is known of a member besides what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub kind: MemberKind,
    pub status: MemberStatus,
    /// Sessions made under an earlier epoch are over.
    pub epoch: i32,
}

#[derive(Debug, Clone, Default)]
pub struct Members {
    nodes: Vec<Node>,
    len: usize,
    bytes: usize,
}

/// Ids from `first` on; those of the first node may be lower.
#[derive(Debug, Clone)]
struct Node {
    first: u128,
    leaves: Arc<Vec<(u128, Arc<Leaf>)>>,
}

#[derive(Debug, Default)]
struct Leaf {
    ids: Vec<u128>,
    /// The last byte of each id, which is random: finds one without touching the others.
    tags: Vec<u8>,
    heads: Vec<Head>,
    /// Where the items of each end.
    ends: Vec<u32>,
    packed: Packed,
    /// Everything that somebody here holds, each once, sorted: tells a search by what is held whether
    /// to look in here.
    outline: Vec<Item>,
}

/// One member, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub id: u128,
    pub head: Head,
    pub packed: &'a Packed,
    pub items: &'a [Item],
}

/// A member apart from where it is kept, to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDraft {
    pub head: Head,
    pub grants: Vec<Draft>,
    pub groups: Vec<u32>,
}

#[expect(clippy::cast_possible_truncation, reason = "the last byte is wanted")]
const fn tag(id: u128) -> u8 {
    id as u8
}

impl Leaf {
    fn find(&self, id: u128) -> Option<usize> {
        let tag = tag(id);
        memchr::memchr_iter(tag, &self.tags).find(|n| self.ids[*n] == id)
    }

    fn member(&self, n: usize) -> Member<'_> {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let items = &self.packed.items()[start..self.ends[n] as usize];
        Member { id: self.ids[n], head: self.heads[n], packed: &self.packed, items }
    }

    fn of(members: &[Member<'_>]) -> Self {
        let count = members.iter().map(|member| member.items.len()).sum();
        let mut leaf = Self {
            ids: Vec::with_capacity(members.len()),
            tags: Vec::with_capacity(members.len()),
            heads: Vec::with_capacity(members.len()),
            ends: Vec::with_capacity(members.len()),
            packed: Packed::with_capacity(count),
            outline: Vec::with_capacity(count),
        };
        for member in members {
            leaf.ids.push(member.id);
            leaf.tags.push(tag(member.id));
            leaf.heads.push(member.head);
            leaf.packed.copy(member.packed, member.items);
            leaf.ends.push(u32::try_from(leaf.packed.items().len()).unwrap_or(u32::MAX));
        }
        leaf.packed.shrink();
        leaf.outline.extend(leaf.packed.items().iter().map(|item| leaf.packed.outline(*item)));
        leaf.outline.sort_unstable();
        leaf.outline.dedup();
        leaf.outline.shrink_to_fit();
        leaf
    }

    fn bytes(&self) -> usize {
        let member = size_of::<u128>() + 1 + size_of::<Head>() + 4;
        size_of::<Self>()
            + self.ids.len() * member
            + self.packed.bytes()
            + self.outline.len() * size_of::<Item>()
    }

    fn may_hold(&self, wanted: &[Item]) -> bool {
        // Both are sorted: walk the shorter one and search the longer.
        let (few, many) = if wanted.len() < self.outline.len() {
            (wanted, self.outline.as_slice())
        } else {
            (self.outline.as_slice(), wanted)
        };
        few.iter().any(|item| many.binary_search(item).is_ok())
    }
}

impl Members {
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
            let full = pending.len() == LEAF || items + member.items.len() > ITEMS;
            if full && !pending.is_empty() {
                leaves.push((pending[0].id, Arc::new(Leaf::of(&pending))));
                pending.clear();
                items = 0;
            }
            items += member.items.len();
            pending.push(member);
        }
        if !pending.is_empty() {
            leaves.push((pending[0].id, Arc::new(Leaf::of(&pending))));
        }
        let len = leaves.iter().map(|(_, leaf)| leaf.ids.len()).sum();
        let bytes = leaves.iter().map(|(_, leaf)| leaf.bytes()).sum();
        let nodes = leaves
            .chunks(NODE)
            .map(|leaves| Node { first: leaves[0].0, leaves: Arc::new(leaves.to_vec()) });
        Self { nodes: nodes.collect(), len, bytes }
    }

    /// Node and leaf where the id is, or would be.
    fn place(&self, id: u128) -> Option<(usize, usize)> {
        if self.nodes.is_empty() {
            return None;
        }
        let node = self.nodes.partition_point(|node| node.first <= id).saturating_sub(1);
        let leaves = &self.nodes[node].leaves;
        Some((node, leaves.partition_point(|(first, _)| *first <= id).saturating_sub(1)))
    }

    #[must_use]
    pub fn get(&self, id: u128) -> Option<Member<'_>> {
        let (node, leaf) = self.place(id)?;
        let (_, leaf) = &self.nodes[node].leaves[leaf];
        leaf.find(id).map(|n| leaf.member(n))
    }

    /// All members after an id, in order.
    pub fn after(&self, id: Option<u128>) -> impl Iterator<Item = Member<'_>> {
        self.leaves_after(id).flat_map(move |leaf| leaf.members_after(id))
    }

    /// Members after an id who may hold one of these items, in order, and others beside them; none who
    /// does is left out. `wanted` is sorted.
    pub fn search<'a>(
        &'a self,
        id: Option<u128>,
        wanted: &'a [Item],
    ) -> impl Iterator<Item = Member<'a>> {
        self.leaves_after(id)
            .filter(|leaf| leaf.may_hold(wanted))
            .flat_map(move |leaf| leaf.members_after(id))
    }

    fn leaves_after(&self, id: Option<u128>) -> impl Iterator<Item = &Leaf> {
        let (node, leaf) = id.and_then(|id| self.place(id)).unwrap_or_default();
        let first = self.nodes.get(node).into_iter().flat_map(move |node| &node.leaves[leaf..]);
        let rest = self.nodes.iter().skip(node + 1).flat_map(|node| node.leaves.iter());
        first.chain(rest).map(|(_, leaf)| &**leaf)
    }

    /// Replaces one member by what `change` makes of it: nothing stands for not being there.
    pub fn change(
        &mut self,
        id: u128,
        change: impl FnOnce(Option<MemberDraft>) -> Option<MemberDraft>,
    ) {
        let place = self.place(id);
        let old = place.map(|(node, leaf)| self.nodes[node].leaves[leaf].1.clone());
        let found = old.as_ref().and_then(|leaf| leaf.find(id).map(|n| leaf.member(n)));
        let was_there = found.is_some();
        let changed = change(found.as_ref().map(Member::draft));
        if changed.is_none() && !was_there {
            return;
        }
        self.len = self.len + usize::from(changed.is_some()) - usize::from(was_there);
        let packed = changed.map(|draft| (draft.head, Packed::of(draft.grants, draft.groups)));
        let new = packed.as_ref().map(|(head, packed)| Member {
            id,
            head: *head,
            packed,
            items: packed.items(),
        });
        let mut members: Vec<Member<'_>> = Vec::with_capacity(LEAF + 1);
        if let Some(leaf) = &old {
            let others = (0..leaf.ids.len()).map(|n| leaf.member(n));
            members.extend(others.filter(|member| member.id != id));
            self.bytes -= leaf.bytes();
        }
        let at = members.partition_point(|member| member.id < id);
        members.splice(at..at, new);
        self.replace(place, &parts(&members, at));
    }

    fn replace(&mut self, place: Option<(usize, usize)>, parts: &[&[Member<'_>]]) {
        let fresh: Vec<_> =
            parts.iter().map(|part| (part[0].id, Arc::new(Leaf::of(part)))).collect();
        self.bytes += fresh.iter().map(|(_, leaf)| leaf.bytes()).sum::<usize>();
        let Some((node, leaf)) = place else {
            if let Some((first, _)) = fresh.first() {
                self.nodes.push(Node { first: *first, leaves: Arc::new(fresh) });
            }
            return;
        };
        let leaves = Arc::make_mut(&mut self.nodes[node].leaves);
        leaves.splice(leaf..=leaf, fresh);
        match leaves.first() {
            None => drop(self.nodes.remove(node)),
            Some((first, _)) => {
                let first = *first;
                let upper = (leaves.len() > NODE).then(|| leaves.split_off(leaves.len() / 2));
                self.nodes[node].first = first;
                if let Some(upper) = upper {
                    let upper = Node { first: upper[0].0, leaves: Arc::new(upper) };
                    self.nodes.insert(node + 1, upper);
                }
            }
        }
    }
}

impl Leaf {
    fn members_after(&self, id: Option<u128>) -> impl Iterator<Item = Member<'_>> {
        let from = id.map_or(0, |id| self.ids.partition_point(|other| *other <= id));
        (from..self.ids.len()).map(|n| self.member(n))
    }
}

/// One leaf's worth of members, or two, or none. Ids grow with time: a leaf that overflows at its end
/// stays full, and only what was put between others splits it in the middle.
fn parts<'m, 'a>(members: &'m [Member<'a>], changed: usize) -> Vec<&'m [Member<'a>]> {
    let items: usize = members.iter().map(|member| member.items.len()).sum();
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
        let (grants, groups) = self.packed.drafts(self.items);
        MemberDraft { head: self.head, grants, groups }
    }
}
