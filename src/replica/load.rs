//! Facts read from the tables: a whole tenant for the replica, or the slice of a few subjects that a
//! change is authorised by. Both through the same rows.

use futures::TryStreamExt;
use smol_str::SmolStr;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    decision::{
        Account, ApiKey, AssignmentRow, Bulk, Directory, Group, Member, MemberKind, MemberStatus,
        Reach, Record, Role, SessionEnd, Tenant, TenantFacts, TenantStatus, Time, Transition,
        Workspace,
    },
    ids::{Holder, Key, SubjectId, TenantId},
};

/// A row that breaks what the code that writes it promises.
fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

fn key(text: String) -> sqlx::Result<Key> {
    Key::try_from(text).map_err(corrupt)
}

/// What is known of every tenant and account.
///
/// # Errors
/// When the database does not answer or holds a row that cannot be.
pub async fn directory(conn: &mut PgConnection, now: Time) -> sqlx::Result<Directory> {
    let mut directory = Directory::default();
    let mut learn = |tenant: TenantId, record: Record| {
        directory.apply(&Transition { tenant, before: None, after: Some(record) });
    };
    let mut tenants = sqlx::query!(
        r#"select id "id: TenantId", key, status "status: TenantStatus", default_role_id from tenants"#
    )
    .fetch(&mut *conn);
    while let Some(row) = tenants.try_next().await? {
        let default_role = row.default_role_id.map(Into::into);
        let (id, key, status) = (row.id, key(row.key)?, row.status);
        learn(row.id, Record::Tenant(Tenant { id, key, status, default_role }));
    }
    drop(tenants);
    for key in api_keys(conn, None).await? {
        learn(key.tenant, Record::ApiKey(key));
    }
    let accounts =
        sqlx::query!(r#"select id, disabled, epoch from users where disabled or epoch > 0"#)
            .fetch_all(&mut *conn)
            .await?;
    for row in accounts {
        let account = Account { user: row.id.into(), disabled: row.disabled, epoch: row.epoch };
        learn(TenantId::SYSTEM, Record::Account(account));
    }
    let ended = sqlx::query!(
        r#"select tenant_id "tenant: TenantId", id, user_id, expires_at from sessions
           where ended_at is not null and expires_at > $1"#,
        now
    )
    .fetch_all(&mut *conn)
    .await?;
    for row in ended {
        let (session, user) = (row.id.into(), row.user_id.into());
        learn(
            row.tenant,
            Record::SessionEnd(SessionEnd { session, user, expires: row.expires_at }),
        );
    }
    Ok(directory)
}

/// Keys that were not revoked, or one of them by its hash, revoked or not.
///
/// # Errors
/// When the database does not answer or holds a row that cannot be.
pub async fn api_keys(
    conn: &mut PgConnection,
    hash: Option<&[u8; 32]>,
) -> sqlx::Result<Vec<ApiKey>> {
    let rows = sqlx::query!(
        r#"select tenant_id, id, service_account_id, hash, narrowed, expires_at, revoked_at
           from api_keys where ($1::bytea is null and revoked_at is null) or hash = $1"#,
        hash.map(<[u8; 32]>::as_slice)
    )
    .fetch_all(conn)
    .await?;
    let keys = rows.into_iter().map(|row| {
        Ok(ApiKey {
            id: row.id.into(),
            tenant: row.tenant_id.into(),
            service_account: row.service_account_id.into(),
            hash: row.hash.try_into().map_err(|_| sqlx::Error::Decode("hash length".into()))?,
            narrowed: row.narrowed,
            expires: row.expires_at,
            revoked: row.revoked_at.is_some(),
        })
    });
    keys.collect()
}

/// All of a tenant.
///
/// # Errors
/// When the database does not answer or holds a row that cannot be.
pub async fn tenant(conn: &mut PgConnection, id: TenantId) -> sqlx::Result<TenantFacts> {
    let mut bulk = Bulk::new(TenantFacts::new(id));
    bulk.roles(roles(conn, id).await?);
    let workspaces = sqlx::query!(
        r#"select id, key from workspaces where tenant_id = $1 and deleted_at is null"#,
        id as TenantId
    )
    .fetch_all(&mut *conn)
    .await?;
    for row in workspaces {
        bulk.workspace(Workspace { id: row.id.into(), key: key(row.key)? });
    }
    members(conn, &mut bulk, None).await?;
    groups(conn, &mut bulk, None).await?;
    assignments(conn, &mut bulk, None).await?;
    Ok(bulk.finish())
}

/// What decides about a few subjects, and the workspaces with these keys.
///
/// # Errors
/// When the database does not answer or holds a row that cannot be.
pub async fn slice(
    conn: &mut PgConnection,
    id: TenantId,
    subjects: &[SubjectId],
    workspaces: &[String],
) -> sqlx::Result<TenantFacts> {
    let mut bulk = Bulk::new(TenantFacts::new(id));
    bulk.roles(roles(conn, id).await?);
    if !workspaces.is_empty() {
        let rows = sqlx::query!(
            r#"select id, key from workspaces
               where tenant_id = $1 and deleted_at is null and key = any($2)"#,
            id as TenantId,
            workspaces
        )
        .fetch_all(&mut *conn)
        .await?;
        for row in rows {
            bulk.workspace(Workspace { id: row.id.into(), key: key(row.key)? });
        }
    }
    add_subjects(conn, bulk.finish(), subjects).await
}

/// Adds subjects to a slice.
///
/// # Errors
/// When the database does not answer or holds a row that cannot be.
pub async fn add_subjects(
    conn: &mut PgConnection,
    slice: TenantFacts,
    subjects: &[SubjectId],
) -> sqlx::Result<TenantFacts> {
    let few = Few::of(subjects.iter().filter(|s| slice.member(**s).is_none()).copied());
    if few.users.is_empty() && few.services.is_empty() {
        return Ok(slice);
    }
    let mut bulk = Bulk::new(slice);
    members(conn, &mut bulk, Some(&few)).await?;
    let groups = groups(conn, &mut bulk, Some(&few)).await?;
    assignments(conn, &mut bulk, Some((&few, &groups))).await?;
    Ok(bulk.finish())
}

/// The subjects of a slice.
struct Few {
    users: Vec<Uuid>,
    services: Vec<Uuid>,
}

impl Few {
    fn of(subjects: impl Iterator<Item = SubjectId> + Clone) -> Self {
        Self {
            users: subjects.clone().filter_map(SubjectId::user).map(Into::into).collect(),
            services: subjects.filter_map(SubjectId::service).map(Into::into).collect(),
        }
    }
}

async fn roles(conn: &mut PgConnection, tenant: TenantId) -> sqlx::Result<Vec<Role>> {
    let rows = sqlx::query!(
        r#"select id, key, permissions, reach "reach: Reach", exclusive_set, max_duration_seconds,
                  locked,
                  array(select included_id from role_includes i
                        where i.tenant_id = r.tenant_id and i.role_id = r.id) "includes!",
                  array(select granted_id from role_may_grant g
                        where g.tenant_id = r.tenant_id and g.role_id = r.id) "may_grant!"
           from roles r where tenant_id = $1
           -- Tenants with the same roles number them alike, and can share what is compiled of them.
           order by key"#,
        tenant as TenantId
    )
    .fetch_all(conn)
    .await?;
    let roles = rows.into_iter().map(|row| {
        Ok(Role {
            id: row.id.into(),
            key: key(row.key)?,
            permissions: row.permissions.iter().map(SmolStr::new).collect(),
            includes: row.includes.into_iter().map(Into::into).collect(),
            reach: row.reach,
            may_grant: row.may_grant.into_iter().map(Into::into).collect(),
            exclusive_set: row.exclusive_set.map(key).transpose()?,
            max_duration_seconds: row.max_duration_seconds,
            locked: row.locked,
        })
    });
    roles.collect()
}

struct MemberRow {
    id: Uuid,
    kind: MemberKind,
    status: MemberStatus,
    epoch: i32,
}

async fn members(conn: &mut PgConnection, bulk: &mut Bulk, few: Option<&Few>) -> sqlx::Result<()> {
    macro_rules! read {
        ($sql:literal, $subject:expr, $($arg:expr),*) => {{
            let mut rows = sqlx::query_as!(MemberRow, $sql, $($arg),*).fetch(&mut *conn);
            while let Some(row) = rows.try_next().await? {
                let subject = $subject(row.id);
                let MemberRow { kind, status, epoch, .. } = row;
                bulk.member(Member { subject, kind, status, epoch });
            }
        }};
    }
    let user = |id: Uuid| SubjectId::User(id.into());
    let service = |id: Uuid| SubjectId::Service(id.into());
    let tenant = bulk.tenant();
    match few {
        None => {
            read!(
                r#"select user_id id, kind "kind: MemberKind", status "status: MemberStatus", epoch
                   from memberships where tenant_id = $1 and status <> 'removed'"#,
                user,
                tenant as TenantId
            );
            read!(
                r#"select id, 'service' "kind!: MemberKind", status "status: MemberStatus", 0 "epoch!"
                   from service_accounts where tenant_id = $1 and status <> 'removed'"#,
                service,
                tenant as TenantId
            );
        }
        Some(few) => {
            read!(
                r#"select user_id id, kind "kind: MemberKind", status "status: MemberStatus", epoch
                   from memberships where tenant_id = $1 and user_id = any($2) for share"#,
                user,
                tenant as TenantId,
                &few.users
            );
            read!(
                r#"select id, 'service' "kind!: MemberKind", status "status: MemberStatus", 0 "epoch!"
                   from service_accounts where tenant_id = $1 and id = any($2) for share"#,
                service,
                tenant as TenantId,
                &few.services
            );
        }
    }
    Ok(())
}

/// Returns the ids of the groups.
async fn groups(
    conn: &mut PgConnection,
    bulk: &mut Bulk,
    few: Option<&Few>,
) -> sqlx::Result<Vec<Uuid>> {
    struct GroupRow {
        id: Uuid,
        key: String,
    }
    struct JoinedRow {
        group_id: Uuid,
        user_id: Uuid,
    }
    let id = bulk.tenant();
    let (groups, joined) = match few {
        None => (
            sqlx::query_as!(
                GroupRow,
                "select id, key from groups where tenant_id = $1",
                id as TenantId
            )
            .fetch_all(&mut *conn)
            .await?,
            sqlx::query_as!(
                JoinedRow,
                "select group_id, user_id from group_members where tenant_id = $1",
                id as TenantId
            )
            .fetch_all(&mut *conn)
            .await?,
        ),
        Some(few) => (
            sqlx::query_as!(
                GroupRow,
                "select id, key from groups g where tenant_id = $1 and exists (
                     select from group_members m
                     where m.tenant_id = $1 and m.group_id = g.id and m.user_id = any($2))",
                id as TenantId,
                &few.users
            )
            .fetch_all(&mut *conn)
            .await?,
            sqlx::query_as!(
                JoinedRow,
                "select group_id, user_id from group_members
                 where tenant_id = $1 and user_id = any($2)",
                id as TenantId,
                &few.users
            )
            .fetch_all(&mut *conn)
            .await?,
        ),
    };
    let ids = groups.iter().map(|row| row.id).collect();
    for row in groups {
        bulk.group(&Group { id: row.id.into(), key: key(row.key)? });
    }
    for row in joined {
        bulk.joined(row.user_id.into(), row.group_id.into());
    }
    Ok(ids)
}

