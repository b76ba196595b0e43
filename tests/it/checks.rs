//! The ways to ask: one question, a batch, a stream, below the router and through it, and what is
//! malformed on the wire.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use prost::Message;
use rolecall::proto as pb;
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use tower::ServiceExt;

use crate::world::{Api, Auth, World, check, field, reason};

pub const CHECK: &str = "/rolecall.v1.PermissionService/CheckPermission";
pub const BATCH: &str = "/rolecall.v1.PermissionService/BatchCheckPermissions";
const STREAM: &str = "/rolecall.v1.PermissionService/CheckPermissionStream";
/// A trace that is kept takes the router.
const ROUTER: (&str, &str) =
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

/// What came back, as it was on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Raw {
    pub code: i32,
    pub text: String,
    pub body: Bytes,
}

/// Sends these bytes as the body of a call.
pub async fn send(api: &Api, path: &str, body: Bytes, headers: &[(&str, &str)]) -> Raw {
    send_in_pieces(api, path, vec![body], headers).await
}

/// The same, each piece in a frame of its own.
async fn send_in_pieces(
    api: &Api,
    path: &str,
    pieces: Vec<Bytes>,
    headers: &[(&str, &str)],
) -> Raw {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", api.bearer());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let pieces = pieces.into_iter().map(|piece| Ok::<_, tonic::Status>(Frame::data(piece)));
    let body = StreamBody::new(futures::stream::iter(pieces));
    let request = request.body(tonic::body::Body::new(body)).unwrap();
    let (head, body) = api.channel.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let value = |name| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    Raw {
        code: value("grpc-status").expect("a status").parse().unwrap(),
        text: value("grpc-message").unwrap_or_default(),
        body: body.to_bytes(),
    }
}

pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// Asks below the router and through it, and finds the same bytes.
pub async fn ask_both_ways(api: &Api, path: &str, body: Bytes) -> Raw {
    let short = send(api, path, body.clone(), &[]).await;
    let routed = send(api, path, body, &[ROUTER]).await;
    assert_eq!(short, routed, "{path}");
    short
}

pub fn item(subject: &str, permission: &str, resource: &str) -> pb::CheckPermissionItem {
    let question = check("", subject, permission, resource);
    pb::CheckPermissionItem {
        subject: question.subject,
        permission: question.permission,
        resource: question.resource,
    }
}

pub fn streamed(id: u64, question: pb::CheckPermissionRequest) -> pb::CheckPermissionStreamRequest {
    pb::CheckPermissionStreamRequest {
        tenant: question.tenant,
        subject: question.subject,
        permission: question.permission,
        resource: question.resource,
        correlation_id: id,
        ..Default::default()
    }
}

type Questions = mpsc::Sender<pb::CheckPermissionStreamRequest>;
type Answers = Streaming<pb::CheckPermissionStreamResponse>;

async fn open(api: &Api) -> (Questions, Answers) {
    let (questions, asked) = mpsc::channel(1);
    let answers = api.permissions().check_permission_stream(ReceiverStream::new(asked)).await;
    (questions, answers.unwrap().into_inner())
}

