//! What decisions are made from, at one revision. A changed copy shares what did not change, so that a
//! write in a tenant of a million members stays cheap, and an assignment takes a dozen bytes.

use std::{
    mem::offset_of,
    slice,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use foldhash::quality;
use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};

use super::{
    Permission,
    groups::Groups,
    members::{Head, Member, MemberDraft, Members},
    numbers::Numbers,
    packed::{Draft, TENANT, dates},
    record::{
        Account, ApiKey, Assignment, MemberStatus, Record, Role, TenantStatus, Time, Workspace,
    },
    roles::{Matrix, Pool, Roles, Row},
    workspaces::Workspaces,
};
use crate::ids::{
    Holder, Key, Revision, RoleId, SessionId, SubjectId, TenantId, UserId, WorkspaceId,
};

/// A map that shares what did not change between its copies.
pub type Map<K, V> = GenericHashMap<K, V, quality::RandomState, DefaultSharedPtr>;

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
    pub revision: Revision,
    pub directory: Directory,
    /// The facts of the installation, which every decision reads.
    system: Option<Arc<TenantFacts>>,
}

/// What is known of every tenant and account without loading any.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub tenants: Map<Key, TenantEntry>,
    pub tenant_keys: Map<TenantId, Key>,
    /// By SHA-256 of the key.
    pub api_keys: Map<[u8; 32], Arc<ApiKey>>,
    /// Accounts that were disabled or whose sessions were ended at least once.
    pub accounts: Map<UserId, Account>,
    pub ended_sessions: Map<SessionId, Time>,
}

#[derive(Debug, Clone)]
pub struct TenantEntry {
    pub id: TenantId,
    pub status: TenantStatus,
    facts: Option<Arc<TenantFacts>>,
}

impl TenantEntry {
    /// The facts of the tenant, when they are loaded.
    #[must_use]
    pub fn facts(&self) -> Option<&Arc<TenantFacts>> {
        self.facts.as_ref()
    }
}

/// One tenant's members, roles and scopes. What most questions read comes first and lies in one line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct TenantFacts {
    /// When somebody last asked: what nobody asks for may be forgotten and loaded again.
    asked: AtomicI64,
    /// That of `roles`, one step nearer to the decision.
    pub(super) matrix: Arc<Matrix>,
    pub(super) workspaces: Workspaces,
    pub(super) users: Members,
    pub(super) groups: Groups,
    pub id: TenantId,
    pub(super) services: Members,
    pub(super) roles: Arc<Roles>,
    pub(super) workspace_numbers: Arc<Numbers>,
}

const _: () = assert!(offset_of!(TenantFacts, users) + Members::ROOT <= 64);

impl Clone for TenantFacts {
    fn clone(&self) -> Self {
        Self {
            asked: AtomicI64::new(self.asked.load(Ordering::Relaxed)),
            matrix: self.matrix.clone(),
            workspaces: self.workspaces.clone(),
            users: self.users.clone(),
            groups: self.groups.clone(),
            id: self.id,
            services: self.services.clone(),
            roles: self.roles.clone(),
            workspace_numbers: self.workspace_numbers.clone(),
        }
    }
}

impl Facts {
    #[must_use]
    pub fn new(revision: Revision, directory: Directory) -> Self {
        Self { revision, directory, system: None }
    }

    #[must_use]
    pub fn tenant(&self, id: TenantId) -> Option<&Arc<TenantFacts>> {
        if id == TenantId::SYSTEM {
            return self.system.as_ref();
        }
        let key = self.directory.tenant_keys.get(&id)?;
        self.directory.tenants.get(key)?.facts.as_ref()
    }

    /// The facts of the installation, when they are loaded.
    #[must_use]
    pub fn system(&self) -> Option<&Arc<TenantFacts>> {
        self.system.as_ref()
    }

    /// Adds the facts of a tenant that the directory knows.
    pub fn insert_tenant(&mut self, tenant: TenantFacts) {
        self.set_tenant(tenant.id, Some(Arc::new(tenant)));
    }

    /// Forgets the facts of a tenant; the next question has to load them.
    pub fn evict_tenant(&mut self, id: TenantId) {
        self.set_tenant(id, None);
    }

    fn set_tenant(&mut self, id: TenantId, facts: Option<Arc<TenantFacts>>) {
        if id == TenantId::SYSTEM {
            self.system.clone_from(&facts);
        }
        if let Some(key) = self.directory.tenant_keys.get(&id)
            && let Some(entry) = self.directory.tenants.get_mut(key)
        {
            entry.facts = facts;
        }
    }

