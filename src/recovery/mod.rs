//! Recovery: a forgotten password and another address, each proved by a link in a mail. The link is
//! derived from the installation's key and works once.

mod page;
mod sql;

pub use page::{confirm, look_at_email, look_at_reset, set_password};

use std::time::Duration;

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use crate::{
    access::Claim,
    accounts::{self, Credentials, User},
    app::App,
    attempts::{self, Limit},
    caller::Call,
    change::{self, Change, Event, Options},
    error::{Error, Result},
    ids::{Key, UserId},
    memberships,
    outbox::{self, NewMail, Template},
    passwords::Passwords,
    random,
    secret::Proof,
    sessions,
    text::Email,
};

const ADDRESS: Limit = Limit { what: "reset-address", burst: 3, every: TimeDelta::minutes(5) };
const SOURCE: Limit = Limit { what: "reset-source", burst: 50, every: TimeDelta::seconds(10) };
const NEW_ADDRESS: Limit = Limit { what: "email-change", burst: 5, every: TimeDelta::minutes(10) };
/// How long the worker rests when nobody asked.
const REST: Duration = Duration::from_millis(500);
/// A claim older than this was left by a worker that died.
const LEASE: TimeDelta = TimeDelta::seconds(60);

/// A genuine link; whether it is still good is judged when it is used.
#[derive(Debug, Clone)]
pub struct Link {
    user: UserId,
    generation: i32,
}

/// Notes that somebody wants a link for a new password. Known and unknown addresses are the same here.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no address; `RESOURCE_EXHAUSTED` for too many.
pub async fn request(app: &App, call: &Call, email: &str) -> Result<()> {
    let email = Email::parse("email", email)?;
    if !call.source.is_empty() {
        attempts::count(app, SOURCE, &call.source).await?;
    }
    attempts::count(app, ADDRESS, email.canonical()).await?;
    let now = app.clock.now();
    sql::insert(&app.pool, random::id::<uuid::Uuid>(now)?, email.as_str(), now).await
}

/// Answers those who asked, until it is told to stop.
pub async fn run(app: App, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        match answer_all(&app).await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => tracing::warn!(%error, "requests for new passwords wait"),
        }
        let stopped = tokio::time::timeout(REST, stop.wait_for(|stop| *stop)).await;
        if let Ok(Err(_)) = stopped {
            return;
        }
    }
}

async fn answer_all(app: &App) -> Result<usize> {
    let now = app.clock.now();
    let claimed = sql::claim(&app.pool, now, now - LEASE).await?;
    for (id, email) in &claimed {
        let email = Email::parse("email", email).map_err(Error::internal)?;
        let account = accounts::find_by_email(&app.pool, &email).await?;
        if let Some(account) = account.filter(|account| !account.user.disabled) {
            let call = Call::installation();
            let claim = Claim::installation(&call, Key::SYSTEM)?;
            let user = account.user.id;
            change::run(app, &call, claim, Options::default(), user, |change, user| {
                Box::pin(send_link(change, user))
            })
            .await?;
        }
        sql::delete(&app.pool, *id).await?;
    }
    Ok(claimed.len())
}

/// Kills the older links and mails a new one.
async fn send_link(change: &mut Change, user: UserId) -> Result<()> {
    let account = accounts::lock(change, user).await?;
    let generation = account.reset_generation + 1;
    accounts::set_reset_generation(change, user, generation).await?;
    let to = Email::parse("email", &account.user.email).map_err(Error::internal)?;
    queue(change, &account.user, to, Template::PasswordReset, generation, Proof::PASSWORD_RESET)
        .await?;
    change.record(Event::new("user.password_reset_requested", user))
}

async fn queue(
    change: &mut Change,
    user: &User,
    to: Email,
    template: Template,
    generation: i32,
    proof: Proof,
) -> Result<()> {
    let minutes = proof.lifetime().num_minutes().to_string();
    let mail = NewMail {
        template,
        language: user.language.clone(),
        to,
        name: format!("{} {}", user.first_name, user.last_name).trim().to_owned(),
        invitation: None,
        account: Some((user.id, generation)),
        content: [("minutes".to_owned(), minutes), ("email".to_owned(), user.email.clone())].into(),
    };
    outbox::queue(change, &mail).await.map(drop)
}

/// Reads the token of a link.
///
/// # Errors
/// `NOT_FOUND` for one that was not made here, or whose time is over.
pub fn open(app: &App, proof: Proof, token: &str) -> Result<Link> {
    let (user, generation, expires) = app.keys.open_proof(proof, token).ok_or_else(dead)?;
    if expires <= app.clock.now() {
        return Err(dead());
    }
    Ok(Link { user, generation })
}

/// Hashes a new password, if the link is still good. Whoever has a good one is not held up any more by
/// what others guessed.
///
/// # Errors
/// `NOT_FOUND` for a dead link; `INVALID_ARGUMENT` naming `new_password`.
pub async fn prepare(
    app: &App,
    call: &Call,
    link: &Link,
    password: SecretString,
) -> Result<SecretString> {
    let account = accounts::find(&app.pool, link.user).await?.ok_or_else(dead)?;
    check(&account, account.reset_generation, link)?;
    let email = &account.user.email;
    Passwords::check("new_password", &password, email)?;
    let hash = app.passwords.hash(password).await?.into();
    let email = Email::parse("email", email).map_err(Error::internal)?;
    sessions::forget_failures(app, &email, &call.source).await?;
    Ok(hash)
}

