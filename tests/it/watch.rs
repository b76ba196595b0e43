//! The stream of changes: whole, in order, once; and ended for whoever may not, or does not, read it.

use std::time::Duration;

use rolecall::{ids::Revision, proto as pb};
use tonic::{Code, Status, Streaming, transport::Endpoint};

use crate::world::{Api, World, database, field, reason, role_on};

const SECOND: Option<prost_types::Duration> = Some(prost_types::Duration { seconds: 1, nanos: 0 });

fn of(tenant: &str) -> pb::WatchChangesRequest {
    pb::WatchChangesRequest { tenant: tenant.into(), heartbeat: SECOND, ..Default::default() }
}

fn of_all() -> pb::WatchChangesRequest {
    pb::WatchChangesRequest { all_tenants: true, ..of("") }
}

fn after(revision: &str, request: pb::WatchChangesRequest) -> pb::WatchChangesRequest {
    pb::WatchChangesRequest { after_revision: revision.into(), ..request }
}

type Changes = Streaming<pb::WatchChangesResponse>;

/// Before the first change of all.
fn beginning(world: &World) -> String {
    world.server.app.replica.facts().revision.at(0).text()
}

/// A stream that was opened, and where it starts.
async fn watch(by: &Api, request: pb::WatchChangesRequest) -> Result<(Changes, String), Status> {
    let mut changes = by.audit().watch_changes(request).await?.into_inner();
    let first = next(&mut changes).await?;
    assert!(first.events.is_empty(), "{first:?}");
    Ok((changes, first.revision))
}

async fn next(changes: &mut Changes) -> Result<pb::WatchChangesResponse, Status> {
    let message = tokio::time::timeout(Duration::from_secs(10), changes.message()).await;
    message.expect("a heartbeat at least")?.ok_or_else(|| Status::ok("the end"))
}

/// The next message with events.
async fn change(changes: &mut Changes) -> pb::WatchChangesResponse {
    loop {
        let message = next(changes).await.unwrap();
        if !message.events.is_empty() {
            return message;
        }
    }
}

/// How the stream ends, and how long it took.
async fn end(changes: &mut Changes) -> (Status, Duration) {
    let started = std::time::Instant::now();
    loop {
        if let Err(status) = next(changes).await {
            return (status, started.elapsed());
        }
        assert!(started.elapsed() < Duration::from_secs(5), "it goes on");
    }
}

