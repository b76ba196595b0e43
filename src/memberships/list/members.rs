//! Those of the list who are members. There may be a million, so each part of a filter is a set of ids
//! that one index alone gives (migrations/0018), and so is each order; rows of tables are read for the
//! people of the page only. Every index says how people stand, so status and kind cost nothing.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Filter, Order, StatusFilter,
    sql::{Query, Sort, Survey, Wanted, push_person, push_starts},
};
use crate::{
    decision::{MemberKind, MemberStatus, Time},
    error::Result,
};

// Of somebody who left, the address that was known then.
const COLUMNS: &str = "m.user_id, case when m.standing = 0 then m.email_canonical else u.email end email, \
     m.kind, m.status, m.epoch, m.first_name, m.last_name, m.department, m.job_title, m.phone, \
     m.location, m.external_id, m.metadata, \
     nullif(a.last_sign_in_at, '-infinity') last_sign_in_at, a.last_active_at, m.purge_at, \
     m.version, m.created_at, m.updated_at, false invited";

/// A part of a filter that one index answers.
#[derive(Debug, Clone, Copy)]
enum Term<'a> {
    ExternalId(&'a str),
    Starts(&'a str),
    Department(&'a str),
    /// Who holds a role, themselves or by a group.
    Held(Held, Uuid),
    Seen(Time),
}

/// Which role that is.
#[derive(Debug, Clone, Copy)]
enum Held {
    /// This one.
    Role,
    /// Any on this workspace or below it.
    Workspace,
}

/// The parts of a filter; those that match few come first, as a rule.
pub(super) struct Terms<'a>(Vec<Term<'a>>);

/// The most ids that are kept in mind between finding who matches and reading a page.
const MOST: i64 = 20_000;

/// How the rows of a page are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// Few match: they are read and then sorted.
    Sorting(Vec<Uuid>),
    /// Some match: in the order of the list, those who are among them.
    Picking(Vec<Uuid>),
    /// Many match: in the order of the list, each is looked up.
    Meeting,
    /// Who was removed has an index of their own, and is sorted.
    Removed,
}

impl Way {
    /// Whether a page is best read in the same manner whatever is asked for, so that it need not be
    /// planned anew each time.
    pub(super) fn is_plain(&self, terms: &Terms<'_>) -> bool {
        match self {
            Self::Sorting(_) => true,
            Self::Picking(_) | Self::Removed => false,
            Self::Meeting => terms.0.is_empty(),
        }
    }
}

impl Filter {
    pub(super) fn terms(&self, survey: &Survey) -> Terms<'_> {
        let terms = [
            self.external_id.as_deref().map(Term::ExternalId),
            self.query.as_deref().map(Term::Starts),
            self.department.as_deref().map(Term::Department),
            survey.role.map(|id| Term::Held(Held::Role, id)),
            survey.workspace.map(|id| Term::Held(Held::Workspace, id)),
            self.last_sign_in_before.map(Term::Seen),
        ];
        let mut terms: Vec<Term<'_>> = terms.into_iter().flatten().collect();
        // Nearly all may hold a role that everybody is given.
        terms.sort_by_key(|term| matches!(term, Term::Held(held, _) if held.kept(survey) > MOST));
        Terms(terms)
    }

    pub(super) fn way(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    pub(super) fn standing(&self) -> Standing {
        let (status, nobody) = match self.status {
            None => (None, false),
            Some(StatusFilter::Pending | StatusFilter::Member(MemberStatus::Removed)) => {
                (None, true)
            }
            Some(StatusFilter::Member(status)) => (Some(status), false),
        };
        Standing { status, kind: self.kind, nobody }
    }

    fn asks_for_removed(&self) -> bool {
        self.status == Some(StatusFilter::Member(MemberStatus::Removed))
    }
}

/// Which members, by what every index of them has.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    status: Option<MemberStatus>,
    kind: Option<MemberKind>,
    /// Those who have not joined, or are no members any more, are asked for.
    nobody: bool,
}

impl Standing {
    /// Of the row `table`, by the numbers that migrations/0003 gives.
    fn push(self, query: &mut Query, table: &str) {
        let statuses = [MemberStatus::Active, MemberStatus::Suspended].into_iter();
        let kinds = [MemberKind::Internal, MemberKind::External].into_iter();
        let numbers: Vec<String> = (1..)
            .zip(kinds.flat_map(|kind| statuses.clone().map(move |status| (kind, status))))
            .filter(|(_, (kind, _))| self.kind.is_none_or(|wanted| wanted == *kind))
            .filter(|(_, (_, status))| self.status.is_none_or(|wanted| wanted == *status))
            .map(|(number, _): (i16, _)| number.to_string())
            .collect();
        // As the partial indexes say it.
        query
            .push(format!("{table}.standing in ({}) and {table}.standing > 0", numbers.join(", ")));
        if self.nobody {
            query.push(" and false");
        }
    }
}

