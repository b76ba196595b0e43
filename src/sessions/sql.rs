//! The tables `sessions` and `activity`.

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Choice, Session};
use crate::{
    access::Permit,
    activity::Use,
    change::Change,
    decision::{MemberStatus, SessionClaims, SessionEnd, TenantStatus, Time},
    error::{Error, Result},
    ids::{Key, SessionId, TenantId, UserId},
    text::Email,
};

/// What lets a person into a tenant, held until the transaction ends.
#[derive(Debug, Clone)]
pub struct Entry {
    pub tenant: TenantId,
    pub tenant_key: Key,
    pub tenant_status: TenantStatus,
    pub member_status: MemberStatus,
    pub disabled: bool,
    pub member_epoch: i32,
    pub account_epoch: i32,
    /// How long a session of the tenant lasts, however it is used.
    pub lifetime_seconds: i64,
}

impl Entry {
    pub fn is_open(&self) -> bool {
        self.tenant_status == TenantStatus::Active
            && self.member_status == MemberStatus::Active
            && !self.disabled
    }
}

/// Holds membership and account, so that whoever takes access away waits and then sees the session.
pub async fn entry(conn: &mut PgConnection, tenant: &str, user: UserId) -> Result<Option<Entry>> {
    let row = sqlx::query!(
        r#"select t.id "tenant: TenantId", t.key, t.status "tenant_status: TenantStatus",
                  m.status "member_status: MemberStatus", u.disabled,
                  m.epoch "member_epoch", u.epoch "account_epoch",
                  t.session_lifetime_seconds
           from tenants t
           join memberships m on m.tenant_id = t.id
           join users u on u.id = m.user_id
           where t.key = $1 and m.user_id = $2 for share of m, u"#,
        tenant,
        user as UserId
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Entry {
            tenant: row.tenant,
            tenant_key: row.key.try_into().map_err(Error::internal)?,
            tenant_status: row.tenant_status,
            member_status: row.member_status,
            disabled: row.disabled,
            member_epoch: row.member_epoch,
            account_epoch: row.account_epoch,
            lifetime_seconds: row.session_lifetime_seconds,
        })
    })
    .transpose()
}

/// Whether the person has a membership of the installation.
pub async fn is_of_installation(conn: &mut PgConnection, user: UserId) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "select user_id from memberships
         where tenant_id = $1 and user_id = $2 and status <> 'removed'",
        TenantId::SYSTEM as TenantId,
        user as UserId
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// The tenants that somebody can sign in to.
pub async fn choices(pool: &PgPool, user: UserId) -> Result<Vec<Choice>> {
    let choices = sqlx::query_as!(
        Choice,
        "select t.key tenant, t.display_name from memberships m join tenants t on t.id = m.tenant_id
         where m.user_id = $1 and m.status = 'active' and t.status = 'active' order by t.key",
        user as UserId
    )
    .fetch_all(pool)
    .await?;
    Ok(choices)
}

