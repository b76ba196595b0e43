//! Why somebody may or may not, and what would help.

use rolecall::proto::{self as pb, Reason, RemedyKind, WhyNot};
use tonic::Code;

use crate::world::{Api, World, check, field, invite, role_on};

async fn explain(
    by: &Api,
    subject: &str,
    permission: &str,
    resource: &str,
) -> pb::ExplainPermissionResponse {
    let request = pb::ExplainPermissionRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        permission: permission.into(),
        resource: resource.into(),
        ..Default::default()
    };
    by.permissions().explain_permission(request).await.unwrap().into_inner()
}

fn kinds(explained: &pb::ExplainPermissionResponse) -> Vec<RemedyKind> {
    explained.remedies.iter().map(pb::Remedy::kind).collect()
}

async fn role(by: &Api, key: &str, permissions: &[&str], includes: &[&str]) {
    let create = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_names: [("en".to_owned(), key.to_owned())].into(),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        includes: includes.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    by.roles().create_role(create).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_allows_is_named_down_to_the_pattern() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let paris = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: "paris".into(),
        display_name: "Paris".into(),
        ..Default::default()
    };
    admin.workspaces().create_workspace(paris).await.unwrap();
    role(&admin, "reader", &["files.*", "files.read"], &[]).await;
    role(&admin, "writer", &["files.write"], &["reader"]).await;
    let roles = [("writer", "workspaces/paris")];
    let maria = world.member(&admin, "acme", "maria@acme.example", &roles).await;

    let yes = explain(&admin, &maria, "files.read", "workspaces/paris/folders/1").await;
    assert!(yes.allowed && yes.remedies.is_empty() && yes.considered.is_empty(), "{yes:?}");
    let grounds = yes.grounds.unwrap();
    assert_eq!(grounds.include_path, ["writer", "reader"]);
    assert_eq!(grounds.matched_permission, "files.read");
    assert_eq!((grounds.scope.as_str(), grounds.tenant.as_str()), ("workspaces/paris", "acme"));

    let no = explain(&admin, &maria, "files.read", "").await;
    assert_eq!(no.reason(), Reason::NoRole);
    let why: Vec<_> = no.considered.iter().map(pb::ConsideredAssignment::why_not).collect();
    assert!(why.contains(&WhyNot::Scope), "{why:?}");
    assert_eq!(kinds(&no), [RemedyKind::AssignRole]);
    assert_eq!(no.remedies[0].roles, ["reader", "writer", "administrator"].map(String::from));
    assert_eq!(no.remedies[0].user_ids, [user.as_str()], "not the person concerned");
    assert_eq!(no.remedies[0].scope, "", "the tenant");
    let no = explain(&admin, &maria, "files.read", "projects/7").await;
    assert_eq!(no.remedies[0].scope, "projects/7", "where the role would help");
    assert!(no.remedies[0].message.contains("on `projects/7`"), "{no:?}");

    let no = explain(&admin, &maria, "files.read", "workspaces/rome").await;
    assert_eq!(
        (no.reason(), kinds(&no)),
        (Reason::WorkspaceUnknown, vec![RemedyKind::CorrectName])
    );

    // By address: those who belong here, and nobody else.
    let question = check("acme", "Maria@ACME.example", "files.read", "workspaces/paris");
    let answer = admin.permissions().check_permission(question).await.unwrap().into_inner();
    assert!(answer.allowed);
    world.tenant("other").await;
    for email in ["admin@other.example", "nobody@other.example"] {
        let no = explain(&admin, email, "files.read", "").await;
        assert_eq!(no.reason(), Reason::SubjectUnknown);
        assert_eq!(kinds(&no), [RemedyKind::Invite, RemedyKind::CorrectName]);
        assert_eq!(no.remedies[0].user_ids, [user.as_str()]);
    }
    // A session of another tenant, of somebody who does not belong here.
    let theirs = world.session("other", "admin@other.example").await;
    let no = explain(&admin, &theirs, "files.read", "").await;
    assert_eq!(no.reason(), Reason::SessionElsewhere);
    assert_eq!(kinds(&no), [RemedyKind::Invite, RemedyKind::SignIn, RemedyKind::CorrectName]);
    assert_eq!(no.remedies[0].user_ids, [user.as_str()]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_denial_says_what_would_help() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    role(&admin, "reader", &["files.read"], &[]).await;
    admin.invitations().create_invitation(invite("acme", "pat@acme.example", &[])).await.unwrap();
    let no = explain(&admin, "pat@acme.example", "files.read", "").await;
    assert_eq!(
        (no.reason(), kinds(&no)),
        (Reason::SubjectUnknown, vec![RemedyKind::AcceptInvitation])
    );
    let pat = world.accept("pat@acme.example").await;

    let now = world.server.app.clock.now();
    let at = |hours| Some(pb::timestamp(now + chrono::TimeDelta::hours(hours)));
    let dated = pb::AssignRole { start_time: at(1), end_time: at(2), ..role_on("reader", "") };
    let give = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: pat.clone(),
        add: vec![dated],
        ..Default::default()
    };
    admin.memberships().update_member_roles(give).await.unwrap();
    let no = explain(&admin, &pat, "files.read", "").await;
    assert_eq!(no.reason(), Reason::AssignmentNotStarted);
    assert_eq!(kinds(&no), [RemedyKind::Wait, RemedyKind::AssignRole]);
    world.advance(std::time::Duration::from_secs(90 * 60));
    assert!(explain(&admin, &pat, "files.read", "").await.allowed);

    let suspend = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: pat.clone(),
        ..Default::default()
    };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    let no = explain(&admin, &pat, "files.read", "").await;
    assert_eq!(no.reason(), Reason::MembershipSuspended);
    assert_eq!(kinds(&no), [RemedyKind::ReactivateMembership], "the role is there");
    assert_eq!(no.remedies[0].user_ids, [user.as_str()]);
    assert!(no.considered.iter().any(|c| c.why_not() == WhyNot::NoAccess), "{no:?}");
    let no = explain(&admin, &pat, "files.raed", "").await;
    let assign_or_correct = [RemedyKind::AssignRole, RemedyKind::CorrectName];
    assert_eq!(kinds(&no)[1..], assign_or_correct);
    assert!(no.remedies[2].message.contains("did you mean `files.read`"), "{no:?}");
    let no = explain(&admin, &pat, "iam.members.purge", "").await;
    assert_eq!(kinds(&no)[1..], [RemedyKind::AssignRole], "a word of ours is right");
    let no = explain(&admin, &pat, "files.read", "workspaces/nowhere").await;
    assert_eq!(kinds(&no), [RemedyKind::ReactivateMembership, RemedyKind::CorrectName]);
    let back = pb::ReactivateMembershipRequest {
        tenant: "acme".into(),
        user_id: pat.clone(),
        ..Default::default()
    };
    admin.memberships().reactivate_membership(back).await.unwrap();
    world.advance(std::time::Duration::from_secs(60 * 60));
    let no = explain(&admin, &pat, "files.read", "").await;
    assert_eq!(no.reason(), Reason::AssignmentExpired);
    assert_eq!(kinds(&no), [RemedyKind::ExtendAssignment, RemedyKind::AssignRole]);
    assert!(no.remedies[0].assignment_id.starts_with("asg_"));

    let disable = pb::DisableUserRequest { user_id: pat.clone(), ..Default::default() };
    world.operator.users().disable_user(disable).await.unwrap();
    let no = explain(&admin, &pat, "files.read", "").await;
    assert_eq!(no.reason(), Reason::AccountDisabled);
    assert_eq!(kinds(&no)[0], RemedyKind::EnableAccount);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opening_a_tenant_would_not_give_is_said_beside_it() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    role(&admin, "reader", &["files.read"], &[]).await;
    role(&admin, "writer", &["files.write"], &[]).await;
    let pat = world.member(&admin, "acme", "pat@acme.example", &[("reader", "")]).await;
    let suspend = pb::SuspendTenantRequest { tenant: "acme".into(), ..Default::default() };
    world.operator.tenants().suspend_tenant(suspend).await.unwrap();
    let stranger = "usr_00000000000000000000000000000001";
    let open = RemedyKind::ReactivateTenant;
    for (subject, word, wanted) in [
        (pat.as_str(), "files.read", vec![open]),
        (&pat, "files.write", vec![open, RemedyKind::AssignRole]),
        (stranger, "files.read", vec![open, RemedyKind::Invite, RemedyKind::CorrectName]),
    ] {
        let no = explain(&world.operator, subject, word, "").await;
        assert_eq!((no.reason(), kinds(&no)), (Reason::TenantSuspended, wanted), "{word}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_sessions_are_subjects_and_what_is_malformed_is_no_question() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let robot = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: "robot".into(),
        display_name: "Robot".into(),
        ..Default::default()
    };
    let robot = admin.service_accounts().create_service_account(robot).await.unwrap().into_inner();
    let robot = robot.service_account.unwrap().id;
    let give = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: robot.clone(),
        add: vec![role_on("administrator", "")],
        ..Default::default()
    };
    admin.memberships().update_member_roles(give).await.unwrap();
    let key = pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: robot.clone(),
        display_name: "reader".into(),
        permissions: vec!["files.*".into()],
        ..Default::default()
    };
    let key = admin.service_accounts().create_api_key(key).await.unwrap().into_inner().secret;
    assert!(explain(&admin, &key, "files.read", "").await.allowed);
    let no = explain(&admin, &key, "invoices.read", "").await;
    assert_eq!((no.reason(), kinds(&no)), (Reason::Narrowed, vec![RemedyKind::UseAnotherKey]));
    assert!(explain(&admin, &robot, "invoices.read", "").await.allowed);
    let session = world.session("acme", "admin@acme.example").await;
    assert!(explain(&admin, &session, "files.read", "").await.allowed);

    let other = if session.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{other}", &session[..session.len() - 1]);
    for (subject, remedy) in [
        (forged.as_str(), RemedyKind::SignIn),
        ("rcs_x", RemedyKind::SignIn),
        ("rck_x", RemedyKind::UseAnotherKey),
    ] {
        let no = explain(&admin, subject, "files.read", "").await;
        assert_eq!((no.reason(), kinds(&no)), (Reason::SubjectUnknown, vec![remedy]));
    }

    for (subject, permission, resource, wrong) in [
        ("maria", "files.read", "", "subject"),
        ("", "files.read", "", "subject"),
        ("usr_1", "files.read", "", "subject"),
        ("a b@c.example", "files.read", "", "subject"),
        (user.as_str(), "files", "", "permission"),
        (user.as_str(), "files.*", "", "permission"),
        (user.as_str(), "files.read", "workspaces", "resource"),
    ] {
        let question = check("acme", subject, permission, resource);
        let refused = admin.permissions().check_permission(question).await.unwrap_err();
        assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, wrong));
    }
    let malformed = check("Not a key", &user, "files.read", "");
    let refused = world.operator.permissions().check_permission(malformed).await.unwrap_err();
    assert_eq!(field(&refused), "tenant");
    let elsewhere = check("nowhere", &user, "files.read", "");
    let answer = world.operator.permissions().check_permission(elsewhere.clone()).await.unwrap();
    assert_eq!(answer.into_inner().reason(), Reason::TenantUnknown);
    let refused = admin.permissions().check_permission(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "which tenants there are is not told");
    world.stop().await;
}
