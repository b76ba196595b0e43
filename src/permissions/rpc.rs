//! The PermissionService: generated types in and out.

pub mod quick;
mod stream;
mod wire;

use std::time::Duration;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

pub use self::stream::serve as serve_stream;
use super::{Answer, Asked, Explained, Grounds, NoHelp, Remedy, RemedyKind, lists};
use crate::{
    app::{App, Rpc},
    caller::Call,
    catalogue,
    decision::{Decision, Flaw, Reason},
    error::{Error, Result},
    proto::{self as pb, consistency::Requirement, permission_service_server::PermissionService},
    replica::{Consistency, Dated},
};

#[tonic::async_trait]
impl PermissionService for Rpc {
    async fn check_permission(
        &self,
        request: Request<pb::CheckPermissionRequest>,
    ) -> Result<Response<pb::CheckPermissionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        Ok(Response::new(check(&self.0, &call, request).await?.into()))
    }

    async fn batch_check_permissions(
        &self,
        request: Request<pb::BatchCheckPermissionsRequest>,
    ) -> Result<Response<pb::BatchCheckPermissionsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        if !(1..=super::MAX_ITEMS).contains(&request.items.len()) {
            let wanted = format!("expected 1 to {} items", super::MAX_ITEMS);
            return Err(Error::invalid("items", wanted).into());
        }
        let consistency = consistency(request.consistency.as_ref())?;
        let tenant = request.tenant.as_str();
        let mut asked = Vec::with_capacity(request.items.len());
        for item in &request.items {
            let pb::CheckPermissionItem { subject, permission, resource } = item;
            let mut item = Asked::parse(&self.0.keys, tenant, subject, permission, resource);
            if let Ok(asked) = &mut item {
                asked.look_up(&self.0, &call).await?;
                asked.subject.note(&self.0.activity, self.0.clock.now());
            }
            asked.push(item);
        }
        let now = self.0.clock.now();
        let decided = super::ask_as(&self.0, &call, consistency, now, |facts, call| {
            let admitted = match super::admit(facts, call, tenant, now)? {
                Ok(admitted) => admitted,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let decide = |item: &Result<Asked<'_>>| {
                item.as_ref().ok().map(|asked| admitted.decide(asked)).transpose()
            };
            let decisions: Vec<_> = asked.iter().map(decide).collect::<Result<_, _>>()?;
            Ok(Ok((decisions, facts.revision)))
        });
        let Dated { answer: (decisions, revision), age } = decided.await?;
        let results = asked.into_iter().zip(decisions).map(|(item, decision)| match decision {
            Some(decision) => decision.into(),
            None => item.err().map(pb::CheckPermissionResult::from).unwrap_or_default(),
        });
        Ok(Response::new(pb::BatchCheckPermissionsResponse {
            results: results.collect(),
            staleness: age.map(pb::duration),
            revision: revision.text(),
        }))
    }

    type CheckPermissionStreamStream =
        BoxStream<'static, Result<pb::CheckPermissionStreamResponse, Status>>;

    async fn check_permission_stream(
        &self,
        _: Request<Streaming<pb::CheckPermissionStreamRequest>>,
    ) -> Result<Response<Self::CheckPermissionStreamStream>, Status> {
        // The path is taken by [`serve_stream`], which answers from the bytes as they arrive.
        Err(Error::internal("streams are served elsewhere").into())
    }

    async fn explain_permission(
        &self,
        request: Request<pb::ExplainPermissionRequest>,
    ) -> Result<Response<pb::ExplainPermissionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        settle(&self.0, request.consistency.as_ref()).await?;
        let pb::ExplainPermissionRequest { tenant, subject, permission, resource, .. } = &request;
        let mut asked = Asked::parse(&self.0.keys, tenant, subject, permission, resource)?;
        asked.look_up(&self.0, &call).await?;
        let explained = super::explain(&self.0, &call, &asked).await?;
        Ok(Response::new(explained.into()))
    }

    async fn list_effective_permissions(
        &self,
        request: Request<pb::ListEffectivePermissionsRequest>,
    ) -> Result<Response<pb::ListEffectivePermissionsResponse>, Status> {
        lists::list_effective_permissions(self, request).await
    }

    async fn list_scopes(
        &self,
        request: Request<pb::ListScopesRequest>,
    ) -> Result<Response<pb::ListScopesResponse>, Status> {
        lists::list_scopes(self, request).await
    }

    async fn list_subjects(
        &self,
        request: Request<pb::ListSubjectsRequest>,
    ) -> Result<Response<pb::ListSubjectsResponse>, Status> {
        lists::list_subjects(self, request).await
    }

    type StreamSubjectsStream = BoxStream<'static, Result<pb::StreamSubjectsResponse, Status>>;

    async fn stream_subjects(
        &self,
        request: Request<pb::StreamSubjectsRequest>,
    ) -> Result<Response<Self::StreamSubjectsStream>, Status> {
        lists::stream_subjects(self, request).await
    }

    async fn register_permissions(
        &self,
        request: Request<pb::RegisterPermissionsRequest>,
    ) -> Result<Response<pb::RegisterPermissionsResponse>, Status> {
        catalogue::register_permissions(self, request).await
    }

    async fn list_permissions(
        &self,
        request: Request<pb::ListPermissionsRequest>,
    ) -> Result<Response<pb::ListPermissionsResponse>, Status> {
        catalogue::list_permissions(self, request).await
    }
}

