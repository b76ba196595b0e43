//! The short way of the two calls that every request of every other service waits for: it answers
//! CheckPermission and BatchCheckPermissions below the router, from memory, on the connection's core,
//! without a layer, a lock or a queue between the bytes of the question and those of the answer.
//!
//! It gives ordinary answers only. Whatever is not one — a refusal, a malformed or compressed message, a
//! tenant that has to be read first, an address to look up, a sampled trace — goes to the router with
//! every byte that was read, and is answered there by the same rules. So the router alone makes errors,
//! request ids and spans; here an answer carries the caller's own `x-request-id`, or none. A panic goes
//! to the router, too, whose layer reports it; the connection and its other calls go on.

mod checks;

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use h2::{RecvStream, server::SendResponse};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Version, header::CONTENT_TYPE,
    request::Parts,
};

use self::checks::{Answerer, Asking};
use super::{
    MAX_MESSAGE,
    body::{Unread, poll_data, send_at_once},
    layer,
};
use crate::{
    access::{self, Presented},
    app::App,
    caller::Call,
    decision::Time,
    permissions,
    proto::Rule,
};

const BATCH: &str = "/rolecall.v1.PermissionService/BatchCheckPermissions";
/// One in so many calls takes the router, for its trace.
const SAMPLED: u32 = 1024;
/// How long the rest of a message may take to arrive before the router waits for it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Before each message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;

/// The short way; one for each core.
pub struct Fast {
    app: App,
    lanes: Vec<Lane>,
    calls: AtomicU32,
}

struct Lane {
    path: &'static str,
    rule: Rule,
    answerer: Answerer,
    duration: metrics::Histogram,
}

/// When calls that arrived together began.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    started: Instant,
    now: Time,
}

/// A call that was not answered at once.
pub struct Left {
    moment: Moment,
    head: Parts,
    body: Unread,
    /// For the rest of its message; otherwise the router answers it.
    waits: bool,
}

/// What of the headers matters here.
#[derive(Default)]
struct Told<'a> {
    presented: Presented<'a>,
    content_type: Option<&'a HeaderValue>,
    encoding: Option<&'a HeaderValue>,
    trace: Option<&'a HeaderValue>,
    request_id: Option<&'a HeaderValue>,
}

impl<'a> Told<'a> {
    /// In one pass, since looking for each by its name takes longer.
    fn by(headers: &'a HeaderMap) -> Self {
        let mut told = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                access::AUTHORIZATION => &mut told.presented.authorization,
                access::ON_BEHALF_OF => &mut told.presented.on_behalf_of,
                "content-type" => &mut told.content_type,
                "grpc-encoding" => &mut told.encoding,
                "traceparent" => &mut told.trace,
                layer::GIVEN_ID => &mut told.request_id,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        told
    }

    /// Neither compressed nor part of a trace that is kept.
    fn is_ordinary(&self) -> bool {
        let is = |value: Option<&HeaderValue>, wanted: &[&[u8]]| {
            value.is_none_or(|value| wanted.contains(&value.as_bytes()))
        };
        self.content_type.is_some()
            && is(self.content_type, &[b"application/grpc", b"application/grpc+proto"])
            && is(self.encoding, &[b"identity"])
            && !self.trace.is_some_and(|trace| is_sampled(trace.as_bytes()))
    }
}

impl Fast {
    pub fn new(app: App) -> Self {
        let lanes = [(layer::CHECK, checks::check as Answerer), (BATCH, checks::batch)];
        let lane = |(path, answerer)| {
            let (path, rule) = layer::find(path)?;
            Some(Lane { path, rule, answerer, duration: layer::duration(path, "OK") })
        };
        let lanes = lanes.into_iter().filter_map(lane).collect();
        Self { app, lanes, calls: AtomicU32::new(0) }
    }

    /// Of calls that are answered now.
    pub fn moment(&self) -> Moment {
        Moment { started: Instant::now(), now: self.app.clock.now() }
    }

    /// Answers at once what arrived as a whole, as most messages do; the others are given back.
    pub fn answer(
        &self,
        moment: Moment,
        request: Request<RecvStream>,
        respond: &mut SendResponse<Bytes>,
    ) -> Option<Box<Left>> {
        let (head, rest) = request.into_parts();
        let body = Unread { read: Bytes::new(), rest };
        let mut call = Left { moment, head, body, waits: false };
        if let Some(lane) = self.lane(&call.head) {
            call.waits = collect(&mut call.body).now_or_never().is_none();
            if !call.waits && self.end(lane, &call, respond) {
                return None;
            }
        }
        Some(Box::new(call))
    }

