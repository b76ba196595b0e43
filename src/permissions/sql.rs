//! What a question about an address reads: who has it, and whether it was invited.

use std::collections::{HashMap, HashSet};

use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    access::Permit,
    decision::{Holding, Time},
    error::Result,
    ids::{AssignmentId, Holder, SubjectId, TenantId, UserId},
    text::Email,
};

/// Somebody who is or was a member of the tenant, or of the installation. Whether others have an account
/// is not for the tenant to know.
pub async fn find_person(pool: &PgPool, permit: &Permit, email: &Email) -> Result<Option<UserId>> {
    let found = sqlx::query_scalar!(
        "select id from users u
         where email_canonical = $1
           and exists (select from memberships m
                       where m.user_id = u.id and m.tenant_id in ($2, $3))",
        email.canonical(),
        permit.tenant() as TenantId,
        TenantId::SYSTEM as TenantId
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.map(Into::into))
}

pub async fn is_invited(pool: &PgPool, permit: &Permit, email: &Email, now: Time) -> Result<bool> {
    let found: Option<Uuid> = sqlx::query_scalar!(
        "select id from invitations
         where tenant_id = $1 and email_canonical = $2 and status = 'pending' and expires_at > $3",
        permit.tenant() as TenantId,
        email.canonical(),
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.is_some())
}

pub async fn is_person_invited(
    pool: &PgPool,
    permit: &Permit,
    user: UserId,
    now: Time,
) -> Result<bool> {
    let found: Option<Uuid> = sqlx::query_scalar!(
        "select i.id from invitations i join users u on u.email_canonical = i.email_canonical
         where i.tenant_id = $1 and u.id = $2 and i.status = 'pending' and i.expires_at > $3",
        permit.tenant() as TenantId,
        user as UserId,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.is_some())
}

/// The assignments of these holders in the tenant and on the installation, by what they say.
pub async fn assignments(
    pool: &PgPool,
    permit: &Permit,
    holders: &HashSet<Holder>,
) -> Result<HashMap<Holding, AssignmentId>> {
    let subjects = || holders.iter().filter_map(|holder| holder.subject());
    let users: Vec<Uuid> = subjects().filter_map(SubjectId::user).map(Into::into).collect();
    let services: Vec<Uuid> = subjects().filter_map(SubjectId::service).map(Into::into).collect();
    let groups: Vec<Uuid> =
        holders.iter().filter_map(|holder| holder.group()).map(Into::into).collect();
    let rows = sqlx::query!(
        "select id, user_id, service_account_id, group_id, role_id, workspace_id, path, starts_at,
                ends_at
         from role_assignments
         where tenant_id in ($1, $2)
           and (user_id = any($3) or service_account_id = any($4) or group_id = any($5))",
        permit.tenant() as TenantId,
        TenantId::SYSTEM as TenantId,
        &users,
        &services,
        &groups
    )
    .fetch_all(pool)
    .await?;
    let read = rows.into_iter().map(|row| {
        let user = row.user_id.map(|id| Holder::Subject(SubjectId::User(id.into())));
        let service =
            row.service_account_id.map(|id| Holder::Subject(SubjectId::Service(id.into())));
        // The table's check lets exactly one of the three be set.
        let group = || Holder::Group(row.group_id.unwrap_or_default().into());
        let holding = Holding {
            holder: user.or(service).unwrap_or_else(group),
            role: row.role_id.into(),
            workspace: row.workspace_id.map(Into::into),
            path: row.path.into(),
            starts: row.starts_at,
            ends: row.ends_at,
        };
        (holding, row.id.into())
    });
    Ok(read.collect())
}
