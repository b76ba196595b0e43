//! What decisions are made from, at one revision. Maps are persistent: a changed copy shares what did
//! not change, so that a write in a tenant of a million members stays cheap.

use std::sync::Arc;

use imbl::{HashMap, HashSet};

use super::{PermissionSet, record::*};
use crate::ids::{GroupId, Key, RoleId, SessionId, SubjectId, TenantId, UserId, WorkspaceId};

/// One step of an event: a record of a tenant replaced by another.
#[derive(Debug, Clone)]
pub struct Transition {
    pub tenant: TenantId,
    pub before: Option<Record>,
    pub after: Option<Record>,
}

/// Everything a decision reads, at one revision.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub revision: u64,
    pub directory: Directory,
    tenants: HashMap<TenantId, Arc<TenantFacts>>,
}

/// What is known of every tenant and account without loading any.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub tenants: HashMap<Key, TenantEntry>,
    pub tenant_keys: HashMap<TenantId, Key>,
    /// By SHA-256 of the key.
    pub api_keys: HashMap<[u8; 32], Arc<ApiKey>>,
    /// Accounts that were disabled or whose sessions were ended at least once.
    pub accounts: HashMap<UserId, Account>,
    pub ended_sessions: HashMap<SessionId, Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantEntry {
    pub id: TenantId,
    pub status: TenantStatus,
}

/// One tenant's members, roles and scopes.
#[derive(Debug, Clone)]
pub struct TenantFacts {
    pub id: TenantId,
    pub workspaces: HashMap<Key, WorkspaceId>,
    pub workspace_keys: HashMap<WorkspaceId, Key>,
    pub roles: HashMap<RoleId, Arc<Role>>,
    pub compiled: HashMap<RoleId, Arc<CompiledRole>>,
    pub groups: HashMap<GroupId, Arc<GroupFacts>>,
    pub members: HashMap<SubjectId, Arc<MemberFacts>>,
}

