//! Opening sessions: with a password, or from another session. Neither is a revision, so the rows that
//! say who has access are held until the session is stored: whatever takes access away then sees it.

use chrono::{SubsecRound, TimeDelta};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;

use super::{NewSession, Session, sql, throttle};
use crate::{
    accounts,
    app::App,
    caller::Call,
    decision::{Credential, SessionClaims, Time},
    error::{Error, Result},
    ids::SessionId,
    random,
    text::Email,
};

/// How long a session lasts, however it is used.
const LIFETIME: TimeDelta = TimeDelta::days(30);

/// A session and its token, which is shown once.
#[derive(Debug, Clone)]
pub struct Opened {
    pub session: Session,
    pub token: SecretString,
}

#[derive(Debug)]
pub struct SignIn {
    pub email: String,
    pub password: SecretString,
    /// The tenant's key; empty: the only one, or a choice.
    pub tenant: String,
}

#[derive(Debug)]
pub enum SignedIn {
    Opened(Opened),
    /// The password is right; which tenant?
    Choose(Vec<Choice>),
}

/// A tenant that a person may sign in to.
#[derive(Debug)]
pub struct Choice {
    pub tenant: String,
    pub display_name: String,
}

/// Signs a person in.
///
/// # Errors
/// `UNAUTHENTICATED` with one reason, message and duration whatever was wrong; `RESOURCE_EXHAUSTED`
/// after too many failures.
pub async fn sign_in(app: &App, call: &Call, new: SignIn) -> Result<SignedIn> {
    let email = Email::parse("email", &new.email).ok();
    let attempt = throttle::count(app, email.as_ref(), &call.source).await?;
    let credentials = match &email {
        Some(email) => accounts::find_by_email(&app.pool, email).await?,
        None => None,
    };
    let hash = credentials.as_ref().and_then(|c| c.password_hash.clone());
    let known = hash.as_ref().map(ExposeSecret::expose_secret);
    let right = match app.passwords.verify(new.password, known).await {
        Ok(right) => right,
        Err(error) => {
            attempt.forgive(app).await?;
            return Err(error);
        }
    };
    let (Some(credentials), Some(hash), true) = (credentials, hash, right) else {
        return Err(failed());
    };
    let signed_in = enter(app, call, &credentials.user, &hash, new.tenant).await?;
    attempt.forgive(app).await?;
    Ok(signed_in)
}

/// Whether a password is the one that was hashed, counted like a sign-in when it is not. For those who
/// prove who they are elsewhere than at the door.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` after too many failures.
pub async fn prove(
    app: &App,
    call: &Call,
    email: &Email,
    password: SecretString,
    hash: Option<&SecretString>,
) -> Result<bool> {
    let attempt = throttle::count(app, Some(email), &call.source).await?;
    let right = app.passwords.verify(password, hash.map(ExposeSecret::expose_secret)).await;
    if !matches!(right, Ok(false)) {
        attempt.forgive(app).await?;
    }
    right
}

async fn enter(
    app: &App,
    call: &Call,
    user: &accounts::User,
    hash: &SecretString,
    tenant: String,
) -> Result<SignedIn> {
    let tenant = if tenant.is_empty() && !user.disabled {
        let mut choices = sql::choices(&app.pool, user.id).await?;
        match (choices.pop(), choices.is_empty()) {
            (Some(only), true) => only.tenant,
            (Some(last), false) => {
                choices.push(last);
                return Ok(SignedIn::Choose(choices));
            }
            (None, _) => return Err(failed()),
        }
    } else {
        tenant
    };
    let mut tx = app.pool.begin().await?;
    let entry = sql::entry(&mut tx, &tenant, user.id).await?;
    let entry = entry.filter(sql::Entry::is_open).ok_or_else(failed)?;
    // The password may have been changed while it was being compared.
    if !accounts::confirm(&mut tx, user.id, hash).await? {
        return Err(failed());
    }
    let new = NewSession {
        user: user.id,
        source: call.source.clone(),
        user_agent: call.user_agent.clone(),
        by_service: false,
    };
    let now = app.clock.now();
    let opened = insert(app, &mut tx, &entry, new, random::id(now)?, now, None).await?;
    tx.commit().await?;
    Ok(SignedIn::Opened(opened))
}

const fn failed() -> Error {
    Error::Unauthenticated {
        reason: "SIGN_IN_FAILED",
        message: "address, password or tenant is wrong, or has no access; check them and try again",
    }
}

/// Opens a session of the calling person in another tenant. It ends no later than the calling one, so
/// that nobody stays signed in for ever by going back and forth.
///
/// # Errors
/// `PERMISSION_DENIED` for a caller without a session, and for a tenant without access.
pub async fn switch(app: &App, call: &Call, tenant: &str) -> Result<Opened> {
    let claims = calling_session(call)?;
    if claims.by_service {
        return Err(Error::Denied {
            reason: "SESSION_BY_SERVICE",
            message: "this session was opened by a service and holds in its tenant only; sign in"
                .to_owned(),
        });
    }
    let mut tx = app.pool.begin().await?;
    let entry = sql::entry(&mut tx, tenant, claims.user).await?;
    let live = sql::is_live(&mut tx, claims).await?;
    let entry = entry
        .filter(|entry| live && entry.is_open() && entry.account_epoch == claims.account_epoch);
    let entry = entry.ok_or_else(|| Error::Denied {
        reason: "PERMISSION_MISSING",
        message: format!(
            "you are not an active member of tenant `{tenant}`; ask for an invitation"
        ),
    })?;
    let new = NewSession {
        user: claims.user,
        source: call.source.clone(),
        user_agent: call.user_agent.clone(),
        by_service: false,
    };
    let (now, limit) = (app.clock.now(), Some(claims.expires));
    let opened = insert(app, &mut tx, &entry, new, random::id(now)?, now, limit).await?;
    tx.commit().await?;
    Ok(opened)
}

/// The session that calls, for what only sessions can do.
///
/// # Errors
/// `PERMISSION_DENIED` with the reason `SESSION_REQUIRED`.
pub fn calling_session(call: &Call) -> Result<&SessionClaims> {
    match call.authority().map(|authority| &authority.credential) {
        Some(Credential::Session(claims)) => Ok(claims),
        _ => Err(Error::Denied {
            reason: "SESSION_REQUIRED",
            message: "only a session can do this; sign in and call with its token".to_owned(),
        }),
    }
}

/// Stores a session for somebody whose entry is held, and makes its token.
pub(super) async fn insert(
    app: &App,
    conn: &mut PgConnection,
    entry: &sql::Entry,
    new: NewSession,
    id: SessionId,
    now: Time,
    limit: Option<Time>,
) -> Result<Opened> {
    // As precisely as it is stored, so that lists show the same.
    let now = now.trunc_subsecs(6);
    let latest = now + LIFETIME;
    let claims = SessionClaims {
        session: id,
        user: new.user,
        tenant: entry.tenant,
        expires: limit.map_or(latest, |limit| limit.min(latest)),
        member_epoch: entry.member_epoch,
        account_epoch: entry.account_epoch,
        by_service: new.by_service,
    };
    let session = Session {
        id,
        user: new.user,
        tenant: entry.tenant_key.clone(),
        created_at: now,
        expires_at: claims.expires,
        source: new.source,
        user_agent: new.user_agent,
    };
    sql::insert(conn, &claims, &session).await?;
    Ok(Opened { session, token: app.keys.session_token(&claims) })
}
