//! What a tenant promises about the life of its members, written as plainly as it is told: what each
//! verb does, or why it is refused, and what then can be seen.

use std::collections::{BTreeMap, BTreeSet};

use rolecall::proto as pb;

use super::verbs::{Kind, PEOPLE, Place, Role, TENANTS, Verb, Who};

/// Hours.
pub type Time = i64;
pub const DAY: Time = 24;
pub const INVITED: Time = 7 * DAY;
pub const RETAINED: Time = 30 * DAY;
pub const SIGNED_IN: Time = 30 * DAY;
/// How long what is given with an end lasts.
pub const DATED: Time = DAY + DAY / 2;

/// The reason of the refusal.
pub type Outcome = Result<(), &'static str>;

#[derive(Debug, Clone)]
pub struct Model {
    pub now: Time,
    /// None: without an account.
    pub accounts: [Option<Account>; PEOPLE],
    pub tenants: [Tenant; TENANTS],
    pub sessions: Vec<Session>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    pub(super) disabled: bool,
}

#[derive(Debug, Clone)]
pub struct Tenant {
    pub(super) status: pb::TenantStatus,
    /// What it was before it was deleted.
    pub(super) before: Option<pb::TenantStatus>,
    /// Whether it has ever had an administrator.
    pub(super) opened: bool,
    pub(super) seats: Option<i64>,
    pub(super) members: BTreeMap<Who, Member>,
    pub invitations: Vec<Invitation>,
    /// What the group carries.
    pub(super) group: BTreeSet<Role>,
    /// Whether the role makes administrators, while there is one.
    pub(super) boss: Option<bool>,
    /// Those that were made, and which of them are there.
    pub(super) workspaces: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    Suspended,
    Removed,
    Purged,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) status: Status,
    pub(super) kind: Kind,
    /// Roles on the tenant or on a workspace, some with an end.
    pub(super) held: BTreeMap<(Role, Option<usize>), Option<Time>>,
    pub(super) in_group: bool,
    pub(super) purge_at: Option<Time>,
}

#[derive(Debug, Clone)]
pub struct Invitation {
    pub who: Who,
    pub(super) kind: Kind,
    pub(super) role: Option<(Role, Option<usize>)>,
    /// The role or its workspace is gone.
    pub(super) void: bool,
    /// Who vouches for it; none: an operator.
    pub(super) by: Option<Who>,
    pub(super) state: State,
    pub generation: i32,
    pub(super) expires: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Accepted,
    Cancelled,
    Declined,
    /// Noted as such, when another one took its place.
    Expired,
    /// Erased with its person.
    Gone,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub at: Place,
    pub who: Who,
    /// Opened by the person, with the password.
    pub(super) own: bool,
    pub(super) expires: Time,
    /// By name, or with the account.
    pub(super) ended: bool,
    /// Opened under a membership that was suspended or ended since.
    pub(super) outdated: bool,
    /// Its account is gone.
    pub orphan: bool,
}

impl Tenant {
    fn new(administrator: Who) -> Self {
        let invitation = Invitation {
            who: administrator,
            kind: Kind::Internal,
            role: Some((Role::Administrator, None)),
            void: false,
            by: None,
            state: State::Pending,
            generation: 1,
            expires: INVITED,
        };
        Self {
            status: pb::TenantStatus::Pending,
            before: None,
            opened: false,
            seats: None,
            members: BTreeMap::new(),
            invitations: vec![invitation],
            group: BTreeSet::new(),
            boss: Some(true),
            workspaces: Vec::new(),
        }
    }

    /// The newest workspace, also one that is gone.
    pub fn workspace(&self) -> Option<usize> {
        self.workspaces.len().checked_sub(1)
    }

    pub(super) fn gives(&self, role: Role, word: &str) -> bool {
        match role {
            Role::Administrator => true,
            Role::Boss if self.boss == Some(true) => word == "iam.administer",
            Role::Boss | Role::Reader => word == "files.read",
        }
    }

