//! The RoleService: generated types in and out.

use tonic::{Request, Response, Status};

use super::{
    NewRole, RoleEdit, Shown, effective, sql,
    templates::{self, Sector, Template},
};
use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    change::{self, Options},
    decision::{Reach, check_pattern},
    edit::{Mask, etag},
    error::{Error, Result},
    ids::Key,
    page::Page,
    proto::{self as pb, role_service_server::RoleService},
    tenants, text,
};

#[tonic::async_trait]
impl RoleService for Rpc {
    async fn list_role_templates(
        &self,
        request: Request<pb::ListRoleTemplatesRequest>,
    ) -> Result<Response<pb::ListRoleTemplatesResponse>, Status> {
        let (call, request) = Call::split(request)?;
        permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let templates = templates::sectors().iter().map(Into::into).collect();
        Ok(Response::new(pb::ListRoleTemplatesResponse { templates }))
    }

    async fn install_role_templates(
        &self,
        request: Request<pb::InstallRoleTemplatesRequest>,
    ) -> Result<Response<pb::InstallRoleTemplatesResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, request, |change, request| {
            Box::pin(async move {
                let installed = super::install(change, &request.sector).await?;
                if request.set_default_role {
                    change.require("iam.tenant.update", "")?;
                    tenants::set_default_role(change, installed.default_role).await?;
                }
                Ok(pb::InstallRoleTemplatesResponse {
                    roles: installed.roles.into_iter().map(Into::into).collect(),
                    skipped: installed.skipped,
                    ..Default::default()
                })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn create_role(
        &self,
        request: Request<pb::CreateRoleRequest>,
    ) -> Result<Response<pb::CreateRoleResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let new = NewRole::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, new, |change, new| {
            Box::pin(async move {
                let role = Some(super::create(change, new).await?.into());
                Ok(pb::CreateRoleResponse { role, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn get_role(
        &self,
        request: Request<pb::GetRoleRequest>,
    ) -> Result<Response<pb::GetRoleResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let role = sql::get(&self.0.pool, &permit, &request.role).await?;
        Ok(Response::new(pb::GetRoleResponse {
            role: Some(role.into()),
            revision: permit.revision().text(),
        }))
    }

    async fn list_roles(
        &self,
        request: Request<pb::ListRolesRequest>,
    ) -> Result<Response<pb::ListRolesResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let binding = ("roles", &request.tenant);
        let page =
            Page::<String>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let after = page.after.as_deref();
        let mut rows = sql::list(&self.0.pool, &permit, after, page.limit()).await?;
        let next_page_token =
            page.finish(&self.0.keys, &mut rows, |row| row.role.facts.key.to_string())?;
        Ok(Response::new(pb::ListRolesResponse {
            roles: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn update_role(
        &self,
        request: Request<pb::UpdateRoleRequest>,
    ) -> Result<Response<pb::UpdateRoleResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let edit = RoleEdit::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let role = Some(super::update(change, edit).await?.into());
                Ok(pb::UpdateRoleResponse { role, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn delete_role(
        &self,
        request: Request<pb::DeleteRoleRequest>,
    ) -> Result<Response<pb::DeleteRoleResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let answer = change::run(&self.0, &call, claim, options, request, |change, request| {
            Box::pin(async move {
                super::delete(change, &request.role, &request.etag).await?;
                Ok(pb::DeleteRoleResponse::default())
            })
        });
        Ok(Response::new(answer.await?))
    }
}

const MAX_DESCRIPTION: usize = 1_000;
const MAX_PERMISSIONS: usize = 500;
const MAX_INCLUDES: usize = 50;
const MAX_MAY_GRANT: usize = 100;
/// The longest `max_duration`: a hundred years, so that dates stay inside the calendar.
const MAX_DURATION_SECONDS: i64 = 36_525 * 86_400;

impl TryFrom<pb::CreateRoleRequest> for NewRole {
    type Error = Error;

    fn try_from(request: pb::CreateRoleRequest) -> Result<Self> {
        Ok(Self {
            key: request.key.parse().map_err(|error| Error::invalid("key", error))?,
            display_names: text::names("display_names", request.display_names)?,
            description: text::lines("description", &request.description, MAX_DESCRIPTION)?,
            permissions: permissions(request.permissions)?,
            includes: at_most("includes", request.includes, MAX_INCLUDES)?,
            reach: reach(request.reach)?,
            may_grant: at_most("may_grant", request.may_grant, MAX_MAY_GRANT)?,
            exclusive_set: exclusive_set(&request.exclusive_set)?,
            max_duration_seconds: max_duration(request.max_duration)?,
        })
    }
}

impl TryFrom<pb::UpdateRoleRequest> for RoleEdit {
    type Error = Error;

    fn try_from(request: pb::UpdateRoleRequest) -> Result<Self> {
        let mask = Mask::read(
            request.update_mask,
            &[
                "display_names",
                "description",
                "permissions",
                "includes",
                "reach",
                "may_grant",
                "exclusive_set",
                "max_duration",
            ],
        )?;
        let names = mask.pick("display_names", request.display_names);
        let description = mask.pick("description", request.description);
        let words = mask.pick("permissions", request.permissions);
        let includes = mask.pick("includes", request.includes);
        let may_grant = mask.pick("may_grant", request.may_grant);
        let set = mask.pick("exclusive_set", request.exclusive_set);
        Ok(Self {
            key: request.role,
            display_names: names.map(|n| text::names("display_names", n)).transpose()?,
            description: description
                .map(|t| text::lines("description", &t, MAX_DESCRIPTION))
                .transpose()?,
            permissions: words.map(permissions).transpose()?,
            includes: includes.map(|k| at_most("includes", k, MAX_INCLUDES)).transpose()?,
            reach: mask.pick("reach", request.reach).map(reach).transpose()?,
            may_grant: may_grant.map(|k| at_most("may_grant", k, MAX_MAY_GRANT)).transpose()?,
            exclusive_set: set.map(|word| exclusive_set(&word)).transpose()?,
            max_duration_seconds: mask
                .pick("max_duration", request.max_duration)
                .map(max_duration)
                .transpose()?,
            etag: request.etag,
        })
    }
}

fn permissions(words: Vec<String>) -> Result<Vec<String>> {
    let words = at_most("permissions", words, MAX_PERMISSIONS)?;
    for (at, word) in words.iter().enumerate() {
        let wrong = |error| Error::invalid(format!("permissions[{at}]"), error);
        check_pattern(word).map_err(wrong)?;
    }
    Ok(words)
}

fn at_most(field: &str, list: Vec<String>, max: usize) -> Result<Vec<String>> {
    if list.len() > max {
        return Err(Error::invalid(field, format!("at most {max}")));
    }
    Ok(list)
}

fn reach(number: i32) -> Result<Reach> {
    match pb::Reach::try_from(number) {
        Ok(pb::Reach::Unspecified | pb::Reach::Everywhere) => Ok(Reach::Everywhere),
        Ok(pb::Reach::Joined) => Ok(Reach::Joined),
        Ok(pb::Reach::Here) => Ok(Reach::Here),
        Err(_) => Err(Error::invalid("reach", "expected EVERYWHERE, JOINED or HERE")),
    }
}

fn exclusive_set(word: &str) -> Result<Option<Key>> {
    let parsed = (!word.is_empty()).then(|| word.parse()).transpose();
    parsed.map_err(|error| Error::invalid("exclusive_set", error))
}

fn max_duration(duration: Option<prost_types::Duration>) -> Result<Option<i64>> {
    let wrong =
        || Error::invalid("max_duration", "whole seconds, from a minute to a hundred years");
    match duration {
        None => Ok(None),
        Some(duration)
            if duration.nanos == 0 && (60..=MAX_DURATION_SECONDS).contains(&duration.seconds) =>
        {
            Ok(Some(duration.seconds))
        }
        Some(_) => Err(wrong()),
    }
}

fn written(reach: Reach) -> i32 {
    match reach {
        Reach::Everywhere => pb::Reach::Everywhere,
        Reach::Joined => pb::Reach::Joined,
        Reach::Here => pb::Reach::Here,
    }
    .into()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

impl From<Shown> for pb::Role {
    fn from(shown: Shown) -> Self {
        let Shown { role, includes, may_grant, effective_permissions } = shown;
        Self {
            key: role.facts.key.to_string(),
            display_names: role.display_names,
            description: role.description,
            permissions: role.facts.permissions.iter().map(ToString::to_string).collect(),
            includes,
            reach: written(role.facts.reach),
            may_grant,
            exclusive_set: role.facts.exclusive_set.map(|set| set.to_string()).unwrap_or_default(),
            max_duration: role.facts.max_duration_seconds.map(seconds),
            locked: role.facts.locked,
            template: role.template,
            template_version: role.template_version,
            effective_permissions,
            create_time: Some(pb::timestamp(role.created_at)),
            update_time: Some(pb::timestamp(role.updated_at)),
            etag: etag(role.version),
        }
    }
}

impl From<&'static Sector> for pb::RoleTemplate {
    fn from(sector: &'static Sector) -> Self {
        // The files are part of the program, and their versions are small.
        let version = i32::try_from(sector.version).unwrap_or(i32::MAX);
        Self {
            sector: sector.key.clone(),
            version,
            default_role: sector.default_role.clone(),
            roles: sector.roles.iter().map(|role| shipped(role, sector, version)).collect(),
        }
    }
}

fn shipped(role: &Template, sector: &Sector, version: i32) -> pb::Role {
    let names = [("en", &role.names.en), ("fr", &role.names.fr)];
    pb::Role {
        key: role.key.clone(),
        display_names: names.map(|(language, name)| (language.to_owned(), name.clone())).into(),
        description: role.description.en.clone(),
        permissions: role.permissions.clone(),
        includes: role.includes.clone(),
        reach: written(role.reach),
        may_grant: role.may_grant.clone(),
        exclusive_set: role.exclusive_set.clone().unwrap_or_default(),
        max_duration: role.max_duration_days.map(|days| seconds(i64::from(days) * 86_400)),
        locked: role.locked,
        template: sector.key.clone(),
        template_version: version,
        effective_permissions: effective(role, &sector.roles).patterns(),
        ..Default::default()
    }
}
