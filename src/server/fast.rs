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
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use self::checks::{Answerer, Asking};
use super::{MAX_MESSAGE, layer};
use crate::{access, app::App, caller::Call, permissions, proto::Rule};

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

/// What the short way made of a call.
pub enum Outcome {
    Answered(Response<Answer>),
    /// For the router.
    Left(Request<Unread>),
}

/// A call whose message has not arrived as a whole.
pub struct Unfinished {
    started: Instant,
    head: http::request::Parts,
    read: Bytes,
    body: Incoming,
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

    /// Answers at once what arrived as a whole, as most messages do; the others are given back.
    pub fn answer(&self, request: Request<Incoming>) -> Result<Outcome, Box<Unfinished>> {
        let started = Instant::now();
        let (head, mut body) = request.into_parts();
        let mut read = Bytes::new();
        let Some(lane) = self.lane(&head) else {
            return Ok(Outcome::Left(Request::from_parts(head, Unread { read, body })));
        };
        let collected = collect(&mut body, &mut read).now_or_never();
        let call = Unfinished { started, head, read, body };
        if collected.is_some() { Ok(self.end(lane, call)) } else { Err(Box::new(call)) }
    }

    /// Waits for the rest of a message.
    pub async fn finish(&self, mut call: Unfinished) -> Outcome {
        let _ = tokio::time::timeout(PATIENCE, collect(&mut call.body, &mut call.read)).await;
        match self.lanes.iter().find(|lane| lane.path == call.head.uri.path()) {
            Some(lane) => self.end(lane, call),
            None => Outcome::Left(call.leave()),
        }
    }

    fn end(&self, lane: &Lane, call: Unfinished) -> Outcome {
        if call.body.is_end_stream()
            && let Some(message) = unframe(&call.read)
            && let Some(answer) = self.decide(lane, &call.head.headers, message)
        {
            lane.duration.record(call.started.elapsed());
            return Outcome::Answered(respond(&call.head.headers, answer));
        }
        Outcome::Left(call.leave())
    }

    /// The lane of an ordinary call that is not sampled.
    fn lane(&self, head: &http::request::Parts) -> Option<&Lane> {
        let lane = self.lanes.iter().find(|lane| lane.path == head.uri.path())?;
        let header = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
        let ordinary = head.method == Method::POST
            && head.version == Version::HTTP_2
            && matches!(
                header("content-type"),
                Some(b"application/grpc" | b"application/grpc+proto")
            )
            && matches!(header("grpc-encoding"), None | Some(b"identity"));
        let traced = header("traceparent").is_some_and(is_sampled);
        let sampled = traced || self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLED);
        (ordinary && !sampled).then_some(lane)
    }

    /// The framed answer.
    fn decide(&self, lane: &Lane, headers: &HeaderMap, message: &[u8]) -> Option<Bytes> {
        let now = self.app.clock.now();
        let keys = &self.app.keys;
        let decided = AssertUnwindSafe(|| {
            permissions::ask_now(&self.app, |facts| {
                let caller = access::recognise(keys, facts, lane.rule, headers, now)?;
                let Ok(caller) = caller else { return Ok(None) };
                let (path, rule) = (lane.path, lane.rule);
                let call =
                    Call { path, rule, caller, source: String::new(), user_agent: String::new() };
                let asking = Asking { keys, facts, call: &call, now };
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

impl Unfinished {
    fn leave(self) -> Request<Unread> {
        Request::from_parts(self.head, Unread { read: self.read, body: self.body })
    }
}

/// Whether the caller's trace is kept; the last of `00-<trace>-<parent>-<flags>`.
fn is_sampled(traceparent: &[u8]) -> bool {
    let flag = traceparent.last().and_then(|digit| char::from(*digit).to_digit(16));
    flag.is_some_and(|flag| flag & 1 == 1)
}

/// Reads on until the end, or until it is more than one message that the short way takes. It may be
/// dropped and called again.
async fn collect(body: &mut Incoming, read: &mut Bytes) {
    while !body.is_end_stream() && read.len() <= PREFIX + MAX_MESSAGE {
        let Some(Ok(frame)) = body.frame().await else { return };
        let Ok(data) = frame.into_data() else { return };
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

fn respond(asked: &HeaderMap, frame: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::Short(Some(frame)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(id) = layer::given_id(asked) {
        headers.insert(layer::REQUEST_ID, id.clone());
    }
    response
}

/// A request body of which some was read already.
pub struct Unread {
    read: Bytes,
    body: Incoming,
}

impl Body for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.read.is_empty() {
            Pin::new(&mut self.body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.body.is_end_stream()
    }
}

/// The body of an answer.
pub enum Answer {
    /// One frame, then the status, which is good.
    Short(Option<Bytes>),
    Router(axum::body::Body),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Router(body) => Pin::new(body).poll_frame(cx),
            Self::Short(frame @ Some(_)) => Poll::Ready(frame.take().map(|f| Ok(Frame::data(f)))),
            Self::Short(None) => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Router(body) => body.is_end_stream(),
            Self::Short(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Router(body) => body.size_hint(),
            Self::Short(_) => SizeHint::default(),
        }
    }
}
