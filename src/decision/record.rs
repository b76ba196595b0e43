//! The states that events carry. An event replaces one record by another; applying it to the facts,
//! showing it as before and after, and replaying history all read these same types.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::ids::{
    ApiKeyId, AssignmentId, GroupId, Holder, InvitationId, Key, RoleId, ServiceAccountId,
    SessionId, SubjectId, TenantId, UserId, WorkspaceId,
};

/// PostgreSQL's time, in UTC.
pub type Time = DateTime<Utc>;

/// The state of one thing after a change, without names or addresses of people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Tenant(Tenant),
    Workspace(Workspace),
    Role(Role),
    Group(Group),
    GroupMember(GroupMember),
    Member(Member),
    Assignment(Assignment),
    ApiKey(ApiKey),
    Account(Account),
    SessionEnd(SessionEnd),
    Invitation(Invitation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum TenantStatus {
    Pending,
    Active,
    Suspended,
    /// Closed, and can be restored.
    Deleted,
    /// Erased, or being erased.
    Purged,
}

impl TenantStatus {
    /// Whether nobody can join it.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Suspended | Self::Deleted | Self::Purged)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: TenantId,
    pub key: Key,
    pub status: TenantStatus,
    /// What whoever joins without a chosen role gets.
    pub default_role: Option<RoleId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    pub id: WorkspaceId,
    pub key: Key,
}

/// How far an assignment on the tenant reaches below it; ordered from narrow to wide.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Reach {
    /// The tenant alone.
    Here,
    /// The tenant, and the workspaces on which the subject holds an assignment too.
    Joined,
    /// Everything below the tenant.
    Everywhere,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub id: RoleId,
    pub key: Key,
    pub permissions: Arc<[SmolStr]>,
    pub includes: Vec<RoleId>,
    pub reach: Reach,
    /// Roles that its holders may give although they do not hold all of them.
    pub may_grant: Vec<RoleId>,
    pub exclusive_set: Option<Key>,
    /// The longest an assignment may last.
    pub max_duration_seconds: Option<i64>,
    /// Neither edited nor deleted.
    pub locked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: GroupId,
    pub key: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    pub group: GroupId,
    pub user: UserId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MemberKind {
    Internal,
    External,
    /// A service account: a member without a seat, never an administrator.
    Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MemberStatus {
    Active,
    Suspended,
    Removed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub subject: SubjectId,
    pub kind: MemberKind,
    pub status: MemberStatus,
    /// Sessions made under an earlier epoch are over.
    pub epoch: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub id: AssignmentId,
    pub holder: Holder,
    pub role: RoleId,
    /// The workspace it holds in; none: the tenant.
    pub workspace: Option<WorkspaceId>,
    /// Pairs of type and id below the workspace or tenant; empty: the workspace or tenant itself.
    pub path: String,
    /// Holds for `starts <= now < ends`.
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub tenant: TenantId,
    pub service_account: ServiceAccountId,
    /// SHA-256 of the whole key.
    #[serde(with = "base64_text")]
    pub hash: [u8; 32],
    /// Patterns it is narrowed to; empty: everything its service account may do.
    pub narrowed: Vec<String>,
    pub expires: Option<Time>,
    pub revoked: bool,
}

/// A person's account, wherever they are a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub user: UserId,
    pub disabled: bool,
    /// Sessions made under an earlier epoch are over.
    pub epoch: i32,
}

/// One session was ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    pub session: SessionId,
    pub user: UserId,
    /// When it would have ended by itself; afterwards nobody needs to remember it.
    pub expires: Time,
}

/// Part of the history only: a decision needs nothing of an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    pub id: InvitationId,
    pub kind: MemberKind,
    pub status: InvitationStatus,
    /// Links of an earlier generation are dead.
    pub generation: i32,
    pub expires: Time,
    pub roles: Vec<InvitedRole>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum InvitationStatus {
    Pending,
    Accepted,
    Cancelled,
    Expired,
    Declined,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedRole {
    pub role: RoleId,
    pub workspace: Option<WorkspaceId>,
    pub path: String,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
}

/// A hash as base64 in the body of an event.
mod base64_text {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(hash: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(hash))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let bytes = STANDARD.decode(String::deserialize(d)?).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("expected 32 bytes"))
    }
}
