//! Answers a stream of questions in their order, except those that have to wait for something.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch;
use tonic::Status;

use crate::error::{Error, Result};

/// The most questions that wait at a time; while there are as many, no more are read.
const WAITING: usize = 1000;

/// What becomes of a question.
pub enum Reply<A> {
    Now(Result<A>),
    Later(BoxFuture<'static, Result<A>>),
}

/// The answers to `questions`; an error is the last of them. Nothing is spawned or queued: a client that
/// reads no answers stops its own questions.
pub struct Answers<S, A, F> {
    questions: S,
    answer: F,
    waiting: FuturesUnordered<BoxFuture<'static, Result<A>>>,
    /// All questions were read.
    asked: bool,
    stopping: watch::Receiver<bool>,
    /// Wakes a stream that has nothing to do.
    stopped: BoxFuture<'static, ()>,
}

impl<S, A, F> Answers<S, A, F> {
    pub fn new(questions: S, stopping: watch::Receiver<bool>, answer: F) -> Self {
        let mut stop = stopping.clone();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let (waiting, stopped) = (FuturesUnordered::new(), stopped.boxed());
        Self { questions, answer, waiting, asked: false, stopping, stopped }
    }
}

impl<S, Q, A, F> Stream for Answers<S, A, F>
where
    S: Stream<Item = Result<Q, Status>> + Unpin,
    F: FnMut(Q) -> Reply<A> + Unpin,
{
    type Item = Result<A, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.stopping.has_changed().unwrap_or(true) {
            return Poll::Ready(Some(Err(Error::STOPPING.into())));
        }
        if !this.waiting.is_empty()
            && let Poll::Ready(Some(answer)) = this.waiting.poll_next_unpin(cx)
        {
            return Poll::Ready(Some(answer.map_err(Status::from)));
        }
        while !this.asked && this.waiting.len() < WAITING {
            match this.questions.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(question))) => match (this.answer)(question) {
                    Reply::Now(answer) => return Poll::Ready(Some(answer.map_err(Status::from))),
                    Reply::Later(mut answer) => {
                        if let Poll::Ready(answer) = answer.poll_unpin(cx) {
                            return Poll::Ready(Some(answer.map_err(Status::from)));
                        }
                        this.waiting.push(answer);
                    }
                },
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => this.asked = true,
                Poll::Pending => break,
            }
        }
        if this.asked && this.waiting.is_empty() {
            return Poll::Ready(None);
        }
        this.stopped.poll_unpin(cx).map(|()| Some(Err(Error::STOPPING.into())))
    }
}
