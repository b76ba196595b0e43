//! Repeated requests: the same id gets the same answer, also after a crash.

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Change;
use crate::{
    app::App,
    caller::Call,
    decision::Time,
    error::{Error, Result},
    proto::{Mutation, Redact, Revised, Withheld},
    secret, text,
};

/// The longest reason for a change, in characters.
const MAX_REASON: usize = 500;
/// How long an answer is kept.
const KEPT: TimeDelta = TimeDelta::hours(24);
/// The most answers forgotten at once.
const FORGET: i64 = 1_000;

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
        let reason = text::line("reason", message.reason(), MAX_REASON)?;
        let request = match message.request_id() {
            "" => None,
            id => {
                // One that nobody has set would make every second change a repetition of the first.
                let id = Uuid::try_parse(id).ok().filter(|id| !id.is_nil()).ok_or_else(|| {
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
        Ok(Self { request, validate_only: message.validate_only(), reason })
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
    now: Time,
) -> Result<Option<(R, u64)>> {
    let row = sqlx::query!(
        "select hash, response, revision from requests
         where caller = $1 and request_id = $2 and created_at > $3",
        key.caller,
        key.id,
        now - KEPT
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

impl RequestKey {
    /// What is kept of an answer, as the database's `keep_answer` reads it.
    pub fn kept<R: Answer>(&self, answer: &R) -> serde_json::Value {
        let mut kept = answer.clone();
        kept.redact(Withheld::Shown);
        serde_json::json!({
            "caller": self.caller,
            "id": self.id,
            "hash": secret::hex(&self.hash),
            "response": secret::hex(&kept.encode_to_vec()),
        })
    }
}

impl Change {
    /// Erases the kept answers in which one of these texts stands; returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_answers(&mut self, texts: &[&str]) -> Result<u64> {
        let mut erased = 0;
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let done = sqlx::query!(
                "delete from requests where position($1::bytea in response) > 0",
                text.as_bytes()
            )
            .execute(self.conn())
            .await?;
            erased += done.rows_affected();
        }
        Ok(erased)
    }
}

impl Options {
    /// The same, for one of several changes that answer together: the answer of the last one is kept.
    #[must_use]
    pub fn of_a_part(&self) -> Self {
        Self { request: None, ..self.clone() }
    }

    /// The same, to find out whether it would be refused.
    #[must_use]
    pub fn of_a_trial(&self) -> Self {
        Self { request: None, validate_only: true, ..self.clone() }
    }

    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.validate_only
    }
}

/// Forgets answers whose day is over; returns whether there are more.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(pool: &PgPool, now: Time) -> Result<bool> {
    let forgotten = sqlx::query!(
        "delete from requests where (caller, request_id) in (
             select caller, request_id from requests where created_at <= $1 limit $2)",
        now - KEPT,
        FORGET
    )
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected() == FORGET.unsigned_abs())
}
