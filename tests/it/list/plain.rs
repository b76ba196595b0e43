//! The list against a plain look at everybody: it goes several ways, by how many match, and they all find
//! the same.

use sqlx::PgConnection;
use uuid::Uuid;

use super::*;

const PEOPLE: usize = 160;
const SECOND: i64 = 1_700_000_000;

/// What the test knows of somebody.
#[derive(Debug, Clone)]
struct Known {
    id: Uuid,
    first: &'static str,
    last: &'static str,
    email: String,
    department: &'static str,
    status: pb::MembershipStatus,
    kind: pb::MemberKind,
    /// Seconds after the epoch; nothing is never.
    seen: Option<i64>,
    created: i64,
    secretary: bool,
    /// Has a role in Lyon.
    lyon: bool,
}

/// Somebody of every sort, few of some: the numbers have no common divisor.
fn somebody(n: usize) -> Known {
    use pb::{MemberKind, MembershipStatus};
    let firsts = ["Ann", "Bea", "Abe", "Cleo"];
    let lasts = ["Stone", "Adams", "Brown", "Abel", "Stone"];
    let number = i64::try_from(n).unwrap();
    let by_group = n % 13 == 1;
    Known {
        id: Uuid::from_u128((n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
        first: firsts[n % 4],
        last: lasts[n / 4 % 5],
        email: format!("p{n:03}@plain.example"),
        department: ["Sales", "sales", "Support"][n % 3],
        status: match n {
            _ if n % 53 == 3 => MembershipStatus::Removed,
            _ if n % 41 == 5 => MembershipStatus::Suspended,
            _ => MembershipStatus::Active,
        },
        kind: if n % 37 == 2 { MemberKind::External } else { MemberKind::Internal },
        seen: (!n.is_multiple_of(5)).then_some(SECOND + number * 1_000),
        created: SECOND - number * 60,
        secretary: by_group || n % 4 == 1,
        lyon: by_group || n % 10 == 7,
    }
}

async fn join(db: &mut PgConnection, known: &Known) {
    let Known { id, first, last, email, department, kind, created, .. } = known;
    sqlx::query(
        "insert into users (id, email, email_canonical, first_name, last_name, created_at, updated_at)
         values ($1, $2, $2, $3, $4, now(), now())",
    )
    .bind(id)
    .bind(email)
    .bind(first)
    .bind(last)
    .execute(&mut *db)
    .await
    .unwrap();
    sqlx::query(
        "insert into memberships (tenant_id, user_id, kind, status, first_name, last_name, department,
                                  created_at, updated_at, email_canonical)
         select id, $1, $2, 'active', $3, $4, $5, to_timestamp($6), now(), $7
         from tenants where key = 'acme'",
    )
    .bind(id)
    .bind(kind.as_str_name().trim_start_matches("MEMBER_KIND_").to_lowercase())
    .bind(first)
    .bind(last)
    .bind(department)
    .bind(created)
    .bind(email)
    .execute(&mut *db)
    .await
    .unwrap();
}

/// How somebody stands, when they were seen, and their roles, also one whose date has passed.
async fn furnish(db: &mut PgConnection, n: usize, known: &Known) {
    let Known { id, status, seen, .. } = known;
    let status = status.as_str_name().trim_start_matches("MEMBERSHIP_STATUS_").to_lowercase();
    for (statement, holds) in [
        ("update memberships set status = $2 where user_id = $1", true),
        (
            "update activity set last_sign_in_at = to_timestamp($2::text::bigint) where user_id = $1",
            seen.is_some(),
        ),
        (
            "insert into role_assignments (tenant_id, id, user_id, standing, role_id, created_at,
                                           created_by)
             select t.id, gen_random_uuid(), $1, m.standing, r.id, now(), $2 from tenants t
             join memberships m on m.tenant_id = t.id and m.user_id = $1
             join roles r on r.tenant_id = t.id and r.key = 'secretary' where t.key = 'acme'",
            n % 4 == 1,
        ),
        (
            "insert into role_assignments (tenant_id, id, user_id, standing, role_id, workspace_id,
                                           created_at, created_by)
             select t.id, gen_random_uuid(), $1, m.standing, r.id, w.id, now(), $2 from tenants t
             join memberships m on m.tenant_id = t.id and m.user_id = $1
             join roles r on r.tenant_id = t.id and r.key = 'employee'
             join workspaces w on w.tenant_id = t.id and w.key = 'lyon' where t.key = 'acme'",
            n % 10 == 7,
        ),
        (
            "insert into role_assignments (tenant_id, id, user_id, standing, role_id, workspace_id,
                                           ends_at, created_at, created_by)
             select t.id, gen_random_uuid(), $1, m.standing, r.id, w.id,
                    now() - interval '1 hour', now(), $2
             from tenants t join memberships m on m.tenant_id = t.id and m.user_id = $1
             join roles r on r.tenant_id = t.id and r.key = 'secretary'
             join workspaces w on w.tenant_id = t.id and w.key = 'lyon' where t.key = 'acme'",
            n.is_multiple_of(6),
        ),
        (
            "insert into group_members (tenant_id, group_id, user_id, standing, created_at)
             select t.id, g.id, $1, m.standing, now()
             from tenants t join memberships m on m.tenant_id = t.id and m.user_id = $1
             join groups g on g.tenant_id = t.id
             where t.key = 'acme' and g.key = 'team' and $2 <> ''",
            n % 13 == 1,
        ),
    ] {
        let second = match statement {
            _ if statement.contains("last_sign_in_at") => seen.unwrap_or_default().to_string(),
            _ => status.clone(),
        };
        if holds {
            sqlx::query(statement).bind(id).bind(second).execute(&mut *db).await.unwrap();
        }
    }
}

