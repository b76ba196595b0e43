//! Service accounts and the keys they call with.

use rolecall::proto as pb;
use tonic::Code;

use crate::world::{Api, World, field, reason, role_on};

async fn service(by: &Api, key: &str, role: &str) -> String {
    let create = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: "Robot".into(),
        ..Default::default()
    };
    let created = by.service_accounts().create_service_account(create).await.unwrap();
    let id = created.into_inner().service_account.unwrap().id;
    let give = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: id.clone(),
        add: vec![role_on(role, "")],
        ..Default::default()
    };
    by.memberships().update_member_roles(give).await.unwrap();
    id
}

fn key(account: &str, narrowed: &[&str]) -> pb::CreateApiKeyRequest {
    pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: account.into(),
        display_name: "key".into(),
        permissions: narrowed.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    }
}

fn list() -> pb::ListMembershipsRequest {
    pb::ListMembershipsRequest { tenant: "acme".into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_until_it_is_revoked_or_expires_and_only_for_what_it_is_narrowed_to() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let robot = service(&admin, "robot", "administrator").await;
    let made =
        admin.service_accounts().create_api_key(key(&robot, &[])).await.unwrap().into_inner();
    let whole = made.api_key.unwrap();
    let with_whole = world.with(&made.secret).await;
    with_whole.memberships().list_memberships(list()).await.unwrap();

    let narrow = key(&robot, &["iam.workspaces.*"]);
    let narrow = admin.service_accounts().create_api_key(narrow).await.unwrap().into_inner();
    let narrowed = world.with(&narrow.secret).await;
    let workspaces = pb::ListWorkspacesRequest { tenant: "acme".into(), ..Default::default() };
    narrowed.workspaces().list_workspaces(workspaces).await.unwrap();
    let refused = narrowed.memberships().list_memberships(list()).await.unwrap_err();
    assert_eq!(reason(&refused), "KEY_NARROWED");

    let mut dated = key(&robot, &[]);
    let now = world.server.app.clock.now();
    dated.expire_time = Some(pb::timestamp(now - chrono::TimeDelta::seconds(1)));
    let refused = admin.service_accounts().create_api_key(dated.clone()).await.unwrap_err();
    assert_eq!(field(&refused), "expire_time");
    dated.expire_time = Some(pb::timestamp(now + chrono::TimeDelta::hours(1)));
    let dated = admin.service_accounts().create_api_key(dated).await.unwrap().into_inner();
    let dated = world.with(&dated.secret).await;
    dated.memberships().list_memberships(list()).await.unwrap();
    world.advance(std::time::Duration::from_secs(3601));
    let refused = dated.memberships().list_memberships(list()).await.unwrap_err();
    assert_eq!(reason(&refused), "KEY_EXPIRED");

    let revoke = || pb::RevokeApiKeyRequest {
        tenant: "acme".into(),
        api_key_id: whole.id.clone(),
        ..Default::default()
    };
    let revoked = admin.service_accounts().revoke_api_key(revoke()).await.unwrap().into_inner();
    assert!(revoked.api_key.unwrap().revoke_time.is_some());
    let refused = with_whole.memberships().list_memberships(list()).await.unwrap_err();
    assert_eq!(reason(&refused), "KEY_REVOKED");
    let again = admin.service_accounts().revoke_api_key(revoke()).await.unwrap().into_inner();
    assert_eq!(again.revision, revoked.revision, "nothing changed");

    let keys = pb::ListApiKeysRequest {
        tenant: "acme".into(),
        service_account_id: robot.clone(),
        page_size: 2,
        ..Default::default()
    };
    let first = admin.service_accounts().list_api_keys(keys.clone()).await.unwrap().into_inner();
    let page_token = first.next_page_token;
    let rest = pb::ListApiKeysRequest { page_token, ..keys };
    let rest = admin.service_accounts().list_api_keys(rest).await.unwrap().into_inner();
    assert_eq!((first.api_keys.len(), rest.api_keys.len()), (2, 1));
    assert_eq!(rest.api_keys[0].id, whole.id, "newest first");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_key_that_may_do_more_than_they_may() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let robot = service(&admin, "robot", "administrator").await;
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "key_keeper".into(),
        display_names: [("en".to_owned(), "Key keeper".to_owned())].into(),
        permissions: vec!["iam.service_accounts.*".into(), "files.read".into()],
        ..Default::default()
    };
    admin.roles().create_role(role).await.unwrap();
    world.member(&admin, "acme", "kim@acme.example", &[("key_keeper", "")]).await;
    let kim = world.sign_in("acme", "kim@acme.example").await;
    for narrowed in [&[][..], &["files.read", "files.write"], &["*"], &["files.*"]] {
        let refused =
            kim.service_accounts().create_api_key(key(&robot, narrowed)).await.unwrap_err();
        assert_eq!(reason(&refused), "MEMBER_OUTRANKS_CALLER", "{narrowed:?}");
    }
    kim.service_accounts().create_api_key(key(&robot, &["files.read"])).await.unwrap();
    let delete = pb::DeleteServiceAccountRequest {
        tenant: "acme".into(),
        service_account_id: robot,
        ..Default::default()
    };
    let refused = kim.service_accounts().delete_service_account(delete).await.unwrap_err();
    assert_eq!(reason(&refused), "MEMBER_OUTRANKS_CALLER");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_no_secret_and_twenty_keys_are_enough() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let robot = service(&admin, "robot", "member").await;
    let dry = pb::CreateApiKeyRequest { validate_only: true, ..key(&robot, &[]) };
    let dry = admin.service_accounts().create_api_key(dry).await.unwrap().into_inner();
    assert!(dry.secret.is_empty() && dry.revision.is_empty());
    for _ in 0..20 {
        admin.service_accounts().create_api_key(key(&robot, &[])).await.unwrap();
    }
    let refused = admin.service_accounts().create_api_key(key(&robot, &[])).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_MANY_KEYS");
    let refused = admin.service_accounts().create_api_key(key(&robot, &["nonsense"])).await;
    assert_eq!(field(&refused.unwrap_err()), "permissions[0]");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_service_account_is_gone_with_its_keys_and_its_name_is_free() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let robot = service(&admin, "robot", "administrator").await;
    let made =
        admin.service_accounts().create_api_key(key(&robot, &[])).await.unwrap().into_inner();
    let calls = world.with(&made.secret).await;
    calls.memberships().list_memberships(list()).await.unwrap();
    let get =
        pb::GetServiceAccountRequest { tenant: "acme".into(), service_account_id: robot.clone() };
    let found = admin.service_accounts().get_service_account(get.clone()).await.unwrap();
    let found = found.into_inner().service_account.unwrap();
    assert_eq!(found.roles[0].role, "administrator");
    let delete = |etag: &str| pb::DeleteServiceAccountRequest {
        tenant: "acme".into(),
        service_account_id: robot.clone(),
        etag: etag.into(),
        ..Default::default()
    };
    let stale = admin.service_accounts().delete_service_account(delete("v0")).await.unwrap_err();
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    admin.service_accounts().delete_service_account(delete(&found.etag)).await.unwrap();
    let refused = calls.memberships().list_memberships(list()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = admin.service_accounts().get_service_account(get).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let all = pb::ListServiceAccountsRequest { tenant: "acme".into(), ..Default::default() };
    let all = admin.service_accounts().list_service_accounts(all).await.unwrap().into_inner();
    assert!(all.service_accounts.is_empty());
    service(&admin, "robot", "member").await;
    world.stop().await;
}
