//! The table `role_assignments`, and the assignments as lists show them.

use std::collections::HashMap;

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::{
    access::Permit,
    change::{Change, Scope},
    decision::{Assignment, Time, scope_text},
    error::{Error, OnConstraint, Result},
    ids::{AssignmentId, GroupId, Holder, RoleId, SubjectId, TenantId, WorkspaceId},
};

struct Row {
    id: Uuid,
    user_id: Option<Uuid>,
    service_account_id: Option<Uuid>,
    group_id: Option<Uuid>,
    role_id: Uuid,
    workspace_id: Option<Uuid>,
    path: String,
    starts_at: Option<Time>,
    ends_at: Option<Time>,
}

impl From<Row> for Assignment {
    fn from(row: Row) -> Self {
        let holder = match (row.user_id, row.service_account_id) {
            (Some(user), _) => Holder::Subject(SubjectId::User(user.into())),
            (_, Some(service)) => Holder::Subject(SubjectId::Service(service.into())),
            _ => Holder::Group(row.group_id.unwrap_or_default().into()),
        };
        Self {
            id: row.id.into(),
            holder,
            role: row.role_id.into(),
            workspace: row.workspace_id.map(Into::into),
            path: row.path,
            starts: row.starts_at,
            ends: row.ends_at,
        }
    }
}

fn columns(holder: Holder) -> (Option<Uuid>, Option<Uuid>, Option<Uuid>) {
    let subject = holder.subject();
    (
        subject.and_then(SubjectId::user).map(Into::into),
        subject.and_then(SubjectId::service).map(Into::into),
        holder.group().map(Into::into),
    )
}