/// The request of a number, each part of it in every combination with the others.
fn request(number: usize, turn: usize) -> pb::ListMembershipsRequest {
    let mut rest = number;
    let mut choose = |among: usize| {
        let chosen = rest % among;
        rest /= among;
        chosen
    };
    // Of the 24 orders and pages, every third with each filter.
    let other = number % 3 + 3 * turn;
    let mut terms = Vec::new();
    let mut status = 0;
    match choose(4) {
        1 => status = pb::MembershipStatus::Active.into(),
        2 => status = pb::MembershipStatus::Suspended.into(),
        3 => status = pb::MembershipStatus::Removed.into(),
        _ => {}
    }
    let kind = i32::try_from(choose(3)).unwrap();
    let department = if choose(2) == 1 { "SALES" } else { "" };
    let role = if choose(2) == 1 { "secretary" } else { "" };
    let workspace = if choose(2) == 1 { "lyon" } else { "" };
    if choose(2) == 1 {
        let time = chrono::DateTime::from_timestamp(SECOND + 30_500, 0).unwrap();
        terms.push(format!("last_sign_in_time < {}", time.format("%Y-%m-%dT%H:%M:%SZ")));
    }
    let query = if choose(2) == 1 { "ab" } else { "" };
    pb::ListMembershipsRequest {
        status,
        kind,
        department: department.into(),
        role: role.into(),
        workspace: workspace.into(),
        query: query.into(),
        filter: terms.join(" AND "),
        order: i32::try_from(other % 4 + 1).unwrap(),
        descending: other / 4 % 2 == 1,
        page_size: [100, 7, 1][other / 8],
        ..list()
    }
}

const REQUESTS: usize = 4 * 3 * 2 * 2 * 2 * 2 * 2;

fn matches(known: &Known, request: &pb::ListMembershipsRequest) -> bool {
    let starts = |text: &str| text.to_lowercase().starts_with(&request.query);
    let removed = known.status == pb::MembershipStatus::Removed;
    removed == (request.status() == pb::MembershipStatus::Removed)
        && (request.status == 0 || known.status == request.status())
        && (request.kind == 0 || known.kind == request.kind())
        && (request.department.is_empty() || known.department.to_uppercase() == request.department)
        && (request.role.is_empty() || known.secretary && !removed)
        && (request.workspace.is_empty() || known.lyon && !removed)
        && (request.filter.is_empty() || known.seen.is_none_or(|seen| seen < SECOND + 30_500))
        && (starts(known.first) || starts(known.last) || starts(&known.email))
}

fn sorted(mut people: Vec<Known>, request: &pb::ListMembershipsRequest) -> Vec<String> {
    people.sort_by(|a, b| {
        let by = match request.order() {
            pb::MembershipOrder::Email => a.email.cmp(&b.email),
            pb::MembershipOrder::LastSignInTime => a.seen.cmp(&b.seen),
            pb::MembershipOrder::CreateTime => a.created.cmp(&b.created),
            _ => (a.last, a.first).cmp(&(b.last, b.first)),
        };
        by.then(a.id.cmp(&b.id))
    });
    if request.descending {
        people.reverse();
    }
    people.into_iter().map(|known| known.email).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_in_every_order_finds_whom_a_plain_look_finds() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    scopes_and_roles(&admin).await;
    let mut owner = world.owner().await;
    let people: Vec<Known> = (0..PEOPLE).map(somebody).collect();
    for (n, known) in people.iter().enumerate() {
        join(&mut owner, known).await;
        furnish(&mut owner, n, known).await;
    }
    let mut none = 0;
    for (number, turn) in (0..REQUESTS).flat_map(|number| (0..8).map(move |turn| (number, turn))) {
        let mut request = request(number, turn);
        // Their administrator, whom the test did not make, is left out by the address.
        let matching = people.iter().filter(|known| matches(known, &request)).cloned().collect();
        let expected = sorted(matching, &request);
        none += usize::from(expected.is_empty());
        let mut found = Vec::new();
        for _ in 0..2 {
            let page =
                admin.memberships().list_memberships(request.clone()).await.unwrap().into_inner();
            let others = page.memberships.iter().map(|m| m.email.clone());
            found.extend(others.filter(|email| !email.starts_with("admin@")));
            let total = usize::try_from(page.total_count).unwrap();
            assert!([0, 1].contains(&(total - expected.len())), "{request:?}: {total}");
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                assert_eq!(found.len(), expected.len(), "{request:?}");
                break;
            }
        }
        assert_eq!(found, expected[..found.len()], "{request:?}");
    }
    assert!(none < REQUESTS * 5, "{none} requests find nobody");
    world.stop().await;
}
