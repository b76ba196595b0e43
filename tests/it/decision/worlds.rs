//! Random worlds in a real server: a single question, a batch and a stream, below the router and through
//! it, explain, and the three lists all answer as the naive reference does.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, TestRunner},
};
use prost::Message;
use rolecall::{
    decision::path_covers,
    ids::UserId,
    proto::{self as pb},
    secret::Keys,
    server::Server,
};
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use super::reference::{self, PERMISSIONS, PLACES, World as Random, naive};
use crate::{
    checks::{BATCH, CHECK, ask_both_ways, frame, item, streamed},
    world::{Api, World, check, settings},
};

/// Members of a random world.
const MEMBERS: u8 = 4;
/// Of all questions, one in so many is also explained.
const EXPLAINED: usize = 8;
/// Worlds in flight.
const AT_ONCE: usize = 4;
/// So many units of a random world's dates are a day each, so that a test's own time does not matter.
const DAY: i64 = 24 * 60 * 60;

/// A random world as the tenant `w<n>`.
struct Tenant {
    n: usize,
    world: Random,
}

fn id(kind: u128, world: usize, n: usize) -> Uuid {
    Uuid::from_u128(kind << 96 | (world as u128) << 32 | n as u128)
}

fn quoted(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("'{}'", value.to_string()))
}

impl Tenant {
    fn key(&self) -> String {
        format!("w{}", self.n)
    }

    fn user(&self, member: u8) -> String {
        UserId::from_uuid(id(1, self.n, usize::from(member))).to_string()
    }

    /// Only what the tables can hold: an assignment ends after it starts, and stands there once.
    fn of(n: usize, mut world: Random) -> Self {
        let mut seen = BTreeSet::new();
        world.assignments.retain(|a| {
            let lasts = a.starts.zip(a.ends).is_none_or(|(starts, ends)| starts < ends);
            let group_of_system = a.on_system && a.holder >= MEMBERS;
            let outsider = a.on_system
                && a.holder < MEMBERS
                && world.operators[usize::from(a.holder)].is_none();
            lasts
                && !group_of_system
                && !outsider
                && seen.insert((a.on_system, a.holder, a.role, a.place))
        });
        Self { n, world }
    }

