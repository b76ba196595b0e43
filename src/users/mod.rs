//! Users: what people do with their own account, and operators with anybody's. The accounts themselves
//! are in `accounts`, which sign-in and invitations build on too.

mod rpc;
mod sql;

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use crate::{
    accounts::{self, User},
    assignments::Shown,
    change::{Change, Event},
    decision::{MemberKind, MemberStatus, TenantStatus},
    edit::check_etag,
    error::{Error, Result},
    ids::{Key, SessionId, TenantId, UserId},
    memberships, sessions,
};

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct UserEdit {
    pub user: UserId,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub language: Option<String>,
    pub external_id: Option<String>,
    pub metadata: Option<BTreeMap<String, String>>,
    pub etag: String,
}

impl UserEdit {
    /// Whether it changes only what is the person's own to change.
    fn is_of_person(&self) -> bool {
        self.external_id.is_none() && self.metadata.is_none()
    }
}

/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `ALREADY_EXISTS` for an `external_id` that another has.
pub async fn update(change: &mut Change, edit: UserEdit) -> Result<User> {
    let before = accounts::lock(change, edit.user).await?.user;
    check_etag(&edit.etag, before.version)?;
    let after = User {
        first_name: edit.first_name.unwrap_or_else(|| before.first_name.clone()),
        last_name: edit.last_name.unwrap_or_else(|| before.last_name.clone()),
        language: edit.language.unwrap_or_else(|| before.language.clone()),
        external_id: edit.external_id.unwrap_or_else(|| before.external_id.clone()),
        metadata: edit.metadata.unwrap_or_else(|| before.metadata.clone()),
        ..before.clone()
    };
    accounts::replace(change, "user.updated", before, after).await
}

/// Closes an account and ends its sessions; also returns the tenants that are left without an
/// administrator, which does not hold it up.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn disable(change: &mut Change, user: UserId) -> Result<(User, Vec<Key>)> {
    let before = accounts::lock(change, user).await?.user;
    if before.disabled {
        return Ok((before, Vec::new()));
    }
    let mut administered = Vec::new();
    for (tenant, key) in sql::internal_tenants(change, user).await? {
        if change.some_administer(tenant, &[user]).await? {
            administered.push((tenant, key));
        }
    }
    let after = User { disabled: true, epoch: before.epoch + 1, ..before.clone() };
    let after = accounts::replace(change, "user.disabled", before, after).await?;
    memberships::tell(change, user, &Event::new("member.account_disabled", user)).await?;
    let mut left = Vec::new();
    for (tenant, key) in administered {
        if change.recount_administrators(tenant).await? == 0 {
            tracing::warn!(tenant = %key, "a disabled account leaves the tenant without an administrator");
            left.push(key);
        }
    }
    Ok((after, left))
}

/// Opens a disabled account again; its sessions stay ended.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn enable(change: &mut Change, user: UserId) -> Result<User> {
    let before = accounts::lock(change, user).await?.user;
    if !before.disabled {
        return Ok(before);
    }
    let after = User { disabled: false, ..before.clone() };
    let after = accounts::replace(change, "user.enabled", before, after).await?;
    memberships::tell(change, user, &Event::new("member.account_enabled", user)).await?;
    for (tenant, _) in sql::internal_tenants(change, user).await? {
        change.recount_administrators(tenant).await?;
    }
    Ok(after)
}

/// A new password for an account, with what the old one was found to be equal to.
#[derive(Debug, Clone)]
pub struct NewPassword {
    pub user: UserId,
    /// The hash that the current password fits; none: it fits none.
    pub proved: Option<SecretString>,
    pub hash: SecretString,
    /// The session that goes on.
    pub keep: SessionId,
}

/// Replaces the password and ends every other session of the account.
///
/// # Errors
/// `UNAUTHENTICATED` with the reason `PASSWORD_WRONG`, also when it was changed meanwhile.
pub async fn change_password(change: &mut Change, new: NewPassword) -> Result<()> {
    let current = accounts::lock(change, new.user).await?.password_hash;
    let text = |hash: &Option<SecretString>| hash.as_ref().map(|h| h.expose_secret().to_owned());
    if new.proved.is_none() || text(&new.proved) != text(&current) {
        return Err(password_wrong());
    }
    accounts::set_password(change, new.user, &new.hash).await?;
    sessions::end_others(change, new.user, new.keep).await?;
    Ok(())
}

const fn password_wrong() -> Error {
    Error::Unauthenticated {
        reason: "PASSWORD_WRONG",
        message: "the current password is wrong; correct it",
    }
}

/// A tenant, seen by one of its people or by its own service account.
#[derive(Debug, Clone)]
pub struct MyTenant {
    pub id: TenantId,
    pub key: Key,
    pub display_name: String,
    pub kind: MemberKind,
    pub status: MemberStatus,
    pub roles: Vec<Shown>,
    pub tenant_status: TenantStatus,
}
