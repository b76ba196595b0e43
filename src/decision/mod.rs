//! How access is decided: immutable [`Facts`], a [`Question`], and [`decide`].
//!
//! Pure: no I/O, no async, no clock, no randomness. Nothing outside this folder knows the rules,
//! and nothing in here knows where facts come from or how answers travel.
//!
//! Facts are compact: ids become small numbers ([`numbers`]), an assignment is eight bytes ([`packed`])
//! in a leaf ([`leaf`]) of a tree of members ([`members`]) or with its group ([`groups`]), the keys of
//! workspaces lie together ([`workspaces`]), and roles with all that they include are rows of bits
//! ([`roles`]). A whole tenant is put together by [`Bulk`]; afterwards it changes one record at a time.

mod ahead;
mod authority;
mod bulk;
mod bytes;
mod decide;
mod explain;
mod facts;
mod groups;
mod holdings;
mod leaf;
mod lists;
mod members;
mod numbers;
mod packed;
mod permission;
mod record;
mod resource;
mod roles;
mod standing;
mod terms;
mod workspaces;

pub use authority::{Authority, Credential, Gift, Refusal, vouches};
pub use bulk::{AssignmentRow, Bulk};
pub use decide::{
    Decision, Party, Question, Reason, SessionClaims, Subject, TenantNotLoaded, decide,
    is_administrator,
};
pub use explain::{Considered, Explanation, Flaw, explain};
pub use facts::{Directory, Facts, Map, TenantEntry, TenantFacts, Transition};
pub use lists::{
    Access, Scope, Subjects, There, Who, effective_permissions, scopes, subjects, who_may,
    who_may_give,
};
pub use permission::{
    MAX_PERMISSION, Permission, PermissionError, PermissionSet, check_pattern, pattern_matches,
};
pub use record::*;
pub use resource::{MAX_PAIRS, MAX_RESOURCE, Resource, ResourceError, path_covers, scope_text};
pub use roles::{CompiledRole, Pool};
pub use standing::standing;
pub use terms::Holding;
