//! The TenantService: generated types in and out. Where a tenant and its first invitation are made
//! together, they meet here: neither module calls the other for it.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Filter, NewTenant, Tenant, TenantEdit, sql};
use crate::{
    access::permit,
    app::{App, Rpc},
    caller::Call,
    catalogue::Words,
    change::{self, Change, Options},
    decision::{Facts, TenantFacts, TenantNotLoaded, TenantStatus, is_administrator},
    edit::{Mask, etag},
    error::{Error, Result},
    ids::{Key, RoleId, TenantId},
    invitations::{self, NewAdministrator},
    page::Page,
    plans,
    proto::{self as pb, tenant_service_server::TenantService},
    text::{self, Email},
};

/// Somebody may administer it, but only one.
const SINGLE_ADMINISTRATOR: &str = "SINGLE_ADMINISTRATOR";
/// Nobody may administer it.
const NO_ADMINISTRATOR: &str = "NO_ADMINISTRATOR";

#[tonic::async_trait]
impl TenantService for Rpc {
    async fn create_tenant(
        &self,
        request: Request<pb::CreateTenantRequest>,
    ) -> Result<Response<pb::CreateTenantResponse>, Status> {
        let (call, mut request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(Key::SYSTEM)?;
        let administrator = request.administrator.take().map(TryInto::try_into).transpose()?;
        let plan = match request.plan.as_str() {
            "" => None,
            plan => Some(text::parse::<Key>("plan", plan)?),
        };
        let new = (NewTenant::try_from(request)?, administrator, plan);
        let answer = change::run(
            &self.0,
            &call,
            claim,
            options,
            new,
            |change, (new, administrator, plan)| Box::pin(create(change, new, administrator, plan)),
        );
        Ok(Response::new(answer.await?))
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let tenant = sql::get(&self.0.pool, &permit).await?;
        let tenant = add_administrators(&self.0, Some(tenant.into())).await?;
        let revision = permit.revision().text();
        Ok(Response::new(pb::GetTenantResponse { tenant, revision }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(Key::SYSTEM)?).await?;
        let filter = Filter { status: status(request.status)?, key_prefix: request.key_prefix };
        let binding = ("tenants", &filter);
        let page =
            Page::<String>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let after = page.after.as_deref();
        let mut rows = sql::list(&self.0.pool, &permit, &filter, after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.key.to_string())?;
        Ok(Response::new(pb::ListTenantsResponse {
            tenants: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn update_tenant(
        &self,
        request: Request<pb::UpdateTenantRequest>,
    ) -> Result<Response<pb::UpdateTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let edit = TenantEdit::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let tenant = Some(super::update(change, edit).await?.into());
                Ok(pb::UpdateTenantResponse { tenant, ..Default::default() })
            })
        });
        let mut answer = answer.await?;
        answer.tenant = add_administrators(&self.0, answer.tenant).await?;
        Ok(Response::new(answer))
    }

    async fn suspend_tenant(
        &self,
        request: Request<pb::SuspendTenantRequest>,
    ) -> Result<Response<pb::SuspendTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, (), |change, ()| {
            Box::pin(async move {
                let tenant = Some(super::suspend(change).await?.into());
                Ok(pb::SuspendTenantResponse { tenant, ..Default::default() })
            })
        });
        let mut answer = answer.await?;
        answer.tenant = add_administrators(&self.0, answer.tenant).await?;
        Ok(Response::new(answer))
    }

    async fn reactivate_tenant(
        &self,
        request: Request<pb::ReactivateTenantRequest>,
    ) -> Result<Response<pb::ReactivateTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, (), |change, ()| {
            Box::pin(async move {
                let tenant = Some(super::reactivate(change).await?.into());
                Ok(pb::ReactivateTenantResponse { tenant, ..Default::default() })
            })
        });
        let mut answer = answer.await?;
        answer.tenant = add_administrators(&self.0, answer.tenant).await?;
        Ok(Response::new(answer))
    }

    async fn delete_tenant(
        &self,
        request: Request<pb::DeleteTenantRequest>,
    ) -> Result<Response<pb::DeleteTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, request.etag, |change, etag| {
            Box::pin(async move {
                let tenant = Some(super::delete(change, &etag).await?.into());
                Ok(pb::DeleteTenantResponse { tenant, ..Default::default() })
            })
        });
        let mut answer = answer.await?;
        answer.tenant = add_administrators(&self.0, answer.tenant).await?;
        Ok(Response::new(answer))
    }

    async fn restore_tenant(
        &self,
        request: Request<pb::RestoreTenantRequest>,
    ) -> Result<Response<pb::RestoreTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, (), |change, ()| {
            Box::pin(async move {
                let tenant = Some(super::restore(change).await?.into());
                Ok(pb::RestoreTenantResponse { tenant, ..Default::default() })
            })
        });
        let mut answer = answer.await?;
        answer.tenant = add_administrators(&self.0, answer.tenant).await?;
        Ok(Response::new(answer))
    }

    async fn purge_tenant(
        &self,
        request: Request<pb::PurgeTenantRequest>,
    ) -> Result<Response<pb::PurgeTenantResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, (), |change, ()| {
            Box::pin(async move {
                let (tenant, member_count) = super::condemn(change).await?;
                let tenant = Some(tenant.into());
                Ok(pb::PurgeTenantResponse { tenant, member_count, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn appoint_administrator(
        &self,
        request: Request<pb::AppointAdministratorRequest>,
    ) -> Result<Response<pb::AppointAdministratorResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let user = text::parse("user_id", &request.user_id)?;
        let answer = change::run(&self.0, &call, claim, options, user, |change, user| {
            Box::pin(async move {
                let tenant = Some(super::repair(change, user).await?.into());
                Ok(pb::AppointAdministratorResponse { tenant, ..Default::default() })
            })
        });
        let mut answer = answer.await?;
        answer.tenant = add_administrators(&self.0, answer.tenant).await?;
        Ok(Response::new(answer))
    }
}

/// The administrator who is named is invited; otherwise the person who calls becomes it.
async fn create(
    change: &mut Change,
    new: NewTenant,
    administrator: Option<NewAdministrator>,
    plan: Option<Key>,
) -> Result<pb::CreateTenantResponse> {
    let person = change.call().person();
    let (status, person) = match (&administrator, person) {
        (Some(_), _) => (TenantStatus::Pending, None),
        (None, Some(person)) => (TenantStatus::Active, Some(person)),
        (None, None) => {
            let wanted = "it is required, unless a person calls, who then becomes administrator";
            return Err(Error::invalid("administrator", wanted));
        }
    };
    let mut tenant: pb::Tenant = super::create(change, NewTenant { status, ..new }).await?.into();
    if let Some(plan) = plan {
        plans::choose(change, &plan, None).await?;
    }
    if let Some(person) = person {
        super::appoint(change, person).await?;
        note_administrators(&mut tenant, 1);
    }
    let invitation = match administrator {
        Some(new) => Some(invitations::promise_administrator(change, new).await?),
        None => None,
    };
    let invitation_id = invitation.map(|id| id.to_string()).unwrap_or_default();
    Ok(pb::CreateTenantResponse { tenant: Some(tenant), invitation_id, ..Default::default() })
}

/// Fills in what the facts know: how many may administer the tenant, and what follows from it.
async fn add_administrators(app: &App, tenant: Option<pb::Tenant>) -> Result<Option<pb::Tenant>> {
    let Some(mut tenant) = tenant else { return Ok(None) };
    let id = app.replica.facts().directory.tenants.get(tenant.key.as_str()).map(|entry| entry.id);
    let Some(id) = id.filter(|id| *id != TenantId::SYSTEM) else { return Ok(Some(tenant)) };
    let found = |facts: &Facts| facts.tenant(id).cloned().ok_or(TenantNotLoaded(id));
    let administering =
        |facts: &TenantFacts| -> Vec<Uuid> { facts.administering().map(RoleId::uuid).collect() };
    let roles = app.replica.ask(|facts| Ok(administering(&*found(facts)?))).await?;
    let holders = sql::holders(&app.pool, id, &roles).await?;
    let now = app.clock.now();
    let count = app
        .replica
        .ask(|facts| {
            let loaded = found(facts)?;
            let administers = |user: &&Uuid| is_administrator(facts, &loaded, (**user).into(), now);
            Ok(holders.iter().filter(administers).count())
        })
        .await?;
    note_administrators(&mut tenant, i32::try_from(count).map_err(Error::internal)?);
    Ok(Some(tenant))
}

fn note_administrators(tenant: &mut pb::Tenant, count: i32) {
    tenant.administrator_count = count;
    let without = [pb::TenantStatus::Pending, pb::TenantStatus::Purged].map(i32::from);
    let warning = match count {
        _ if without.contains(&tenant.status) => None,
        0 => Some(NO_ADMINISTRATOR),
        1 => Some(SINGLE_ADMINISTRATOR),
        _ => None,
    };
    tenant.warnings.extend(warning.map(str::to_owned));
    if count == 0 && tenant.status == i32::from(pb::TenantStatus::Active) {
        tenant.status = pb::TenantStatus::NoAdministrator.into();
    }
}

fn status(number: i32) -> Result<Option<TenantStatus>> {
    match pb::TenantStatus::try_from(number) {
        Ok(pb::TenantStatus::Unspecified) => Ok(None),
        Ok(pb::TenantStatus::Pending) => Ok(Some(TenantStatus::Pending)),
        Ok(pb::TenantStatus::Active) => Ok(Some(TenantStatus::Active)),
        Ok(pb::TenantStatus::Suspended) => Ok(Some(TenantStatus::Suspended)),
        Ok(pb::TenantStatus::Deleted) => Ok(Some(TenantStatus::Deleted)),
        Ok(pb::TenantStatus::Purged) => Ok(Some(TenantStatus::Purged)),
        Ok(pb::TenantStatus::NoAdministrator) | Err(_) => {
            let wanted = "expected PENDING, ACTIVE, SUSPENDED, DELETED or PURGED";
            Err(Error::invalid("status", wanted))
        }
    }
}

impl TryFrom<pb::CreateTenantRequest> for NewTenant {
    type Error = Error;

    fn try_from(request: pb::CreateTenantRequest) -> Result<Self> {
        text::metadata("metadata", &request.metadata)?;
        Ok(Self {
            key: request.key.parse().map_err(|error| Error::invalid("key", error))?,
            display_name: text::required("display_name", &request.display_name)?,
            language: text::language("language", &request.language, "en")?,
            external_id: text::line("external_id", &request.external_id, text::MAX_TEXT)?,
            metadata: request.metadata,
            status: TenantStatus::Pending,
        })
    }
}

const MAX_NAME: usize = 100;

impl TryFrom<pb::TenantAdministrator> for NewAdministrator {
    type Error = Error;

    fn try_from(new: pb::TenantAdministrator) -> Result<Self> {
        let name =
            |field: &str, text: &str| text::line(&format!("administrator.{field}"), text, MAX_NAME);
        let language = match new.language.as_str() {
            "" => None,
            given => Some(text::language("administrator.language", given, "en")?),
        };
        Ok(Self {
            email: Email::enter("administrator.email", &new.email)?,
            first_name: name("first_name", &new.first_name)?,
            last_name: name("last_name", &new.last_name)?,
            language,
        })
    }
}

const MAX_DOMAINS: usize = 100;
/// An hour to thirty days.
const INVITATION_LIFETIMES: std::ops::RangeInclusive<i64> = 3_600..=30 * 86_400;

/// Five minutes to ninety days.
const SESSIONS: std::ops::RangeInclusive<i64> = 300..=90 * 86_400;
/// A day to ten years.
const RETENTIONS: std::ops::RangeInclusive<i64> = 86_400..=3_650 * 86_400;

impl TryFrom<pb::UpdateTenantRequest> for TenantEdit {
    type Error = Error;

    fn try_from(request: pb::UpdateTenantRequest) -> Result<Self> {
        let mask = Mask::read(
            request.update_mask,
            &[
                "display_name",
                "default_role",
                "invitation_lifetime",
                "retention",
                "purge_automatically",
                "session_lifetime",
                "session_idle_timeout",
                "language",
                "allowed_email_domains",
                "permission_words",
                "external_id",
                "metadata",
            ],
        )?;
        text::metadata("metadata", &request.metadata)?;
        let display_name = mask.pick("display_name", request.display_name);
        let lifetime = mask.pick("invitation_lifetime", request.invitation_lifetime);
        let retention = mask.pick("retention", request.retention);
        let lasting = mask.pick("session_lifetime", request.session_lifetime);
        let idle = mask.pick("session_idle_timeout", request.session_idle_timeout);
        let language = mask.pick("language", request.language);
        let domains = mask.pick("allowed_email_domains", request.allowed_email_domains);
        let words = mask.pick("permission_words", request.permission_words);
        let external_id = mask.pick("external_id", request.external_id);
        Ok(Self {
            display_name: display_name.map(|t| text::required("display_name", &t)).transpose()?,
            default_role: mask.pick("default_role", request.default_role),
            invitation_lifetime_seconds: lifetime.map(invitation_lifetime).transpose()?,
            retention_seconds: retention.map(self::retention).transpose()?,
            purge_automatically: mask.pick("purge_automatically", request.purge_automatically),
            session_lifetime_seconds: lasting
                .map(|given| session("session_lifetime", given))
                .transpose()?,
            session_idle_seconds: idle
                .map(|given| session("session_idle_timeout", given))
                .transpose()?,
            language: language.map(|t| text::language("language", &t, "en")).transpose()?,
            allowed_email_domains: domains.map(email_domains).transpose()?,
            permission_words: words.map(permission_words).transpose()?,
            external_id: external_id
                .map(|t| text::line("external_id", &t, text::MAX_TEXT))
                .transpose()?,
            metadata: mask.pick("metadata", request.metadata),
            etag: request.etag,
        })
    }
}

fn permission_words(number: i32) -> Result<Words> {
    match pb::PermissionWords::try_from(number) {
        Ok(pb::PermissionWords::Unspecified | pb::PermissionWords::Checked) => Ok(Words::Checked),
        Ok(pb::PermissionWords::Strict) => Ok(Words::Strict),
        Ok(pb::PermissionWords::Free) => Ok(Words::Free),
        Err(_) => Err(Error::invalid("permission_words", "expected CHECKED, STRICT or FREE")),
    }
}

fn invitation_lifetime(lifetime: Option<prost_types::Duration>) -> Result<i64> {
    match lifetime {
        None => Ok(super::INVITATION_LIFETIME_SECONDS),
        Some(given) if given.nanos == 0 && INVITATION_LIFETIMES.contains(&given.seconds) => {
            Ok(given.seconds)
        }
        Some(_) => {
            Err(Error::invalid("invitation_lifetime", "whole seconds, from 1 hour to 30 days"))
        }
    }
}

fn session(field: &str, given: Option<prost_types::Duration>) -> Result<i64> {
    match given {
        None => Ok(super::SESSION_SECONDS),
        Some(given) if given.nanos == 0 && SESSIONS.contains(&given.seconds) => Ok(given.seconds),
        Some(_) => Err(Error::invalid(field, "whole seconds, from 5 minutes to 90 days")),
    }
}

fn retention(retention: Option<prost_types::Duration>) -> Result<i64> {
    match retention {
        None => Ok(super::RETENTION_SECONDS),
        Some(given) if given.nanos == 0 && RETENTIONS.contains(&given.seconds) => Ok(given.seconds),
        Some(_) => Err(Error::invalid("retention", "whole seconds, from 1 to 3,650 days")),
    }
}

/// In the form in which addresses are compared; sorted, each once.
fn email_domains(listed: Vec<String>) -> Result<Vec<String>> {
    const FIELD: &str = "allowed_email_domains";
    if listed.len() > MAX_DOMAINS {
        return Err(Error::invalid(FIELD, format!("at most {MAX_DOMAINS}")));
    }
    let read = |(at, domain): (usize, &String)| {
        let field = format!("{FIELD}[{at}]");
        let wrong = || Error::invalid(&field, "expected a domain such as `acme.com`");
        let domain = domain.trim();
        if domain.contains('@') {
            return Err(wrong());
        }
        let address = Email::parse(&field, &format!("someone@{domain}")).map_err(|_| wrong())?;
        Ok(address.domain().to_owned())
    };
    let mut domains = listed.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
    domains.sort_unstable();
    domains.dedup();
    Ok(domains)
}

impl From<TenantStatus> for pb::TenantStatus {
    fn from(status: TenantStatus) -> Self {
        match status {
            TenantStatus::Pending => Self::Pending,
            TenantStatus::Active => Self::Active,
            TenantStatus::Suspended => Self::Suspended,
            TenantStatus::Deleted => Self::Deleted,
            TenantStatus::Purged => Self::Purged,
        }
    }
}

impl From<Tenant> for pb::Tenant {
    fn from(tenant: Tenant) -> Self {
        let status = pb::TenantStatus::from(tenant.status);
        let words = match tenant.permission_words {
            Words::Checked => pb::PermissionWords::Checked,
            Words::Strict => pb::PermissionWords::Strict,
            Words::Free => pb::PermissionWords::Free,
        };
        let seconds = tenant.invitation_lifetime_seconds;
        Self {
            key: tenant.key.to_string(),
            display_name: tenant.display_name,
            status: status.into(),
            default_role: tenant.default_role_key,
            invitation_lifetime: Some(prost_types::Duration { seconds, nanos: 0 }),
            retention: Some(prost_types::Duration { seconds: tenant.retention_seconds, nanos: 0 }),
            purge_automatically: tenant.purge_automatically,
            session_lifetime: Some(prost_types::Duration {
                seconds: tenant.session_lifetime_seconds,
                nanos: 0,
            }),
            session_idle_timeout: Some(prost_types::Duration {
                seconds: tenant.session_idle_seconds,
                nanos: 0,
            }),
            language: tenant.language,
            allowed_email_domains: tenant.allowed_email_domains,
            // Only the facts know; see `add_administrators`.
            administrator_count: 0,
            warnings: Vec::new(),
            external_id: tenant.external_id,
            metadata: tenant.metadata,
            purge_time: tenant.purge_at.map(pb::timestamp),
            create_time: Some(pb::timestamp(tenant.created_at)),
            update_time: Some(pb::timestamp(tenant.updated_at)),
            etag: etag(tenant.version),
            permission_words: words.into(),
        }
    }
}
