//! What lists of invitations read.

use std::collections::HashMap;

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{ShownInvitation, ShownRole};
use crate::{
    access::Permit,
    change::Change,
    decision::{InvitationStatus, MemberKind, Time, scope_text},
    error::Result,
    ids::{InvitationId, TenantId, UserId},
    memberships::Profile,
    outbox::Delivery,
};

/// Which invitations a list shows, with their status judged at a time.
#[derive(Debug, Clone)]
pub struct Filter {
    pub id: Option<InvitationId>,
    pub status: Option<InvitationStatus>,
    pub before: Option<Uuid>,
    pub now: Time,
    pub limit: i64,
}

/// The invitations of a tenant, newest first, with roles and mail.
///
/// # Errors
/// When the database does not answer.
pub async fn list(pool: &PgPool, permit: &Permit, filter: &Filter) -> Result<Vec<ShownInvitation>> {
    let tenant = permit.tenant();
    let mut shown = rows(pool, tenant, filter).await?;
    let ids: Vec<Uuid> = shown.iter().map(|one| one.id.uuid()).collect();
    add_roles(&mut shown, shown_roles(pool, tenant, &ids).await?);
    Ok(shown)
}

/// One invitation as this change has left it.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn shown_now(change: &mut Change, id: InvitationId) -> Result<ShownInvitation> {
    let (tenant, now) = (change.tenant().id, change.now());
    let filter = Filter { id: Some(id), status: None, before: None, now, limit: 1 };
    let mut shown = rows(change.conn(), tenant, &filter).await?;
    add_roles(&mut shown, shown_roles(change.conn(), tenant, &[id.uuid()]).await?);
    shown.pop().ok_or_else(|| super::super::unknown(id))
}

async fn rows(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    filter: &Filter,
) -> Result<Vec<ShownInvitation>> {
    let rows = sqlx::query!(
        r#"select i.id, i.email, i.kind "kind: MemberKind", i.first_name, i.last_name, i.department,
                  i.job_title, i.phone, i.location, i.message, i.language,
                  s.status "status!: InvitationStatus", i.expires_at, i.created_at, i.invited_by,
                  i.accepted_by "accepted_by: UserId", i.version,
                  m.status "delivery?: Delivery", m.last_error "delivery_error?"
           from invitations i
           cross join lateral (select case when i.status = 'pending' and i.expires_at <= $3
                                           then 'expired' else i.status end) s (status)
           left join lateral (select status, last_error from mails
                              where tenant_id = i.tenant_id and invitation_id = i.id
                                and generation = i.generation
                              order by id desc limit 1) m on true
           where i.tenant_id = $1 and ($2::uuid is null or i.id = $2)
             and ($4::text is null or s.status = $4) and ($5::uuid is null or i.id < $5)
           order by i.id desc limit $6"#,
        tenant as TenantId,
        filter.id.map(Uuid::from),
        filter.now,
        filter.status as Option<InvitationStatus>,
        filter.before,
        filter.limit
    )
    .fetch_all(db)
    .await?;
    let shown = rows.into_iter().map(|row| ShownInvitation {
        id: row.id.into(),
        email: row.email,
        kind: row.kind,
        profile: Profile {
            first_name: row.first_name,
            last_name: row.last_name,
            department: row.department,
            job_title: row.job_title,
            phone: row.phone,
            location: row.location,
        },
        roles: Vec::new(),
        message: row.message,
        language: row.language,
        status: row.status,
        delivery: row.delivery,
        delivery_error: row.delivery_error.unwrap_or_default(),
        expires_at: row.expires_at,
        created_at: row.created_at,
        invited_by: row.invited_by,
        accepted_by: row.accepted_by,
        version: row.version,
    });
    Ok(shown.collect())
}

async fn shown_roles(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    ids: &[Uuid],
) -> Result<Vec<(InvitationId, ShownRole)>> {
    let rows = sqlx::query!(
        r#"select i.invitation_id, r.key "role", w.key "workspace?", i.path, i.starts_at, i.ends_at
           from invitation_roles i
           join roles r on r.tenant_id = i.tenant_id and r.id = i.role_id
           left join workspaces w on w.tenant_id = i.tenant_id and w.id = i.workspace_id
           where i.tenant_id = $1 and i.invitation_id = any($2)
           order by w.key nulls first, i.path, r.key"#,
        tenant as TenantId,
        ids
    )
    .fetch_all(db)
    .await?;
    let roles = rows.into_iter().map(|row| {
        let role = ShownRole {
            role: row.role,
            scope: scope_text(row.workspace.as_deref(), &row.path),
            starts: row.starts_at,
            ends: row.ends_at,
        };
        (row.invitation_id.into(), role)
    });
    Ok(roles.collect())
}

fn add_roles(shown: &mut [ShownInvitation], roles: Vec<(InvitationId, ShownRole)>) {
    let mut by_id: HashMap<InvitationId, Vec<ShownRole>> = HashMap::new();
    roles.into_iter().for_each(|(id, role)| by_id.entry(id).or_default().push(role));
    for one in shown {
        one.roles = by_id.remove(&one.id).unwrap_or_default();
    }
}
