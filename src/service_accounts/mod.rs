//! Service accounts: programs that belong to a tenant, and the keys they call with. They are members
//! without a seat; what they may do is given by role assignments, as to people.

mod rpc;
mod sql;

use secrecy::{ExposeSecret, SecretString};

pub use rpc::create_operator;

use crate::{
    assignments, catalogue,
    change::{Change, Event},
    decision::{self, Member, MemberKind, MemberStatus, PermissionSet, Record, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{ApiKeyId, Holder, Key, ServiceAccountId, SubjectId},
    roles::templates,
    secret,
};

/// The most keys of a service account that work at once.
const MAX_KEYS: usize = 20;

#[derive(Debug, Clone)]
pub struct ServiceAccount {
    pub id: ServiceAccountId,
    pub key: Key,
    pub display_name: String,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

impl ServiceAccount {
    fn subject(&self) -> SubjectId {
        SubjectId::Service(self.id)
    }

    fn record(&self) -> Record {
        let (kind, status) = (MemberKind::Service, MemberStatus::Active);
        Record::Member(Member { subject: self.subject(), kind, status, epoch: 0 })
    }
}

/// Creates a service account without roles.
///
/// # Errors
/// `ALREADY_EXISTS` when the key is in use.
pub async fn create(change: &mut Change, key: Key, display_name: String) -> Result<ServiceAccount> {
    let account = ServiceAccount {
        id: change.id()?,
        key,
        display_name,
        version: 1,
        created_at: change.now(),
        updated_at: change.now(),
    };
    sql::insert(change, &account).await?;
    let event = Event::new("service_account.created", account.id)
        .after(account.record())
        .change("key", &"", &account.key.as_str())
        .change("display_name", &"", &account.display_name.as_str());
    change.record(event)?;
    Ok(account)
}

/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag.
pub async fn update(
    change: &mut Change,
    id: ServiceAccountId,
    display_name: Option<String>,
    etag: &str,
) -> Result<ServiceAccount> {
    let before = sql::lock(change, id).await?;
    check_etag(etag, before.version)?;
    let mut after = before.clone();
    after.display_name = display_name.unwrap_or(after.display_name);
    let event = Event::new("service_account.updated", id).change(
        "display_name",
        &before.display_name,
        &after.display_name,
    );
    if !event.changes_anything() {
        return Ok(before);
    }
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// The version that a change of roles is based on, with the account locked.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn lock_version(change: &mut Change, id: ServiceAccountId) -> Result<i64> {
    Ok(sql::lock(change, id).await?.version)
}

/// Notes that the roles of a locked account changed.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn set_version(change: &mut Change, id: ServiceAccountId, version: i64) -> Result<()> {
    let account = sql::lock(change, id).await?;
    let updated_at = change.now();
    sql::update(change, &ServiceAccount { version, updated_at, ..account }).await
}

/// Deletes a service account with its keys and roles. Its key may be given again.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `MEMBER_OUTRANKS_CALLER`.
pub async fn delete(change: &mut Change, id: ServiceAccountId, etag: &str) -> Result<()> {
    let account = sql::lock(change, id).await?;
    check_etag(etag, account.version)?;
    assignments::require_outranked(change, account.subject()).await?;
    for key in sql::live_keys(change, id).await? {
        revoke(change, key).await?;
    }
    assignments::remove_all(change, Holder::Subject(account.subject())).await?;
    sql::delete(change, id).await?;
    let event = Event::new("service_account.deleted", id).before(account.record()).change(
        "display_name",
        &account.display_name.as_str(),
        &"",
    );
    change.record(event)
}

/// Deletes every service account of a tenant that is being erased, and forgets what they were called.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change) -> Result<()> {
    for id in sql::live(change).await? {
        delete(change, id, "").await?;
    }
    sql::erase(change).await
}

