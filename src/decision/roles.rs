//! The roles of a tenant with all that they include, compiled to rows of bits: a permission leads to the
//! roles that match it.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smol_str::SmolStr;

use super::{
    PermissionSet,
    numbers::Numbers,
    record::{Reach, Role},
};
use crate::ids::RoleId;

/// A role with all that it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompiledRole {
    pub permissions: PermissionSet,
    pub may_grant: HashSet<RoleId>,
}

#[derive(Debug, Default)]
pub struct Roles {
    numbers: Numbers,
    /// By number; nothing for a role that was deleted, or that is only referred to.
    slots: Vec<Slot>,
    matrix: Arc<Matrix>,
}

#[derive(Debug, Default)]
struct Slot {
    role: Option<Arc<Role>>,
    /// Made when a change first asks what the role gives.
    compiled: OnceLock<Box<CompiledRole>>,
}

impl Clone for Roles {
    fn clone(&self) -> Self {
        let slots = self.slots.iter();
        Self {
            numbers: self.numbers.clone(),
            slots: slots.map(|slot| Slot { role: slot.role.clone(), ..Slot::default() }).collect(),
            matrix: self.matrix.clone(),
        }
    }
}

impl Roles {
    #[must_use]
    pub fn number(&self, id: RoleId) -> Option<u32> {
        self.numbers.get(id.uuid().as_u128())
    }

    /// The number of a role that may not be known yet.
    pub fn refer(&mut self, id: RoleId) -> u32 {
        let n = self.numbers.number(id.uuid().as_u128());
        if self.slots.len() <= n as usize {
            self.slots.resize_with(n as usize + 1, Slot::default);
        }
        n
    }

    #[must_use]
    pub fn id(&self, number: u32) -> Option<u128> {
        self.numbers.id(number)
    }

    #[must_use]
    pub fn at(&self, number: u32) -> Option<&Arc<Role>> {
        self.slots.get(number as usize)?.role.as_ref()
    }

    #[must_use]
    pub fn get(&self, id: RoleId) -> Option<&Arc<Role>> {
        self.at(self.number(id)?)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.slots.iter().filter_map(|slot| slot.role.as_ref())
    }

    /// Puts and takes roles, then compiles them all.
    pub fn change(&mut self, put: impl IntoIterator<Item = Role>, taken: Option<RoleId>) {
        for role in put {
            let n = self.refer(role.id);
            self.slots[n as usize].role = Some(Arc::new(role));
        }
        if let Some(n) = taken.and_then(|id| self.number(id)) {
            self.slots[n as usize].role = None;
        }
        for slot in &mut self.slots {
            slot.compiled = OnceLock::new();
        }
        self.matrix = Arc::new(self.compile());
    }

    /// The closure of a role over its includes.
    #[must_use]
    pub fn compiled(&self, number: u32) -> Option<&CompiledRole> {
        let slot = self.slots.get(number as usize)?;
        slot.role.as_ref()?;
        Some(slot.compiled.get_or_init(|| {
            let mut compiled = CompiledRole::default();
            for role in self.closure(number).into_iter().filter_map(|n| self.at(n)) {
                role.permissions.iter().for_each(|p| compiled.permissions.insert(p));
                compiled.may_grant.extend(role.may_grant.iter().copied());
            }
            Box::new(compiled)
        }))
    }

    /// A role and those that it includes. Circles are refused where roles are written, and harmless
    /// here.
    fn closure(&self, number: u32) -> HashSet<u32> {
        let mut seen = HashSet::from([number]);
        let mut pending = vec![number];
        while let Some(n) = pending.pop() {
            let included = self.at(n).into_iter().flat_map(|role| &role.includes);
            let known = included.filter_map(|id| self.number(*id));
            pending.extend(known.filter(|n| seen.insert(*n)));
        }
        seen
    }

    #[must_use]
    pub fn matrix(&self) -> &Arc<Matrix> {
        &self.matrix
    }

    /// The words that roles name, sorted, without those that only a wildcard means.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let stems = self.matrix.patterns.iter().map(SmolStr::as_str);
        stems.filter(|stem| !stem.is_empty() && !stem.ends_with('.'))
    }

    /// Uses another's matrix and lists of permissions when they are equal, so that tenants with the same
    /// roles share them.
    pub fn share(&mut self, pool: &mut Pool) {
        self.matrix = pool.matrices.share(&self.matrix, |a, b| a.is_like(b));
        let own = self.slots.iter_mut().filter_map(|slot| Arc::get_mut(slot.role.as_mut()?));
        for role in own {
            role.permissions = pool.permissions.share(&role.permissions, |a, b| a == b);
        }
    }

    fn compile(&self) -> Matrix {
        let stride = self.slots.len().div_ceil(64);
        let numbers = || (0..).zip(&self.slots).filter_map(|(n, s)| Some((n, s.role.as_ref()?)));
        // The roles that have each role in their closure.
        let mut including = vec![vec![0u64; stride]; self.slots.len()];
        for (n, _) in numbers() {
            for included in self.closure(n) {
                set(&mut including[included as usize], n);
            }
        }
        // A pattern without its star: `invoices.` for `invoices.*`, nothing for `*`.
        let mut named: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (n, role) in numbers() {
            for pattern in role.permissions.iter() {
                let stem = pattern.strip_suffix('*').unwrap_or(pattern);
                let row = named.entry(stem).or_insert_with(|| vec![0; stride]);
                union(row, &including[n as usize]);
            }
        }
        let mut rows = Vec::with_capacity(named.len() * stride);
        for (stem, own) in &named {
            let mut row = own.clone();
            for wider in wider(stem).filter_map(|wider| named.get(wider)) {
                union(&mut row, wider);
            }
            rows.extend(row);
        }
        let mut everywhere = vec![0; stride];
        let mut joined = vec![0; stride];
        for (n, role) in numbers() {
            match role.reach {
                Reach::Everywhere => set(&mut everywhere, n),
                Reach::Joined => set(&mut joined, n),
                Reach::Here => {}
            }
        }
        Matrix::new(named.keys().map(SmolStr::new).collect(), stride, rows, everywhere, joined)
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        let role = |role: &Arc<Role>| {
            let lists = role.includes.capacity() + role.may_grant.capacity();
            size_of::<Role>() + 16 + role.permissions.len() * size_of::<SmolStr>() + lists * 16
        };
        self.numbers.bytes()
            + self.slots.capacity() * size_of::<Slot>()
            + self.all().map(role).sum::<usize>()
    }
}

