//! The tables `groups` and `group_members`.

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{Group, Joined, unknown};
use crate::{
    access::Permit,
    change::Change,
    decision::Time,
    error::{Error, OnConstraint, Result},
    ids::{GroupId, TenantId, UserId},
};

struct Row {
    id: Uuid,
    key: String,
    display_name: String,
    member_count: i64,
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl TryFrom<Row> for Group {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.into(),
            key: row.key.try_into().map_err(Error::internal)?,
            display_name: row.display_name,
            member_count: row.member_count,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Groups by key: the one with this key, or those after a key.
async fn read(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    key: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<Group>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, key, display_name, version, created_at, updated_at,
                  (select count(*) from group_members m
                   where m.tenant_id = $1 and m.group_id = g.id) "member_count!"
           from groups g
           where tenant_id = $1 and ($2::text is null or key = $2) and key > $3
           order by key limit $4"#,
        tenant as TenantId,
        key,
        after,
        limit
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

async fn one(db: impl PgExecutor<'_>, tenant: TenantId, key: &str) -> Result<Group> {
    read(db, tenant, Some(key), "", 1).await?.pop().ok_or_else(|| unknown(key))
}

/// A group as this change has made it. The tenant's lock keeps it.
pub async fn find_in(change: &mut Change, key: &str) -> Result<Group> {
    let tenant = change.tenant().id;
    one(change.conn(), tenant, key).await
}

pub async fn get(pool: &PgPool, permit: &Permit, key: &str) -> Result<Group> {
    one(pool, permit.tenant(), key).await
}

pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Group>> {
    read(pool, permit.tenant(), None, after.unwrap_or_default(), limit).await
}

pub async fn insert(change: &mut Change, new: &Group) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into groups (tenant_id, id, key, display_name, version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        tenant as TenantId,
        new.id as GroupId,
        new.key.as_str(),
        new.display_name,
        new.version,
        new.created_at,
        new.updated_at
    )
    .execute(change.conn())
    .await
    .on_constraint("groups_key_key", || Error::AlreadyExists {
        kind: "group",
        name: new.key.to_string(),
        remedy: "choose another key, or use the group that has it",
    })?;
    Ok(())
}

pub async fn update(change: &mut Change, after: &Group) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update groups set display_name = $3, version = $4, updated_at = $5
         where tenant_id = $1 and id = $2",
        tenant as TenantId,
        after.id as GroupId,
        after.display_name,
        after.version,
        after.updated_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn delete(change: &mut Change, id: GroupId) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "delete from groups where tenant_id = $1 and id = $2",
        tenant as TenantId,
        id as GroupId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

fn uuids(users: &[UserId]) -> Vec<Uuid> {
    users.iter().map(|user| user.uuid()).collect()
}

fn users(uuids: Vec<Uuid>) -> Vec<UserId> {
    uuids.into_iter().map(Into::into).collect()
}

/// Those of these people who belong to the tenant, suspended or not.
pub async fn members_among(change: &mut Change, among: &[UserId]) -> Result<Vec<UserId>> {
    let tenant = change.tenant().id;
    let found = sqlx::query_scalar!(
        "select user_id from memberships
         where tenant_id = $1 and user_id = any($2) and status <> 'removed' order by user_id",
        tenant as TenantId,
        &uuids(among)
    )
    .fetch_all(change.conn())
    .await?;
    Ok(users(found))
}

/// Returns those who were not in it before.
pub async fn add_members(
    change: &mut Change,
    group: GroupId,
    members: &[UserId],
) -> Result<Vec<UserId>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let added = sqlx::query_scalar!(
        "insert into group_members (tenant_id, group_id, user_id, standing, created_at)
         select $1, $2, u.id, m.standing, $4 from unnest($3::uuid[]) u (id)
         left join memberships m on m.tenant_id = $1 and m.user_id = u.id
         on conflict do nothing returning user_id",
        tenant as TenantId,
        group as GroupId,
        &uuids(members),
        now
    )
    .fetch_all(change.conn())
    .await?;
    Ok(users(added))
}

/// Takes these people out, or everybody; returns those who were in it.
pub async fn remove_members(
    change: &mut Change,
    group: GroupId,
    only: Option<&[UserId]>,
) -> Result<Vec<UserId>> {
    let tenant = change.tenant().id;
    let only = only.map(uuids);
    let removed = sqlx::query_scalar!(
        "delete from group_members
         where tenant_id = $1 and group_id = $2 and ($3::uuid[] is null or user_id = any($3))
         returning user_id",
        tenant as TenantId,
        group as GroupId,
        only.as_deref()
    )
    .fetch_all(change.conn())
    .await?;
    Ok(users(removed))
}

/// Takes somebody out of every group; returns which.
pub async fn leave_all(change: &mut Change, user: UserId) -> Result<Vec<(GroupId, String)>> {
    let tenant = change.tenant().id;
    let left = sqlx::query!(
        "delete from group_members l using groups g
         where l.tenant_id = $1 and l.user_id = $2 and g.tenant_id = $1 and g.id = l.group_id
         returning g.id, g.key",
        tenant as TenantId,
        user as UserId
    )
    .fetch_all(change.conn())
    .await?;
    Ok(left.into_iter().map(|row| (row.id.into(), row.key)).collect())
}

pub async fn list_members(
    pool: &PgPool,
    permit: &Permit,
    group: GroupId,
    after: Option<UserId>,
    limit: i64,
) -> Result<Vec<Joined>> {
    let rows = sqlx::query_as!(
        Joined,
        r#"select g.user_id "user: UserId", u.email, m.first_name, m.last_name
           from group_members g
           join memberships m on m.tenant_id = $1 and m.user_id = g.user_id
           join users u on u.id = g.user_id
           where g.tenant_id = $1 and g.group_id = $2 and ($3::uuid is null or g.user_id > $3)
           order by g.user_id limit $4"#,
        permit.tenant() as TenantId,
        group as GroupId,
        after.map(UserId::uuid),
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// Leaves the keys, as the audit log has them.
pub async fn erase(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update groups set display_name = key, description = '' where tenant_id = $1",
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}
