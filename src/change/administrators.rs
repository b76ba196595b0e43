//! Administrators: that an open tenant keeps one whatever a change did, and how many it has.

use sqlx::{PgConnection, PgPool};

use super::Change;
use crate::{
    decision::{Directory, Facts, Record, Tenant, TenantStatus, Time, is_administrator},
    error::{Error, Result},
    ids::{Revision, RoleId, SubjectId, TenantId, UserId},
    replica::load,
};

/// More than one is as good as many.
const SEVERAL: usize = 2;
/// How many who may be administrators are looked at together.
const BATCH: i64 = 32;

/// What a change does to the rights of people, from the harmless to what needs looking at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touch {
    Nothing,
    Gives,
    /// It may have taken an administrator away.
    Takes,
    /// It opens the tenant, which then must have one.
    Opens,
}

impl Touch {
    pub fn of(before: Option<&Record>, after: Option<&Record>) -> Self {
        if let Some(Record::Tenant(tenant)) = after {
            let open = |tenant: &Tenant| tenant.status == TenantStatus::Active;
            let was_open = matches!(before, Some(Record::Tenant(before)) if open(before));
            return if open(tenant) && !was_open { Self::Opens } else { Self::Nothing };
        }
        match (before.is_some_and(decides_rights), after.is_some_and(decides_rights)) {
            (true, _) => Self::Takes,
            (false, true) => Self::Gives,
            (false, false) => Self::Nothing,
        }
    }
}

fn decides_rights(record: &Record) -> bool {
    match record {
        Record::Role(_)
        | Record::Group(_)
        | Record::GroupMember(_)
        | Record::Member(_)
        | Record::Assignment(_) => true,
        Record::Tenant(_)
        | Record::Workspace(_)
        | Record::ApiKey(_)
        | Record::Account(_)
        | Record::SessionEnd(_)
        | Record::Invitation(_) => false,
    }
}

impl Change {
    /// Refuses a change that takes the last administrator. A tenant that has none already, because an
    /// operator closed the account, can still be changed in every other way.
    pub(super) async fn check_administrators(&mut self) -> Result<()> {
        let tenant = self.tenant.id;
        if self.rights == Touch::Nothing || tenant == TenantId::SYSTEM {
            return Ok(());
        }
        let left = self.administrators(tenant, SEVERAL).await?;
        let without = matches!(self.status(), Some(TenantStatus::Pending | TenantStatus::Purged));
        if left.is_empty() && self.rights > Touch::Gives && !without {
            // Nobody else writes it while this change holds the tenant.
            let had = self.rights == Touch::Opens || self.noted_administrators(tenant).await? > 0;
            if had {
                return Err(self.last_administrator().await?);
            }
        }
        self.note_administrators(tenant, left.len()).await
    }

    async fn last_administrator(&self) -> Result<Error> {
        let key = &self.tenant.key;
        // As it was before this change, which others do not see; for the message alone.
        let mut conn = self.app.pool.acquire().await?;
        let roles = administering(&mut conn, self.tenant.id).await?;
        let before = candidates(&mut conn, self.tenant.id, &roles, uuid::Uuid::nil()).await?;
        let ids: Vec<String> = before.iter().map(ToString::to_string).collect();
        let ids = ids.join(", ");
        let message = match before.as_slice() {
            _ if self.rights == Touch::Opens => format!(
                "tenant `{key}` would open without an active administrator; appoint one first, with \
                 AppointAdministrator, or enable the account of one"
            ),
            [] => format!("tenant `{key}` has no administrator; let an operator appoint one first"),
            [_] => format!(
                "this would leave tenant `{key}` without an administrator: `{ids}` is the last one; \
                 first make another active, internal member administrator, without an end date"
            ),
            _ => format!(
                "this would leave tenant `{key}` without an administrator: it takes all of them \
                 ({ids}); leave one, or first make another active, internal member administrator, \
                 without an end date"
            ),
        };
        let refusal = Error::precondition("LAST_ADMINISTRATOR", key, message);
        Ok(refusal.with("administrators", ids))
    }

