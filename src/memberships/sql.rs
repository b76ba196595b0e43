//! The table `memberships`.

use std::collections::BTreeMap;

use sqlx::{PgPool, types::Json};

use super::{Membership, NewMember, Profile, unknown};
use crate::{
    access::Permit,
    change::Change,
    decision::{Member, MemberKind, MemberStatus, Time},
    error::{Error, OnConstraint, Result},
    ids::{Key, TenantId, UserId},
    text::Email,
};

#[derive(sqlx::FromRow)]
pub struct Row {
    user_id: UserId,
    email: String,
    kind: MemberKind,
    status: MemberStatus,
    epoch: i32,
    first_name: String,
    last_name: String,
    department: String,
    job_title: String,
    phone: String,
    location: String,
    external_id: String,
    metadata: Json<BTreeMap<String, String>>,
    last_sign_in_at: Option<Time>,
    last_active_at: Option<Time>,
    purge_at: Option<Time>,
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl From<Row> for Membership {
    fn from(row: Row) -> Self {
        Self {
            user: row.user_id,
            email: row.email,
            kind: row.kind,
            status: row.status,
            epoch: row.epoch,
            profile: Profile {
                first_name: row.first_name,
                last_name: row.last_name,
                department: row.department,
                job_title: row.job_title,
                phone: row.phone,
                location: row.location,
            },
            external_id: row.external_id,
            metadata: row.metadata.0,
            last_sign_in_at: row.last_sign_in_at,
            last_active_at: row.last_active_at,
            purge_at: row.purge_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

macro_rules! select {
    ($rest:literal, $($arg:tt)*) => {
        sqlx::query_as!(
            Row,
            r#"select m.user_id "user_id: UserId", u.email, m.kind "kind: MemberKind",
                      m.status "status: MemberStatus", m.epoch, m.first_name, m.last_name,
                      m.department, m.job_title, m.phone, m.location, m.external_id,
                      m.metadata "metadata: Json<BTreeMap<String, String>>",
                      nullif(a.last_sign_in_at, '-infinity') "last_sign_in_at?", a.last_active_at "last_active_at?",
                      m.purge_at, m.version, m.created_at, m.updated_at
               from memberships m join users u on u.id = m.user_id
               left join activity a on a.tenant_id = m.tenant_id and a.user_id = m.user_id
               where m.tenant_id = $1 and m.user_id = $2"# + $rest,
            $($arg)*
        )
    };
}

/// The membership, also of somebody who was removed.
pub async fn lock(change: &mut Change, user: UserId) -> Result<Option<Membership>> {
    let tenant = change.tenant().id;
    let row = select!(" for update of m", tenant as TenantId, user as UserId)
        .fetch_optional(change.conn())
        .await?;
    Ok(row.map(Into::into))
}

pub async fn upsert(
    change: &mut Change,
    member: &Member,
    new: &NewMember,
    version: i64,
) -> Result<()> {
    let (tenant, now, profile) = (change.tenant().id, change.now(), &new.profile);
    sqlx::query!(
        "insert into memberships (tenant_id, user_id, kind, status, epoch, first_name, last_name,
                                  department, job_title, phone, location, version, created_at,
                                  updated_at, email_canonical)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13,
                 coalesce((select email_canonical from users where id = $2), ''))
         on conflict (tenant_id, user_id) do update set
             kind = excluded.kind, status = excluded.status, epoch = excluded.epoch,
             first_name = excluded.first_name, last_name = excluded.last_name,
             department = excluded.department, job_title = excluded.job_title,
             phone = excluded.phone, location = excluded.location, external_id = '',
             metadata = '{}', purge_at = null, purged_at = null, version = excluded.version, created_at = excluded.created_at,
             updated_at = excluded.updated_at, email_canonical = excluded.email_canonical",
        tenant as TenantId,
        new.user as UserId,
        member.kind as MemberKind,
        member.status as MemberStatus,
        member.epoch,
        profile.first_name,
        profile.last_name,
        profile.department,
        profile.job_title,
        profile.phone,
        profile.location,
        version,
        now
    )
    .execute(change.conn())
    .await
    .on_constraint("memberships_user_fkey", || Error::not_found("user", new.user))?;
    Ok(())
}

pub async fn update(change: &mut Change, after: &Membership) -> Result<()> {
    let (tenant, profile) = (change.tenant().id, &after.profile);
    sqlx::query!(
        "update memberships set kind = $3, status = $4, epoch = $5, first_name = $6, last_name = $7,
                                department = $8, job_title = $9, phone = $10, location = $11,
                                external_id = $12, metadata = $13, version = $14, updated_at = $15,
                                purge_at = $16
         where tenant_id = $1 and user_id = $2",
        tenant as TenantId,
        after.user as UserId,
        after.kind as MemberKind,
        after.status as MemberStatus,
        after.epoch,
        profile.first_name,
        profile.last_name,
        profile.department,
        profile.job_title,
        profile.phone,
        profile.location,
        after.external_id,
        Json(&after.metadata) as _,
        after.version,
        after.updated_at,
        after.purge_at
    )
    .execute(change.conn())
    .await
    .on_constraint("memberships_external_id", || Error::AlreadyExists {
        kind: "external_id",
        name: after.external_id.clone(),
        remedy: "another member of the tenant has it; choose another",
    })?;
    Ok(())
}

pub async fn get(pool: &PgPool, permit: &Permit, user: UserId) -> Result<Membership> {
    let tenant = permit.tenant();
    let row = select!(" and m.status <> 'removed'", tenant as TenantId, user as UserId)
        .fetch_optional(pool)
        .await?;
    row.map(Into::into).ok_or_else(|| unknown(user))
}

/// The membership, also of somebody who was removed, as long as there is something to erase.
pub async fn lock_unpurged(change: &mut Change, user: UserId) -> Result<Option<Membership>> {
    let tenant = change.tenant().id;
    let row =
        select!(" and m.purged_at is null for update of m", tenant as TenantId, user as UserId)
            .fetch_optional(change.conn())
            .await?;
    Ok(row.map(Into::into))
}

/// Leaves the ids and the epoch alone.
pub async fn erase(change: &mut Change, user: UserId) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    sqlx::query!(
        "update memberships
         set status = 'removed', first_name = '', last_name = '', department = '', job_title = '',
             phone = '', location = '', external_id = '', metadata = '{}', email_canonical = '',
             purge_at = null,
             purged_at = $3, version = version + 1, updated_at = $3
         where tenant_id = $1 and user_id = $2",
        tenant as TenantId,
        user as UserId,
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Whether some tenant still knows the person.
pub async fn is_known(change: &mut Change, user: UserId) -> Result<bool> {
    let known = sqlx::query_scalar!(
        r#"select exists (select from memberships where user_id = $1 and purged_at is null) "known!""#,
        user as UserId
    )
    .fetch_one(change.conn())
    .await?;
    Ok(known)
}

/// What is left of somebody whom no tenant knows.
pub async fn delete_purged(change: &mut Change, user: UserId) -> Result<()> {
    sqlx::query!(
        "delete from memberships where user_id = $1 and purged_at is not null",
        user as UserId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn due(pool: &PgPool, now: Time) -> Result<Vec<(Key, UserId)>> {
    let rows = sqlx::query!(
        r#"select t.key, m.user_id "user: UserId"
           from memberships m join tenants t on t.id = m.tenant_id
           where m.purge_at <= $1 and t.purge_automatically
           order by m.purge_at limit 100"#,
        now
    )
    .fetch_all(pool)
    .await?;
    let read = |key: String| key.try_into().map_err(Error::internal);
    rows.into_iter().map(|row| Ok((read(row.key)?, row.user))).collect()
}

pub async fn count_unpurged(change: &mut Change) -> Result<i64> {
    let tenant = change.tenant().id;
    let count = sqlx::query_scalar!(
        r#"select count(*) "count!" from memberships where tenant_id = $1 and purged_at is null"#,
        tenant as TenantId
    )
    .fetch_one(change.conn())
    .await?;
    Ok(count)
}

pub async fn some_unpurged(pool: &PgPool, tenant: &Key) -> Result<Vec<UserId>> {
    let users = sqlx::query_scalar!(
        r#"select m.user_id "user: UserId" from memberships m
           join tenants t on t.id = m.tenant_id and t.key = $1
           where m.purged_at is null limit 100"#,
        tenant.as_str()
    )
    .fetch_all(pool)
    .await?;
    Ok(users)
}

/// The tenants of which somebody is a member, the installation aside.
pub async fn homes(change: &mut Change, user: UserId) -> Result<Vec<TenantId>> {
    let homes = sqlx::query_scalar!(
        r#"select tenant_id "id: TenantId" from memberships
           where user_id = $1 and standing > 0 and tenant_id <> $2 order by tenant_id"#,
        user as UserId,
        TenantId::SYSTEM as TenantId
    )
    .fetch_all(change.conn())
    .await?;
    Ok(homes)
}

pub async fn tenants_of(pool: &PgPool, user: UserId) -> Result<Vec<Key>> {
    let keys = sqlx::query_scalar!(
        "select t.key from memberships m join tenants t on t.id = m.tenant_id
         where m.user_id = $1 and m.purged_at is null order by t.key",
        user as UserId
    )
    .fetch_all(pool)
    .await?;
    keys.into_iter().map(|key| key.try_into().map_err(Error::internal)).collect()
}

/// The address by which lists sort and search, in every tenant that the person is in. Others go on with
/// the one that they knew.
pub async fn set_email(change: &mut Change, user: UserId, email: &Email) -> Result<()> {
    sqlx::query!(
        "update memberships set email_canonical = $2 where user_id = $1 and standing > 0",
        user as UserId,
        email.canonical()
    )
    .execute(change.conn())
    .await?;
    Ok(())
}
