//! The tables `invitations` and `invitation_roles`.

use std::collections::HashMap;

use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::Invitation;
use crate::{
    change::Change,
    decision::{InvitationStatus, InvitedRole, MemberKind, Time, scope_text},
    error::{Error, OnConstraint, Result},
    ids::{InvitationId, RoleId, TenantId, UserId, WorkspaceId},
    memberships::Profile,
    text::Email,
};

struct Row {
    id: Uuid,
    email: String,
    kind: MemberKind,
    first_name: String,
    last_name: String,
    department: String,
    job_title: String,
    phone: String,
    location: String,
    message: String,
    language: String,
    status: InvitationStatus,
    generation: i32,
    expires_at: Time,
    invited_by: String,
    accepted_by: Option<Uuid>,
    version: i64,
    created_at: Time,
}

impl Row {
    fn with(self, roles: Vec<InvitedRole>) -> Result<Invitation> {
        Ok(Invitation {
            id: self.id.into(),
            email: Email::parse("email", &self.email).map_err(Error::internal)?,
            kind: self.kind,
            profile: Profile {
                first_name: self.first_name,
                last_name: self.last_name,
                department: self.department,
                job_title: self.job_title,
                phone: self.phone,
                location: self.location,
            },
            message: self.message,
            language: self.language,
            status: self.status,
            generation: self.generation,
            expires_at: self.expires_at,
            invited_by: self.invited_by,
            accepted_by: self.accepted_by.map(Into::into),
            roles,
            version: self.version,
            created_at: self.created_at,
        })
    }
}

/// Inserts a new invitation with its roles.
pub async fn insert(change: &mut Change, new: &Invitation) -> Result<()> {
    let (tenant, profile) = (change.tenant().id, &new.profile);
    sqlx::query!(
        "insert into invitations (tenant_id, id, email, email_canonical, kind, first_name, last_name,
                                  department, job_title, phone, location, message, language, status,
                                  generation, expires_at, invited_by, version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                 $19, $19)",
        tenant as TenantId,
        new.id as InvitationId,
        new.email.as_str(),
        new.email.canonical(),
        new.kind as MemberKind,
        profile.first_name,
        profile.last_name,
        profile.department,
        profile.job_title,
        profile.phone,
        profile.location,
        new.message,
        new.language,
        new.status as InvitationStatus,
        new.generation,
        new.expires_at,
        new.invited_by,
        new.version,
        new.created_at
    )
    .execute(change.conn())
    .await
    .on_constraint("invitations_pending_key", || super::pending(&new.email))?;
    for role in &new.roles {
        sqlx::query!(
            "insert into invitation_roles (tenant_id, invitation_id, role_id, workspace_id, path,
                                           starts_at, ends_at)
             values ($1, $2, $3, $4, $5, $6, $7)",
            tenant as TenantId,
            new.id as InvitationId,
            role.role as RoleId,
            role.workspace.map(Uuid::from),
            role.path,
            role.starts,
            role.ends
        )
        .execute(change.conn())
        .await?;
    }
    Ok(())
}

/// Writes status, generation, expiry, who vouches, who accepted, and version, of one that is as it was read.
pub async fn update(change: &mut Change, before: &Invitation, after: &Invitation) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    let done = sqlx::query!(
        "update invitations set status = $3, generation = $4, expires_at = $5, accepted_by = $6,
                                version = $7, updated_at = $8, invited_by = $12
         where tenant_id = $1 and id = $2 and status = $9 and generation = $10 and version = $11",
        tenant as TenantId,
        after.id as InvitationId,
        after.status as InvitationStatus,
        after.generation,
        after.expires_at,
        after.accepted_by.map(Uuid::from),
        after.version,
        now,
        before.status as InvitationStatus,
        before.generation,
        before.version,
        after.invited_by
    )
    .execute(change.conn())
    .await
    .on_constraint("invitations_pending_key", || super::pending(&after.email))?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::stale_etag()) }
}

