//! The catalogue's part of the PermissionService: generated types in and out.

use std::collections::BTreeMap;

use tonic::{Request, Response, Status};

use super::{Entry, Listed, Registered, Registration};
use crate::{
    access::{claim_any, permit},
    app::Rpc,
    caller::Call,
    change::{self, Options},
    decision::Permission,
    error::{Error, Result},
    ids::Key,
    page::Page,
    proto as pb,
    roles::templates,
    text,
};

const MAX_MODULE: usize = 63;
const MAX_PERMISSIONS: usize = 1_000;

/// The RPC of this name.
///
/// # Errors
/// Those of [`super::register`], and `INVALID_ARGUMENT`.
pub async fn register_permissions(
    rpc: &Rpc,
    request: Request<pb::RegisterPermissionsRequest>,
) -> Result<Response<pb::RegisterPermissionsResponse>, Status> {
    let (call, request) = Call::split(request)?;
    let options = Options::of(&rpc.0, &call, &request)?;
    let claim = call.claim(Key::SYSTEM)?;
    let new = Registration::try_from(request)?;
    let answer = change::run(&rpc.0, &call, claim, options, new, |change, new| {
        Box::pin(async move {
            let module = new.module.clone();
            Ok(registered(&module, super::register(change, new).await?))
        })
    });
    Ok(Response::new(answer.await?))
}

/// The RPC of this name.
///
/// # Errors
/// `PERMISSION_DENIED`; `INVALID_ARGUMENT` for a foreign page token.
pub async fn list_permissions(
    rpc: &Rpc,
    request: Request<pb::ListPermissionsRequest>,
) -> Result<Response<pb::ListPermissionsResponse>, Status> {
    let (call, request) = Call::split(request)?;
    let (pool, keys) = (&rpc.0.pool, &rpc.0.keys);
    let claim = claim_any(&rpc.0, &call, &request.tenant).await?;
    let permit = permit(&rpc.0, &call, &claim).await?;
    let binding = ("catalogue", &request.module);
    let page = Page::<String>::read(keys, &binding, request.page_size, &request.page_token)?;
    let only = (!request.module.is_empty()).then_some(request.module.as_str());
    let after = page.after.as_deref().unwrap_or_default();
    let shipped = templates::modules();
    let mut rows = super::list(pool, &permit, shipped, only, after, page.limit()).await?;
    let next_page_token = page.finish(keys, &mut rows, |row| row.permission.clone())?;
    Ok(Response::new(pb::ListPermissionsResponse {
        permissions: rows.into_iter().map(Into::into).collect(),
        next_page_token,
        revision: permit.revision().text(),
    }))
}

impl TryFrom<pb::RegisterPermissionsRequest> for Registration {
    type Error = Error;

    fn try_from(request: pb::RegisterPermissionsRequest) -> Result<Self> {
        let module = request.module;
        let word = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if module.is_empty() || module.len() > MAX_MODULE || !module.bytes().all(word) {
            let wanted =
                format!("expected one word of `a-z`, `0-9`, `-` and `_`, at most {MAX_MODULE}");
            return Err(Error::invalid("module", wanted));
        }
        if request.permissions.len() > MAX_PERMISSIONS {
            return Err(Error::invalid("permissions", format!("at most {MAX_PERMISSIONS}")));
        }
        let mut permissions = BTreeMap::new();
        for (at, new) in request.permissions.into_iter().enumerate() {
            let field = format!("permissions[{at}].permission");
            Permission::parse(&new.permission).map_err(|error| Error::invalid(&field, error))?;
            if super::module_of(&new.permission) != module {
                let wanted = format!("it must begin with the module, `{module}.`");
                return Err(Error::invalid(field, wanted));
            }
            let descriptions = descriptions(at, new.descriptions)?;
            if permissions.insert(new.permission, descriptions).is_some() {
                return Err(Error::invalid(field, "it stands in the list twice"));
            }
        }
        Ok(Self { module, permissions, take_over: request.take_over })
    }
}

fn descriptions(at: usize, texts: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let field = format!("permissions[{at}].descriptions");
    if texts.is_empty() {
        return Err(Error::invalid(field, "what it allows, in `en` or `fr`, is required"));
    }
    let one = |(language, description): (String, String)| {
        let field = format!("{field}[{language}]");
        if !matches!(language.as_str(), "en" | "fr") {
            return Err(Error::invalid(field, "expected the language `en` or `fr`"));
        }
        Ok((language, text::required(&field, &description)?))
    };
    texts.into_iter().map(one).collect()
}

fn registered(name: &str, registered: Registered) -> pb::RegisterPermissionsResponse {
    let Registered { module, still_used } = registered;
    let row = |(permission, entry): (String, Entry)| Listed {
        permission,
        module: name.to_owned(),
        owner: module.owner.clone(),
        entry,
    };
    let used =
        |(permission, role_count): (String, i64)| pb::DeprecatedUse { permission, role_count };
    pb::RegisterPermissionsResponse {
        permissions: module.entries.into_iter().map(row).map(Into::into).collect(),
        still_used: still_used.into_iter().map(used).collect(),
        ..Default::default()
    }
}

impl From<Listed> for pb::CatalogueEntry {
    fn from(row: Listed) -> Self {
        let source = if row.module == super::OURS {
            pb::PermissionSource::Builtin
        } else if row.owner.is_empty() {
            pb::PermissionSource::Template
        } else {
            pb::PermissionSource::Application
        };
        Self {
            permission: row.permission,
            module: row.module,
            descriptions: row.entry.descriptions,
            source: source.into(),
            owner: row.owner,
            deprecated: row.entry.deprecated,
        }
    }
}
