//! How access and memberships end and come back, and how long the data of those who left is kept.

use chrono::TimeDelta;
use sqlx::PgPool;

use super::{Membership, lock, removal, require_outranked, sql, unknown};
use crate::{
    assignments,
    change::{Change, Event},
    decision::{MemberKind, MemberStatus, Time},
    edit::check_etag,
    error::{Error, Result},
    groups,
    ids::{GroupId, Holder, Key, SubjectId, UserId},
};

/// What becomes of the data of somebody who is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// It stays until somebody decides otherwise.
    Keep,
    /// It may be erased from this time on; none: when the tenant's retention is over.
    PurgeableFrom(Option<Time>),
}

/// Takes the access away and ends the sessions; profile and roles stay. Who is suspended already only
/// gets the other retention. None given is to keep the data, or what it was.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `MEMBER_OUTRANKS_CALLER`, and for a time
/// before the tenant's retention is over by who may not purge; `INVALID_ARGUMENT` for a time that is
/// past.
pub async fn suspend(
    change: &mut Change,
    user: UserId,
    retention: Option<Retention>,
    etag: &str,
) -> Result<Membership> {
    let before = lock(change, user).await?;
    check_etag(etag, before.version)?;
    require_outranked(change, user).await?;
    let status = MemberStatus::Suspended;
    let suspended = before.status == status;
    let purge_at = match retention {
        None if suspended => before.purge_at,
        None | Some(Retention::Keep) => None,
        Some(Retention::PurgeableFrom(None)) if suspended && before.purge_at.is_some() => {
            before.purge_at
        }
        Some(Retention::PurgeableFrom(None)) => Some(end_of_retention(change)),
        Some(Retention::PurgeableFrom(Some(from))) => {
            let later = suspended && before.purge_at.is_some_and(|at| from >= at);
            check_purge_time(change, from, later)?;
            Some(from)
        }
    };
    if suspended {
        if before.purge_at == purge_at {
            return Ok(before);
        }
        let after = Membership { purge_at, ..before.clone() };
        return replace(change, "member.retention_changed", &before, after).await;
    }
    let after = Membership { status, purge_at, epoch: before.epoch + 1, ..before.clone() };
    replace(change, "member.suspended", &before, after).await
}

/// Who lets erase sooner than now, before the tenant's retention is over, could purge.
fn check_purge_time(change: &Change, from: Time, later: bool) -> Result<()> {
    if from <= change.now() {
        let wanted = "it is past; leave it out for the tenant's retention";
        return Err(Error::invalid("purge_time", wanted));
    }
    if !later && from < end_of_retention(change) {
        change.require("iam.members.purge", "")?;
    }
    Ok(())
}

fn end_of_retention(change: &Change) -> Time {
    change.now() + TimeDelta::seconds(change.tenant().retention_seconds)
}

/// Gives a suspended member the access back; the sessions stay ended.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `ROLE_NOT_GRANTABLE`.
pub async fn reactivate(change: &mut Change, user: UserId, etag: &str) -> Result<Membership> {
    let before = lock(change, user).await?;
    check_etag(etag, before.version)?;
    if before.status == MemberStatus::Active {
        return Ok(before);
    }
    let subject = SubjectId::User(user);
    assignments::require_gifts(change, Holder::Subject(subject)).await?;
    change.load(&[subject]).await?;
    let groups: Vec<GroupId> = change.facts()?.groups_of(subject).collect();
    for group in groups {
        assignments::require_gifts(change, Holder::Group(group)).await?;
    }
    let after = Membership { status: MemberStatus::Active, purge_at: None, ..before.clone() };
    replace(change, "member.reactivated", &before, after).await
}

/// Makes an inside person with access of somebody who was a guest, or suspended.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn instate(change: &mut Change, user: UserId) -> Result<()> {
    let before = lock(change, user).await?;
    let (kind, status) = (MemberKind::Internal, MemberStatus::Active);
    if (before.kind, before.status) != (kind, status) {
        let after = Membership { kind, status, purge_at: None, ..before.clone() };
        replace(change, "member.instated", &before, after).await?;
    }
    Ok(())
}

async fn replace(
    change: &mut Change,
    verb: &'static str,
    before: &Membership,
    mut after: Membership,
) -> Result<Membership> {
    after.version += 1;
    after.updated_at = change.now();
    sql::update(change, &after).await?;
    let event = Event::new(verb, after.user).before(before.record()).after(after.record()).change(
        "purge_time",
        &before.purge_at,
        &after.purge_at,
    );
    change.record(event)?;
    Ok(after)
}

