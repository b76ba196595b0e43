//! What holds for every mutation: repeated requests, dry runs, stale versions, bad input, and the audit.

use rolecall::proto as pb;
use tonic::Code;

use crate::world::{World, check, field, invite, reason, role_on};

fn workspace(key: &str) -> pb::CreateWorkspaceRequest {
    pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: "Paris".into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer_and_changes_nothing_more() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let request_id = "0192f5c0-0000-7000-8000-000000000001".to_owned();
    let create = pb::CreateWorkspaceRequest { request_id, ..workspace("paris") };
    let first = admin.workspaces().create_workspace(create.clone()).await.unwrap().into_inner();
    let again = admin.workspaces().create_workspace(create.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);

    let other = pb::CreateWorkspaceRequest { display_name: "Other".into(), ..create };
    let refused = admin.workspaces().create_workspace(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");

    let malformed = pb::CreateWorkspaceRequest { request_id: "once".into(), ..workspace("lyon") };
    let refused = admin.workspaces().create_workspace(malformed).await.unwrap_err();
    assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "request_id"));
    world.stop().await;
}

#[cfg(debug_assertions)] // a release cannot be held
#[tokio::test(flavor = "multi_thread")]
async fn one_request_id_for_two_tenants_at_once_is_good_for_one() {
    use rolecall::faults::Point;

    let mut world = World::start().await;
    world.tenant("acme").await;
    world.tenant("other").await;
    let request_id = "0192f5c0-0000-7000-8000-000000000003".to_owned();
    let first = pb::CreateWorkspaceRequest { request_id, ..workspace("paris") };
    let second = pb::CreateWorkspaceRequest { tenant: "other".into(), ..first.clone() };
    let mut held = world.server.app.faults.hold(Point::Staged);
    let operator = world.operator.clone();
    let slow = tokio::spawn(async move { operator.workspaces().create_workspace(first).await });
    held.reached().await;
    world.operator.workspaces().create_workspace(second).await.unwrap();
    drop(held);
    let refused = slow.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_for_a_key_does_not_show_the_secret_again() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let create = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: "robot".into(),
        display_name: "Robot".into(),
        ..Default::default()
    };
    let account = admin.service_accounts().create_service_account(create).await.unwrap();
    let create = pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: account.into_inner().service_account.unwrap().id,
        display_name: "ci".into(),
        request_id: "0192f5c0-0000-7000-8000-000000000002".into(),
        ..Default::default()
    };
    let dry = pb::CreateApiKeyRequest { validate_only: true, ..create.clone() };
    let dry = admin.service_accounts().create_api_key(dry).await.unwrap().into_inner();
    assert_eq!((dry.secret.as_str(), dry.secret_reason.as_str()), ("", "SECRET_NOT_MADE"));
    let permissions = vec!["iam.roles.read".to_owned(), "iam.rolez.read".to_owned()];
    let misspelt =
        pb::CreateApiKeyRequest { permissions, request_id: String::new(), ..create.clone() };
    let refused = admin.service_accounts().create_api_key(misspelt).await.unwrap_err();
    assert_eq!(field(&refused), "permissions[1]");

    let first = admin.service_accounts().create_api_key(create.clone()).await.unwrap().into_inner();
    assert!(first.secret.starts_with("rck_"));
    let again = admin.service_accounts().create_api_key(create).await.unwrap().into_inner();
    assert_eq!(again.api_key, first.api_key);
    assert_eq!((again.secret.as_str(), again.secret_reason.as_str()), ("", "SECRET_ALREADY_SHOWN"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_checks_everything_and_writes_nothing() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let dry = pb::CreateWorkspaceRequest { validate_only: true, ..workspace("paris") };
    let answer = admin.workspaces().create_workspace(dry.clone()).await.unwrap().into_inner();
    assert_eq!(answer.workspace.unwrap().key, "paris");
    assert_eq!(answer.revision, "");
    admin.workspaces().create_workspace(workspace("paris")).await.unwrap();
    let refused = admin.workspaces().create_workspace(dry).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);

    let leave =
        pb::LeaveTenantRequest { tenant: "acme".into(), validate_only: true, ..Default::default() };
    let refused = admin.memberships().leave_tenant(leave).await.unwrap_err();
    assert_eq!(reason(&refused), "LAST_ADMINISTRATOR");
    let question = check("acme", &user, "anything.at.all", "workspaces/paris");
    assert!(
        world.operator.permissions().check_permission(question).await.unwrap().into_inner().allowed
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_version_is_refused_and_the_fresh_one_passes() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let created = admin.workspaces().create_workspace(workspace("paris")).await.unwrap();
    let etag = created.into_inner().workspace.unwrap().etag;
    let update = pb::UpdateWorkspaceRequest {
        tenant: "acme".into(),
        workspace: "paris".into(),
        display_name: "Paris 2".into(),
        etag,
        ..Default::default()
    };
    let updated = admin.workspaces().update_workspace(update.clone()).await.unwrap().into_inner();
    let refused = admin.workspaces().update_workspace(update.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let fresh = pb::UpdateWorkspaceRequest {
        etag: updated.workspace.unwrap().etag,
        display_name: "Paris 3".into(),
        ..update
    };
    admin.workspaces().update_workspace(fresh).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_names_the_field_and_writes_nothing() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let before = revision(&world).await;
    let long = "x".repeat(201);
    for (request, wrong) in [
        (pb::CreateWorkspaceRequest { key: "Paris".into(), ..workspace("x") }, "key"),
        (pb::CreateWorkspaceRequest { key: String::new(), ..workspace("x") }, "key"),
        (
            pb::CreateWorkspaceRequest { display_name: String::new(), ..workspace("x") },
            "display_name",
        ),
        (
            pb::CreateWorkspaceRequest { display_name: long.clone(), ..workspace("x") },
            "display_name",
        ),
        (
            pb::CreateWorkspaceRequest { display_name: "a\u{202e}b".into(), ..workspace("x") },
            "display_name",
        ),
        (pb::CreateWorkspaceRequest { external_id: long.clone(), ..workspace("x") }, "external_id"),
        (
            pb::CreateWorkspaceRequest {
                metadata: [("k".into(), "v".repeat(513))].into(),
                ..workspace("x")
            },
            "metadata",
        ),
        (pb::CreateWorkspaceRequest { reason: "why\u{0}".into(), ..workspace("x") }, "reason"),
    ] {
        let refused = admin.workspaces().create_workspace(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}");
        assert_eq!(field(&refused), wrong, "{request:?}");
    }
    for (roles, wrong) in [
        (role_on("nobody", ""), "add[0].role"),
        (role_on("member", "workspaces/nowhere"), "add[0].scope"),
        (role_on("member", "workspaces"), "add[0].scope"),
    ] {
        let update = pb::UpdateMemberRolesRequest {
            tenant: "acme".into(),
            subject: user.clone(),
            add: vec![roles],
            ..Default::default()
        };
        let refused = admin.memberships().update_member_roles(update).await.unwrap_err();
        assert!(
            field(&refused) == wrong || refused.code() == Code::NotFound,
            "{wrong}: {refused:?}"
        );
    }
    let malformed = pb::GetMembershipRequest { tenant: "acme".into(), user_id: "maria".into() };
    let refused = admin.memberships().get_membership(malformed).await.unwrap_err();
    assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "user_id"));
    let address = invite("acme", "maria@@x", &[]);
    let refused = admin.invitations().create_invitation(address).await.unwrap_err();
    assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "email"));
    assert_eq!(revision(&world).await, before, "nothing was written");
    world.stop().await;
}