struct HeldRow {
    user_id: Option<Uuid>,
    service_account_id: Option<Uuid>,
    group_id: Option<Uuid>,
    role_id: Uuid,
    workspace_id: Option<Uuid>,
    path: String,
    starts_at: Option<Time>,
    ends_at: Option<Time>,
}

async fn assignments(
    conn: &mut PgConnection,
    bulk: &mut Bulk,
    few: Option<(&Few, &[Uuid])>,
) -> sqlx::Result<()> {
    macro_rules! read {
        ($sql:literal, $($arg:expr),*) => {{
            let mut rows = sqlx::query_as!(HeldRow, $sql, $($arg),*).fetch(&mut *conn);
            while let Some(row) = rows.try_next().await? {
                bulk.assignment(&row.read());
            }
        }};
    }
    let tenant = bulk.tenant();
    match few {
        None => read!(
            "select user_id, service_account_id, group_id, role_id, workspace_id, path,
                    starts_at, ends_at
             from role_assignments where tenant_id = $1",
            tenant as TenantId
        ),
        Some((few, groups)) => {
            read!(
                "select user_id, service_account_id, group_id, role_id, workspace_id, path,
                        starts_at, ends_at
                 from role_assignments where tenant_id = $1 and user_id = any($2)",
                tenant as TenantId,
                &few.users
            );
            read!(
                "select user_id, service_account_id, group_id, role_id, workspace_id, path,
                        starts_at, ends_at
                 from role_assignments where tenant_id = $1 and service_account_id = any($2)",
                tenant as TenantId,
                &few.services
            );
            read!(
                "select user_id, service_account_id, group_id, role_id, workspace_id, path,
                        starts_at, ends_at
                 from role_assignments where tenant_id = $1 and group_id = any($2)",
                tenant as TenantId,
                groups
            );
        }
    }
    Ok(())
}

impl HeldRow {
    fn read(&self) -> AssignmentRow<'_> {
        let holder = match (self.user_id, self.service_account_id, self.group_id) {
            (Some(user), ..) => Holder::Subject(SubjectId::User(user.into())),
            (_, Some(service), _) => Holder::Subject(SubjectId::Service(service.into())),
            // The table's check lets exactly one of the three be set.
            (.., group) => Holder::Group(group.unwrap_or_default().into()),
        };
        AssignmentRow {
            holder,
            role: self.role_id.into(),
            workspace: self.workspace_id.map(Into::into),
            path: &self.path,
            starts: self.starts_at,
            ends: self.ends_at,
        }
    }
}
