//! What can be seen of two tenants and their people: by the model here, by the server in `stage`.

use rolecall::proto as pb;

use super::{
    model::{Invitation, Model, Session, State, Status, Time},
    verbs::{Kind, PEOPLE, Place, TENANTS, Who},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Of those who have one, whether it is disabled.
    pub accounts: Vec<Option<pb::UserStatus>>,
    pub tenants: Vec<ShownTenant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownTenant {
    pub status: pb::TenantStatus,
    pub administrators: usize,
    pub warnings: Vec<String>,
    pub seats: Seats,
    pub members: Vec<Listed>,
    /// By their number.
    pub invitations: Vec<(usize, pb::InvitationStatus)>,
    pub answers: Vec<(Question, pb::Reason)>,
    /// What comes of calling by a session of the tenant.
    pub uses: Vec<(usize, String)>,
}

/// A member, or somebody who is invited; with the time from when they can be purged.
pub type Listed = (Who, pb::MembershipStatus, pb::MemberKind, Option<Time>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seats {
    pub limit: Option<i64>,
    pub internal: i64,
    pub external: i64,
    pub invited: i64,
    pub over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    pub subject: Subject,
    pub word: &'static str,
    /// On this workspace, or on the tenant.
    pub place: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Person(Who),
    /// By its number.
    Session(usize),
}

impl Model {
    pub fn shown(&self) -> Shown {
        let account = |who: Who| {
            self.accounts[who].map(|account| match account.disabled {
                true => pb::UserStatus::Disabled,
                false => pb::UserStatus::Active,
            })
        };
        Shown {
            accounts: (0..PEOPLE).map(account).collect(),
            tenants: (0..TENANTS).map(|at| self.shown_tenant(at)).collect(),
        }
    }

    fn shown_tenant(&self, at: Place) -> ShownTenant {
        let (now, tenant) = (self.now, &self.tenants[at]);
        let administrators = self.administrators(at);
        let warning = match administrators {
            _ if tenant.status == pb::TenantStatus::Pending => None,
            0 => Some("NO_ADMINISTRATOR"),
            1 => Some("SINGLE_ADMINISTRATOR"),
            _ => None,
        };
        let status = match (tenant.status, administrators) {
            (pb::TenantStatus::Active, 0) => pb::TenantStatus::NoAdministrator,
            (status, _) => status,
        };
        let uses = self.sessions_of(at).map(|(n, session)| {
            let flaw = self.session_flaw(session);
            (n, flaw.unwrap_or("OK").to_owned())
        });
        let asked = self.questions(at).into_iter();
        ShownTenant {
            status,
            administrators,
            warnings: warning.into_iter().map(str::to_owned).collect(),
            seats: Seats {
                limit: tenant.seats,
                internal: tenant.active(Kind::Internal),
                external: tenant.active(Kind::External),
                invited: tenant.open_invitations(now),
                over: tenant.seats.is_some_and(|limit| tenant.used(now) > limit),
            },
            members: self.listed(at),
            invitations: tenant
                .invitations
                .iter()
                .enumerate()
                .filter_map(|(n, invitation)| Some((n, invitation.status(now)?)))
                .collect(),
            answers: asked.map(|question| (question, self.answer(at, question))).collect(),
            uses: uses.collect(),
        }
    }

    fn listed(&self, at: Place) -> Vec<Listed> {
        let tenant = &self.tenants[at];
        let members = tenant.members.iter().filter_map(|(who, member)| {
            let status = match member.status {
                Status::Active => pb::MembershipStatus::Active,
                Status::Suspended => pb::MembershipStatus::Suspended,
                Status::Removed | Status::Purged => return None,
            };
            Some((*who, status, member.kind.shown(), member.purge_at))
        });
        let invited = tenant.invitations.iter().filter(|i| i.is_open(self.now));
        let pending = pb::MembershipStatus::Pending;
        let invited = invited.map(|i| (i.who, pending, i.kind.shown(), None));
        let mut listed: Vec<_> = members.chain(invited).collect();
        listed.sort_unstable();
        listed
    }

    /// What is asked about the tenant: its people and their sessions may read files, on the newest
    /// workspace too, and see the members.
    pub fn questions(&self, at: Place) -> Vec<Question> {
        let people = (0..PEOPLE).filter(|who| self.accounts[*who].is_some()).map(Subject::Person);
        let sessions = self.sessions.iter().enumerate().filter(|(_, session)| !session.orphan);
        let subjects = people.chain(sessions.map(|(n, _)| Subject::Session(n)));
        let newest = self.tenants[at].workspace().map(|n| ("files.read", Some(n)));
        let asked: Vec<_> =
            [("files.read", None), ("iam.members.read", None)].into_iter().chain(newest).collect();
        subjects
            .flat_map(|subject| {
                asked.iter().map(move |(word, place)| Question { subject, word, place: *place })
            })
            .collect()
    }

    fn answer(&self, at: Place, Question { subject, word, place }: Question) -> pb::Reason {
        let who = match subject {
            Subject::Person(who)
                if self.is_disabled(who) && self.tenants[at].present(who).is_ok() =>
            {
                return pb::Reason::AccountDisabled;
            }
            Subject::Person(who) => who,
            Subject::Session(n) if self.sessions[n].at != at => {
                return pb::Reason::SessionElsewhere;
            }
            Subject::Session(n) => match self.credential_flaw(&self.sessions[n]) {
                Some("SESSION_EXPIRED") => return pb::Reason::SessionExpired,
                Some("ACCOUNT_DISABLED") => return pb::Reason::AccountDisabled,
                Some(_) => return pb::Reason::SessionEnded,
                None => self.sessions[n].who,
            },
        };
        let tenant = &self.tenants[at];
        match tenant.status {
            pb::TenantStatus::Pending => return pb::Reason::TenantPending,
            pb::TenantStatus::Suspended => return pb::Reason::TenantSuspended,
            pb::TenantStatus::Deleted => return pb::Reason::TenantDeleted,
            _ => {}
        }
        let Ok(member) = tenant.present(who) else { return pb::Reason::NotAMember };
        if member.status == Status::Suspended {
            return pb::Reason::MembershipSuspended;
        }
        if place.is_some_and(|n| !tenant.workspaces[n]) {
            return pb::Reason::WorkspaceUnknown;
        }
        let through_group = tenant.group.iter().filter(|_| member.in_group);
        let through_group = through_group.map(|role| (*role, None, None));
        let own = member.held.iter().map(|((role, held_on), ends)| (*role, *held_on, *ends));
        let matching: Vec<_> = own
            .chain(through_group)
            .filter(|(role, held_on, _)| {
                tenant.gives(*role, word) && (held_on.is_none() || *held_on == place)
            })
            .collect();
        let lasts = |ends: Option<_>| ends.is_none_or(|ends| ends > self.now);
        match matching.as_slice() {
            [] => pb::Reason::NoRole,
            some if some.iter().any(|(.., ends)| lasts(*ends)) => pb::Reason::Allowed,
            _ => pb::Reason::AssignmentExpired,
        }
    }

    pub fn sessions_of(&self, at: Place) -> impl Iterator<Item = (usize, &Session)> {
        let sessions = self.sessions.iter().enumerate();
        sessions.filter(move |(_, session)| session.at == at && !session.orphan)
    }

    /// Why a session itself is worth nothing.
    fn credential_flaw(&self, session: &Session) -> Option<&'static str> {
        if session.expires <= self.now {
            return Some("SESSION_EXPIRED");
        }
        if self.is_disabled(session.who) {
            return Some("ACCOUNT_DISABLED");
        }
        // Who is no member at all is told that.
        let is_member = self.tenants[session.at].present(session.who).is_ok();
        (session.ended || session.outdated && is_member).then_some("SESSION_ENDED")
    }

    /// Why nobody can call by a session.
    pub(super) fn session_flaw(&self, session: &Session) -> Option<&'static str> {
        self.credential_flaw(session).or(match self.tenants[session.at].status {
            pb::TenantStatus::Suspended => Some("TENANT_SUSPENDED"),
            pb::TenantStatus::Deleted => Some("TENANT_DELETED"),
            pb::TenantStatus::Pending => Some("SESSION_ENDED"),
            _ => session.outdated.then_some("SESSION_ENDED"),
        })
    }
}

