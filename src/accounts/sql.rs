//! The table `users`.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgConnection, PgExecutor, types::Json};

use super::{Credentials, User, unknown};
use crate::{
    change::Change,
    decision::Time,
    error::{Error, OnConstraint, Result},
    ids::UserId,
    text::Email,
};

struct Row {
    id: UserId,
    email: String,
    first_name: String,
    last_name: String,
    language: String,
    password_hash: Option<String>,
    disabled: bool,
    epoch: i32,
    external_id: String,
    metadata: Json<BTreeMap<String, String>>,
    version: i64,
    created_at: Time,
    reset_generation: i32,
    email_generation: i32,
    pending_email: Option<String>,
}

impl From<Row> for Credentials {
    fn from(row: Row) -> Self {
        let user = User {
            id: row.id,
            email: row.email,
            first_name: row.first_name,
            last_name: row.last_name,
            language: row.language,
            disabled: row.disabled,
            epoch: row.epoch,
            external_id: row.external_id,
            metadata: row.metadata.0,
            version: row.version,
            created_at: row.created_at,
        };
        Self {
            user,
            password_hash: row.password_hash.map(Into::into),
            reset_generation: row.reset_generation,
            email_generation: row.email_generation,
            pending_email: row.pending_email,
        }
    }
}

pub async fn insert(
    change: &mut Change,
    new: &User,
    email: &Email,
    password_hash: Option<&SecretString>,
) -> Result<()> {
    sqlx::query!(
        "insert into users (id, email, email_canonical, first_name, last_name, language,
                            password_hash, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        new.id as UserId,
        email.as_str(),
        email.canonical(),
        new.first_name,
        new.last_name,
        new.language,
        password_hash.map(ExposeSecret::expose_secret),
        new.created_at
    )
    .execute(change.conn())
    .await
    .on_constraint("users_email_key", || Error::AlreadyExists {
        kind: "user",
        name: email.as_str().to_owned(),
        remedy: "prove the account with its password",
    })?;
    Ok(())
}

pub async fn find_by_email(db: impl PgExecutor<'_>, email: &Email) -> Result<Option<Credentials>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id "id: UserId", email, first_name, last_name, language, password_hash, disabled,
                  epoch, external_id, metadata "metadata: Json<BTreeMap<String, String>>", version,
                  created_at, reset_generation, email_generation, pending_email
           from users where email_canonical = $1"#,
        email.canonical()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Into::into))
}

pub async fn find(db: impl PgExecutor<'_>, user: UserId) -> Result<Option<Credentials>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id "id: UserId", email, first_name, last_name, language, password_hash, disabled,
                  epoch, external_id, metadata "metadata: Json<BTreeMap<String, String>>", version,
                  created_at, reset_generation, email_generation, pending_email
           from users where id = $1"#,
        user as UserId
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Into::into))
}

pub async fn find_by_external_id(
    db: impl PgExecutor<'_>,
    external_id: &str,
) -> Result<Option<Credentials>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id "id: UserId", email, first_name, last_name, language, password_hash, disabled,
                  epoch, external_id, metadata "metadata: Json<BTreeMap<String, String>>", version,
                  created_at, reset_generation, email_generation, pending_email
           from users where external_id <> '' and external_id = $1"#,
        external_id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(Into::into))
}

pub async fn confirm(
    conn: &mut PgConnection,
    user: UserId,
    password_hash: &SecretString,
) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "select id from users where id = $1 and password_hash = $2 and not disabled for share",
        user as UserId,
        password_hash.expose_secret()
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

pub async fn lock(change: &mut Change, user: UserId) -> Result<Credentials> {
    let row = sqlx::query_as!(
        Row,
        r#"select id "id: UserId", email, first_name, last_name, language, password_hash, disabled,
                  epoch, external_id, metadata "metadata: Json<BTreeMap<String, String>>", version,
                  created_at, reset_generation, email_generation, pending_email
           from users where id = $1 for update"#,
        user as UserId
    )
    .fetch_optional(change.conn())
    .await?;
    row.map(Into::into).ok_or_else(|| unknown(user))
}

pub async fn update(change: &mut Change, after: &User) -> Result<()> {
    let now = change.now();
    sqlx::query!(
        "update users set first_name = $2, last_name = $3, language = $4, disabled = $5, epoch = $6,
                          external_id = $7, metadata = $8, version = $9, updated_at = $10
         where id = $1",
        after.id as UserId,
        after.first_name,
        after.last_name,
        after.language,
        after.disabled,
        after.epoch,
        after.external_id,
        Json(&after.metadata) as _,
        after.version,
        now
    )
    .execute(change.conn())
    .await
    .on_constraint("users_external_id", || Error::AlreadyExists {
        kind: "external_id",
        name: after.external_id.clone(),
        remedy: "find whose it is with FindUser, and take it from them first",
    })?;
    Ok(())
}

pub async fn set_password(change: &mut Change, user: UserId, hash: &SecretString) -> Result<()> {
    let now = change.now();
    sqlx::query!(
        "update users set password_hash = $2, updated_at = $3 where id = $1",
        user as UserId,
        hash.expose_secret(),
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn delete(change: &mut Change, user: UserId) -> Result<()> {
    sqlx::query!("delete from users where id = $1", user as UserId).execute(change.conn()).await?;
    Ok(())
}

pub async fn set_reset_generation(
    change: &mut Change,
    user: UserId,
    generation: i32,
) -> Result<()> {
    sqlx::query!(
        "update users set reset_generation = $2 where id = $1",
        user as UserId,
        generation
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn set_pending_email(
    change: &mut Change,
    user: UserId,
    generation: i32,
    email: Option<&Email>,
) -> Result<()> {
    sqlx::query!(
        "update users set email_generation = $2, pending_email = $3 where id = $1",
        user as UserId,
        generation,
        email.map(Email::as_str)
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn set_email(
    change: &mut Change,
    user: UserId,
    email: &Email,
    version: i64,
) -> Result<()> {
    let now = change.now();
    sqlx::query!(
        "update users set email = $2, email_canonical = $3, version = $4, updated_at = $5
         where id = $1",
        user as UserId,
        email.as_str(),
        email.canonical(),
        version,
        now
    )
    .execute(change.conn())
    .await
    .on_constraint("users_email_key", || {
        let message = "another account has this address, and accounts are not merged; sign in with \
                       that one, or choose another address";
        Error::precondition("EMAIL_TAKEN", "new_email", message)
    })?;
    Ok(())
}
