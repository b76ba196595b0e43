//! Invitations from the mail to the membership, and everything that can come between.

use std::time::Duration;

use rolecall::proto::{self as pb, accept_invitation_request::Account};
use tonic::Code;

use crate::world::{Api, PASSWORD, World, accept, check, invite, reason, token_of};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn list(by: &Api, tenant: &str, status: pb::InvitationStatus) -> Vec<pb::Invitation> {
    let list = pb::ListInvitationsRequest {
        tenant: tenant.into(),
        status: status.into(),
        ..Default::default()
    };
    by.invitations().list_invitations(list).await.unwrap().into_inner().invitations
}

async fn one(by: &Api, tenant: &str, id: &str) -> pb::Invitation {
    let get = pb::GetInvitationRequest { tenant: tenant.into(), invitation_id: id.into() };
    by.invitations().get_invitation(get).await.unwrap().into_inner().invitation.unwrap()
}

fn resend(tenant: &str, id: &str) -> pb::ResendInvitationRequest {
    let (tenant, invitation_id) = (tenant.into(), id.into());
    pb::ResendInvitationRequest { tenant, invitation_id, ..Default::default() }
}

fn cancel(tenant: &str, id: &str) -> pb::CancelInvitationRequest {
    let (tenant, invitation_id) = (tenant.into(), id.into());
    pb::CancelInvitationRequest { tenant, invitation_id, ..Default::default() }
}

fn existing(token: &str, password: &str) -> pb::AcceptInvitationRequest {
    let account = pb::ExistingAccount { password: password.into() };
    let account = Some(Account::ExistingAccount(account));
    pb::AcceptInvitationRequest { token: token.into(), account }
}

fn alone(token: &str) -> pb::AcceptInvitationRequest {
    pb::AcceptInvitationRequest { token: token.into(), account: None }
}

async fn create(by: &Api, tenant: &str, email: &str, roles: &[(&str, &str)]) -> String {
    let created = by.invitations().create_invitation(invite(tenant, email, roles)).await;
    created.unwrap().into_inner().invitation.unwrap().id
}

