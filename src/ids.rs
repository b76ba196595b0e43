//! Identifiers: prefixed UUIDv7 (`usr_0190…`) that say what they are, and the keys that people choose.
//!
//! Ids are written in one form only, so that equal ids are equal strings.
//!
//! ```
//! use rolecall::ids::{Key, UserId};
//! let id = UserId::from_uuid(uuid::Uuid::nil());
//! assert_eq!(id.to_string().parse::<UserId>(), Ok(id));
//! assert!("svc_00000000000000000000000000000000".parse::<UserId>().is_err());
//! assert!("paris-2".parse::<Key>().is_ok());
//! assert!("Paris".parse::<Key>().is_err());
//! ```

mod revision;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};
use smol_str::SmolStr;
use uuid::Uuid;

pub use revision::{MalformedRevision, Revision};

/// Why a text is not an id or a key; the message names the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("expected `{0}` followed by 32 lowercase hexadecimal digits")]
    Id(&'static str),
    #[error(
        "expected 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting and ending with a letter or digit"
    )]
    Key,
    #[error("expected `usr_` or `svc_` followed by 32 lowercase hexadecimal digits")]
    Subject,
}

fn parse_uuid(text: &str, prefix: &'static str) -> Result<Uuid, ParseError> {
    let hex = text.strip_prefix(prefix).ok_or(ParseError::Id(prefix))?;
    // Of this length there are only digits; one form only, so not the other case. (No early exit: the
    // compiler makes it a few wide instructions.)
    let upper = hex.bytes().fold(false, |upper, byte| upper | byte.is_ascii_uppercase());
    if hex.len() != 32 || upper {
        return Err(ParseError::Id(prefix));
    }
    Uuid::try_parse(hex).map_err(|_| ParseError::Id(prefix))
}

/// Serde through the text form, for types whose text is their only form.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
        #[sqlx(transparent)]
        #[repr(align(8))] // whoever has one beside a tag moves it in words
        pub struct $name(Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                parse_uuid(text, $prefix).map(Self)
            }
        }

        serde_as_text!($name);
    )*};
}

id! {
    TenantId "ten_";
    WorkspaceId "wsp_";
    UserId "usr_";
    ServiceAccountId "svc_";
    RoleId "rol_";
    GroupId "grp_";
    AssignmentId "asg_";
    InvitationId "inv_";
    SessionId "ses_";
    ApiKeyId "key_";
    EventId "evt_";
    MailId "mail_";
    ImportId "imp_";
}

impl TenantId {
    /// The installation itself: the reserved tenant whose assignments reach every tenant.
    pub const SYSTEM: Self = Self(Uuid::nil());
}

/// Whom a question can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectId {
    User(UserId),
    Service(ServiceAccountId),
}

impl SubjectId {
    #[must_use]
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::User(id) => Some(id),
            Self::Service(_) => None,
        }
    }

    #[must_use]
    pub fn uuid(self) -> Uuid {
        match self {
            Self::User(id) => id.uuid(),
            Self::Service(id) => id.uuid(),
        }
    }

    #[must_use]
    pub fn service(self) -> Option<ServiceAccountId> {
        match self {
            Self::Service(id) => Some(id),
            Self::User(_) => None,
        }
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => id.fmt(f),
            Self::Service(id) => id.fmt(f),
        }
    }
}

impl FromStr for SubjectId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.starts_with(UserId::PREFIX) {
            text.parse().map(Self::User)
        } else if text.starts_with(ServiceAccountId::PREFIX) {
            text.parse().map(Self::Service)
        } else {
            Err(ParseError::Subject)
        }
    }
}

serde_as_text!(SubjectId);

/// Who holds a role assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    Subject(SubjectId),
    Group(GroupId),
}

impl Holder {
    #[must_use]
    pub fn subject(self) -> Option<SubjectId> {
        match self {
            Self::Subject(id) => Some(id),
            Self::Group(_) => None,
        }
    }

    #[must_use]
    pub fn group(self) -> Option<GroupId> {
        match self {
            Self::Group(id) => Some(id),
            Self::Subject(_) => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(id) => id.fmt(f),
            Self::Group(id) => id.fmt(f),
        }
    }
}

impl FromStr for Holder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.starts_with(GroupId::PREFIX) {
            text.parse().map(Self::Group)
        } else {
            text.parse().map(Self::Subject)
        }
    }
}

serde_as_text!(Holder);

/// A name that people choose and type: of a tenant, a workspace, a role, a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(SmolStr);

impl Key {
    /// The key of the installation's own tenant.
    pub const SYSTEM: &'static str = "system";

    #[must_use]
    pub fn system() -> Self {
        Self(SmolStr::new_static(Self::SYSTEM))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let body = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        let well_formed =
            text.len() <= 63 && body && edge(text.bytes().next()) && edge(text.bytes().last());
        if well_formed { Ok(Self(text.into())) } else { Err(ParseError::Key) }
    }
}

/// Database rows hold keys that were checked when they were written.
impl TryFrom<String> for Key {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

serde_as_text!(Key);
