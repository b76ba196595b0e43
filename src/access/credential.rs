//! Who calls: the credential that a call presents, and what the facts say of whoever holds it.

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue};

use crate::{
    app::App,
    caller::{Call, Caller},
    decision::{Authority, Credential, Facts, Reason, TenantNotLoaded, standing},
    error::{Error, Result},
    ids::{Key, UserId},
    proto::Rule,
    secret::{self, Keys},
};

/// Metadata that carries the credential: `Bearer rck_…` or `Bearer rcs_…`.
pub const AUTHORIZATION: &str = "authorization";
/// Metadata that names the person for whom a service acts: `usr_…`.
pub const ON_BEHALF_OF: &str = "rolecall-on-behalf-of";

/// What a call says about who calls.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Presented<'a> {
    pub authorization: Option<&'a HeaderValue>,
    pub on_behalf_of: Option<&'a HeaderValue>,
}

impl<'a> Presented<'a> {
    #[must_use]
    pub fn by(headers: &'a HeaderMap) -> Self {
        let (authorization, on_behalf_of) = (headers.get(AUTHORIZATION), headers.get(ON_BEHALF_OF));
        Self { authorization, on_behalf_of }
    }
}

/// Finds out who calls.
///
/// # Errors
/// `UNAUTHENTICATED` for a missing, malformed, unknown, expired or ended credential.
pub async fn authenticate(app: &App, rule: Rule, presented: &Presented<'_>) -> Result<Caller> {
    let now = app.clock.now();
    let recognised = |facts: &Facts| recognise(&app.keys, facts, rule, presented, now);
    let caller = app.replica.ask(recognised).await??;
    if let Some(claims) = caller.session() {
        app.activity.note(claims, now);
    }
    Ok(caller)
}

/// Finds out who calls by facts that may not be current: whoever answers has to recognise the caller on
/// the facts that the answer is made from.
///
/// # Errors
/// As [`authenticate`].
pub fn authenticate_by_any(app: &App, rule: Rule, presented: &Presented<'_>) -> Result<Caller> {
    let (facts, now) = (app.replica.facts(), app.clock.now());
    recognise(&app.keys, &facts, rule, presented, now).unwrap_or_else(|_| {
        Err(Error::Unavailable {
            message: "the credential's tenant is not in memory",
            retry_after: std::time::Duration::from_secs(1),
        })
    })
}

/// What [`authenticate`] finds in these facts.
///
/// # Errors
/// When the facts of a tenant are not loaded; the inner error is that of [`authenticate`].
pub fn recognise(
    keys: &Keys,
    facts: &Facts,
    rule: Rule,
    presented: &Presented<'_>,
    now: DateTime<Utc>,
) -> Result<Result<Caller>, TenantNotLoaded> {
    let token = match bearer(presented.authorization) {
        Ok(Some(token)) => token,
        Ok(None) if rule == Rule::Public => return Ok(Ok(Caller::Anonymous)),
        Ok(None) => {
            return Ok(Err(unauthenticated(
                "CREDENTIAL_MISSING",
                "no credential; send `authorization: Bearer <api key or session token>`",
            )));
        }
        Err(error) => return Ok(Err(error)),
    };
    let on_behalf_of = match on_behalf_of(presented.on_behalf_of) {
        Ok(user) => user,
        Err(error) => return Ok(Err(error)),
    };
    let authority = authority(keys, facts, token, on_behalf_of, now)?;
    Ok(authority.map(Caller::Authenticated))
}

/// What [`renew`] finds in these facts.
///
/// # Errors
/// When the facts of a tenant are not loaded; the inner error is that of [`renew`].
pub fn recognise_again(
    facts: &Facts,
    caller: &mut Caller,
    now: DateTime<Utc>,
) -> Result<Result<()>, TenantNotLoaded> {
    let Caller::Authenticated(authority) = caller else { return Ok(Ok(())) };
    if let Credential::ApiKey(key) = &mut authority.credential {
        match facts.directory.api_keys.get(&key.hash) {
            Some(current) => *key = current.clone(),
            None => return Ok(Err(unknown())),
        }
    }
    in_good_standing(facts, authority, now)
}

