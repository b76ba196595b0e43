//! Members: the last administrator, what nobody can give themselves, and the ends of access.

use std::time::Duration;

use rolecall::proto as pb;
use tonic::Code;

use crate::world::{Api, World, check, reason, role_on};

async fn allowed(world: &World, subject: &str, permission: &str, resource: &str) -> (bool, String) {
    let question = check("acme", subject, permission, resource);
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    let answer = answer.into_inner();
    (answer.allowed, answer.reason().as_str_name().to_owned())
}

fn roles(subject: &str, add: &[(&str, &str)], remove: &[String]) -> pb::UpdateMemberRolesRequest {
    pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        add: add.iter().map(|(role, scope)| role_on(role, scope)).collect(),
        remove: remove.to_vec(),
        ..Default::default()
    }
}

async fn assignments(by: &Api, user: &str) -> Vec<pb::RoleAssignment> {
    let get = pb::GetMembershipRequest { tenant: "acme".into(), user_id: user.into() };
    by.memberships().get_membership(get).await.unwrap().into_inner().membership.unwrap().roles
}

async fn install(by: &Api, sector: &str) {
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: sector.into(),
        ..Default::default()
    };
    by.roles().install_role_templates(install).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_takes_the_last_administrator() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    install(&admin, "platform").await;
    let user_id = user.clone();
    let held: Vec<String> = assignments(&admin, &user)
        .await
        .into_iter()
        .filter(|a| a.role == "administrator")
        .map(|a| a.id)
        .collect();
    assert_eq!(held.len(), 1);

    let demote = admin.memberships().update_member_roles(roles(&user, &[], &held)).await;
    let replace =
        admin.memberships().update_member_roles(roles(&user, &[("basic", "")], &[])).await;
    let until = pb::AssignRole {
        end_time: Some(pb::timestamp(world.server.app.clock.now() + chrono::TimeDelta::days(1))),
        ..role_on("administrator", "")
    };
    let mut dated = roles(&user, &[], &[]);
    dated.add = vec![until];
    let dated = admin.memberships().update_member_roles(dated).await;
    let tenant = "acme".to_owned();
    let suspend = pb::SuspendMembershipRequest {
        tenant: tenant.clone(),
        user_id: user_id.clone(),
        ..Default::default()
    };
    let suspend = admin.memberships().suspend_membership(suspend).await.map(|_| ());
    let remove = pb::RemoveMembershipRequest {
        tenant: tenant.clone(),
        user_id: user_id.clone(),
        ..Default::default()
    };
    let remove = admin.memberships().remove_membership(remove).await.map(|_| ());
    let leave = pb::LeaveTenantRequest { tenant: tenant.clone(), ..Default::default() };
    let leave = admin.memberships().leave_tenant(leave).await.map(|_| ());
    let external = pb::UpdateMembershipRequest {
        tenant,
        user_id,
        kind: pb::MemberKind::External.into(),
        ..Default::default()
    };
    let external = admin.memberships().update_membership(external).await.map(|_| ());
    for (path, outcome) in [
        ("demote", demote.map(|_| ())),
        ("replace", replace.map(|_| ())),
        ("dated", dated.map(|_| ())),
        ("suspend", suspend),
        ("remove", remove),
        ("leave", leave),
        ("external", external),
    ] {
        let refused = outcome.expect_err(path);
        assert_eq!(refused.code(), Code::FailedPrecondition, "{path}: {refused:?}");
        assert_eq!(reason(&refused), "LAST_ADMINISTRATOR", "{path}");
    }
    assert!(allowed(&world, &user, "anything.goes", "").await.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_who_demote_each_other_at_once_leave_one() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    for round in 0..5 {
        let email = format!("second{round}@acme.example");
        let second = world.member(&admin, "acme", &email, &[("administrator", "")]).await;
        let other = world.sign_in("acme", &email).await;
        let remove = |user_id: &str| pb::SuspendMembershipRequest {
            tenant: "acme".into(),
            user_id: user_id.into(),
            ..Default::default()
        };
        let (mut a, mut b) = (admin.memberships(), other.memberships());
        let (one, two) = tokio::join!(
            a.suspend_membership(remove(&second)),
            b.suspend_membership(remove(&first))
        );
        assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?} {two:?}");
        if two.is_ok() {
            let back = pb::ReactivateMembershipRequest {
                tenant: "acme".into(),
                user_id: first.clone(),
                ..Default::default()
            };
            other.memberships().reactivate_membership(back).await.unwrap();
            let again = world.session("acme", "admin@acme.example").await;
            let admin = world.with(&again).await;
            admin.memberships().suspend_membership(remove(&second)).await.unwrap();
            world.stop().await;
            return;
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_ends_access_and_sessions_at_once_and_reactivating_restores_access() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    install(&admin, "business").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[("employee", "")]).await;
    let token = world.session("acme", "maria@acme.example").await;
    let herself = world.with(&token).await;
    herself.users().list_my_tenants(pb::ListMyTenantsRequest::default()).await.unwrap();
    assert_eq!(allowed(&world, &maria, "messaging.use", "").await, (true, "REASON_ALLOWED".into()));
    assert!(allowed(&world, &token, "messaging.use", "").await.0, "a session is a subject too");

    let (tenant, user_id) = ("acme".to_owned(), maria.clone());
    let suspend = pb::SuspendMembershipRequest { tenant, user_id, ..Default::default() };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    let (yes, why) = allowed(&world, &maria, "messaging.use", "").await;
    assert_eq!((yes, why.as_str()), (false, "REASON_MEMBERSHIP_SUSPENDED"));
    assert!(!allowed(&world, &token, "messaging.use", "").await.0);
    let refused = herself.users().list_my_tenants(pb::ListMyTenantsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);

    let (tenant, user_id) = ("acme".to_owned(), maria.clone());
    let back = pb::ReactivateMembershipRequest { tenant, user_id, ..Default::default() };
    admin.memberships().reactivate_membership(back).await.unwrap();
    assert!(allowed(&world, &maria, "messaging.use", "").await.0);
    let refused = herself.users().list_my_tenants(pb::ListMyTenantsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "an ended session stays ended");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_stops_at_the_date_without_a_write() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    install(&admin, "business").await;
    let visitor = world.member(&admin, "acme", "guest@else.example", &[("visitor", "")]).await;
    let held = assignments(&admin, &visitor).await;
    let visiting = held.iter().find(|a| a.role == "visitor").unwrap();
    assert!(visiting.end_time.is_some(), "a visitor's time is limited by the role itself");
    let get = pb::GetRoleRequest { tenant: "acme".into(), role: "visitor".into() };
    let role = admin.roles().get_role(get).await.unwrap().into_inner().role.unwrap();
    let permission = role.permissions.first().unwrap().replace('*', "read");
    assert!(allowed(&world, &visitor, &permission, "").await.0);
    let revision = |world: &World| world.server.app.replica.facts().revision;
    let before = revision(&world);
    world.advance(Duration::from_secs(30 * 24 * 3600 - 3600));
    assert!(allowed(&world, &visitor, &permission, "").await.0);
    world.advance(Duration::from_secs(3601));
    let (yes, why) = allowed(&world, &visitor, &permission, "").await;
    assert_eq!((yes, why.as_str()), (false, "REASON_ASSIGNMENT_EXPIRED"));
    assert_eq!(revision(&world), before, "nothing was written");

    let longer = pb::AssignRole {
        end_time: Some(pb::timestamp(world.server.app.clock.now() + chrono::TimeDelta::days(31))),
        ..role_on("visitor", "")
    };
    let mut request = roles(&visitor, &[], &[]);
    request.add = vec![longer];
    let admin = world.sign_in("acme", "admin@acme.example").await;
    let refused = admin.memberships().update_member_roles(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_more_than_they_hold_or_their_role_lists() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    install(&admin, "business").await;
    let helen = world.member(&admin, "acme", "helen@acme.example", &[("hr_manager", "")]).await;
    let hr = world.sign_in("acme", "helen@acme.example").await;
    let maria = world.member(&hr, "acme", "maria@acme.example", &[("employee", "")]).await;
    for (subject, role) in [
        (&maria, "director"),
        (&helen, "director"),
        (&helen, "administrator"),
        (&maria, "accountant"),
    ] {
        let refused =
            hr.memberships().update_member_roles(roles(subject, &[(role, "")], &[])).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}");
        assert_eq!(reason(&refused), "ROLE_NOT_GRANTABLE", "{role}");
    }
    let suspend = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: first,
        ..Default::default()
    };
    let refused = hr.memberships().suspend_membership(suspend).await.unwrap_err();
    assert_eq!(reason(&refused), "MEMBER_OUTRANKS_CALLER");
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "sneaky".into(),
        display_names: [("en".to_owned(), "Sneaky".to_owned())].into(),
        permissions: vec!["*".into()],
        ..Default::default()
    };
    let refused = hr.roles().create_role(role).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrator_role_is_neither_edited_nor_deleted() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let (tenant, role) = ("acme".to_owned(), "administrator".to_owned());
    let update = pb::UpdateRoleRequest {
        tenant: tenant.clone(),
        role: role.clone(),
        permissions: vec!["files.read".into()],
        ..Default::default()
    };
    let refused = admin.roles().update_role(update).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_LOCKED");
    let delete = pb::DeleteRoleRequest { tenant, role, ..Default::default() };
    let refused = admin.roles().delete_role(delete).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_LOCKED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_acts_for_a_person_within_what_both_may_do() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    install(&admin, "business").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[("employee", "")]).await;
    let create = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: "portal".into(),
        display_name: "Portal".into(),
        ..Default::default()
    };
    let portal = admin.service_accounts().create_service_account(create).await.unwrap();
    let portal = portal.into_inner().service_account.unwrap().id;
    let key = pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: portal.clone(),
        display_name: "portal".into(),
        ..Default::default()
    };
    let secret = admin.service_accounts().create_api_key(key).await.unwrap().into_inner().secret;
    let service = world.with(&secret).await;
    let list = || pb::ListMembershipsRequest { tenant: "acme".into(), ..Default::default() };

    admin
        .memberships()
        .update_member_roles(roles(&portal, &[("hr_manager", "")], &[]))
        .await
        .unwrap();
    service.memberships().list_memberships(list()).await.unwrap();
    let refused = service.on_behalf_of(&first).memberships().list_memberships(list()).await;
    assert_eq!(reason(&refused.unwrap_err()), "ACT_AS_REFUSED");

    admin
        .memberships()
        .update_member_roles(roles(&portal, &[("administrator", "")], &[]))
        .await
        .unwrap();
    service.on_behalf_of(&first).memberships().list_memberships(list()).await.unwrap();
    let refused = service.on_behalf_of(&maria).memberships().list_memberships(list()).await;
    assert_eq!(reason(&refused.unwrap_err()), "PERMISSION_MISSING_ON_BEHALF_OF");
    let workspace = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: "paris".into(),
        display_name: "Paris".into(),
        ..Default::default()
    };
    service.on_behalf_of(&first).workspaces().create_workspace(workspace).await.unwrap();
    let events = pb::ListAuditEventsRequest { tenant: "acme".into(), ..Default::default() };
    let events = admin.audit().list_audit_events(events).await.unwrap().into_inner().events;
    let created = events.iter().find(|e| e.verb == "workspace.created").unwrap();
    assert_eq!(
        (created.actor.as_str(), created.on_behalf_of.as_str()),
        (portal.as_str(), first.as_str())
    );
    world.stop().await;
}
