//! What somebody holds, eight bytes an assignment.

use smol_str::SmolStr;

use super::record::Time;

/// Stands for the tenant itself where the number of a workspace is expected.
pub const TENANT: u32 = u32::MAX;
/// Stands for a workspace that nothing is held on.
pub const NOWHERE: u32 = u32::MAX - 1;
/// Roles have 24 bits.
pub const MAX_ROLE: u32 = (1 << 24) - 1;

/// A role on a workspace or on the tenant, or a group that somebody is in. What has a path or dates
/// keeps them beside the items, in a [`Special`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(u64);

/// What an [`Item`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On the workspace with this number, or on the [`TENANT`], without dates.
    Plain {
        role: u32,
        at: u32,
    },
    /// With the path and dates of the special at this index.
    Special {
        role: u32,
        index: u32,
    },
    Group(u32),
}

const SPECIAL: u64 = 1 << 56;
const GROUP: u64 = 2 << 56;
const MARK: u64 = 0xff << 56;

impl Item {
    #[must_use]
    pub const fn plain(role: u32, at: u32) -> Self {
        Self((role as u64) << 32 | at as u64)
    }

    #[must_use]
    pub const fn special(role: u32, at: u32) -> Self {
        Self(SPECIAL | (role as u64) << 32 | at as u64)
    }

    #[must_use]
    pub const fn group(number: u32) -> Self {
        Self(GROUP | number as u64)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    const fn at(self) -> u32 {
        self.0 as u32
    }

    const fn role(self) -> u32 {
        (self.0 >> 32) as u32 & MAX_ROLE
    }

    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 & MARK {
            0 => Kind::Plain { role: self.role(), at: self.at() },
            SPECIAL => Kind::Special { role: self.role(), index: self.at() },
            _ => Kind::Group(self.at()),
        }
    }
}

/// The rest of an assignment that has a path or dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Special {
    workspace: u32,
    /// Where its path is in the text beside it.
    start: u32,
    length: u32,
    starts: i64,
    ends: i64,
}

/// One assignment, read in place. Times are microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant<'a> {
    pub role: u32,
    pub workspace: u32,
    pub path: &'a str,
    /// `i64::MIN` without a start.
    pub starts: i64,
    /// `i64::MAX` without an end.
    pub ends: i64,
}

impl Grant<'_> {
    #[must_use]
    pub fn is_on_tenant(&self) -> bool {
        self.workspace == TENANT && self.path.is_empty()
    }

    fn is_plain(&self) -> bool {
        self.path.is_empty() && self.starts == i64::MIN && self.ends == i64::MAX
    }
}

/// One assignment apart from where it is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draft {
    pub role: u32,
    pub workspace: u32,
    pub path: SmolStr,
    pub starts: i64,
    pub ends: i64,
}

impl Draft {
    fn grant(&self) -> Grant<'_> {
        let Self { role, workspace, ref path, starts, ends } = *self;
        Grant { role, workspace, path, starts, ends }
    }
}

/// Many items with what their specials need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    items: Vec<Item>,
    specials: Vec<Special>,
    text: String,
}

impl Packed {
    /// What one holder has, in an order of its own, so that equal holdings are equal items.
    #[must_use]
    pub fn of(mut drafts: Vec<Draft>, mut groups: Vec<u32>) -> Self {
        drafts.sort_unstable();
        groups.sort_unstable();
        groups.dedup();
        let mut packed = Self::default();
        packed.items.reserve_exact(drafts.len() + groups.len());
        let (plain, special): (Vec<_>, Vec<_>) =
            drafts.iter().map(Draft::grant).partition(Grant::is_plain);
        for grant in plain.iter().chain(&special) {
            let item = packed.keep(grant);
            packed.items.push(item);
        }
        packed.items.extend(groups.into_iter().map(Item::group));
        packed
    }

    #[must_use]
    pub fn with_capacity(items: usize) -> Self {
        Self { items: Vec::with_capacity(items), ..Self::default() }
    }

