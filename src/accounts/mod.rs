//! Accounts: what a person is everywhere. Owns the address, the name, the password and whether the
//! account is open; what a tenant knows about a person is their membership. What people and operators
//! do with accounts is in `users`; this must not know sessions or tenants, which build on it.

mod sql;

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgConnection, PgExecutor};

use crate::{
    change::{Change, Event},
    decision::{Account, Record, Time},
    error::{Error, Result},
    ids::UserId,
    text::Email,
};

#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    /// As it was typed when it was proved.
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    /// `en` or `fr`.
    pub language: String,
    pub disabled: bool,
    /// Sessions made under an earlier epoch are over.
    pub epoch: i32,
    /// The installation's own name for the person; empty without one.
    pub external_id: String,
    /// The installation's own notes.
    pub metadata: BTreeMap<String, String>,
    pub version: i64,
    pub created_at: Time,
}

impl User {
    fn record(&self) -> Record {
        let Self { id, disabled, epoch, .. } = *self;
        Record::Account(Account { user: id, disabled, epoch })
    }
}

/// An account with what it signs in by; without a hash nobody can sign in with a password.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: User,
    pub password_hash: Option<SecretString>,
    /// Links of an earlier generation are dead.
    pub reset_generation: i32,
    pub email_generation: i32,
    /// Asked for, and not proved yet.
    pub pending_email: Option<String>,
}

#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: Email,
    pub first_name: String,
    pub last_name: String,
    pub language: String,
    pub password_hash: Option<SecretString>,
}

/// Creates an account whose address was proved.
///
/// # Errors
/// `ALREADY_EXISTS` when somebody has the address.
pub async fn create(change: &mut Change, new: NewUser) -> Result<User> {
    let user = User {
        id: change.id()?,
        email: new.email.as_str().to_owned(),
        first_name: new.first_name,
        last_name: new.last_name,
        language: new.language,
        disabled: false,
        epoch: 0,
        external_id: String::new(),
        metadata: BTreeMap::new(),
        version: 1,
        created_at: change.now(),
    };
    sql::insert(change, &user, &new.email, new.password_hash.as_ref()).await?;
    // No record: an account that was never touched is what decisions take for granted.
    let event = Event::new("user.created", user.id)
        .personal(user.id, "email", &"", &user.email.as_str())
        .personal(user.id, "first_name", &"", &user.first_name.as_str())
        .personal(user.id, "last_name", &"", &user.last_name.as_str())
        .personal(user.id, "language", &"", &user.language.as_str());
    change.record(event)?;
    Ok(user)
}

/// The account under an address, with what signs it in. Takes a pool or the connection of a change.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_email(db: impl PgExecutor<'_>, email: &Email) -> Result<Option<Credentials>> {
    sql::find_by_email(db, email).await
}

/// An account with what signs it in. Takes a pool or the connection of a change.
///
/// # Errors
/// When the database does not answer.
pub async fn find(db: impl PgExecutor<'_>, user: UserId) -> Result<Option<Credentials>> {
    sql::find(db, user).await
}

/// The account that has the installation's own name.
///
/// # Errors
/// When the database does not answer.
pub async fn find_by_external_id(
    db: impl PgExecutor<'_>,
    external_id: &str,
) -> Result<Option<Credentials>> {
    sql::find_by_external_id(db, external_id).await
}

/// Whether the account is open and this is still its password, until the transaction ends: a change of
/// the password waits for it, and then sees the session that was opened.
///
/// # Errors
/// When the database does not answer.
pub async fn confirm(
    conn: &mut PgConnection,
    user: UserId,
    password_hash: &SecretString,
) -> Result<bool> {
    sql::confirm(conn, user, password_hash).await
}

/// The account, locked.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn lock(change: &mut Change, user: UserId) -> Result<Credentials> {
    sql::lock(change, user).await
}

/// Writes what `after` has that `before` had not, under this verb. Nothing happens where they are equal.
///
/// # Errors
/// `ALREADY_EXISTS` when another account has the `external_id`.
pub async fn replace(
    change: &mut Change,
    verb: &'static str,
    before: User,
    mut after: User,
) -> Result<User> {
    let id = after.id;
    let mut event = Event::new(verb, id)
        .personal(id, "first_name", &before.first_name, &after.first_name)
        .personal(id, "last_name", &before.last_name, &after.last_name)
        .personal(id, "language", &before.language, &after.language)
        .personal(id, "external_id", &before.external_id, &after.external_id)
        .personal(id, "metadata", &before.metadata, &after.metadata);
    if before.record() != after.record() {
        event = event.before(before.record()).after(after.record());
    }
    if !event.changes_anything() {
        return Ok(before);
    }
    after.version += 1;
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// Replaces the hash of a password that stays the same, unless it was changed meanwhile.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn rehash(
    change: &mut Change,
    user: UserId,
    before: &SecretString,
    after: &SecretString,
) -> Result<()> {
    let current = lock(change, user).await?.password_hash;
    if current.is_none_or(|hash| hash.expose_secret() != before.expose_secret()) {
        return Ok(());
    }
    sql::set_password(change, user, after).await?;
    change.record(Event::new("user.password_rehashed", user))
}

/// Gives a locked account another password.
///
/// # Errors
/// When the database does not answer.
pub async fn set_password(change: &mut Change, user: UserId, hash: &SecretString) -> Result<()> {
    sql::set_password(change, user, hash).await?;
    change.record(Event::new("user.password_changed", user))
}

/// Kills the links for a new password that have another generation.
///
/// # Errors
/// When the database does not answer.
pub async fn set_reset_generation(
    change: &mut Change,
    user: UserId,
    generation: i32,
) -> Result<()> {
    sql::set_reset_generation(change, user, generation).await
}

/// Notes the address that a link of this generation will prove, and kills the others.
///
/// # Errors
/// When the database does not answer.
pub async fn set_pending_email(
    change: &mut Change,
    user: UserId,
    generation: i32,
    email: Option<&Email>,
) -> Result<()> {
    sql::set_pending_email(change, user, generation, email).await
}

/// Gives a locked account another address, which was proved.
///
/// # Errors
/// `FAILED_PRECONDITION` with the reason `EMAIL_TAKEN`.
pub async fn set_email(change: &mut Change, before: User, email: &Email) -> Result<User> {
    let version = before.version + 1;
    sql::set_email(change, before.id, email, version).await?;
    let after = User { email: email.as_str().to_owned(), version, ..before.clone() };
    let event = Event::new("user.email_changed", after.id);
    change.record(event.personal(after.id, "email", &before.email, &after.email))?;
    Ok(after)
}

/// Deletes an account that no tenant knows.
///
/// # Errors
/// When some tenant still does.
pub async fn erase(change: &mut Change, user: UserId) -> Result<()> {
    sql::delete(change, user).await?;
    change.record(Event::new("user.erased", user))
}

fn unknown(user: UserId) -> Error {
    Error::not_found("user", user)
}