pub async fn insert(
    conn: &mut PgConnection,
    claims: &SessionClaims,
    session: &Session,
) -> Result<()> {
    sqlx::query!(
        "delete from sessions where user_id = $1 and expires_at < $2::timestamptz - interval '30 days'",
        session.user as UserId,
        session.created_at
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into sessions (tenant_id, id, user_id, created_at, expires_at, member_epoch,
                               account_epoch, source, user_agent, last_used_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $4)",
        claims.tenant as TenantId,
        session.id as SessionId,
        session.user as UserId,
        session.created_at,
        session.expires_at,
        claims.member_epoch,
        claims.account_epoch,
        session.source,
        session.user_agent
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update activity set last_sign_in_at = $3, last_active_at = $3
         where tenant_id = $1 and user_id = $2",
        claims.tenant as TenantId,
        session.user as UserId,
        session.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Holds the session that calls; whether it was not ended.
pub async fn is_live(conn: &mut PgConnection, claims: &SessionClaims) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "select id from sessions where tenant_id = $1 and id = $2 and ended_at is null for share",
        claims.tenant as TenantId,
        claims.session as SessionId
    )
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Whose session it is.
pub async fn owner(pool: &PgPool, tenant: &str, session: SessionId) -> Result<Option<UserId>> {
    let owner = sqlx::query_scalar!(
        r#"select s.user_id "user: UserId" from sessions s join tenants t on t.id = s.tenant_id
           where t.key = $1 and s.id = $2"#,
        tenant,
        session as SessionId
    )
    .fetch_optional(pool)
    .await?;
    Ok(owner)
}

pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    user: UserId,
    now: Time,
    after: Option<(Time, Uuid)>,
    limit: i64,
) -> Result<Vec<Session>> {
    let (before, last) = after.unzip();
    let rows = sqlx::query!(
        r#"select s.id "id: SessionId", s.created_at, s.expires_at, s.last_used_at, s.source,
                  s.user_agent
           from sessions s
           join memberships m on m.tenant_id = s.tenant_id and m.user_id = s.user_id
           join users u on u.id = s.user_id
           where s.tenant_id = $1 and s.user_id = $2 and s.ended_at is null and s.expires_at > $3
             and m.status = 'active' and m.epoch = s.member_epoch
             and not u.disabled and u.epoch = s.account_epoch
             and ($4::timestamptz is null or (s.created_at, s.id) < ($4, $5))
           order by s.created_at desc, s.id desc limit $6"#,
        permit.tenant() as TenantId,
        user as UserId,
        now,
        before,
        last,
        limit
    )
    .fetch_all(pool)
    .await?;
    let tenant = permit.tenant_key();
    let sessions = rows.into_iter().map(|row| Session {
        id: row.id,
        user,
        tenant: tenant.clone(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        source: row.source,
        user_agent: row.user_agent,
    });
    Ok(sessions.collect())
}

/// The end that a session would have, and whether it has come already.
pub async fn lock(change: &mut Change, session: SessionId) -> Result<Option<(SessionEnd, bool)>> {
    let tenant = change.tenant().id;
    let row = sqlx::query!(
        r#"select user_id "user: UserId", expires_at, ended_at from sessions
           where tenant_id = $1 and id = $2 for update"#,
        tenant as TenantId,
        session as SessionId
    )
    .fetch_optional(change.conn())
    .await?;
    Ok(row.map(|row| {
        let end = SessionEnd { session, user: row.user, expires: row.expires_at };
        (end, row.ended_at.is_some())
    }))
}

pub async fn end(change: &mut Change, session: SessionId) -> Result<()> {
    let (tenant, now) = (change.tenant().id, change.now());
    sqlx::query!(
        "update sessions set ended_at = $3 where tenant_id = $1 and id = $2",
        tenant as TenantId,
        session as SessionId,
        now
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Ends the live sessions of a member in this tenant; nothing when there is no such member. The lock
/// keeps out who is signing in.
pub async fn end_all(change: &mut Change, user: UserId) -> Result<Option<Vec<SessionEnd>>> {
    let (tenant, now) = (change.tenant().id, change.now());
    let member = sqlx::query_scalar!(
        "select epoch from memberships
         where tenant_id = $1 and user_id = $2 and status <> 'removed' for update",
        tenant as TenantId,
        user as UserId
    )
    .fetch_optional(change.conn())
    .await?;
    let Some(epoch) = member else { return Ok(None) };
    let ended = sqlx::query_as!(
        SessionEnd,
        r#"update sessions set ended_at = $4
           where tenant_id = $1 and user_id = $2 and member_epoch = $3
             and ended_at is null and expires_at > $4
           returning id "session: SessionId", user_id "user: UserId", expires_at expires"#,
        tenant as TenantId,
        user as UserId,
        epoch,
        now
    )
    .fetch_all(change.conn())
    .await?;
    Ok(Some(ended))
}

pub async fn end_others(
    change: &mut Change,
    user: UserId,
    keep: SessionId,
) -> Result<Vec<SessionEnd>> {
    let now = change.now();
    sqlx::query_scalar!("select id from users where id = $1 for update", user as UserId)
        .fetch_optional(change.conn())
        .await?;
    let ended = sqlx::query_as!(
        SessionEnd,
        r#"update sessions s set ended_at = $3
           from memberships m, users u
           where s.user_id = $1 and s.id <> $2 and s.ended_at is null and s.expires_at > $3
             and m.tenant_id = s.tenant_id and m.user_id = s.user_id and m.epoch = s.member_epoch
             and u.id = s.user_id and u.epoch = s.account_epoch
           returning s.id "session: SessionId", s.user_id "user: UserId", s.expires_at expires"#,
        user as UserId,
        keep as SessionId,
        now
    )
    .fetch_all(change.conn())
    .await?;
    Ok(ended)
}

/// Whether the source signed in to the account within the last days.
pub async fn is_familiar(pool: &PgPool, email: &Email, source: &str, now: Time) -> Result<bool> {
    let found = sqlx::query_scalar!(
        "select s.id from sessions s join users u on u.id = s.user_id
         where u.email_canonical = $1 and s.source = $2
           and s.created_at > $3::timestamptz - interval '30 days' limit 1",
        email.canonical(),
        source,
        now
    )
    .fetch_optional(pool)
    .await?;
    Ok(found.is_some())
}

pub async fn delete(change: &mut Change, user: UserId) -> Result<u64> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "delete from activity where tenant_id = $1 and user_id = $2",
        tenant as TenantId,
        user as UserId
    )
    .execute(change.conn())
    .await?;
    let done = sqlx::query!(
        "delete from sessions where tenant_id = $1 and user_id = $2",
        tenant as TenantId,
        user as UserId
    )
    .execute(change.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Writes when sessions were used, and when their people were seen.
pub async fn write_uses(pool: &PgPool, uses: &[Use]) -> Result<()> {
    let tenants: Vec<Uuid> = uses.iter().map(|one| one.tenant.uuid()).collect();
    let sessions: Vec<Uuid> = uses.iter().map(|one| one.session.uuid()).collect();
    let users: Vec<Uuid> = uses.iter().map(|one| one.user.uuid()).collect();
    let times: Vec<Time> = uses.iter().map(|one| one.at).collect();
    sqlx::query!(
        "update sessions s set last_used_at = greatest(s.last_used_at, u.at)
         from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) u (tenant_id, id, at)
         where s.tenant_id = u.tenant_id and s.id = u.id and s.ended_at is null",
        &tenants,
        &sessions,
        &times
    )
    .execute(pool)
    .await?;
    // Not of those who left meanwhile; in one order, since other replicas note the same people.
    sqlx::query!(
        "update activity a set last_active_at = greatest(a.last_active_at, seen.at)
         from (
             select b.tenant_id, b.user_id, u.at
             from (
                 select tenant_id, user_id, max(at) at
                 from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) u (tenant_id, user_id, at)
                 group by tenant_id, user_id
             ) u
             join activity b on b.tenant_id = u.tenant_id and b.user_id = u.user_id
             where b.standing > 0
             order by b.tenant_id, b.user_id for no key update of b
         ) seen
         where a.tenant_id = seen.tenant_id and a.user_id = seen.user_id",
        &tenants,
        &users,
        &times
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Sessions that nobody used for longer than their tenant allows and `grace`, by tenant.
pub async fn idle(
    pool: &PgPool,
    now: Time,
    grace: TimeDelta,
) -> Result<Vec<(Key, Vec<SessionId>)>> {
    let rows = sqlx::query!(
        r#"select t.key, array_agg(s.id) "sessions!"
           from tenants t
           cross join lateral (
               select id from sessions
               where tenant_id = t.id and ended_at is null and expires_at > $1
                 and last_used_at
                     < $1::timestamptz - make_interval(secs => t.session_idle_seconds + $2)
               order by last_used_at limit 200) s
           where t.session_idle_seconds < t.session_lifetime_seconds
           group by t.key limit 100"#,
        now,
        grace.num_seconds()
    )
    .fetch_all(pool)
    .await?;
    let read = |key: String| key.try_into().map_err(Error::internal);
    let ids = |ids: Vec<Uuid>| ids.into_iter().map(Into::into).collect();
    rows.into_iter().map(|row| Ok((read(row.key)?, ids(row.sessions)))).collect()
}

/// Whether it is still unused since then; locked.
pub async fn is_idle(change: &mut Change, session: SessionId, grace: TimeDelta) -> Result<bool> {
    let (tenant, now) = (change.tenant().id, change.now());
    let idle = sqlx::query_scalar!(
        r#"select s.last_used_at
                  < $3::timestamptz - make_interval(secs => t.session_idle_seconds + $4) "idle!"
           from sessions s join tenants t on t.id = s.tenant_id
           where s.tenant_id = $1 and s.id = $2 for update of s"#,
        tenant as TenantId,
        session as SessionId,
        now,
        grace.num_seconds()
    )
    .fetch_optional(change.conn())
    .await?;
    Ok(idle.unwrap_or(false))
}
