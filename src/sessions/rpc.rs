//! The SessionService: generated types in and out.

use std::net::IpAddr;

use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{NewSession, Opened, Session, SignIn, SignedIn, open::calling_session, sql};
use crate::{
    access::{Claim, permit},
    app::{App, Rpc},
    caller::Call,
    change::{self, Options},
    decision::Time,
    error::{Error, Result},
    ids::{Key, SessionId, UserId},
    page::Page,
    proto::{self as pb, session_service_server::SessionService},
    text,
};

/// The longest name of a program, in characters.
const MAX_USER_AGENT: usize = 500;

#[tonic::async_trait]
impl SessionService for Rpc {
    async fn sign_in(
        &self,
        request: Request<pb::SignInRequest>,
    ) -> Result<Response<pb::SignInResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let pb::SignInRequest { email, password, tenant } = request;
        let new = SignIn { email, password: password.into(), tenant };
        let signed_in = super::sign_in(&self.0, &call, new).await?;
        Ok(Response::new(signed_in.into()))
    }

    async fn create_session(
        &self,
        request: Request<pb::CreateSessionRequest>,
    ) -> Result<Response<pb::CreateSessionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let new = NewSession::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                let Opened { session, token } = super::create(change, new).await?;
                Ok(pb::CreateSessionResponse {
                    session: Some(session.into()),
                    token: token.expose_secret().to_owned(),
                    ..Default::default()
                })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn switch_tenant(
        &self,
        request: Request<pb::SwitchTenantRequest>,
    ) -> Result<Response<pb::SwitchTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let Opened { session, token } = super::switch(&self.0, &call, &request.tenant).await?;
        Ok(Response::new(pb::SwitchTenantResponse {
            session: Some(session.into()),
            token: token.expose_secret().to_owned(),
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let user = person(&call, &request.user_id)?;
        let claim = call.claim_person(&request.tenant, user)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let (pool, keys, now) = (&self.0.pool, &self.0.keys, self.0.clock.now());
        let binding = ("sessions", &request.tenant, user);
        let page =
            Page::<(Time, Uuid)>::read(keys, &binding, request.page_size, &request.page_token)?;
        let mut rows = sql::list(pool, &permit, user, now, page.after, page.limit()).await?;
        let key = |row: &Session| (row.created_at, row.id.uuid());
        let next_page_token = page.finish(keys, &mut rows, key)?;
        Ok(Response::new(pb::ListSessionsResponse {
            sessions: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn revoke_session(
        &self,
        request: Request<pb::RevokeSessionRequest>,
    ) -> Result<Response<pb::RevokeSessionResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let (claim, target) = target(&self.0, &call, &request).await?;
        let answer = change::run(&self.0, &call, claim, options, target, |change, target| {
            Box::pin(async move {
                match target {
                    Target::One(session) => super::end(change, session).await?,
                    Target::All(user) => super::end_all(change, user).await?,
                    Target::Unknown(name) => return Err(Error::not_found("session", name)),
                }
                Ok(pb::RevokeSessionResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn sign_out(
        &self,
        request: Request<pb::SignOutRequest>,
    ) -> Result<Response<pb::SignOutResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claims = *calling_session(&call)?;
        let facts = self.0.replica.facts();
        let home = facts.directory.tenant_keys.get(&claims.tenant).map_or("", Key::as_str);
        let claim = call.claim_oneself(home)?;
        let answer =
            change::run(&self.0, &call, claim, options, claims.session, |change, session| {
                Box::pin(async move {
                    super::end(change, session).await?;
                    Ok(pb::SignOutResponse::default())
                })
            });
        Ok(Response::new(answer.await?))
    }
}

/// What a call of RevokeSession ends.
#[derive(Debug, Clone)]
enum Target {
    One(SessionId),
    All(UserId),
    Unknown(SessionId),
}

/// Finds whose session it is, to know whether the caller needs a permission. Who may not end a session
/// is not told whether there is one.
async fn target(
    app: &App,
    call: &Call,
    request: &pb::RevokeSessionRequest,
) -> Result<(Claim, Target)> {
    let tenant = &request.tenant;
    if request.session_id.is_empty() {
        let user = person(call, &request.user_id)?;
        return Ok((call.claim_person(tenant, user)?, Target::All(user)));
    }
    let invalid = |error| Error::invalid("session_id", error);
    let session: SessionId = request.session_id.parse().map_err(invalid)?;
    let named = match request.user_id.as_str() {
        "" => None,
        user => Some(person(call, user)?),
    };
    let owner = sql::owner(&app.pool, tenant, session).await?;
    match owner.filter(|owner| named.is_none_or(|named| named == *owner)) {
        Some(owner) => Ok((call.claim_person(tenant, owner)?, Target::One(session))),
        None => {
            let claim = call.claim_each(tenant, "iam.sessions.revoke", [""])?;
            Ok((claim, Target::Unknown(session)))
        }
    }
}

/// The person named, or the one who calls.
fn person(call: &Call, user: &str) -> Result<UserId> {
    match user {
        "" => call.require_person(),
        user => user.parse().map_err(|error| Error::invalid("user_id", error)),
    }
}

impl TryFrom<pb::CreateSessionRequest> for NewSession {
    type Error = Error;

    fn try_from(request: pb::CreateSessionRequest) -> Result<Self> {
        let source = request.source_address;
        if !source.is_empty() && source.parse::<IpAddr>().is_err() {
            let wanted = "expected a network address such as `192.0.2.1`, or nothing";
            return Err(Error::invalid("source_address", wanted));
        }
        Ok(Self {
            user: request.user_id.parse().map_err(|error| Error::invalid("user_id", error))?,
            source,
            user_agent: text::line("user_agent", &request.user_agent, MAX_USER_AGENT)?,
            by_service: true,
        })
    }
}

impl From<SignedIn> for pb::SignInResponse {
    fn from(signed_in: SignedIn) -> Self {
        match signed_in {
            SignedIn::Opened(Opened { session, token }) => Self {
                session: Some(session.into()),
                token: token.expose_secret().to_owned(),
                tenants: Vec::new(),
            },
            SignedIn::Choose(choices) => {
                let choice = |choice: super::Choice| pb::TenantChoice {
                    tenant: choice.tenant,
                    display_name: choice.display_name,
                };
                Self { tenants: choices.into_iter().map(choice).collect(), ..Default::default() }
            }
        }
    }
}

impl From<Session> for pb::Session {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.to_string(),
            user_id: session.user.to_string(),
            tenant: session.tenant.to_string(),
            create_time: Some(pb::timestamp(session.created_at)),
            expire_time: Some(pb::timestamp(session.expires_at)),
            source_address: session.source,
            user_agent: session.user_agent,
            last_use_time: Some(pb::timestamp(session.last_used_at)),
        }
    }
}