/// The next answer, as (id, allowed, reason or that of the error).
async fn next(answers: &mut Answers) -> (u64, bool, String) {
    let answer = tokio::time::timeout(Duration::from_secs(20), answers.next()).await;
    let answer = answer.expect("an answer in time").expect("an answer").unwrap();
    let reason = match &answer.error {
        Some(error) => format!("{} {}", error.reason, error.field),
        None => answer.reason().as_str_name().to_owned(),
    };
    (answer.correlation_id, answer.allowed, reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_in_order_and_a_malformed_item_fails_no_other() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let nobody = format!("usr_{}", "0".repeat(32));
    let items = vec![
        item(&user, "iam.administer", ""),
        item(&nobody, "iam.administer", ""),
        item("", "iam.administer", ""),
        item(&user, "Files", ""),
        item(&user, "files.read", "folders"),
        item(&user, "files.read", "workspaces/nowhere"),
        item(&user, "iam.administer", "folders/42"),
    ];
    let mut request =
        pb::BatchCheckPermissionsRequest { tenant: "acme".into(), items, consistency: None };
    let told = |response: &pb::BatchCheckPermissionsResponse| -> Vec<String> {
        let told = response.results.iter().map(|result| match &result.error {
            Some(error) => format!("{} {}", error.reason, error.field),
            None => format!("{} {}", result.allowed, result.reason().as_str_name()),
        });
        told.collect()
    };
    let expected = [
        "true REASON_ALLOWED",
        "false REASON_NOT_A_MEMBER",
        "INVALID_FIELD subject",
        "INVALID_FIELD permission",
        "INVALID_FIELD resource",
        "false REASON_WORKSPACE_UNKNOWN",
        "true REASON_ALLOWED",
    ];
    let raw = ask_both_ways(&admin, BATCH, frame(&request.encode_to_vec())).await;
    let response = pb::BatchCheckPermissionsResponse::decode(raw.body.slice(5..)).unwrap();
    assert_eq!(told(&response), expected);
    assert!(response.revision.starts_with("rev_"), "{}", response.revision);
    // Each error is what the single question is refused with.
    let alone = admin.permissions().check_permission(check("acme", "", "iam.administer", "")).await;
    let error = response.results[2].error.as_ref().unwrap();
    assert_eq!(alone.unwrap_err().message(), error.message);

    // With an address, which is looked up, the rest stays as it was.
    request.items.push(item("admin@acme.example", "iam.administer", ""));
    let response = admin.permissions().batch_check_permissions(request).await.unwrap().into_inner();
    assert_eq!(told(&response)[..7], expected);
    assert_eq!(told(&response)[7], "true REASON_ALLOWED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_one_to_a_thousand_items() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let batch = |count: usize| pb::BatchCheckPermissionsRequest {
        tenant: "acme".into(),
        items: vec![item(&user, "iam.administer", ""); count],
        consistency: None,
    };
    for count in [0, 1001] {
        let refused = admin.permissions().batch_check_permissions(batch(count)).await.unwrap_err();
        assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "items"));
        assert!(refused.message().contains("1 to 1000"), "{}", refused.message());
    }
    let answer = admin.permissions().batch_check_permissions(batch(1000)).await.unwrap();
    assert_eq!(answer.into_inner().results.iter().filter(|r| r.allowed).count(), 1000);
    ask_both_ways(&admin, BATCH, frame(&batch(1000).encode_to_vec())).await;

    // More than a message may hold.
    let mut huge = batch(1000);
    huge.items.iter_mut().for_each(|item| item.resource = "a".repeat(2000));
    let raw = ask_both_ways(&admin, BATCH, frame(&huge.encode_to_vec())).await;
    assert_eq!(raw.code, Code::OutOfRange as i32, "{raw:?}");

    // A batch asks about one tenant, and only whoever may ask there is answered.
    let mut elsewhere = batch(1);
    elsewhere.tenant = "beta".into();
    let refused = admin.permissions().batch_check_permissions(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_each_question_and_goes_on_after_a_malformed_one() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let (questions, mut answers) = open(&world.operator).await;
    let cases = [
        (check("acme", &user, "iam.administer", ""), true, "REASON_ALLOWED"),
        (check("acme", &user, "Files", ""), false, "INVALID_FIELD permission"),
        (check("nowhere", &user, "files.read", ""), false, "REASON_TENANT_UNKNOWN"),
        (check("No where", &user, "files.read", ""), false, "INVALID_FIELD tenant"),
        (check("acme", "rck_unknown", "files.read", ""), false, "REASON_SUBJECT_UNKNOWN"),
        (check("acme", "admin@acme.example", "iam.administer", ""), true, "REASON_ALLOWED"),
    ];
    for (id, (question, allowed, reason)) in (7..).zip(cases) {
        questions.send(streamed(id, question)).await.unwrap();
        assert_eq!(next(&mut answers).await, (id, allowed, reason.to_owned()));
    }
    drop(questions);
    assert!(answers.next().await.is_none(), "it ends when the questions do");
    world.stop().await;
}

