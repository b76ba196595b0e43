//! What somebody holds, eight bytes an assignment, and some more when it has a path or dates.

use smol_str::SmolStr;

use super::{ahead::touch, record::Time};

/// Stands for the tenant itself where the number of a workspace is expected.
pub const TENANT: u32 = u32::MAX;
/// Stands for a workspace that nothing is held on.
pub const NOWHERE: u32 = u32::MAX - 1;
/// Roles have 24 bits.
pub const MAX_ROLE: u32 = (1 << 24) - 1;

/// A role on a workspace or on the tenant, or a group that somebody is in. What has a path or dates
/// keeps them beside the items, as details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item(pub u64);

/// What an [`Item`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On the workspace with this number, or on the [`TENANT`], without dates.
    Plain {
        role: u32,
        at: u32,
    },
    /// With the path and dates in the details from this byte on.
    Special {
        role: u32,
        start: u32,
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

    #[must_use]
    pub const fn role(self) -> u32 {
        (self.0 >> 32) as u32 & MAX_ROLE
    }

    /// Whether it may hold on the workspace with this number, as far as the item itself tells.
    #[must_use]
    #[inline]
    pub const fn may_reach(self, workspace: u32) -> bool {
        self.at() == workspace || self.at() == TENANT || self.0 & MARK != 0
    }

    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 & MARK {
            0 => Kind::Plain { role: self.role(), at: self.at() },
            SPECIAL => Kind::Special { role: self.role(), start: self.at() },
            _ => Kind::Group(self.at()),
        }
    }
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

/// What one holder has, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Pack<'a> {
    items: &'a [u64],
    details: &'a [u8],
}

impl<'a> Pack<'a> {
    #[must_use]
    #[inline]
    pub fn new(items: &'a [u64], details: &'a [u8]) -> Self {
        Self { items, details }
    }

    #[must_use]
    pub fn len(self) -> usize {
        self.items.len()
    }

    /// Touches what is read first.
    #[inline]
    pub fn approach(self) {
        touch(self.items.first().copied());
    }