    /// Who administers a tenant, which need not be the one that is changed, by the rows as this change
    /// has left them; no more than `most`, which several at least have.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn administrators(&mut self, tenant: TenantId, most: usize) -> Result<Vec<UserId>> {
        let now = self.now;
        find(self.conn(), tenant, most, now).await
    }

    /// Whether one of these people administers a tenant, by the rows as this change has left them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn some_administer(&mut self, tenant: TenantId, users: &[UserId]) -> Result<bool> {
        let now = self.now;
        Ok(!among(self.conn(), tenant, users, now).await?.is_empty())
    }

    /// Counts the administrators of a tenant whose people's accounts this change opened or closed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recount_administrators(&mut self, tenant: TenantId) -> Result<usize> {
        let count = self.administrators(tenant, SEVERAL).await?.len();
        self.note_administrators(tenant, count).await?;
        Ok(count)
    }

    /// What was noted last; a tenant of which nothing is noted counts as having one.
    async fn noted_administrators(&mut self, tenant: TenantId) -> Result<i16> {
        let noted = sqlx::query_scalar!(
            "select count from administrator_counts where tenant_id = $1",
            tenant as TenantId
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(noted.unwrap_or(1))
    }

    async fn note_administrators(&mut self, tenant: TenantId, count: usize) -> Result<()> {
        sqlx::query!(
            "insert into administrator_counts as c (tenant_id, count) values ($1, $2)
             on conflict (tenant_id) do update set count = $2 where c.count <> $2",
            tenant as TenantId,
            i16::try_from(count.min(SEVERAL)).map_err(Error::internal)?
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }
}

/// How many open tenants have no administrator, and how many have a single one.
///
/// # Errors
/// When the database does not answer.
pub async fn count_without(pool: &PgPool) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) filter (where c.count = 0) "none!",
                  count(*) filter (where c.count = 1) "single!"
           from administrator_counts c join tenants t on t.id = c.tenant_id
           where c.count < 2 and t.status = 'active'"#
    )
    .fetch_one(pool)
    .await?;
    Ok((row.none, row.single))
}

/// The roles that make an administrator.
async fn administering(conn: &mut PgConnection, tenant: TenantId) -> Result<Vec<uuid::Uuid>> {
    let slice = load::slice(conn, tenant, &[], &[]).await?;
    Ok(slice.administering().map(RoleId::uuid).collect())
}

/// The statement finds who may administer; the decision engine says who does.
async fn find(
    conn: &mut PgConnection,
    tenant: TenantId,
    most: usize,
    now: Time,
) -> Result<Vec<UserId>> {
    let roles = administering(conn, tenant).await?;
    let (mut after, mut found) = (uuid::Uuid::nil(), Vec::new());
    loop {
        let users = candidates(conn, tenant, &roles, after).await?;
        let Some(last) = users.last() else { return Ok(found) };
        after = last.uuid();
        found.extend(among(conn, tenant, &users, now).await?);
        if found.len() >= most {
            return Ok(found);
        }
    }
}

/// Active inside people who have one of the roles on the tenant without an end, by id.
async fn candidates(
    conn: &mut PgConnection,
    tenant: TenantId,
    roles: &[uuid::Uuid],
    after: uuid::Uuid,
) -> Result<Vec<UserId>> {
    let users = sqlx::query_scalar!(
        r#"select user_id "user_id!: UserId" from memberships m
           where tenant_id = $1 and status = 'active' and kind = 'internal' and user_id > $2
             and (exists (select from role_assignments a
                          where a.tenant_id = $1 and a.user_id = m.user_id
                            and a.role_id = any($3) and a.workspace_id is null
                            and a.path = '' and a.ends_at is null)
                  or exists (select from group_members g
                             join role_assignments a
                               on a.tenant_id = $1 and a.group_id = g.group_id
                             where g.tenant_id = $1 and g.user_id = m.user_id
                               and a.role_id = any($3) and a.workspace_id is null
                               and a.path = '' and a.ends_at is null))
           order by user_id limit $4"#,
        tenant as TenantId,
        after,
        roles,
        BATCH
    )
    .fetch_all(conn)
    .await?;
    Ok(users)
}

/// Those of the users who administer the tenant.
async fn among(
    conn: &mut PgConnection,
    tenant: TenantId,
    users: &[UserId],
    now: Time,
) -> Result<Vec<UserId>> {
    let subjects: Vec<SubjectId> = users.iter().copied().map(SubjectId::User).collect();
    let slice = load::slice(conn, tenant, &subjects, &[]).await?;
    let mut facts = Facts::new(Revision::default(), Directory::default());
    super::load_accounts(conn, &mut facts, &subjects).await?;
    let administers = |user: &&UserId| is_administrator(&facts, &slice, **user, now);
    Ok(users.iter().filter(administers).copied().collect())
}
