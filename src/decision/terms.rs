//! A tenant's facts in the terms of everybody else: ids and keys instead of numbers.

use std::sync::Arc;

use smol_str::SmolStr;
use uuid::Uuid;

use super::{
    Permission, TenantFacts,
    groups::Group,
    holdings::{Held, holdings},
    packed::{Kind, NOWHERE, TENANT, time},
    record::{self, Role, Time},
    roles::CompiledRole,
};
use crate::ids::{GroupId, Holder, RoleId, SubjectId, WorkspaceId};

/// An assignment as the facts know it: without its id, which no decision needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holding {
    pub holder: Holder,
    pub role: RoleId,
    pub workspace: Option<WorkspaceId>,
    pub path: SmolStr,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}

impl TenantFacts {
    #[must_use]
    pub fn role(&self, id: RoleId) -> Option<&Arc<Role>> {
        self.roles.get(id)
    }

    #[must_use]
    pub fn role_named(&self, key: &str) -> Option<&Arc<Role>> {
        self.roles().find(|role| role.key.as_str() == key)
    }

    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.all()
    }

    /// The roles that match a permission.
    pub fn roles_matching(&self, permission: Permission<'_>) -> impl Iterator<Item = RoleId> {
        let numbers = self.matching(permission).numbers();
        numbers.filter_map(|n| self.roles.at(n)).map(|role| role.id)
    }

    /// The roles that make whoever holds them on the tenant an administrator of all that is in it.
    pub fn administering(&self) -> impl Iterator<Item = RoleId> {
        let everywhere = |role: &RoleId| {
            self.roles.get(*role).is_some_and(|role| role.reach == record::Reach::Everywhere)
        };
        self.roles_matching(Permission::ADMINISTER).filter(everywhere)
    }

    /// The permissions that roles name, sorted, without wildcards.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.roles.words()
    }

    /// A role with all that it includes.
    #[must_use]
    pub fn compiled(&self, id: RoleId) -> Option<&CompiledRole> {
        self.roles.compiled(self.roles.number(id)?)
    }

    #[must_use]
    pub fn workspace(&self, key: &str) -> Option<WorkspaceId> {
        self.workspace_id(self.workspaces.find(key)?)
    }

    /// The number of a workspace; one that nothing is held on for a workspace that is not known.
    pub(super) fn workspace_numbered(&self, id: WorkspaceId) -> u32 {
        self.workspace_numbers.get(id.uuid().as_u128()).unwrap_or(NOWHERE)
    }

    fn workspace_id(&self, n: u32) -> Option<WorkspaceId> {
        self.workspace_numbers.id(n).map(|id| Uuid::from_u128(id).into())
    }

    #[must_use]
    pub fn workspace_key(&self, id: WorkspaceId) -> Option<&str> {
        self.workspaces.key(self.workspace_numbers.get(id.uuid().as_u128())?)
    }

    #[must_use]
    pub fn group_key(&self, id: GroupId) -> Option<&str> {
        self.groups.at(self.groups.number(id)?).map(Group::key)
    }

    #[must_use]
    pub fn member(&self, subject: SubjectId) -> Option<record::Member> {
        let head = self.find(subject)?.head;
        let (kind, status, epoch) = (head.kind(), head.status(), head.epoch());
        Some(record::Member { subject, kind, status, epoch })
    }

    /// The groups that a member is in.
    pub fn groups_of(&self, subject: SubjectId) -> impl Iterator<Item = GroupId> {
        let member = self.find(subject).into_iter();
        member.flat_map(|member| member.held.items()).filter_map(|item| match item.kind() {
            Kind::Group(n) => self.groups.id(n),
            Kind::Plain { .. } | Kind::Special { .. } => None,
        })
    }

    /// What a member holds, its own and then through groups.
    pub fn holdings_of(&self, subject: SubjectId) -> impl Iterator<Item = Holding> {
        let member = self.find(subject);
        let held = member.into_iter().flat_map(|member| holdings(self, member));
        held.filter_map(move |held| self.holding(&held, subject))
    }

    /// An assignment with ids instead of numbers.
    pub(super) fn holding(&self, held: &Held<'_>, subject: SubjectId) -> Option<Holding> {
        let Held { grant, group } = held;
        Some(Holding {
            holder: match group {
                Some(n) => Holder::Group(self.groups.id(*n)?),
                None => Holder::Subject(subject),
            },
            role: Uuid::from_u128(self.roles.id(grant.role)?).into(),
            workspace: match grant.workspace {
                TENANT => None,
                n => Some(self.workspace_id(n)?),
            },
            path: grant.path.into(),
            starts: time(grant.starts),
            ends: time(grant.ends),
        })
    }

    /// Every member, in the order of their ids, people first.
    pub fn subjects(&self) -> impl Iterator<Item = SubjectId> {
        let users = self.users.after(None).map(|m| SubjectId::User(Uuid::from_u128(m.id).into()));
        let services =
            self.services.after(None).map(|m| SubjectId::Service(Uuid::from_u128(m.id).into()));
        users.chain(services)
    }
}
