//! Invitations in and out of generated types; `joining` implements the service.

use super::{NewInvitation, ShownInvitation, ShownRole};
use crate::{
    assignments::NewAssignment,
    decision::{InvitationStatus, MemberKind},
    edit::etag,
    error::{Error, Result},
    memberships::{self, Profile},
    proto as pb,
    text::{self, Email},
};

/// The longest personal message, in characters.
const MAX_MESSAGE: usize = 2000;

impl TryFrom<pb::CreateInvitationRequest> for NewInvitation {
    type Error = Error;

    fn try_from(request: pb::CreateInvitationRequest) -> Result<Self> {
        let pb::CreateInvitationRequest { email, kind, profile, roles, message, language, .. } =
            request;
        pb::NewInvitation { email, kind, profile, roles, message, language }.try_into()
    }
}

impl TryFrom<pb::NewInvitation> for NewInvitation {
    type Error = Error;

    fn try_from(request: pb::NewInvitation) -> Result<Self> {
        let language = match request.language.as_str() {
            "" => None,
            language => Some(text::language("language", language, "")?),
        };
        let kind = memberships::read_kind("kind", request.kind)?;
        Ok(Self {
            email: Email::enter("email", &request.email)?,
            kind: kind.unwrap_or(MemberKind::Internal),
            profile: Profile::read("profile", request.profile)?,
            roles: NewAssignment::read("roles", request.roles)?,
            message: text::lines("message", &request.message, MAX_MESSAGE)?,
            language,
        })
    }
}

/// Reads the status that a list is filtered by.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn read_status(field: &str, status: i32) -> Result<Option<InvitationStatus>> {
    use pb::InvitationStatus as Wire;
    Ok(Some(match Wire::try_from(status) {
        Ok(Wire::Unspecified) => return Ok(None),
        Ok(Wire::Pending) => InvitationStatus::Pending,
        Ok(Wire::Accepted) => InvitationStatus::Accepted,
        Ok(Wire::Cancelled) => InvitationStatus::Cancelled,
        Ok(Wire::Expired) => InvitationStatus::Expired,
        Ok(Wire::Declined) => InvitationStatus::Declined,
        Err(_) => {
            let wanted = "expected PENDING, ACCEPTED, CANCELLED, EXPIRED or DECLINED";
            return Err(Error::invalid(field, wanted));
        }
    }))
}

impl From<ShownInvitation> for pb::Invitation {
    fn from(shown: ShownInvitation) -> Self {
        Self {
            id: shown.id.to_string(),
            email: shown.email,
            kind: pb::MemberKind::from(shown.kind).into(),
            profile: Some(shown.profile.into()),
            roles: shown.roles.into_iter().map(Into::into).collect(),
            message: shown.message,
            language: shown.language,
            status: pb::InvitationStatus::from(shown.status).into(),
            delivery: shown.delivery.map_or(pb::Delivery::Unspecified, Into::into).into(),
            delivery_error: shown.delivery_error,
            expire_time: Some(pb::timestamp(shown.expires_at)),
            create_time: Some(pb::timestamp(shown.created_at)),
            invited_by: shown.invited_by,
            accepted_by: shown.accepted_by.map(|user| user.to_string()).unwrap_or_default(),
            etag: etag(shown.version),
        }
    }
}

impl From<ShownRole> for pb::AssignRole {
    fn from(shown: ShownRole) -> Self {
        Self {
            role: shown.role,
            scope: shown.scope,
            start_time: shown.starts.map(pb::timestamp),
            end_time: shown.ends.map(pb::timestamp),
        }
    }
}

impl From<InvitationStatus> for pb::InvitationStatus {
    fn from(status: InvitationStatus) -> Self {
        match status {
            InvitationStatus::Pending => Self::Pending,
            InvitationStatus::Accepted => Self::Accepted,
            InvitationStatus::Cancelled => Self::Cancelled,
            InvitationStatus::Expired => Self::Expired,
            InvitationStatus::Declined => Self::Declined,
        }
    }
}
