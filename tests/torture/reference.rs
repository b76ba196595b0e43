//! The events replayed by the rule of DESIGN.md, written as plainly as it reads there and sharing
//! nothing with the engine. Every question and every switch of the run has its own history.

use std::collections::{HashMap, HashSet};

use rolecall::{
    decision::{Assignment, MemberStatus, Reach, Record, Role, TenantStatus},
    ids::{
        ApiKeyId, AssignmentId, GroupId, Holder, RoleId, SessionId, SubjectId, TenantId, UserId,
        WorkspaceId,
    },
};

/// Who a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    Subject(SubjectId),
    Key(ApiKeyId),
    Session(SessionId, UserId),
}

#[derive(Debug, Clone)]
pub struct Question {
    pub tenant: TenantId,
    pub who: Who,
    pub permission: &'static str,
    pub resource: &'static str,
}

/// Something that a writer turns on and off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    Role {
        tenant: TenantId,
        subject: SubjectId,
        role: &'static str,
        scope: &'static str,
    },
    Active {
        tenant: TenantId,
        user: UserId,
    },
    InGroup {
        tenant: TenantId,
        user: UserId,
    },
    /// Off for good.
    Key {
        tenant: TenantId,
        key: ApiKeyId,
    },
    Session {
        tenant: TenantId,
        session: SessionId,
    },
}

impl Switch {
    pub fn tenant(&self) -> TenantId {
        match *self {
            Self::Role { tenant, .. }
            | Self::Active { tenant, .. }
            | Self::InGroup { tenant, .. }
            | Self::Key { tenant, .. }
            | Self::Session { tenant, .. } => tenant,
        }
    }
}

/// A value from each revision on at which it changed.
#[derive(Debug, Clone, Default)]
pub struct Course(Vec<(u64, bool)>);

impl Course {
    fn note(&mut self, revision: u64, value: bool) {
        match self.0.last_mut() {
            Some((at, last)) if *at == revision => *last = value,
            Some((_, last)) if *last == value => {}
            _ => self.0.push((revision, value)),
        }
    }

    /// What it was at a revision; off before everything.
    pub fn at(&self, revision: u64) -> bool {
        let after = self.0.partition_point(|(at, _)| *at <= revision);
        after > 0 && self.0[after - 1].1
    }

    /// The revisions after `from` up to `to` at which it changed.
    pub fn changes(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, bool)> {
        self.0.iter().copied().filter(move |(at, _)| *at > from && *at <= to)
    }
}

#[derive(Debug, Default)]
struct Tenant {
    active: bool,
    members: HashMap<SubjectId, MemberStatus>,
    roles: HashMap<RoleId, Role>,
    workspaces: HashMap<WorkspaceId, String>,
    assignments: HashMap<AssignmentId, Assignment>,
    joined: HashSet<(GroupId, UserId)>,
    keys: HashMap<ApiKeyId, (SubjectId, bool)>,
    ended: HashSet<SessionId>,
}

/// The events of one change.
pub struct Change {
    pub revision: u64,
    pub events: Vec<(TenantId, Option<Record>, Option<Record>)>,
}

pub struct Replay {
    pub questions: Vec<Course>,
    pub switches: Vec<Course>,
    pub last: u64,
}

impl Replay {
    pub fn new(
        changes: impl Iterator<Item = Change>,
        questions: &[Question],
        switches: &[Switch],
    ) -> Self {
        let mut replay = Self {
            questions: vec![Course::default(); questions.len()],
            switches: vec![Course::default(); switches.len()],
            last: 0,
        };
        let mut tenants: HashMap<TenantId, Tenant> = HashMap::new();
        let mut concerned: HashMap<TenantId, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (n, question) in questions.iter().enumerate() {
            concerned.entry(question.tenant).or_default().0.push(n);
        }
        for (n, switch) in switches.iter().enumerate() {
            concerned.entry(switch.tenant()).or_default().1.push(n);
        }
        for change in changes {
            assert_eq!(change.revision, replay.last + 1, "the log has a gap");
            replay.last = change.revision;
            for (id, before, after) in &change.events {
                let tenant = tenants.entry(*id).or_default();
                tenant.apply(before.as_ref(), after.as_ref());
                let about = after.as_ref().or(before.as_ref()).and_then(about);
                let Some((asked, switched)) = concerned.get(id) else { continue };
                for n in asked {
                    let question = &questions[*n];
                    if about.is_none_or(|subject| tenant.subject(question.who) == Some(subject)) {
                        replay.questions[*n].note(change.revision, tenant.allows(question));
                    }
                }
                for n in switched {
                    replay.switches[*n].note(change.revision, tenant.is_on(&switches[*n]));
                }
            }
        }
        replay
    }
}

/// The one subject that a record can matter to; none: perhaps everybody.
fn about(record: &Record) -> Option<SubjectId> {
    match record {
        Record::Assignment(assignment) => assignment.holder.subject(),
        Record::Member(member) => Some(member.subject),
        Record::GroupMember(joined) => Some(SubjectId::User(joined.user)),
        Record::ApiKey(key) => Some(SubjectId::Service(key.service_account)),
        Record::SessionEnd(end) => Some(SubjectId::User(end.user)),
        _ => None,
    }
}

