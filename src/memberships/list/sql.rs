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
    match filter.counting() {
        Counting::Kept => push_kept(&mut query, permit, filter),
        Counting::Seen => push_seen(&mut query, permit, filter),
        Counting::Holders => push_holders(&mut query, permit, filter),
        Counting::Rows => MEMBERS.count(&mut query, permit, filter),
    }
    query.push("), (");
    INVITED.count(&mut query, permit, filter);
    query.push(
        "), (select coalesce(sum(c.count), 0)::bigint from member_counts c where c.tenant_id = ",
    );
    query.push_bind(permit.tenant().uuid()).push(")");
    // Planned anew each time: the best way depends on what is asked for.
    let counts = query.build_query_as().persistent(false);
    let (members, invited, all): (i64, i64, i64) = counts.fetch_one(&mut *tx).await?;
    // In the order of the list, as many rows are passed over for each that matches.
    let few = members.saturating_mul(members) < all.saturating_mul(limit);
    let rows = read(&mut tx, permit, filter, after, limit, few).await?;
    tx.rollback().await?;
    Ok(Found { rows, total: members + invited, revision })
}

/// The next rows of the list, in a snapshot of the caller's.
///
/// # Errors
/// When the database does not answer.
pub async fn page(
    conn: &mut PgConnection,
    permit: &Permit,
    filter: &Filter,
    after: Option<&SortKey>,
    limit: i64,
) -> Result<Vec<Listed>> {
    read(conn, permit, filter, after, limit, false).await
}

/// Where few members match, they are found first and then sorted; else they are met in their order.
async fn read(
    conn: &mut PgConnection,
    permit: &Permit,
    filter: &Filter,
    after: Option<&SortKey>,
    limit: i64,
    few: bool,
) -> Result<Vec<Listed>> {
    let mut query =
        QueryBuilder::new("select l.*, l.sort_major::text major, l.sort_minor minor from ((");
    MEMBERS.page(&mut query, permit, filter, after, limit, few);
    query.push(") union all (");
    INVITED.page(&mut query, permit, filter, after, limit, true);
    let way = filter.way();
    query.push(format!(")) l order by l.sort_major {way}, l.sort_minor {way}, l.id {way} limit "));
    query.push_bind(limit);
    let rows = query.build_query_as().persistent(false);
    let rows: Vec<ListedRow> = rows.fetch_all(&mut *conn).await?;
    with_roles(conn, permit, rows).await
}

/// How the members that match are counted.
enum Counting {
    /// Not at all: how many have a kind and a status is kept.
    Kept,
    /// By the index of last sign-ins alone.
    Seen,
    /// By the assignments of the role or on the workspace alone.
    Holders,
    Rows,
}

impl Filter {
    /// The role and the workspace that they have to have.
    fn places(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let role = self.role.as_deref().map(|key| (key, ROLE));
        role.into_iter().chain(self.workspace.as_deref().map(|key| (key, WORKSPACE)))
    }

