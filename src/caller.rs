//! Who calls, on whose behalf, and from where.

use std::net::SocketAddr;

use http::{HeaderMap, header};

use crate::{
    decision::{Authority, Credential, SessionClaims},
    error::{Error, Result},
    ids::{SubjectId, UserId},
    proto::{self, Rule},
};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What the caller calls its program, as far as it is kept.
#[must_use]
pub fn user_agent(headers: &HeaderMap) -> String {
    let text = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    text.unwrap_or_default().chars().take(200).collect()
}

/// One call, as the gate found it. Every operation gets it and hands it on to whatever decides.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: &'static str,
    pub rule: Rule,
    pub caller: Caller,
    /// The caller's address; empty when unknown.
    pub source: String,
    pub user_agent: String,
}

#[derive(Debug, Clone)]
pub enum Caller {
    /// No credential: the RPC is public, and its own one-time token says what it may do.
    Anonymous,
    Authenticated(Authority),
    /// A person who came with a one-time token and proved within the call who they are.
    Proved(UserId),
    /// The installation itself: a command run by whoever holds the database's credentials.
    Installation,
}

impl Caller {
    /// The session that calls, if one does.
    #[must_use]
    pub fn session(&self) -> Option<&SessionClaims> {
        match self {
            Self::Authenticated(Authority { credential: Credential::Session(claims), .. }) => {
                Some(claims)
            }
            _ => None,
        }
    }
}

impl Call {
    /// A call of the installation itself, from a command rather than over the wire.
    #[must_use]
    pub fn installation() -> Self {
        Self {
            path: "",
            rule: Rule::Authenticated,
            caller: Caller::Installation,
            source: String::new(),
            user_agent: String::new(),
        }
    }

    /// The call of a public RPC, by its path, that a page makes for its visitor.
    ///
    /// # Errors
    /// `INTERNAL` for an RPC that is not public: no page speaks for anybody.
    pub fn of_page(path: &'static str, source: String, user_agent: String) -> Result<Self> {
        match proto::rule(path) {
            Some(rule @ Rule::Public) => {
                Ok(Self { path, rule, caller: Caller::Anonymous, source, user_agent })
            }
            _ => Err(Error::internal(format!("{path} is not public"))),
        }
    }

    /// Takes the call that the gate left in a request apart from its message.
    ///
    /// # Errors
    /// `INTERNAL` for a request that did not pass the gate.
    pub fn split<T>(request: tonic::Request<T>) -> Result<(Self, T)> {
        let (_, mut extensions, message) = request.into_parts();
        Ok((Self::of(&mut extensions)?, message))
    }

    /// Takes the call that the gate left in the extensions of a request.
    ///
    /// # Errors
    /// As [`Call::split`].
    pub fn of(extensions: &mut http::Extensions) -> Result<Self> {
        extensions.remove().ok_or_else(|| Error::internal("the request did not pass the gate"))
    }

    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        match &self.caller {
            Caller::Authenticated(authority) => Some(authority),
            Caller::Anonymous | Caller::Proved(_) | Caller::Installation => None,
        }
    }

    /// The person who acts: the one on whose behalf it is done, or the one whose session calls.
    #[must_use]
    pub fn person(&self) -> Option<UserId> {
        let authority = self.authority()?;
        authority.on_behalf_of.or_else(|| authority.subject().id().user())
    }

    /// Whether this person calls themselves, rather than somebody on their behalf.
    #[must_use]
    pub fn is_oneself(&self, user: UserId) -> bool {
        self.authority().is_some_and(|authority| {
            authority.on_behalf_of.is_none() && authority.subject().id().user() == Some(user)
        })
    }

    #[must_use]
    pub fn subject(&self) -> Option<SubjectId> {
        self.authority().map(|authority| authority.subject().id())
    }

    /// How the audit names who calls.
    #[must_use]
    pub fn actor(&self) -> String {
        match (&self.caller, self.subject()) {
            (Caller::Installation, _) => "installation".to_owned(),
            (Caller::Proved(user), _) => user.to_string(),
            (_, Some(subject)) => subject.to_string(),
            (_, None) => "anonymous".to_owned(),
        }
    }

    /// The key that authenticated the call, for the audit.
    #[must_use]
    pub fn credential(&self) -> String {
        match self.authority().map(|a| &a.credential) {
            Some(Credential::ApiKey(key)) => key.id.to_string(),
            Some(Credential::Session(claims)) => claims.session.to_string(),
            None => String::new(),
        }
    }
}