/// The caller of a call that lasts, as the facts have it now.
///
/// # Errors
/// `UNAUTHENTICATED` for a credential that ended meanwhile.
pub async fn renew(app: &App, call: &Call) -> Result<Call> {
    let (mut call, now) = (call.clone(), app.clock.now());
    app.replica.ask(|facts| recognise_again(facts, &mut call.caller, now)).await??;
    Ok(call)
}

fn bearer(value: Option<&HeaderValue>) -> Result<Option<&str>> {
    let Some(value) = value else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    token.map(Some).ok_or_else(malformed)
}

fn on_behalf_of(value: Option<&HeaderValue>) -> Result<Option<UserId>> {
    let Some(value) = value else { return Ok(None) };
    let user = value.to_str().ok().and_then(|text| text.parse().ok());
    let wanted = "expected the id of a user, `usr_…`";
    user.map(Some).ok_or_else(|| Error::invalid(ON_BEHALF_OF, wanted))
}

fn authority(
    keys: &Keys,
    facts: &Facts,
    token: &str,
    on_behalf_of: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<Result<Authority>, TenantNotLoaded> {
    let credential = if secret::is_api_key(token) {
        facts
            .directory
            .api_keys
            .get(&secret::hash_api_key(token))
            .map(|key| Credential::ApiKey(key.clone()))
    } else if secret::is_session_token(token) {
        keys.open_session(token).map(Credential::Session)
    } else {
        return Ok(Err(malformed()));
    };
    let Some(credential) = credential else { return Ok(Err(unknown())) };
    let authority = Authority { credential, on_behalf_of };
    Ok(in_good_standing(facts, &authority, now)?.map(|()| authority))
}

fn in_good_standing(
    facts: &Facts,
    authority: &Authority,
    now: DateTime<Utc>,
) -> Result<Result<()>, TenantNotLoaded> {
    let home = facts.directory.tenant_keys.get(&authority.home()).map_or("", Key::as_str);
    let flaw = standing(facts, home, authority.subject(), now)?;
    Ok(flaw.map_or(Ok(()), |reason| Err(ended(reason))))
}

const fn unknown() -> Error {
    unauthenticated(
        "CREDENTIAL_UNKNOWN",
        "the credential is not known here; sign in again, or create a new key",
    )
}

pub(super) fn malformed() -> Error {
    unauthenticated(
        "CREDENTIAL_MALFORMED",
        "the credential is malformed; send `authorization: Bearer <api key or session token>`",
    )
}

const fn unauthenticated(reason: &'static str, message: &'static str) -> Error {
    Error::Unauthenticated { reason, message }
}

fn ended(reason: Reason) -> Error {
    match reason {
        Reason::SessionExpired => {
            unauthenticated("SESSION_EXPIRED", "the session has expired; sign in again")
        }
        Reason::KeyRevoked => {
            unauthenticated("KEY_REVOKED", "the api key was revoked; create a new one")
        }
        Reason::KeyExpired => {
            unauthenticated("KEY_EXPIRED", "the api key has expired; create a new one")
        }
        Reason::AccountDisabled => {
            unauthenticated("ACCOUNT_DISABLED", "the account is disabled; ask an operator")
        }
        Reason::MembershipSuspended => unauthenticated(
            "MEMBERSHIP_SUSPENDED",
            "the membership is suspended; ask an administrator of the tenant",
        ),
        Reason::TenantSuspended => {
            unauthenticated("TENANT_SUSPENDED", "the tenant is suspended; ask an operator")
        }
        Reason::TenantDeleted => {
            unauthenticated("TENANT_DELETED", "the tenant was deleted; ask an operator")
        }
        _ => unauthenticated("SESSION_ENDED", "the credential is no longer valid; sign in again"),
    }
}
