//! One connection, on its core's thread.
//!
//! HTTP/2 is spoken by `h2` itself: everything that has arrived is read before the first answer, so that
//! all answers leave in one write, and a call that can be answered at once costs no task. Whatever the
//! short way leaves goes to the router, as does HTTP/1, which hyper speaks.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, routing::future::RouteFuture};
use bytes::Bytes;
use futures::FutureExt;
use h2::{Ping, PingPong, server::Connection};
use http::Request;
use hyper::body::Body;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tower::Service;

use super::{
    body,
    fast::{Arrived, Fast},
};
use crate::caller::Peer;

/// Calls in flight on one connection.
const STREAMS: u32 = 256;
const MAX_HEADERS: u32 = 16 * 1024;
/// What a client may send before it hears that it was read, on a connection and on a stream: one stream
/// that is not read leaves room for the others.
const WINDOW: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 256 << 10;
/// What h2 may keep of frames beyond their bytes before it ends a connection: a frame counts as 256 bytes.
/// Many clients send each message of a stream in a frame of its own, and a question has forty bytes or
/// more: the window has to stop whoever asks faster than is answered, since that ends nothing.
const FRAMES: usize = (WINDOW as usize / 32) * (256 - 32);
/// What waits to be sent on a stream before its body is asked for more.
const SEND_BUFFER: usize = 400 << 10;
/// A client that resets more streams than this faster than they are served is cut off.
const RESETS: usize = 100;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What answers on one core, which shares it with no other.
pub struct Front {
    pub router: Router,
    pub fast: Fast,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error("the client did not answer in time")]
    Silent,
}

/// A connection of a core.
pub struct Visit {
    pub front: Arc<Front>,
    pub peer: Peer,
    pub stopping: watch::Receiver<bool>,
}

impl Visit {
    /// Serves plain text.
    ///
    /// # Errors
    /// When the connection ended before its time.
    pub async fn plain(self, stream: TcpStream) -> Result<(), ConnectionError> {
        let version = timeout(HANDSHAKE, speaks_http2(&stream)).await;
        self.serve(stream, version.map_err(|_| ConnectionError::Silent)??).await
    }

    /// Serves what is known to speak HTTP/2, or HTTP/1.
    ///
    /// # Errors
    /// As [`Visit::plain`].
    pub async fn serve<S>(self, stream: S, http2: bool) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if http2 { self.http2(stream).await } else { self.http1(stream).await }
    }

    async fn http2<S>(self, stream: S) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { front, peer, mut stopping } = self;
        let greeted = timeout(HANDSHAKE, settings().handshake(stream)).await;
        let mut connection: Connection<S, Bytes> =
            greeted.map_err(|_| ConnectionError::Silent)??;
        let mut pulse = connection.ping_pong().map(Pulse::new);
        let mut stop = pin!(stopping.wait_for(|stop| *stop).map(drop).fuse());
        let (mut arrived, mut started) = (Vec::new(), std::time::Instant::now());
        poll_fn(|cx| {
            if stop.poll_unpin(cx).is_ready() {
                connection.graceful_shutdown();
            }
            loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(call)) => {
                        if arrived.is_empty() {
                            started = std::time::Instant::now();
                        }
                        arrived.push(Arrived::new(call?, started));
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending if arrived.is_empty() => break,
                    Poll::Pending => {
                        front.fast.answer(&mut arrived, |left| front.answer(peer, left));
                    }
                }
            }
            pulse.as_mut().map_or(Poll::Pending, |pulse| pulse.poll(cx))
        })
        .await
    }

    async fn http1<S>(self, stream: S) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { front, peer, mut stopping } = self;
        let service = hyper::service::service_fn(move |request| front.call(peer, request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE)
            .max_buf_size(MAX_HEADERS as usize)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

fn settings() -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(FRAMES)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(RESETS));
    settings
}

/// Looks at the first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    const AGAIN: Duration = Duration::from_millis(5);
    let mut first = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 || first[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // The rest is on its way, and what is there already would wake us at once.
        tokio::time::sleep(AGAIN).await;
    }
}

/// Asks a client now and then whether it is still there.
struct Pulse {
    pings: PingPong,
    asked: bool,
    timer: Pin<Box<Sleep>>,
}

impl Pulse {
    fn new(pings: PingPong) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + KEEPALIVE));
        Self { pings, asked: false, timer }
    }

    /// Ends when the client is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        loop {
            if self.asked && self.pings.poll_pong(cx)?.is_ready() {
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + KEEPALIVE);
            }
            ready!(self.timer.poll_unpin(cx));
            if self.asked {
                return Poll::Ready(Err(ConnectionError::Silent));
            }
            self.pings.send_ping(Ping::opaque())?;
            self.asked = true;
            self.timer.as_mut().reset(Instant::now() + HANDSHAKE);
        }
    }
}

impl Front {
    /// Answers in a task of its own what could not be answered at once.
    fn answer(self: &Arc<Self>, peer: Peer, left: Arrived) {
        let front = self.clone();
        tokio::spawn(async move {
            let Some((request, mut respond)) = front.fast.finish(left).await else { return };
            let answered = tokio::select! {
                Ok(response) = front.call(peer, request) => body::send(response, respond).await,
                // Whoever hangs up lets go of the call.
                _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "an answer was not sent");
            }
        });
    }

    fn call<B>(&self, peer: Peer, mut request: Request<B>) -> RouteFuture<Infallible>
    where
        B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        request.extensions_mut().insert(ConnectInfo(peer));
        self.router.clone().call(request.map(axum::body::Body::new))
    }
}
