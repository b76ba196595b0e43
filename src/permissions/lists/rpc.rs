//! The lists in and out of generated types.

use std::collections::BTreeSet;

use futures::{StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status};

use super::{super::rpc::settle, About, Allowed, MAX_GROUPS, Wanted, stream, stream::Batch};
use crate::{
    access::permit,
    app::{App, Rpc},
    caller::Call,
    catalogue,
    decision::{Authority, Permission, PermissionSet, Reason, Scope},
    error::Result,
    ids::{SubjectId, TenantId},
    page::Page,
    proto as pb,
    roles::templates,
};

/// The most known permissions that one page looks at.
const LOOKS: usize = 1_000;

/// The RPC of this name.
///
/// # Errors
/// `PERMISSION_DENIED`; `INVALID_ARGUMENT` for what is malformed and for a foreign page token.
pub async fn list_effective_permissions(
    rpc: &Rpc,
    request: Request<pb::ListEffectivePermissionsRequest>,
) -> Result<Response<pb::ListEffectivePermissionsResponse>, Status> {
    let (app, (call, request)) = (&rpc.0, Call::split(request)?);
    let pb::ListEffectivePermissionsRequest { tenant, subject, resource, expand, .. } = &request;
    settle(app, request.consistency.as_ref()).await?;
    let there = super::resource(resource)?;
    let binding = ("effective permissions", tenant, subject, resource, expand);
    let page = Page::<String>::read(&app.keys, &binding, request.page_size, &request.page_token)?;
    let about = About::read(app, &call, tenant, subject).await?;
    let answer = about.permissions(app, &call, there).await?;
    let reason = reason(answer.found.as_ref().err().copied());
    let (permissions, next_page_token) = match answer.found {
        Ok((set, named)) if *expand => {
            let known = known(app, &call, &about, named, page.after.as_deref()).await?;
            expanded(app, &page, &set, &known)?
        }
        Ok((set, _)) => cut(app, &page, set.patterns(), Clone::clone)?,
        Err(_) => Default::default(),
    };
    Ok(Response::new(pb::ListEffectivePermissionsResponse {
        permissions,
        next_page_token,
        reason,
        revision: answer.revision.text(),
    }))
}

/// The RPC of this name.
///
/// # Errors
/// As [`list_effective_permissions`].
pub async fn list_scopes(
    rpc: &Rpc,
    request: Request<pb::ListScopesRequest>,
) -> Result<Response<pb::ListScopesResponse>, Status> {
    let (app, (call, request)) = (&rpc.0, Call::split(request)?);
    let pb::ListScopesRequest { tenant, subject, permission, .. } = &request;
    settle(app, request.consistency.as_ref()).await?;
    let wanted = super::permission(permission)?;
    let binding = ("scopes", tenant, subject, permission);
    let page = Page::<String>::read(&app.keys, &binding, request.page_size, &request.page_token)?;
    let about = About::read(app, &call, tenant, subject).await?;
    let answer = about.scopes(app, &call, wanted).await?;
    let reason = reason(answer.found.as_ref().err().copied());
    let found = answer.found.unwrap_or_default();
    let (scopes, next_page_token) = cut(app, &page, found, |scope| scope.text.clone())?;
    Ok(Response::new(pb::ListScopesResponse {
        scopes: scopes.into_iter().map(Into::into).collect(),
        next_page_token,
        reason,
        revision: answer.revision.text(),
    }))
}

/// The RPC of this name.
///
/// # Errors
/// As [`list_effective_permissions`].
pub async fn list_subjects(
    rpc: &Rpc,
    request: Request<pb::ListSubjectsRequest>,
) -> Result<Response<pb::ListSubjectsResponse>, Status> {
    let (app, (call, request)) = (&rpc.0, Call::split(request)?);
    settle(app, request.consistency.as_ref()).await?;
    let pb::ListSubjectsRequest { tenant, permission, resource, page_size, page_token, .. } =
        request;
    let binding = ("subjects", &tenant, &permission, &resource);
    let page = Page::<SubjectId>::read(&app.keys, &binding, page_size, &page_token)?;
    let wanted = Wanted { tenant, permission, resource }.check()?;
    let now = app.clock.now();
    let part = app.replica.ask(|facts| {
        let part = wanted.part(facts, &call, page.after, page.size(), now)?;
        Ok(part.map(|part| (part, facts.revision)))
    });
    let (part, revision) = part.await??;
    let next = part.next.map(|next| page.token(&app.keys, &next)).transpose()?;
    Ok(Response::new(pb::ListSubjectsResponse {
        subjects: part.found.into_iter().map(Into::into).collect(),
        next_page_token: next.unwrap_or_default(),
        reason: reason(part.reason),
        revision: revision.text(),
    }))
}

