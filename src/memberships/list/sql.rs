//! The list of people, which open invitations are part of. Reads only.

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{
    Filter, Invited, Listed, Membership, Person, SortKey, Start, invited,
    members::{self, Standing, Terms, Way},
};
use crate::{
    access::Permit,
    assignments::{self, Shown},
    decision::{Time, scope_text},
    error::{Error, Result},
    ids::{Revision, TenantId},
    memberships::sql::Row,
    replica,
};

pub(super) type Query = QueryBuilder<Postgres>;

/// A page of the list, how many matched over all pages when the first was read, and the revision of the
/// page.
pub struct Found {
    pub rows: Vec<Listed>,
    pub total: i64,
    pub revision: Revision,
}

/// Which rows of a list, in which order.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub tenant: TenantId,
    pub filter: &'a Filter,
    pub after: Option<&'a SortKey>,
    pub limit: i64,
    /// How many there were when they were counted.
    pub counted: Option<i64>,
}

/// Lists people, in one snapshot.
pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    filter: &Filter,
    start: Option<&Start>,
    limit: i64,
) -> Result<Found> {
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let revision = replica::position(&mut tx).await?;
    let (after, counted) = start.map(|(after, total)| (after, *total)).unzip();
    let wanted = Wanted { tenant: permit.tenant(), filter, after, limit, counted };
    let survey = survey(&mut tx, &wanted).await?;
    let terms = filter.terms(&survey);
    let (members, way) = members::find(&mut tx, &wanted, &terms, &survey).await?;
    let rows = read(&mut tx, permit, &wanted, &terms, &way).await?;
    tx.rollback().await?;
    Ok(Found { rows, total: counted.unwrap_or(members + survey.invited), revision })
}

/// The next rows of the list, without who was removed, in a snapshot of the caller's, who goes on to the
/// end.
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
    let wanted = Wanted { tenant: permit.tenant(), filter, after, limit, counted: None };
    let terms = filter.terms(&survey(conn, &wanted).await?);
    read(conn, permit, &wanted, &terms, &Way::Meeting).await
}

/// What is known of a filter before anybody is looked at.
#[derive(sqlx::FromRow)]
pub(super) struct Survey {
    /// How many members have the kind and the status, and how many there are.
    pub standing: i64,
    pub all: i64,
    pub invited: i64,
    /// How many hold a role differs much, and the database guesses it by the id alone.
    pub role: Option<Uuid>,
    pub workspace: Option<Uuid>,
    /// How many hold them themselves and without an end.
    pub role_held: i64,
    pub workspace_held: i64,
}

async fn survey(conn: &mut PgConnection, wanted: &Wanted<'_>) -> Result<Survey> {
    let mut query = QueryBuilder::new("select (");
    members::push_kept(&mut query, wanted, wanted.filter.standing());
    query.push(") standing, (");
    members::push_kept(&mut query, wanted, Standing::default());
    query.push(") \"all\", (");
    invited::push_count(&mut query, wanted);
    query.push(") invited");
    let Filter { role, workspace, .. } = wanted.filter;
    for (table, column, key) in [
        ("roles t where true", "role", role),
        ("workspaces t where t.deleted_at is null", "workspace", workspace),
    ] {
        let place = |query: &mut Query| {
            query.push(format!("(select t.id from {table} and t.tenant_id = "));
            query.push_bind(wanted.tenant.uuid()).push(" and t.key = ").push_bind(key.clone());
            query.push(")");
        };
        query.push(", ");
        place(&mut query);
        query.push(format!(" {column}, (select coalesce(sum(c.count), 0)::bigint"));
        query.push(" from holder_counts c where c.tenant_id = ").push_bind(wanted.tenant.uuid());
        query.push(" and c.place_id = ");
        place(&mut query);
        query.push(format!(") {column}_held"));
    }
    let survey: Survey = query.build_query_as().fetch_one(conn).await?;
    for (place, key, found) in
        [("role", role, survey.role), ("workspace", workspace, survey.workspace)]
    {
        if let (Some(key), None) = (key, found) {
            let message = format!("no {place} `{key}` in this tenant; list its {place}s");
            return Err(Error::invalid(place, message));
        }
    }
    Ok(survey)
}

/// Joins stand in the order in which they are best made, and to try others takes as long as the page.
const JOINED: &str = "set local join_collapse_limit = 1";
/// And the index of the list's order is followed, however few the database thinks will match.
const JOINED_IN_ORDER: &str = "set local join_collapse_limit = 1; set local enable_sort = off";

