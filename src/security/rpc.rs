//! The security log's part of the AuditService: generated types in and out.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Entry, Filter, sql};
use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    error::{Error, Result},
    page::Page,
    proto as pb,
    refusals::Kind,
    text,
};

/// The RPC of this name.
///
/// # Errors
/// `PERMISSION_DENIED`; `INVALID_ARGUMENT`.
pub async fn list_security_events(
    rpc: &Rpc,
    request: Request<pb::ListSecurityEventsRequest>,
) -> Result<Response<pb::ListSecurityEventsResponse>, Status> {
    let (call, request) = Call::split(request)?;
    let (pool, keys) = (&rpc.0.pool, &rpc.0.keys);
    let permit = permit(&rpc.0, &call, &call.claim(&request.tenant)?).await?;
    let filter = Filter::try_from(&request)?;
    let bounds = (filter.from, filter.until);
    let (user, source) = (&request.user_id, &request.source_address);
    let binding = ("security", &request.tenant, request.kind, user, source, bounds);
    let page = Page::<Uuid>::read(keys, &binding, request.page_size, &request.page_token)?;
    let mut rows = sql::list(pool, &permit, &filter, page.after, page.limit()).await?;
    let next_page_token = page.finish(keys, &mut rows, |row| row.id)?;
    Ok(Response::new(pb::ListSecurityEventsResponse {
        events: rows.into_iter().map(Into::into).collect(),
        next_page_token,
        revision: permit.revision().text(),
    }))
}

impl TryFrom<&pb::ListSecurityEventsRequest> for Filter {
    type Error = Error;

    fn try_from(request: &pb::ListSecurityEventsRequest) -> Result<Self> {
        let kind = match pb::SecurityEventKind::try_from(request.kind) {
            Ok(pb::SecurityEventKind::Unspecified) => None,
            Ok(pb::SecurityEventKind::SignIn) => Some(Kind::SignIn),
            Ok(pb::SecurityEventKind::Change) => Some(Kind::Change),
            Err(_) => return Err(Error::invalid("kind", "expected SIGN_IN or CHANGE")),
        };
        let user = match request.user_id.as_str() {
            "" => None,
            user => Some(text::parse("user_id", user)?),
        };
        Ok(Self {
            kind,
            user,
            source: text::line("source_address", &request.source_address, text::MAX_TEXT)?,
            from: pb::time("start_time", request.start_time)?,
            until: pb::time("end_time", request.end_time)?,
        })
    }
}

impl From<Entry> for pb::SecurityEvent {
    fn from(entry: Entry) -> Self {
        let kind = match entry.kind {
            Kind::SignIn => pb::SecurityEventKind::SignIn,
            Kind::Change => pb::SecurityEventKind::Change,
        };
        Self {
            kind: kind.into(),
            reason: entry.reason,
            method: entry.method,
            user_id: entry.user.map(|user| user.to_string()).unwrap_or_default(),
            caller: entry.caller,
            source_address: entry.source,
            count: entry.count,
            start_time: Some(pb::timestamp(entry.minute)),
            last_time: Some(pb::timestamp(entry.last_at)),
        }
    }
}