/// The answers in the body of a stream, as (id, allowed, reason or that of the error).
fn answers(mut body: &[u8]) -> Vec<(u64, bool, String)> {
    let mut answers = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let answer = pb::CheckPermissionStreamResponse::decode(&rest[..length]).unwrap();
        assert_eq!(answer.error.is_some(), answer.revision.is_empty(), "{answer:?}");
        let reason = match &answer.error {
            Some(error) => format!("{} {}", error.reason, error.field),
            None => answer.reason().as_str_name().to_owned(),
        };
        answers.push((answer.correlation_id, answer.allowed, reason));
        body = &rest[length..];
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_however_its_bytes_are_cut() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let (_, other) = world.tenant("other").await;
    let cases = [
        (check("acme", &user, "iam.administer", ""), true, "REASON_ALLOWED"),
        (check("acme", &user, "iam.administer", "folders/42"), true, "REASON_ALLOWED"),
        (check("acme", &user, "iam.administer", "workspaces/x"), false, "REASON_WORKSPACE_UNKNOWN"),
        (check("other", &user, "iam.administer", ""), false, "REASON_NOT_A_MEMBER"),
        (check("other", &other, "iam.administer", ""), true, "REASON_ALLOWED"),
        (check("acme", &user, "iam.administer", "folders"), false, "INVALID_FIELD resource"),
        (check("acme", "rck_unknown", "files.read", ""), false, "REASON_SUBJECT_UNKNOWN"),
        (check("nowhere", &user, "files.read", ""), false, "REASON_TENANT_UNKNOWN"),
        (check("", "", "", ""), false, "INVALID_FIELD subject"),
    ];
    for (question, ..) in [&cases[0], &cases[4]] {
        // In memory, so that no question waits.
        world.operator.permissions().check_permission(question.clone()).await.unwrap();
    }
    let (mut body, mut expected) = (Vec::new(), Vec::new());
    for n in 0..500u64 {
        let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (question, allowed, reason) = &cases[((n * 7 + n / 9) % 9) as usize];
        body.extend(frame(&streamed(id, question.clone()).encode_to_vec()));
        expected.push((id, *allowed, (*reason).to_owned()));
    }
    let body = Bytes::from(body);
    for size in [64, 999, 16_384, body.len()] {
        // The first ones a few bytes at a time.
        let (first, rest) = body.split_at(5_000);
        let pieces = first.chunks(3).chain(rest.chunks(size));
        let pieces = pieces.map(|piece| body.slice_ref(piece)).collect();
        let raw = send_in_pieces(&world.operator, STREAM, pieces, &[]).await;
        assert_eq!((raw.code, raw.text.as_str()), (0, ""), "in pieces of {size}");
        assert_eq!(answers(&raw.body), expected, "in pieces of {size}");
    }
    let yes = || (7, true, "REASON_ALLOWED".to_owned());
    // What cannot be read ends it, after the answers to what came before.
    let good = streamed(7, cases[0].0.clone()).encode_to_vec();
    for (what, broken) in malformed(&good) {
        let body = [&frame(&good), &frame(&good), &broken].map(|part| &part[..]).concat();
        let raw = send(&world.operator, STREAM, body.into(), &[]).await;
        // As where tonic reads it.
        let alone = send(&world.operator, CHECK, broken.clone(), &[ROUTER]).await;
        let code = if broken.is_empty() { 0 } else { alone.code };
        assert_eq!(raw.code, code, "{what}: {raw:?} {alone:?}");
        let told = answers(&raw.body);
        assert!(told.starts_with(&[yes(), yes()]), "{what}: {told:?}");
    }
    let packed = send(&world.operator, STREAM, frame(&good), &[("grpc-encoding", "gzip")]).await;
    assert_eq!(packed.code, Code::Unimplemented as i32, "{packed:?}");
    world.stop().await;
}

/// Makes the tenant `slow`, which nobody asked about yet.
async fn unread_tenant(world: &mut World) {
    let administrator = pb::TenantAdministrator {
        email: "first@slow.example".into(),
        first_name: "First".into(),
        last_name: "Person".into(),
        ..Default::default()
    };
    let create = pb::CreateTenantRequest {
        key: "slow".into(),
        display_name: "Slow".into(),
        administrator: Some(administrator),
        ..Default::default()
    };
    world.operator.tenants().create_tenant(create).await.unwrap();
    world.mail_to("first@slow.example").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_being_read_holds_up_only_questions_about_itself() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    unread_tenant(&mut world).await;
    let (questions, mut answers) = open(&world.operator).await;
    questions.send(streamed(0, check("acme", &user, "iam.administer", ""))).await.unwrap();
    assert_eq!(next(&mut answers).await.0, 0);

    // Nobody reads roles, so nobody reads a tenant.
    let url = secrecy::ExposeSecret::expose_secret(&world.database).to_owned();
    let mut lock = PgConnection::connect(&url).await.unwrap();
    lock.execute("begin; lock table roles in access exclusive mode").await.unwrap();
    questions.send(streamed(1, check("slow", &user, "iam.administer", ""))).await.unwrap();
    for id in 2..20 {
        questions.send(streamed(id, check("acme", &user, "iam.administer", ""))).await.unwrap();
        assert_eq!(next(&mut answers).await, (id, true, "REASON_ALLOWED".to_owned()));
    }
    let mut asked = tonic::Request::new(check("slow", &user, "iam.administer", ""));
    asked.set_timeout(Duration::from_millis(200));
    let late = world.operator.permissions().check_permission(asked).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    lock.execute("commit").await.unwrap();
    assert_eq!(next(&mut answers).await, (1, false, "REASON_TENANT_PENDING".to_owned()));
    world.stop().await;
}