async fn refused(world: &World, request: pb::AcceptInvitationRequest) -> (Code, String) {
    let status = world.anonymous().await.invitations().accept_invitation(request).await;
    let status = status.unwrap_err();
    (status.code(), reason(&status))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_accepts_is_a_member_with_the_promised_roles_at_once() {
    let mut world = World::start().await;
    let (admin, admin_id) = world.tenant("acme").await;
    let workspace = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: "paris".into(),
        display_name: "Paris".into(),
        ..Default::default()
    };
    admin.workspaces().create_workspace(workspace).await.unwrap();
    let mut request = invite(
        "acme",
        "Maria@Company.example",
        &[("member", ""), ("administrator", "workspaces/paris")],
    );
    request.message = "See you on <b>Monday</b>".into();
    request.language = "fr".into();
    request.profile = Some(pb::Profile { department: "Sales".into(), ..Default::default() });
    let created = admin.invitations().create_invitation(request).await.unwrap().into_inner();
    let invitation = created.invitation.unwrap();
    assert_eq!(invitation.status(), pb::InvitationStatus::Pending);
    assert_eq!((invitation.roles.len(), invitation.invited_by.as_str()), (2, admin_id.as_str()));

    let mail = world.mail_to("Maria@company.example").await;
    assert!(mail.contains("Auto-Submitted: auto-generated"), "{mail}");
    assert!(mail.contains("&lt;b&gt;Monday") && mail.contains("<b>Monday"), "{mail}");
    let token = token_of(&mail);
    let joined = world.anonymous().await.invitations().accept_invitation(accept(&token)).await;
    let joined = joined.unwrap().into_inner();
    let membership = joined.membership.unwrap();
    assert_eq!((joined.tenant.as_str(), membership.roles.len()), ("acme", 2));
    let profile = membership.profile.unwrap();
    assert_eq!((profile.department.as_str(), profile.first_name.as_str()), ("Sales", "New"));

    let question = check("acme", &joined.user_id, "iam.roles.assign", "workspaces/paris");
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    assert!(answer.into_inner().allowed);
    let now = one(&admin, "acme", &invitation.id).await;
    assert_eq!(now.status(), pb::InvitationStatus::Accepted);
    assert_eq!((now.delivery(), now.accepted_by), (pb::Delivery::Sent, joined.user_id.clone()));

    // Again, by the same person: fine, and nothing changes.
    let again = existing(&token, PASSWORD);
    let again = world.anonymous().await.invitations().accept_invitation(again).await.unwrap();
    assert_eq!(again.into_inner().user_id, joined.user_id);
    let session = world.sign_in("acme", "maria@company.example").await;
    session.invitations().accept_invitation(alone(&token)).await.unwrap();
    // By anybody else it is used up.
    let used = (Code::FailedPrecondition, "INVITATION_ACCEPTED".to_owned());
    assert_eq!(refused(&world, accept(&token)).await, used);
    assert_eq!(refused(&world, alone(&token)).await, used);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_role_refuses_the_invitation_and_nothing_is_sent() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: "business".into(),
        ..Default::default()
    };
    admin.roles().install_role_templates(install).await.unwrap();
    world.member(&admin, "acme", "hr@acme.example", &[("hr_manager", "")]).await;
    let hr = world.sign_in("acme", "hr@acme.example").await;
    let both = invite("acme", "maria@acme.example", &[("employee", ""), ("director", "")]);
    let status = hr.invitations().create_invitation(both).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "ROLE_NOT_GRANTABLE")
    );
    assert!(list(&admin, "acme", pb::InvitationStatus::Pending).await.is_empty());
    create(&hr, "acme", "maria@acme.example", &[("employee", "")]).await;
    world.mail_to("maria@acme.example").await;
    assert_eq!(world.mails_to("maria@acme.example"), 1);

    // Nor can she renew or end what she could not have promised.
    let director = create(&admin, "acme", "dora@acme.example", &[("director", "")]).await;
    world.mail_to("dora@acme.example").await;
    let status = hr.invitations().resend_invitation(resend("acme", &director)).await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_NOT_GRANTABLE");
    let status = hr.invitations().cancel_invitation(cancel("acme", &director)).await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_NOT_GRANTABLE");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_invitation_stays_listed_and_is_renewed_by_a_new_link() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let id = create(&admin, "acme", "maria@acme.example", &[]).await;
    let old = world.token_to("maria@acme.example").await;
    world.advance(8 * DAY);
    let admin = world.sign_in("acme", "admin@acme.example").await;
    let expired = (Code::FailedPrecondition, "INVITATION_EXPIRED".to_owned());
    assert_eq!(refused(&world, accept(&old)).await, expired);
    assert_eq!(list(&admin, "acme", pb::InvitationStatus::Expired).await.len(), 1);
    assert!(list(&admin, "acme", pb::InvitationStatus::Pending).await.is_empty());

    let renewed = admin.invitations().resend_invitation(resend("acme", &id)).await.unwrap();
    let renewed = renewed.into_inner().invitation.unwrap();
    assert_eq!(renewed.status(), pb::InvitationStatus::Pending);
    let new = world.token_to("maria@acme.example").await;
    assert_ne!(old, new);
    assert_eq!(refused(&world, accept(&old)).await, (Code::NotFound, "NOT_FOUND".to_owned()));
    // Whoever is invited without a role gets the default one.
    let joined = world.anonymous().await.invitations().accept_invitation(accept(&new)).await;
    let roles = joined.unwrap().into_inner().membership.unwrap().roles;
    assert_eq!(roles.iter().map(|r| r.role.as_str()).collect::<Vec<_>>(), ["member"]);
    let status = admin.invitations().resend_invitation(resend("acme", &id)).await.unwrap_err();
    assert_eq!(reason(&status), "INVITATION_NOT_PENDING");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_invited_once_and_a_cancelled_link_is_dead() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let id = create(&admin, "acme", "maria@acme.example", &[]).await;
    let token = world.token_to("maria@acme.example").await;
    for there in ["MARIA@Acme.example", "ADMIN@acme.example"] {
        let again = admin.invitations().create_invitation(invite("acme", there, &[])).await;
        assert_eq!(again.unwrap_err().code(), Code::AlreadyExists, "{there}");
    }

    for _ in 0..2 {
        let cancelled = admin.invitations().cancel_invitation(cancel("acme", &id)).await.unwrap();
        let status = cancelled.into_inner().invitation.unwrap().status();
        assert_eq!(status, pb::InvitationStatus::Cancelled);
    }
    assert_eq!(refused(&world, accept(&token)).await.0, Code::NotFound);
    let status = admin.invitations().resend_invitation(resend("acme", &id)).await.unwrap_err();
    assert_eq!(reason(&status), "INVITATION_NOT_PENDING");
    create(&admin, "acme", "maria@acme.example", &[]).await;
    world.accept("maria@acme.example").await;

    let settings = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        allowed_email_domains: vec!["acme.example".into()],
        ..Default::default()
    };
    admin.tenants().update_tenant(settings).await.unwrap();
    let mut outside = invite("acme", "guest@client.example", &[]);
    let status = admin.invitations().create_invitation(outside.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "EMAIL_DOMAIN_NOT_ALLOWED");
    outside.kind = pb::MemberKind::External.into();
    admin.invitations().create_invitation(outside).await.unwrap();
    world.mail_to("guest@client.example").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opened_by_the_wrong_person_or_half_way_is_not_lost() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let maria = world.member(&acme, "acme", "maria@company.example", &[]).await;
    let maria_in_acme = world.sign_in("acme", "maria@company.example").await;
    create(&beta, "beta", "maria@company.example", &[]).await;
    let token = world.token_to("maria@company.example").await;

    let precondition = |word: &str| (Code::FailedPrecondition, word.to_owned());
    assert_eq!(refused(&world, accept(&token)).await, precondition("ACCOUNT_EXISTS"));
    assert_eq!(refused(&world, alone(&token)).await, precondition("ACCOUNT_EXISTS"));
    let wrong = (Code::Unauthenticated, "PASSWORD_WRONG".to_owned());
    assert_eq!(refused(&world, existing(&token, "not hers at all")).await, wrong);
    let other = beta.invitations().accept_invitation(alone(&token)).await.unwrap_err();
    assert_eq!(
        (other.code(), reason(&other).as_str()),
        (Code::PermissionDenied, "SIGNED_IN_AS_ANOTHER")
    );
    let forged = format!("{}A", &token[..token.len() - 1]);
    let forged = if forged == token { format!("{}B", &token[..token.len() - 1]) } else { forged };
    assert_eq!(refused(&world, accept(&forged)).await.0, Code::NotFound);

    // A service that may act for her does not thereby join for her.
    let acting = world.operator.on_behalf_of(&maria);
    let acted = acting.invitations().accept_invitation(alone(&token)).await.unwrap_err();
    assert_eq!(acted.code(), Code::FailedPrecondition, "{acted}");

    let joined = maria_in_acme.invitations().accept_invitation(alone(&token)).await.unwrap();
    assert_eq!(joined.into_inner().user_id, maria);
    let answer = beta
        .permissions()
        .check_permission(check("beta", &maria, "iam.tenant.read", ""))
        .await
        .unwrap()
        .into_inner();
    assert_ne!(answer.reason(), pb::Reason::NotAMember);

    create(&beta, "beta", "new@company.example", &[]).await;
    let token = world.token_to("new@company.example").await;
    assert_eq!(refused(&world, existing(&token, PASSWORD)).await, precondition("ACCOUNT_NEEDED"));
    assert_eq!(refused(&world, alone(&token)).await, precondition("ACCOUNT_NEEDED"));
    let short = pb::NewAccount { password: "short".into(), ..Default::default() };
    let mut weak = accept(&token);
    weak.account = Some(Account::NewAccount(short));
    assert_eq!(refused(&world, weak).await.0, Code::InvalidArgument);
    let joined = world.anonymous().await.invitations().accept_invitation(accept(&token)).await;
    joined.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_guessed_ten_times_with_a_link_and_not_more() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    world.member(&acme, "acme", "maria@company.example", &[]).await;
    create(&beta, "beta", "maria@company.example", &[]).await;
    let token = world.token_to("maria@company.example").await;
    for _ in 0..10 {
        assert_eq!(refused(&world, existing(&token, "a wrong guess")).await.1, "PASSWORD_WRONG");
    }
    assert_eq!(refused(&world, existing(&token, PASSWORD)).await.1, "TOO_MANY_ATTEMPTS");
    world.advance(Duration::from_secs(3601));
    let right = existing(&token, PASSWORD);
    world.anonymous().await.invitations().accept_invitation(right).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_accept_at_once_one_joins() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let id = create(&admin, "acme", "maria@acme.example", &[]).await;
    let token = world.token_to("maria@acme.example").await;
    let accepting = (0..6).map(|_| async {
        let answer = world.anonymous().await.invitations().accept_invitation(accept(&token)).await;
        answer.map(|a| a.into_inner().user_id)
    });
    let answers = futures::future::join_all(accepting).await;
    let joined: Vec<_> = answers.iter().flatten().collect();
    assert!(!joined.is_empty() && joined.iter().all(|user| *user == joined[0]), "{answers:?}");
    for refused in answers.iter().filter_map(|a| a.as_ref().err()) {
        assert_eq!(reason(refused), "INVITATION_ACCEPTED");
    }
    assert_eq!(&one(&admin, "acme", &id).await.accepted_by, joined[0]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_renews_the_invitation_that_a_new_tenant_waits_for() {
    let mut world = World::start().await;
    let administrator =
        pb::TenantAdministrator { email: "ada@acme.example".into(), ..Default::default() };
    let create = pb::CreateTenantRequest {
        key: "acme".into(),
        display_name: "Acme".into(),
        administrator: Some(administrator),
        ..Default::default()
    };
    let created = world.operator.tenants().create_tenant(create).await.unwrap().into_inner();
    world.mail_to("ada@acme.example").await;
    world.advance(8 * DAY);
    let again = resend("acme", &created.invitation_id);
    world.operator.invitations().resend_invitation(again).await.unwrap();
    let ada = world.accept("ada@acme.example").await;
    let session = world.sign_in("acme", "ada@acme.example").await;
    let get = pb::GetTenantRequest { tenant: "acme".into() };
    let tenant = session.tenants().get_tenant(get).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.status(), pb::TenantStatus::Active);

    // Whoever proved who they are is named as the one who acted.
    let list = pb::ListAuditEventsRequest { tenant: "acme".into(), ..Default::default() };
    let events = session.audit().list_audit_events(list).await.unwrap().into_inner().events;
    let by = |verb: &str| events.iter().find(|e| e.verb == verb).map(|e| e.actor.clone());
    for verb in ["member.added", "role.assigned", "invitation.accepted", "tenant.activated"] {
        assert_eq!(by(verb).as_deref(), Some(ada.as_str()), "{verb}");
    }
    world.stop().await;
}
