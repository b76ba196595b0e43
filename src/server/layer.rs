//! What surrounds every call: who calls, where it runs, how long it may take, and its traces. Only the
//! check itself stays on the connection's own thread; everything else moves to the work runtime, where
//! a caller who hangs up cannot cut a change in half. A stream is over for this layer when it begins: it
//! is answered on the connection's thread for as long as both sides want.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::{self, Next},
    response::Response,
};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;
use tonic::{Code, Status};
use tracing::Instrument;

use crate::{
    access::{self, Presented},
    app::App,
    caller::{Call, Peer, user_agent},
    error::Error,
    ids::EventId,
    proto::{RULES, Rule},
    random,
};

/// Names the call in logs, and in the answer.
pub(super) const REQUEST_ID: &str = "rolecall-request-id";
/// Where a caller may name it.
pub(super) const GIVEN_ID: &str = "x-request-id";
pub(super) const CHECK: &str = "/rolecall.v1.PermissionService/CheckPermission";
pub(super) const STREAM: &str = "/rolecall.v1.PermissionService/CheckPermissionStream";
/// What answers on an older state when it is asked to.
const AGED: [&str; 3] = [CHECK, "/rolecall.v1.PermissionService/BatchCheckPermissions", STREAM];
const REFLECTION: &str = "/grpc.reflection.";
/// The longest that any call takes, whatever deadline it asks for.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Gate(Arc<Parts>);

struct Parts {
    app: App,
    open_reflection: bool,
    work: Handle,
}

impl Gate {
    /// Calls run on the runtime that this is called on.
    pub fn new(app: App, open_reflection: bool) -> Self {
        Self(Arc::new(Parts { app, open_reflection, work: Handle::current() }))
    }
}

pub fn around(router: Router, gate: Gate) -> Router {
    router.layer(middleware::from_fn_with_state(gate, pass))
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let Some((path, rule)) = find(request.uri().path()) else {
        return beside(&gate, request, next).await;
    };
    let id = request_id(request.headers(), &gate.0.app);
    let span = tracing::info_span!(
        "rpc",
        otel.name = path,
        request_id = %id,
        caller = tracing::field::Empty,
        rpc.code = tracing::field::Empty,
    );
    let deadline = deadline(request.headers());
    let call = {
        let (gate, span) = (gate.clone(), span.clone());
        async move { handle(gate, path, rule, request, next, span).await }
    };
    let call = call.instrument(span.clone());
    let outcome = if path == CHECK {
        let call = AssertUnwindSafe(call).catch_unwind();
        tokio::time::timeout(deadline, call).await.map(|ended| ended.map_err(|_| panicked()))
    } else {
        // Spawned: when the deadline passes, or the caller leaves, the operation still ends whole.
        let task = gate.0.work.spawn(call);
        tokio::time::timeout(deadline, task).await.map(|ended| ended.map_err(|_| panicked()))
    };
    let outcome = outcome.unwrap_or(Err(Error::Deadline));
    let mut response = outcome.unwrap_or_else(|error| Status::from(error).into_http());
    finish(&mut response, path, &span, started);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn handle(
    gate: Gate,
    path: &'static str,
    rule: Rule,
    mut request: Request,
    next: Next,
    span: tracing::Span,
) -> Response {
    let (app, presented) = (&gate.0.app, Presented::by(request.headers()));
    let caller = match access::authenticate(app, rule, &presented).await {
        Ok(caller) => caller,
        // The caller may accept older facts, as the message will say; it is recognised anew by those.
        Err(Error::Unavailable { .. }) if AGED.contains(&path) => {
            match access::authenticate_by_any(app, rule, &presented) {
                Ok(caller) => caller,
                Err(error) => return Status::from(error).into_http(),
            }
        }
        Err(error) => return Status::from(error).into_http(),
    };
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let source = peer.map_or_else(String::new, |ConnectInfo(peer)| peer.0.ip().to_string());
    let call = Call { path, rule, caller, source, user_agent: user_agent(request.headers()) };
    span.record("caller", call.actor());
    request.extensions_mut().insert(call);
    next.run(request).await
}

/// Services that are not ours: health is open, reflection needs a credential outside `dev`.
async fn beside(gate: &Gate, request: Request, next: Next) -> Response {
    let app = &gate.0.app;
    if request.uri().path().starts_with(REFLECTION)
        && !gate.0.open_reflection
        && let Err(error) =
            access::authenticate(app, Rule::Authenticated, &Presented::by(request.headers())).await
    {
        return Status::from(error).into_http();
    }
    next.run(request).await
}

pub(super) fn find(path: &str) -> Option<(&'static str, Rule)> {
    let at = RULES.binary_search_by_key(&path, |(path, _)| path).ok()?;
    Some(RULES[at])
}

fn panicked() -> Error {
    Error::internal("a handler panicked")
}

/// The caller's own id when it is short and printable, else a new one.
fn request_id(headers: &HeaderMap, app: &App) -> String {
    let given = headers.get(GIVEN_ID).filter(|id| is_request_id(id));
    given.and_then(|id| id.to_str().ok()).map(str::to_owned).unwrap_or_else(|| {
        random::id::<EventId>(app.clock.now())
            .map_or_else(|_| String::new(), |id| id.uuid().simple().to_string())
    })
}

pub(super) fn is_request_id(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=64).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// The deadline in the metadata `grpc-timeout`, such as `500m` for half a second.
fn deadline(headers: &HeaderMap) -> Duration {
    let asked =
        headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(|text| {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let number: u64 = number.parse().ok()?;
            Some(match unit {
                "H" => Duration::from_secs(number.saturating_mul(3600)),
                "M" => Duration::from_secs(number.saturating_mul(60)),
                "S" => Duration::from_secs(number),
                "m" => Duration::from_millis(number),
                "u" => Duration::from_micros(number),
                "n" => Duration::from_nanos(number),
                _ => return None,
            })
        });
    asked.unwrap_or(LONGEST).min(LONGEST)
}

fn finish(response: &mut Response<Body>, path: &'static str, span: &tracing::Span, start: Instant) {
    // An answer that failed is headers only; one that succeeded says so in its trailers.
    let code = response
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
    let name = code_name(code);
    span.record("rpc.code", name);
    duration(path, name).record(start.elapsed());
    if path != CHECK {
        span.in_scope(|| tracing::info!("call"));
    }
}

/// How long calls of a method took that ended so.
pub(super) fn duration(path: &'static str, code: &'static str) -> metrics::Histogram {
    metrics::histogram!(
        "rpc_server_call_duration_seconds",
        "rpc_method" => path,
        "rpc_response_status_code" => code
    )
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