    pub(super) fn present(&self, who: Who) -> Result<&Member, &'static str> {
        let member = self.members.get(&who);
        let present = |m: &&Member| matches!(m.status, Status::Active | Status::Suspended);
        member.filter(present).ok_or("NOT_FOUND")
    }

    pub(super) fn present_mut(&mut self, who: Who) -> Result<&mut Member, &'static str> {
        self.present(who)?;
        self.members.get_mut(&who).ok_or("NOT_FOUND")
    }

    pub(super) fn is_known(&self, who: Who) -> bool {
        self.members.get(&who).is_some_and(|member| member.status != Status::Purged)
    }

    pub(super) fn check_role(&self, role: Role, place: Option<Option<usize>>) -> Outcome {
        let there = place.is_none_or(|newest| newest.is_some_and(|n| self.workspaces[n]));
        let known = role != Role::Boss || self.boss.is_some();
        if there && known { Ok(()) } else { Err("INVALID_FIELD") }
    }

    /// Neither a member nor invited; an invitation that is past its time makes room.
    pub(super) fn check_stranger(&mut self, who: Who, now: Time) -> Outcome {
        self.check_no_member(who)?;
        let pending = |i: &&mut Invitation| i.who == who && i.state == State::Pending;
        match self.invitations.iter_mut().find(pending) {
            Some(invitation) if invitation.expires > now => Err("ALREADY_EXISTS"),
            Some(invitation) => {
                invitation.state = State::Expired;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_no_member(&self, who: Who) -> Outcome {
        if self.present(who).is_ok() { Err("ALREADY_EXISTS") } else { Ok(()) }
    }

    pub(super) fn add(&mut self, who: Who, kind: Kind) -> Result<&mut Member, &'static str> {
        self.check_no_member(who)?;
        let (held, status) = (BTreeMap::new(), Status::Active);
        let member = Member { status, kind, held, in_group: false, purge_at: None };
        self.members.insert(who, member);
        self.present_mut(who)
    }

    pub(super) fn active(&self, kind: Kind) -> i64 {
        let counted = |m: &&Member| m.status == Status::Active && m.kind == kind;
        self.members.values().filter(counted).count().try_into().unwrap()
    }

    pub(super) fn open_invitations(&self, now: Time) -> i64 {
        self.invitations.iter().filter(|i| i.is_open(now)).count().try_into().unwrap()
    }

    pub(super) fn used(&self, now: Time) -> i64 {
        self.active(Kind::Internal) + self.active(Kind::External) + self.open_invitations(now)
    }

    fn takes_too_many(&self, before: &Self, now: Time) -> bool {
        let used = self.used(now);
        used > before.used(now) && self.seats.is_some_and(|seats| used > seats)
    }
}

impl Invitation {
    pub(super) fn is_open(&self, now: Time) -> bool {
        self.state == State::Pending && self.expires > now
    }

    /// What its link leads to, if to anything.
    pub(super) fn check_link(&self, old: bool, now: Time) -> Outcome {
        match self.state {
            _ if old => Err("NOT_FOUND"),
            State::Cancelled | State::Gone => Err("NOT_FOUND"),
            State::Declined => Err("INVITATION_DECLINED"),
            State::Accepted => Ok(()),
            State::Pending if self.is_open(now) => Ok(()),
            State::Pending | State::Expired => Err("INVITATION_EXPIRED"),
        }
    }
}

impl Model {
    /// Two tenants that wait for their administrators, who are different people.
    pub fn new() -> Self {
        Self {
            now: 0,
            accounts: [None; PEOPLE],
            tenants: [Tenant::new(0), Tenant::new(1)],
            sessions: Vec::new(),
        }
    }

    /// Does it, or says why it is refused: then nothing of it happened.
    pub fn act(&mut self, verb: Verb) -> Outcome {
        if let Verb::Wait { days } = verb {
            self.now += days * DAY;
            return Ok(());
        }
        let mut after = self.clone();
        after.apply(verb)?;
        for (at, tenant) in after.tenants.iter().enumerate() {
            if tenant.takes_too_many(&self.tenants[at], after.now) {
                return Err("SEATS_EXHAUSTED");
            }
            // Who secures an account is never held up, and what waits for its first has none to lose.
            let free =
                matches!(verb, Verb::Disable { .. }) || tenant.status == pb::TenantStatus::Pending;
            let opens = tenant.status == pb::TenantStatus::Active
                && self.tenants[at].status != pb::TenantStatus::Active;
            let had_one = opens || self.administrators(at) > 0;
            if !free && had_one && after.administrators(at) == 0 {
                return Err("LAST_ADMINISTRATOR");
            }
        }
        *self = after;
        Ok(())
    }

    /// Whether there is anything that a call could name.
    pub fn can_be_asked(&self, verb: Verb) -> bool {
        match verb {
            Verb::Resend { at, who, nth }
            | Verb::Cancel { at, who, nth }
            | Verb::Accept { at, who, nth, .. }
            | Verb::Decline { at, who, nth, .. } => self.invitation(at, who, nth).is_some(),
            Verb::Invite { at, by, .. } => {
                by.is_none_or(|who| self.newest_session(at, who).is_some())
            }
            Verb::Leave { at, who } => self.newest_session(at, who).is_some(),
            Verb::Take { at, who, role, there } => {
                let member = self.tenants[at].members.get(&who);
                let place = self.place(at, there);
                let held = |member: &Member| member.held.contains_key(&(role, place.flatten()));
                place != Some(None) && member.is_some_and(held)
            }
            Verb::TakeGroup { at, role } => self.tenants[at].group.contains(&role),
            Verb::DeleteWorkspace { at } => self.tenants[at].workspace().is_some(),
            Verb::Suspend { who, .. }
            | Verb::Reactivate { who, .. }
            | Verb::Remove { who, .. }
            | Verb::Purge { who, .. }
            | Verb::DeleteAccount { who }
            | Verb::SetKind { who, .. }
            | Verb::Give { who, .. }
            | Verb::JoinGroup { who, .. }
            | Verb::LeaveGroup { who, .. }
            | Verb::Appoint { who, .. }
            | Verb::Disable { who }
            | Verb::Enable { who }
            | Verb::OpenSession { who, .. }
            | Verb::EndSessions { who, .. } => self.accounts[who].is_some(),
            _ => true,
        }
    }

    /// The newest workspace where a role is to lie `there`, if there ever was one; else the tenant.
    pub(super) fn place(&self, at: Place, there: bool) -> Option<Option<usize>> {
        there.then(|| self.tenants[at].workspace())
    }

    /// Of the invitations of a person, newest first, the one that `nth` comes to.
    pub fn invitation(&self, at: Place, who: Who, nth: usize) -> Option<usize> {
        let invitations = self.tenants[at].invitations.iter().enumerate().rev();
        let listed: Vec<usize> = invitations
            .filter(|(_, i)| i.who == who && i.state != State::Gone)
            .map(|(n, _)| n)
            .collect();
        listed.get(nth % listed.len().max(1)).copied()
    }

    pub fn newest_session(&self, at: Place, who: Who) -> Option<usize> {
        self.sessions.iter().rposition(|s| s.at == at && s.who == who && !s.orphan)
    }

    /// A session by which the person can prove everywhere who they are.
    pub fn own_session(&self, who: Who) -> Option<usize> {
        let good = |s: &Session| s.who == who && s.own && self.session_flaw(s).is_none();
        self.sessions.iter().position(good)
    }

    pub(super) fn is_disabled(&self, who: Who) -> bool {
        self.accounts[who].is_some_and(|account| account.disabled)
    }

    /// Refuses whoever may not invite, or may not give a role for good. People without the role that
    /// allows everything may neither.
    pub(super) fn check_inviter(&self, at: Place, who: Who, role: Option<Role>) -> Outcome {
        let tenant = &self.tenants[at];
        let open = tenant.status == pb::TenantStatus::Active && !self.is_disabled(who);
        let member = tenant.present(who).ok().filter(|m| open && m.status == Status::Active);
        let all = Role::Administrator;
        let through_group = member.is_some_and(|m| m.in_group) && tenant.group.contains(&all);
        let ends = match member.and_then(|member| member.held.get(&(all, None))) {
            _ if through_group => None,
            Some(ends) if ends.is_none_or(|ends| ends > self.now) => *ends,
            _ => return Err("PERMISSION_MISSING"),
        };
        match (role, ends) {
            (Some(_), Some(_)) => Err("ROLE_NOT_GRANTABLE"),
            _ => Ok(()),
        }
    }

    pub(super) fn administrators(&self, at: Place) -> usize {
        let tenant = &self.tenants[at];
        let makes_one = |role: Role| tenant.gives(role, "iam.administer");
        let administers = |(who, member): &(&Who, &Member)| {
            let own = member
                .held
                .iter()
                .any(|((role, place), ends)| place.is_none() && ends.is_none() && makes_one(*role));
            let through_group = member.in_group && tenant.group.iter().any(|role| makes_one(*role));
            member.status == Status::Active
                && member.kind == Kind::Internal
                && !self.is_disabled(**who)
                && (own || through_group)
        };
        tenant.members.iter().filter(administers).count()
    }
}
