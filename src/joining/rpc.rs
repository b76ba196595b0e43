//! The InvitationService: generated types in and out.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Link, LinkState, Look, Means, Offer, Proof};
use crate::{
    access::permit,
    app::Rpc,
    assignments,
    caller::Call,
    change::{self, Change, Options},
    error::{Error, Result},
    ids::InvitationId,
    invitations::{self, Filter, NewInvitation},
    page::Page,
    proto::{
        self as pb, accept_invitation_request::Account,
        invitation_service_server::InvitationService,
    },
    text,
};

/// The longest first or last name, in characters.
const MAX_NAME: usize = 100;
/// Invitations in one call.
const MAX_BATCH: usize = 100;

#[tonic::async_trait]
impl InvitationService for Rpc {
    async fn create_invitation(
        &self,
        request: Request<pb::CreateInvitationRequest>,
    ) -> Result<Response<pb::CreateInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let tenant = request.tenant.clone();
        let new = NewInvitation::try_from(request)?;
        let scopes = assignments::claimed_scopes(&self.0, &tenant, &new.roles, &[]).await?;
        let claim = call.claim_each(&tenant, invitations::permission(new.kind), scopes)?;
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                let id = invitations::create(change, new).await?;
                let invitation = Some(shown(change, id).await?);
                Ok(pb::CreateInvitationResponse { invitation, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn batch_create_invitations(
        &self,
        request: Request<pb::BatchCreateInvitationsRequest>,
    ) -> Result<Response<pb::BatchCreateInvitationsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        if !(1..=MAX_BATCH).contains(&request.invitations.len()) {
            let wanted = format!("1 to {MAX_BATCH} invitations");
            return Err(Error::invalid("invitations", wanted).into());
        }
        let items = request
            .invitations
            .into_iter()
            .enumerate()
            .map(|(at, new)| NewInvitation::try_from(new).map_err(|error| refusal(at, &error)));
        let items: Vec<Result<NewInvitation, pb::Refusal>> = items.collect();
        let claim = invitations::claim_some(
            &self.0,
            &call,
            &request.tenant,
            items.iter().filter_map(|item| item.as_ref().ok()),
        );
        let claim = claim.await?;
        let answer = change::run(&self.0, &call, claim, options, items, |change, items| {
            Box::pin(invite_each(change, items))
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_invitation(
        &self,
        request: Request<pb::GetInvitationRequest>,
    ) -> Result<Response<pb::GetInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let id = id(&request.invitation_id)?;
        let now = self.0.clock.now();
        let filter = Filter { id: Some(id), status: None, before: None, now, limit: 1 };
        let found = invitations::list(&self.0.pool, &permit, &filter).await?.pop();
        let invitation = found.ok_or_else(|| Error::not_found("invitation", id))?;
        Ok(Response::new(pb::GetInvitationResponse {
            invitation: Some(invitation.into()),
            revision: permit.revision().text(),
        }))
    }

    async fn list_invitations(
        &self,
        request: Request<pb::ListInvitationsRequest>,
    ) -> Result<Response<pb::ListInvitationsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let status = invitations::read_status("status", request.status)?;
        let binding = ("invitations", &request.tenant, request.status);
        let page =
            Page::<Uuid>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let (now, limit) = (self.0.clock.now(), page.limit());
        let filter = Filter { id: None, status, before: page.after, now, limit };
        let mut rows = invitations::list(&self.0.pool, &permit, &filter).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.id.uuid())?;
        Ok(Response::new(pb::ListInvitationsResponse {
            invitations: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn resend_invitation(
        &self,
        request: Request<pb::ResendInvitationRequest>,
    ) -> Result<Response<pb::ResendInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let id = id(&request.invitation_id)?;
        let claim = invitations::claim(&self.0, &call, &request.tenant, id).await?;
        let input = (id, request.etag);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (id, etag)| {
            Box::pin(async move {
                invitations::resend(change, id, &etag).await?;
                let invitation = Some(shown(change, id).await?);
                Ok(pb::ResendInvitationResponse { invitation, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn cancel_invitation(
        &self,
        request: Request<pb::CancelInvitationRequest>,
    ) -> Result<Response<pb::CancelInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let id = id(&request.invitation_id)?;
        let claim = invitations::claim(&self.0, &call, &request.tenant, id).await?;
        let input = (id, request.etag);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (id, etag)| {
            Box::pin(async move {
                invitations::cancel(change, id, &etag).await?;
                let invitation = Some(shown(change, id).await?);
                Ok(pb::CancelInvitationResponse { invitation, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn accept_invitation(
        &self,
        request: Request<pb::AcceptInvitationRequest>,
    ) -> Result<Response<pb::AcceptInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let link = super::open(&self.0, &request.token)?;
        let means = Means::try_from(request.account)?;
        let proof = super::prove(&self.0, &call, &link, means).await?;
        let claim = call.claim_link(link.key.as_str())?;
        let (options, input) = (Options::default(), (link, proof));
        let answer = change::run(&self.0, &call, claim, options, input, |change, input| {
            Box::pin(join(change, input))
        });
        Ok(Response::new(answer.await?))
    }

    async fn open_invitation(
        &self,
        request: Request<pb::OpenInvitationRequest>,
    ) -> Result<Response<pb::OpenInvitationResponse>, Status> {
        let (_, request) = Call::split(request)?;
        let link = super::open(&self.0, &request.token)?;
        Ok(Response::new(super::look(&self.0, &link).await?.into()))
    }

    async fn decline_invitation(
        &self,
        request: Request<pb::DeclineInvitationRequest>,
    ) -> Result<Response<pb::DeclineInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let link = super::open(&self.0, &request.token)?;
        let claim = call.claim_link(link.key.as_str())?;
        let answer =
            change::run(&self.0, &call, claim, Options::default(), link, |change, link| {
                Box::pin(async move {
                    super::decline(change, &link).await?;
                    Ok(pb::DeclineInvitationResponse::default())
                })
            });
        Ok(Response::new(answer.await?))
    }

    async fn request_invitation(
        &self,
        request: Request<pb::RequestInvitationRequest>,
    ) -> Result<Response<pb::RequestInvitationResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let link = super::open(&self.0, &request.token)?;
        super::count_request(&self.0, &link).await?;
        let claim = call.claim_link(link.key.as_str())?;
        let answer =
            change::run(&self.0, &call, claim, Options::default(), link, |change, link| {
                Box::pin(async move {
                    super::request(change, &link).await?;
                    Ok(pb::RequestInvitationResponse::default())
                })
            });
        Ok(Response::new(answer.await?))
    }
}

impl From<Look> for pb::OpenInvitationResponse {
    fn from(look: Look) -> Self {
        let state = match look.state {
            LinkState::Open => pb::LinkState::Open,
            LinkState::Expired => pb::LinkState::Expired,
            LinkState::Replaced => pb::LinkState::Replaced,
            LinkState::Cancelled => pb::LinkState::Cancelled,
            LinkState::Declined => pb::LinkState::Declined,
            LinkState::Accepted => pb::LinkState::Accepted,
            LinkState::TenantSuspended => pb::LinkState::TenantSuspended,
        };
        let offered = |offer: Offer| pb::OfferedRole {
            name: offer.role,
            workspace_name: offer.workspace,
            path: offer.path,
            end_time: offer.ends.map(pb::timestamp),
        };
        Self {
            state: state.into(),
            tenant: look.tenant.to_string(),
            tenant_name: look.tenant_name,
            email: look.email,
            has_account: look.has_account,
            inviter_name: look.inviter_name,
            roles: look.offers.into_iter().map(offered).collect(),
            message: look.message,
            language: look.language,
            expire_time: Some(pb::timestamp(look.expires_at)),
            first_name: look.first_name,
            last_name: look.last_name,
            home_url: look.home_url,
        }
    }
}

async fn invite_each(
    change: &mut Change,
    items: Vec<Result<NewInvitation, pb::Refusal>>,
) -> Result<pb::BatchCreateInvitationsResponse> {
    let mut results = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let made = match item {
            Ok(new) => {
                let made = invitations::create_among(change, new).await?;
                made.map_err(|error| refusal(at, &error))
            }
            Err(refusal) => Err(refusal),
        };
        results.push(match made {
            Ok(id) => {
                let invitation = Some(shown(change, id).await?);
                pb::BatchInvitation { invitation, refusal: None }
            }
            Err(refusal) => pb::BatchInvitation { invitation: None, refusal: Some(refusal) },
        });
    }
    Ok(pb::BatchCreateInvitationsResponse { results, revision: String::new() })
}

/// Why one of many is refused; its fields are named as those of the whole request.
fn refusal(at: usize, error: &Error) -> pb::Refusal {
    let (field, message) = match error {
        Error::Invalid(violations) => violations.first().map_or_else(Default::default, |first| {
            (format!("invitations[{at}].{}", first.field), first.description.clone())
        }),
        error => (String::new(), error.to_string()),
    };
    pb::Refusal { reason: error.reason().to_owned(), field, message }
}

async fn join(
    change: &mut Change,
    (link, proof): (Link, Proof),
) -> Result<pb::AcceptInvitationResponse> {
    let user = super::accept(change, &link, proof).await?;
    Ok(pb::AcceptInvitationResponse {
        user_id: user.to_string(),
        tenant: link.key.to_string(),
        membership: Some(crate::memberships::answer_now(change, user).await?),
        revision: String::new(),
    })
}

async fn shown(change: &mut Change, id: InvitationId) -> Result<pb::Invitation> {
    Ok(invitations::shown_now(change, id).await?.into())
}

fn id(text: &str) -> Result<InvitationId> {
    text.parse().map_err(|error| Error::invalid("invitation_id", error))
}

impl TryFrom<Option<Account>> for Means {
    type Error = Error;

    fn try_from(account: Option<Account>) -> Result<Self> {
        let name = |field: &str, text: &str| text::line(field, text, MAX_NAME);
        Ok(match account {
            None => Self::Session,
            Some(Account::NewAccount(new)) => Self::New {
                first_name: name("new_account.first_name", &new.first_name)?,
                last_name: name("new_account.last_name", &new.last_name)?,
                password: new.password.into(),
            },
            Some(Account::ExistingAccount(account)) => Self::Password(account.password.into()),
        })
    }
}
