//! Those of the list who are members. There may be a million, so each part of a filter is a set of ids
//! that one index alone gives (migrations/0018), and so is each order; rows of tables are read for the
//! people of the page only.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Filter, Order, StatusFilter,
    sql::{Query, Sort, Survey, Wanted, push_start},
};
use crate::{
    decision::{MemberKind, MemberStatus, Time},
    error::Result,
};

const COLUMNS: &str = "m.user_id, u.email, m.kind, m.status, m.epoch, m.first_name, m.last_name, \
     m.department, m.job_title, m.phone, m.location, m.external_id, m.metadata, \
     nullif(a.last_sign_in_at, '-infinity') last_sign_in_at, a.last_active_at, m.purge_at, \
     m.version, m.created_at, m.updated_at, false invited";

/// A part of a filter that one index answers.
#[derive(Debug, Clone, Copy)]
enum Term<'a> {
    Starts(&'a str),
    Department(&'a str),
    /// Who holds this role, themselves or by a group.
    Role(Uuid),
    /// Who holds a role on this workspace or below it.
    Workspace(Uuid),
    Seen(Time),
}

/// The parts of a filter; those that match few come first, as a rule.
pub(super) struct Terms<'a> {
    terms: Vec<Term<'a>>,
    /// How to look at status and kind.
    look: Look,
}

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
}

impl Filter {
    pub(super) fn terms(&self, survey: &Survey) -> Terms<'_> {
        // Nobody holds what is not there.
        let held =
            |key: &Option<String>, id: Option<Uuid>| key.as_ref().map(|_| id.unwrap_or_default());
        let terms = [
            self.query.as_deref().map(Term::Starts),
            self.department.as_deref().map(Term::Department),
            held(&self.role, survey.role).map(Term::Role),
            held(&self.workspace, survey.workspace).map(Term::Workspace),
            self.last_sign_in_before.map(Term::Seen),
        ];
        Terms { terms: terms.into_iter().flatten().collect(), look: Look::at(survey) }
    }

    pub(super) fn way(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    pub(super) fn standing(&self) -> Standing {
        let status = match self.status {
            Some(StatusFilter::Member(status)) => Some(status),
            Some(StatusFilter::Pending) | None => None,
        };
        let nobody = self.status == Some(StatusFilter::Pending);
        Standing { status, kind: self.kind, nobody }
    }
}

/// Which members, by what every index of them has.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    status: Option<MemberStatus>,
    kind: Option<MemberKind>,
    /// Those who have not joined are asked for.
    nobody: bool,
}

impl Standing {
    /// Of the row `table` of members or of their counts.
    fn push(self, query: &mut Query, table: &str) {
        query.push(format!("{table}.status <> 'removed'"));
        if let Some(status) = self.status {
            query.push(format!(" and {table}.status = ")).push_bind(status);
        }
        if let Some(kind) = self.kind {
            query.push(format!(" and {table}.kind = ")).push_bind(kind);
        }
        if self.nobody {
            query.push(" and false");
        }
    }

    /// What members stand like who do not stand so and were not removed.
    fn others(self) -> impl Iterator<Item = Self> {
        let statuses = [MemberStatus::Active, MemberStatus::Suspended].map(Some);
        let kinds = [MemberKind::Internal, MemberKind::External].map(Some);
        let by_status = statuses
            .into_iter()
            .filter(move |other| self.status.is_some() && *other != self.status)
            .map(move |status| Self { status, kind: None, ..self });
        let by_kind = kinds
            .into_iter()
            .filter(move |other| self.kind.is_some() && *other != self.kind)
            .map(move |kind| Self { kind, ..self });
        by_status.chain(by_kind)
    }

    /// The same of the member whose id this is.
    fn push_each(self, query: &mut Query, wanted: &Wanted<'_>, id: &str) {
        query.push("(select true from memberships m where m.tenant_id = ");
        query.push_bind(wanted.tenant.uuid()).push(format!(" and m.user_id = {id} and "));
        self.push(query, "m");
        query.push(" limit 1)");
    }
}

/// How the standing of those is looked at whom an index without it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Few stand so: whether they are among these.
    AmongThese,
    /// Few stand otherwise or were removed: whether they are not among those.
    NotAmongOthers,
    Each,
}

impl Look {
    fn at(survey: &Survey) -> Self {
        let few = (survey.all / 16).min(2 * MOST);
        if survey.standing <= few {
            Self::AmongThese
        } else if survey.all - survey.standing + survey.removed <= few {
            Self::NotAmongOthers
        } else {
            Self::Each
        }
    }

