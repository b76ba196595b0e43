//! What is read of the tables `events` and `event_values`.

use sqlx::PgPool;
use uuid::Uuid;

use super::{Filter, Row, Verb};
use crate::{
    access::Permit,
    decision::Time,
    error::Result,
    ids::{Key, TenantId},
};

/// The last event of the page before: revision and number.
pub type After = (i64, i32);

pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    filter: &Filter,
    after: Option<After>,
    limit: i64,
) -> Result<Vec<Row>> {
    let (exactly, starts) = match &filter.verb {
        Some(Verb::Exactly(verb)) => (Some(verb), None),
        Some(Verb::Starts(prefix)) => (None, Some(prefix)),
        None => (None, None),
    };
    let (revision, n) = after.unzip();
    // Time order is revision order, so times become bounds of the revision.
    macro_rules! read {
        ($beyond:literal, $order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select e.revision, e.n, e.at, e.body::text "body!", e.hash,
                          array(select v.values from event_values v
                                where v.tenant_id = e.tenant_id and v.event_id = e.event_id
                                order by v.data_subject) "values!"
                   from events e
                   where e.tenant_id = $1
                     and ($2::text is null or e.actor = $2 or e.on_behalf_of = $2)
                     and ($3::text is null or e.target = $3)
                     and ($4::text is null or e.verb = $4)
                     and ($5::text is null or starts_with(e.verb, $5))
                     and ($6::timestamptz is null or e.revision >= (
                             select f.revision from events f where f.tenant_id = $1 and f.at >= $6
                             order by f.at, f.revision limit 1))
                     and ($7::timestamptz is null or e.revision <= (
                             select f.revision from events f where f.tenant_id = $1 and f.at < $7
                             order by f.at desc, f.revision desc limit 1))
                     and ($8::bigint is null or (e.revision, e.n) "#
                    + $beyond
                    + r#" ($8, $9)) order by "#
                    + $order
                    + r#" limit $10"#,
                permit.tenant() as TenantId,
                filter.actor,
                filter.target,
                exactly,
                starts,
                filter.from,
                filter.until,
                revision,
                n,
                limit
            )
            .fetch_all(pool)
            .await?
        };
    }
    Ok(if filter.oldest_first {
        read!(">", "e.revision, e.n")
    } else {
        read!("<", "e.revision desc, e.n desc")
    })
}

/// A link of the chain.
pub struct Link {
    pub event_id: Uuid,
    pub revision: i64,
    pub n: i32,
    pub at: Time,
    pub format: i32,
    pub body: String,
    pub hash: Vec<u8>,
}

pub async fn links(pool: &PgPool, tenant: TenantId, after: After, limit: i64) -> Result<Vec<Link>> {
    let (revision, n) = after;
    let links = sqlx::query_as!(
        Link,
        r#"select event_id, revision, n, at, format, body::text "body!", hash from events
           where tenant_id = $1 and (revision, n) > ($2, $3) order by revision, n limit $4"#,
        tenant as TenantId,
        revision,
        n,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(links)
}

/// The personal values of an event, with the salt that they were committed to with.
pub struct Values {
    pub event_id: Uuid,
    pub data_subject: String,
    pub salt: Vec<u8>,
    pub values: String,
}

pub async fn values(pool: &PgPool, tenant: TenantId, events: &[Uuid]) -> Result<Vec<Values>> {
    let values = sqlx::query_as!(
        Values,
        "select event_id, data_subject, salt, values from event_values
         where tenant_id = $1 and event_id = any($2)",
        tenant as TenantId,
        events
    )
    .fetch_all(pool)
    .await?;
    Ok(values)
}

/// The numbers of events of all tenants.
pub async fn numbers(pool: &PgPool, after: After, limit: i64) -> Result<Vec<After>> {
    let (revision, n) = after;
    let rows = sqlx::query!(
        "select revision, n from events where (revision, n) > ($1, $2)
         order by revision, n limit $3",
        revision,
        n,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.revision, row.n)).collect())
}

/// The tenants, or the one with this key.
pub async fn tenants(pool: &PgPool, only: Option<&str>) -> Result<Vec<(TenantId, Key)>> {
    let rows = sqlx::query!(
        r#"select id "id: TenantId", key from tenants where $1::text is null or key = $1
           order by key"#,
        only
    )
    .fetch_all(pool)
    .await?;
    let tenants = rows
        .into_iter()
        .map(|row| Ok((row.id, Key::try_from(row.key).map_err(crate::error::Error::internal)?)));
    tenants.collect()
}
