//! The list of people, which open invitations are part of. Reads only.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Filter, Invited, Listed, Membership, Order, Person, SortKey, StatusFilter};
use crate::{
    access::Permit,
    assignments::{self, Shown},
    decision::scope_text,
    error::Result,
    ids::{Revision, TenantId},
    memberships::sql::Row,
    replica,
};

/// A page of the list, how many match over all pages, and the revision of both.
pub struct Found {
    pub rows: Vec<Listed>,
    pub total: i64,
    pub revision: Revision,
}

/// Lists people, in one snapshot.
pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    filter: &Filter,
    after: Option<&SortKey>,
    limit: i64,
) -> Result<Found> {
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let revision = replica::position(&mut tx).await?;
    let mut query = QueryBuilder::new("select (");
    MEMBERS.count(&mut query, permit, filter);
    query.push(") + (");
    INVITED.count(&mut query, permit, filter);
    query.push(")");
    let total: i64 = query.build_query_scalar().fetch_one(&mut *tx).await?;

    let mut query = QueryBuilder::new("(");
    MEMBERS.page(&mut query, permit, filter, after, limit);
    query.push(") union all (");
    INVITED.page(&mut query, permit, filter, after, limit);
    let way = if filter.descending { "desc" } else { "asc" };
    query.push(format!(") order by major {way}, minor {way}, id {way} limit ")).push_bind(limit);
    let rows: Vec<ListedRow> = query.build_query_as().fetch_all(&mut *tx).await?;
    let rows = with_roles(&mut tx, permit, rows).await?;
    tx.rollback().await?;
    Ok(Found { rows, total, revision })
}

/// One of the two tables that make up the list.
struct Source {
    table: &'static str,
    id: &'static str,
    columns: &'static str,
    /// The table alone, which counts faster, and with all that columns and filters name.
    alone: &'static str,
    joined: &'static str,
    email: &'static str,
    email_canonical: &'static str,
    /// A text that sorts as the time of the last sign-in does.
    last_sign_in: &'static str,
    /// Finds ids by assignments `h` whose role or workspace is `t`.
    holders: &'static str,
}

/// What sorts nothing; without its type PostgreSQL refuses to sort by it.
const NONE: &str = "''::text";

const MEMBERS: Source = Source {
    table: "m",
    id: "m.user_id",
    columns: "m.user_id, u.email, m.kind, m.status, m.epoch, m.first_name, m.last_name,
              m.department, m.job_title, m.phone, m.location, m.external_id, m.metadata,
              a.last_sign_in_at, a.last_active_at, m.purge_at, m.version, m.created_at, m.updated_at,
              false invited",
    alone: "memberships m",
    joined: "memberships m join users u on u.id = m.user_id
             left join activity a on a.tenant_id = m.tenant_id and a.user_id = m.user_id",
    email: "u.email",
    email_canonical: "u.email_canonical",
    last_sign_in: "coalesce(to_char(a.last_sign_in_at at time zone 'UTC', 'YYYYMMDDHH24MISSUS'), '')",
    holders: "select coalesce(h.user_id, g.user_id) from role_assignments h
              left join group_members g on g.tenant_id = h.tenant_id and g.group_id = h.group_id",
};

const INVITED: Source = Source {
    table: "i",
    id: "i.id",
    columns: "i.id user_id, i.email, i.kind, 'active' status, 0 epoch, i.first_name, i.last_name,
              i.department, i.job_title, i.phone, i.location, '' external_id, '{}'::jsonb metadata,
              null::timestamptz last_sign_in_at, null::timestamptz last_active_at,
              null::timestamptz purge_at, i.version,
              i.created_at, i.updated_at, true invited",
    alone: "invitations i",
    joined: "invitations i",
    email: "i.email",
    email_canonical: "i.email_canonical",
    last_sign_in: NONE,
    holders: "select h.invitation_id from invitation_roles h",
};

type Query = QueryBuilder<Postgres>;

impl Source {
    /// The two texts that rows are sorted by.
    fn sort(&self, order: Order) -> (String, String) {
        let (table, none) = (self.table, NONE.to_owned());
        match order {
            Order::Name => {
                (format!("lower({table}.last_name)"), format!("lower({table}.first_name)"))
            }
            Order::Email => (self.email_canonical.to_owned(), none),
            Order::LastSignIn => (self.last_sign_in.to_owned(), none),
            Order::Created => {
                let utc = format!("{table}.created_at at time zone 'UTC'");
                (format!("to_char({utc}, 'YYYYMMDDHH24MISSUS')"), none)
            }
        }
    }

    fn count(&self, query: &mut Query, permit: &Permit, filter: &Filter) {
        let from = if filter.query.is_some() { self.joined } else { self.alone };
        self.select(query, "count(*)", from, permit, filter);
    }

