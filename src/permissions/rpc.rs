//! The PermissionService: generated types in and out.

use futures::{FutureExt, StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answer, Asked, Explained, Grounds, NoHelp, Remedy, RemedyKind, lists,
    stream::{Answers, Reply},
};
use crate::{
    access::recognise_again,
    app::{App, Rpc},
    caller::Call,
    catalogue,
    decision::{Decision, Flaw, Reason},
    error::{Error, Result},
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
        let pb::CheckPermissionRequest { tenant, subject, permission, resource } = &request;
        let answer = check(&self.0, &call, tenant, subject, permission, resource).await?;
        Ok(Response::new(answer.into()))
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
        let tenant = request.tenant.as_str();
        let mut asked = Vec::with_capacity(request.items.len());
        for item in &request.items {
            let pb::CheckPermissionItem { subject, permission, resource } = item;
            let mut item = Asked::parse(&self.0.keys, tenant, subject, permission, resource);
            if let Ok(asked) = &mut item {
                asked.look_up(&self.0, &call).await?;
                asked.note(&self.0.activity, self.0.clock.now());
            }
            asked.push(item);
        }
        let now = self.0.clock.now();
        let decided = self.0.replica.ask(|facts| {
            let admitted = match super::admit(facts, &call, tenant, now)? {
                Ok(admitted) => admitted,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let decide = |item: &Result<Asked<'_>>| {
                item.as_ref().ok().map(|asked| admitted.decide(asked)).transpose()
            };
            let decisions: Vec<_> = asked.iter().map(decide).collect::<Result<_, _>>()?;
            Ok(Ok((decisions, facts.revision)))
        });
        let (decisions, revision) = decided.await??;
        let results = asked.into_iter().zip(decisions).map(|(item, decision)| match decision {
            Some(decision) => decision.into(),
            None => item.err().map(pb::CheckPermissionResult::from).unwrap_or_default(),
        });
        Ok(Response::new(pb::BatchCheckPermissionsResponse {
            results: results.collect(),
            revision: revision_text(revision),
        }))
    }

    type CheckPermissionStreamStream =
        BoxStream<'static, Result<pb::CheckPermissionStreamResponse, Status>>;

    async fn check_permission_stream(
        &self,
        request: Request<Streaming<pb::CheckPermissionStreamRequest>>,
    ) -> Result<Response<Self::CheckPermissionStreamStream>, Status> {
        let (mut call, questions) = Call::split(request)?;
        let app = self.0.clone();
        let answers = Answers::new(questions, self.0.stopping.clone(), move |question| {
            answer_streamed(&app, &mut call, question)
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn explain_permission(
        &self,
        request: Request<pb::ExplainPermissionRequest>,
    ) -> Result<Response<pb::ExplainPermissionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let pb::ExplainPermissionRequest { tenant, subject, permission, resource } = &request;
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
    tenant: &str,
    subject: &str,
    permission: &str,
    resource: &str,
) -> Result<Answer> {
    let mut asked = Asked::parse(&app.keys, tenant, subject, permission, resource)?;
    asked.look_up(app, call).await?;
    let now = app.clock.now();
    asked.note(&app.activity, now);
    app.replica.ask(|facts| super::check(facts, call, &asked, now)).await?
}

/// Answers from memory, or later. The caller is recognised anew: it may have lost its right to ask since
/// the stream began.
fn answer_streamed(
    app: &App,
    call: &mut Call,
    question: pb::CheckPermissionStreamRequest,
) -> Reply<pb::CheckPermissionStreamResponse> {
    let now = app.clock.now();
    let pb::CheckPermissionStreamRequest { tenant, subject, permission, resource, .. } = &question;
    let asked = Asked::parse(&app.keys, tenant, subject, permission, resource);
    let answer = super::ask_now(app, |facts| {
        if let Err(ended) = recognise_again(facts, &mut call.caller, now)? {
            return Ok(Some(Err(ended)));
        }
        match &asked {
            Ok(asked) if !asked.is_address() => {
                asked.note(&app.activity, now);
                super::check(facts, call, asked, now).map(Some)
            }
            _ => Ok(None),
        }
    });
    let answer = match (answer, asked) {
        (Some(Ok(Some(answer))), _) => Some(answer),
        (Some(Err(error)), _) | (Some(Ok(None)), Err(error)) => Some(Err(error)),
        (Some(Ok(None)), Ok(_)) | (None, _) => None,
    };
    match answer {
        Some(answer) => Reply::Now(streamed(answer, question.correlation_id)),
        None => Reply::Later(answer_streamed_later(app.clone(), call.clone(), question).boxed()),
    }
}

async fn answer_streamed_later(
    app: App,
    mut call: Call,
    question: pb::CheckPermissionStreamRequest,
) -> Result<pb::CheckPermissionStreamResponse> {
    let now = app.clock.now();
    app.replica.ask(|facts| recognise_again(facts, &mut call.caller, now)).await??;
    let pb::CheckPermissionStreamRequest { tenant, subject, permission, resource, correlation_id } =
        question;
    let answer = check(&app, &call, &tenant, &subject, &permission, &resource).await;
    // Between the recognition and the answer a tenant may have been read for seconds.
    app.replica.ask(|facts| recognise_again(facts, &mut call.caller, app.clock.now())).await??;
    streamed(answer, correlation_id)
}

/// What is wrong with one question is its answer; what is wrong with the caller ends the stream.
fn streamed(
    answer: Result<Answer>,
    correlation_id: u64,
) -> Result<pb::CheckPermissionStreamResponse> {
    let answer = match answer {
        Ok(answer) => pb::CheckPermissionStreamResponse {
            allowed: answer.decision.allowed(),
            reason: pb::Reason::from(answer.decision.reason).into(),
            revision: revision_text(answer.revision),
            ..Default::default()
        },
        Err(error @ (Error::Invalid(_) | Error::Unavailable { .. })) => {
            pb::CheckPermissionStreamResponse { error: Some(error.into()), ..Default::default() }
        }
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
            revision: revision_text(answer.revision),
        }
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
