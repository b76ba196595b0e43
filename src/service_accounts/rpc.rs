//! The ServiceAccountService: generated types in and out, and the key that an installation starts with.

use secrecy::{ExposeSecret, SecretString};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{ApiKey, NewApiKey, ServiceAccount, sql};
use crate::{
    access::{Claim, permit},
    app::{App, Rpc},
    assignments::{self, NewAssignment, Shown},
    caller::Call,
    change::{self, Change, Options},
    decision::check_pattern,
    edit::{Mask, etag},
    error::{Error, Result},
    ids::{ApiKeyId, Holder, Key, ServiceAccountId},
    page::Page,
    proto::{self as pb, service_account_service_server::ServiceAccountService},
    text,
};

/// The most patterns that a key is narrowed to.
const MAX_NARROWED: usize = 100;

#[tonic::async_trait]
impl ServiceAccountService for Rpc {
    async fn create_service_account(
        &self,
        request: Request<pb::CreateServiceAccountRequest>,
    ) -> Result<Response<pb::CreateServiceAccountResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let key: Key = text::parse("key", &request.key)?;
        let input = (key, text::required("display_name", &request.display_name)?);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (key, name)| {
            Box::pin(async move {
                let account = super::create(change, key, name).await?;
                let service_account = Some(wire(account, Vec::new()));
                Ok(pb::CreateServiceAccountResponse { service_account, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_service_account(
        &self,
        request: Request<pb::GetServiceAccountRequest>,
    ) -> Result<Response<pb::GetServiceAccountResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let id = text::parse("service_account_id", &request.service_account_id)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let account = sql::get(&self.0.pool, &permit, id).await?;
        let mut roles = assignments::shown(&self.0.pool, &permit, &[id.uuid()]).await?;
        let roles = roles.remove(&id.uuid()).unwrap_or_default();
        Ok(Response::new(pb::GetServiceAccountResponse {
            service_account: Some(wire(account, roles)),
            revision: permit.revision().text(),
        }))
    }

    async fn list_service_accounts(
        &self,
        request: Request<pb::ListServiceAccountsRequest>,
    ) -> Result<Response<pb::ListServiceAccountsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let binding = ("service accounts", &request.tenant);
        let page =
            Page::<String>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let after = page.after.as_deref();
        let mut rows = sql::list(&self.0.pool, &permit, after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.key.to_string())?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id.uuid()).collect();
        let mut roles = assignments::shown(&self.0.pool, &permit, &ids).await?;
        let mut shown = |account: ServiceAccount| {
            let roles = roles.remove(&account.id.uuid()).unwrap_or_default();
            wire(account, roles)
        };
        Ok(Response::new(pb::ListServiceAccountsResponse {
            service_accounts: rows.into_iter().map(&mut shown).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn update_service_account(
        &self,
        request: Request<pb::UpdateServiceAccountRequest>,
    ) -> Result<Response<pb::UpdateServiceAccountResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let id: ServiceAccountId = text::parse("service_account_id", &request.service_account_id)?;
        let mask = Mask::read(request.update_mask, &["display_name"])?;
        let name = mask.pick("display_name", request.display_name);
        let name = name.map(|name| text::required("display_name", &name)).transpose()?;
        let input = (id, name, request.etag);
        let answer = change::run(&self.0, &call, claim, options, input, |change, input| {
            Box::pin(async move {
                let (id, name, etag) = input;
                let account = super::update(change, id, name, &etag).await?;
                let roles = assignments::shown_now(change, account.subject()).await?;
                let service_account = Some(wire(account, roles));
                Ok(pb::UpdateServiceAccountResponse { service_account, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn delete_service_account(
        &self,
        request: Request<pb::DeleteServiceAccountRequest>,
    ) -> Result<Response<pb::DeleteServiceAccountResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let id: ServiceAccountId = text::parse("service_account_id", &request.service_account_id)?;
        let input = (id, request.etag);
        let answer = change::run(&self.0, &call, claim, options, input, |change, (id, etag)| {
            Box::pin(async move {
                super::delete(change, id, &etag).await?;
                Ok(pb::DeleteServiceAccountResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn create_api_key(
        &self,
        request: Request<pb::CreateApiKeyRequest>,
    ) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let only_checked = request.validate_only;
        let new = NewApiKey::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(create_key(change, new))
        });
        let mut answer = answer.await?;
        if only_checked {
            // Nobody can call with it.
            answer.secret.clear();
        }
        Ok(Response::new(answer))
    }

    async fn list_api_keys(
        &self,
        request: Request<pb::ListApiKeysRequest>,
    ) -> Result<Response<pb::ListApiKeysResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let id = text::parse("service_account_id", &request.service_account_id)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let binding = ("api keys", &request.tenant, &request.service_account_id);
        let page =
            Page::<Uuid>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        sql::get(&self.0.pool, &permit, id).await?;
        let mut rows = sql::list_keys(&self.0.pool, &permit, id, page.after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.id.uuid())?;
        Ok(Response::new(pb::ListApiKeysResponse {
            api_keys: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<pb::RevokeApiKeyRequest>,
    ) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let id: ApiKeyId = text::parse("api_key_id", &request.api_key_id)?;
        let answer = change::run(&self.0, &call, claim, options, id, |change, id| {
            Box::pin(async move {
                let api_key = Some(super::revoke_key(change, id).await?.into());
                Ok(pb::RevokeApiKeyResponse { api_key, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }
}

async fn create_key(change: &mut Change, new: NewApiKey) -> Result<pb::CreateApiKeyResponse> {
    let (key, secret) = super::create_key(change, new).await?;
    Ok(pb::CreateApiKeyResponse {
        api_key: Some(key.into()),
        secret: secret.expose_secret().to_owned(),
        ..Default::default()
    })
}

/// Creates an operator of the installation, with a key that may do everything everywhere. It is for
/// commands, which whoever holds the database's credentials runs.
///
/// # Errors
/// `INVALID_ARGUMENT` for the name; when the database does not answer.
pub async fn create_operator(
    app: &App,
    display_name: &str,
) -> Result<(ServiceAccountId, ApiKeyId, SecretString)> {
    let call = Call::installation();
    let claim = Claim::installation(&call, Key::SYSTEM)?;
    let name = text::required("display_name", display_name)?;
    let answer = change::run(app, &call, claim, Options::default(), name, |change, name| {
        Box::pin(async move {
            let id: Uuid = change.id()?;
            let simple = id.simple().to_string();
            let key = text::parse("key", &format!("operator-{}", &simple[20..]))?;
            let account = super::create(change, key, name.clone()).await?;
            let role = NewAssignment {
                field: "role".to_owned(),
                role: "operator".to_owned(),
                scope: String::new(),
                starts: None,
                ends: None,
            };
            let role = assignments::resolve(change, &role).await?;
            assignments::give(change, Holder::Subject(account.subject()), &role).await?;
            let new = NewApiKey {
                service_account: account.id,
                display_name: name,
                narrowed: Vec::new(),
                expires_at: None,
            };
            create_key(change, new).await
        })
    });
    let answer = answer.await?;
    let key = answer.api_key.unwrap_or_default();
    let account = key.service_account_id.parse().map_err(Error::internal)?;
    Ok((account, key.id.parse().map_err(Error::internal)?, answer.secret.into()))
}

impl TryFrom<pb::CreateApiKeyRequest> for NewApiKey {
    type Error = Error;

    fn try_from(request: pb::CreateApiKeyRequest) -> Result<Self> {
        if request.permissions.len() > MAX_NARROWED {
            return Err(Error::invalid("permissions", format!("at most {MAX_NARROWED}")));
        }
        for (at, pattern) in request.permissions.iter().enumerate() {
            check_pattern(pattern)
                .map_err(|error| Error::invalid(format!("permissions[{at}]"), error))?;
        }
        Ok(Self {
            service_account: text::parse("service_account_id", &request.service_account_id)?,
            display_name: text::required("display_name", &request.display_name)?,
            narrowed: request.permissions,
            expires_at: pb::time("expire_time", request.expire_time)?,
        })
    }
}

fn wire(account: ServiceAccount, roles: Vec<Shown>) -> pb::ServiceAccount {
    pb::ServiceAccount {
        id: account.id.to_string(),
        key: account.key.to_string(),
        display_name: account.display_name,
        roles: roles.into_iter().map(Into::into).collect(),
        create_time: Some(pb::timestamp(account.created_at)),
        update_time: Some(pb::timestamp(account.updated_at)),
        etag: etag(account.version),
    }
}

impl From<ApiKey> for pb::ApiKey {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            service_account_id: key.service_account.to_string(),
            display_name: key.display_name,
            permissions: key.narrowed,
            expire_time: key.expires_at.map(pb::timestamp),
            create_time: Some(pb::timestamp(key.created_at)),
            created_by: key.created_by,
            revoke_time: key.revoked_at.map(pb::timestamp),
        }
    }
}
