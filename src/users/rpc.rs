//! The UserService: generated types in and out.

use std::collections::BTreeMap;

use secrecy::SecretString;
use tonic::{Request, Response, Status};

use super::{MyTenant, NewPassword, UserEdit, sql};
use crate::{
    access::{Claim, permit},
    accounts::{self, User},
    app::{App, Rpc},
    caller::Call,
    change::{self, Options},
    decision::Credential,
    edit::{Mask, etag},
    erasure,
    error::{Error, Result},
    ids::{Key, SessionId, UserId},
    memberships,
    page::Page,
    passwords::Passwords,
    proto::{self as pb, user_service_server::UserService},
    recovery::{self, NewEmail},
    secret::Proof,
    sessions,
    text::{self, Email},
};

/// The longest name, in characters.
const MAX_NAME: usize = 100;

#[tonic::async_trait]
impl UserService for Rpc {
    async fn get_user(
        &self,
        request: Request<pb::GetUserRequest>,
    ) -> Result<Response<pb::GetUserResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let (user, claim) = account(&call, &request.user_id)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let found = accounts::find(&self.0.pool, user).await?;
        let found = found.ok_or_else(|| Error::not_found("user", user))?;
        Ok(Response::new(pb::GetUserResponse {
            user: Some(found.user.into()),
            revision: permit.revision().text(),
        }))
    }

    async fn find_user(
        &self,
        request: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(Key::SYSTEM)?).await?;
        let pb::FindUserRequest { external_id, email } = request;
        let pool = &self.0.pool;
        let (found, name) = match (external_id.is_empty(), email.is_empty()) {
            (false, true) => {
                let name = text::required("external_id", &external_id)?;
                (accounts::find_by_external_id(pool, &name).await?, name)
            }
            (true, false) => {
                let address = Email::parse("email", &email)?;
                (accounts::find_by_email(pool, &address).await?, email)
            }
            _ => return Err(Error::invalid("external_id", "give either it or `email`").into()),
        };
        let found = found.ok_or_else(|| Error::not_found("user", name))?;
        Ok(Response::new(pb::FindUserResponse {
            user: Some(found.user.into()),
            revision: permit.revision().text(),
        }))
    }

    async fn update_user(
        &self,
        request: Request<pb::UpdateUserRequest>,
    ) -> Result<Response<pb::UpdateUserResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let (user, claim) = account(&call, &request.user_id)?;
        let edit = UserEdit::read(user, request)?;
        let claim = match edit.is_of_person() {
            true => claim,
            false => call.claim_each(Key::SYSTEM, "iam.users.update", [""])?,
        };
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let user = Some(super::update(change, edit).await?.into());
                Ok(pb::UpdateUserResponse { user, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_my_tenants(
        &self,
        request: Request<pb::ListMyTenantsRequest>,
    ) -> Result<Response<pb::ListMyTenantsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim_account()?).await?;
        let subject = call.subject().ok_or_else(|| Error::internal("nobody calls"))?;
        let binding = ("my tenants", subject);
        let page =
            Page::<String>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let after = page.after.as_deref();
        let mut rows = sql::my_tenants(&self.0.pool, subject, after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.key.to_string())?;
        Ok(Response::new(pb::ListMyTenantsResponse {
            tenants: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn change_password(
        &self,
        request: Request<pb::ChangePasswordRequest>,
    ) -> Result<Response<pb::ChangePasswordResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let (user, claim) = account(&call, &request.user_id)?;
        let keep = session(&call)?;
        let new = SecretString::from(request.new_password);
        Passwords::check_length("new_password", &new)?;
        // Before the first look at the password: whose session has ended learns nothing about it.
        permit(&self.0, &call, &claim).await?;
        if let Some(account) = accounts::find(&self.0.pool, user).await? {
            Passwords::check("new_password", &new, &account.user.email)?;
        }
        let proved = prove(&self.0, &call, user, request.current_password.into()).await?;
        let hash = self.0.passwords.hash(new).await?.into();
        let new = NewPassword { user, proved, hash, keep };
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                super::change_password(change, new).await?;
                Ok(pb::ChangePasswordResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn disable_user(
        &self,
        request: Request<pb::DisableUserRequest>,
    ) -> Result<Response<pb::DisableUserResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user: UserId = text::parse("user_id", &request.user_id)?;
        let claim = call.claim(Key::SYSTEM)?;
        let answer = change::run(&self.0, &call, claim, options, user, |change, user| {
            Box::pin(async move {
                let (user, left) = super::disable(change, user).await?;
                Ok(pb::DisableUserResponse {
                    user: Some(user.into()),
                    tenants_without_administrator: left.iter().map(Key::to_string).collect(),
                    ..Default::default()
                })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn enable_user(
        &self,
        request: Request<pb::EnableUserRequest>,
    ) -> Result<Response<pb::EnableUserResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user: UserId = text::parse("user_id", &request.user_id)?;
        let claim = call.claim(Key::SYSTEM)?;
        let answer = change::run(&self.0, &call, claim, options, user, |change, user| {
            Box::pin(async move {
                let user = Some(super::enable(change, user).await?.into());
                Ok(pb::EnableUserResponse { user, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn delete_user(
        &self,
        request: Request<pb::DeleteUserRequest>,
    ) -> Result<Response<pb::DeleteUserResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let user = person(&call, &request.user_id)?;
        let own = call.is_oneself(user);
        let claim = match own {
            true => call.claim_account()?,
            false => call.claim_person(Key::SYSTEM, user)?,
        };
        permit(&self.0, &call, &claim).await?;
        if own {
            let password = request.password.into();
            if prove(&self.0, &call, user, password).await?.is_none() {
                return Err(super::password_wrong().into());
            }
        }
        let email = Email::parse("email", &request.email)?;
        let end = End { user, email };
        Ok(Response::new(delete(&self.0, &call, &claim, &options, &end).await?))
    }

    async fn request_password_reset(
        &self,
        request: Request<pb::RequestPasswordResetRequest>,
    ) -> Result<Response<pb::RequestPasswordResetResponse>, Status> {
        let (call, request) = Call::split(request)?;
        recovery::request(&self.0, &call, &request.email).await?;
        Ok(Response::new(pb::RequestPasswordResetResponse {}))
    }

    async fn reset_password(
        &self,
        request: Request<pb::ResetPasswordRequest>,
    ) -> Result<Response<pb::ResetPasswordResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let link = recovery::open(&self.0, Proof::PASSWORD_RESET, &request.token)?;
        let hash = recovery::prepare(&self.0, &call, &link, request.new_password.into()).await?;
        let claim = call.claim_link(Key::SYSTEM)?;
        let options = Options::default();
        let input = (link, hash);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (link, hash)| {
            Box::pin(async move {
                recovery::reset(change, &link, &hash).await?;
                Ok(pb::ResetPasswordResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn request_email_change(
        &self,
        request: Request<pb::RequestEmailChangeRequest>,
    ) -> Result<Response<pb::RequestEmailChangeResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let (user, claim) = account(&call, &request.user_id)?;
        let email = Email::enter("new_email", &request.new_email)?;
        session(&call)?;
        permit(&self.0, &call, &claim).await?;
        let proved = prove(&self.0, &call, user, request.password.into()).await?;
        recovery::count(&self.0, user).await?;
        let new = NewEmail { user, email, proved };
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                recovery::request_email(change, new).await?;
                Ok(pb::RequestEmailChangeResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn confirm_email_change(
        &self,
        request: Request<pb::ConfirmEmailChangeRequest>,
    ) -> Result<Response<pb::ConfirmEmailChangeResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let link = recovery::open(&self.0, Proof::EMAIL_CHANGE, &request.token)?;
        let claim = call.claim_link(Key::SYSTEM)?;
        let answer =
            change::run(&self.0, &call, claim, Options::default(), link, |change, link| {
                Box::pin(async move {
                    let user = recovery::confirm_email(change, &link).await?;
                    let user =
                        User { external_id: String::new(), metadata: BTreeMap::new(), ..user };
                    let user = Some(user.into());
                    Ok(pb::ConfirmEmailChangeResponse { user, ..Default::default() })
                })
            });
        Ok(Response::new(answer.await?))
    }
}

/// Whose account ends, as the request confirms it.
struct End {
    user: UserId,
    email: Email,
}

/// Erases a person from each of their tenants, each by a change of its own; the account goes with the
/// last. If one refuses, none is changed, but for what happens in between.
async fn delete(
    app: &App,
    call: &Call,
    claim: &Claim,
    options: &Options,
    End { user, email }: &End,
) -> Result<pb::DeleteUserResponse> {
    if let Some(found) = accounts::find(&app.pool, *user).await?
        && Email::parse("email", &found.user.email)?.canonical() != email.canonical()
    {
        let wanted = "it is not the address of this account; give it to confirm that it shall go";
        return Err(Error::invalid("email", wanted));
    }
    let mut tenants = memberships::tenants_of(&app.pool, *user).await?;
    // The session of whoever ends their own account holds in its tenant, so that one comes last.
    let facts = app.replica.facts();
    let home = call.authority().and_then(|a| facts.directory.tenant_keys.get(&a.home()).cloned());
    drop(facts);
    tenants.sort_by_key(|tenant| Some(tenant) == home.as_ref());
    let one = |tenant: &Key, options: Options| {
        change::run(app, call, claim.in_tenant(tenant.as_str()), options, *user, |change, user| {
            Box::pin(async move {
                erasure::erase(change, user).await?;
                Ok(pb::DeleteUserResponse::default())
            })
        })
    };
    for tenant in &tenants {
        one(tenant, options.of_a_trial()).await?;
    }
    let ended = tenants.iter().map(Key::to_string).collect();
    if options.is_trial() {
        return Ok(pb::DeleteUserResponse { tenants: ended, ..Default::default() });
    }
    let Some((last, others)) = tenants.split_last() else {
        // Finds the answer of a repeated request; otherwise there is nobody to erase.
        return one(&Key::system(), options.clone()).await;
    };
    for tenant in others {
        one(tenant, options.of_a_part()).await?;
    }
    let answer = one(last, options.clone()).await?;
    Ok(pb::DeleteUserResponse { tenants: ended, ..answer })
}

fn person(call: &Call, user_id: &str) -> Result<UserId> {
    match user_id {
        "" => call.require_person(),
        user_id => text::parse("user_id", user_id),
    }
}

/// The caller's own account, or that of somebody over whom they have the rule's permission.
fn account(call: &Call, user_id: &str) -> Result<(UserId, Claim)> {
    let user = person(call, user_id)?;
    let claim = match call.person() == Some(user) {
        true => call.claim_account()?,
        false => call.claim_person(Key::SYSTEM, user)?,
    };
    Ok((user, claim))
}

fn session(call: &Call) -> Result<SessionId> {
    match call.authority().map(|authority| &authority.credential) {
        Some(Credential::Session(claims)) => Ok(claims.session),
        _ => Err(Error::Denied {
            reason: "NOT_YOURS",
            message: "only the person concerned may do this; call with their session".to_owned(),
        }),
    }
}

/// The hash that the password fits, if it does. A wrong one is refused inside the change, where a
/// repeated request first finds its answer.
async fn prove(
    app: &App,
    call: &Call,
    user: UserId,
    password: SecretString,
) -> Result<Option<SecretString>> {
    let found = accounts::find(&app.pool, user).await?;
    let found = found.ok_or_else(|| Error::not_found("user", user))?;
    let email = Email::parse("email", &found.user.email)?;
    let hash = found.password_hash;
    let right = sessions::prove(app, call, &email, password, hash.as_ref()).await?;
    Ok(hash.filter(|_| right))
}

impl UserEdit {
    fn read(user: UserId, request: pb::UpdateUserRequest) -> Result<Self> {
        let mask = Mask::read(
            request.update_mask,
            &["first_name", "last_name", "language", "external_id", "metadata"],
        )?;
        text::metadata("metadata", &request.metadata)?;
        let name = |field: &str, name: String| {
            let name = mask.pick(field, name);
            name.map(|name| text::line(field, &name, MAX_NAME)).transpose()
        };
        let language = mask.pick("language", request.language);
        let external_id = mask.pick("external_id", request.external_id);
        Ok(Self {
            user,
            first_name: name("first_name", request.first_name)?,
            last_name: name("last_name", request.last_name)?,
            language: language.map(|l| text::language("language", &l, "en")).transpose()?,
            external_id: external_id
                .map(|id| text::line("external_id", &id, text::MAX_TEXT))
                .transpose()?,
            metadata: mask.pick("metadata", request.metadata),
            etag: request.etag,
        })
    }
}

impl From<User> for pb::User {
    fn from(user: User) -> Self {
        let status = if user.disabled { pb::UserStatus::Disabled } else { pb::UserStatus::Active };
        Self {
            id: user.id.to_string(),
            email: user.email,
            first_name: user.first_name,
            last_name: user.last_name,
            language: user.language,
            status: status.into(),
            create_time: Some(pb::timestamp(user.created_at)),
            etag: etag(user.version),
            external_id: user.external_id,
            metadata: user.metadata,
        }
    }
}

impl From<MyTenant> for pb::MyTenant {
    fn from(tenant: MyTenant) -> Self {
        Self {
            tenant: tenant.key.to_string(),
            display_name: tenant.display_name,
            status: pb::MembershipStatus::from(tenant.status).into(),
            kind: pb::MemberKind::from(tenant.kind).into(),
            roles: tenant.roles.into_iter().map(Into::into).collect(),
            tenant_status: pb::TenantStatus::from(tenant.tenant_status).into(),
        }
    }
}