    /// Waits for the rest of a message; nothing is left for the router of what could be answered then.
    pub async fn finish(
        &self,
        mut call: Left,
        respond: &mut SendResponse<Bytes>,
    ) -> Option<Request<Unread>> {
        if call.waits {
            let _ = tokio::time::timeout(PATIENCE, collect(&mut call.body)).await;
            call.moment.now = self.app.clock.now();
            let lane = self.lanes.iter().find(|lane| lane.path == call.head.uri.path());
            if lane.is_some_and(|lane| self.end(lane, &call, respond)) {
                return None;
            }
        }
        Some(Request::from_parts(call.head, call.body))
    }

    /// Whether it was answered.
    fn end(&self, lane: &Lane, call: &Left, respond: &mut SendResponse<Bytes>) -> bool {
        let told = Told::by(&call.head.headers);
        if told.is_ordinary()
            && call.body.rest.is_end_stream()
            && let Some(message) = unframe(&call.body.read)
            && let Some(answer) = self.decide(lane, &told.presented, call.moment.now, message)
        {
            let (head, trailers) = good(told.request_id);
            if let Err(error) = send_at_once(head, answer, trailers, respond) {
                tracing::debug!(%error, "an answer was not sent");
            }
            lane.duration.record(call.moment.started.elapsed());
            return true;
        }
        false
    }

    /// The lane of a call that is not sampled.
    fn lane(&self, head: &Parts) -> Option<&Lane> {
        let lane = self.lanes.iter().find(|lane| lane.path == head.uri.path())?;
        let ordinary = head.method == Method::POST && head.version == Version::HTTP_2;
        let sampled = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLED);
        (ordinary && !sampled).then_some(lane)
    }

    /// The framed answer.
    fn decide(
        &self,
        lane: &Lane,
        presented: &Presented<'_>,
        now: Time,
        message: &[u8],
    ) -> Option<Bytes> {
        let keys = &self.app.keys;
        let decided = AssertUnwindSafe(|| {
            permissions::ask_now(&self.app, |facts| {
                let caller = access::recognise(keys, facts, lane.rule, presented, now)?;
                let Ok(caller) = caller else { return Ok(None) };
                let (path, rule) = (lane.path, lane.rule);
                let call =
                    Call { path, rule, caller, source: String::new(), user_agent: String::new() };
                let activity = &self.app.activity;
                if let Some(claims) = call.caller.session() {
                    activity.note(claims, now);
                }
                let asking = Asking { keys, activity, facts, call: &call, now };
                let mut frame = Vec::with_capacity(64);
                frame.extend_from_slice(&[0; PREFIX]);
                let answered = (lane.answerer)(&asking, message, &mut frame)?;
                Ok(answered.map(|()| frame))
            })
        });
        let mut frame = catch_unwind(decided).ok()??.ok()??;
        let length = u32::try_from(frame.len() - PREFIX).ok()?;
        frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        Some(frame.into())
    }
}

/// Whether the caller's trace is kept; the last of `00-<trace>-<parent>-<flags>`.
fn is_sampled(traceparent: &[u8]) -> bool {
    let flag = traceparent.last().and_then(|digit| char::from(*digit).to_digit(16));
    flag.is_some_and(|flag| flag & 1 == 1)
}

/// Reads on until the end, or until it is more than one message that the short way takes. It may be
/// dropped and called again.
async fn collect(body: &mut Unread) {
    let Unread { read, rest } = body;
    while !rest.is_end_stream() && read.len() <= PREFIX + MAX_MESSAGE {
        let Ok(Some(data)) = poll_fn(|cx| poll_data(rest, cx)).await else { return };
        if read.is_empty() {
            *read = data;
        } else {
            let mut longer = BytesMut::from(std::mem::take(read));
            longer.extend_from_slice(&data);
            *read = longer.freeze();
        }
    }
}

/// The one uncompressed message in a whole body.
fn unframe(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_first_chunk::<PREFIX>()?;
    let [compressed, length @ ..] = *prefix;
    let whole = usize::try_from(u32::from_be_bytes(length)).ok()? == message.len();
    (compressed == 0 && whole && message.len() <= MAX_MESSAGE).then_some(message)
}

/// What surrounds the message of an answer that is none but good.
fn good(request_id: Option<&HeaderValue>) -> (Response<()>, HeaderMap) {
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(id) = request_id.filter(|id| layer::is_request_id(id)) {
        headers.insert(layer::REQUEST_ID, id.clone());
    }
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    (head, trailers)
}
