//! The tables `plans` and `tenant_plans`.

use std::collections::BTreeMap;

use sqlx::{PgExecutor, types::Json};

use super::{Plan, unknown};
use crate::{
    change::Change,
    decision::Time,
    error::{Error, OnConstraint, Result},
    ids::{Key, TenantId},
};

struct Row {
    key: String,
    display_names: Json<BTreeMap<String, String>>,
    seat_limit: Option<i64>,
    version: i64,
    created_at: Time,
    updated_at: Time,
}

impl TryFrom<Row> for Plan {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            key: row.key.try_into().map_err(Error::internal)?,
            display_names: row.display_names.0,
            seat_limit: row.seat_limit,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// All of them: they are few.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Plan>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select key, display_names "display_names: Json<BTreeMap<String, String>>", seat_limit,
                  version, created_at, updated_at
           from plans order by key"#
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

pub async fn upsert(change: &mut Change, plan: &Plan) -> Result<()> {
    sqlx::query!(
        "insert into plans (key, display_names, seat_limit, version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (key) do update set display_names = $2, seat_limit = $3, version = $4,
                                         updated_at = $6",
        plan.key.as_str(),
        Json(&plan.display_names) as _,
        plan.seat_limit,
        plan.version,
        plan.created_at,
        plan.updated_at
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// What was chosen for the tenant of the change: the plan, and a number of seats of its own.
pub async fn find_chosen(change: &mut Change) -> Result<(String, Option<i64>)> {
    let tenant = change.tenant().id;
    let row = sqlx::query!(
        "select plan, seat_limit from tenant_plans where tenant_id = $1",
        tenant as TenantId
    )
    .fetch_optional(change.conn())
    .await?;
    Ok(row.map_or_else(|| ("free".to_owned(), None), |row| (row.plan, row.seat_limit)))
}

pub async fn choose(change: &mut Change, plan: &Key, seat_limit: Option<i64>) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into tenant_plans (tenant_id, plan, seat_limit) values ($1, $2, $3)
         on conflict (tenant_id) do update set plan = $2, seat_limit = $3",
        tenant as TenantId,
        plan.as_str(),
        seat_limit
    )
    .execute(change.conn())
    .await
    .on_constraint("tenant_plans_plan_fkey", || unknown(plan))?;
    Ok(())
}