    pub fn items(self) -> impl Iterator<Item = Item> + 'a {
        self.items.iter().map(|item| Item(*item))
    }

    /// The assignment that an item stands for; nothing for a group.
    #[must_use]
    #[inline]
    pub fn grant(self, item: Item) -> Option<Grant<'a>> {
        grant(self.details, item)
    }

    pub fn grants(self) -> impl Iterator<Item = Grant<'a>> {
        self.items().filter_map(move |item| self.grant(item))
    }

    /// What an index has to know of an item: where it holds instead of where its details are.
    #[must_use]
    pub fn outline(self, item: Item) -> Item {
        match (item.kind(), self.grant(item)) {
            (Kind::Special { role, .. }, Some(grant)) => Item::special(role, grant.workspace),
            _ => item,
        }
    }

    /// Apart again, to be changed: assignments and groups.
    #[must_use]
    pub fn drafts(self) -> (Vec<Draft>, Vec<u32>) {
        let mut drafts = Vec::with_capacity(self.len() + 1);
        let mut groups = Vec::new();
        for item in self.items() {
            match (self.grant(item), item.kind()) {
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
}

/// Items of one holder or of many, with their details.
#[derive(Debug, Default)]
pub struct Packed {
    items: Vec<u64>,
    /// For each special: which of the rest there are, the workspace, the start, the end, the length of
    /// the path and the path; numbers little-endian.
    details: Vec<u8>,
}

const STARTS: u8 = 1;
const ENDS: u8 = 2;
const PATH: u8 = 4;

#[inline]
fn grant(details: &[u8], item: Item) -> Option<Grant<'_>> {
    match item.kind() {
        Kind::Plain { role, at } => {
            let (starts, ends) = (i64::MIN, i64::MAX);
            Some(Grant { role, workspace: at, path: "", starts, ends })
        }
        Kind::Special { role, start } => detailed(details.get(start as usize..)?, role),
        Kind::Group(_) => None,
    }
}

#[inline(never)]
fn detailed(mut rest: &[u8], role: u32) -> Option<Grant<'_>> {
    let [has] = take(&mut rest)?;
    let workspace = u32::from_le_bytes(take(&mut rest)?);
    let (mut starts, mut ends, mut path) = (i64::MIN, i64::MAX, "");
    if has & STARTS != 0 {
        starts = i64::from_le_bytes(take(&mut rest)?);
    }
    if has & ENDS != 0 {
        ends = i64::from_le_bytes(take(&mut rest)?);
    }
    if has & PATH != 0 {
        let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
        path = std::str::from_utf8(rest.get(..length)?).ok()?;
    }
    Some(Grant { role, workspace, path, starts, ends })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

impl Packed {
    /// What one holder has, in an order of its own, so that equal holdings are equal items.
    #[must_use]
    pub fn of(mut drafts: Vec<Draft>, mut groups: Vec<u32>) -> Self {
        drafts.sort_unstable();
        groups.sort_unstable();
        groups.dedup();
        let mut packed = Self::default();
        let (plain, special): (Vec<_>, Vec<_>) =
            drafts.iter().map(Draft::grant).partition(Grant::is_plain);
        for grant in plain.iter().chain(&special) {
            let item = packed.keep(grant);
            packed.push(item);
        }
        groups.into_iter().for_each(|group| packed.push(Item::group(group)));
        packed
    }

    #[must_use]
    pub fn view(&self) -> Pack<'_> {
        Pack { items: &self.items, details: &self.details }
    }

    /// Some of the items, with the details of all.
    #[must_use]
    pub fn part(&self, from: usize, count: usize) -> Pack<'_> {
        Pack { items: &self.items[from..from + count], details: &self.details }
    }

    #[must_use]
    pub fn parts(&self) -> (&[u64], &[u8]) {
        (&self.items, &self.details)
    }

    pub fn push(&mut self, item: Item) {
        self.items.push(item.0);
    }

    /// The item for an assignment, whose path and dates are kept here.
    pub fn keep(&mut self, grant: &Grant<'_>) -> Item {
        let Grant { role, workspace, path, starts, ends } = *grant;
        if grant.is_plain() {
            return Item::plain(role, workspace);
        }
        // Invariant: a path is part of a resource, so its length has two bytes.
        let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
        let start = u32::try_from(self.details.len()).unwrap_or(u32::MAX);
        let (dated, ending) = (starts != i64::MIN, ends != i64::MAX);
        let dates = (STARTS * u8::from(dated)) | (ENDS * u8::from(ending));
        self.details.push(dates | (PATH * u8::from(length > 0)));
        self.details.extend_from_slice(&workspace.to_le_bytes());
        if dated {
            self.details.extend_from_slice(&starts.to_le_bytes());
        }
        if ending {
            self.details.extend_from_slice(&ends.to_le_bytes());
        }
        if length > 0 {
            self.details.extend_from_slice(&length.to_le_bytes());
            self.details.extend_from_slice(&path.as_bytes()[..usize::from(length)]);
        }
        Item::special(role, start)
    }

    /// Adds what is kept in another place.
    pub fn copy(&mut self, from: Pack<'_>) {
        for item in from.items() {
            let copied = match (item.kind(), from.grant(item)) {
                (Kind::Special { .. }, Some(grant)) => self.keep(&grant),
                _ => item,
            };
            self.push(copied);
        }
    }

    /// The order of items of one holder: of the kind, then of what they stand for.
    #[must_use]
    pub fn compare(&self, a: Item, b: Item) -> std::cmp::Ordering {
        match (a.kind(), b.kind()) {
            (Kind::Special { .. }, Kind::Special { .. }) => {
                grant(&self.details, a).cmp(&grant(&self.details, b))
            }
            _ => a.cmp(&b),
        }
    }
}

/// Appends bytes, with zeros up to a whole word.
pub fn extend(words: &mut Vec<u64>, bytes: &[u8]) {
    words.extend(bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    }));
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