/// Many clients send each question of a stream in a frame of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_to_wait_is_stopped_by_its_window_and_not_by_the_end_of_its_connection() {
    const QUESTIONS: u64 = 20_000;
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    unread_tenant(&mut world).await;
    let api = world.operator.clone();
    let beside = || check("acme", &user, "iam.administer", "");
    api.permissions().check_permission(beside()).await.unwrap();
    let url = secrecy::ExposeSecret::expose_secret(&world.database).to_owned();
    let mut lock = PgConnection::connect(&url).await.unwrap();
    lock.execute("begin; lock table roles in access exclusive mode").await.unwrap();
    // The shortest there are, too.
    for subject in [user.as_str(), "x@y.example"] {
        let question = |id| streamed(id, check("slow", subject, "a.b", ""));
        let pieces: Vec<Bytes> =
            (0..QUESTIONS).map(|id| frame(&question(id).encode_to_vec())).collect();
        let length: usize = pieces.iter().map(Bytes::len).sum();
        assert!(length > 600_000, "more than a window, and than all that waits: {length}");
        let asking = {
            let api = api.clone();
            tokio::spawn(async move { send_in_pieces(&api, STREAM, pieces, &[]).await })
        };
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!asking.is_finished(), "nothing waits");
        // A call beside it on the same connection.
        let answer = api.permissions().check_permission(beside()).await;
        assert!(answer.unwrap().into_inner().allowed);
        if subject == user {
            asking.abort();
        } else {
            lock.execute("commit").await.unwrap();
            let told = asking.await.unwrap();
            let count = answers(&told.body).len() as u64;
            assert_eq!((told.code, count), (0, QUESTIONS), "{}", told.text);
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_the_ordinary_among_questions_that_arrive_together_changes_no_other() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (_, other) = world.tenant("other").await;
    unread_tenant(&mut world).await;
    let (account, _, secret) = checker(&admin).await;
    let session = world.session("acme", "admin@acme.example").await;
    let forged = format!("{}A", &session[..session.len() - 1]);
    let ask = async |api: &Api, questions: &[pb::CheckPermissionRequest]| {
        let messages = (0..).zip(questions).map(|(id, question)| streamed(id, question.clone()));
        let frames: Vec<Bytes> = messages.map(|m| frame(&m.encode_to_vec())).collect();
        let raw = send(api, STREAM, frames.concat().into(), &[]).await;
        (raw.code, answers(&raw.body))
    };
    // A caller who may ask here and not there.
    let own = || check("acme", &user, "iam.administer", "");
    let mut questions = vec![own(); 11];
    questions[5].tenant = "other".into();
    let (code, told) = ask(&admin, &questions).await;
    assert_eq!((code, told.len()), (Code::PermissionDenied as i32, 5));
    // Every kind of subject, twice, each as if it were alone.
    let kinds = [&user, &other, &account, &secret, &session, &forged, &forged, &user];
    let questions: Vec<_> = kinds
        .iter()
        .flat_map(|subject| vec![check("acme", subject, "iam.administer", ""); 2])
        .collect();
    let (code, told) = ask(&admin, &questions).await;
    assert_eq!((code, told.len()), (0, questions.len()));
    for (n, question) in questions.into_iter().enumerate() {
        let alone = admin.permissions().check_permission(question).await.unwrap().into_inner();
        let reason = alone.reason().as_str_name().to_owned();
        assert_eq!(told[n], (n as u64, alone.allowed, reason));
    }
    // A tenant that has to be read first, and somebody to look up.
    let mut questions = vec![own(); 30];
    questions[3].tenant = "slow".into();
    questions[20].subject = "admin@acme.example".into();
    let (code, told) = ask(&world.operator, &questions).await;
    assert_eq!(code, 0);
    let usual = |id: &u64| ![3, 20].contains(id);
    let order: Vec<u64> = told.iter().map(|(id, ..)| *id).filter(usual).collect();
    assert_eq!(order, (0..30).filter(usual).collect::<Vec<_>>());
    for (id, allowed, reason) in told {
        let expected = if id == 3 { "REASON_TENANT_PENDING" } else { "REASON_ALLOWED" };
        assert_eq!((allowed, reason.as_str()), (id != 3, expected), "{id}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_caller_may_no_longer_ask() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (account, key, secret) = checker(&admin).await;
    let api = world.with(&secret).await;
    let question = |id| streamed(id, check("acme", &user, "iam.administer", ""));

    let (questions, mut answers) = open(&api).await;
    questions.send(question(1)).await.unwrap();
    assert_eq!(next(&mut answers).await, (1, true, "REASON_ALLOWED".to_owned()));
    // Elsewhere it may not ask at all.
    questions.send(streamed(2, check("beta", &user, "files.read", ""))).await.unwrap();
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let (questions, mut answers) = open(&api).await;
    questions.send(question(3)).await.unwrap();
    assert_eq!(next(&mut answers).await.0, 3);
    let update =
        pb::RevokeApiKeyRequest { tenant: "acme".into(), api_key_id: key, ..Default::default() };
    admin.service_accounts().revoke_api_key(update).await.unwrap();
    questions.send(question(4)).await.unwrap();
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "KEY_REVOKED"));
    assert!(answers.next().await.is_none(), "{account}");
    world.stop().await;
}

