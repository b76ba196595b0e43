//! What can happen in the life of a member, and how often each of it does.

use proptest::prelude::*;

/// A tenant, a person: their places in the model.
pub type Place = usize;
pub type Who = usize;

pub const TENANTS: usize = 2;
pub const PEOPLE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Built in; may do everything.
    Administrator,
    /// Makes an administrator or lets read files, as [`Verb::EditBoss`] has it; may be gone.
    Boss,
    /// Lets read files.
    Reader,
}

impl Role {
    pub fn key(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Boss => "boss",
            Self::Reader => "reader",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    External,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// By an operator, or by the newest session of one of the people there. Without a role it is the
    /// default one; `there` is on the newest workspace.
    Invite {
        at: Place,
        by: Option<Who>,
        who: Who,
        kind: Kind,
        role: Option<Role>,
        there: bool,
    },
    /// Of all invitations of the person there, the one that `nth` comes to.
    Resend {
        at: Place,
        who: Who,
        nth: usize,
    },
    Cancel {
        at: Place,
        who: Who,
        nth: usize,
    },
    /// By the newest link, or the one before.
    Accept {
        at: Place,
        who: Who,
        nth: usize,
        old: bool,
    },
    Decline {
        at: Place,
        who: Who,
        nth: usize,
        old: bool,
    },
    Suspend {
        at: Place,
        who: Who,
        purgeable: bool,
    },
    Reactivate {
        at: Place,
        who: Who,
    },
    Remove {
        at: Place,
        who: Who,
    },
    /// By the person's newest session there.
    Leave {
        at: Place,
        who: Who,
    },
    Purge {
        at: Place,
        who: Who,
        preview: bool,
    },
    /// Everywhere, by an operator.
    DeleteAccount {
        who: Who,
    },
    SetKind {
        at: Place,
        who: Who,
        kind: Kind,
    },
    /// `dated` ends it in a day and a half.
    Give {
        at: Place,
        who: Who,
        role: Role,
        there: bool,
        dated: bool,
    },
    Take {
        at: Place,
        who: Who,
        role: Role,
        there: bool,
    },
    JoinGroup {
        at: Place,
        who: Who,
    },
    LeaveGroup {
        at: Place,
        who: Who,
    },
    /// To everyone in the group.
    GiveGroup {
        at: Place,
        role: Role,
    },
    TakeGroup {
        at: Place,
        role: Role,
    },
    MakeBoss {
        at: Place,
    },
    EditBoss {
        at: Place,
        administers: bool,
    },
    DeleteBoss {
        at: Place,
    },
    MakeWorkspace {
        at: Place,
    },
    DeleteWorkspace {
        at: Place,
    },
    SetSeats {
        at: Place,
        limit: Option<i64>,
    },
    SuspendTenant {
        at: Place,
    },
    ReactivateTenant {
        at: Place,
    },
    DeleteTenant {
        at: Place,
    },
    RestoreTenant {
        at: Place,
    },
    Appoint {
        at: Place,
        who: Who,
    },
    Disable {
        who: Who,
    },
    Enable {
        who: Who,
    },
    /// With the password.
    SignIn {
        at: Place,
        who: Who,
    },
    /// By a product with a sign-in of its own.
    OpenSession {
        at: Place,
        who: Who,
    },
    EndSessions {
        at: Place,
        who: Who,
    },
    Wait {
        days: i64,
    },
}

impl Verb {
    /// Its name alone.
    pub fn name(&self) -> String {
        format!("{self:?}").split(' ').next().unwrap().to_owned()
    }
}

/// A sequence of any verbs, among them some that mostly follow each other.
pub fn life() -> impl Strategy<Value = Vec<Verb>> {
    let part = prop_oneof![
        12 => verb().prop_map(|verb| vec![verb]),
        1 => one().prop_map(|(at, who)| joining(at, who)),
        1 => (one(), any::<bool>()).prop_map(|((at, who), removed)| leaving(at, who, removed)),
        1 => (one(), 0..PEOPLE, prop::option::of(role()))
            .prop_map(|((at, who), by, role)| vouching(at, who, by, role)),
        1 => (one(), 1..3i64).prop_map(|((at, who), seats)| returning(at, who, seats)),
    ];
    prop::collection::vec(part, 1..60).prop_map(|parts| parts.concat())
}

fn joining(at: Place, who: Who) -> Vec<Verb> {
    let kind = Kind::Internal;
    let invite = Verb::Invite { at, by: None, who, kind, role: None, there: false };
    vec![invite, Verb::Accept { at, who, nth: 0, old: false }, Verb::OpenSession { at, who }]
}

fn vouching(at: Place, who: Who, by: Who, role: Option<Role>) -> Vec<Verb> {
    let kind = Kind::External;
    let invite = Verb::Invite { at, by: Some(by), who, kind, role, there: false };
    vec![Verb::OpenSession { at, who: by }, invite]
}

fn leaving(at: Place, who: Who, removed: bool) -> Vec<Verb> {
    let leave = match removed {
        true => Verb::Remove { at, who },
        false => Verb::Suspend { at, who, purgeable: true },
    };
    let purge = Verb::Purge { at, who, preview: false };
    // Said again, it does not begin anew.
    vec![leave, Verb::Wait { days: 8 }, leave, Verb::Wait { days: 23 }, purge]
}

fn returning(at: Place, who: Who, seats: i64) -> Vec<Verb> {
    let suspend = Verb::Suspend { at, who, purgeable: false };
    vec![suspend, Verb::SetSeats { at, limit: Some(seats) }, Verb::Reactivate { at, who }]
}

/// Somebody in one of the tenants, more in the first, so that more meets there.
fn one() -> impl Strategy<Value = (Place, Who)> {
    (place(), 0..PEOPLE)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![2 => Just(Role::Administrator), 1 => Just(Role::Boss), 1 => Just(Role::Reader)]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![3 => Just(0), 1 => Just(1)]
}

/// Any verb: what makes a rich state more often than what ends it.
fn verb() -> impl Strategy<Value = Verb> {
    let kind = || prop_oneof![2 => Just(Kind::Internal), 1 => Just(Kind::External)];
    let nth = || prop_oneof![4 => Just(0), 1 => 1..3usize];
    let rarely = || prop::bool::weighted(0.15);
    let any = any::<bool>;
    prop_oneof![
        7 => (one(), prop::option::weighted(0.3, 0..PEOPLE), kind(), prop::option::of(role()), rarely())
            .prop_map(|((at, who), by, kind, role, there)| {
                Verb::Invite { at, by, who, kind, role, there }
            }),
        2 => (one(), nth()).prop_map(|((at, who), nth)| Verb::Resend { at, who, nth }),
        1 => (one(), nth()).prop_map(|((at, who), nth)| Verb::Cancel { at, who, nth }),
        8 => (one(), nth(), rarely())
            .prop_map(|((at, who), nth, old)| Verb::Accept { at, who, nth, old }),
        1 => (one(), nth(), rarely())
            .prop_map(|((at, who), nth, old)| Verb::Decline { at, who, nth, old }),
        4 => (one(), any())
            .prop_map(|((at, who), purgeable)| Verb::Suspend { at, who, purgeable }),
        3 => one().prop_map(|(at, who)| Verb::Reactivate { at, who }),
        2 => one().prop_map(|(at, who)| Verb::Remove { at, who }),
        2 => one().prop_map(|(at, who)| Verb::Leave { at, who }),
        4 => (one(), rarely()).prop_map(|((at, who), preview)| Verb::Purge { at, who, preview }),
        1 => (0..PEOPLE).prop_map(|who| Verb::DeleteAccount { who }),
        3 => (one(), kind()).prop_map(|((at, who), kind)| Verb::SetKind { at, who, kind }),
        7 => (one(), role(), rarely(), rarely()).prop_map(
            |((at, who), role, there, dated)| Verb::Give { at, who, role, there, dated }
        ),
        3 => (one(), role(), rarely())
            .prop_map(|((at, who), role, there)| Verb::Take { at, who, role, there }),
        3 => one().prop_map(|(at, who)| Verb::JoinGroup { at, who }),
        1 => one().prop_map(|(at, who)| Verb::LeaveGroup { at, who }),
        2 => (place(), role()).prop_map(|(at, role)| Verb::GiveGroup { at, role }),
        1 => (place(), role()).prop_map(|(at, role)| Verb::TakeGroup { at, role }),
        1 => place().prop_map(|at| Verb::MakeBoss { at }),
        2 => (place(), any()).prop_map(|(at, administers)| Verb::EditBoss { at, administers }),
        1 => place().prop_map(|at| Verb::DeleteBoss { at }),
        2 => place().prop_map(|at| Verb::MakeWorkspace { at }),
        1 => place().prop_map(|at| Verb::DeleteWorkspace { at }),
        3 => (place(), prop::option::weighted(0.7, 1..4i64))
            .prop_map(|(at, limit)| Verb::SetSeats { at, limit }),
        1 => place().prop_map(|at| Verb::SuspendTenant { at }),
        2 => place().prop_map(|at| Verb::ReactivateTenant { at }),
        1 => place().prop_map(|at| Verb::DeleteTenant { at }),
        3 => place().prop_map(|at| Verb::RestoreTenant { at }),
        1 => one().prop_map(|(at, who)| Verb::Appoint { at, who }),
        1 => (0..PEOPLE).prop_map(|who| Verb::Disable { who }),
        2 => (0..PEOPLE).prop_map(|who| Verb::Enable { who }),
        1 => one().prop_map(|(at, who)| Verb::SignIn { at, who }),
        5 => one().prop_map(|(at, who)| Verb::OpenSession { at, who }),
        1 => one().prop_map(|(at, who)| Verb::EndSessions { at, who }),
        3 => prop_oneof![2 => Just(1), 1 => Just(8), 2 => Just(31)]
            .prop_map(|days| Verb::Wait { days }),
    ]
}