impl Invitation {
    fn status(&self, now: Time) -> Option<pb::InvitationStatus> {
        match self.state {
            State::Pending if self.is_open(now) => Some(pb::InvitationStatus::Pending),
            State::Pending | State::Expired => Some(pb::InvitationStatus::Expired),
            State::Accepted => Some(pb::InvitationStatus::Accepted),
            State::Cancelled => Some(pb::InvitationStatus::Cancelled),
            State::Declined => Some(pb::InvitationStatus::Declined),
            State::Gone => None,
        }
    }
}

impl Kind {
    pub fn shown(self) -> pb::MemberKind {
        match self {
            Self::Internal => pb::MemberKind::Internal,
            Self::External => pb::MemberKind::External,
        }
    }
}

impl Shown {
    /// What differs from what was expected, a line each.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let lines = |shown: &Self| -> Vec<String> {
            let mut lines: Vec<String> = shown
                .accounts
                .iter()
                .enumerate()
                .map(|(who, a)| format!("account {who}: {a:?}"))
                .collect();
            for (at, tenant) in shown.tenants.iter().enumerate() {
                let ShownTenant { status, administrators, warnings, seats, .. } = tenant;
                lines.push(format!(
                    "tenant {at}: {status:?} {administrators} {warnings:?} {seats:?}"
                ));
                lines.extend(tenant.members.iter().map(|m| format!("tenant {at}: member {m:?}")));
                lines.extend(
                    tenant.invitations.iter().map(|i| format!("tenant {at}: invitation {i:?}")),
                );
                lines.extend(tenant.answers.iter().map(|a| format!("tenant {at}: {a:?}")));
                lines.extend(tenant.uses.iter().map(|u| format!("tenant {at}: session {u:?}")));
            }
            lines
        };
        let (shown, expected) = (lines(self), lines(expected));
        let only = |these: &[String], others: &[String], who: &str| -> Vec<String> {
            these
                .iter()
                .filter(|l| !others.contains(l))
                .map(|l| format!("{who} shows {l}"))
                .collect()
        };
        let mut differences = only(&shown, &expected, "the server");
        differences.extend(only(&expected, &shown, "the model"));
        differences
    }
}