    fn way(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    fn counting(&self) -> Counting {
        let narrow = self.department.is_some() || self.query.is_some();
        let places = usize::from(self.role.is_some()) + usize::from(self.workspace.is_some());
        let standing = self.status.is_some() || self.kind.is_some();
        match (narrow, standing, places, self.last_sign_in_before) {
            (false, _, 0, None) => Counting::Kept,
            (false, false, 0, Some(_)) => Counting::Seen,
            (false, false, 1, None) => Counting::Holders,
            _ => Counting::Rows,
        }
    }
}

/// How many members have a kind and a status.
fn push_kept(query: &mut Query, permit: &Permit, filter: &Filter) {
    query
        .push("select coalesce(sum(c.count), 0)::bigint from member_counts c where c.tenant_id = ");
    query.push_bind(permit.tenant().uuid()).push(" and c.status <> 'removed'");
    match filter.status {
        None => {}
        Some(StatusFilter::Member(status)) => {
            query.push(" and c.status = ").push_bind(status);
        }
        Some(StatusFilter::Pending) => {
            query.push(" and false");
        }
    }
    if let Some(kind) = filter.kind {
        query.push(" and c.kind = ").push_bind(kind);
    }
}

fn push_seen(query: &mut Query, permit: &Permit, filter: &Filter) {
    query.push("select count(*) from activity a where a.tenant_id = ");
    query.push_bind(permit.tenant().uuid()).push(format!(" and {} < ", MEMBERS.last_sign_in));
    query.push_bind(filter.last_sign_in_before);
    push_not_removed(query, "a");
}

fn push_holders(query: &mut Query, permit: &Permit, filter: &Filter) {
    query.push("select count(distinct x.user_id) from (");
    for (key, place) in filter.places() {
        MEMBERS.push_holders(query, permit, filter, key, place);
    }
    query.push(") x where true");
    push_not_removed(query, "x");
}

/// Members of `table` who have not left; there is an index of those who have.
fn push_not_removed(query: &mut Query, table: &str) {
    let gone = "select from memberships m where m.status = 'removed' and m.tenant_id = ";
    query
        .push(format!(" and not exists ({gone}{table}.tenant_id and m.user_id = {table}.user_id)"));
}

/// What somebody can hold a role of, or on.
const ROLE: &str = "roles t on t.tenant_id = h.tenant_id and t.id = h.role_id";
const WORKSPACE: &str = "workspaces t on t.tenant_id = h.tenant_id and t.id = h.workspace_id";

/// One of the two tables that make up the list.
struct Source {
    table: &'static str,
    id: &'static str,
    columns: &'static str,
    /// The table alone, and with when they were last seen.
    alone: &'static str,
    seen: &'static str,
    /// All that the columns name, beside the table.
    beside: &'static str,
    /// When they last signed in, for whoever never did too.
    last_sign_in: &'static str,
    /// Tables of assignments `h`, and whom they name.
    holders: &'static [(&'static str, &'static str)],
}

const MEMBERS: Source = Source {
    table: "m",
    id: "m.user_id",
    columns: "m.user_id, u.email, m.kind, m.status, m.epoch, m.first_name, m.last_name,
              m.department, m.job_title, m.phone, m.location, m.external_id, m.metadata,
              a.last_sign_in_at, a.last_active_at, m.purge_at, m.version, m.created_at,
              m.updated_at, false invited",
    alone: "memberships m",
    // Beside every member there is a row that says when they were seen.
    seen: "memberships m join activity a on a.tenant_id = m.tenant_id and a.user_id = m.user_id",
    beside: "join users u on u.id = m.user_id
             join activity a on a.tenant_id = m.tenant_id and a.user_id = m.user_id",
    last_sign_in: "coalesce(a.last_sign_in_at, '-infinity')",
    holders: &[
        ("role_assignments h", "h.user_id"),
        (
            "role_assignments h join group_members g
             on g.tenant_id = h.tenant_id and g.group_id = h.group_id",
            "g.user_id",
        ),
    ],
};

const INVITED: Source = Source {
    table: "i",
    id: "i.id",
    columns: "i.id user_id, i.email, i.kind, 'active' status, 0 epoch, i.first_name, i.last_name,
              i.department, i.job_title, i.phone, i.location, '' external_id, '{}'::jsonb metadata,
              null::timestamptz last_sign_in_at, null::timestamptz last_active_at,
              null::timestamptz purge_at, i.version, i.created_at, i.updated_at, true invited",
    alone: "invitations i",
    seen: "invitations i",
    beside: "",
    last_sign_in: "'-infinity'::timestamptz",
    holders: &[("invitation_roles h", "h.invitation_id")],
};

type Query = QueryBuilder<Postgres>;

impl Source {
    /// What rows are sorted by before their id, and of which type that is; the second is a text, and
    /// most orders have none.
    fn sort(&self, order: Order) -> (String, &'static str, Option<String>) {
        let table = self.table;
        match order {
            Order::Name => {
                let first = format!("lower({table}.first_name)");
                (format!("lower({table}.last_name)"), "text", Some(first))
            }
            Order::Email => (format!("{table}.email_canonical"), "text", None),
            Order::LastSignIn => (self.last_sign_in.to_owned(), "timestamptz", None),
            Order::Created => (format!("{table}.created_at"), "timestamptz", None),
        }
    }

    /// The id by which an index continues the order.
    fn sort_id(&self, order: Order) -> &'static str {
        match (order, self.table) {
            (Order::LastSignIn, "m") => "a.user_id",
            _ => self.id,
        }
    }

    fn count(&self, query: &mut Query, permit: &Permit, filter: &Filter) {
        let from = if filter.last_sign_in_before.is_some() { self.seen } else { self.alone };
        self.select(query, "count(*)", from, permit, filter, true);
    }