    fn push(self, query: &mut Query, wanted: &Wanted<'_>, id: &str) {
        let standing = wanted.filter.standing();
        if self == Self::Each {
            return standing.push_each(query, wanted, id);
        }
        let not = if self == Self::NotAmongOthers { "not " } else { "" };
        query.push(format!("coalesce({id} {not}in ("));
        if self == Self::AmongThese {
            push_standing(query, wanted, standing);
        } else {
            query.push("select m.user_id from memberships m where m.status = 'removed'");
            query.push(" and m.tenant_id = ").push_bind(wanted.tenant.uuid());
            for other in standing.others() {
                query.push(" union all ");
                push_standing(query, wanted, other);
            }
        }
        query.push("), false)");
    }
}

/// All kinds and statuses of members, since an index cannot skip what is not named.
const ANY: &str = "m.kind in ('internal', 'external') and m.status in ('active', 'suspended')";

/// Ids of all who stand so.
fn push_standing(query: &mut Query, wanted: &Wanted<'_>, standing: Standing) {
    query.push("select m.user_id from memberships m where m.tenant_id = ");
    query.push_bind(wanted.tenant.uuid()).push(format!(" and {ANY} and "));
    standing.push(query, "m");
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
    let rows = survey.all.saturating_mul(wanted.limit);
    // To read one who matches costs as much as to pass over twenty in the order of the list.
    let sorting = |found: i64| found.saturating_mul(found).saturating_mul(20) < rows;
    if terms.terms.is_empty() && !sorting(survey.standing) {
        // The index of every order has what is asked for.
        return Ok((survey.standing, Way::Meeting));
    }
    let count = async |conn: &mut PgConnection| {
        let mut query = Query::new("select (");
        push_count(&mut query, wanted, terms);
        query.push(")");
        // Planned anew each time: the best way depends on what is asked for.
        query.build_query_scalar::<i64>().persistent(false).fetch_one(conn).await
    };
    // To tell many from some, counting is the faster where one index is counted.
    let plain = wanted.filter.standing().others().next().is_none();
    if plain && terms.terms.len() == 1 && !terms.repeats() {
        let found = count(&mut *conn).await?;
        if found > MOST {
            return Ok((found, Way::Meeting));
        }
    }
    let mut query = Query::new("select array(select ");
    query.push(if terms.repeats() { "distinct x.user_id from (" } else { "x.user_id from (" });
    push_matching(&mut query, wanted, terms);
    query.push(") x limit ").push_bind(MOST + 1).push(")");
    let ids: Vec<Uuid> = query.build_query_scalar().persistent(false).fetch_one(&mut *conn).await?;
    let found = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    if found > MOST {
        return Ok((count(conn).await?, Way::Meeting));
    }
    let way = match found.saturating_mul(found) {
        _ if sorting(found) => Way::Sorting(ids),
        square if square < rows.saturating_mul(4) => Way::Picking(ids),
        _ => Way::Meeting,
    };
    Ok((found, way))
}

/// How many members match, for what is not kept.
fn push_count(query: &mut Query, wanted: &Wanted<'_>, terms: &Terms<'_>) {
    if let ([term @ Term::Seen(_)], Look::NotAmongOthers) = (terms.terms.as_slice(), terms.look)
        && wanted.filter.standing().others().next().is_none()
    {
        // All, without the few who were removed.
        query.push("select (select count(*) from (");
        term.push(query, wanted);
        query.push(") x) - (select count(*) from memberships m where m.status = 'removed' and ");
        query.push("m.tenant_id = ").push_bind(wanted.tenant.uuid()).push(" and ");
        term.push_of(query, wanted, "m.user_id");
        query.push(")");
        return;
    }
    query.push("select count(");
    query.push(if terms.repeats() { "distinct x.user_id" } else { "*" }).push(") from (");
    push_matching(query, wanted, terms);
    query.push(") x");
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
    } else {
        let table = if by_seen { "a" } else { "m" };
        query.push(if by_seen { "activity a" } else { "memberships m" });
        query.push(format!(" where {table}.tenant_id = ")).push_bind(tenant).push(" and ");
        match way {
            Way::Picking(ids) => {
                // As the partial indexes say it; and a set that is looked up, not an index that is searched.
                query.push(if by_seen { "true" } else { "m.status <> 'removed'" });
                query.push(format!(" and coalesce({table}.user_id = any("));
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
        Order::Name => ("lower(m.last_name)", "text", "m.user_id"),
        Order::Email => ("m.email_canonical", "text", "m.user_id"),
        Order::LastSignIn => ("a.last_sign_in_at", "timestamptz", "a.user_id"),
        Order::Created => ("m.created_at", "timestamptz", "m.user_id"),
    };
    let minor = (order == Order::Name).then(|| "lower(m.first_name)".to_owned());
    Sort { major: major.to_owned(), kind, minor, id }
}

/// Ids of all who match, some more than once: those of the first term, looked up in the others.
fn push_matching(query: &mut Query, wanted: &Wanted<'_>, Terms { terms, look }: &Terms<'_>) {
    let Some((first, others)) = terms.split_first() else {
        return push_standing(query, wanted, wanted.filter.standing());
    };
    query.push("select y.user_id from (");
    first.push(query, wanted);
    if first.stands() {
        query.push(") y where true");
    } else {
        // A fence: these are found once, not once for each part of the first term.
        query.push(" offset 0) y where ");
        look.push(query, wanted, "y.user_id");
    }
    for term in others {
        query.push(" and (");
        match term {
            // Often most of all members, so it takes longer to find them than to look up the few.
            Term::Seen(_) => term.push_each(query, wanted, "y.user_id"),
            _ => term.push_of(query, wanted, "y.user_id"),
        }
        query.push(")");
    }
}

impl Terms<'_> {
    /// Whether somebody may match more than once.
    fn repeats(&self) -> bool {
        matches!(self.terms.first(), Some(Term::Starts(_) | Term::Role(_) | Term::Workspace(_)))
    }

    /// Looks up whom a table gives in the order of the list.
    fn push_each(&self, query: &mut Query, wanted: &Wanted<'_>, table: &str) {
        let standing = wanted.filter.standing();
        if table == "m" {
            standing.push(query, table);
        } else {
            standing.push_each(query, wanted, "a.user_id");
        }
        for term in &self.terms {
            query.push(" and (");
            term.push_each(query, wanted, &format!("{table}.user_id"));
            query.push(")");
        }
    }
}