    /// The item for an assignment, whose path and dates are kept here.
    pub fn keep(&mut self, grant: &Grant<'_>) -> Item {
        if grant.is_plain() {
            return Item::plain(grant.role, grant.workspace);
        }
        let index = u32::try_from(self.specials.len()).unwrap_or(u32::MAX);
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.text.push_str(grant.path);
        self.specials.push(Special {
            workspace: grant.workspace,
            start,
            length: u32::try_from(grant.path.len()).unwrap_or(u32::MAX),
            starts: grant.starts,
            ends: grant.ends,
        });
        Item::special(grant.role, index)
    }

    /// Copies items that are kept in another place.
    pub fn copy(&mut self, from: &Self, items: &[Item]) {
        for item in items {
            let copied = match item.kind() {
                Kind::Plain { .. } | Kind::Group(_) => *item,
                Kind::Special { role, index } => self.keep(&from.at(role, index)),
            };
            self.items.push(copied);
        }
    }

    /// What an index has to know of an item: where it holds instead of where its special is.
    #[must_use]
    pub fn outline(&self, item: Item) -> Item {
        match item.kind() {
            Kind::Plain { .. } | Kind::Group(_) => item,
            Kind::Special { role, index } => Item::special(role, self.at(role, index).workspace),
        }
    }

    /// The order of items of one holder: of the kind, then of what they stand for.
    #[must_use]
    pub fn compare(&self, a: Item, b: Item) -> std::cmp::Ordering {
        match (a.kind(), b.kind()) {
            (Kind::Special { .. }, Kind::Special { .. }) => self.grant(a).cmp(&self.grant(b)),
            _ => a.cmp(&b),
        }
    }

    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn items_mut(&mut self) -> &mut Vec<Item> {
        &mut self.items
    }

    /// The assignment of a special item.
    #[must_use]
    pub fn at(&self, role: u32, index: u32) -> Grant<'_> {
        let Special { workspace, start, length, starts, ends } = self.specials[index as usize];
        let path = &self.text[start as usize..(start + length) as usize];
        Grant { role, workspace, path, starts, ends }
    }

    /// The assignment that an item stands for; nothing for a group.
    #[must_use]
    pub fn grant(&self, item: Item) -> Option<Grant<'_>> {
        match item.kind() {
            Kind::Plain { role, at } => {
                let (starts, ends) = (i64::MIN, i64::MAX);
                Some(Grant { role, workspace: at, path: "", starts, ends })
            }
            Kind::Special { role, index } => Some(self.at(role, index)),
            Kind::Group(_) => None,
        }
    }

    /// Apart again, to be changed: assignments and groups.
    #[must_use]
    pub fn drafts(&self, items: &[Item]) -> (Vec<Draft>, Vec<u32>) {
        let mut drafts = Vec::with_capacity(items.len() + 1);
        let mut groups = Vec::new();
        for item in items {
            match (self.grant(*item), item.kind()) {
                (Some(grant), _) => {
                    let Grant { role, workspace, path, starts, ends } = grant;
                    drafts.push(Draft { role, workspace, path: path.into(), starts, ends });
                }
                (None, Kind::Group(group)) => groups.push(group),
                (None, _) => {}
            }
        }
        (drafts, groups)
    }

    pub fn shrink(&mut self) {
        self.items.shrink_to_fit();
        self.specials.shrink_to_fit();
        self.text.shrink_to_fit();
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>()
            + self.specials.capacity() * size_of::<Special>()
            + self.text.capacity()
    }
}

/// Dates as items keep them.
#[must_use]
pub fn dates(starts: Option<Time>, ends: Option<Time>) -> (i64, i64) {
    (
        starts.map_or(i64::MIN, |at| at.timestamp_micros()),
        ends.map_or(i64::MAX, |at| at.timestamp_micros()),
    )
}

/// A date as items keep it, as others know it; nothing for none.
#[must_use]
pub fn time(micros: i64) -> Option<Time> {
    Time::from_timestamp_micros(micros).filter(|_| micros != i64::MIN && micros != i64::MAX)
}