    /// Statements that make it, with roles on the installation of its own.
    fn rows(&self) -> String {
        let Self { n, world } = self;
        let tenant = id(0, *n, 1);
        let status = if world.tenant_active { "active" } else { "suspended" };
        let mut sql = format!(
            "insert into tenants (id, key, display_name, status, created_at, updated_at)
             values ('{tenant}', 'w{n}', 'w{n}', '{status}', now(), now());"
        );
        for (m, (_, disabled, _)) in world.members.iter().enumerate() {
            let (user, email) = (id(1, *n, m), format!("m{m}@w{n}.example"));
            sql += &format!(
                "insert into users (id, email, email_canonical, first_name, last_name, disabled,
                    created_at, updated_at)
                 values ('{user}', '{email}', '{email}', 'M', '{m}', {disabled}, now(), now());"
            );
        }
        for (w, key) in ["w1", "w2"].iter().enumerate() {
            let workspace = id(3, *n, w);
            sql += &format!(
                "insert into workspaces (tenant_id, id, key, display_name, created_at, updated_at)
                 values ('{tenant}', '{workspace}', '{key}', '{key}', now(), now());"
            );
        }
        for g in 0..2 {
            let group = id(4, *n, g);
            sql += &format!(
                "insert into groups (tenant_id, id, key, display_name, created_at, updated_at)
                 values ('{tenant}', '{group}', 'g{g}', 'g{g}', now(), now());"
            );
        }
        for home in [tenant, Uuid::nil()] {
            sql += &self.roles(home);
            sql += &self.members(home);
            sql += &self.assignments(home);
        }
        sql
    }

    fn roles(&self, home: Uuid) -> String {
        let Self { n, world } = self;
        let kind = if home.is_nil() { 6 } else { 2 };
        let mut sql = String::new();
        for (r, role) in world.roles.iter().enumerate() {
            let (role_id, permissions) = (id(kind, *n, r), role.permissions.join(","));
            let reach = ["here", "joined", "everywhere"][usize::from(role.reach)];
            sql += &format!(
                "insert into roles (tenant_id, id, key, permissions, reach, created_at, updated_at)
                 values ('{home}', '{role_id}', 'r{n}-{r}', '{{{permissions}}}', '{reach}',
                         now(), now());"
            );
        }
        for (r, role) in world.roles.iter().enumerate() {
            for included in role.includes.iter().map(|i| usize::from(*i)).filter(|i| *i != r) {
                let (role_id, included) = (id(kind, *n, r), id(kind, *n, included));
                sql += &format!(
                    "insert into role_includes values ('{home}', '{role_id}', '{included}')
                     on conflict do nothing;"
                );
            }
        }
        sql
    }

    fn members(&self, home: Uuid) -> String {
        let Self { n, world } = self;
        let mut sql = String::new();
        for (m, (active, _, groups)) in world.members.iter().enumerate() {
            let active = if home.is_nil() { world.operators[m] } else { Some(*active) };
            let Some(active) = active else { continue };
            let user = id(1, *n, m);
            let (status, standing) = if active { ("active", 1) } else { ("suspended", 2) };
            sql += &format!(
                "insert into memberships (tenant_id, user_id, kind, status, created_at, updated_at)
                 values ('{home}', '{user}', 'internal', '{status}', now(), now());"
            );
            for group in groups.iter().filter(|_| !home.is_nil()) {
                let group = id(4, *n, usize::from(*group));
                sql += &format!(
                    "insert into group_members
                     values ('{home}', '{group}', '{user}', {standing}, now())
                     on conflict do nothing;"
                );
            }
        }
        sql
    }

    fn assignments(&self, home: Uuid) -> String {
        let Self { n, world } = self;
        let mut sql = String::new();
        for (a, given) in world.assignments.iter().enumerate() {
            if given.on_system != home.is_nil() {
                continue;
            }
            let member = given.holder < MEMBERS;
            let user = member.then(|| id(1, *n, usize::from(given.holder)));
            let group = (!member).then(|| id(4, *n, usize::from(given.holder - MEMBERS)));
            let role = id(if given.on_system { 6 } else { 2 }, *n, usize::from(given.role));
            let place = PLACES[given.place];
            let (workspace, path) = match place.strip_prefix("workspaces/") {
                Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
                None => ("", place),
            };
            let workspace =
                (!workspace.is_empty()).then(|| id(3, *n, usize::from(workspace == "w2")));
            let date = |at: Option<i64>| match at {
                Some(at) => format!("date_trunc('hour', now()) + {at} * interval '1 day'"),
                None => "null".to_owned(),
            };
            sql += &format!(
                "insert into role_assignments (tenant_id, id, user_id, standing, group_id,
                    role_id, workspace_id, path, starts_at, ends_at, created_at, created_by)
                 select '{home}', '{}', u.id, m.standing, {}, '{role}', {}, '{path}', {}, {},
                    now(), 'test'
                 from (values ({}::uuid)) u (id)
                 left join memberships m on m.tenant_id = '{home}' and m.user_id = u.id;",
                id(5, *n, a),
                quoted(group),
                quoted(workspace),
                date(given.starts),
                date(given.ends),
                quoted(user),
            );
        }
        sql
    }

    fn questions(&self) -> Vec<(u8, &'static str, &'static str)> {
        let places = |m, word| PLACES.iter().map(move |place| (m, word, *place));
        let words = |m| PERMISSIONS.iter().flat_map(move |word| places(m, *word));
        (0..MEMBERS).flat_map(words).collect()
    }

    /// Asks everything in every way; how many questions that were.
    async fn ask(&self, api: &Api, now: i64) -> usize {
        let questions = self.questions();
        let expected: Vec<bool> =
            questions.iter().map(|(m, word, at)| naive(&self.world, *m, word, at, now)).collect();
        let single = self.singles(api, &questions).await;
        let context = |n: usize| (self.key(), now, questions[n], &self.world);
        for n in 0..questions.len() {
            assert_eq!(single[n].0, expected[n], "{:?}", context(n));
        }
        assert_eq!(self.batch(api, &questions).await, single, "{:?}", context(0));
        // The same with another member in every item.
        let mut mixed: Vec<usize> = (0..questions.len()).collect();
        mixed.sort_by_key(|n| n % (questions.len() / usize::from(MEMBERS)));
        let in_turns: Vec<_> = mixed.iter().map(|n| questions[*n]).collect();
        let expected: Vec<_> = mixed.iter().map(|n| single[*n]).collect();
        assert_eq!(self.batch(api, &in_turns).await, expected, "{:?}", context(0));
        assert_eq!(self.streamed(api, &questions).await, single, "{:?}", context(0));
        for n in (0..questions.len()).filter(|n| (n + self.n).is_multiple_of(EXPLAINED)) {
            assert_eq!(self.explained(api, questions[n]).await, single[n], "{:?}", context(n));
        }
        self.lists(api, now).await;
        questions.len()
    }

    async fn singles(&self, api: &Api, questions: &[(u8, &str, &str)]) -> Vec<(bool, i32)> {
        let asked = questions.iter().map(|(m, word, at)| async move {
            let question = check(&self.key(), &self.user(*m), word, at);
            let raw = ask_both_ways(api, CHECK, frame(&question.encode_to_vec())).await;
            let answer = pb::CheckPermissionResponse::decode(raw.body.slice(5..)).unwrap();
            (answer.allowed, answer.reason)
        });
        stream::iter(asked.collect::<Vec<_>>()).buffered(16).collect().await
    }

    async fn batch(&self, api: &Api, questions: &[(u8, &str, &str)]) -> Vec<(bool, i32)> {
        let items = questions.iter().map(|(m, word, at)| item(&self.user(*m), word, at));
        let batch = pb::BatchCheckPermissionsRequest {
            tenant: self.key(),
            items: items.collect(),
            consistency: None,
        };
        let raw = ask_both_ways(api, BATCH, frame(&batch.encode_to_vec())).await;
        let answer = pb::BatchCheckPermissionsResponse::decode(raw.body.slice(5..)).unwrap();
        answer.results.iter().map(|result| (result.allowed, result.reason)).collect()
    }

    async fn streamed(&self, api: &Api, questions: &[(u8, &str, &str)]) -> Vec<(bool, i32)> {
        let asked: Vec<_> = questions
            .iter()
            .zip(0..)
            .map(|((m, word, at), n)| streamed(n, check(&self.key(), &self.user(*m), word, at)))
            .collect();
        let answers = api.permissions().check_permission_stream(stream::iter(asked)).await;
        let mut answers: Vec<_> = answers.unwrap().into_inner().try_collect().await.unwrap();
        answers.sort_by_key(|answer| answer.correlation_id);
        answers.iter().map(|answer| (answer.allowed, answer.reason)).collect()
    }

    async fn explained(&self, api: &Api, (m, word, at): (u8, &str, &str)) -> (bool, i32) {
        let asked = pb::ExplainPermissionRequest {
            tenant: self.key(),
            subject: self.user(m),
            permission: word.into(),
            resource: at.into(),
            consistency: None,
        };
        let answer = api.permissions().explain_permission(asked).await.unwrap().into_inner();
        assert_eq!(answer.allowed, answer.grounds.is_some(), "{answer:?}");
        (answer.allowed, answer.reason)
    }

    async fn lists(&self, api: &Api, now: i64) {
        for place in PLACES {
            for word in PERMISSIONS {
                let may = (0..MEMBERS).filter(|m| naive(&self.world, *m, word, place, now));
                let may: BTreeSet<String> = may.map(|m| self.user(m)).collect();
                let listed = self.subjects(api, word, place).await;
                assert_eq!(listed, may, "{word} {place:?} {now} {:?}", self.world);
            }
        }
        for m in 0..MEMBERS {
            for word in PERMISSIONS {
                let scopes = self.scopes(api, m, word).await;
                for place in PLACES {
                    let within = scopes.iter().any(|scope| {
                        scope.scope == place
                            || scope.includes_beneath && path_covers(&scope.scope, place)
                    });
                    let may = naive(&self.world, m, word, place, now);
                    assert_eq!(within, may, "{m} {word} {place:?} {now} {:?}", self.world);
                }
            }
        }
    }

    /// Who of this world may, page by page; others with rights everywhere are left out.
    async fn subjects(&self, api: &Api, word: &str, place: &str) -> BTreeSet<String> {
        let own: BTreeSet<String> = (0..MEMBERS).map(|m| self.user(m)).collect();
        let (mut listed, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let asked = pb::ListSubjectsRequest {
                tenant: self.key(),
                permission: word.into(),
                resource: place.into(),
                page_size: 3,
                page_token,
                consistency: None,
            };
            let page = api.permissions().list_subjects(asked).await.unwrap().into_inner();
            for subject in page.subjects.into_iter().filter(|s| own.contains(&s.subject)) {
                assert!(listed.insert(subject.subject.clone()), "{subject:?} is listed twice");
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return listed;
            }
        }
    }

    async fn scopes(&self, api: &Api, m: u8, word: &str) -> Vec<pb::AllowedScope> {
        let asked = pb::ListScopesRequest {
            tenant: self.key(),
            subject: self.user(m),
            permission: word.into(),
            page_size: 1000,
            ..Default::default()
        };
        let page = api.permissions().list_scopes(asked).await.unwrap().into_inner();
        assert_eq!(page.next_page_token, "");
        page.scopes
    }
}

