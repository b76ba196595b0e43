//! Signing in, moving between tenants, and the ends of sessions.

use std::time::Duration;

use rolecall::proto as pb;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::{Api, PASSWORD, World, check, field, reason};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn try_sign_in(
    world: &World,
    tenant: &str,
    email: &str,
    password: &str,
) -> Result<pb::SignInResponse, Status> {
    let request =
        pb::SignInRequest { tenant: tenant.into(), email: email.into(), password: password.into() };
    Ok(world.anonymous().await.sessions().sign_in(request).await?.into_inner())
}

async fn sessions(by: &Api, tenant: &str, user: &str) -> Vec<pb::Session> {
    let list = pb::ListSessionsRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        ..Default::default()
    };
    by.sessions().list_sessions(list).await.unwrap().into_inner().sessions
}

fn revoke(tenant: &str, user: &str, session: &str) -> pb::RevokeSessionRequest {
    pb::RevokeSessionRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        session_id: session.into(),
        ..Default::default()
    }
}

async fn why(world: &World, subject: &str) -> pb::Reason {
    let question = check("acme", subject, "anything.goes", "");
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    answer.into_inner().reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_sign_in_is_told_in_the_same_words() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    world.tenant("other").await;
    let suspended = world.member(&admin, "acme", "suspended@acme.example", &[]).await;
    let disabled = world.member(&admin, "acme", "disabled@acme.example", &[]).await;
    let suspend = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: suspended,
        ..Default::default()
    };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    let disable = pb::DisableUserRequest { user_id: disabled, ..Default::default() };
    world.operator.users().disable_user(disable).await.unwrap();

    let known = "admin@acme.example";
    let long = "x".repeat(2_000);
    for (tenant, email, password) in [
        ("acme", known, "wrong"),
        ("acme", known, ""),
        ("acme", known, long.as_str()),
        ("acme", "nobody@acme.example", PASSWORD),
        ("acme", "", PASSWORD),
        ("acme", "not an address", PASSWORD),
        ("other", known, PASSWORD),
        ("nowhere", known, PASSWORD),
        ("acme", "suspended@acme.example", PASSWORD),
        ("", "suspended@acme.example", PASSWORD),
        ("acme", "disabled@acme.example", PASSWORD),
        ("", "disabled@acme.example", PASSWORD),
    ] {
        let refused = try_sign_in(&world, tenant, email, password).await.unwrap_err();
        let told = (refused.code(), reason(&refused), refused.message().to_owned());
        let same =
            "address, password or tenant is wrong, or has no access; check them and try again";
        let expected = (Code::Unauthenticated, "SIGN_IN_FAILED".to_owned(), same.to_owned());
        assert_eq!(told, expected, "{tenant} {email}");
    }
    let upper = try_sign_in(&world, "acme", " ADMIN@Acme.Example ", PASSWORD).await.unwrap();
    assert!(upper.token.starts_with("rcs_"), "case and spaces do not count");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_too_often_waits_whether_or_not_there_is_an_account() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    for email in ["admin@acme.example", "nobody@acme.example"] {
        for _ in 0..10 {
            let refused = try_sign_in(&world, "acme", email, "wrong").await.unwrap_err();
            assert_eq!(reason(&refused), "SIGN_IN_FAILED");
        }
        let held_up = try_sign_in(&world, "acme", email, PASSWORD).await.unwrap_err();
        assert_eq!(
            (held_up.code(), reason(&held_up).as_str()),
            (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS")
        );
        assert!(held_up.get_details_retry_info().is_some());
    }
    world.advance(Duration::from_secs(7 * 60));
    try_sign_in(&world, "acme", "admin@acme.example", PASSWORD).await.unwrap();
    // Those that succeed are not counted.
    for _ in 0..12 {
        try_sign_in(&world, "acme", "admin@acme.example", PASSWORD).await.unwrap();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_of_several_tenants_chooses_one_and_moves_between_them() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let only = try_sign_in(&world, "", "admin@acme.example", PASSWORD).await.unwrap();
    let only = only.session.expect("the only tenant is taken");
    assert_eq!((only.tenant.as_str(), only.user_id.as_str()), ("acme", user.as_str()));

    let (globex, _) = world.tenant("globex").await;
    world.tenant("hidden").await;
    let invite = crate::world::invite("globex", "admin@acme.example", &[]);
    globex.invitations().create_invitation(invite).await.unwrap();
    let token = world.token_to("admin@acme.example").await;
    let proof = pb::ExistingAccount { password: PASSWORD.into() };
    let accept = pb::AcceptInvitationRequest {
        token,
        account: Some(pb::accept_invitation_request::Account::ExistingAccount(proof)),
    };
    world.anonymous().await.invitations().accept_invitation(accept).await.unwrap();

    let choice = try_sign_in(&world, "", "admin@acme.example", PASSWORD).await.unwrap();
    assert!(choice.session.is_none() && choice.token.is_empty());
    let tenants: Vec<_> = choice.tenants.iter().map(|t| t.tenant.as_str()).collect();
    assert_eq!(tenants, ["acme", "globex"]);
    assert_eq!(choice.tenants[0].display_name, "ACME");

    let token = world.session("acme", "admin@acme.example").await;
    let at_acme = world.with(&token).await;
    world.advance(DAY);
    let switch = |tenant: &str| pb::SwitchTenantRequest { tenant: tenant.into() };
    let moved = at_acme.sessions().switch_tenant(switch("globex")).await.unwrap().into_inner();
    let session = moved.session.unwrap();
    assert_eq!(session.tenant, "globex");
    let first = sessions(&at_acme, "acme", "").await.remove(0);
    assert_eq!(session.expire_time, first.expire_time, "no longer than the session it is from");
    assert_eq!(sessions(&world.with(&moved.token).await, "globex", "").await.len(), 1);
    assert_eq!(why(&world, &moved.token).await, pb::Reason::SessionElsewhere);
    assert_eq!(why(&world, &token).await, pb::Reason::Allowed, "the calling one goes on");

    let refused = at_acme.sessions().switch_tenant(switch("Hidden")).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), field(&refused).as_str()), ("INVALID_FIELD", "tenant"));
    for tenant in ["hidden", "nowhere"] {
        let refused = at_acme.sessions().switch_tenant(switch(tenant)).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::PermissionDenied, "PERMISSION_MISSING")
        );
    }
    let refused = world.operator.sessions().switch_tenant(switch("acme")).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_REQUIRED");
    let refused = world.operator.sessions().sign_out(pb::SignOutRequest::default()).await;
    assert_eq!(reason(&refused.unwrap_err()), "SESSION_REQUIRED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_end_at_once() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    let first = world.session("acme", "maria@acme.example").await;
    world.advance(Duration::from_secs(60));
    let second = world.session("acme", "maria@acme.example").await;
    let third = world.session("acme", "maria@acme.example").await;
    let mine = world.with(&first).await;

    let list = sessions(&admin, "acme", &maria).await;
    assert_eq!(list.len(), 3);
    assert_eq!(list[2].source_address, "127.0.0.1");
    let page =
        pb::ListSessionsRequest { tenant: "acme".into(), page_size: 2, ..Default::default() };
    let page = mine.sessions().list_sessions(page).await.unwrap().into_inner();
    assert_eq!(page.sessions, list[..2]);
    let rest = pb::ListSessionsRequest {
        tenant: "acme".into(),
        page_size: 2,
        page_token: page.next_page_token,
        ..Default::default()
    };
    let rest = mine.sessions().list_sessions(rest).await.unwrap().into_inner();
    assert_eq!((rest.sessions.as_slice(), rest.next_page_token.as_str()), (&list[2..], ""));
    let others = pb::ListSessionsRequest {
        tenant: "acme".into(),
        user_id: user.clone(),
        ..Default::default()
    };
    let refused = mine.sessions().list_sessions(others).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    // Whether there is such a session is not told to who may not end it.
    let theirs = sessions(&admin, "acme", "").await.remove(0).id;
    let unknown = format!("ses_{}", "0".repeat(32));
    let answers = [&theirs, &unknown].map(|id| revoke("acme", "", id));
    for request in answers {
        let refused = mine.sessions().revoke_session(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::PermissionDenied, "PERMISSION_MISSING")
        );
    }
    let missing = admin.sessions().revoke_session(revoke("acme", "", &unknown)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let mixed = admin.sessions().revoke_session(revoke("acme", &maria, &theirs)).await.unwrap_err();
    assert_eq!(mixed.code(), Code::NotFound, "a session of somebody else");

    mine.sessions().revoke_session(revoke("acme", "", &list[0].id)).await.unwrap();
    assert_eq!(sessions(&mine, "acme", "").await.len(), 2);
    let ended = [&second, &third];
    let reasons = [why(&world, ended[0]).await, why(&world, ended[1]).await];
    assert!(reasons.contains(&pb::Reason::SessionEnded), "{reasons:?}");
    admin.sessions().revoke_session(revoke("acme", "", &list[0].id)).await.unwrap();

    mine.sessions().sign_out(pb::SignOutRequest::default()).await.unwrap();
    assert_eq!(why(&world, &first).await, pb::Reason::SessionEnded);
    let after = mine.sessions().sign_out(pb::SignOutRequest::default()).await.unwrap_err();
    assert_eq!(after.code(), Code::Unauthenticated);

    let fourth = world.session("acme", "maria@acme.example").await;
    admin.sessions().revoke_session(revoke("acme", &maria, "")).await.unwrap();
    assert_eq!(why(&world, &fourth).await, pb::Reason::SessionEnded);
    assert_eq!(sessions(&admin, "acme", &maria).await, []);
    world.session("acme", "maria@acme.example").await;
    let nobody = format!("usr_{}", "0".repeat(32));
    let missing = admin.sessions().revoke_session(revoke("acme", &nobody, "")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_by_itself_after_thirty_days() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    let token = world.session("acme", "admin@acme.example").await;
    world.advance(29 * DAY);
    assert_eq!(why(&world, &token).await, pb::Reason::Allowed);
    world.advance(DAY);
    assert_eq!(why(&world, &token).await, pb::Reason::SessionExpired);
    let list = pb::ListSessionsRequest { tenant: "acme".into(), ..Default::default() };
    let refused = world.with(&token).await.sessions().list_sessions(list).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_EXPIRED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_opens_sessions_for_those_whom_it_outranks() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "portal".into(),
        display_names: [("en".to_owned(), "Portal".to_owned())].into(),
        permissions: vec!["iam.sessions.create".into()],
        ..Default::default()
    };
    admin.roles().create_role(role).await.unwrap();
    let portal = world.member(&admin, "acme", "portal@acme.example", &[("portal", "")]).await;
    let portal_api = world.sign_in("acme", "portal@acme.example").await;
    let create = |user: &str| pb::CreateSessionRequest {
        tenant: "acme".into(),
        user_id: user.into(),
        source_address: "192.0.2.7".into(),
        user_agent: "Portal/1".into(),
        request_id: uuid::Uuid::from_u128(7).to_string(),
        ..Default::default()
    };

    let opened = portal_api.sessions().create_session(create(&maria)).await.unwrap().into_inner();
    let session = opened.session.clone().unwrap();
    assert_eq!(
        (session.source_address.as_str(), session.user_agent.as_str()),
        ("192.0.2.7", "Portal/1")
    );
    assert_eq!(why(&world, &opened.token).await, pb::Reason::NoRole);
    let again = portal_api.sessions().create_session(create(&maria)).await.unwrap().into_inner();
    assert_eq!((again.token.as_str(), again.secret_reason.as_str()), ("", "SECRET_ALREADY_SHOWN"));
    assert_eq!(again.session.unwrap().id, session.id);

    let fresh = |user: &str| pb::CreateSessionRequest { request_id: String::new(), ..create(user) };
    let refused = portal_api.sessions().create_session(fresh(&user)).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "MEMBER_OUTRANKS_CALLER")
    );
    portal_api.sessions().create_session(fresh(&portal)).await.unwrap();
    let nobody = format!("usr_{}", "0".repeat(32));
    let missing = portal_api.sessions().create_session(fresh(&nobody)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let suspend = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: maria.clone(),
        ..Default::default()
    };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    let refused = portal_api.sessions().create_session(fresh(&maria)).await.unwrap_err();
    assert_eq!(reason(&refused), "MEMBERSHIP_SUSPENDED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_uses_ends_and_one_that_is_used_or_checked_goes_on() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let minutes = |minutes: i64| Some(prost_types::Duration { seconds: minutes * 60, nanos: 0 });
    let shorter = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        session_idle_timeout: minutes(60),
        session_lifetime: minutes(24 * 60),
        ..Default::default()
    };
    admin.tenants().update_tenant(shorter).await.unwrap();
    let [idle, used, checked] = [
        world.session("acme", "admin@acme.example").await,
        world.session("acme", "admin@acme.example").await,
        world.session("acme", "admin@acme.example").await,
    ];
    let app = world.server.app.clone();
    for _ in 0..2 {
        world.advance(Duration::from_secs(50 * 60));
        sessions(&world.with(&used).await, "acme", "").await;
        assert_eq!(why(&world, &checked).await, pb::Reason::Allowed);
        rolecall::sessions::write_activity(&app).await.unwrap();
        rolecall::sessions::end_idle(&app).await.unwrap();
    }
    assert_eq!(why(&world, &idle).await, pb::Reason::SessionEnded);
    for token in [&used, &checked] {
        assert_eq!(why(&world, token).await, pb::Reason::Allowed);
    }
    let get = pb::GetMembershipRequest { tenant: "acme".into(), ..Default::default() };
    let used = world.with(&used).await;
    let seen = used.memberships().get_membership(get).await.unwrap().into_inner().membership;
    let ago = world.server.app.clock.now().timestamp()
        - seen.unwrap().last_activity_time.unwrap().seconds;
    assert!(ago < 60, "{ago} s ago");
    // However it is used, a day is its end.
    world.advance(DAY);
    assert_eq!(why(&world, &checked).await, pb::Reason::SessionExpired);
    world.stop().await;
}