/// A role with all that it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompiledRole {
    pub permissions: PermissionSet,
    pub may_grant: HashSet<RoleId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFacts {
    pub key: Key,
    pub assignments: Vec<Arc<Assignment>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFacts {
    pub member: Member,
    pub groups: Vec<GroupId>,
    pub assignments: Vec<Arc<Assignment>>,
}

impl Facts {
    #[must_use]
    pub fn new(revision: u64, directory: Directory) -> Self {
        Self { revision, directory, tenants: HashMap::new() }
    }

    #[must_use]
    pub fn tenant(&self, id: TenantId) -> Option<&Arc<TenantFacts>> {
        self.tenants.get(&id)
    }

    pub fn insert_tenant(&mut self, tenant: TenantFacts) {
        self.tenants.insert(tenant.id, Arc::new(tenant));
    }

    /// Applies one step. A tenant that is not loaded only changes in the directory.
    pub fn apply(&mut self, step: &Transition) {
        self.directory.apply(step);
        if let Some(tenant) = self.tenants.get_mut(&step.tenant) {
            Arc::make_mut(tenant).apply(step.before.as_ref(), step.after.as_ref());
        }
    }
}

impl Directory {
    pub fn apply(&mut self, step: &Transition) {
        match (&step.before, &step.after) {
            (_, Some(Record::Tenant(tenant))) => {
                let entry = TenantEntry { id: tenant.id, status: tenant.status };
                self.tenants.insert(tenant.key.clone(), entry);
                self.tenant_keys.insert(tenant.id, tenant.key.clone());
            }
            (_, Some(Record::ApiKey(key))) => {
                self.api_keys.insert(key.hash, Arc::new(key.clone()));
            }
            (Some(Record::ApiKey(key)), None) => {
                self.api_keys.remove(&key.hash);
            }
            (_, Some(Record::Account(account))) => {
                self.accounts.insert(account.user, *account);
            }
            (_, Some(Record::SessionEnd(end))) => {
                self.ended_sessions.insert(end.session, end.expires);
            }
            _ => {}
        }
    }

    /// Forgets ends of sessions that are over by themselves.
    pub fn forget_ended(&mut self, now: Time) {
        self.ended_sessions.retain(|_, expires| *expires > now);
    }

    #[must_use]
    pub fn account(&self, user: UserId) -> Account {
        let untouched = Account { user, disabled: false, epoch: 0 };
        self.accounts.get(&user).copied().unwrap_or(untouched)
    }
}

impl TenantFacts {
    #[must_use]
    pub fn new(id: TenantId) -> Self {
        Self {
            id,
            workspaces: HashMap::new(),
            workspace_keys: HashMap::new(),
            roles: HashMap::new(),
            compiled: HashMap::new(),
            groups: HashMap::new(),
            members: HashMap::new(),
        }
    }

    /// Replaces `before` by `after`; either may be absent.
    pub fn apply(&mut self, before: Option<&Record>, after: Option<&Record>) {
        match (before, after) {
            (before, Some(after)) => self.put(before, after),
            (Some(before), None) => self.take(before),
            (None, None) => {}
        }
    }

    fn put(&mut self, before: Option<&Record>, after: &Record) {
        match after {
            Record::Workspace(workspace) => {
                self.workspaces.insert(workspace.key.clone(), workspace.id);
                self.workspace_keys.insert(workspace.id, workspace.key.clone());
            }
            Record::Role(role) => {
                self.roles.insert(role.id, Arc::new(role.clone()));
                self.compile();
            }
            Record::Group(group) => {
                let fresh = GroupFacts { key: group.key.clone(), assignments: Vec::new() };
                let entry = self.groups.entry(group.id).or_insert_with(|| Arc::new(fresh));
                Arc::make_mut(entry).key = group.key.clone();
            }
            Record::GroupMember(joined) => {
                if let Some(member) = self.members.get_mut(&SubjectId::User(joined.user)) {
                    Arc::make_mut(member).groups.push(joined.group);
                }
            }
            Record::Member(member) => {
                let fresh = MemberFacts { member: *member, groups: vec![], assignments: vec![] };
                let entry = self.members.entry(member.subject).or_insert_with(|| Arc::new(fresh));
                Arc::make_mut(entry).member = *member;
            }
            Record::Assignment(assignment) => {
                if let Some(before) = before {
                    self.take(before);
                }
                if let Some(held) = self.held_by(assignment) {
                    held.push(Arc::new(assignment.clone()));
                }
            }
            Record::Tenant(_)
            | Record::ApiKey(_)
            | Record::Account(_)
            | Record::SessionEnd(_)
            | Record::Invitation(_) => {}
        }
    }

    fn take(&mut self, before: &Record) {
        match before {
            Record::Workspace(workspace) => {
                self.workspaces.remove(&workspace.key);
                self.workspace_keys.remove(&workspace.id);
            }
            Record::Role(role) => {
                self.roles.remove(&role.id);
                self.compile();
            }
            Record::Group(group) => {
                self.groups.remove(&group.id);
            }
            Record::GroupMember(left) => {
                if let Some(member) = self.members.get_mut(&SubjectId::User(left.user)) {
                    Arc::make_mut(member).groups.retain(|g| *g != left.group);
                }
            }
            Record::Member(member) => {
                self.members.remove(&member.subject);
            }
            Record::Assignment(assignment) => {
                if let Some(held) = self.held_by(assignment) {
                    held.retain(|a| a.id != assignment.id);
                }
            }
            Record::Tenant(_)
            | Record::ApiKey(_)
            | Record::Account(_)
            | Record::SessionEnd(_)
            | Record::Invitation(_) => {}
        }
    }

    fn held_by(&mut self, assignment: &Assignment) -> Option<&mut Vec<Arc<Assignment>>> {
        if let Some(group) = assignment.holder.group() {
            let group = self.groups.get_mut(&group)?;
            return Some(&mut Arc::make_mut(group).assignments);
        }
        let member = self.members.get_mut(&assignment.holder.subject()?)?;
        Some(&mut Arc::make_mut(member).assignments)
    }

    /// Loads many roles at once; [`TenantFacts::apply`] takes them one by one.
    pub fn set_roles(&mut self, roles: impl IntoIterator<Item = Role>) {
        self.roles = roles.into_iter().map(|role| (role.id, Arc::new(role))).collect();
        self.compile();
    }

    fn compile(&mut self) {
        self.compiled =
            self.roles.keys().map(|id| (*id, Arc::new(compile(&self.roles, *id)))).collect();
    }
}

/// The closure of a role over its includes. Cycles are refused where roles are written, and harmless
/// here.
fn compile(roles: &HashMap<RoleId, Arc<Role>>, id: RoleId) -> CompiledRole {
    let mut compiled = CompiledRole::default();
    let mut seen = std::collections::HashSet::from([id]);
    let mut pending = vec![id];
    while let Some(role) = pending.pop().and_then(|id| roles.get(&id)) {
        role.permissions.iter().for_each(|p| compiled.permissions.insert(p));
        compiled.may_grant.extend(role.may_grant.iter().copied());
        pending.extend(role.includes.iter().copied().filter(|id| seen.insert(*id)));
    }
    compiled
}