async fn revision(world: &World) -> i64 {
    sqlx::query_scalar("select max(revision) from events")
        .fetch_one(&world.server.app.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_add_events_and_neither_change_nor_delete_them() {
    let world = World::start().await;
    let pool = &world.server.app.pool;
    for statement in ["update events set n = n", "delete from events", "truncate events"] {
        let refused = sqlx::query(statement).execute(pool).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{refused}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_event_breaks_the_chain_where_it_was_altered() {
    use sqlx::{Connection, Executor, PgConnection};
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    admin.workspaces().create_workspace(workspace("paris")).await.unwrap();
    let verify = pb::VerifyAuditLogRequest { tenant: "acme".into() };
    let report = admin.audit().verify_audit_log(verify.clone()).await.unwrap().into_inner();
    assert!(report.ok, "{report:?}");

    // As whoever owns the database.
    let url = secrecy::ExposeSecret::expose_secret(&world.database).to_owned();
    let mut owner = PgConnection::connect(&url).await.unwrap();
    owner
        .execute(
            "update events set body = replace(body::text, 'paris', 'tours')::json
             where verb = 'workspace.created'",
        )
        .await
        .unwrap();
    let report = admin.audit().verify_audit_log(verify).await.unwrap().into_inner();
    assert!(!report.ok, "{report:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_changes_at_once_are_all_obeyed_when_they_are_acknowledged() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (admin, operator, user) = (admin.clone(), world.operator.clone(), user.clone());
        tasks.spawn(async move {
            let key = format!("w{n}");
            admin.workspaces().create_workspace(workspace(&key)).await.unwrap();
            let question = check("acme", &user, "files.read", &format!("workspaces/{key}"));
            let answer = operator.permissions().check_permission(question).await.unwrap();
            assert!(answer.into_inner().allowed, "the change was acknowledged");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let gaps: i64 =
        sqlx::query_scalar("select max(revision) - count(distinct revision) from events")
            .fetch_one(&world.server.app.pool)
            .await
            .unwrap();
    assert_eq!(gaps, 0, "revisions have no gaps");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_format_ends_all_answers_rather_than_being_skipped() {
    use sqlx::{Connection, Executor, PgConnection};
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let question = || check("acme", &user, "files.read", "");
    world.operator.permissions().check_permission(question()).await.unwrap();
    let url = secrecy::ExposeSecret::expose_secret(&world.database).to_owned();
    let mut owner = PgConnection::connect(&url).await.unwrap();
    owner
        .execute(
            "insert into events (tenant_id, revision, n, at, format, body, hash)
             select tenant_id, revision + 1, 0, at, 1000, body, hash
             from events order by revision desc, n desc limit 1",
        )
        .await
        .unwrap();
    let mut refused = None;
    for _ in 0..100 {
        refused = world.operator.permissions().check_permission(question()).await.err();
        if refused.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(refused.expect("answers must end").code(), Code::Unavailable);
    world.server.stop().await;
}