/// Ends somebody's membership with its roles, groups and sessions.
///
/// # Errors
/// `NOT_FOUND`; `ABORTED` for a stale etag; `PERMISSION_DENIED` `MEMBER_OUTRANKS_CALLER`.
pub async fn remove(change: &mut Change, user: UserId, etag: &str) -> Result<Membership> {
    let before = lock(change, user).await?;
    change.require(removal(before.kind), "")?;
    check_etag(etag, before.version)?;
    require_outranked(change, user).await?;
    end(change, "member.removed", before).await
}

/// Ends one's own membership.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn leave(change: &mut Change, user: UserId) -> Result<Membership> {
    let before = lock(change, user).await?;
    end(change, "member.left", before).await
}

async fn end(change: &mut Change, verb: &'static str, before: Membership) -> Result<Membership> {
    let user = before.user;
    assignments::remove_all(change, Holder::Subject(SubjectId::User(user))).await?;
    groups::leave_all(change, user).await?;
    let purge_at = Some(end_of_retention(change));
    let event = Event::new(verb, user).before(before.record()).change(
        "purge_time",
        &before.purge_at,
        &purge_at,
    );
    let after = Membership {
        status: MemberStatus::Removed,
        purge_at,
        epoch: before.epoch + 1,
        // So that somebody else may have it; it is not part of what comes back.
        external_id: String::new(),
        version: before.version + 1,
        updated_at: change.now(),
        ..before
    };
    sql::update(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// Refuses to erase what must be kept still.
///
/// # Errors
/// `NOT_FOUND` for who never was here or was purged; `FAILED_PRECONDITION` with the reason
/// `NOT_PURGEABLE`.
pub async fn require_purgeable(change: &mut Change, user: UserId) -> Result<()> {
    let found = sql::lock_unpurged(change, user).await?.ok_or_else(|| unknown(user))?;
    let refuse = |message: String| Err(Error::precondition("NOT_PURGEABLE", user, message));
    match (found.status, found.purge_at) {
        (MemberStatus::Active, _) => {
            refuse(format!("{user} is an active member; suspend them as PURGEABLE, or remove them"))
        }
        (_, None) => refuse(format!(
            "{user} is suspended and the data kept; suspend them as PURGEABLE, or remove them"
        )),
        (_, Some(from)) if from > change.now() => {
            let from = from.format("%Y-%m-%dT%H:%M:%SZ");
            refuse(format!("the data of {user} is kept until {from}; purge it then"))
        }
        (_, Some(_)) => Ok(()),
    }
}

/// Ends the membership of somebody who is about to be erased, if it has not ended.
///
/// # Errors
/// `NOT_FOUND` for who never was here or was purged.
pub async fn dismiss(change: &mut Change, user: UserId) -> Result<()> {
    let before = sql::lock_unpurged(change, user).await?.ok_or_else(|| unknown(user))?;
    if before.status != MemberStatus::Removed {
        end(change, "member.removed", before).await?;
    }
    Ok(())
}

/// Blanks what the tenant knows about somebody who left it; whether no other tenant knows them, and
/// nothing of them is left at all.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change, user: UserId) -> Result<bool> {
    sql::erase(change, user).await?;
    if sql::is_known(change, user).await? {
        return Ok(false);
    }
    sql::delete_purged(change, user).await?;
    Ok(true)
}

/// Whose time is over in tenants that want them purged then.
///
/// # Errors
/// When the database does not answer.
pub async fn due(pool: &PgPool, now: Time) -> Result<Vec<(Key, UserId)>> {
    sql::due(pool, now).await
}

/// How many people the tenant of this change knows something about.
///
/// # Errors
/// When the database does not answer.
pub async fn count_unpurged(change: &mut Change) -> Result<i64> {
    sql::count_unpurged(change).await
}

/// Some of them.
///
/// # Errors
/// When the database does not answer.
pub async fn some_unpurged(pool: &PgPool, tenant: &Key) -> Result<Vec<UserId>> {
    sql::some_unpurged(pool, tenant).await
}

/// Ends every session that the member has in this tenant.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn end_sessions(change: &mut Change, user: UserId) -> Result<()> {
    let before = lock(change, user).await?;
    let mut after = before.clone();
    after.epoch += 1;
    sql::update(change, &after).await?;
    let event = Event::new("member.sessions_ended", user);
    change.record(event.before(before.record()).after(after.record()))
}
