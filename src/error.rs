//! The one error of the crate and its only mapping to a gRPC status.
//!
//! Messages are lowercase sentences without a full stop and end with the remedy. What is internal is
//! logged here, once, and reaches the client as a fixed sentence.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::framing::Unreadable;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest name that is repeated to whoever asked for it, the longest message and description, and
/// the most of descriptions together, in bytes: they travel in headers, of which clients take 8 KiB.
const MAX_NAME: usize = 200;
const MAX_MESSAGE: usize = 1_000;
const MAX_DESCRIPTIONS: usize = 3_000;

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "rolecall";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is malformed; each violation names a field and what it must be.
    #[error("{}", .0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    /// The bytes of the request are not its messages; the codes are those that tonic gives.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("{message}")]
    Unauthenticated { reason: &'static str, message: &'static str },
    #[error("{message}")]
    Denied { reason: &'static str, message: String },
    #[error("{}; {remedy}", missing(kind, name))]
    NotFound { kind: &'static str, name: String, remedy: &'static str },
    #[error("{kind} `{name}` exists already; {remedy}")]
    AlreadyExists { kind: &'static str, name: String, remedy: &'static str },
    /// The state does not allow it; the message says what would have to change.
    #[error("{message}")]
    Precondition {
        reason: &'static str,
        subject: String,
        message: String,
        /// What a program may want to read of the message: the `metadata` of the `ErrorInfo`.
        metadata: HashMap<String, String>,
    },
    /// What was shown would not happen any more, for these reasons.
    #[error("{message}")]
    Moved { reason: &'static str, message: String, differences: Vec<Difference> },
    #[error("{message}")]
    Aborted { reason: &'static str, message: &'static str },
    #[error("{message}; retry after {}", wait(*retry_after))]
    Exhausted { reason: &'static str, message: &'static str, retry_after: Duration },
    #[error("{message}; retry after {}, with the same request_id", wait(*retry_after))]
    Unavailable { message: &'static str, retry_after: Duration },
    #[error(
        "it took longer than its deadline; a change may have happened: repeat it with the same request_id"
    )]
    Deadline,
    #[error("internal error; quote the `rolecall-request-id` of this answer to the operators")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub description: String,
}

/// How the state differs from what was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Stable, in upper case.
    pub kind: &'static str,
    pub subject: String,
    pub description: String,
}

/// Leaves out the middle of what is too long: it ends with the remedy.
fn cut(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let (before, after) = (text.floor_char_boundary(most / 2), text.len() - most / 2);
    format!("{} … {}", &text[..before], &text[text.ceil_char_boundary(after)..])
}

fn missing(kind: &str, name: &str) -> String {
    match name {
        "" => format!("there is no such {kind}"),
        name => format!("no {kind} `{name}` that you can see"),
    }
}

/// How long that is, as people say it; the details of the answer have it exactly.
fn wait(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{} ms", time.as_millis()),
        10..600 => format!("{} s", time.as_millis().div_ceil(1_000)),
        _ => format!("{} minutes", time.as_secs().div_ceil(60)),
    }
}

impl Error {
    /// What ends a stream when the server stops.
    pub const STOPPING: Self = Self::Unavailable {
        message: "this server stops; open another stream",
        retry_after: Duration::from_millis(100),
    };

    pub fn invalid(field: impl Into<String>, description: impl ToString) -> Self {
        let description = cut(description.to_string(), MAX_MESSAGE);
        // A key of a map is part of it.
        let field = cut(field.into(), MAX_NAME);
        Self::Invalid(vec![Violation { field, description }])
    }

    pub fn not_found(kind: &'static str, name: impl ToString) -> Self {
        let remedy = "check the spelling and the tenant";
        Self::NotFound { kind, name: cut(name.to_string(), MAX_NAME), remedy }
    }

    /// A link that is none, or no more; which of them is nobody's to know.
    #[must_use]
    pub const fn no_link() -> Self {
        let remedy = "open the whole link of the newest mail, or ask for another";
        Self::NotFound { kind: "link", name: String::new(), remedy }
    }

    pub fn precondition(
        reason: &'static str,
        subject: impl ToString,
        message: impl Into<String>,
    ) -> Self {
        Self::Precondition {
            reason,
            subject: subject.to_string(),
            message: message.into(),
            metadata: HashMap::new(),
        }
    }

