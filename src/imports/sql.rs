//! The table `imports`, and what an import looks up about the people in its file.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    Import, ImportStatus, Maker, Plan, Totals,
    columns::{Column, Line},
    export,
};
use crate::{
    access::Permit,
    change::{Change, Scope},
    decision::Time,
    error::{Error, Result},
    ids::{ImportId, RoleId, TenantId, UserId},
};

/// Plans forgotten at once.
const FORGET: i64 = 1_000;

/// What the tenant knows about the people of a file.
pub struct Known {
    /// By canonical address.
    pub members: HashMap<String, UserId>,
    pub invited: HashSet<String>,
    held: HashMap<UserId, Vec<Held>>,
}

struct Held {
    role: RoleId,
    workspace: Option<Uuid>,
    path: String,
    starts: Option<Time>,
    ends: Option<Time>,
}

impl Known {
    /// From when and until when somebody has a role on a scope, unless it is over.
    pub fn held(
        &self,
        user: UserId,
        role: RoleId,
        scope: &Scope,
        now: Time,
    ) -> Option<(Option<Time>, Option<Time>)> {
        let workspace = scope.workspace.map(Uuid::from);
        let held = self.held.get(&user)?.iter().find(|held| {
            held.role == role && held.workspace == workspace && held.path == scope.path
        })?;
        (held.ends.is_none_or(|ends| ends > now)).then_some((held.starts, held.ends))
    }
}

pub async fn known(change: &mut Change, lines: &[Line]) -> Result<Known> {
    let (tenant, now) = (change.tenant().id, change.now());
    let addresses = lines.iter().filter_map(|line| line.email.as_ref());
    let addresses: Vec<String> = addresses.map(|email| email.canonical().to_owned()).collect();
    let members = sqlx::query!(
        r#"select u.email_canonical, u.id "id: UserId" from users u
           join memberships m on m.tenant_id = $1 and m.user_id = u.id
           where u.email_canonical = any($2) and m.status <> 'removed'"#,
        tenant as TenantId,
        &addresses
    )
    .fetch_all(change.conn())
    .await?;
    let invited = sqlx::query_scalar!(
        "select email_canonical from invitations
         where tenant_id = $1 and email_canonical = any($2) and status = 'pending'
           and expires_at > $3",
        tenant as TenantId,
        &addresses,
        now
    )
    .fetch_all(change.conn())
    .await?;
    let users: Vec<Uuid> = members.iter().map(|row| row.id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select user_id "user_id!: UserId", role_id "role_id: RoleId", workspace_id, path, starts_at,
                  ends_at
           from role_assignments where tenant_id = $1 and user_id = any($2)"#,
        tenant as TenantId,
        &users
    )
    .fetch_all(change.conn())
    .await?;
    let mut held: HashMap<UserId, Vec<Held>> = HashMap::new();
    for row in rows {
        held.entry(row.user_id).or_default().push(Held {
            role: row.role_id,
            workspace: row.workspace_id,
            path: row.path,
            starts: row.starts_at,
            ends: row.ends_at,
        });
    }
    let members = members.into_iter().map(|row| (row.email_canonical, row.id)).collect();
    Ok(Known { members, invited: invited.into_iter().collect(), held })
}

struct Row {
    id: ImportId,
    actor: String,
    on_behalf_of: String,
    file_name: String,
    encoding: String,
    separator: String,
    row_count: i32,
    people: i32,
    invited: i32,
    changed: i32,
    unchanged: i32,
    rows_with_errors: i32,
    status: ImportStatus,
    created_at: Time,
    expires_at: Time,
    committed_at: Option<Time>,
    revision: Option<i64>,
}