    /// The facts of every tenant that is loaded.
    pub fn loaded(&self) -> impl Iterator<Item = &Arc<TenantFacts>> {
        self.directory.tenants.values().filter_map(|entry| entry.facts.as_ref())
    }

    /// Applies one step. A tenant that is not loaded only changes in the directory.
    pub fn apply(&mut self, step: &Transition) {
        self.directory.apply(step);
        if self.tenant(step.tenant).is_none() {
            return;
        }
        let Some(key) = self.directory.tenant_keys.get(&step.tenant) else { return };
        if step.tenant == TenantId::SYSTEM {
            self.system = None;
        }
        if let Some(entry) = self.directory.tenants.get_mut(key)
            && let Some(tenant) = &mut entry.facts
        {
            Arc::make_mut(tenant).apply(step.before.as_ref(), step.after.as_ref());
            if step.tenant == TenantId::SYSTEM {
                self.system = Some(tenant.clone());
            }
        }
    }
}

impl Directory {
    pub fn apply(&mut self, step: &Transition) {
        match (&step.before, &step.after) {
            (_, Some(Record::Tenant(tenant))) => {
                let facts = self.tenants.get(&tenant.key).and_then(|entry| entry.facts.clone());
                let entry = TenantEntry { id: tenant.id, status: tenant.status, facts };
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

/// What decisions read of one tenant.
impl TenantFacts {
    pub(super) fn matching(&self, permission: Permission<'_>) -> Row<'_> {
        self.matrix.row(permission.as_str())
    }

    /// Roughly what these facts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.workspaces.bytes()
            + self.workspace_numbers.bytes()
            + self.roles.bytes()
            + self.groups.bytes()
            + self.users.bytes()
            + self.services.bytes()
    }

    /// Notes that somebody asked at this time, in microseconds since 1970.
    pub fn ask(&self, now: i64) {
        // A write takes the cache line from the other cores: once in a while is enough.
        if now - self.asked.load(Ordering::Relaxed) > 1_000_000 {
            self.asked.store(now, Ordering::Relaxed);
        }
    }

    /// When somebody last asked, give or take a second, in microseconds since 1970.
    #[must_use]
    pub fn asked(&self) -> i64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Touches what the way to a member reads first, and that to a workspace.
    #[inline]
    pub(super) fn approach(&self, subject: SubjectId, workspace: Option<&str>) {
        match subject {
            SubjectId::User(id) => self.users.approach(id.uuid().as_u128()),
            SubjectId::Service(id) => self.services.approach(id.uuid().as_u128()),
        }
        if let Some(key) = workspace {
            self.workspaces.approach(key);
        }
    }

    #[inline]
    pub(super) fn find(&self, subject: SubjectId) -> Option<Member<'_>> {
        match subject {
            SubjectId::User(id) => self.users.get(id.uuid().as_u128()),
            SubjectId::Service(id) => self.services.get(id.uuid().as_u128()),
        }
    }
}

/// Changes.
impl TenantFacts {
    #[must_use]
    pub fn new(id: TenantId) -> Self {
        Self {
            asked: AtomicI64::new(0),
            matrix: Arc::default(),
            workspaces: Workspaces::default(),
            users: Members::default(),
            groups: Groups::default(),
            id,
            services: Members::default(),
            roles: Arc::default(),
            workspace_numbers: Arc::default(),
        }
    }

    /// Uses parts of other tenants' facts that are equal.
    pub fn share(&mut self, pool: &mut Pool) {
        self.change_roles(|roles| roles.share(pool));
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
            Record::Workspace(workspace) => self.put_workspaces(slice::from_ref(workspace)),
            Record::Role(role) => self.change_roles(|roles| roles.change([role.clone()], None)),
            Record::Group(group) => self.groups.put(group.id, &group.key),
            Record::GroupMember(joined) => {
                let n = self.groups.refer(joined.group);
                self.change_member(SubjectId::User(joined.user), |draft| draft.groups.push(n));
            }
            Record::Member(member) => {
                let head = Head::new(member.kind, member.status, member.epoch);
                self.members_mut(member.subject).change(member.subject.uuid().as_u128(), |draft| {
                    let fresh = MemberDraft { head, grants: Vec::new(), groups: Vec::new() };
                    Some(draft.map_or(fresh, |draft| MemberDraft { head, ..draft }))
                });
            }
            Record::Assignment(assignment) => {
                let before = match before {
                    Some(Record::Assignment(before)) => Some(before),
                    _ => None,
                };
                self.replace_assignment(before, Some(assignment));
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
                if let Some(n) = self.workspace_numbers.get(workspace.id.uuid().as_u128()) {
                    self.workspaces = self.workspaces.with([(n, None)]);
                }
            }
            Record::Role(role) => self.change_roles(|roles| roles.change([], Some(role.id))),
            Record::Group(group) => self.groups.take(group.id),
            Record::GroupMember(left) => {
                let n = self.groups.refer(left.group);
                self.change_member(SubjectId::User(left.user), |draft| {
                    draft.groups.retain(|group| *group != n);
                });
            }
            Record::Member(member) => {
                let id = member.subject.uuid().as_u128();
                self.members_mut(member.subject).change(id, |_| None);
            }
            Record::Assignment(assignment) => self.replace_assignment(Some(assignment), None),
            Record::Tenant(_)
            | Record::ApiKey(_)
            | Record::Account(_)
            | Record::SessionEnd(_)
            | Record::Invitation(_) => {}
        }
    }

    /// Puts workspaces, all at once since it takes as long as for one.
    pub(super) fn put_workspaces(&mut self, workspaces: &[Workspace]) {
        let mut changed: Vec<(u32, &str)> = workspaces
            .iter()
            .map(|one| (self.workspace_number(Some(one.id)), one.key.as_str()))
            .collect();
        changed.retain(|(n, key)| self.workspaces.key(*n) != Some(key));
        if !changed.is_empty() {
            let changes = changed.into_iter().map(|(n, key)| (n, Some(key)));
            self.workspaces = self.workspaces.with(changes);
        }
    }

    /// Loads many roles at once; [`TenantFacts::apply`] takes them one by one.
    pub fn set_roles(&mut self, roles: impl IntoIterator<Item = Role>) {
        self.change_roles(|all| all.change(roles, None));
    }

    fn change_roles(&mut self, change: impl FnOnce(&mut Roles)) {
        let roles = Arc::make_mut(&mut self.roles);
        change(roles);
        self.matrix = roles.matrix().clone();
    }

    fn members_mut(&mut self, subject: SubjectId) -> &mut Members {
        match subject {
            SubjectId::User(_) => &mut self.users,
            SubjectId::Service(_) => &mut self.services,
        }
    }

    /// Changes what a member has; nothing for who is not there.
    fn change_member(&mut self, subject: SubjectId, change: impl FnOnce(&mut MemberDraft)) {
        self.members_mut(subject).change(subject.uuid().as_u128(), |draft| {
            let mut draft = draft?;
            change(&mut draft);
            Some(draft)
        });
    }

    fn replace_assignment(&mut self, before: Option<&Assignment>, after: Option<&Assignment>) {
        let (before, after) = (before.map(|a| self.draft(a)), after.map(|a| self.draft(a)));
        for (holder, draft, put) in
            before.map(|(h, d)| (h, d, false)).into_iter().chain(after.map(|(h, d)| (h, d, true)))
        {
            let change = |drafts: &mut Vec<Draft>| {
                if put {
                    drafts.push(draft);
                } else if let Some(at) = drafts.iter().position(|held| *held == draft) {
                    drafts.swap_remove(at);
                }
            };
            match holder {
                Holder::Subject(subject) => {
                    self.change_member(subject, |member| change(&mut member.grants));
                }
                Holder::Group(id) => self.groups.change(id, change),
            }
        }
    }

    fn draft(&mut self, assignment: &Assignment) -> (Holder, Draft) {
        let (starts, ends) = dates(assignment.starts, assignment.ends);
        let draft = Draft {
            role: self.role_number(assignment.role),
            workspace: self.workspace_number(assignment.workspace),
            path: assignment.path.as_str().into(),
            starts,
            ends,
        };
        (assignment.holder, draft)
    }

    pub(super) fn role_number(&mut self, id: RoleId) -> u32 {
        let known = self.roles.number(id);
        known.unwrap_or_else(|| Arc::make_mut(&mut self.roles).refer(id))
    }

    pub(super) fn workspace_number(&mut self, id: Option<WorkspaceId>) -> u32 {
        let Some(id) = id else { return TENANT };
        let id = id.uuid().as_u128();
        let known = self.workspace_numbers.get(id);
        known.unwrap_or_else(|| Arc::make_mut(&mut self.workspace_numbers).number(id))
    }
}

/// Whether somebody counts as a member.
#[must_use]
pub(super) fn is_active(head: Head) -> bool {
    head.status() == MemberStatus::Active
}