/// How many members have a kind and a status, which is kept.
pub(super) fn push_kept(query: &mut Query, wanted: &Wanted<'_>, standing: Standing) {
    query
        .push("select coalesce(sum(m.count), 0)::bigint from member_counts m where m.tenant_id = ");
    query.push_bind(wanted.tenant.uuid()).push(" and ");
    standing.push(query, "m");
}

/// How many members match, and the way to them.
pub(super) async fn find(
    conn: &mut PgConnection,
    wanted: &Wanted<'_>,
    terms: &Terms<'_>,
    survey: &Survey,
) -> Result<(i64, Way)> {
    if wanted.filter.asks_for_removed() {
        let found = match wanted.counted {
            Some(counted) => counted,
            None => {
                let mut query = Query::new("select count(*) from memberships m where ");
                push_removed(&mut query, wanted);
                query.build_query_scalar().persistent(false).fetch_one(conn).await?
            }
        };
        return Ok((found, Way::Removed));
    }
    let rows = survey.all.saturating_mul(wanted.limit);
    // To read one who matches costs as much as to pass over twenty in the order of the list.
    let sorting = |found: i64| found.saturating_mul(found).saturating_mul(20) < rows;
    if terms.0.is_empty() && !sorting(survey.standing) {
        // The index of every order has what is asked for.
        return Ok((survey.standing, Way::Meeting));
    }
    if let Some(counted) = wanted.counted.filter(|counted| counted - survey.invited > MOST) {
        return Ok((counted, Way::Meeting));
    }
    let count = async |conn: &mut PgConnection| {
        let mut query = Query::new("select (");
        terms.push_count(&mut query, wanted);
        query.push(")");
        // Planned anew each time: the best way depends on what is asked for.
        query.build_query_scalar::<i64>().persistent(false).fetch_one(conn).await
    };
    // To tell many from some, counting is the faster where it is one index that is counted, or where
    // most of it is kept.
    if let [Term::Department(_) | Term::Held(..) | Term::Seen(_)] = terms.0[..] {
        let found = count(&mut *conn).await?;
        if found > MOST {
            return Ok((found, Way::Meeting));
        }
    }
    let mut query = Query::new("select array(select x.user_id from (");
    terms.push_matching(&mut query, wanted);
    query.push(") x limit ").push_bind(MOST + 1).push(")");
    let mut ids: Vec<Uuid> =
        query.build_query_scalar().persistent(false).fetch_one(&mut *conn).await?;
    if i64::try_from(ids.len()).unwrap_or(i64::MAX) > MOST {
        return Ok((count(conn).await?, Way::Meeting));
    }
    ids.sort_unstable();
    ids.dedup();
    let found = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    let way = match found.saturating_mul(found) {
        _ if sorting(found) => Way::Sorting(ids),
        square if square < rows.saturating_mul(4) => Way::Picking(ids),
        _ => Way::Meeting,
    };
    Ok((found, way))
}

/// Only who was removed and is not purged.
fn push_removed(query: &mut Query, wanted: &Wanted<'_>) {
    let Filter { role, workspace, last_sign_in_before, .. } = wanted.filter;
    query.push("m.tenant_id = ").push_bind(wanted.tenant.uuid());
    query.push(" and m.standing = 0 and m.purged_at is null");
    push_person(query, "m", wanted.filter);
    if let Some(before) = last_sign_in_before {
        query.push(" and exists (select from activity s where s.tenant_id = m.tenant_id");
        query.push(" and s.user_id = m.user_id and s.last_sign_in_at < ").push_bind(*before);
        query.push(")");
    }
    // Their roles ended with their membership.
    if role.is_some() || workspace.is_some() {
        query.push(" and false");
    }
}

