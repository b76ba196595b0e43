//! Invitations as people see them listed.

mod sql;

use crate::{
    decision::{InvitationStatus, MemberKind, Time},
    ids::{InvitationId, UserId},
    memberships::Profile,
    outbox::Delivery,
};

pub use sql::{Filter, list, shown_now};

/// An invitation as lists show it: its status is judged at the time of the reading.
#[derive(Debug, Clone)]
pub struct ShownInvitation {
    pub id: InvitationId,
    pub email: String,
    pub kind: MemberKind,
    pub profile: Profile,
    pub roles: Vec<ShownRole>,
    pub message: String,
    pub language: String,
    pub status: InvitationStatus,
    pub delivery: Option<Delivery>,
    pub delivery_error: String,
    pub expires_at: Time,
    pub created_at: Time,
    pub invited_by: String,
    pub accepted_by: Option<UserId>,
    pub version: i64,
}

#[derive(Debug, Clone)]
pub struct ShownRole {
    pub role: String,
    pub scope: String,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}
