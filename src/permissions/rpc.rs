//! The PermissionService: generated types in and out.

use tonic::{Request, Response, Status};

use super::{Asked, Explained, Grounds, NoHelp, Remedy, RemedyKind};
use crate::{
    app::Rpc,
    caller::Call,
    decision::{Flaw, Reason},
    error::Result,
    proto::{self as pb, permission_service_server::PermissionService},
    replica::revision_text,
};

#[tonic::async_trait]
impl PermissionService for Rpc {
    async fn check_permission(
        &self,
        request: Request<pb::CheckPermissionRequest>,
    ) -> Result<Response<pb::CheckPermissionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let pb::CheckPermissionRequest { tenant, subject, permission, resource } = &request;
        let mut asked = Asked::parse(&self.0.keys, tenant, subject, permission, resource)?;
        asked.look_up(&self.0, &call, &claim).await?;
        let now = self.0.clock.now();
        let answer = self.0.replica.ask(|facts| super::check(facts, &call, &claim, &asked, now));
        let answer = answer.await??;
        Ok(Response::new(pb::CheckPermissionResponse {
            allowed: answer.decision.allowed(),
            reason: pb::Reason::from(answer.decision.reason).into(),
            revision: revision_text(answer.revision),
        }))
    }

    async fn explain_permission(
        &self,
        request: Request<pb::ExplainPermissionRequest>,
    ) -> Result<Response<pb::ExplainPermissionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let pb::ExplainPermissionRequest { tenant, subject, permission, resource } = &request;
        let mut asked = Asked::parse(&self.0.keys, tenant, subject, permission, resource)?;
        asked.look_up(&self.0, &call, &claim).await?;
        let explained = super::explain(&self.0, &call, &claim, &asked).await?;
        Ok(Response::new(explained.into()))
    }
}

impl From<Reason> for pb::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Allowed => Self::Allowed,
            Reason::TenantUnknown => Self::TenantUnknown,
            Reason::TenantPending => Self::TenantPending,
            Reason::TenantSuspended => Self::TenantSuspended,
            Reason::WorkspaceUnknown => Self::WorkspaceUnknown,
            Reason::SubjectUnknown => Self::SubjectUnknown,
            Reason::NotAMember => Self::NotAMember,
            Reason::MembershipSuspended => Self::MembershipSuspended,
            Reason::AccountDisabled => Self::AccountDisabled,
            Reason::SessionEnded => Self::SessionEnded,
            Reason::SessionExpired => Self::SessionExpired,
            Reason::SessionElsewhere => Self::SessionElsewhere,
            Reason::KeyRevoked => Self::KeyRevoked,
            Reason::KeyExpired => Self::KeyExpired,
            Reason::NoRole => Self::NoRole,
            Reason::AssignmentExpired => Self::AssignmentExpired,
            Reason::AssignmentNotStarted => Self::AssignmentNotStarted,
            Reason::Narrowed => Self::Narrowed,
        }
    }
}

impl From<Explained> for pb::ExplainPermissionResponse {
    fn from(explained: Explained) -> Self {
        Self {
            allowed: explained.reason == Reason::Allowed,
            reason: pb::Reason::from(explained.reason).into(),
            message: explained.message,
            grounds: explained.grounds.map(Into::into),
            considered: explained.considered.into_iter().map(Into::into).collect(),
            considered_truncated: explained.considered_truncated,
            remedies: explained.remedies.into_iter().map(Into::into).collect(),
            revision: revision_text(explained.revision),
        }
    }
}

impl From<Grounds> for pb::Grounds {
    fn from(grounds: Grounds) -> Self {
        let assignment = grounds.assignment;
        Self {
            assignment_id: assignment.id.map(|id| id.to_string()).unwrap_or_default(),
            role: assignment.role,
            include_path: grounds.include_path,
            matched_permission: grounds.matched,
            scope: assignment.scope,
            tenant: grounds.tenant,
            group: assignment.group,
            until: assignment.ends.map(pb::timestamp),
        }
    }
}

impl From<NoHelp> for pb::ConsideredAssignment {
    fn from(considered: NoHelp) -> Self {
        let why_not = match considered.flaw {
            Some(Flaw::Permission) => pb::WhyNot::Permission,
            Some(Flaw::Scope) => pb::WhyNot::Scope,
            Some(Flaw::Expired) => pb::WhyNot::Expired,
            Some(Flaw::NotStarted) => pb::WhyNot::NotStarted,
            None => pb::WhyNot::NoAccess,
        };
        Self {
            assignment: Some(considered.assignment.into()),
            why_not: why_not.into(),
            tenant: considered.tenant,
        }
    }
}

impl From<Remedy> for pb::Remedy {
    fn from(remedy: Remedy) -> Self {
        let kind = match remedy.kind {
            RemedyKind::ReactivateMembership => pb::RemedyKind::ReactivateMembership,
            RemedyKind::EnableAccount => pb::RemedyKind::EnableAccount,
            RemedyKind::AcceptInvitation => pb::RemedyKind::AcceptInvitation,
            RemedyKind::AssignRole => pb::RemedyKind::AssignRole,
            RemedyKind::ExtendAssignment => pb::RemedyKind::ExtendAssignment,
            RemedyKind::Wait => pb::RemedyKind::Wait,
            RemedyKind::Invite => pb::RemedyKind::Invite,
            RemedyKind::ReactivateTenant => pb::RemedyKind::ReactivateTenant,
            RemedyKind::SignIn => pb::RemedyKind::SignIn,
            RemedyKind::UseAnotherKey => pb::RemedyKind::UseAnotherKey,
            RemedyKind::CorrectName => pb::RemedyKind::CorrectName,
        };
        Self {
            kind: kind.into(),
            roles: remedy.roles,
            user_ids: remedy.who.people.iter().map(ToString::to_string).collect(),
            truncated: remedy.who.more,
            message: remedy.message,
            assignment_id: remedy.assignment.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}