/// The page: ids in their order, and then what is shown of these people.
pub(super) fn push_page(query: &mut Query, wanted: &Wanted<'_>, terms: &Terms<'_>, way: &Way) {
    let sort = sort(wanted.filter.order);
    let tenant = wanted.tenant.uuid();
    let by_seen = wanted.filter.order == Order::LastSignIn;
    query.push(format!(
        "select {COLUMNS}, s.sort_major, s.sort_minor, s.id from (select {}, {} id from ",
        sort.columns(),
        sort.id
    ));
    if let Way::Sorting(ids) = way {
        query.push("unnest(").push_bind(ids.clone()).push(") x (id) join memberships m");
        query.push(" on m.user_id = x.id and m.tenant_id = ").push_bind(tenant);
        query.push(" join activity a on a.user_id = x.id and a.tenant_id = ").push_bind(tenant);
        query.push(" where true");
    } else if *way == Way::Removed {
        query.push("memberships m join activity a using (tenant_id, user_id) where ");
        push_removed(query, wanted);
    } else {
        let table = if by_seen { "a" } else { "m" };
        query.push(if by_seen { "activity a" } else { "memberships m" });
        query.push(format!(" where {table}.tenant_id = ")).push_bind(tenant).push(" and ");
        match way {
            Way::Picking(ids) => {
                // As the partial indexes say it; and a set that is looked up, not an index that is searched.
                query.push(format!("{table}.standing > 0 and coalesce({table}.user_id = any("));
                query.push_bind(ids.clone()).push("), false)");
            }
            _ => terms.push_each(query, wanted, table),
        }
    }
    sort.push_after(query, wanted);
    query.push(sort.order(wanted)).push(" limit ").push_bind(wanted.limit);
    query.push(") s join memberships m on m.user_id = s.id and m.tenant_id = ").push_bind(tenant);
    query.push(
        " join users u on u.id = s.id join activity a on a.user_id = s.id and a.tenant_id = ",
    );
    query.push_bind(tenant);
}

fn sort(order: Order) -> Sort {
    let (major, kind, id) = match order {
        Order::Name => ("m.last_folded", "text", "m.user_id"),
        Order::Email => ("m.email_canonical", "text", "m.user_id"),
        Order::LastSignIn => ("a.last_sign_in_at", "timestamptz", "a.user_id"),
        Order::Created => ("m.created_at", "timestamptz", "m.user_id"),
    };
    let minor = (order == Order::Name).then(|| "m.first_folded".to_owned());
    Sort { major: major.to_owned(), kind, minor, id }
}

impl Terms<'_> {
    /// Whether somebody may match more than once.
    fn repeats(&self) -> bool {
        matches!(self.0.first(), Some(Term::Starts(_) | Term::Held(..)))
    }

    /// Looks up whom a table gives in the order of the list.
    fn push_each(&self, query: &mut Query, wanted: &Wanted<'_>, table: &str) {
        wanted.filter.standing().push(query, table);
        for term in &self.0 {
            query.push(" and (");
            match term {
                // In this order it says where to begin or end.
                Term::Seen(before) if wanted.filter.order == Order::LastSignIn => {
                    query.push("a.last_sign_in_at < ").push_bind(*before);
                }
                _ => term.push_each(query, wanted, table),
            }
            query.push(")");
        }
    }

    /// How many members match, for what is not kept.
    fn push_count(&self, query: &mut Query, wanted: &Wanted<'_>) {
        if let [Term::Held(held, place)] = self.0[..] {
            return held.push_count(query, wanted, place);
        }
        query.push("select count(");
        query.push(if self.repeats() { "distinct x.user_id" } else { "*" }).push(") from (");
        self.push_matching(query, wanted);
        query.push(") x");
    }

    /// Ids of all who match, some more than once: those of the first term, looked up in the others.
    fn push_matching(&self, query: &mut Query, wanted: &Wanted<'_>) {
        let Some((first, others)) = self.0.split_first() else {
            query.push("select m.user_id from memberships m where m.tenant_id = ");
            query.push_bind(wanted.tenant.uuid()).push(" and ");
            return wanted.filter.standing().push(query, "m");
        };
        query.push("select y.user_id from (");
        first.push(query, wanted);
        query.push(") y where true");
        for term in others {
            query.push(" and (");
            match term {
                // Often most of all members, so it takes longer to find them than to look up the few.
                Term::Seen(_) => term.push_each(query, wanted, "y"),
                _ => term.push_of(query, wanted, "y"),
            }
            query.push(")");
        }
    }
}