impl Term<'_> {
    /// Whether its index knows how people stand, and gives those who stand as they are asked for.
    const fn stands(self) -> bool {
        matches!(self, Self::Starts(_) | Self::Department(_))
    }

    /// The selections that this term is made of, for all members or those with an id. Their tables have
    /// names that no other has here, so that the id is the outer one.
    fn push_parts(
        self,
        query: &mut Query,
        wanted: &Wanted<'_>,
        id: Option<&str>,
        mut between: impl FnMut(&mut Query, usize),
    ) {
        let tenant = wanted.tenant.uuid();
        let of = |query: &mut Query, column: &str| {
            if let Some(id) = id {
                query.push(format!(" and {column} = {id}"));
            }
        };
        match self {
            Self::Starts(start) => {
                let columns = ["lower(k.first_name)", "lower(k.last_name)", "k.email_canonical"];
                for (n, column) in columns.into_iter().enumerate() {
                    between(query, n);
                    query.push("select k.user_id from memberships k where k.tenant_id = ");
                    query.push_bind(tenant).push(" and ");
                    wanted.filter.standing().push(query, "k");
                    query.push(" and ");
                    push_start(query, column, start);
                    of(query, "k.user_id");
                }
            }
            Self::Department(department) => {
                between(query, 0);
                query.push("select k.user_id from memberships k where k.tenant_id = ");
                query.push_bind(tenant).push(" and ");
                wanted.filter.standing().push(query, "k");
                query.push(" and lower(k.department) = lower(");
                query.push_bind(department.to_owned()).push(")");
                of(query, "k.user_id");
            }
            Self::Role(place) | Self::Workspace(place) => {
                let group = " join group_members g
                              on g.tenant_id = h.tenant_id and g.group_id = h.group_id";
                for (n, (id, join)) in [("h.user_id", ""), ("g.user_id", group)].iter().enumerate()
                {
                    between(query, n);
                    query.push(format!(
                        "select {id} from role_assignments h{join} where h.tenant_id = "
                    ));
                    query.push_bind(tenant).push(format!(" and {id} is not null"));
                    let column = if matches!(self, Self::Role(_)) { "role" } else { "workspace" };
                    query.push(format!(" and h.{column}_id = ")).push_bind(place);
                    query.push(" and (h.ends_at is null or h.ends_at > ");
                    query.push_bind(wanted.filter.now).push(")");
                    of(query, id);
                }
            }
            Self::Seen(before) => {
                between(query, 0);
                query.push("select s.user_id from activity s where s.tenant_id = ");
                query.push_bind(tenant).push(" and s.last_sign_in_at < ").push_bind(before);
                of(query, "s.user_id");
            }
        }
    }

    /// All who fit; some more than once.
    fn push(self, query: &mut Query, wanted: &Wanted<'_>) {
        self.push_parts(query, wanted, None, |query, n| {
            query.push(if n == 0 { "" } else { " union all " });
        });
    }

    /// Whether whoever has this id fits, where many are asked for: the database looks up one by one, or
    /// finds all first.
    fn push_of(self, query: &mut Query, wanted: &Wanted<'_>, id: &str) {
        self.push_parts(query, wanted, Some(id), |query, n| {
            query.push(if n == 0 { "exists (" } else { ") or exists (" });
        });
        query.push(")");
    }

    /// The same, always one by one.
    fn push_each(self, query: &mut Query, wanted: &Wanted<'_>, id: &str) {
        self.push_parts(query, wanted, Some(id), |query, n| {
            query.push(if n == 0 { "(" } else { " limit 1) is not null or (" });
        });
        query.push(" limit 1) is not null");
    }
}
