//! Several servers over one database: a change that was acknowledged is obeyed by all of them, or they
//! answer nothing.

use std::time::Duration;

use futures::TryStreamExt;
use rolecall::{
    ids::Revision,
    proto::{self as pb, consistency::Requirement},
    secret::Keys,
    server::{Server, Settings},
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::world::{Api, World, check, field, reason, settings};

const SECOND: Duration = Duration::from_secs(1);

fn another(world: &World) -> Settings {
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    settings(&world.database, keys, "file:///dev/null")
}

/// A second server, with a lease of a second.
async fn second(world: &World) -> (Server, Api) {
    let settings = Settings { lease: SECOND, replica_name: "second".into(), ..another(world) };
    let server = Server::start(settings).await.unwrap();
    let api = world.operator.at(&server).await;
    (server, api)
}

async fn count(database: &SecretString, of: &str) -> i64 {
    let mut conn = PgConnection::connect(database.expose_secret()).await.unwrap();
    let sql = format!("select count(*) from {of}");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap()
}

/// A row of a replica that says nothing more.
async fn silent(world: &World, name: &str, lease_ms: i32) {
    sqlx::query(
        "insert into replicas (name, version, format, lease_ms, epoch, ack) values ($1, '', 1, $2, 0, 0)",
    )
    .bind(name)
    .bind(lease_ms)
    .execute(&mut world.owner().await)
    .await
    .unwrap();
}

fn workspace(tenant: &str, key: &str) -> pb::CreateWorkspaceRequest {
    pb::CreateWorkspaceRequest {
        tenant: tenant.into(),
        key: key.into(),
        display_name: key.into(),
        ..Default::default()
    }
}

async fn create(api: &Api, tenant: &str, key: &str) -> Result<String, Status> {
    let created = api.workspaces().create_workspace(workspace(tenant, key)).await?;
    Ok(created.into_inner().revision)
}

async fn ask(
    api: &Api,
    subject: &str,
    requirement: Option<Requirement>,
) -> Result<pb::CheckPermissionResponse, Status> {
    let consistency = requirement.map(|r| pb::Consistency { requirement: Some(r) });
    let question =
        pb::CheckPermissionRequest { consistency, ..check("acme", subject, "iam.administer", "") };
    Ok(api.permissions().check_permission(question).await?.into_inner())
}

/// The answers of one stream to the same question, each as new as this.
async fn stream(
    api: &Api,
    subject: &str,
    requirements: [Option<Requirement>; 4],
) -> Vec<pb::CheckPermissionStreamResponse> {
    let questions: Vec<_> = (0..)
        .zip(requirements)
        .map(|(correlation_id, requirement)| pb::CheckPermissionStreamRequest {
            tenant: "acme".into(),
            subject: subject.into(),
            permission: "iam.administer".into(),
            resource: String::new(),
            correlation_id,
            consistency: requirement.map(|r| pb::Consistency { requirement: Some(r) }),
        })
        .collect();
    let answers = api.permissions().check_permission_stream(futures::stream::iter(questions)).await;
    answers.unwrap().into_inner().try_collect().await.unwrap()
}

fn within(seconds: i64) -> Option<Requirement> {
    Some(Requirement::MaxStaleness(prost_types::Duration { seconds, nanos: 0 }))
}

/// Repeats until it is so; the test fails in half a minute.
async fn until<T>(mut it: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = it().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not happen");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_takes_away_the_other_refuses_at_once() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let member = world.member(&admin, "acme", "ben@acme.example", &[("administrator", "")]).await;
    let (server, other) = second(&world).await;
    for round in 0..40 {
        let asked = ask(&other, &member, None).await.unwrap();
        assert!(asked.allowed, "round {round}: {asked:?}");
        let suspend = pb::SuspendMembershipRequest {
            tenant: "acme".into(),
            user_id: member.clone(),
            ..Default::default()
        };
        admin.memberships().suspend_membership(suspend).await.unwrap();
        let asked = ask(&other, &member, None).await.unwrap();
        assert!(!asked.allowed, "round {round}: {asked:?}");
        let reactivate = pb::ReactivateMembershipRequest {
            tenant: "acme".into(),
            user_id: member.clone(),
            ..Default::default()
        };
        admin.memberships().reactivate_membership(reactivate).await.unwrap();
    }
    // What ends a session is a change like the others.
    let session = world.session("acme", "ben@acme.example").await;
    let revoke = pb::RevokeSessionRequest {
        tenant: "acme".into(),
        user_id: member.clone(),
        ..Default::default()
    };
    admin.sessions().revoke_session(revoke).await.unwrap();
    let ended = ask(&world.operator, &session, None).await.unwrap();
    assert_eq!(ended.reason(), pb::Reason::SessionEnded);
    assert!(ask(&other, &user, None).await.unwrap().allowed);
    server.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_a_replica_until_it_obeys() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    silent(&world, "deaf", 60_000).await;
    let change = tokio::spawn(async move { create(&admin, "acme", "paris").await });
    until(async || (count(&world.database, "workspaces").await == 1).then_some(())).await;
    // It is stored, and the other servers of this test's machine had time to obey.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!change.is_finished(), "nobody said that the change is obeyed");
    world.owner().await.execute("update replicas set ack = 1000000, epoch = (select epoch from clock) where name = 'deaf'")
        .await
        .unwrap();
    change.await.unwrap().unwrap();
    world.owner().await.execute("delete from replicas where name = 'deaf'").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_no_longer_than_the_lease_of_a_replica_that_is_gone() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    silent(&world, "gone", 1_000).await;
    create(&admin, "acme", "paris").await.unwrap();
    until(async || {
        (count(&world.database, "replicas where name = 'gone'").await == 0).then_some(())
    })
    .await;
    // Longer than a server's own lease, when that of the other is longer.
    let (server, hasty) = second(&world).await;
    silent(&world, "slow", 4_500).await;
    create(&hasty, "acme", "nice").await.unwrap();
    server.stop().await;
    // One that said that it answers nothing is not waited for at all.
    silent(&world, "troubled", 3_600_000).await;
    world
        .owner()
        .await
        .execute("update replicas set trouble = 'x' where name = 'troubled'")
        .await
        .unwrap();
    create(&admin, "acme", "lyon").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_leaves_no_row_and_one_that_was_killed_leaves_it_to_its_successor() {
    let world = World::start().await;
    let folder = std::env::temp_dir().join(format!("rolecall-successor-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let dead = uuid::Uuid::from_u128(7);
    std::fs::write(folder.join("lock"), dead.to_string()).unwrap();
    silent(&world, "killed", 3_600_000).await;
    sqlx::query("update replicas set proof = $1 where name = 'killed'")
        .bind(dead)
        .execute(&mut world.owner().await)
        .await
        .unwrap();
    let settings = || Settings { state_dir: Some(folder.clone()), ..another(&world) };
    let server = Server::start(settings()).await.unwrap();
    assert_eq!(count(&world.database, "replicas where name = 'killed'").await, 0);
    assert_eq!(count(&world.database, "replicas").await, 2);
    let refused = Server::start(settings()).await.err().expect("the folder is in use");
    assert!(refused.to_string().contains("give each its own"), "{refused}");
    server.stop().await;
    assert_eq!(count(&world.database, "replicas").await, 1);
    std::fs::remove_dir_all(folder).unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hears_nothing_answers_nothing_but_what_may_be_old() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let (server, api) = second(&world).await;
    assert!(ask(&api, &user, None).await.unwrap().allowed);
    let current = ask(&api, &user, within(60)).await.unwrap();
    assert_eq!((current.allowed, current.staleness), (true, None));
    let mut health =
        HealthClient::new(Api::to(&format!("http://{}", server.admin), "").await.channel);
    let mut status = async |service: &str| {
        let asked = HealthCheckRequest { service: service.into() };
        health.check(asked).await.unwrap().into_inner().status().as_str_name()
    };
    assert_eq!(status("").await, "SERVING");

    // No renewal comes through.
    let mut conn = world.owner().await;
    let mut tx = conn.begin().await.unwrap();
    tx.execute("lock table replicas in access exclusive mode").await.unwrap();
    let refused = until(async || ask(&api, &user, None).await.err()).await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("max_staleness"), "{refused}");
    let old = ask(&api, &user, within(60)).await.unwrap();
    assert!(old.allowed && old.staleness.unwrap().seconds >= 1, "{old:?}");
    assert_eq!(ask(&api, &user, within(0)).await.unwrap_err().code(), Code::Unavailable);
    let item = pb::CheckPermissionItem {
        subject: user.clone(),
        permission: "iam.administer".into(),
        resource: String::new(),
    };
    let mut batch = pb::BatchCheckPermissionsRequest {
        tenant: "acme".into(),
        items: vec![item],
        consistency: None,
    };
    let asked = api.permissions().batch_check_permissions(batch.clone()).await;
    assert_eq!(asked.unwrap_err().code(), Code::Unavailable);
    batch.consistency = Some(pb::Consistency { requirement: within(60) });
    let asked = api.permissions().batch_check_permissions(batch).await.unwrap().into_inner();
    assert!(asked.results[0].allowed && asked.staleness.is_some(), "{asked:?}");
    let requirements = [None, None, within(60), None];
    let told = stream(&api, &user, requirements).await;
    let old = |n: usize| n == 2;
    for (n, answer) in told.iter().enumerate() {
        assert_eq!(answer.correlation_id, n as u64, "{told:?}");
        assert_eq!((answer.allowed, answer.staleness.is_some()), (old(n), old(n)), "{answer:?}");
        let error = answer.error.as_ref().map_or("", |error| &error.reason);
        assert_eq!(error, if old(n) { "" } else { "UNAVAILABLE" });
    }
    until(async || (status("").await == "NOT_SERVING").then_some(())).await;
    assert_eq!(status("live").await, "SERVING", "a restart would not help");

    tx.rollback().await.unwrap();
    until(async || ask(&api, &user, None).await.ok()).await;
    until(async || (status("").await == "SERVING").then_some(())).await;
    server.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_passes_on_a_revision_never_sees_time_go_back() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (server, other) = second(&world).await;
    let at_least = |revision: &str| Some(Requirement::AtLeastAsFresh(revision.into()));
    let mut known: Revision = Revision::default();
    for n in 0..10 {
        let revision = create(&admin, "acme", &format!("office-{n}")).await.unwrap();
        for requirement in [at_least(&revision), Some(Requirement::FullyConsistent(true))] {
            let answer = ask(&other, &user, requirement).await.unwrap();
            let shown: Revision = answer.revision.parse().unwrap();
            assert!(answer.allowed && shown >= revision.parse().unwrap() && shown >= known);
            known = shown;
        }
    }
    // What is stored but not acknowledged shows to who asks for everything that is stored.
    silent(&world, "deaf", 60_000).await;
    let writer = admin.clone();
    let change = tokio::spawn(async move { create(&writer, "acme", "late").await });
    until(async || {
        (count(&world.database, "workspaces where key = 'late'").await == 1).then_some(())
    })
    .await;
    let answer = ask(&other, &user, Some(Requirement::FullyConsistent(true))).await.unwrap();
    assert!(answer.revision.parse::<Revision>().unwrap() > known);
    world.owner().await.execute("delete from replicas where name = 'deaf'").await.unwrap();
    change.await.unwrap().unwrap();

    for (revision, code, why) in [
        (known.at(known.number + 1_000).text(), Code::FailedPrecondition, "REVISION_LOST"),
        (
            Revision { epoch: known.epoch - 1, ..known }.text(),
            Code::FailedPrecondition,
            "REVISION_LOST",
        ),
        (
            Revision { epoch: known.epoch + 9, ..known }.text(),
            Code::FailedPrecondition,
            "REVISION_LOST",
        ),
        (
            Revision { installation: known.installation ^ 1, ..known }.text(),
            Code::FailedPrecondition,
            "REVISION_FOREIGN",
        ),
        ("rev_7".into(), Code::InvalidArgument, "INVALID_FIELD"),
    ] {
        let refused = ask(&other, &user, at_least(&revision)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why), "{revision}");
    }
    let mut list = pb::ListScopesRequest {
        tenant: "acme".into(),
        subject: user,
        permission: "iam.administer".into(),
        consistency: Some(pb::Consistency { requirement: within(9) }),
        ..Default::default()
    };
    let refused = other.permissions().list_scopes(list.clone()).await.unwrap_err();
    assert_eq!(field(&refused), "consistency.max_staleness");
    list.consistency = Some(pb::Consistency { requirement: at_least(&known.text()) });
    other.permissions().list_scopes(list).await.unwrap();
    server.stop().await;
    world.stop().await;
}

/// Waits until another epoch has begun, and both servers answer in it.
async fn new_epoch(before: Revision, user: &str, servers: [&Api; 2]) -> Revision {
    let mut now = before;
    for api in servers {
        now = until(async || {
            let answer = ask(api, user, None).await.ok()?;
            let revision: Revision = answer.revision.parse().unwrap();
            (revision.epoch > before.epoch).then_some(revision)
        })
        .await;
    }
    now
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_has_lost_changes_begins_another_epoch_and_says_which_it_lost() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    world.tenant("beta").await;
    let first = Server::start(Settings { lease: SECOND, ..another(&world) }).await.unwrap();
    let (second, two) = second(&world).await;
    let one = world.operator.at(&first).await;
    // Its own lease is ten seconds, for which the others would wait.
    let database = world.database.clone();
    let operator = world.operator.clone();
    let kept = create(&operator, "acme", "kept").await.unwrap();
    let lost = create(&operator, "acme", "lost").await.unwrap();
    world.stop().await;
    ask(&two, &user, None).await.unwrap();
    let before: Revision = ask(&one, &user, None).await.unwrap().revision.parse().unwrap();

    // As an older copy: without the last change.
    let mut conn = PgConnection::connect(database.expose_secret()).await.unwrap();
    let newest = lost.parse::<Revision>().unwrap().number.cast_signed();
    conn.execute("delete from workspaces where key = 'lost'").await.unwrap();
    sqlx::query("delete from events where revision >= $1")
        .bind(newest)
        .execute(&mut conn)
        .await
        .unwrap();
    // A tenant that is loaded meanwhile waits for nothing that never comes.
    let loading = ask_about(&two, "beta", &user);
    let now = new_epoch(before, &user, [&one, &two]).await;
    let _ = loading.await;
    assert!(ask_about(&two, "beta", &user).await.is_ok());
    let at_least = |revision: &str| Some(Requirement::AtLeastAsFresh(revision.into()));
    for api in [&one, &two] {
        let refused = ask(api, &user, at_least(&lost)).await.unwrap_err();
        assert_eq!(reason(&refused), "REVISION_LOST");
        assert!(ask(api, &user, at_least(&kept)).await.unwrap().allowed);
    }
    let told: (i64, i64) = sqlx::query_as("select base, lost from epochs where epoch = $1")
        .bind(i64::from(now.epoch))
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(told, (newest - 1, newest));
    // The number is given again, in another epoch.
    let again = create(&one, "acme", "again").await.unwrap();
    assert_eq!(again.parse::<Revision>().unwrap().number, lost.parse::<Revision>().unwrap().number);
    assert!(ask(&two, &user, at_least(&again)).await.unwrap().allowed);
    first.stop().await;
    second.stop().await;
}

async fn ask_about(api: &Api, tenant: &str, user: &str) -> Result<(), Status> {
    let question = check(tenant, user, "iam.administer", "");
    api.permissions().check_permission(question).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn other_events_under_the_same_numbers_are_another_history() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let (server, api) = second(&world).await;
    let database = world.database.clone();
    let operator = world.operator.clone();
    let change = create(&operator, "acme", "paris").await.unwrap();
    world.stop().await;
    let before: Revision = ask(&api, &user, None).await.unwrap().revision.parse().unwrap();
    let mut conn = PgConnection::connect(database.expose_secret()).await.unwrap();
    sqlx::query("update events set hash = sha256('other') where revision = $1")
        .bind(change.parse::<Revision>().unwrap().number.cast_signed())
        .execute(&mut conn)
        .await
        .unwrap();
    new_epoch(before, &user, [&api, &api]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_timeline_is_fenced_before_anything_is_changed_in_it() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let (first, one) = second(&world).await;
    let (second, two) = second(&world).await;
    let database = world.database.clone();
    world.stop().await;
    let before: Revision = ask(&one, &user, None).await.unwrap().revision.parse().unwrap();
    let mut conn = PgConnection::connect(database.expose_secret()).await.unwrap();
    conn.execute("update clock set timeline = 'before the failover'").await.unwrap();
    let refused = until(async || create(&one, "acme", "paris").await.err()).await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let now = new_epoch(before, &user, [&one, &two]).await;
    assert_eq!(now.number, before.number, "nothing was lost");
    create(&two, "acme", "lyon").await.unwrap();
    let known = Some(Requirement::AtLeastAsFresh(before.text()));
    assert!(ask(&one, &user, known).await.unwrap().allowed);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_format_is_not_made_while_an_older_server_lives_and_not_skipped() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    silent(&world, "veteran", 3_600_000).await;
    world
        .owner()
        .await
        .execute("update replicas set format = 0 where name = 'veteran'")
        .await
        .unwrap();
    let refused = create(&admin, "acme", "paris").await.unwrap_err();
    assert_eq!(reason(&refused), "REPLICA_TOO_OLD", "{refused}");
    world.owner().await.execute("delete from replicas where name = 'veteran'").await.unwrap();
    create(&admin, "acme", "paris").await.unwrap();

    let mut conn = world.owner().await;
    conn.execute(
        "insert into events (tenant_id, revision, n, at, format, body, hash)
         select tenant_id, revision + 1, 0, at, 2, body, 'x' from events
         order by revision desc, n desc limit 1",
    )
    .await
    .unwrap();
    let refused = until(async || ask(&world.operator, &user, None).await.err()).await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("upgraded"), "{refused}");
    let trouble = until(async || {
        let shown = rolecall::replica::state(&mut conn).await.unwrap().to_string();
        shown.contains("needs format 2").then_some(shown)
    })
    .await;
    assert!(trouble.contains("this program applies 1; upgrade it"), "{trouble}");
    world.stop().await;
}

#[cfg(debug_assertions)] // a release cannot be held
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_freezes_anywhere_holds_up_its_own_tenant_for_seconds_and_nobody_else() {
    use rolecall::faults::Point::{
        Authorised, Begun, Locked, Obeyed, Recorded, Sealed, Staged, Written,
    };
    let mut world = World::start().await;
    let points = [Begun, Locked, Authorised, Written, Recorded, Staged, Sealed, Obeyed];
    for n in 0..=points.len() {
        world.tenant(&format!("t{n}")).await;
    }
    let (server, other) = second(&world).await;
    let mut frozen = Vec::new();
    for (n, point) in points.into_iter().enumerate() {
        let mut held = world.server.app.faults.hold(point);
        let operator = world.operator.clone();
        let change =
            tokio::spawn(async move { create(&operator, &format!("t{n}"), "frozen").await });
        held.reached().await;
        frozen.push((held, change));
    }
    // Nobody else waits: neither for the tenants' locks, nor for the clock.
    for (api, key) in [(&other, "one"), (&world.operator, "two"), (&other, "three")] {
        create(api, &format!("t{}", points.len()), key).await.unwrap();
    }
    let changes = points.iter().enumerate().map(|(n, point)| {
        let other = other.clone();
        async move {
            let tenant = format!("t{n}");
            create(&other, &tenant, "next").await.unwrap_or_else(|e| panic!("{point:?}: {e}"))
        }
    });
    let patience = tokio::time::timeout(Duration::from_secs(9), futures::future::join_all(changes));
    patience.await.expect("the lock of a frozen writer is gone after five seconds");
    for ((held, change), point) in frozen.into_iter().zip(points) {
        drop(held);
        let outcome = change.await.unwrap();
        let stored = matches!(point, Sealed | Obeyed);
        assert_eq!(outcome.is_ok(), stored, "{point:?}: {outcome:?}");
    }
    server.stop().await;
    world.stop().await;
}
