//! Repeated requests: the same id gets the same answer, also after a crash.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    app::App,
    caller::Call,
    error::{Error, Result},
    proto::{Mutation, Redact, Revised},
};

/// The longest reason for a change, in characters.
const MAX_REASON: usize = 500;

/// An answer that can be kept: it carries the revision, and its secrets can be blanked.
pub trait Answer: Revised + Redact + Clone {}
impl<T: Revised + Redact + Clone> Answer for T {}

/// What every mutation may ask for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(super) request: Option<RequestKey>,
    pub(super) validate_only: bool,
    pub(super) reason: String,
}

#[derive(Debug, Clone)]
pub(super) struct RequestKey {
    pub caller: String,
    pub id: Uuid,
    /// A MAC over method and message, so that a password in it is not kept.
    pub hash: Vec<u8>,
}

impl Options {
    /// Reads them from the request of a mutation.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a malformed id or reason.
    pub fn of<M: Mutation>(app: &App, call: &Call, message: &M) -> Result<Self> {
        let reason = message.reason().trim();
        if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
            let wanted =
                format!("at most {MAX_REASON} characters, none of them control characters");
            return Err(Error::invalid("reason", wanted));
        }
        let request = match message.request_id() {
            "" => None,
            id => {
                let id = Uuid::try_parse(id).map_err(|_| {
                    Error::invalid("request_id", "expected a UUID, made anew per change")
                })?;
                let body = message.encode_to_vec();
                Some(RequestKey {
                    caller: caller(call),
                    id,
                    hash: app.keys.digest("request", &[call.path.as_bytes(), &[0], &body]),
                })
            }
        };
        Ok(Self { request, validate_only: message.validate_only(), reason: reason.to_owned() })
    }
}

fn caller(call: &Call) -> String {
    match call.authority().and_then(|a| a.on_behalf_of) {
        Some(user) => format!("{} for {user}", call.actor()),
        None => call.actor(),
    }
}

/// The answer that this request got before, with its revision.
pub(super) async fn find<R: Answer>(
    conn: &mut PgConnection,
    key: &RequestKey,
) -> Result<Option<(R, u64)>> {
    let row = sqlx::query!(
        "select hash, response, revision from requests where caller = $1 and request_id = $2",
        key.caller,
        key.id
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.hash != key.hash {
        return Err(Error::AlreadyExists {
            kind: "request_id",
            name: key.id.to_string(),
            remedy: "it was used for another request; make a new one for every change",
        });
    }
    let response = R::decode(row.response.as_slice()).map_err(Error::internal)?;
    Ok(Some((response, row.revision.unsigned_abs())))
}