async fn create(by: &Api, tenant: &str, key: &str) -> String {
    let create = pb::CreateWorkspaceRequest {
        tenant: tenant.into(),
        key: key.into(),
        display_name: "An office".into(),
        reason: "we grow".into(),
        ..Default::default()
    };
    by.workspaces().create_workspace(create).await.unwrap().into_inner().revision
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let (mut changes, start) = watch(&acme, of("acme")).await.unwrap();
    let writers = [("acme", acme.clone()), ("beta", beta)].map(|(tenant, by)| {
        tokio::spawn(async move {
            for n in 0..60 {
                create(&by, tenant, &format!("office-{n}")).await;
            }
        })
    });
    let mut seen = Vec::new();
    let mut reconnected = 0;
    while seen.len() < 60 {
        let message = change(&mut changes).await;
        assert!(
            message.events.iter().all(|e| e.tenant == "acme" && e.revision == message.revision)
        );
        seen.extend(message.events.into_iter().map(|event| event.target));
        if seen.len() % 7 == 0 {
            // Messages on their way are lost with the old stream.
            (changes, _) = watch(&acme, after(&message.revision, of("acme"))).await.unwrap();
            reconnected += 1;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let expected: Vec<String> = (0..60).map(|n| format!("office-{n}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(reconnected, 8);

    // From the start again, and only what is asked for.
    let (mut again, _) = watch(&acme, after(&start, of("acme"))).await.unwrap();
    assert_eq!(change(&mut again).await.events[0].target, "office-0");
    let roles = pb::WatchChangesRequest { verbs: vec!["tenant.*".into()], ..of("acme") };
    let (mut some, _) = watch(&acme, after(&beginning(&world), roles)).await.unwrap();
    let verbs =
        [change(&mut some).await, change(&mut some).await].map(|c| c.events[0].verb.clone());
    assert_eq!(verbs, ["tenant.created", "tenant.activated"]);
    drop((changes, again, some));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_in_whole_revisions_however_long_it_is() {
    const REVISIONS: u64 = 2_500;
    let pool = rolecall::db::pool(&database().await, 4).await.unwrap();
    let tenants = [uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2)];
    // One change is longer than a read.
    sqlx::query(
        "insert into events (tenant_id, revision, n, at, format, body, hash)
         select ($1::uuid[])[1 + revision % 2], revision, n, now(), 1,
                json_build_object('id', 'evt_' || replace(gen_random_uuid()::text, '-', ''),
                                  'verb', 'thing.happened', 'actor', 'x', 'target', 'y'), ''
         from generate_series(1, $2) revision,
              generate_series(0, case when revision = 777 then 449 else revision % 3 end) n",
    )
    .bind(tenants)
    .bind(i32::try_from(REVISIONS).unwrap())
    .execute(&pool)
    .await
    .unwrap();
    let tail = rolecall::replica::Tail::default();
    for (from, to) in [(0, 30), (10, 30), (20, 900), (900, 901), (0, REVISIONS), (2_499, REVISIONS)]
    {
        for tenant in [None, Some(tenants[0]), Some(tenants[1])] {
            let mut position = from;
            let mut found = Vec::new();
            while position < to {
                let only = tenant.map(Into::into);
                let stretch =
                    tail.after(&pool, only, position, Revision::default().at(to)).await.unwrap();
                assert!(stretch.until > position && stretch.until <= to);
                position = stretch.until;
                for revision in stretch.revisions {
                    let mine =
                        |e: &&rolecall::replica::EventText| only.is_none_or(|t| t == e.tenant);
                    let events = revision.events.iter().filter(mine);
                    found.extend(events.map(|event| (revision.number, event.n)));
                }
            }
            let expected: Vec<(i64, i32)> = sqlx::query_as(
                "select revision, n from events
                 where revision > $1 and revision <= $2 and ($3::uuid is null or tenant_id = $3)
                 order by revision, n",
            )
            .bind(i64::try_from(from).unwrap())
            .bind(i64::try_from(to).unwrap())
            .bind(tenant)
            .fetch_all(&pool)
            .await
            .unwrap();
            let expected: Vec<_> =
                expected.into_iter().map(|(r, n)| (r.unsigned_abs(), n)).collect();
            assert_eq!(found, expected, "{tenant:?} from {from} to {to}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_comes_whole_and_without_personal_values_or_reasons() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (mut changes, start) = watch(&acme, of("acme")).await.unwrap();
    let user = world.member(&acme, "acme", "maria@acme.example", &[("member", "")]).await;
    let invited = change(&mut changes).await;
    assert_eq!(invited.events[0].verb, "invitation.created");
    let joined = change(&mut changes).await;
    let verbs: Vec<_> = joined.events.iter().map(|event| event.verb.as_str()).collect();
    assert!(verbs.contains(&"member.added") && verbs.len() > 1, "{verbs:?}");
    assert!(joined.events.iter().any(|event| event.target == user));
    create(&acme, "acme", "paris").await;
    let office = change(&mut changes).await;
    for event in invited.events.iter().chain(&joined.events).chain(&office.events) {
        assert!(event.personal.is_empty() && event.reason.is_empty() && event.source.is_empty());
    }
    let text = format!("{invited:?}{joined:?}");
    assert!(!text.contains("maria@") && !text.contains("127.0.0.1"), "{text}");

    // The audit log names the same events.
    let list = pb::ListAuditEventsRequest {
        tenant: "acme".into(),
        page_size: 500,
        oldest_first: true,
        ..Default::default()
    };
    let logged = acme.audit().list_audit_events(list).await.unwrap().into_inner().events;
    let at = logged.iter().position(|e| e.id == invited.events[0].id).unwrap();
    let streamed: Vec<_> =
        [invited, joined, office].into_iter().flat_map(|c| c.events).map(|e| e.id).collect();
    let logged: Vec<_> = logged[at..].iter().map(|event| event.id.clone()).collect();
    assert_eq!(streamed, logged);
    assert_ne!(start, "");
    drop(changes);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_moves_the_point_to_resume_from_in_a_quiet_tenant() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let (mut changes, start) = watch(&acme, of("acme")).await.unwrap();
    let elsewhere = create(&beta, "beta", "paris").await;
    let started = std::time::Instant::now();
    let beat = next(&mut changes).await.unwrap();
    assert!(beat.events.is_empty() && started.elapsed() < Duration::from_secs(3));
    assert_eq!(beat.revision, elsewhere);
    assert_ne!(beat.revision, start);
    let here = create(&acme, "acme", "paris").await;
    let (mut resumed, from) = watch(&acme, after(&beat.revision, of("acme"))).await.unwrap();
    assert_eq!(from, beat.revision);
    assert_eq!(change(&mut resumed).await.revision, here);
    drop((changes, resumed));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_disconnected_and_can_resume() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let address = format!("http://{}", world.server.grpc);
    let narrow = Endpoint::from_shared(address).unwrap().initial_stream_window_size(1_024);
    let slow = Api { channel: narrow.connect().await.unwrap(), auth: acme.auth.clone() };
    let (mut changes, mut last) = watch(&slow, of("acme")).await.unwrap();
    let mut newest = String::new();
    for n in 0..120 {
        newest = create(&acme, "acme", &format!("office-{n}")).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut read = 0;
    let status = loop {
        match next(&mut changes).await {
            Ok(message) => {
                read += message.events.len();
                last = message.revision;
                assert!(read < 120, "nothing was cut");
            }
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(reason(&status), "READER_TOO_SLOW");
    let (mut changes, _) = watch(&acme, after(&last, of("acme"))).await.unwrap();
    while last != newest {
        let message = change(&mut changes).await;
        read += message.events.len();
        last = message.revision;
    }
    assert_eq!(read, 120);
    drop(changes);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_who_may_no_longer_is_ended_at_once() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "watcher".into(),
        display_names: [("en".to_owned(), "Watcher".to_owned())].into(),
        permissions: vec!["iam.changes.watch".into()],
        ..Default::default()
    };
    acme.roles().create_role(role).await.unwrap();
    let create = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: "index".into(),
        display_name: "Index".into(),
        ..Default::default()
    };
    let account = acme.service_accounts().create_service_account(create).await.unwrap();
    let account = account.into_inner().service_account.unwrap().id;
    let give = |ends: Option<prost_types::Timestamp>| pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: account.clone(),
        add: vec![pb::AssignRole { end_time: ends, ..role_on("watcher", "") }],
        ..Default::default()
    };
    let key = pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: account.clone(),
        display_name: "test".into(),
        ..Default::default()
    };
    let key = acme.service_accounts().create_api_key(key).await.unwrap().into_inner();
    let index = world.with(&key.secret).await;
    let status = watch(&index, of("acme")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");

    // The role is taken.
    let given = acme.memberships().update_member_roles(give(None)).await.unwrap().into_inner();
    let (mut changes, _) = watch(&index, of("acme")).await.unwrap();
    let take = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: account.clone(),
        remove: vec![given.roles[0].id.clone()],
        ..Default::default()
    };
    acme.memberships().update_member_roles(take).await.unwrap();
    let (status, took) = end(&mut changes).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(took < Duration::from_secs(1), "{took:?}");

    // The role ends by itself.
    let soon = world.server.app.clock.now() + chrono::TimeDelta::hours(1);
    acme.memberships().update_member_roles(give(Some(pb::timestamp(soon)))).await.unwrap();
    let (mut changes, _) = watch(&index, of("acme")).await.unwrap();
    world.advance(Duration::from_secs(3_601));
    let (status, took) = end(&mut changes).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(took < Duration::from_secs(1), "{took:?}");

    // The key is revoked.
    acme.memberships().update_member_roles(give(None)).await.unwrap();
    let (mut changes, _) = watch(&index, of("acme")).await.unwrap();
    let revoke = pb::RevokeApiKeyRequest {
        tenant: "acme".into(),
        api_key_id: key.api_key.unwrap().id,
        ..Default::default()
    };
    acme.service_accounts().revoke_api_key(revoke).await.unwrap();
    let (status, took) = end(&mut changes).await;
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, "KEY_REVOKED".into()));
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tenants_are_watched_by_the_installation_alone() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let refused = watch(&acme, of_all()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let foreign = watch(&acme, of("beta")).await.unwrap_err();
    let unknown = watch(&acme, of("nowhere")).await.unwrap_err();
    assert_eq!(foreign.code(), unknown.code());
    assert_eq!(foreign.message().replace("beta", "nowhere"), unknown.message());

    let (mut changes, start) = watch(&world.operator, of_all()).await.unwrap();
    let (mut one, _) = watch(&world.operator, of("beta")).await.unwrap();
    for (by, tenant) in [(&acme, "acme"), (&beta, "beta"), (&acme, "acme")] {
        create(by, tenant, &format!("office-{}", world.server.app.clock.now().timestamp_micros()))
            .await;
    }
    let mut tenants = Vec::new();
    while tenants.len() < 3 {
        tenants.extend(change(&mut changes).await.events.into_iter().map(|e| e.tenant));
    }
    assert_eq!(tenants, ["acme", "beta", "acme"]);
    assert_eq!(change(&mut one).await.events[0].tenant, "beta");
    let both = pb::WatchChangesRequest { all_tenants: true, ..of("acme") };
    for (request, wrong) in [
        (both, "tenant"),
        (after("rev_99999999", of_all()), "after_revision"),
        (after(&start[..25], of_all()), "after_revision"),
        (after("99", of_all()), "after_revision"),
        (after("rev_+1", of_all()), "after_revision"),
        (pb::WatchChangesRequest { verbs: vec!["%".into()], ..of_all() }, "verbs[0]"),
        (
            pb::WatchChangesRequest {
                heartbeat: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
                ..of_all()
            },
            "heartbeat",
        ),
    ] {
        let status = watch(&world.operator, request).await.unwrap_err();
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, wrong));
    }
    let far = start.parse::<Revision>().unwrap().at(99_999_999).text();
    let lost = watch(&world.operator, after(&far, of_all())).await.unwrap_err();
    assert_eq!((lost.code(), reason(&lost).as_str()), (Code::FailedPrecondition, "REVISION_LOST"));
    // All of history, in which every revision comes once.
    let (mut all, _) = watch(&world.operator, after(&beginning(&world), of_all())).await.unwrap();
    let mut expected = 1;
    loop {
        let revision = change(&mut all).await.revision;
        assert_eq!(revision.parse::<Revision>().unwrap().number, expected);
        expected += 1;
        if revision == start {
            break;
        }
    }
    drop((changes, one, all));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_opens_so_many_streams_and_a_server_that_stops_ends_them() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(watch(&acme, of("acme")).await.unwrap().0);
    }
    let status = watch(&acme, of("acme")).await.unwrap_err();
    let expected = (Code::ResourceExhausted, "TOO_MANY_WATCHERS".to_owned());
    assert_eq!((status.code(), reason(&status)), expected);
    let (mut operators, _) = watch(&world.operator, of("acme")).await.unwrap();
    streams.truncate(1);
    let mut freed = None;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        freed = watch(&acme, of("acme")).await.ok();
        if freed.is_some() {
            break;
        }
    }
    assert!(freed.is_some(), "a stream that ended gives its place back");
    let stopped = tokio::spawn(world.stop());
    for changes in [&mut streams[0], &mut operators] {
        let (status, took) = end(changes).await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    drop((streams, operators, freed));
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_told_what_becomes_of_the_accounts_of_its_people() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let bob = world.member(&acme, "acme", "bob@acme.example", &[]).await;
    let (mut at_acme, _) = watch(&acme, of("acme")).await.unwrap();
    let (mut at_beta, _) = watch(&beta, of("beta")).await.unwrap();
    let (user_id, reason) = (bob.clone(), "between us".to_owned());
    let disable = pb::DisableUserRequest { user_id, reason, ..Default::default() };
    world.operator.users().disable_user(disable).await.unwrap();
    let enable = || pb::EnableUserRequest { user_id: bob.clone(), ..Default::default() };
    world.operator.users().enable_user(enable()).await.unwrap();
    world.operator.users().enable_user(enable()).await.unwrap();
    create(&acme, "acme", "office").await;
    for (verb, target) in [
        ("member.account_disabled", bob.as_str()),
        ("member.account_enabled", &bob),
        ("workspace.created", "office"),
    ] {
        let message = change(&mut at_acme).await;
        let [event] = &message.events[..] else { panic!("{message:?}") };
        assert_eq!((event.verb.as_str(), event.target.as_str()), (verb, target));
    }
    create(&beta, "beta", "office").await;
    assert_eq!(change(&mut at_beta).await.events[0].verb, "workspace.created");

    // Why is for the installation to know, and the chain of the tenant holds.
    let list = |tenant: &str| pb::ListAuditEventsRequest {
        tenant: tenant.into(),
        target: bob.clone(),
        ..Default::default()
    };
    let told = acme.audit().list_audit_events(list("acme")).await.unwrap().into_inner().events;
    let told = told.iter().find(|event| event.verb == "member.account_disabled").unwrap();
    assert_eq!((told.reason.as_str(), told.source.as_str()), ("", ""));
    let kept = world.operator.audit().list_audit_events(list("system")).await.unwrap().into_inner();
    assert!(kept.events.iter().any(|e| e.verb == "user.disabled" && e.reason == "between us"));
    let verify = pb::VerifyAuditLogRequest { tenant: "acme".into() };
    assert!(acme.audit().verify_audit_log(verify).await.unwrap().into_inner().ok);
    world.stop().await;
}