/// The RPC of this name.
///
/// # Errors
/// `PERMISSION_DENIED`; `INVALID_ARGUMENT`; `RESOURCE_EXHAUSTED` for too many streams.
pub async fn stream_subjects(
    rpc: &Rpc,
    request: Request<pb::StreamSubjectsRequest>,
) -> Result<Response<BoxStream<'static, Result<pb::StreamSubjectsResponse, Status>>>, Status> {
    let (app, (call, request)) = (rpc.0.clone(), Call::split(request)?);
    settle(&app, request.consistency.as_ref()).await?;
    let pb::StreamSubjectsRequest { tenant, permission, resource, .. } = request;
    let wanted = Wanted { tenant, permission, resource }.check()?;
    let home = call.authority().map_or(TenantId::SYSTEM, Authority::home);
    let place = app.tail.join(home)?;
    let batches = stream::stream(app, call, wanted, place).await?;
    Ok(Response::new(batches.map(|batch| batch.map(Into::into).map_err(Into::into)).boxed()))
}

/// The rows of a page and the token of the next one.
fn cut<T>(
    app: &App,
    page: &Page<String>,
    mut rows: Vec<T>,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, String)> {
    rows.retain(|row| page.after.as_ref().is_none_or(|after| key(row) > *after));
    let next = page.finish(&app.keys, &mut rows, key)?;
    Ok((rows, next))
}

/// Known permissions after one, in order: those that roles `named`, and the catalogue.
async fn known(
    app: &App,
    call: &Call,
    about: &About<'_>,
    named: Vec<String>,
    after: Option<&str>,
) -> Result<Vec<String>> {
    let after = after.unwrap_or_default();
    let permit = permit(app, call, &about.claim(call)?).await?;
    let limit = i64::try_from(LOOKS).unwrap_or(i64::MAX);
    let shipped = templates::modules();
    let listed = catalogue::list(&app.pool, &permit, shipped, None, after, limit).await?;
    let named = named.into_iter().filter(|word| word.as_str() > after);
    let words: BTreeSet<String> =
        listed.into_iter().map(|row| row.permission).chain(named).collect();
    Ok(words.into_iter().take(LOOKS).collect())
}

/// Those of the known permissions that are given. A page whose looks gave out is shorter, not the last.
fn expanded(
    app: &App,
    page: &Page<String>,
    set: &PermissionSet,
    known: &[String],
) -> Result<(Vec<String>, String)> {
    let given = |word: &&String| Permission::parse(word).is_ok_and(|word| set.matches(word));
    let mut rows: Vec<String> = known.iter().filter(given).cloned().collect();
    let next = page.finish(&app.keys, &mut rows, Clone::clone)?;
    match known.last() {
        Some(last) if next.is_empty() && known.len() == LOOKS => {
            Ok((rows, page.token(&app.keys, last)?))
        }
        _ => Ok((rows, next)),
    }
}

fn reason(reason: Option<Reason>) -> i32 {
    reason.map_or(pb::Reason::Unspecified, Into::into).into()
}

impl From<Scope> for pb::AllowedScope {
    fn from(scope: Scope) -> Self {
        Self { scope: scope.text, includes_beneath: scope.below }
    }
}

impl From<Allowed> for pb::AllowedSubject {
    fn from(Allowed { access, mut groups }: Allowed) -> Self {
        let groups_truncated = groups.len() > MAX_GROUPS;
        groups.truncate(MAX_GROUPS);
        Self {
            subject: access.subject.to_string(),
            direct: access.direct,
            groups,
            groups_truncated,
            installation: access.installation,
        }
    }
}

impl From<Batch> for pb::StreamSubjectsResponse {
    fn from(batch: Batch) -> Self {
        Self {
            subjects: batch.found.into_iter().map(Into::into).collect(),
            complete: batch.complete,
            reason: reason(batch.reason),
            revision: batch.revision.text(),
        }
    }
}
