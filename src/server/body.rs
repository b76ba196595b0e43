//! The bodies of HTTP/2 calls that the router answers, in both directions and under flow control.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};

/// A request body of which some was read already.
pub struct Unread {
    pub read: Bytes,
    pub rest: RecvStream,
}

impl Body for Unread {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        let data = ready!(poll_data(&mut self.rest, cx)?);
        if let Some(data) = data {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.rest.poll_trailers(cx)?);
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }
}

/// The next piece of a body, for which the client may send as much again.
pub fn poll_data(
    body: &mut RecvStream,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, h2::Error>> {
    let Some(data) = ready!(body.poll_data(cx)?) else { return Poll::Ready(Ok(None)) };
    body.flow_control().release_capacity(data.len())?;
    Poll::Ready(Ok(Some(data)))
}

/// Sends an answer as fast as the client takes it.
///
/// # Errors
/// When the client hung up.
pub async fn send(
    response: Response<axum::body::Body>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = response.into_parts();
    let head = Response::from_parts(head, ());
    if body.is_end_stream() {
        return respond.send_response(head, true).map(drop);
    }
    let mut stream = respond.send_response(head, false)?;
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(reset?.into()),
        };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => send_data(&mut stream, data).await?,
            Some(Ok(Err(rest))) => {
                let trailers = rest.into_trailers().unwrap_or_default();
                return stream.send_trailers(trailers);
            }
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => return stream.send_data(Bytes::new(), true),
        }
    }
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.ok_or(Reason::CANCEL)??;
        let piece = data.split_to(room.min(data.len()));
        if !piece.is_empty() {
            stream.send_data(piece, false)?;
        }
    }
    Ok(())
}

/// Sends an answer that is there as a whole: one message, then the status, which is good.
///
/// # Errors
/// When the client hung up.
pub fn send_at_once(
    head: Response<()>,
    message: Bytes,
    trailers: HeaderMap,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(message, false)?;
    stream.send_trailers(trailers)
}