impl Row {
    fn at(self, now: Time) -> Import {
        Import {
            id: self.id,
            maker: Maker { actor: self.actor, on_behalf_of: self.on_behalf_of },
            file_name: self.file_name,
            encoding: self.encoding,
            separator: self.separator,
            totals: Totals {
                rows: self.row_count,
                people: self.people,
                invited: self.invited,
                changed: self.changed,
                unchanged: self.unchanged,
                rows_with_errors: self.rows_with_errors,
            },
            status: self.status.at(self.expires_at, now),
            created_at: self.created_at,
            expires_at: self.expires_at,
            committed_at: self.committed_at,
            revision: self.revision,
        }
    }
}

pub async fn insert(
    pool: &PgPool,
    tenant: TenantId,
    import: &Import,
    plan: Option<&Plan>,
) -> Result<()> {
    let plan = plan.map(serde_json::to_string).transpose().map_err(Error::internal)?;
    let totals = &import.totals;
    sqlx::query!(
        "insert into imports (tenant_id, id, actor, on_behalf_of, file_name, encoding, separator,
                              row_count, people, invited, changed, unchanged, rows_with_errors, status,
                              plan, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        tenant as TenantId,
        import.id as ImportId,
        import.maker.actor,
        import.maker.on_behalf_of,
        import.file_name,
        import.encoding,
        import.separator,
        totals.rows,
        totals.people,
        totals.invited,
        totals.changed,
        totals.unchanged,
        totals.rows_with_errors,
        import.status as ImportStatus,
        plan,
        import.created_at,
        import.expires_at
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Ends the plans of a maker beyond the newest.
pub async fn end_oldest(pool: &PgPool, tenant: TenantId, maker: &Maker, kept: i64) -> Result<()> {
    sqlx::query!(
        "update imports set status = 'cancelled', plan = null
         where tenant_id = $1 and status = 'planned' and id in (
             select id from imports
             where tenant_id = $1 and actor = $2 and on_behalf_of = $3 and status = 'planned'
             order by id desc offset $4)",
        tenant as TenantId,
        maker.actor,
        maker.on_behalf_of,
        kept
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The import and its plan, until the change ends, if it is this maker's.
pub async fn lock(
    change: &mut Change,
    id: ImportId,
    maker: &Maker,
) -> Result<Option<(Import, Option<Plan>)>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let plan = sqlx::query_scalar!(
        "select plan from imports where tenant_id = $1 and id = $2 for update",
        tenant as TenantId,
        id as ImportId
    )
    .fetch_optional(change.conn())
    .await?;
    let Some(plan) = plan else { return Ok(None) };
    let plan = plan.map(|text| serde_json::from_str(&text)).transpose().map_err(Error::internal)?;
    let filter = Filter { id: Some(id), maker: Some(maker), before: None, now, limit: 1 };
    Ok(rows(change.conn(), tenant, &filter).await?.pop().map(|import| (import, plan)))
}

/// Writes how a locked import ended.
pub async fn end(change: &mut Change, import: &Import) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update imports set status = $3, plan = null, committed_at = $4
         where tenant_id = $1 and id = $2",
        tenant as TenantId,
        import.id as ImportId,
        import.status as ImportStatus,
        import.committed_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Cancels what was not committed.
pub async fn cancel(pool: &PgPool, permit: &Permit, id: ImportId, maker: &Maker) -> Result<()> {
    sqlx::query!(
        "update imports set status = 'cancelled', plan = null
         where tenant_id = $1 and id = $2 and actor = $3 and on_behalf_of = $4
           and status <> 'committed'",
        permit.tenant() as TenantId,
        id as ImportId,
        maker.actor,
        maker.on_behalf_of
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Which imports are read.
pub struct Filter<'a> {
    pub id: Option<ImportId>,
    pub maker: Option<&'a Maker>,
    pub before: Option<Uuid>,
    pub now: Time,
    pub limit: i64,
}

/// The imports of a tenant, newest first.
pub async fn list(pool: &PgPool, permit: &Permit, filter: &Filter<'_>) -> Result<Vec<Import>> {
    rows(pool, permit.tenant(), filter).await
}

async fn rows(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    filter: &Filter<'_>,
) -> Result<Vec<Import>> {
    let (actor, on_behalf_of) =
        filter.maker.map(|maker| (maker.actor.as_str(), maker.on_behalf_of.as_str())).unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"select i.id "id: ImportId", i.actor, i.on_behalf_of, i.file_name, i.encoding, i.separator,
                  i.row_count, i.people, i.invited, i.changed, i.unchanged, i.rows_with_errors,
                  i.status "status: ImportStatus", i.created_at, i.expires_at, i.committed_at,
                  e.revision "revision?"
           from imports i
           left join lateral (select revision from events e
                              where i.committed_at is not null and e.tenant_id = i.tenant_id
                                and e.target = 'imp_' || replace(i.id::text, '-', '')
                                and e.verb = 'import.committed'
                              limit 1) e on true
           where i.tenant_id = $1 and ($2::uuid is null or i.id = $2)
             and ($3::text is null or i.actor = $3) and ($4::text is null or i.on_behalf_of = $4)
             and ($5::uuid is null or i.id < $5)
           order by i.id desc limit $6"#,
        tenant as TenantId,
        filter.id.map(Uuid::from),
        actor,
        on_behalf_of,
        filter.before,
        filter.limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| row.at(filter.now)).collect())
}

/// Forgets the people of plans that nobody committed in time; returns whether there are more.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(pool: &PgPool, now: Time) -> Result<bool> {
    let forgotten = sqlx::query!(
        "update imports set status = 'expired', plan = null
         where (tenant_id, id) in (
             select tenant_id, id from imports
             where status = 'planned' and expires_at <= $1 limit $2 for update skip locked)",
        now,
        FORGET
    )
    .execute(pool)
    .await?;
    Ok(forgotten.rows_affected() == FORGET.unsigned_abs())
}

/// Cancels the plans that name somebody or that they made, and forgets the names of their files; returns
/// how many plans.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change, user: UserId) -> Result<u64> {
    let (tenant, maker) = (change.tenant().id, user.to_string());
    let canonical =
        sqlx::query_scalar!("select email_canonical from users where id = $1", user as UserId)
            .fetch_one(change.conn())
            .await?;
    let cancelled = sqlx::query!(
        "update imports set status = 'cancelled', plan = null
         where tenant_id = $1 and status = 'planned' and ($2 in (actor, on_behalf_of) or exists (
             select from json_array_elements(plan::json -> 'lines') line
             where line -> 'email' ->> 'canonical' = $3))",
        tenant as TenantId,
        maker,
        canonical
    )
    .execute(change.conn())
    .await?;
    sqlx::query!(
        "update imports set file_name = ''
         where tenant_id = $1
           and ($2 in (actor, on_behalf_of) or position($3 in lower(file_name)) > 0)",
        tenant as TenantId,
        maker,
        canonical
    )
    .execute(change.conn())
    .await?;
    Ok(cancelled.rows_affected())
}

/// The columns that a file of the tenant's members needs.
pub async fn columns(conn: &mut PgConnection, permit: &Permit, now: Time) -> Result<Vec<Column>> {
    let row = sqlx::query!(
        r#"select exists (select from role_assignments where tenant_id = $1 and starts_at > $2)
               or exists (select from invitation_roles where tenant_id = $1 and starts_at > $2)
                  "starts_later!",
                  exists (select from memberships
                          where tenant_id = $1 and standing in (3, 4))
               or exists (select from invitations
                          where tenant_id = $1 and kind = 'external' and status = 'pending'
                            and expires_at > $2)
                  "external!""#,
        permit.tenant() as TenantId,
        now
    )
    .fetch_one(conn)
    .await?;
    Ok(export::columns(row.starts_later, row.external))
}

/// Cancels the plans of a tenant that is being erased, and forgets the names of all files.
///
/// # Errors
/// When the database does not answer.
pub async fn erase_all(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update imports set status = case when status = 'planned' then 'cancelled' else status end,
                            plan = null, file_name = ''
         where tenant_id = $1",
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}