async fn read(
    conn: &mut PgConnection,
    permit: &Permit,
    wanted: &Wanted<'_>,
    terms: &Terms<'_>,
    members: &Way,
) -> Result<Vec<Listed>> {
    let mut query =
        QueryBuilder::new("select l.*, l.sort_major::text major, l.sort_minor minor from ((");
    members::push_page(&mut query, wanted, terms, members);
    query.push(") union all (");
    invited::push_page(&mut query, wanted);
    let way = wanted.filter.way();
    query.push(format!(")) l order by l.sort_major {way}, l.sort_minor {way}, l.id {way} limit "));
    query.push_bind(wanted.limit);
    let sorted = matches!(members, Way::Sorting(_) | Way::Removed);
    let planning = if sorted { JOINED } else { JOINED_IN_ORDER };
    sqlx::raw_sql(planning).execute(&mut *conn).await?;
    let rows = query.build_query_as().persistent(members.is_plain(terms));
    let rows: Vec<ListedRow> = rows.fetch_all(&mut *conn).await?;
    with_roles(conn, permit, rows, wanted.filter.now).await
}

/// What rows are sorted by before their id.
pub(super) struct Sort {
    pub major: String,
    /// Of which type that is.
    pub kind: &'static str,
    /// A text; most orders have none.
    pub minor: Option<String>,
    /// The id by which an index continues the order.
    pub id: &'static str,
}

impl Sort {
    pub fn columns(&self) -> String {
        let minor = self.minor.as_deref().unwrap_or("''::text");
        format!("{} sort_major, {minor} sort_minor", self.major)
    }

    /// Only what comes after the last row of the page before.
    pub fn push_after(&self, query: &mut Query, wanted: &Wanted<'_>) {
        let Some(after) = wanted.after else { return };
        let Self { major, kind, minor, id } = self;
        let further = if wanted.filter.descending { "<" } else { ">" };
        let columns = minor.as_ref().map_or_else(String::new, |minor| format!(", {minor}"));
        query.push(format!(" and ({major}{columns}, {id}) {further} ("));
        query.push_bind(after.0.clone()).push(format!("::text::{kind}"));
        if minor.is_some() {
            query.push(", ").push_bind(after.1.clone());
        }
        query.push(", ").push_bind(after.2).push(")");
    }

    pub fn order(&self, wanted: &Wanted<'_>) -> String {
        let (way, Self { major, minor, id, .. }) = (wanted.filter.way(), self);
        let minor = minor.as_ref().map_or_else(String::new, |minor| format!(", {minor} {way}"));
        format!(" order by {major} {way}{minor}, {id} {way}")
    }
}

/// Only those who fit what a filter says of the person, by rows of `table` that no index need find.
pub(super) fn push_person(query: &mut Query, table: &str, filter: &Filter) {
    if let Some(kind) = filter.kind {
        query.push(format!(" and {table}.kind = ")).push_bind(kind);
    }
    if filter.external_id.is_some() {
        // Only members have one.
        query.push(" and false");
    }
    if let Some(department) = &filter.department {
        query.push(format!(" and lower({table}.department) = lower("));
        query.push_bind(department.clone()).push(")");
    }
    if let Some(start) = &filter.query {
        push_starts(query, table, start, |query, n| {
            query.push(if n == 0 { " and (" } else { " or " });
        });
        query.push(")");
    }
}

/// Whether the first name, the last name, the address starts so; before each comes what `begin` writes.
pub(super) fn push_starts(
    query: &mut Query,
    table: &str,
    start: &str,
    mut begin: impl FnMut(&mut Query, usize),
) {
    let columns =
        [("first_folded", "folded"), ("last_folded", "folded"), ("email_canonical", "lower")];
    for (n, (column, plain)) in columns.into_iter().enumerate() {
        begin(query, n);
        query.push(format!("{table}.{column} like starting({plain}("));
        query.push_bind(start.to_owned());
        query.push("))");
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
    now: Time,
) -> Result<Vec<Listed>> {
    let (invited, members): (Vec<&ListedRow>, Vec<_>) = rows.iter().partition(|row| row.invited);
    let ids = |rows: Vec<&ListedRow>| rows.into_iter().map(|row| row.id).collect::<Vec<Uuid>>();
    let (invited, members) = (ids(invited), ids(members));
    let mut roles = assignments::shown(&mut *conn, permit, &members).await?;
    if !invited.is_empty() {
        roles.extend(promised(conn, permit, &invited, now).await?);
    }
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
    now: Time,
) -> Result<HashMap<Uuid, Vec<Shown>>> {
    let rows = sqlx::query!(
        r#"select h.invitation_id, r.key "role", w.key "workspace?", h.path, h.starts_at, h.ends_at
           from invitation_roles h
           join roles r on r.tenant_id = $1 and r.id = h.role_id
           left join workspaces w on w.tenant_id = $1 and w.id = h.workspace_id
           where h.tenant_id = $1 and h.invitation_id = any($2) and w.deleted_at is null
             and (h.ends_at is null or h.ends_at > $3)
           order by r.key, w.key, h.path"#,
        permit.tenant() as TenantId,
        invitations,
        now
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