#[derive(Debug, Clone)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub service_account: ServiceAccountId,
    pub display_name: String,
    pub hash: [u8; 32],
    /// Patterns it is narrowed to; empty: everything its service account may do.
    pub narrowed: Vec<String>,
    pub expires_at: Option<Time>,
    pub revoked_at: Option<Time>,
    pub created_at: Time,
    /// Who created it: `usr_…`, `svc_…` or `installation`.
    pub created_by: String,
}

impl ApiKey {
    fn record(&self, change: &Change) -> Record {
        Record::ApiKey(decision::ApiKey {
            id: self.id,
            tenant: change.tenant().id,
            service_account: self.service_account,
            hash: self.hash,
            narrowed: self.narrowed.clone(),
            expires: self.expires_at,
            revoked: self.revoked_at.is_some(),
        })
    }
}

#[derive(Debug, Clone)]
pub struct NewApiKey {
    pub service_account: ServiceAccountId,
    pub display_name: String,
    pub narrowed: Vec<String>,
    pub expires_at: Option<Time>,
}

/// Creates a key and returns it with its secret, which is not kept.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` for an end that is past, and for a permission that is not in the
/// catalogue; `FAILED_PRECONDITION` `TOO_MANY_KEYS`;
/// `PERMISSION_DENIED` `MEMBER_OUTRANKS_CALLER` for a key that may do more than the caller.
pub async fn create_key(change: &mut Change, new: NewApiKey) -> Result<(ApiKey, SecretString)> {
    let account = sql::lock(change, new.service_account).await?;
    if new.expires_at.is_some_and(|at| at <= change.now()) {
        return Err(Error::invalid("expire_time", "it must be in the future"));
    }
    // What roles have kept of a catalogue that went on is known too.
    let had: Vec<String> = change.facts()?.words().map(str::to_owned).collect();
    catalogue::require_known(change, &new.narrowed, &had, templates::modules()).await?;
    require_not_above(change, account.subject(), &new.narrowed).await?;
    if sql::live_keys(change, account.id).await?.len() >= MAX_KEYS {
        let message =
            format!("{} has {MAX_KEYS} keys that work; revoke one that is not used", account.id);
        return Err(Error::precondition("TOO_MANY_KEYS", account.id, message));
    }
    let secret = secret::new_api_key()?;
    let key = ApiKey {
        id: change.id()?,
        service_account: account.id,
        display_name: new.display_name,
        hash: secret::hash_api_key(secret.expose_secret()),
        narrowed: new.narrowed,
        expires_at: new.expires_at,
        revoked_at: None,
        created_at: change.now(),
        created_by: change.call().actor(),
    };
    sql::insert_key(change, &key).await?;
    let event = Event::new("api_key.created", key.id).after(key.record(change)).change(
        "display_name",
        &"",
        &key.display_name.as_str(),
    );
    change.record(event)?;
    Ok((key, secret))
}

/// Nobody makes a key that may do more than they may: they hold all that the account has, or all that the
/// key is narrowed to.
async fn require_not_above(
    change: &mut Change,
    subject: SubjectId,
    narrowed: &[String],
) -> Result<()> {
    let narrow = !narrowed.is_empty() && change.require_all(&PermissionSet::of(narrowed)).is_ok();
    if narrow { Ok(()) } else { assignments::require_no_more(change, subject).await }
}

/// Ends a key. One that is revoked stays as it is.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn revoke_key(change: &mut Change, id: ApiKeyId) -> Result<ApiKey> {
    let key = sql::lock_key(change, id).await?;
    if key.revoked_at.is_some() { Ok(key) } else { revoke(change, key).await }
}

async fn revoke(change: &mut Change, before: ApiKey) -> Result<ApiKey> {
    let after = ApiKey { revoked_at: Some(change.now()), ..before.clone() };
    sql::revoke(change, after.id).await?;
    let event = Event::new("api_key.revoked", after.id)
        .before(before.record(change))
        .after(after.record(change));
    change.record(event)?;
    Ok(after)
}

fn unknown(id: ServiceAccountId) -> Error {
    Error::not_found("service account", id)
}

fn unknown_key(id: ApiKeyId) -> Error {
    Error::not_found("api key", id)
}
