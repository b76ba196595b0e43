//! What is asked across the tenants of one person; writes nothing.

use sqlx::PgPool;
use uuid::Uuid;

use super::MyTenant;
use crate::{
    assignments,
    change::Change,
    decision::{MemberKind, MemberStatus, TenantStatus},
    error::{Error, Result},
    ids::{Key, SubjectId, TenantId, UserId},
};

/// The tenants, open or not, to which somebody belongs as an inside person with access.
pub async fn internal_tenants(change: &mut Change, user: UserId) -> Result<Vec<(TenantId, Key)>> {
    let rows = sqlx::query!(
        r#"select t.id "id: TenantId", t.key
           from memberships m join tenants t on t.id = m.tenant_id
           where m.user_id = $1 and m.status = 'active' and m.kind = 'internal'
             and t.id <> $2
           order by t.key"#,
        user as UserId,
        TenantId::SYSTEM as TenantId
    )
    .fetch_all(change.conn())
    .await?;
    let read = |(id, key): (TenantId, String)| Ok((id, key.try_into().map_err(Error::internal)?));
    rows.into_iter().map(|row| read((row.id, row.key))).collect()
}

struct Row {
    id: TenantId,
    key: String,
    display_name: String,
    kind: MemberKind,
    status: MemberStatus,
    tenant_status: TenantStatus,
}

/// The tenants of the subject itself, by key, with what it has there.
pub async fn my_tenants(
    pool: &PgPool,
    subject: SubjectId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<MyTenant>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select t.id "id!: TenantId", t.key "key!", t.display_name "display_name!",
                  b.kind "kind!: MemberKind", b.status "status!: MemberStatus",
                  t.status "tenant_status!: TenantStatus"
           from (select tenant_id, kind, status from memberships where user_id = $1
                 union all
                 select tenant_id, 'service', status from service_accounts where id = $2) b
           join tenants t on t.id = b.tenant_id
           where b.status <> 'removed' and t.status not in ('deleted', 'purged') and t.key > $3
           order by t.key limit $4"#,
        subject.user().map(Uuid::from),
        subject.service().map(Uuid::from),
        after.unwrap_or_default(),
        limit
    )
    .fetch_all(pool)
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id.uuid()).collect();
    let mut roles = assignments::shown_by_tenant(pool, subject, &ids).await?;
    let tenants = rows.into_iter().map(|row| {
        Ok(MyTenant {
            id: row.id,
            key: row.key.try_into().map_err(Error::internal)?,
            display_name: row.display_name,
            kind: row.kind,
            status: row.status,
            roles: roles.remove(&row.id.uuid()).unwrap_or_default(),
            tenant_status: row.tenant_status,
        })
    });
    tenants.collect()
}
