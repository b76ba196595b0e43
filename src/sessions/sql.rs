//! The tables `sessions` and `activity`.

use uuid::Uuid;

use crate::{
    change::Change,
    decision::{SessionEnd, Time},
    error::Result,
    ids::{SessionId, UserId},
};

struct EndRow {
    id: Uuid,
    user_id: Uuid,
    expires_at: Time,
}

impl From<EndRow> for SessionEnd {
    fn from(row: EndRow) -> Self {
        Self { session: row.id.into(), user: row.user_id.into(), expires: row.expires_at }
    }
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
        EndRow,
        "update sessions s set ended_at = $3
         from memberships m, users u
         where s.user_id = $1 and s.id <> $2 and s.ended_at is null and s.expires_at > $3
           and m.tenant_id = s.tenant_id and m.user_id = s.user_id and m.epoch = s.member_epoch
           and u.id = s.user_id and u.epoch = s.account_epoch
         returning s.id, s.user_id, s.expires_at",
        user as UserId,
        keep as SessionId,
        now
    )
    .fetch_all(change.conn())
    .await?;
    Ok(ended.into_iter().map(Into::into).collect())
}
