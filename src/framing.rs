//! How gRPC puts messages into a body: each after five bytes, whether it is compressed, which none is
//! here, and its length.

/// Why the bytes of a request are not its messages.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("messages cannot be compressed; send them as they are")]
    Encoding,
    #[error("a message says that it is compressed, and the headers do not; send it as it is")]
    Compressed,
    #[error("a message is longer than {MAX_MESSAGE} bytes; send it in parts")]
    Long,
    #[error("the request ended before its last message did; send it again")]
    Cut,
    #[error("a message is malformed: {0}; encode it by the published schema")]
    Malformed(prost::DecodeError),
}

/// What stands before each message.
pub const PREFIX: usize = 5;
/// The longest message of a request, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The first message in a body, once all of it has arrived; it takes [`PREFIX`] bytes more than it has.
///
/// # Errors
/// For a message that is compressed or too long.
pub fn unframe(body: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
    let Some(([compressed, length @ ..], rest)) = body.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    if *compressed != 0 {
        return Err(Unreadable::Compressed);
    }
    match usize::try_from(u32::from_be_bytes(*length)) {
        Ok(length) if length <= MAX_MESSAGE => Ok(rest.get(..length)),
        _ => Err(Unreadable::Long),
    }
}

/// Appends one message, which `write` encodes; nothing when it gives up.
#[inline]
pub fn frame(body: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
    let start = body.len();
    body.extend_from_slice(&[0; PREFIX]);
    let written = write(body).and_then(|()| u32::try_from(body.len() - start - PREFIX).ok());
    match written {
        Some(length) => body[start + 1..start + PREFIX].copy_from_slice(&length.to_be_bytes()),
        None => body.truncate(start),
    }
    written.map(drop)
}
