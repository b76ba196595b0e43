//! Opening sessions: with a password, or from another session. Neither is a revision, so the rows that
//! say who has access are held until the session is stored: whatever takes access away then sees it.

use chrono::{SubsecRound, TimeDelta};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;

use super::{NewSession, Session, sql, throttle};
use crate::{
    access::Claim,
    accounts,
    app::App,
    caller::Call,
    change::{self, Options},
    decision::{Credential, MemberStatus, SessionClaims, TenantStatus, Time},
    error::{Error, Result},
    ids::{Key, SessionId, TenantId, UserId},
    random,
    refusals::{Kind, Refusal},
    text::{self, Email},
};

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
    let attempt = throttle::count(app, email.as_ref(), &call.source, &new.tenant).await;
    let attempt = attempt.inspect_err(|error| {
        let tenant = app.replica.facts().directory.tenants.get(new.tenant.as_str()).map(|t| t.id);
        note(app, call, tenant.unwrap_or(TenantId::SYSTEM), None, error.reason());
    })?;
    let outcome = try_to(app, call, email.as_ref(), new).await;
    // What was not tried, because the database or the passwords were busy, does not count either.
    if !matches!(outcome, Err(Error::Unauthenticated { .. })) {
        attempt.forgive(app).await?;
    }
    outcome
}

async fn try_to(app: &App, call: &Call, email: Option<&Email>, new: SignIn) -> Result<SignedIn> {
    let credentials = match email {
        Some(email) => accounts::find_by_email(&app.pool, email).await?,
        None => None,
    };
    let hash = credentials.as_ref().and_then(|c| c.password_hash.clone());
    let known = hash.as_ref().map(ExposeSecret::expose_secret);
    let right = app.passwords.verify(new.password.clone(), known).await?;
    let user = credentials.as_ref().map_or(UserId::from_uuid(uuid::Uuid::nil()), |c| c.user.id);
    let open = right && credentials.is_some_and(|c| !c.user.disabled);
    let hash = hash.unwrap_or_default();
    let signed_in = enter(app, call, user, open.then_some(&hash), new.tenant).await?;
    if !app.passwords.is_current(hash.expose_secret()) {
        renew(app, user, new.password, hash);
    }
    Ok(signed_in)
}

/// Hashes a password anew that was hashed with other parameters; nobody waits for it.
fn renew(app: &App, user: UserId, password: SecretString, before: SecretString) {
    let app = app.clone();
    tokio::spawn(async move {
        let renewed = async {
            let after: SecretString = app.passwords.hash(password).await?.into();
            let call = Call::installation();
            let claim = Claim::installation(&call, Key::SYSTEM)?;
            let input = (user, before, after);
            let options = Options::default();
            change::run(&app, &call, claim, options, input, |change, (user, before, after)| {
                Box::pin(async move { accounts::rehash(change, user, &before, &after).await })
            })
            .await
        };
        if let Err(error) = renewed.await {
            tracing::warn!(%error, "a password was not hashed anew");
        }
    });
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
    let attempt = throttle::count(app, Some(email), &call.source, "").await?;
    let right = app.passwords.verify(password, hash.map(ExposeSecret::expose_secret)).await;
    if !matches!(right, Ok(false)) {
        attempt.forgive(app).await?;
    }
    right
}

/// Opens the session if the password was right, whose hash then is given. Whatever is wrong, it asks the
/// database the same questions, so that its refusals take equally long.
async fn enter(
    app: &App,
    call: &Call,
    user: UserId,
    hash: Option<&SecretString>,
    tenant: String,
) -> Result<SignedIn> {
    let mut tenant = tenant;
    if tenant.is_empty() {
        let mut choices = sql::choices(&app.pool, user).await?;
        match choices.len() {
            1 => tenant = choices.remove(0).tenant,
            2.. if hash.is_some() => return Ok(SignedIn::Choose(choices)),
            _ => {}
        }
    }
    let mut tx = app.pool.begin().await?;
    // What can be no key names no tenant.
    let named = tenant.parse::<Key>().is_ok().then_some(tenant.as_str());
    let entry = sql::entry(&mut tx, named.unwrap_or_default(), user).await?;
    // The password may have been changed while it was being compared.
    let nothing = SecretString::default();
    let still = accounts::confirm(&mut tx, user, hash.unwrap_or(&nothing)).await?;
    let right = entry.as_ref().is_some_and(sql::Entry::is_open) && still && hash.is_some();
    let (Some(entry), true) = (&entry, right) else {
        tx.rollback().await?;
        // A tenant reads about its own people only.
        let known = entry.filter(|entry| entry.member_status != MemberStatus::Removed);
        let named = app.replica.facts().directory.tenants.get(tenant.as_str()).map(|t| t.id);
        let whose = known.map(|_| user);
        note(app, call, named.unwrap_or(TenantId::SYSTEM), whose, failed().reason());
        return Err(failed());
    };
    let new = NewSession {
        user,
        source: call.source.clone(),
        user_agent: call.user_agent.clone(),
        by_service: false,
    };
    let now = app.clock.now();
    let opened = insert(app, &mut tx, entry, new, random::id(now)?, now, None).await?;
    tx.commit().await?;
    Ok(SignedIn::Opened(opened))
}

/// Remembers a sign-in that failed, for the security log.
fn note(app: &App, call: &Call, tenant: TenantId, user: Option<UserId>, reason: &'static str) {
    let refusal = Refusal {
        kind: Kind::SignIn,
        reason,
        method: call.path,
        user,
        caller: call.actor(),
        source: call.source.clone(),
    };
    app.refusals.note(tenant, refusal, app.clock.now());
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
    let tenant: Key = text::parse("tenant", tenant)?;
    let mut tx = app.pool.begin().await?;
    let entry = sql::entry(&mut tx, tenant.as_str(), claims.user).await?;
    let live = sql::is_live(&mut tx, claims).await?;
    let entry = entry
        .filter(|entry| live && !entry.disabled && entry.account_epoch == claims.account_epoch)
        .filter(|entry| entry.member_status == MemberStatus::Active);
    let entry = match entry {
        Some(entry) if entry.tenant_status == TenantStatus::Active => entry,
        // To its people it is no secret.
        Some(entry) if entry.tenant_status == TenantStatus::Suspended => {
            let message = format!("tenant `{tenant}` is closed for now; ask an operator");
            return Err(Error::Denied { reason: "TENANT_SUSPENDED", message });
        }
        Some(_) | None => {
            let message =
                format!("you are not an active member of tenant `{tenant}`; ask for an invitation");
            return Err(Error::Denied { reason: "PERMISSION_MISSING", message });
        }
    };
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
    let latest = now + TimeDelta::seconds(entry.lifetime_seconds);
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
        last_used_at: now,
        source: new.source,
        user_agent: new.user_agent,
    };
    sql::insert(conn, &claims, &session).await?;
    Ok(Opened { session, token: app.keys.session_token(&claims) })
}