    fn page(
        &self,
        query: &mut Query,
        permit: &Permit,
        filter: &Filter,
        after: Option<&SortKey>,
        limit: i64,
        few: bool,
    ) {
        let (major, major_type, minor) = self.sort(filter.order);
        let (id, way) = (self.sort_id(filter.order), filter.way());
        let shown_minor = minor.clone().unwrap_or_else(|| "''::text".to_owned());
        let by_seen = filter.order == Order::LastSignIn;
        let from =
            if by_seen || filter.last_sign_in_before.is_some() { self.seen } else { self.alone };
        query.push(format!("with found as {}(", if few { "materialized " } else { "" }));
        let keys = format!("{} id, {major} sort_major, {shown_minor} sort_minor", self.id);
        self.select(query, &keys, from, permit, filter, few);
        if self.table == "m" && by_seen {
            query.push(" and a.tenant_id = ").push_bind(permit.tenant().uuid());
        }
        let further = if filter.descending { "<" } else { ">" };
        if let Some(after) = after {
            let columns = minor.as_ref().map_or_else(String::new, |minor| format!(", {minor}"));
            query.push(format!(" and ({major}{columns}, {id}) {further} ("));
            query.push_bind(after.0.clone()).push(format!("::text::{major_type}"));
            if minor.is_some() {
                query.push(", ").push_bind(after.1.clone());
            }
            query.push(", ").push_bind(after.2).push(")");
        }
        let minor = minor.map_or_else(String::new, |minor| format!(", {minor} {way}"));
        if !few {
            query.push(format!(" order by {major} {way}{minor}, {id} {way} limit "));
            query.push_bind(limit);
        }
        let Self { table, columns, beside, alone, .. } = self;
        query.push(format!(
            ") select {columns}, s.sort_major, s.sort_minor, s.id from (select * from found
               order by sort_major {way}, sort_minor {way}, id {way} limit "
        ));
        query
            .push_bind(limit)
            .push(format!(") s join {alone} on {} = s.id and {table}.tenant_id = ", self.id));
        query.push_bind(permit.tenant().uuid()).push(format!(" {beside}"));
    }

    /// Ids, and their tenant, of those who hold the role or hold one on the workspace.
    fn push_holders(
        &self,
        query: &mut Query,
        permit: &Permit,
        filter: &Filter,
        key: &str,
        place: &'static str,
    ) {
        for (n, (from, id)) in self.holders.iter().enumerate() {
            let union = if n == 0 { "" } else { " union all " };
            query.push(format!(
                "{union}select {id} user_id, h.tenant_id from {from} join {place} where "
            ));
            query.push(format!("{id} is not null and "));
            push_held(query, permit, filter, key);
        }
    }

    fn select(
        &self,
        query: &mut Query,
        shown: &str,
        from: &str,
        permit: &Permit,
        filter: &Filter,
        few: bool,
    ) {
        let (table, tenant) = (self.table, permit.tenant().uuid());
        query.push(format!("select {shown} from {from} where {table}.tenant_id = "));
        query.push_bind(tenant);
        // What partial indexes say stands here as they say it.
        match (filter.status, table) {
            (None | Some(StatusFilter::Pending), "i") => {
                query.push(" and i.status = 'pending' and i.expires_at > ").push_bind(filter.now)
            }
            (None, _) => query.push(" and m.status <> 'removed'"),
            (Some(StatusFilter::Member(status)), "m") => {
                query.push(" and m.status <> 'removed' and m.status = ").push_bind(status)
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
        if let Some(before) = filter.last_sign_in_before {
            query.push(format!(" and {} < ", self.last_sign_in)).push_bind(before);
        }
        if let Some(start) = &filter.query {
            let mut either = " and (";
            for column in ["lower(#.first_name)", "lower(#.last_name)", "#.email_canonical"] {
                query.push(format!("{either}{} like lower(", column.replace('#', table)));
                query.push_bind(starting_with(start)).push(")");
                either = " or ";
            }
            query.push(")");
        }
        for (key, place) in filter.places() {
            // All holders at once; or one by one, whom the order brings or few names start like.
            if few && filter.query.is_none() {
                query.push(format!(" and {} in (select user_id from (", self.id));
                self.push_holders(query, permit, filter, key, place);
                query.push(") x)");
                continue;
            }
            for (n, (from, id)) in self.holders.iter().enumerate() {
                let or = if n == 0 { " and (" } else { " or " };
                query.push(format!(
                    "{or}(select true from {from} join {place} where {id} = {} and ",
                    self.id
                ));
                push_held(query, permit, filter, key);
                query.push(" limit 1)");
            }
            query.push(")");
        }
    }
}

/// Which assignments count.
fn push_held(query: &mut Query, permit: &Permit, filter: &Filter, key: &str) {
    query.push("h.tenant_id = ").push_bind(permit.tenant().uuid());
    query.push(" and t.key = ").push_bind(key.to_owned());
    query.push(" and (h.ends_at is null or h.ends_at > ").push_bind(filter.now).push(")");
}

/// A pattern of `like` for texts that start so.
fn starting_with(start: &str) -> String {
    let mut pattern = String::with_capacity(start.len() + 1);
    for c in start.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
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
