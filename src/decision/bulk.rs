//! A whole tenant at once: rows in any order, sorted and packed at the end.

use super::{
    TenantFacts,
    members::{Head, Member, Members},
    packed::{Draft, Grant, Item, Packed, dates},
    record::{self, Role, Time, Workspace},
};
use crate::ids::{GroupId, Holder, RoleId, SubjectId, TenantId, UserId, WorkspaceId};

/// Collects rows of a tenant, beside what is known of it already.
#[derive(Debug)]
pub struct Bulk {
    facts: TenantFacts,
    users: Rows,
    services: Rows,
    workspaces: Vec<Workspace>,
    groups: Vec<(GroupId, Draft)>,
}

#[derive(Debug, Default)]
struct Rows {
    members: Vec<(u128, Head)>,
    held: Vec<(u128, Item)>,
    /// The details of `held`.
    packed: Packed,
}

/// One row of assignments.
#[derive(Debug, Clone, Copy)]
pub struct AssignmentRow<'a> {
    pub holder: Holder,
    pub role: RoleId,
    pub workspace: Option<WorkspaceId>,
    pub path: &'a str,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}

impl Bulk {
    #[must_use]
    pub fn new(facts: TenantFacts) -> Self {
        let (users, services) = (Rows::default(), Rows::default());
        Self { facts, users, services, workspaces: Vec::new(), groups: Vec::new() }
    }

    pub fn roles(&mut self, roles: impl IntoIterator<Item = Role>) {
        self.facts.set_roles(roles);
    }

    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.facts.id
    }

    pub fn workspace(&mut self, workspace: Workspace) {
        self.workspaces.push(workspace);
    }

    pub fn group(&mut self, group: &record::Group) {
        self.facts.groups.put(group.id, &group.key);
    }

    pub fn member(&mut self, member: record::Member) {
        let record::Member { subject, kind, status, epoch } = member;
        let head = Head::new(kind, status, epoch);
        self.rows(subject).members.push((subject.uuid().as_u128(), head));
    }

    pub fn joined(&mut self, user: UserId, group: GroupId) {
        let group = self.facts.groups.refer(group);
        self.users.held.push((user.uuid().as_u128(), Item::group(group)));
    }

    pub fn assignment(&mut self, row: &AssignmentRow<'_>) {
        let role = self.facts.role_number(row.role);
        let workspace = self.facts.workspace_number(row.workspace);
        let (starts, ends) = dates(row.starts, row.ends);
        match row.holder {
            Holder::Subject(subject) => {
                let grant = Grant { role, workspace, path: row.path, starts, ends };
                let rows = self.rows(subject);
                let item = rows.packed.keep(&grant);
                rows.held.push((subject.uuid().as_u128(), item));
            }
            Holder::Group(id) => {
                let draft = Draft { role, workspace, path: row.path.into(), starts, ends };
                self.groups.push((id, draft));
            }
        }
    }

    fn rows(&mut self, subject: SubjectId) -> &mut Rows {
        match subject {
            SubjectId::User(_) => &mut self.users,
            SubjectId::Service(_) => &mut self.services,
        }
    }

    #[must_use]
    pub fn finish(self) -> TenantFacts {
        let Self { mut facts, users, services, workspaces, mut groups } = self;
        facts.put_workspaces(&workspaces);
        users.add_to(&mut facts.users);
        services.add_to(&mut facts.services);
        groups.sort_unstable_by_key(|(id, _)| *id);
        for held in groups.chunk_by(|a, b| a.0 == b.0) {
            let drafts = held.iter().map(|(_, draft)| draft.clone());
            facts.groups.change(held[0].0, |there| *there = drafts.collect());
        }
        facts
    }
}

impl Rows {
    fn add_to(self, there: &mut Members) {
        let Self { mut members, mut held, mut packed } = self;
        members.sort_unstable_by_key(|(id, _)| *id);
        held.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| packed.compare(*x, *y)));
        held.iter().for_each(|(_, item)| packed.push(*item));
        let mut at = 0;
        let members = members.iter().map(|(id, head)| {
            // What belongs to nobody who is a member is passed over.
            at += held[at..].iter().take_while(|(holder, _)| holder < id).count();
            let count = held[at..].iter().take_while(|(holder, _)| holder == id).count();
            at += count;
            Member { id: *id, head: *head, held: packed.part(at - count, count) }
        });
        if there.len() == 0 {
            *there = Members::build(members);
        } else {
            // A few beside those that a slice has already.
            members.for_each(|member| there.change(member.id, |_| Some(member.draft())));
        }
    }
}