pub async fn lock(change: &mut Change, id: InvitationId) -> Result<Option<Invitation>> {
    let tenant = change.tenant().id;
    let row = sqlx::query_as!(
        Row,
        r#"select id, email, kind "kind: MemberKind", first_name, last_name, department, job_title,
                  phone, location, message, language, status "status: InvitationStatus", generation,
                  expires_at, invited_by, accepted_by, version, created_at
           from invitations where tenant_id = $1 and id = $2 for update"#,
        tenant as TenantId,
        id as InvitationId
    )
    .fetch_optional(change.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let roles = roles(change.conn(), tenant, id).await?;
    row.with(roles).map(Some)
}

/// The open invitation of an address, also one whose time is over.
pub async fn lock_pending(change: &mut Change, email: &Email) -> Result<Option<Invitation>> {
    let tenant = change.tenant().id;
    let id = sqlx::query_scalar!(
        r#"select id "id: InvitationId" from invitations
           where tenant_id = $1 and email_canonical = $2 and status = 'pending'"#,
        tenant as TenantId,
        email.canonical()
    )
    .fetch_optional(change.conn())
    .await?;
    match id {
        Some(id) => lock(change, id).await,
        None => Ok(None),
    }
}

/// The open invitations that promise something in a workspace, and nothing outside it that can still be
/// given.
pub async fn pending_within(
    change: &mut Change,
    workspace: WorkspaceId,
) -> Result<Vec<InvitationId>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let ids = sqlx::query_scalar!(
        r#"select i.id "id: InvitationId" from invitations i
           where i.tenant_id = $1 and i.status = 'pending' and i.expires_at > $3
             and exists (select from invitation_roles r
                         where r.tenant_id = $1 and r.invitation_id = i.id and r.workspace_id = $2)
             and not exists (
               select from invitation_roles r
               left join workspaces w on w.tenant_id = $1 and w.id = r.workspace_id
               where r.tenant_id = $1 and r.invitation_id = i.id
                 and r.workspace_id is distinct from $2 and w.deleted_at is null
                 and (r.ends_at is null or r.ends_at > $3))
           order by i.id"#,
        tenant as TenantId,
        workspace as WorkspaceId,
        now
    );
    Ok(ids.fetch_all(change.conn()).await?)
}

async fn roles(
    conn: &mut PgConnection,
    tenant: TenantId,
    id: InvitationId,
) -> Result<Vec<InvitedRole>> {
    let rows = sqlx::query!(
        "select role_id, workspace_id, path, starts_at, ends_at from invitation_roles
         where tenant_id = $1 and invitation_id = $2 order by role_id, workspace_id, path",
        tenant as TenantId,
        id as InvitationId
    )
    .fetch_all(conn)
    .await?;
    let roles = rows.into_iter().map(|row| InvitedRole {
        role: row.role_id.into(),
        workspace: row.workspace_id.map(Into::into),
        path: row.path,
        starts: row.starts_at,
        ends: row.ends_at,
    });
    Ok(roles.collect())
}

/// The kind of an invitation and the scopes of its roles, as far as their workspaces exist; one without
/// any concerns the tenant.
pub async fn reach(
    pool: &PgPool,
    tenant: &str,
    id: InvitationId,
) -> Result<Option<(MemberKind, Vec<String>)>> {
    let rows = sqlx::query!(
        r#"select i.kind "kind: MemberKind", r.role_id "role?", w.key "workspace?", r.path "path?"
           from tenants t
           join invitations i on i.tenant_id = t.id
           left join (invitation_roles r
                      left join workspaces w on w.tenant_id = r.tenant_id and w.id = r.workspace_id)
             on r.tenant_id = i.tenant_id and r.invitation_id = i.id
                and (r.workspace_id is null or w.deleted_at is null)
           where t.key = $1 and i.id = $2"#,
        tenant,
        id as InvitationId
    )
    .fetch_all(pool)
    .await?;
    let kind = rows.first().map(|row| row.kind);
    let scopes = rows.iter().map(|row| match &row.path {
        Some(path) => scope_text(row.workspace.as_deref(), path),
        None => String::new(),
    });
    Ok(kind.map(|kind| (kind, scopes.collect())))
}

/// The keys of workspaces that exist.
pub async fn workspace_keys(
    change: &mut Change,
    invitation: &Invitation,
) -> Result<HashMap<Uuid, String>> {
    let tenant = change.tenant().id;
    let ids: Vec<Uuid> =
        invitation.roles.iter().filter_map(|role| role.workspace).map(Uuid::from).collect();
    let rows = sqlx::query!(
        "select id, key from workspaces
         where tenant_id = $1 and id = any($2) and deleted_at is null",
        tenant as TenantId,
        &ids
    )
    .fetch_all(change.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.key)).collect())
}