/// Sets the password, kills the link, and ends every session of the account.
///
/// # Errors
/// `NOT_FOUND` for a dead link.
pub async fn reset(change: &mut Change, link: &Link, hash: &SecretString) -> Result<()> {
    let account = accounts::lock(change, link.user).await?;
    check(&account, account.reset_generation, link)?;
    change.identify(link.user);
    accounts::set_password(change, link.user, hash).await?;
    accounts::set_reset_generation(change, link.user, account.reset_generation + 1).await?;
    let before = account.user;
    let after = User { epoch: before.epoch + 1, ..before.clone() };
    accounts::replace(change, "user.password_reset", before, after).await?;
    Ok(())
}

fn check(account: &Credentials, generation: i32, link: &Link) -> Result<()> {
    let good = generation == link.generation && !account.user.disabled;
    if good { Ok(()) } else { Err(dead()) }
}

/// What somebody wants to be reached under from now on.
#[derive(Debug, Clone)]
pub struct NewEmail {
    pub user: UserId,
    pub email: Email,
    /// The hash that the password fits; none: it fits none.
    pub proved: Option<SecretString>,
}

/// Counts a wish for another address, which sends mail to people who did not ask for it.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` for too many.
pub async fn count(app: &App, user: UserId) -> Result<()> {
    attempts::count(app, NEW_ADDRESS, &user.to_string()).await
}

/// Mails a link to the new address; until it is opened, nothing changes. Whether somebody has the
/// address is told to nobody who has not proved it.
///
/// # Errors
/// `UNAUTHENTICATED` with the reason `PASSWORD_WRONG`; `INVALID_ARGUMENT` for the address one has;
/// `FAILED_PRECONDITION` with the reason `EMAIL_DOMAIN_NOT_ALLOWED`.
pub async fn request_email(change: &mut Change, new: NewEmail) -> Result<()> {
    let account = accounts::lock(change, new.user).await?;
    let text = |hash: &Option<SecretString>| hash.as_ref().map(|h| h.expose_secret().to_owned());
    if new.proved.is_none() || text(&new.proved) != text(&account.password_hash) {
        return Err(Error::Unauthenticated {
            reason: "PASSWORD_WRONG",
            message: "the password is wrong; correct it",
        });
    }
    let current = Email::parse("email", &account.user.email).map_err(Error::internal)?;
    if current.canonical() == new.email.canonical() {
        return Err(Error::invalid("new_email", "it is the address of the account already"));
    }
    require_domain(change, new.user, &new.email).await?;
    let generation = account.email_generation + 1;
    accounts::set_pending_email(change, new.user, generation, Some(&new.email)).await?;
    let (template, proof) = (Template::EmailChange, Proof::EMAIL_CHANGE);
    queue(change, &account.user, new.email.clone(), template, generation, proof).await?;
    change.record(Event::new("user.email_change_requested", new.user).personal(
        new.user,
        "new_email",
        &"",
        &new.email.as_str(),
    ))
}

/// The new address counts from now on. The old one is told.
///
/// # Errors
/// `NOT_FOUND` for a dead link; `FAILED_PRECONDITION` with the reason `EMAIL_TAKEN` where another
/// account has it, or `EMAIL_DOMAIN_NOT_ALLOWED`.
pub async fn confirm_email(change: &mut Change, link: &Link) -> Result<User> {
    let account = accounts::lock(change, link.user).await?;
    check(&account, account.email_generation, link)?;
    let Some(pending) = account.pending_email.clone() else { return Err(dead()) };
    let email = Email::parse("email", &pending).map_err(Error::internal)?;
    change.identify(link.user);
    require_domain(change, link.user, &email).await?;
    let old = Email::parse("email", &account.user.email).map_err(Error::internal)?;
    let generation = account.email_generation + 1;
    accounts::set_pending_email(change, link.user, generation, None).await?;
    let after = accounts::set_email(change, account.user, &email).await?;
    memberships::set_email(change, link.user, &old, &email).await?;
    let (template, proof) = (Template::EmailChanged, Proof::EMAIL_CHANGE);
    queue(change, &after, old, template, generation, proof).await?;
    Ok(after)
}

/// An inside person stays under the domains that their tenants allow.
async fn require_domain(change: &mut Change, user: UserId, email: &Email) -> Result<()> {
    let Some(tenant) = sql::tenant_refusing(change, user, email.domain()).await? else {
        return Ok(());
    };
    let message = format!(
        "internal members of tenant `{tenant}` have addresses of other domains than `{}`; choose \
         another address, or ask an administrator there",
        email.domain()
    );
    Err(Error::precondition("EMAIL_DOMAIN_NOT_ALLOWED", tenant, message))
}

fn dead() -> Error {
    Error::no_link()
}
