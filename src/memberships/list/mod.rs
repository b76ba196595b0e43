//! What the list of a tenant's people shows, and how it is filtered and sorted: members, and who is
//! invited and has not joined.

mod filter;
mod invited;
mod members;
mod rpc;
mod sql;

pub use rpc::wire;
pub use sql::{list as find, page};

use super::{Membership, Profile};
use crate::{
    assignments::Shown,
    decision::{MemberKind, MemberStatus, Time},
    ids::InvitationId,
};

/// Somebody who is invited and has not joined.
#[derive(Debug, Clone)]
pub struct Invited {
    pub invitation: InvitationId,
    pub email: String,
    pub kind: MemberKind,
    pub profile: Profile,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Clone)]
pub enum Person {
    Member(Box<Membership>),
    Invited(Box<Invited>),
}

/// One row of the list of people.
#[derive(Debug, Clone)]
pub struct Listed {
    pub person: Person,
    pub roles: Vec<Shown>,
    pub key: SortKey,
}

/// Where a row stands: two texts that depend on the order, and what tells equal ones apart.
pub type SortKey = (String, String, uuid::Uuid);

/// Where a page begins: after this row of so many. They are counted for the first page: to count again
/// takes longer than to read the page.
pub type Start = (SortKey, i64);

/// Which people a list shows, and in which order. Filters are joined by "and".
#[derive(Debug, Clone)]
pub struct Filter {
    pub status: Option<StatusFilter>,
    pub kind: Option<MemberKind>,
    /// The key of a role that they have somewhere.
    pub role: Option<String>,
    /// The key of a workspace on which, or below which, they have a role.
    pub workspace: Option<String>,
    pub department: Option<String>,
    /// The caller's own name for the member.
    pub external_id: Option<String>,
    /// Whoever never signed in is among them.
    pub last_sign_in_before: Option<Time>,
    /// How a name or the address starts.
    pub query: Option<String>,
    pub order: Order,
    pub descending: bool,
    pub now: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    Pending,
    Member(MemberStatus),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Name,
    Email,
    LastSignIn,
    Created,
}