impl Term<'_> {
    /// The selections that this term is made of: for all members who stand as is asked for, or for the
    /// one whose row of `of` says that they do. Their tables have names that no other has here.
    fn push_parts(
        self,
        query: &mut Query,
        wanted: &Wanted<'_>,
        of: Option<&str>,
        mut between: impl FnMut(&mut Query, usize),
    ) {
        let tenant = wanted.tenant.uuid();
        let mut begin = |query: &mut Query, n: usize, table: &str, from: &str| {
            between(query, n);
            query.push(format!("select {table}.user_id, {table}.standing from {from} where "));
            match of {
                // Assignments of a place are in the order of how their holders stand.
                Some(of) if table == "h" => push_holder(query, of),
                Some(of) => {
                    query.push(format!("{table}.user_id = {of}.user_id"));
                }
                None => wanted.filter.standing().push(query, table),
            }
            query.push(" and ");
        };
        match self {
            Self::ExternalId(id) => {
                begin(query, 0, "k", "memberships k");
                query.push("k.tenant_id = ").push_bind(tenant);
                query.push(" and k.external_id <> '' and k.external_id = ");
                query.push_bind(id.to_owned());
            }
            Self::Starts(start) => {
                push_starts(query, "k", start, |query, n| {
                    begin(query, n, "k", "memberships k");
                    query.push("k.tenant_id = ").push_bind(tenant).push(" and ");
                });
            }
            Self::Department(department) => {
                begin(query, 0, "k", "memberships k");
                query.push("k.tenant_id = ").push_bind(tenant);
                query.push(" and lower(k.department) = lower(");
                query.push_bind(department.to_owned()).push(")");
            }
            Self::Held(held, place) => {
                begin(query, 0, "h", "role_assignments h");
                held.push_live(query, wanted, place);
                begin(query, 1, "g", THROUGH_GROUPS);
                held.push_live(query, wanted, place);
                query.push(IN_GROUP);
            }
            Self::Seen(before) => {
                begin(query, 0, "s", "activity s");
                query.push("s.tenant_id = ").push_bind(tenant);
                query.push(" and s.last_sign_in_at < ").push_bind(before);
            }
        }
    }

    /// All who fit; some more than once.
    fn push(self, query: &mut Query, wanted: &Wanted<'_>) {
        self.push_parts(query, wanted, None, |query, n| {
            query.push(if n == 0 { "" } else { " union all " });
        });
    }

    /// Whether whoever a row of `of` is about fits, where many are asked for: the database looks up one
    /// by one, or finds all first.
    fn push_of(self, query: &mut Query, wanted: &Wanted<'_>, of: &str) {
        self.push_parts(query, wanted, Some(of), |query, n| {
            query.push(if n == 0 { "exists (" } else { ") or exists (" });
        });
        query.push(")");
    }

    /// The same, always one by one.
    fn push_each(self, query: &mut Query, wanted: &Wanted<'_>, of: &str) {
        self.push_parts(query, wanted, Some(of), |query, n| {
            query.push(if n == 0 { "exists (" } else { " offset 0) or exists (" });
        });
        query.push(" offset 0)");
    }
}

/// Not as a join in this order: what to begin with depends on how many groups hold the role.
const THROUGH_GROUPS: &str = "role_assignments h, group_members g";
const IN_GROUP: &str =
    " and h.standing is null and g.tenant_id = h.tenant_id and g.group_id = h.group_id";

impl Held {
    /// How many hold it themselves and without an end.
    const fn kept(self, survey: &Survey) -> i64 {
        match self {
            Self::Role => survey.role_held,
            Self::Workspace => survey.workspace_held,
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Role => "h.role_id",
            Self::Workspace => "h.workspace_id",
        }
    }

    /// Assignments of or in this place that have not ended.
    fn push_live(self, query: &mut Query, wanted: &Wanted<'_>, place: Uuid) {
        query.push("h.tenant_id = ").push_bind(wanted.tenant.uuid());
        query.push(format!(" and {} = ", self.column())).push_bind(place);
        query.push(" and (h.ends_at is null or h.ends_at > ").push_bind(wanted.filter.now);
        query.push(")");
    }

    /// Those who hold it themselves and without an end are kept count of; the others are counted.
    fn push_count(self, query: &mut Query, wanted: &Wanted<'_>, place: Uuid) {
        let (tenant, standing) = (wanted.tenant.uuid(), wanted.filter.standing());
        query.push("select coalesce(sum(c.count), 0)::bigint + (");
        query.push("select count(distinct x.user_id) from (");
        query.push("select h.user_id, h.standing from role_assignments h where ");
        self.push_live(query, wanted, place);
        query.push(" and h.ends_at is not null and ");
        standing.push(query, "h");
        query.push(format!(" union all select g.user_id, g.standing from {THROUGH_GROUPS} where "));
        self.push_live(query, wanted, place);
        query.push(IN_GROUP).push(" and ");
        standing.push(query, "g");
        query.push(") x where not exists (select from role_assignments h where ");
        self.push_live(query, wanted, place);
        query.push(" and h.ends_at is null and ");
        push_holder(query, "x");
        query.push(")) from holder_counts c where c.tenant_id = ").push_bind(tenant);
        query.push(" and c.place_id = ").push_bind(place).push(" and ");
        standing.push(query, "c");
    }
}

/// Whether an assignment is of the person that a row of `of` is about.
fn push_holder(query: &mut Query, of: &str) {
    query.push(format!("h.standing = {of}.standing and h.user_id = {of}.user_id"));
}