/// A service account that may check, its key's id and the key.
async fn checker(by: &Api) -> (String, String, String) {
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "checker".into(),
        display_names: [("en".to_owned(), "Checker".to_owned())].into(),
        permissions: vec!["iam.permissions.check".into()],
        ..Default::default()
    };
    by.roles().create_role(role).await.unwrap();
    let create = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: "gateway".into(),
        display_name: "Gateway".into(),
        ..Default::default()
    };
    let account = by.service_accounts().create_service_account(create).await.unwrap();
    let account = account.into_inner().service_account.unwrap().id;
    let give = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: account.clone(),
        add: vec![pb::AssignRole { role: "checker".into(), ..Default::default() }],
        ..Default::default()
    };
    by.memberships().update_member_roles(give).await.unwrap();
    let create = pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: account.clone(),
        display_name: "test".into(),
        ..Default::default()
    };
    let key = by.service_accounts().create_api_key(create).await.unwrap().into_inner();
    (account, key.api_key.unwrap().id, key.secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_stops_its_own_questions_and_nobody_elses() {
    const QUESTIONS: usize = 200_000;
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    // With a runtime of its own, so that its end is the end of its connection.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", world.server.grpc));
    let endpoint = endpoint.unwrap().initial_stream_window_size(65_535);
    let endpoint = endpoint.initial_connection_window_size(65_535);
    let connecting = runtime.spawn(async move { endpoint.connect().await.unwrap() });
    let channel = connecting.await.unwrap();
    let lazy = Api { channel, auth: admin.auth.clone() };
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, subject) = (sent.clone(), user.clone());
    let questions = futures::stream::iter(0..QUESTIONS).map(move |id| {
        count.fetch_add(1, Ordering::Relaxed);
        streamed(id as u64, check("acme", &subject, "iam.administer", ""))
    });
    let asking = runtime.spawn(async move {
        lazy.permissions().check_permission_stream(questions).await.unwrap().into_inner()
    });
    let mut answers = asking.await.unwrap();
    let mut before = usize::MAX;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sent.swap(0, Ordering::Relaxed);
        sent.fetch_add(now, Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before > 0 && before < QUESTIONS / 2, "{before} were read");
    let answer =
        admin.permissions().check_permission(check("acme", &user, "iam.administer", "")).await;
    assert!(answer.unwrap().into_inner().allowed);
    // Whoever reads at last finds every answer in its place.
    for id in 0..5000 {
        assert_eq!(next(&mut answers).await.0, id);
    }
    runtime.shutdown_background();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_streams_at_once() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let (questions, mut answers) = open(&world.operator).await;
    questions.send(streamed(1, check("acme", &user, "iam.administer", ""))).await.unwrap();
    assert_eq!(next(&mut answers).await.0, 1);
    let stopping = tokio::time::timeout(Duration::from_secs(10), world.stop());
    let (stopped, last) = tokio::join!(stopping, answers.next());
    assert!(stopped.is_ok(), "the stream kept the server");
    assert_eq!(last.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_subject_is_answered_alike_below_the_router_and_through_it() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (account, _, secret) = checker(&admin).await;
    let session = world.session("acme", "admin@acme.example").await;
    let forged = format!("{}A", &session[..session.len() - 1]);
    let subjects = [
        user.as_str(),
        account.as_str(),
        secret.as_str(),
        session.as_str(),
        forged.as_str(),
        "rcs_",
        "rck_",
        "admin@acme.example",
        "nobody@acme.example",
        "usr_1",
        "",
    ];
    let callers = [
        admin.clone(),
        world.with(&secret).await,
        world.operator.clone(),
        world.with("rck_").await,
    ];
    for caller in &callers {
        for subject in subjects {
            for tenant in ["acme", "system", "nowhere", "No where", ""] {
                let question = check(tenant, subject, "iam.administer", "");
                ask_both_ways(caller, CHECK, frame(&question.encode_to_vec())).await;
            }
        }
    }
    let allowed = ask_both_ways(
        &admin,
        CHECK,
        frame(&check("acme", &session, "iam.administer", "").encode_to_vec()),
    )
    .await;
    assert!(
        pb::CheckPermissionResponse::decode(allowed.body.slice(5..)).unwrap().allowed,
        "{allowed:?}"
    );
    // On behalf of somebody, by whoever may not.
    let behalf = [("rolecall-on-behalf-of", user.as_str())];
    let body = frame(&check("acme", &user, "iam.administer", "").encode_to_vec());
    let short = send(&callers[1], CHECK, body.clone(), &behalf).await;
    assert_eq!(short, send(&callers[1], CHECK, body, &[behalf[0], ROUTER]).await);
    assert_eq!(short.code, Code::PermissionDenied as i32);
    world.stop().await;
}

/// What no server may take for this message, whose field 1 is a text.
fn malformed(good: &[u8]) -> [(&'static str, Bytes); 14] {
    let with = |more: &[u8]| frame(&[good, more].concat());
    let (mut longer, mut shorter, mut compressed) =
        (frame(good).to_vec(), frame(good).to_vec(), frame(good).to_vec());
    longer[4] += 1;
    shorter[4] -= 1;
    compressed[0] = 1;
    [
        ("nothing", Bytes::new()),
        ("half a prefix", Bytes::from_static(&[0, 0, 0])),
        ("a prefix alone", Bytes::from_static(&[0, 0, 0, 0, 9])),
        ("cut off", frame(good).slice(..good.len())),
        ("a length too long", longer.into()),
        ("a length too short", shorter.into()),
        ("an enormous length", Bytes::from_static(&[0, 255, 255, 255, 255, 1])),
        ("a compressed message", compressed.into()),
        ("a text that is not UTF-8", with(&[0x0a, 2, 0xc3, 0x28])),
        ("a number for a text", with(&[0x08, 1])),
        ("a text longer than the message", with(&[0x0a, 200, 1, b'a'])),
        ("the field zero", with(&[0x02, 0])),
        ("a wire type that does not exist", with(&[0x0f, 0])),
        ("a varint without end", with(&[0xff; 11])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_share_a_connection_are_told_apart() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (other, stranger) = world.tenant("other").await;
    let credentials = [
        admin.auth.clone(),
        other.auth.clone(),
        world.operator.auth.clone(),
        Auth::of("rck_unknown"),
        Auth::of(""),
    ];
    let callers = credentials.map(|auth| Api { channel: admin.channel.clone(), auth });
    let body = frame(&check("acme", &user, "iam.administer", "").encode_to_vec());
    let mut cases = Vec::new();
    for caller in &callers {
        for person in [None, Some(&user), Some(&stranger)] {
            let headers: Vec<_> =
                person.map(|id| ("rolecall-on-behalf-of", id.as_str())).into_iter().collect();
            let routed = [headers.as_slice(), &[ROUTER]].concat();
            let expected = send(caller, CHECK, body.clone(), &routed).await;
            cases.push((caller, headers, expected));
        }
    }
    let codes: HashSet<i32> = cases.iter().map(|(_, _, expected)| expected.code).collect();
    assert_eq!(codes, [0, 7, 16].into(), "allowed, denied and unknown");
    for round in 0..cases.len() {
        cases.rotate_left(round);
        // They arrive together, so that one may follow any other.
        let calls = cases.iter().cycle().step_by(round + 1).take(60).map(|case| async {
            let (caller, headers, expected) = case;
            assert_eq!(send(caller, CHECK, body.clone(), headers).await, *expected);
        });
        futures::future::join_all(calls).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_on_the_wire_is_refused_and_the_connection_goes_on() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let good = check("acme", &user, "iam.administer", "").encode_to_vec();
    let items = vec![item(&user, "iam.administer", "")];
    let batch =
        pb::BatchCheckPermissionsRequest { tenant: "acme".into(), items, consistency: None };
    for (path, good) in [(CHECK, &good), (BATCH, &batch.encode_to_vec())] {
        assert_eq!(ask_both_ways(&admin, path, frame(good)).await.code, 0);
        for (what, body) in malformed(good) {
            let raw = ask_both_ways(&admin, path, body).await;
            assert_ne!(raw.code, 0, "{what}");
            assert_ne!(raw.code, Code::Unknown as i32, "{what}: {raw:?}");
        }
    }
    // Of two messages tonic answers the first.
    let twice = [frame(&good), frame(&good)].concat();
    assert_eq!(ask_both_ways(&admin, CHECK, twice.into()).await.code, 0);
    let with = |more: &[u8]| frame(&[&good, more].concat());
    // What nobody knows is skipped, the last of a repeated field counts, and the connection lives.
    let unknown = [
        0xfa, 0x01, 3, 1, 2, 3, // 31: bytes
        0xf8, 0x01, 5, // 31: a number
        0xfd, 0x01, 1, 2, 3, 4, // 31: four bytes
        0xfb, 0x01, 0x08, 1, 0xfc, 0x01, // 31: a group
    ];
    let nobody = format!("\x12\x24usr_{}", "0".repeat(32));
    for (more, reason) in [
        (&unknown[..], pb::Reason::Allowed),
        (&[0x22, 0], pb::Reason::Allowed),
        (nobody.as_bytes(), pb::Reason::NotAMember),
    ] {
        let raw = ask_both_ways(&admin, CHECK, with(more)).await;
        assert_eq!(raw.code, 0, "{more:?}: {}", raw.text);
        let answer = pb::CheckPermissionResponse::decode(raw.body.slice(5..)).unwrap();
        assert_eq!(answer.reason(), reason);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_request_id_comes_back_and_a_failure_has_one_of_ours() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let id = |response: &tonic::metadata::MetadataMap| {
        response.get("rolecall-request-id").map(|id| id.to_str().unwrap().to_owned())
    };
    let mut asked = tonic::Request::new(check("acme", &user, "iam.administer", ""));
    asked.metadata_mut().insert("x-request-id", "abc-42".parse().unwrap());
    let answer = admin.permissions().check_permission(asked).await.unwrap();
    assert_eq!(id(answer.metadata()).as_deref(), Some("abc-42"));
    let failed = admin.permissions().check_permission(check("acme", "", "a.b", "")).await;
    assert_eq!(id(failed.unwrap_err().metadata()).map(|id| id.len()), Some(32));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_of_http_are_left_to_the_router() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let body = frame(&check("acme", &user, "iam.administer", "").encode_to_vec());
    for (method, version, extra) in
        [("GET", "1.1", ""), ("POST", "1.1", "content-type: text/html\r\n")]
    {
        let mut socket = tokio::net::TcpStream::connect(world.server.grpc).await.unwrap();
        let bearer = admin.bearer();
        let head = format!(
            "{method} {CHECK} HTTP/{version}\r\nhost: a\r\nauthorization: {bearer}\r\n{extra}\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 "), "{text}");
        assert!(!text.contains("grpc-status: 0"), "{text}");
    }
    let other = send(&admin, CHECK, body, &[("grpc-encoding", "gzip")]).await;
    assert_eq!(other.code, Code::Unimplemented as i32, "{other:?}");
    world.stop().await;
}
