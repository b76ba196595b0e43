//! CheckPermissionStream, from the bytes of the questions to those of the answers. All questions that
//! have arrived are answered together, in their order, except those that have to wait for something.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::{Buf, Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Frame;
use prost::Message;
use tonic::Status;

use super::{
    super::ask_now,
    answer_later,
    quick::{self, Asking},
};
use crate::{
    access::recognise_again,
    app::App,
    caller::Call,
    error::{Error, Result},
    framing::{PREFIX, Unreadable, frame, unframe},
    proto as pb,
};

/// The most questions that wait at a time; while there are as many, no more are read.
const WAITING: usize = 1000;
/// Answers that are sent before more questions are read, in bytes.
const ENOUGH: usize = 16 << 10;

/// Takes the path of the RPC.
pub async fn serve(State(app): State<App>, mut request: Request) -> Response {
    match Answers::new(app, &mut request) {
        Ok(answers) => {
            let mut response = Response::new(Body::new(answers));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(error) => {
            let mut response = Status::from(error).into_http();
            let headers = response.headers_mut();
            headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
            response
        }
    }
}

/// The answers to the questions in a body; an error is the last of them. Nothing is spawned or queued: a
/// client that reads no answers stops its own questions.
struct Answers {
    app: App,
    call: Call,
    questions: Body,
    /// What was read of them, and not answered.
    unread: BytesMut,
    /// How much of that was decided from facts that turned out not to count: it is answered one by one.
    unsure: usize,
    /// All was read.
    asked: bool,
    waiting: FuturesUnordered<BoxFuture<'static, Result<pb::CheckPermissionStreamResponse>>>,
    /// The server stops.
    stopped: BoxFuture<'static, ()>,
    /// The last that is said, and whether it was.
    end: Option<Status>,
    over: bool,
}

impl hyper::body::Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let mut answers = Vec::new();
        if this.end.is_none()
            && let Poll::Ready(end) = this.poll_answers(&mut answers, cx)
        {
            this.end = Some(end.map_or_else(Status::from, |()| Status::ok("")));
        }
        if !answers.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(answers.into()))));
        }
        let Some(end) = &this.end else { return Poll::Pending };
        this.over = true;
        let mut trailers = HeaderMap::new();
        if end.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", HeaderValue::from_static("13"));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Answers {
    fn new(app: App, request: &mut Request) -> Result<Self> {
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Unreadable::Encoding.into());
        }
        let call = Call::of(request.extensions_mut())?;
        let mut stopping = app.stopping.clone();
        let stopped = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        Ok(Self {
            app,
            call,
            questions: std::mem::take(request.body_mut()),
            unread: BytesMut::new(),
            unsure: 0,
            asked: false,
            waiting: FuturesUnordered::new(),
            stopped: stopped.boxed(),
            end: None,
            over: false,
        })
    }

    /// Appends what can be answered; ready when there is no more to come.
    fn poll_answers(&mut self, answers: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.stopped.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(Error::STOPPING));
        }
        while answers.len() < ENOUGH {
            if !self.waiting.is_empty()
                && let Poll::Ready(Some(answer)) = self.waiting.poll_next_unpin(cx)
            {
                append(answers, &answer?)?;
            } else if self.waiting.len() == WAITING {
                break;
            } else if unframe(&self.unread)?.is_some() {
                self.answer(answers, cx)?;
            } else if !self.asked {
                match self.questions.frame().poll_unpin(cx) {
                    Poll::Ready(Some(read)) => {
                        let read = read.map_err(|_| Unreadable::Cut)?;
                        self.unread.extend_from_slice(&read.into_data().unwrap_or_default());
                    }
                    Poll::Ready(None) => self.asked = true,
                    Poll::Pending => break,
                }
            } else if !self.unread.is_empty() {
                return Poll::Ready(Err(Unreadable::Cut.into()));
            } else if self.waiting.is_empty() {
                return Poll::Ready(Ok(()));
            } else {
                break;
            }
        }
        Poll::Pending
    }

    /// Answers the questions that were read, up to one that has to wait and with it.
    fn answer(&mut self, answers: &mut Vec<u8>, cx: &mut Context<'_>) -> Result<()> {
        if self.unsure == 0 {
            self.answer_now(answers)?;
        }
        if answers.len() < ENOUGH
            && let Some(question) = unframe(&self.unread)?
        {
            let length = PREFIX + question.len();
            let question = pb::CheckPermissionStreamRequest::decode(question);
            let question = question.map_err(Unreadable::Malformed)?;
            self.unread.advance(length);
            self.unsure = self.unsure.saturating_sub(length);
            let mut answer = answer_later(self.app.clone(), self.call.clone(), question).boxed();
            match answer.poll_unpin(cx) {
                Poll::Ready(answer) => append(answers, &answer?)?,
                Poll::Pending => self.waiting.push(answer),
            }
        }
        Ok(())
    }

    /// Answers from memory what can be, up to a question that is out of the ordinary. The caller is
    /// recognised anew: it may have lost its right to ask since the stream began.
    fn answer_now(&mut self, answers: &mut Vec<u8>) -> Result<()> {
        let Self { app, call, unread, .. } = self;
        let (now, begun, mut read) = (app.clock.now(), answers.len(), 0);
        let answered = ask_now(app, |facts| {
            if let Err(ended) = recognise_again(facts, &mut call.caller, now)? {
                return Ok(Err(ended));
            }
            let (keys, activity) = (&app.keys, &app.activity);
            let asking = Asking { keys, activity, facts, call, now };
            read = quick::stream(&asking, unread, answers, ENOUGH);
            Ok(Ok(()))
        });
        match answered {
            Some(Ok(told)) => told?,
            // The lease is over.
            Some(Err(_)) => {
                answers.truncate(begun);
                self.unsure = std::mem::take(&mut read);
            }
            // The caller's own tenant has to be read first.
            None => {}
        }
        unread.advance(read);
        Ok(())
    }
}

fn append(answers: &mut Vec<u8>, answer: &pb::CheckPermissionStreamResponse) -> Result<()> {
    frame(answers, |answers| answer.encode(answers).ok())
        .ok_or_else(|| Error::internal("an answer is too long"))
}
