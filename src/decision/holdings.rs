//! What a member holds, and where it reaches.

use super::{
    Resource, TenantFacts,
    decide::Reason,
    members::Member,
    packed::{Grant, Item, Kind, Pack, TENANT},
    path_covers,
    record::Reach,
    roles::Row,
};

/// Where the question is about, with the workspace found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The number of the workspace, or [`TENANT`].
    pub workspace: u32,
    pub path: &'a str,
}

impl<'a> Place<'a> {
    pub fn find(tenant: &TenantFacts, resource: Resource<'a>) -> Option<Self> {
        let workspace = match resource.workspace {
            Some(key) => tenant.workspaces.find(key)?,
            None => TENANT,
        };
        Some(Self { workspace, path: resource.path })
    }
}

/// An assignment that a member holds, its own or through a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held<'a> {
    pub grant: Grant<'a>,
    /// The number of the group.
    pub group: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    Inside,
    Over,
    Ahead,
}

impl Grant<'_> {
    pub fn dates(&self, now: i64) -> Dates {
        if now >= self.ends {
            Dates::Over
        } else if now < self.starts {
            Dates::Ahead
        } else {
            Dates::Inside
        }
    }
}

pub(super) fn holdings<'a>(
    tenant: &'a TenantFacts,
    member: Member<'a>,
) -> impl Iterator<Item = Held<'a>> {
    let own = member.held.grants().map(|grant| Held { grant, group: None });
    let groups = member.held.items().filter_map(|item| match item.kind() {
        Kind::Group(n) => Some((n, tenant.groups.at(n)?.held)),
        Kind::Plain { .. } | Kind::Special { .. } => None,
    });
    own.chain(
        groups.flat_map(|(n, held)| held.grants().map(move |grant| Held { grant, group: Some(n) })),
    )
}

/// Whether the assignment reaches the place. `None` is a place in a tenant below the installation.
#[inline]
pub(super) fn covers(
    tenant: &TenantFacts,
    member: &Member<'_>,
    grant: &Grant<'_>,
    place: Option<Place<'_>>,
    now: i64,
) -> bool {
    let Some(place) = place else {
        return grant.is_on_tenant() && tenant.matrix.reach(grant.role) == Reach::Everywhere;
    };
    if !grant.is_on_tenant() {
        return grant.workspace == place.workspace && path_covers(grant.path, place.path);
    }
    match tenant.matrix.reach(grant.role) {
        Reach::Everywhere => true,
        Reach::Here | Reach::Joined if place.workspace == TENANT => place.path.is_empty(),
        Reach::Here => false,
        Reach::Joined => has_joined(tenant, member, place.workspace, now),
    }
}

/// A member has joined the workspaces on which it holds an assignment inside its dates.
pub(super) fn has_joined(
    tenant: &TenantFacts,
    member: &Member<'_>,
    workspace: u32,
    now: i64,
) -> bool {
    holdings(tenant, *member).any(|held| {
        held.grant.workspace == workspace
            && held.grant.path.is_empty()
            && held.grant.dates(now) == Dates::Inside
    })
}

/// What a member holds that reaches a place and matches a permission.
pub(super) struct Search<'a> {
    pub home: &'a TenantFacts,
    pub member: &'a Member<'a>,
    /// The roles that match.
    pub row: Row<'a>,
    /// `None` is a place in a tenant below the installation.
    pub place: Option<Place<'a>>,
    /// Microseconds since 1970.
    pub now: i64,
}

impl<'a> Search<'a> {
    /// Whether something is in force; notes why not when only dates stand in the way.
    #[inline]
    pub fn finds(&self, reason: &mut Reason) -> bool {
        self.candidates(&self.member.held).any(|item| match item.kind() {
            Kind::Group(n) => self.home.groups.at(n).is_some_and(|group| {
                let mut items = self.candidates(&group.held);
                items.any(|item| self.is_in_force(&group.held, item, reason))
            }),
            Kind::Plain { .. } | Kind::Special { .. } => {
                self.is_in_force(&self.member.held, item, reason)
            }
        })
    }

    /// The items that may reach the place: what they say themselves rules out most of them.
    #[inline]
    fn candidates<'p>(&self, held: &'p Pack<'p>) -> impl Iterator<Item = Item> + 'p {
        let here = self.place.map_or(TENANT, |place| place.workspace);
        held.items().filter(move |item| item.may_reach(here))
    }

    #[inline(never)]
    fn is_in_force(&self, held: &Pack<'_>, item: Item, reason: &mut Reason) -> bool {
        let Self { home, member, row, place, now } = *self;
        if !row.has(item.role()) {
            return false;
        }
        let Some(grant) = held.grant(item) else { return false };
        if !covers(home, member, &grant, place, now) {
            return false;
        }
        match grant.dates(now) {
            Dates::Inside => return true,
            Dates::Over if *reason == Reason::NoRole => *reason = Reason::AssignmentExpired,
            Dates::Over => {}
            Dates::Ahead => *reason = Reason::AssignmentNotStarted,
        }
        false
    }

    /// What matches and reaches the place, whenever it holds.
    fn matches(&self) -> impl Iterator<Item = Held<'a>> {
        let Self { home, member, row, place, now } = *self;
        holdings(home, *member)
            .filter(move |held| row.has(held.grant.role))
            .filter(move |held| covers(home, member, &held.grant, place, now))
    }

    /// What gives the permission there now.
    pub fn grounds(&self) -> impl Iterator<Item = Held<'a>> {
        let now = self.now;
        self.matches().filter(move |held| held.grant.dates(now) == Dates::Inside)
    }
}
