//! The short way of the two calls that every request of every other service waits for: it answers
//! CheckPermission and BatchCheckPermissions below the router, from memory, on the connection's core,
//! without a layer, a lock or a queue between the bytes of the question and those of the answer.
//!
//! It gives ordinary answers only. Whatever is not one — a refusal, a malformed or compressed message, a
//! tenant that has to be read first, an address to look up, a sampled trace — goes to the router with
//! every byte that was read, and is answered there by the same rules. So the router alone makes errors,
//! request ids and spans; here an answer carries the caller's own `x-request-id`, or none. A panic goes
//! to the router, too, whose layer reports it; the connection and its other calls go on.

use std::{
    future::poll_fn,
    iter::repeat,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header::CONTENT_TYPE};

use super::{
    body::{Unread, poll_data, send_at_once},
    layer,
};
use crate::{
    access::{self, Presented},
    app::App,
    caller::Call,
    decision::{Facts, Time},
    framing::{MAX_MESSAGE, PREFIX, frame, unframe},
    permissions::{
        self,
        quick::{self, Answerer, Asking},
    },
    proto::Rule,
};

const BATCH: &str = "/rolecall.v1.PermissionService/BatchCheckPermissions";
/// One in so many calls takes the router, for its trace.
const SAMPLED: u32 = 1024;
/// How long the rest of a message may take to arrive before the router waits for it.
const PATIENCE: Duration = Duration::from_millis(100);

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

/// A call whose headers have arrived.
pub struct Arrived {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    /// When the first of those began that it arrived with.
    started: Instant,
    /// The number of its lane; nothing: the router answers it.
    lane: Option<usize>,
    /// What was read of its body.
    read: Bytes,
    /// For the rest of its message.
    waits: bool,
}

/// A framed answer, and the id that the caller gave the request.
type Answer = (Bytes, Option<HeaderValue>);

/// Who called last among those that arrived together: mostly they are one.
type Known<'a> = Option<(Presented<'a>, Call)>;

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
        let lanes = [(layer::CHECK, quick::check as Answerer), (BATCH, quick::batch)];
        let lane = |(path, answerer)| {
            let (path, rule) = layer::find(path)?;
            Some(Lane { path, rule, answerer, duration: layer::duration(path, "OK") })
        };
        let lanes = lanes.into_iter().filter_map(lane).collect();
        Self { app, lanes, calls: AtomicU32::new(0) }
    }

    /// Answers at once, and from the same facts, what arrived together as a whole, as most messages do.
    pub fn answer(&self, arrived: &mut Vec<Arrived>, mut left: impl FnMut(Arrived)) {
        for call in arrived.iter_mut() {
            call.lane = self.lane(&call.request);
            call.waits = call.lane.is_some() && call.collect().now_or_never().is_none();
        }
        let answers = self.decide(arrived, self.app.clock.now());
        let now = Instant::now();
        for (call, answer) in arrived.drain(..).zip(answers.into_iter().chain(repeat(None))) {
            match answer {
                Some(answer) => self.send(call, answer, now),
                None => left(call),
            }
        }
    }

    /// Waits for the rest of a message; nothing is left for the router of what could be answered then.
    pub async fn finish(
        &self,
        mut call: Arrived,
    ) -> Option<(Request<Unread>, SendResponse<Bytes>)> {
        if call.waits {
            let _ = tokio::time::timeout(PATIENCE, call.collect()).await;
            call.waits = false;
            let answer = self.decide(std::slice::from_ref(&call), self.app.clock.now()).pop();
            if let Some(answer) = answer.flatten() {
                self.send(call, answer, Instant::now());
                return None;
            }
        }
        let Arrived { request, respond, read, .. } = call;
        Some((request.map(|rest| Unread { read, rest }), respond))
    }

    /// The lane of a call that is not sampled.
    fn lane(&self, request: &Request<RecvStream>) -> Option<usize> {
        let lane = self.lanes.iter().position(|lane| lane.path == request.uri().path())?;
        let ordinary = request.method() == Method::POST && request.version() == Version::HTTP_2;
        let sampled = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLED);
        (ordinary && !sampled).then_some(lane)
    }

    /// The answers to these, all or none of them from facts that count.
    fn decide(&self, calls: &[Arrived], now: Time) -> Vec<Option<Answer>> {
        let decided = permissions::ask_now(&self.app, |facts| {
            let mut known = None;
            let decided = |call| {
                let decided = AssertUnwindSafe(|| self.decide_one(facts, call, now, &mut known));
                catch_unwind(decided).ok().flatten()
            };
            Ok(calls.iter().map(decided).collect())
        });
        decided.and_then(Result::ok).unwrap_or_default()
    }

    fn decide_one<'a>(
        &self,
        facts: &Facts,
        arrived: &'a Arrived,
        now: Time,
        known: &mut Known<'a>,
    ) -> Option<Answer> {
        let lane = &self.lanes[arrived.lane.filter(|_| !arrived.waits)?];
        let told = Told::by(arrived.request.headers());
        if !told.is_ordinary() || !arrived.request.body().is_end_stream() {
            return None;
        }
        let message = unframe(&arrived.read).ok()?;
        let message = message.filter(|message| PREFIX + message.len() == arrived.read.len())?;
        let (keys, activity) = (&self.app.keys, &self.app.activity);
        let same = |(presented, call): &(Presented<'_>, Call)| {
            *presented == told.presented && call.path == lane.path
        };
        if !known.as_ref().is_some_and(same) {
            let (path, rule) = (lane.path, lane.rule);
            let caller = access::recognise(keys, facts, rule, &told.presented, now).ok()?.ok()?;
            let call =
                Call { path, rule, caller, source: String::new(), user_agent: String::new() };
            if let Some(claims) = call.caller.session() {
                activity.note(claims, now);
            }
            *known = Some((told.presented, call));
        }
        let (_, call) = known.as_ref()?;
        let asking = Asking { keys, activity, facts, call, now };
        let mut answer = Vec::with_capacity(64);
        frame(&mut answer, |answer| (lane.answerer)(&asking, message, answer))?;
        let id = told.request_id.filter(|id| layer::is_request_id(id));
        Some((answer.into(), id.cloned()))
    }

    fn send(&self, call: Arrived, (answer, request_id): Answer, now: Instant) {
        let Arrived { mut respond, started, lane, .. } = call;
        let (head, trailers) = good(request_id);
        if let Err(error) = send_at_once(head, answer, trailers, &mut respond) {
            tracing::debug!(%error, "an answer was not sent");
        }
        if let Some(lane) = lane {
            self.lanes[lane].duration.record(now - started);
        }
    }
}

/// Whether the caller's trace is kept; the last of `00-<trace>-<parent>-<flags>`.
fn is_sampled(traceparent: &[u8]) -> bool {
    let flag = traceparent.last().and_then(|digit| char::from(*digit).to_digit(16));
    flag.is_some_and(|flag| flag & 1 == 1)
}

impl Arrived {
    pub fn new(
        (request, respond): (Request<RecvStream>, SendResponse<Bytes>),
        started: Instant,
    ) -> Self {
        Self { request, respond, started, lane: None, read: Bytes::new(), waits: false }
    }

    /// Reads on until the end, or until it is more than one message that the short way takes. It may be
    /// dropped and called again.
    async fn collect(&mut self) {
        let (read, rest) = (&mut self.read, self.request.body_mut());
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
}

/// What surrounds the message of an answer that is none but good.
fn good(request_id: Option<HeaderValue>) -> (Response<()>, HeaderMap) {
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(id) = request_id {
        headers.insert(layer::REQUEST_ID, id);
    }
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    (head, trailers)
}