impl Tenant {
    fn apply(&mut self, before: Option<&Record>, after: Option<&Record>) {
        match before {
            Some(Record::Assignment(old)) => drop(self.assignments.remove(&old.id)),
            Some(Record::GroupMember(old)) => drop(self.joined.remove(&(old.group, old.user))),
            Some(Record::Member(old)) => drop(self.members.remove(&old.subject)),
            Some(Record::Role(old)) => drop(self.roles.remove(&old.id)),
            Some(Record::Workspace(old)) => drop(self.workspaces.remove(&old.id)),
            _ => {}
        }
        match after {
            Some(Record::Tenant(new)) => self.active = new.status == TenantStatus::Active,
            Some(Record::Assignment(new)) => drop(self.assignments.insert(new.id, new.clone())),
            Some(Record::GroupMember(new)) => drop(self.joined.insert((new.group, new.user))),
            Some(Record::Member(new)) => drop(self.members.insert(new.subject, new.status)),
            Some(Record::Role(new)) => drop(self.roles.insert(new.id, new.clone())),
            Some(Record::Workspace(new)) => {
                self.workspaces.insert(new.id, new.key.to_string());
            }
            Some(Record::ApiKey(new)) => {
                let owner = SubjectId::Service(new.service_account);
                self.keys.insert(new.id, (owner, !new.revoked));
            }
            Some(Record::SessionEnd(new)) => drop(self.ended.insert(new.session)),
            _ => {}
        }
    }

    fn subject(&self, who: Who) -> Option<SubjectId> {
        match who {
            Who::Subject(subject) => Some(subject),
            Who::Key(key) => self.keys.get(&key).map(|(owner, _)| *owner),
            Who::Session(_, user) => Some(SubjectId::User(user)),
        }
    }

    fn allows(&self, question: &Question) -> bool {
        let live = match question.who {
            Who::Subject(_) => true,
            Who::Key(key) => self.keys.get(&key).is_some_and(|(_, live)| *live),
            Who::Session(session, _) => !self.ended.contains(&session),
        };
        let Some(subject) = self.subject(question.who).filter(|_| live) else { return false };
        let active = self.members.get(&subject) == Some(&MemberStatus::Active);
        let mut own = self.assignments.values().filter(|a| self.holds(subject, a));
        self.active
            && active
            && own.any(|a| {
                self.covers(subject, a, question.resource)
                    && self.gives(a.role, question.permission)
            })
    }

    fn holds(&self, subject: SubjectId, assignment: &Assignment) -> bool {
        match (assignment.holder, subject) {
            (Holder::Subject(holder), _) => holder == subject,
            (Holder::Group(group), SubjectId::User(user)) => self.joined.contains(&(group, user)),
            (Holder::Group(_), SubjectId::Service(_)) => false,
        }
    }

    fn gives(&self, role: RoleId, permission: &str) -> bool {
        let Some(role) = self.roles.get(&role) else { return false };
        let own = role.permissions.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => permission.starts_with(start),
            None => *pattern == permission,
        });
        own || role.includes.iter().any(|included| self.gives(*included, permission))
    }

    fn scope(&self, assignment: &Assignment) -> String {
        let workspace =
            assignment.workspace.map(|id| format!("workspaces/{}", self.workspaces[&id]));
        let path = (!assignment.path.is_empty()).then(|| assignment.path.clone());
        workspace.into_iter().chain(path).collect::<Vec<_>>().join("/")
    }

    fn covers(&self, subject: SubjectId, assignment: &Assignment, resource: &str) -> bool {
        let scope = self.scope(assignment);
        if scope == resource {
            return true;
        }
        if !scope.is_empty() {
            return resource.starts_with(&format!("{scope}/"));
        }
        match self.roles.get(&assignment.role).map(|role| role.reach) {
            Some(Reach::Everywhere) => true,
            Some(Reach::Joined) => {
                let mut parts = resource.split('/');
                let (Some("workspaces"), Some(key)) = (parts.next(), parts.next()) else {
                    return false;
                };
                let workspace = format!("workspaces/{key}");
                self.assignments
                    .values()
                    .any(|a| self.holds(subject, a) && self.scope(a) == workspace)
            }
            Some(Reach::Here) | None => false,
        }
    }

    fn is_on(&self, switch: &Switch) -> bool {
        match switch {
            Switch::Role { subject, role, scope, .. } => self.assignments.values().any(|a| {
                let named =
                    self.roles.get(&a.role).is_some_and(|known| known.key.as_str() == *role);
                a.holder == Holder::Subject(*subject) && named && self.scope(a) == *scope
            }),
            Switch::Active { user, .. } => {
                self.members.get(&SubjectId::User(*user)) == Some(&MemberStatus::Active)
            }
            Switch::InGroup { user, .. } => self.joined.iter().any(|(_, joined)| joined == user),
            Switch::Key { key, .. } => self.keys.get(key).is_some_and(|(_, live)| *live),
            Switch::Session { session, .. } => !self.ended.contains(session),
        }
    }
}