    /// Adds a value that a program may want to read.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        if let Self::Precondition { metadata, .. } = &mut self {
            metadata.insert(name.to_owned(), value.to_string());
        }
        self
    }

    pub fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    #[must_use]
    pub const fn stale_etag() -> Self {
        Self::Aborted {
            reason: "ETAG_MISMATCH",
            message: "it was changed since you read it; read it again and repeat the update",
        }
    }

    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Unreadable(Unreadable::Encoding) => Code::Unimplemented,
            Self::Unreadable(Unreadable::Long) => Code::OutOfRange,
            Self::Unreadable(
                Unreadable::Compressed | Unreadable::Cut | Unreadable::Malformed(_),
            ) => Code::Internal,
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Precondition { .. } | Self::Moved { .. } => Code::FailedPrecondition,
            Self::Aborted { .. } => Code::Aborted,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether it says nothing of the request and of the state, but that something did not work.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Deadline | Self::Internal(_))
    }

    /// The field that is malformed; empty when none is.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Invalid(violations) => violations.first().map_or("", |v| v.field.as_str()),
            _ => "",
        }
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_FIELD",
            Self::Unreadable(_) => "MESSAGE_UNREADABLE",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::AlreadyExists { .. } => "ALREADY_EXISTS",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Deadline => "DEADLINE_EXCEEDED",
            Self::Internal(_) => "INTERNAL",
            Self::Unauthenticated { reason, .. }
            | Self::Denied { reason, .. }
            | Self::Precondition { reason, .. }
            | Self::Moved { reason, .. }
            | Self::Aborted { reason, .. }
            | Self::Exhausted { reason, .. } => reason,
        }
    }

    fn details(&self) -> ErrorDetails {
        let metadata = match self {
            Self::Precondition { metadata, .. } => metadata.clone(),
            _ => HashMap::new(),
        };
        let mut details = ErrorDetails::with_error_info(self.reason(), DOMAIN, metadata);
        let mut left = MAX_DESCRIPTIONS;
        // As many as there is room for, and one at least.
        let mut fits = |description: &str| {
            let fits = left > 0;
            left = left.saturating_sub(description.len());
            fits
        };
        match self {
            Self::Invalid(violations) => {
                for violation in violations.iter().take_while(|v| fits(&v.description)) {
                    details.add_bad_request_violation(&violation.field, &violation.description);
                }
            }
            Self::NotFound { kind, name, .. } | Self::AlreadyExists { kind, name, .. } => {
                details.set_resource_info(*kind, name, "", "");
            }
            Self::Precondition { reason, subject, message, .. } => {
                details.add_precondition_failure_violation(*reason, subject, message);
            }
            Self::Moved { differences, .. } => {
                for Difference { kind, subject, description } in
                    differences.iter().take_while(|d| fits(&d.description))
                {
                    details.add_precondition_failure_violation(*kind, subject, description);
                }
            }
            Self::Exhausted { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                details.set_retry_info(Some(*retry_after));
            }
            Self::Unreadable(_)
            | Self::Unauthenticated { .. }
            | Self::Denied { .. }
            | Self::Aborted { .. }
            | Self::Deadline
            | Self::Internal(_) => {}
        }
        details
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Internal(source) = &error {
            tracing::error!(error = %chain(source.as_ref()), "internal error");
        }
        Self::with_error_details(error.code(), cut(error.to_string(), MAX_MESSAGE), error.details())
    }
}

/// An error with everything that caused it, on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Whether the database is not there for now, rather than asked for what cannot be.
pub fn is_away(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let says = code.is_some_and(|code| {
        matches!(&*code, "57P01" | "57P02" | "57P03" | "25P03" | "25006" | "53300" | "53100")
    });
    says || matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::Io(_))
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        const RETRY: Duration = Duration::from_millis(500);
        let code = error.as_database_error().and_then(|e| e.code()).map(|c| c.to_string());
        let constraint = error.as_database_error().and_then(|e| e.constraint());
        // Of two at once with one request id, in different tenants, the later one finds the answer.
        let same_request = constraint == Some("requests_pkey");
        let conflict = Self::Aborted {
            reason: "CONFLICT",
            message: "another change was in the way; repeat the call with the same request_id",
        };
        match code.as_deref() {
            Some("40P01" | "40001" | "55P03" | "57014") => conflict,
            // What names nothing is looked up as it came, and only this the database cannot even read.
            Some("22021") => {
                Self::invalid("request", "a text in it has the character U+0000; take it out")
            }
            _ if same_request => conflict,
            _ if is_away(&error) => {
                tracing::warn!(%error, "the database did not answer");
                Self::Unavailable { message: "the database did not answer", retry_after: RETRY }
            }
            _ => Self::internal(error),
        }
    }
}

/// Turns the violation of a named constraint into an error of the API.
pub trait OnConstraint<T> {
    /// # Errors
    /// `error()` when the statement broke the constraint `name`; other failures as they are.
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T>;
}

impl<T> OnConstraint<T> for Result<T, sqlx::Error> {
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T> {
        self.map_err(Error::from).on_constraint(name, error)
    }
}

impl<T> OnConstraint<T> for Result<T, Error> {
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T> {
        self.map_err(|e| match &e {
            Error::Internal(source)
                if source
                    .downcast_ref::<sqlx::Error>()
                    .and_then(sqlx::Error::as_database_error)
                    .is_some_and(|d| d.constraint() == Some(name)) =>
            {
                error()
            }
            _ => e,
        })
    }
}
