//! The AuditService: generated types in and out.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use prost_types::{ListValue, Struct, Value as PbValue, value::Kind};
use serde_json::{Map, Value};
use tonic::{Request, Response, Status};

use super::{AuditEvent, Filter, Row, Seen, Verb, Verified, Watch, export, sql};
use crate::{
    access::{Permit, permit},
    app::{App, Rpc},
    caller::Call,
    decision::Authority,
    error::{Error, Result},
    ids::{Key, Revision, SubjectId, TenantId},
    imports,
    page::Page,
    proto::{self as pb, audit_service_server::AuditService},
    security,
    sheet::{self, Part},
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
        let (tenant, here) = (permit.tenant_key(), permit.revision());
        let events =
            rows.into_iter().map(|row| AuditEvent::try_from(row).map(|e| written(tenant, e, here)));
        Ok(Response::new(pb::ListAuditEventsResponse {
            events: events.collect::<Result<_>>()?,
            next_page_token,
            revision: permit.revision().text(),
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
            Some(broken) => (permit.revision().at(broken.revision).text(), broken.reason.clone()),
            None => Default::default(),
        };
        Ok(Response::new(pb::VerifyAuditLogResponse {
            ok: broken.is_none(),
            checked_count: checked,
            head_hash: head,
            broken_revision,
            broken_reason,
            revision: permit.revision().text(),
        }))
    }

    async fn list_security_events(
        &self,
        request: Request<pb::ListSecurityEventsRequest>,
    ) -> Result<Response<pb::ListSecurityEventsResponse>, Status> {
        security::list_security_events(self, request).await
    }

    type ExportAuditEventsStream =
        BoxStream<'static, Result<pb::ExportAuditEventsResponse, Status>>;

    async fn export_audit_events(
        &self,
        request: Request<pb::ExportAuditEventsRequest>,
    ) -> Result<Response<Self::ExportAuditEventsStream>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        permit(&self.0, &call, &claim).await?;
        let separator = imports::read_separator("separator", request.separator)?;
        let filter = Filter::try_from(&pb::ListAuditEventsRequest::from(request))?;
        let (app, wanted) = (self.0.clone(), (filter, separator));
        let parts = sheet::download(&self.0, |out| export::events(app, call, claim, wanted, out))?;
        let parts = parts.map(|part| {
            let Part { chunk, revision } = part.map_err(Status::from)?;
            Ok(pb::ExportAuditEventsResponse { chunk, revision: revision.text() })
        });
        Ok(Response::new(parts.boxed()))
    }

    type WatchChangesStream = BoxStream<'static, Result<pb::WatchChangesResponse, Status>>;

    async fn watch_changes(
        &self,
        request: Request<pb::WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let (call, request) = Call::split(request)?;
        let app = self.0.clone();
        let place = if request.all_tenants { Key::SYSTEM } else { &request.tenant };
        let claim = call.claim(place)?;
        let permit = permit(&app, &call, &claim).await?;
        let watch = watch(&app, &permit, request).await?;
        let home = call.authority().map_or(TenantId::SYSTEM, Authority::home);
        let place = app.tail.join(home)?;
        let seen = super::watch(app, call, claim, watch, place);
        Ok(Response::new(seen.map(|seen| seen.map(Into::into).map_err(Into::into)).boxed()))
    }
}

const MAX_VERBS: usize = 50;
/// In seconds.
const HEARTBEATS: std::ops::RangeInclusive<u64> = 1..=60;
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Reads what is to be watched, and from where.
async fn watch(app: &App, permit: &Permit, request: pb::WatchChangesRequest) -> Result<Watch> {
    if request.all_tenants && !request.tenant.is_empty() {
        return Err(Error::invalid("tenant", "leave it empty, or `all_tenants` false"));
    }
    if request.verbs.len() > MAX_VERBS {
        return Err(Error::invalid("verbs", format!("at most {MAX_VERBS}")));
    }
    let verb = |(at, text): (usize, &String)| {
        let field = format!("verbs[{at}]");
        Verb::parse(&field, text)?.ok_or_else(|| Error::invalid(field, "it is empty"))
    };
    let verbs = request.verbs.iter().enumerate().map(verb).collect::<Result<_>>()?;
    let heartbeat = match request.heartbeat {
        None => HEARTBEAT,
        Some(given) => Duration::try_from(given)
            .ok()
            .filter(|given| given.subsec_nanos() == 0 && HEARTBEATS.contains(&given.as_secs()))
            .ok_or_else(|| Error::invalid("heartbeat", "whole seconds, from 1 to 60"))?,
    };
    let after = match request.after_revision.as_str() {
        "" => permit.revision(),
        text => resumed(app, text).await?,
    };
    let tenant = (!request.all_tenants).then_some(permit.tenant());
    Ok(Watch { tenant, verbs, after, heartbeat })
}

/// Where a watcher goes on. Another replica may have been ahead of this one: that is waited for.
async fn resumed(app: &App, text: &str) -> Result<Revision> {
    const FIELD: &str = "after_revision";
    let wrong = "expected the `revision` of an answer, or nothing to start now";
    let after = text.parse().map_err(|_| Error::invalid(FIELD, wrong))?;
    app.replica.reach(after, FIELD).await?;
    Ok(after)
}

impl From<Seen> for pb::WatchChangesResponse {
    fn from(seen: Seen) -> Self {
        let events = seen.events.into_iter();
        Self {
            events: events.map(|(tenant, event)| written(&tenant, event, seen.revision)).collect(),
            revision: seen.revision.text(),
        }
    }
}

/// Both are filtered alike.
impl From<pb::ExportAuditEventsRequest> for pb::ListAuditEventsRequest {
    fn from(request: pb::ExportAuditEventsRequest) -> Self {
        Self {
            tenant: request.tenant,
            actor: request.actor,
            target: request.target,
            verb: request.verb,
            start_time: request.start_time,
            end_time: request.end_time,
            oldest_first: request.oldest_first,
            ..Self::default()
        }
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
            verb: Verb::parse("verb", &request.verb)?,
            from: pb::time("start_time", request.start_time)?,
            until: pb::time("end_time", request.end_time)?,
            oldest_first: request.oldest_first,
        })
    }
}

/// `here` is a state that the event is part of.
fn written(tenant: &Key, event: AuditEvent, here: Revision) -> pb::AuditEvent {
    pb::AuditEvent {
        tenant: tenant.to_string(),
        id: event.id.to_string(),
        revision: here.at(event.revision).text(),
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