pub async fn held(change: &mut Change, holder: Holder) -> Result<Vec<Assignment>> {
    let tenant = change.tenant().id;
    let (user, service, group) = columns(holder);
    let rows = sqlx::query_as!(
        Row,
        "select id, user_id, service_account_id, group_id, role_id, workspace_id, path,
                starts_at, ends_at
         from role_assignments
         where tenant_id = $1
           and (user_id = $2 or service_account_id = $3 or group_id = $4)
         order by id",
        tenant as TenantId,
        user,
        service,
        group
    )
    .fetch_all(change.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub async fn in_workspace(change: &mut Change, workspace: WorkspaceId) -> Result<Vec<Assignment>> {
    let tenant = change.tenant().id;
    let rows = sqlx::query_as!(
        Row,
        "select id, user_id, service_account_id, group_id, role_id, workspace_id, path,
                starts_at, ends_at
         from role_assignments where tenant_id = $1 and workspace_id = $2 order by id",
        tenant as TenantId,
        workspace as WorkspaceId
    )
    .fetch_all(change.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// What was given of a role and is over.
pub async fn ended_of_role(change: &mut Change, role: RoleId) -> Result<Vec<Assignment>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let rows = sqlx::query_as!(
        Row,
        "select id, user_id, service_account_id, group_id, role_id, workspace_id, path,
                starts_at, ends_at
         from role_assignments
         where tenant_id = $1 and role_id = $2 and ends_at <= $3
         order by id",
        tenant as TenantId,
        role as RoleId,
        now
    )
    .fetch_all(change.conn())
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub async fn insert(change: &mut Change, new: &Assignment) -> Result<()> {
    let (tenant, now, actor) = (change.tenant().id, change.now(), change.call().actor());
    let (user, service, group) = columns(new.holder);
    sqlx::query!(
        "insert into role_assignments (tenant_id, id, user_id, standing, service_account_id,
                                       group_id, role_id, workspace_id, path, starts_at, ends_at,
                                       created_at, created_by)
         select $1, $2, $3, m.standing, $4, $5, $6, $7, $8, $9, $10, $11, $12
         from (values ($3::uuid)) u (id)
         left join memberships m on m.tenant_id = $1 and m.user_id = u.id",
        tenant as TenantId,
        new.id as AssignmentId,
        user,
        service,
        group,
        new.role as RoleId,
        new.workspace.map(Uuid::from),
        new.path,
        new.starts,
        new.ends,
        now,
        actor
    )
    .execute(change.conn())
    .await
    .on_constraint("role_assignments_standing_check", || Error::not_found("member", new.holder))?;
    Ok(())
}

pub async fn update_dates(change: &mut Change, dated: &Assignment) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update role_assignments set starts_at = $3, ends_at = $4 where tenant_id = $1 and id = $2",
        tenant as TenantId,
        dated.id as AssignmentId,
        dated.starts,
        dated.ends
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn delete(change: &mut Change, id: AssignmentId) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "delete from role_assignments where tenant_id = $1 and id = $2",
        tenant as TenantId,
        id as AssignmentId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// The scope of an assignment that exists, as text again.
pub async fn scope(
    change: &mut Change,
    workspace: Option<WorkspaceId>,
    path: &str,
) -> Result<Scope> {
    let key = match workspace {
        None => None,
        Some(workspace) => Some(change.workspace_key(workspace).await?),
    };
    let (path, text) = (path.to_owned(), scope_text(key.as_deref(), path));
    Ok(Scope { workspace, path, text })
}

pub async fn count_of_role(change: &mut Change, role: RoleId) -> Result<i64> {
    let tenant = change.tenant().id;
    let count = sqlx::query_scalar!(
        r#"select count(*) "count!" from role_assignments where tenant_id = $1 and role_id = $2"#,
        tenant as TenantId,
        role as RoleId
    )
    .fetch_one(change.conn())
    .await?;
    Ok(count)
}

/// An assignment as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// None: joining will make it.
    pub id: Option<AssignmentId>,
    pub role: String,
    pub scope: String,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
    /// The key of the group that carries it; empty: the holder's own.
    pub group: String,
}

/// The assignments of several subjects of a tenant, their own and through groups.
///
/// # Errors
/// When the database does not answer.
pub async fn shown(
    db: impl PgExecutor<'_>,
    permit: &Permit,
    subjects: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Shown>>> {
    let mut shown: HashMap<Uuid, Vec<Shown>> = HashMap::new();
    for (_, subject, one) in read_shown(db, &[permit.tenant().uuid()], subjects).await? {
        shown.entry(subject).or_default().push(one);
    }
    Ok(shown)
}

/// The assignments of one subject as this change has left them, its own and through groups.
///
/// # Errors
/// When the database does not answer.
pub async fn shown_now(change: &mut Change, subject: SubjectId) -> Result<Vec<Shown>> {
    let tenant = change.tenant().id.uuid();
    let rows = read_shown(change.conn(), &[tenant], &[subject.uuid()]).await?;
    Ok(rows.into_iter().map(|(_, _, one)| one).collect())
}

/// The assignments that a subject has in each of these tenants, its own and through groups. It is for
/// the subject itself, who needs no permission to know them.
///
/// # Errors
/// When the database does not answer.
pub async fn shown_by_tenant(
    db: impl PgExecutor<'_>,
    subject: SubjectId,
    tenants: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Shown>>> {
    let mut shown: HashMap<Uuid, Vec<Shown>> = HashMap::new();
    for (tenant, _, one) in read_shown(db, tenants, &[subject.uuid()]).await? {
        shown.entry(tenant).or_default().push(one);
    }
    Ok(shown)
}

async fn read_shown(
    db: impl PgExecutor<'_>,
    tenants: &[Uuid],
    subjects: &[Uuid],
) -> Result<Vec<(Uuid, Uuid, Shown)>> {
    let rows = sqlx::query!(
        r#"select a.tenant_id "tenant_id!", a.subject "subject!", a.id "id!", r.key "role",
                  w.key "workspace?", a.path "path!", a.starts_at, a.ends_at,
                  coalesce(g.key, '') "group!"
           from (select a.user_id subject, a.tenant_id, a.id, a.role_id, a.workspace_id, a.path,
                        a.starts_at, a.ends_at, a.group_id
                 from role_assignments a where a.tenant_id = any($1) and a.user_id = any($2)
                 union all
                 select a.service_account_id, a.tenant_id, a.id, a.role_id, a.workspace_id, a.path,
                        a.starts_at, a.ends_at, a.group_id
                 from role_assignments a
                 where a.tenant_id = any($1) and a.service_account_id = any($2)
                 union all
                 select m.user_id, a.tenant_id, a.id, a.role_id, a.workspace_id, a.path,
                        a.starts_at, a.ends_at, a.group_id
                 from group_members m
                 join role_assignments a on a.tenant_id = m.tenant_id and a.group_id = m.group_id
                 where m.tenant_id = any($1) and m.user_id = any($2)) a
           join roles r on r.tenant_id = a.tenant_id and r.id = a.role_id
           left join workspaces w on w.tenant_id = a.tenant_id and w.id = a.workspace_id
           left join groups g on g.tenant_id = a.tenant_id and g.id = a.group_id
           order by a.id"#,
        tenants,
        subjects
    )
    .fetch_all(db)
    .await?;
    let shown = rows.into_iter().map(|row| {
        let one = Shown {
            id: Some(row.id.into()),
            role: row.role,
            scope: scope_text(row.workspace.as_deref(), &row.path),
            starts: row.starts_at,
            ends: row.ends_at,
            group: row.group,
        };
        (row.tenant_id, row.subject, one)
    });
    Ok(shown.collect())
}

/// The assignments that several groups carry.
///
/// # Errors
/// When the database does not answer.
pub async fn shown_of_groups(
    pool: &PgPool,
    permit: &Permit,
    groups: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Shown>>> {
    carried(pool, permit.tenant(), groups).await
}

/// The assignments of one group as this change has left them.
///
/// # Errors
/// When the database does not answer.
pub async fn shown_of_group_now(change: &mut Change, group: GroupId) -> Result<Vec<Shown>> {
    let (tenant, group) = (change.tenant().id, group.uuid());
    let mut shown = carried(change.conn(), tenant, &[group]).await?;
    Ok(shown.remove(&group).unwrap_or_default())
}

async fn carried(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    groups: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Shown>>> {
    let rows = sqlx::query!(
        r#"select a.group_id "group!", a.id, r.key "role", w.key "workspace?", a.path, a.starts_at,
                  a.ends_at
           from role_assignments a
           join roles r on r.tenant_id = $1 and r.id = a.role_id
           left join workspaces w on w.tenant_id = $1 and w.id = a.workspace_id
           where a.tenant_id = $1 and a.group_id = any($2)
           order by a.id"#,
        tenant as TenantId,
        groups
    )
    .fetch_all(db)
    .await?;
    let mut shown: HashMap<Uuid, Vec<Shown>> = HashMap::new();
    for row in rows {
        shown.entry(row.group).or_default().push(Shown {
            id: Some(row.id.into()),
            role: row.role,
            scope: scope_text(row.workspace.as_deref(), &row.path),
            starts: row.starts_at,
            ends: row.ends_at,
            group: String::new(),
        });
    }
    Ok(shown)
}

/// Where these assignments hold, as far as they exist in the tenant of that key.
pub async fn scopes(
    pool: &PgPool,
    tenant: &str,
    ids: &[AssignmentId],
) -> Result<HashMap<AssignmentId, String>> {
    let ids: Vec<Uuid> = ids.iter().copied().map(Into::into).collect();
    let rows = sqlx::query!(
        r#"select a.id, w.key "workspace?", a.path
           from role_assignments a
           join tenants t on t.id = a.tenant_id and t.key = $1
           left join workspaces w on w.tenant_id = a.tenant_id and w.id = a.workspace_id
           where a.id = any($2)"#,
        tenant,
        &ids
    )
    .fetch_all(pool)
    .await?;
    let scope = |workspace: Option<String>, path: &str| scope_text(workspace.as_deref(), path);
    Ok(rows.into_iter().map(|row| (row.id.into(), scope(row.workspace, &row.path))).collect())
}
