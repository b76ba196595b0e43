//! How access is decided: immutable [`Facts`], a [`Question`], and [`decide`].
//!
//! Pure: no I/O, no async, no clock, no randomness. Nothing outside this folder knows the rules,
//! and nothing in here knows where facts come from or how answers travel.

mod authority;
mod decide;
mod explain;
mod facts;
mod permission;
mod record;
mod resource;
mod who;

pub use authority::{Authority, Credential, Gift, Refusal};
pub use decide::{
    Decision, Grounds, Question, Reason, SessionClaims, Subject, TenantNotLoaded, decide,
    is_administrator, standing,
};
pub use explain::{Considered, Explanation, Flaw, explain};
pub use facts::{
    CompiledRole, Directory, Facts, GroupFacts, MemberFacts, TenantEntry, TenantFacts, Transition,
};
pub use permission::{MAX_PERMISSION, Permission, PermissionError, PermissionSet, check_pattern};
pub use record::*;
pub use resource::{MAX_PAIRS, MAX_RESOURCE, Resource, ResourceError, path_covers, scope_text};
pub use who::{Search, Who, who_may, who_may_give};
