//! Randomness from the operating system: ids and secrets.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::{Error, Result};

/// # Errors
/// When the operating system has no randomness to give.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's randomness")]
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Error::internal)?;
    Ok(bytes)
}

/// A new id, ordered by the time it was made at.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn id<T: From<Uuid>>(now: DateTime<Utc>) -> Result<T> {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
    let random = bytes::<10>()?;
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into())
}

/// A name that nobody else has.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn name() -> Result<Uuid> {
    Ok(uuid::Builder::from_random_bytes(bytes()?).into_uuid())
}
