//! Whether a tenant is open: suspended, deleted for a while, restored, and erased for good.

use chrono::TimeDelta;
use sqlx::PgPool;

use super::{Tenant, rewrite, sql};
use crate::{
    change::{Change, Event},
    decision::{TenantStatus, Time},
    edit::check_etag,
    error::{Error, Result},
    ids::{Key, TenantId},
    memberships,
};

/// Opens a tenant whose first administrator has just joined. One that is not pending stays as it is.
///
/// # Errors
/// When the database does not answer.
pub async fn activate(change: &mut Change) -> Result<()> {
    let before = sql::find_in(change).await?;
    if before.status == TenantStatus::Pending {
        let opened_at = Some(change.now());
        let after = Tenant { status: TenantStatus::Active, opened_at, ..before.clone() };
        rewrite(change, "tenant.activated", before, after).await?;
    }
    Ok(())
}

/// Closes a tenant to everybody but the operators. One that is closed stays as it is.
///
/// # Errors
/// `FAILED_PRECONDITION` for the installation itself, and for a deleted one.
pub async fn suspend(change: &mut Change) -> Result<Tenant> {
    let before = sql::find_in(change).await?;
    require_customer(&before)?;
    change.require_kept()?;
    if before.status == TenantStatus::Suspended {
        return Ok(before);
    }
    let after = Tenant { status: TenantStatus::Suspended, ..before.clone() };
    rewrite(change, "tenant.suspended", before, after).await
}

/// Opens a suspended tenant as it was: one that never had an administrator goes on waiting for its first.
///
/// # Errors
/// `FAILED_PRECONDITION` when nobody could administer it, and for a deleted one.
pub async fn reactivate(change: &mut Change) -> Result<Tenant> {
    let before = sql::find_in(change).await?;
    change.require_kept()?;
    if before.status != TenantStatus::Suspended {
        return Ok(before);
    }
    let status = match before.opened_at {
        Some(_) => TenantStatus::Active,
        None => TenantStatus::Pending,
    };
    let after = Tenant { status, ..before.clone() };
    rewrite(change, "tenant.reactivated", before, after).await
}

fn require_customer(tenant: &Tenant) -> Result<()> {
    if tenant.id != TenantId::SYSTEM {
        return Ok(());
    }
    let message = "tenant `system` is the installation and stays open; suspend its members instead";
    Err(Error::precondition("TENANT_RESERVED", &tenant.key, message))
}

/// Closes a tenant that will be erased when its time comes. One that is deleted stays as it is.
///
/// # Errors
/// `ABORTED` for a stale etag; `FAILED_PRECONDITION` for the installation itself, and for a purged one.
pub async fn delete(change: &mut Change, etag: &str) -> Result<Tenant> {
    let before = sql::find_in(change).await?;
    require_customer(&before)?;
    change.require_unpurged()?;
    if before.status == TenantStatus::Deleted {
        return Ok(before);
    }
    check_etag(etag, before.version)?;
    let after = Tenant {
        status: TenantStatus::Deleted,
        status_before: Some(before.status),
        purge_at: Some(change.now() + TimeDelta::seconds(before.retention_seconds)),
        ..before.clone()
    };
    rewrite(change, "tenant.deleted", before, after).await
}

/// Makes a deleted tenant what it was before. One that is not deleted stays as it is.
///
/// # Errors
/// `FAILED_PRECONDITION` for a purged one, and when nobody could administer it.
pub async fn restore(change: &mut Change) -> Result<Tenant> {
    let before = sql::find_in(change).await?;
    change.require_unpurged()?;
    let Some(status) = before.status_before else { return Ok(before) };
    let after = Tenant { status, status_before: None, purge_at: None, ..before.clone() };
    rewrite(change, "tenant.restored", before, after).await
}

/// Makes it final that a deleted tenant is erased; that it is, is [`crate::erasure`]'s. Also returns of how
/// many people data will go.
///
/// # Errors
/// `FAILED_PRECONDITION` for the installation itself, for one that is not deleted, and before its time.
pub async fn condemn(change: &mut Change) -> Result<(Tenant, i64)> {
    let before = sql::find_in(change).await?;
    require_customer(&before)?;
    let known = memberships::count_unpurged(change).await?;
    let refuse = |message| Err(Error::precondition("NOT_PURGEABLE", &before.key, message));
    match (before.status, before.purge_at) {
        (TenantStatus::Purged, _) => return Ok((before, known)),
        (TenantStatus::Deleted, Some(from)) if from > change.now() => {
            let from = from.format("%Y-%m-%dT%H:%M:%SZ");
            return refuse(format!("the tenant is kept until {from}; purge it then"));
        }
        (TenantStatus::Deleted, _) => {}
        _ => return refuse("the tenant is not deleted; delete it first".to_owned()),
    }
    let status = TenantStatus::Purged;
    let after = Tenant { status, status_before: None, purge_at: None, ..before.clone() };
    Ok((rewrite(change, "tenant.purged", before, after).await?, known))
}

/// Forgets what a purged tenant says of itself. The last thing that happens in it.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change) -> Result<()> {
    sql::erase(change).await?;
    let key = change.tenant().key.clone();
    change.record(Event::new("tenant.erased", key))
}

/// Tenants whose time is over where they want to be erased then, and tenants that are being erased.
///
/// # Errors
/// When the database does not answer.
pub async fn due(pool: &PgPool, now: Time) -> Result<(Vec<Key>, Vec<Key>)> {
    Ok((sql::due(pool, now).await?, sql::erasing(pool).await?))
}