/// Asks about all worlds in one stream, each time about another than before.
async fn mixed(tenants: &[Tenant], api: &Api, now: i64) -> usize {
    let (mut asked, mut expected) = (Vec::new(), Vec::new());
    for at in PLACES {
        for word in PERMISSIONS {
            for m in 0..MEMBERS {
                for tenant in tenants {
                    let question = check(&tenant.key(), &tenant.user(m), word, at);
                    asked.push(streamed(expected.len() as u64, question));
                    expected.push(naive(&tenant.world, m, word, at, now));
                }
            }
        }
    }
    let answers = api.permissions().check_permission_stream(stream::iter(asked)).await;
    let answers: Vec<_> = answers.unwrap().into_inner().try_collect().await.unwrap();
    let ids: BTreeSet<u64> = answers.iter().map(|answer| answer.correlation_id).collect();
    assert_eq!((answers.len(), ids.len()), (expected.len(), expected.len()));
    for answer in &answers {
        let n = usize::try_from(answer.correlation_id).unwrap();
        assert_eq!(answer.allowed, expected[n], "{:?}", tenants[n % tenants.len()].world);
    }
    answers.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_ask_answers_as_the_naive_reference() {
    let config = reference::cases(8);
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let tenants: Vec<Tenant> = (0..config.cases as usize)
        .map(|n| Tenant::of(n, reference::world().new_tree(&mut runner).unwrap().current()))
        .collect();
    let world = World::start().await;
    let mut conn = PgConnection::connect(world.database.expose_secret()).await.unwrap();
    for tenant in &tenants {
        conn.execute(AssertSqlSafe(tenant.rows())).await.unwrap();
    }
    conn.close().await.unwrap();
    // Rows without events: only a server that starts now knows of them.
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    let mails = std::env::temp_dir();
    let mail_url = format!("file://{}", mails.display());
    let server = Server::start(settings(&world.database, keys, &mail_url)).await.unwrap();
    let api = world.operator.at(&server).await;
    let mut asked = 0;
    for now in [0, 2, 4] {
        let at_once = stream::iter(&tenants).map(|tenant| tenant.ask(&api, now));
        asked += at_once.buffer_unordered(AT_ONCE).fold(0, async |all, one| all + one).await;
        asked += mixed(&tenants, &api, now).await;
        server.app.clock.advance(Duration::from_secs(2 * DAY.unsigned_abs()));
    }
    assert!(asked >= 500 * tenants.len(), "only {asked} questions");
    println!("{asked} questions, each in six ways");
    server.stop().await;
    world.stop().await;
}