/// The patterns that match whatever this word or pattern matches, the longest first, without it.
fn wider(stem: &str) -> impl Iterator<Item = &str> {
    let inner = stem.strip_suffix('.').unwrap_or(stem);
    let dots = inner.bytes().enumerate().rev().filter(|(_, byte)| *byte == b'.');
    let all = (!stem.is_empty()).then_some("");
    dots.map(|(at, _)| &inner[..=at]).chain(all)
}

fn set(bits: &mut [u64], n: u32) {
    bits[(n / 64) as usize] |= 1 << (n % 64);
}

fn bit(bits: &[u64], n: u32) -> bool {
    bits.get((n / 64) as usize).is_some_and(|word| word >> (n % 64) & 1 == 1)
}

fn union(bits: &mut [u64], more: &[u64]) {
    bits.iter_mut().zip(more).for_each(|(bit, more)| *bit |= more);
}

/// Roles by number.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a>(&'a [u64]);

impl<'a> Row<'a> {
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        bit(self.0, number)
    }

    pub fn numbers(self) -> impl Iterator<Item = u32> + 'a {
        (0u32..).zip(self.0).flat_map(|(word, bits)| {
            let set = move |n: &u32| bits >> n & 1 == 1;
            (0..64).filter(set).map(move |n| word * 64 + n)
        })
    }
}

/// For every word and pattern that a role names, the roles that match it.
#[derive(Debug, Default)]
pub struct Matrix {
    /// Sorted.
    patterns: Vec<SmolStr>,
    index: HashTable<u32>,
    hasher: RandomState,
    stride: usize,
    /// As many bits as there are roles for each pattern, rounded up to whole words.
    rows: Vec<u64>,
    everywhere: Vec<u64>,
    joined: Vec<u64>,
}

impl Matrix {
    fn new(
        patterns: Vec<SmolStr>,
        stride: usize,
        rows: Vec<u64>,
        everywhere: Vec<u64>,
        joined: Vec<u64>,
    ) -> Self {
        let hasher = RandomState::default();
        let mut index = HashTable::with_capacity(patterns.len());
        for (n, pattern) in (0..).zip(&patterns) {
            let again = |n: &u32| hasher.hash_one(patterns[*n as usize].as_str());
            index.insert_unique(hasher.hash_one(pattern.as_str()), n, again);
        }
        Self { patterns, index, hasher, stride, rows, everywhere, joined }
    }

    #[inline]
    fn find(&self, text: &str) -> Option<Row<'_>> {
        let found = self
            .index
            .find(self.hasher.hash_one(text), |n| self.patterns[*n as usize].as_str() == text)?;
        let start = *found as usize * self.stride;
        Some(Row(&self.rows[start..start + self.stride]))
    }

    /// How far an assignment of the role on the tenant reaches.
    #[must_use]
    #[inline]
    pub fn reach(&self, number: u32) -> Reach {
        if bit(&self.everywhere, number) {
            Reach::Everywhere
        } else if bit(&self.joined, number) {
            Reach::Joined
        } else {
            Reach::Here
        }
    }

    /// The roles that match a permission. A word that no role names is matched by whatever matches the
    /// longest pattern that spans it.
    #[must_use]
    #[inline]
    pub fn row(&self, word: &str) -> Row<'_> {
        let known = self.find(word);
        known.or_else(|| wider(word).find_map(|wider| self.find(wider))).unwrap_or(Row(&[]))
    }

    fn is_like(&self, other: &Self) -> bool {
        self.patterns == other.patterns
            && self.rows == other.rows
            && self.everywhere == other.everywhere
            && self.joined == other.joined
    }
}

/// What tenants with the same roles can share.
#[derive(Debug, Default)]
pub struct Pool {
    matrices: Shared<Matrix>,
    permissions: Shared<[SmolStr]>,
}

/// Equal things, each kept once for as long as somebody uses it.
#[derive(Debug)]
struct Shared<T: ?Sized> {
    things: HashTable<Arc<T>>,
    hasher: RandomState,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { things: HashTable::default(), hasher: RandomState::default() }
    }
}

impl<T: Hash + ?Sized> Shared<T> {
    fn share(&mut self, own: &Arc<T>, equal: impl Fn(&T, &T) -> bool) -> Arc<T> {
        let Self { things, hasher } = self;
        let hash = |thing: &Arc<T>| hasher.hash_one(thing);
        if let Some(found) = things.find(hash(own), |other| equal(other, own)) {
            return found.clone();
        }
        // Forget what nobody uses any more before there is room for twice as many.
        if things.len() == things.capacity() {
            things.retain(|thing| Arc::strong_count(thing) > 1);
        }
        things.insert_unique(hash(own), own.clone(), hash);
        own.clone()
    }
}

impl Hash for Matrix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.patterns, &self.rows).hash(state);
    }
}