async fn refusals(by: &Api, request: pb::ListSecurityEventsRequest) -> Vec<pb::SecurityEvent> {
    by.audit().list_security_events(request).await.unwrap().into_inner().events
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_sign_ins_and_refused_changes_are_found_in_the_security_log() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    world.tenant("other").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    for email in ["maria@acme.example", "maria@acme.example", "nobody@acme.example"] {
        try_sign_in(&world, "acme", email, "wrong").await.unwrap_err();
    }
    // Somebody of another tenant stays a stranger here.
    try_sign_in(&world, "acme", "admin@other.example", "wrong").await.unwrap_err();
    let hers = world.sign_in("acme", "maria@acme.example").await;
    let forbidden = crate::world::invite("acme", "eve@acme.example", &[]);
    hers.invitations().create_invitation(forbidden).await.unwrap_err();
    let tenant = pb::ListSecurityEventsRequest { tenant: "acme".into(), ..Default::default() };
    assert_eq!(refusals(&admin, tenant.clone()).await, [], "not written yet");
    rolecall::security::flush(&world.server.app).await.unwrap();

    let all = refusals(&admin, tenant.clone()).await;
    let of = |user: &str, kind: pb::SecurityEventKind| -> Vec<(String, i64)> {
        let found = all.iter().filter(|e| e.user_id == user && e.kind() == kind);
        found.map(|e| (e.reason.clone(), e.count)).collect()
    };
    assert_eq!(of(&maria, pb::SecurityEventKind::SignIn), [("SIGN_IN_FAILED".to_owned(), 2)]);
    assert_eq!(of("", pb::SecurityEventKind::SignIn), [("SIGN_IN_FAILED".to_owned(), 2)]);
    assert_eq!(of(&maria, pb::SecurityEventKind::Change), [("PERMISSION_MISSING".to_owned(), 1)]);
    assert!(all.iter().all(|e| e.source_address == "127.0.0.1"), "{all:?}");
    let only = pb::ListSecurityEventsRequest {
        kind: pb::SecurityEventKind::Change.into(),
        user_id: maria,
        source_address: "127.0.0.1".into(),
        ..tenant.clone()
    };
    let found = refusals(&admin, only).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].method, "/rolecall.v1.InvitationService/CreateInvitation");
    let refused = hers.audit().list_security_events(tenant).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.stop().await;
}