    fn page(
        &self,
        query: &mut Query,
        permit: &Permit,
        filter: &Filter,
        after: Option<&SortKey>,
        limit: i64,
    ) {
        let (major, minor) = self.sort(filter.order);
        let id = self.id;
        let shown = format!("{}, {major} major, {minor} minor, {id} id", self.columns);
        self.select(query, &shown, self.joined, permit, filter);
        let (further, way) = if filter.descending { ("<", "desc") } else { (">", "asc") };
        if let Some(after) = after {
            query.push(format!(" and ({major}, {minor}, {id}) {further} ("));
            query.push_bind(after.0.clone()).push(", ").push_bind(after.1.clone()).push(", ");
            query.push_bind(after.2).push(")");
        }
        query.push(format!(" order by {major} {way}, {minor} {way}, {id} {way} limit "));
        query.push_bind(limit);
    }

    fn select(&self, query: &mut Query, shown: &str, from: &str, permit: &Permit, filter: &Filter) {
        let (table, tenant) = (self.table, permit.tenant().uuid());
        query.push(format!("select {shown} from {from} where {table}.tenant_id = "));
        query.push_bind(tenant);
        match (filter.status, table) {
            (None | Some(StatusFilter::Pending), "i") => {
                query.push(" and i.status = 'pending' and i.expires_at > ").push_bind(filter.now)
            }
            (None, _) => query.push(" and m.status <> 'removed'"),
            (Some(StatusFilter::Member(status)), "m") => {
                query.push(" and m.status = ").push_bind(status)
            }
            (Some(_), _) => query.push(" and false"),
        };
        if let Some(kind) = filter.kind {
            query.push(format!(" and {table}.kind = ")).push_bind(kind);
        }
        if let Some(department) = &filter.department {
            query.push(format!(" and lower({table}.department) = lower("));
            query.push_bind(department.clone()).push(")");
        }
        if let Some(start) = &filter.query {
            let mut either = " and (";
            let (first_name, last_name) =
                (format!("{table}.first_name"), format!("{table}.last_name"));
            for column in [&first_name, &last_name, self.email] {
                query.push(format!("{either}starts_with(lower({column}), lower("));
                query.push_bind(start.clone()).push("))");
                either = " or ";
            }
            query.push(")");
        }
        let role = "roles t on t.tenant_id = h.tenant_id and t.id = h.role_id";
        let workspace = "workspaces t on t.tenant_id = h.tenant_id and t.id = h.workspace_id";
        for (key, joined) in [(&filter.role, role), (&filter.workspace, workspace)] {
            let Some(key) = key else { continue };
            query.push(format!(" and {} in ({} join {joined} where ", self.id, self.holders));
            query.push("h.tenant_id = ").push_bind(tenant);
            query.push(" and t.key = ").push_bind(key.clone());
            query.push(" and (h.ends_at is null or h.ends_at > ").push_bind(filter.now).push("))");
        }
    }
}

#[derive(sqlx::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    row: Row,
    invited: bool,
    major: String,
    minor: String,
    id: Uuid,
}

async fn with_roles(
    conn: &mut PgConnection,
    permit: &Permit,
    rows: Vec<ListedRow>,
) -> Result<Vec<Listed>> {
    let (invited, members): (Vec<&ListedRow>, Vec<_>) = rows.iter().partition(|row| row.invited);
    let ids = |rows: Vec<&ListedRow>| rows.into_iter().map(|row| row.id).collect::<Vec<Uuid>>();
    let (invited, members) = (ids(invited), ids(members));
    let mut roles = assignments::shown(&mut *conn, permit, &members).await?;
    roles.extend(promised(conn, permit, &invited).await?);
    let listed = rows.into_iter().map(|listed| {
        let membership = Membership::from(listed.row);
        let person = if listed.invited {
            Person::Invited(Box::new(Invited {
                invitation: listed.id.into(),
                email: membership.email,
                kind: membership.kind,
                profile: membership.profile,
                created_at: membership.created_at,
                updated_at: membership.updated_at,
            }))
        } else {
            Person::Member(Box::new(membership))
        };
        let roles = roles.remove(&listed.id).unwrap_or_default();
        Listed { person, roles, key: (listed.major, listed.minor, listed.id) }
    });
    Ok(listed.collect())
}

/// The roles that joining will give.
async fn promised(
    conn: &mut PgConnection,
    permit: &Permit,
    invitations: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Shown>>> {
    let rows = sqlx::query!(
        r#"select h.invitation_id, r.key "role", w.key "workspace?", h.path, h.starts_at, h.ends_at
           from invitation_roles h
           join roles r on r.tenant_id = $1 and r.id = h.role_id
           left join workspaces w on w.tenant_id = $1 and w.id = h.workspace_id
           where h.tenant_id = $1 and h.invitation_id = any($2)
           order by r.key, w.key, h.path"#,
        permit.tenant() as TenantId,
        invitations
    )
    .fetch_all(conn)
    .await?;
    let mut promised: HashMap<Uuid, Vec<Shown>> = HashMap::new();
    for row in rows {
        promised.entry(row.invitation_id).or_default().push(Shown {
            id: None,
            role: row.role,
            scope: scope_text(row.workspace.as_deref(), &row.path),
            starts: row.starts_at,
            ends: row.ends_at,
            group: String::new(),
        });
    }
    Ok(promised)
}
