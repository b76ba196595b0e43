//! The AuditService: generated types in and out.

use prost_types::{ListValue, Struct, Value as PbValue, value::Kind};
use serde_json::{Map, Value};
use tonic::{Request, Response, Status};

use super::{AuditEvent, Filter, Row, Verb, Verified, sql};
use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    error::{Error, Result},
    ids::SubjectId,
    page::Page,
    proto::{self as pb, audit_service_server::AuditService},
    replica::revision_text,
    text,
};

#[tonic::async_trait]
impl AuditService for Rpc {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let filter = Filter::try_from(&request)?;
        let (pool, keys) = (&self.0.pool, &self.0.keys);
        let bounds = (filter.from, filter.until, filter.oldest_first);
        let binding =
            ("audit", &request.tenant, &request.actor, &request.target, &request.verb, bounds);
        let page =
            Page::<sql::After>::read(keys, &binding, request.page_size, &request.page_token)?;
        let mut rows = sql::list(pool, &permit, &filter, page.after, page.limit()).await?;
        let next_page_token = page.finish(keys, &mut rows, |row: &Row| (row.revision, row.n))?;
        let events = rows.into_iter().map(|row| AuditEvent::try_from(row).map(Into::into));
        Ok(Response::new(pb::ListAuditEventsResponse {
            events: events.collect::<Result<_>>()?,
            next_page_token,
            revision: revision_text(permit.revision()),
        }))
    }

    async fn verify_audit_log(
        &self,
        request: Request<pb::VerifyAuditLogRequest>,
    ) -> Result<Response<pb::VerifyAuditLogResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let Verified { checked, head, broken } =
            super::verify(&self.0.pool, permit.tenant()).await?;
        let (broken_revision, broken_reason) = match &broken {
            Some(broken) => (revision_text(broken.revision), broken.reason.clone()),
            None => Default::default(),
        };
        Ok(Response::new(pb::VerifyAuditLogResponse {
            ok: broken.is_none(),
            checked_count: checked,
            head_hash: head,
            broken_revision,
            broken_reason,
            revision: revision_text(permit.revision()),
        }))
    }
}

impl TryFrom<&pb::ListAuditEventsRequest> for Filter {
    type Error = Error;

    fn try_from(request: &pb::ListAuditEventsRequest) -> Result<Self> {
        let actor = request.actor.as_str();
        let known = ["", "installation", "anonymous"].contains(&actor);
        if !known && actor.parse::<SubjectId>().is_err() {
            let wanted = "expected `usr_…`, `svc_…`, `installation` or `anonymous`";
            return Err(Error::invalid("actor", wanted));
        }
        let target = text::line("target", &request.target, text::MAX_TEXT)?;
        Ok(Self {
            actor: (!actor.is_empty()).then(|| actor.to_owned()),
            target: (!target.is_empty()).then_some(target),
            verb: Verb::parse(&request.verb)?,
            from: pb::time("start_time", request.start_time)?,
            until: pb::time("end_time", request.end_time)?,
            oldest_first: request.oldest_first,
        })
    }
}

impl From<AuditEvent> for pb::AuditEvent {
    fn from(event: AuditEvent) -> Self {
        Self {
            id: event.id.to_string(),
            revision: revision_text(event.revision),
            n: event.n,
            time: Some(pb::timestamp(event.at)),
            verb: event.verb,
            actor: event.actor,
            on_behalf_of: event.on_behalf_of,
            target: event.target,
            reason: event.reason,
            source: event.source,
            before: structure(event.before),
            after: structure(event.after),
            personal: event.personal,
            hash: event.hash,
        }
    }
}

fn structure(map: Map<String, Value>) -> Option<Struct> {
    (!map.is_empty()).then(|| fields(map))
}

fn fields(map: Map<String, Value>) -> Struct {
    Struct { fields: map.into_iter().map(|(field, value)| (field, struct_value(value))).collect() }
}

fn struct_value(value: Value) -> PbValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(list) => {
            let values = list.into_iter().map(struct_value).collect();
            Kind::ListValue(ListValue { values })
        }
        Value::Object(map) => Kind::StructValue(fields(map)),
    };
    PbValue { kind: Some(kind) }
}