/// How a person of the tenant, or of the installation, is called.
///
/// # Errors
/// When the database does not answer.
pub async fn name_of(db: impl PgExecutor<'_>, tenant: TenantId, user: UserId) -> Result<String> {
    let name = sqlx::query_scalar!(
        r#"select coalesce(nullif(trim(concat_ws(' ', m.first_name, m.last_name)), ''),
                           trim(concat_ws(' ', u.first_name, u.last_name))) "name!"
           from users u
           left join memberships m on m.tenant_id = $1 and m.user_id = u.id
           where u.id = $2"#,
        tenant as TenantId,
        user as UserId
    )
    .fetch_optional(db)
    .await?;
    Ok(name.unwrap_or_default())
}

/// An invitation whose person is to be reminded.
pub struct Waiting {
    pub tenant: TenantId,
    pub tenant_name: String,
    pub invitation: InvitationId,
    pub generation: i32,
    pub email: String,
    pub name: String,
    pub language: String,
    pub message: String,
    pub invited_by: String,
    pub expires_at: Time,
}

/// Open invitations that were sent long enough ago and whose link was not reminded of.
pub async fn due_for_reminder(pool: &PgPool, now: Time, most: i64) -> Result<Vec<Waiting>> {
    let due = sqlx::query_as!(
        Waiting,
        r#"select i.tenant_id tenant, t.display_name tenant_name, i.id invitation, i.generation,
                  i.email, trim(concat_ws(' ', i.first_name, i.last_name)) "name!", i.language,
                  i.message, i.invited_by, i.expires_at
           from mail_settings s
           join tenants t on t.id = s.tenant_id and t.status in ('pending', 'active')
           join invitations i on i.tenant_id = s.tenant_id and i.status = 'pending'
                and i.expires_at > $1
                and i.updated_at <= $1 - make_interval(secs => s.reminder_after_seconds)
           where s.reminder_after_seconds is not null
             and not exists (select from mails m
                             where m.tenant_id = i.tenant_id and m.invitation_id = i.id
                               and m.generation = i.generation and m.template = 'reminder')
           order by i.updated_at limit $2"#,
        now,
        most
    );
    Ok(due.fetch_all(pool).await?)
}

/// Somebody who can be written to.
#[derive(Debug, Clone)]
pub struct Recipient {
    pub email: Email,
    pub name: String,
    pub language: String,
}

/// Those of these people who are active in the tenant or on the installation.
pub async fn reachable(change: &mut Change, users: &[UserId]) -> Result<Vec<Recipient>> {
    let tenant = change.tenant().id;
    let users: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    let rows = sqlx::query!(
        r#"select email, trim(concat_ws(' ', first_name, last_name)) "name!", language
           from users u
           where id = any($2) and not disabled
             and exists (select from memberships m where m.tenant_id in ($1, $3)
                         and m.user_id = u.id and m.status = 'active')
           order by id"#,
        tenant as TenantId,
        &users,
        TenantId::SYSTEM as TenantId
    )
    .fetch_all(change.conn())
    .await?;
    let recipients = rows.into_iter().map(|row| {
        let email = Email::parse("email", &row.email).map_err(Error::internal)?;
        Ok(Recipient { email, name: row.name, language: row.language })
    });
    recipients.collect()
}

pub async fn find(pool: &PgPool, tenant: TenantId, id: InvitationId) -> Result<Option<Invitation>> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, email, kind "kind: MemberKind", first_name, last_name, department, job_title,
                  phone, location, message, language, status "status: InvitationStatus", generation,
                  expires_at, invited_by, accepted_by, version, created_at
           from invitations where tenant_id = $1 and id = $2"#,
        tenant as TenantId,
        id as InvitationId
    )
    .fetch_optional(pool)
    .await?;
    row.map(|row| row.with(Vec::new())).transpose()
}

pub async fn of_person(
    change: &mut Change,
    user: UserId,
    email: &Email,
) -> Result<Vec<InvitationId>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let ids = sqlx::query_scalar!(
        r#"select id "id: InvitationId" from invitations
           where tenant_id = $1 and (accepted_by = $2 or email_canonical = $3)
             and not (status = 'pending' and expires_at > $4)"#,
        tenant as TenantId,
        user as UserId,
        email.canonical(),
        now
    )
    .fetch_all(change.conn())
    .await?;
    Ok(ids)
}

pub async fn delete_all(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!("delete from invitations where tenant_id = $1", tenant as TenantId)
        .execute(change.conn())
        .await?;
    Ok(())
}

pub async fn delete(change: &mut Change, ids: &[InvitationId]) -> Result<u64> {
    let tenant = change.tenant().id;
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let done = sqlx::query!(
        "delete from invitations where tenant_id = $1 and id = any($2)",
        tenant as TenantId,
        &ids
    )
    .execute(change.conn())
    .await?;
    Ok(done.rows_affected())
}