async fn check(
    app: &App,
    call: &Call,
    question: pb::CheckPermissionRequest,
) -> Result<Dated<Answer>> {
    let pb::CheckPermissionRequest { tenant, subject, permission, resource, .. } = &question;
    let consistency = consistency(question.consistency.as_ref())?;
    let mut asked = Asked::parse(&app.keys, tenant, subject, permission, resource)?;
    asked.look_up(app, call).await?;
    let now = app.clock.now();
    asked.subject.note(&app.activity, now);
    super::ask_as(app, call, consistency, now, |facts, call| super::check(facts, call, &asked, now))
        .await
}

/// The oldest state that anybody may accept.
const OLDEST: Duration = Duration::from_secs(24 * 3600);

fn consistency(asked: Option<&pb::Consistency>) -> Result<Consistency> {
    const FIELD: &str = "consistency";
    let Some(asked) = asked else { return Ok(Consistency::default()) };
    Ok(match &asked.requirement {
        None | Some(Requirement::FullyConsistent(false)) => Consistency::Acknowledged,
        Some(Requirement::FullyConsistent(true)) => Consistency::Committed,
        Some(Requirement::AtLeastAsFresh(revision)) => {
            let wrong = |wrong| Error::invalid(format!("{FIELD}.at_least_as_fresh"), wrong);
            Consistency::AtLeast(revision.parse().map_err(wrong)?)
        }
        Some(Requirement::MaxStaleness(age)) => {
            let age = Duration::try_from(*age).ok().filter(|age| *age <= OLDEST);
            let wanted = "a duration of at most 24 hours";
            let wrong = || Error::invalid(format!("{FIELD}.max_staleness"), wanted);
            Consistency::Within(age.ok_or_else(wrong)?)
        }
    })
}

/// Waits until the facts are as new as the caller wants them, for what takes more than facts.
///
/// # Errors
/// `INVALID_ARGUMENT` for `max_staleness`; those of [`crate::replica::Replica::settle`].
pub(super) async fn settle(app: &App, asked: Option<&pb::Consistency>) -> Result<()> {
    match consistency(asked)? {
        Consistency::Within(_) => {
            let wanted = "only checks answer on an older state; leave it empty";
            Err(Error::invalid("consistency.max_staleness", wanted))
        }
        consistency => app.replica.settle(consistency).await,
    }
}

/// The answer to a question of a stream that may have to wait for something. What is wrong with it is its
/// answer; what is wrong with the caller ends the stream.
async fn answer_later(
    app: App,
    call: Call,
    question: pb::CheckPermissionStreamRequest,
) -> Result<pb::CheckPermissionStreamResponse> {
    let pb::CheckPermissionStreamRequest {
        tenant,
        subject,
        permission,
        resource,
        consistency,
        correlation_id,
    } = question;
    let question =
        pb::CheckPermissionRequest { tenant, subject, permission, resource, consistency };
    let answer = match check(&app, &call, question).await {
        Ok(Dated { answer, age }) => pb::CheckPermissionStreamResponse {
            allowed: answer.decision.allowed(),
            reason: pb::Reason::from(answer.decision.reason).into(),
            staleness: age.map(pb::duration),
            revision: answer.revision.text(),
            ..Default::default()
        },
        Err(
            error @ (Error::Invalid(_) | Error::Unavailable { .. } | Error::Precondition { .. }),
        ) => pb::CheckPermissionStreamResponse { error: Some(error.into()), ..Default::default() },
        Err(error) => return Err(error),
    };
    Ok(pb::CheckPermissionStreamResponse { correlation_id, ..answer })
}

impl From<Decision> for pb::CheckPermissionResult {
    fn from(decision: Decision) -> Self {
        let reason = pb::Reason::from(decision.reason).into();
        Self { allowed: decision.allowed(), reason, error: None }
    }
}

impl From<Error> for pb::CheckPermissionResult {
    fn from(error: Error) -> Self {
        Self { error: Some(error.into()), ..Default::default() }
    }
}

impl From<Answer> for pb::CheckPermissionResponse {
    fn from(answer: Answer) -> Self {
        Self {
            allowed: answer.decision.allowed(),
            reason: pb::Reason::from(answer.decision.reason).into(),
            staleness: None,
            revision: answer.revision.text(),
        }
    }
}

impl From<Dated<Answer>> for pb::CheckPermissionResponse {
    fn from(Dated { answer, age }: Dated<Answer>) -> Self {
        Self { staleness: age.map(pb::duration), ..answer.into() }
    }
}

impl From<Error> for pb::CheckPermissionError {
    fn from(error: Error) -> Self {
        Self {
            reason: error.reason().to_owned(),
            field: error.field().to_owned(),
            message: error.to_string(),
        }
    }
}

impl From<Reason> for pb::Reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Allowed => Self::Allowed,
            Reason::TenantUnknown => Self::TenantUnknown,
            Reason::TenantPending => Self::TenantPending,
            Reason::TenantSuspended => Self::TenantSuspended,
            Reason::TenantDeleted => Self::TenantDeleted,
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
            revision: explained.revision.text(),
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
            RemedyKind::RestoreTenant => pb::RemedyKind::RestoreTenant,
            RemedyKind::SignIn => pb::RemedyKind::SignIn,
            RemedyKind::UseAnotherKey => pb::RemedyKind::UseAnotherKey,
            RemedyKind::CorrectName => pb::RemedyKind::CorrectName,
        };
        Self {
            kind: kind.into(),
            roles: remedy.roles,
            scope: remedy.scope,
            user_ids: remedy.who.people.iter().map(ToString::to_string).collect(),
            truncated: remedy.who.more,
            message: remedy.message,
            assignment_id: remedy.assignment.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}
