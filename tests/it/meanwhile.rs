//! What can come between an invitation and its person: each has an answer, and none loses the invitation.

use std::time::Duration;

use rolecall::proto as pb;
use tonic::{Code, Status};

use crate::world::{Api, World, accept, check, invite, reason, role_on};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn workspace(by: &Api, key: &str) {
    let create = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: key.to_uppercase(),
        ..Default::default()
    };
    by.workspaces().create_workspace(create).await.unwrap();
}

async fn role(by: &Api, key: &str, permissions: &[&str]) {
    let create = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_names: [("en".to_owned(), key.to_owned())].into(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    by.roles().create_role(create).await.unwrap();
}

async fn create(by: &Api, email: &str, roles: &[(&str, &str)]) -> Result<String, Status> {
    let created = by.invitations().create_invitation(invite("acme", email, roles)).await?;
    Ok(created.into_inner().invitation.unwrap().id)
}

fn resend(id: &str) -> pb::ResendInvitationRequest {
    let (tenant, invitation_id) = ("acme".into(), id.into());
    pb::ResendInvitationRequest { tenant, invitation_id, ..Default::default() }
}

fn cancel(id: &str) -> pb::CancelInvitationRequest {
    let (tenant, invitation_id) = ("acme".into(), id.into());
    pb::CancelInvitationRequest { tenant, invitation_id, ..Default::default() }
}

async fn join(world: &World, token: &str) -> Result<pb::AcceptInvitationResponse, Status> {
    let accepted = world.anonymous().await.invitations().accept_invitation(accept(token)).await;
    Ok(accepted?.into_inner())
}

async fn status(by: &Api, id: &str) -> pb::InvitationStatus {
    let get = pb::GetInvitationRequest { tenant: "acme".into(), invitation_id: id.into() };
    let found = by.invitations().get_invitation(get).await.unwrap().into_inner();
    found.invitation.unwrap().status()
}

fn roles(joined: pb::AcceptInvitationResponse) -> Vec<(String, String)> {
    let roles = joined.membership.unwrap().roles;
    roles.into_iter().map(|role| (role.role, role.scope)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_workspace_an_invitation_ends_and_roles_of_a_wider_one_are_left_out() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    workspace(&admin, "paris").await;
    workspace(&admin, "lyon").await;
    role(&admin, "reader", &["files.read"]).await;
    let both = [("reader", "workspaces/paris"), ("reader", "workspaces/lyon")];
    create(&admin, "both@acme.example", &both).await.unwrap();
    let one = create(&admin, "one@acme.example", &both[..1]).await.unwrap();
    let delete = |validate_only| pb::DeleteWorkspaceRequest {
        tenant: "acme".into(),
        workspace: "paris".into(),
        validate_only,
        ..Default::default()
    };
    let token = world.token_to("one@acme.example").await;
    for dry in [true, false] {
        let deleted = admin.workspaces().delete_workspace(delete(dry)).await.unwrap().into_inner();
        let counts = (deleted.ended_assignment_count, deleted.cancelled_invitation_count);
        assert_eq!(counts, (0, 1));
    }
    // Nobody chose that they come to the tenant itself.
    assert_eq!(status(&admin, &one).await, pb::InvitationStatus::Cancelled);
    assert_eq!(join(&world, &token).await.unwrap_err().code(), Code::NotFound);
    let list = pb::ListMembershipsRequest {
        tenant: "acme".into(),
        filter: "status = PENDING".into(),
        ..Default::default()
    };
    let listed = admin.memberships().list_memberships(list).await.unwrap().into_inner();
    let waiting: Vec<_> = listed.memberships.iter().flat_map(|one| &one.roles).collect();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].scope, "workspaces/lyon", "what joining will give");

    let token = world.token_to("both@acme.example").await;
    let joined = join(&world, &token).await.unwrap();
    assert_eq!(roles(joined), [("reader".to_owned(), "workspaces/lyon".to_owned())]);
    let list = pb::ListAuditEventsRequest {
        tenant: "acme".into(),
        verb: "invitation.accepted".into(),
        ..Default::default()
    };
    let events = admin.audit().list_audit_events(list).await.unwrap().into_inner().events;
    assert!(format!("{:?}", events[0]).contains("skipped_roles"), "{:?}", events[0]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_promises_nothing_any_more_leads_nowhere() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    role(&admin, "reader", &["files.read"]).await;
    let tomorrow = world.server.app.clock.now() + chrono::TimeDelta::days(1);
    let end_time = Some(prost_types::Timestamp { seconds: tomorrow.timestamp(), nanos: 0 });
    let visit = pb::AssignRole { end_time, ..role_on("reader", "") };
    let mut new = invite("acme", "guest@acme.example", &[]);
    new.roles = vec![visit];
    let created = admin.invitations().create_invitation(new).await.unwrap().into_inner();
    let id = created.invitation.unwrap().id;
    let token = world.token_to("guest@acme.example").await;
    let look = || async {
        let open = pb::OpenInvitationRequest { token: token.clone() };
        let looked = world.anonymous().await.invitations().open_invitation(open).await;
        let looked = looked.unwrap().into_inner();
        (looked.state(), looked.roles.len())
    };
    assert_eq!(look().await, (pb::LinkState::Open, 1));
    // It is open as long as a role of it lasts; so it takes no seat, and reminds nobody.
    world.advance(2 * DAY);
    assert_eq!(look().await, (pb::LinkState::Expired, 0));
    let refused = join(&world, &token).await.unwrap_err();
    assert_eq!(reason(&refused), "INVITATION_EXPIRED", "{refused}");
    let admin = world.sign_in("acme", "admin@acme.example").await;
    let refused = admin.invitations().resend_invitation(resend(&id)).await.unwrap_err();
    assert_eq!(reason(&refused), "INVITATION_VOID", "{refused}");
    create(&admin, "guest@acme.example", &[]).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_role_may_last_counts_from_joining() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let visitor = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "visitor".into(),
        display_names: [("en".to_owned(), "Visitor".to_owned())].into(),
        permissions: vec!["files.read".into()],
        max_duration: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
        ..Default::default()
    };
    admin.roles().create_role(visitor).await.unwrap();
    let id = create(&admin, "guest@acme.example", &[("visitor", "")]).await.unwrap();
    world.mail_to("guest@acme.example").await;
    world.advance(9 * DAY);
    let admin = world.sign_in("acme", "admin@acme.example").await;
    admin.invitations().resend_invitation(resend(&id)).await.unwrap();
    world.advance(2 * DAY);
    let token = world.token_to("guest@acme.example").await;
    let joined = join(&world, &token).await.unwrap().membership.unwrap();
    let ends = joined.roles[0].end_time.unwrap().seconds;
    let wanted = world.server.app.clock.now() + chrono::TimeDelta::days(1);
    assert!((ends - wanted.timestamp()).abs() < 60, "{joined:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_allowed_any_more_does_not_join_as_one_of_the_tenants_own() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    create(&admin, "m@other.example", &[]).await.unwrap();
    let mut guest = invite("acme", "guest@other.example", &[]);
    guest.kind = pb::MemberKind::External.into();
    admin.invitations().create_invitation(guest).await.unwrap();
    let settings = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        allowed_email_domains: vec!["acme.example".into()],
        ..Default::default()
    };
    admin.tenants().update_tenant(settings).await.unwrap();
    let token = world.token_to("m@other.example").await;
    let refused = join(&world, &token).await.unwrap_err();
    assert_eq!(reason(&refused), "EMAIL_DOMAIN_NOT_ALLOWED", "{refused}");
    let token = world.token_to("guest@other.example").await;
    join(&world, &token).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_deleted_while_the_invitation_had_expired_leaves_nothing_to_send() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    role(&admin, "reader", &["files.read"]).await;
    let id = create(&admin, "m@acme.example", &[("reader", "")]).await.unwrap();
    world.mail_to("m@acme.example").await;
    let delete = pb::DeleteRoleRequest {
        tenant: "acme".into(),
        role: "reader".into(),
        ..Default::default()
    };
    let status = admin.roles().delete_role(delete.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_IN_USE", "an open invitation keeps its role");
    world.advance(8 * DAY);
    let admin = world.sign_in("acme", "admin@acme.example").await;
    admin.roles().delete_role(delete).await.unwrap();
    let refused = admin.invitations().resend_invitation(resend(&id)).await.unwrap_err();
    assert_eq!(reason(&refused), "INVITATION_VOID", "{refused}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inviter_who_lost_the_right_leaves_the_invitation_to_be_sent_again() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let second = world.member(&admin, "acme", "b@acme.example", &[("administrator", "")]).await;
    let by_second = world.sign_in("acme", "b@acme.example").await;
    let id = create(&by_second, "m@acme.example", &[("administrator", "")]).await.unwrap();
    let plain = create(&by_second, "n@acme.example", &[]).await.unwrap();
    let suspend = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: second.clone(),
        ..Default::default()
    };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    for (id, email) in [(&id, "m@acme.example"), (&plain, "n@acme.example")] {
        let token = world.token_to(email).await;
        let refused = join(&world, &token).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(&refused), "INVITER_LOST_RIGHT");
        assert_eq!(status(&admin, id).await, pb::InvitationStatus::Pending);
        let token = admin.invitations().resend_invitation(resend(id)).await.map(|_| ());
        token.unwrap();
        let token = world.token_to(email).await;
        join(&world, &token).await.unwrap();
    }

    // Back in office, what was promised holds again.
    let third = create(&admin, "o@acme.example", &[]).await.unwrap();
    let reactivate = pb::ReactivateMembershipRequest {
        tenant: "acme".into(),
        user_id: second,
        ..Default::default()
    };
    admin.memberships().reactivate_membership(reactivate).await.unwrap();
    let token = world.token_to("o@acme.example").await;
    join(&world, &token).await.unwrap();
    assert_eq!(status(&admin, &third).await, pb::InvitationStatus::Accepted);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seat_of_an_invitation_is_kept_and_a_renewed_one_needs_another() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let plan = |plan: &str| pb::SetTenantPlanRequest {
        tenant: "acme".into(),
        plan: plan.into(),
        ..Default::default()
    };
    let first = create(&admin, "a@acme.example", &[]).await.unwrap();
    let lost = create(&admin, "b@acme.example", &[]).await.unwrap();
    create(&admin, "c@acme.example", &[]).await.unwrap();
    world.operator.plans().set_tenant_plan(plan("free")).await.unwrap();
    // Four are taken of three: whoever was invited before joins all the same.
    let token = world.token_to("a@acme.example").await;
    join(&world, &token).await.unwrap();
    assert_eq!(status(&admin, &first).await, pb::InvitationStatus::Accepted);
    // One that is declined frees its seat, and needs one to be sent again.
    let token = world.token_to("b@acme.example").await;
    let decline = pb::DeclineInvitationRequest { token: token.clone() };
    for _ in 0..2 {
        let anonymous = world.anonymous().await;
        anonymous.invitations().decline_invitation(decline.clone()).await.unwrap();
    }
    let refused = admin.invitations().resend_invitation(resend(&lost)).await.unwrap_err();
    assert_eq!(reason(&refused), "SEATS_EXHAUSTED");
    assert_eq!(status(&admin, &lost).await, pb::InvitationStatus::Declined);
    world.operator.plans().set_tenant_plan(plan("premium")).await.unwrap();
    admin.invitations().resend_invitation(resend(&lost)).await.unwrap();
    world.accept("b@acme.example").await;
    world.mail_to("c@acme.example").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_of_workspaces_invites_into_them_and_nowhere_else() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    for key in ["paris", "lyon", "oslo"] {
        workspace(&admin, key).await;
    }
    role(&admin, "reader", &["files.read"]).await;
    let may = ["files.*", "iam.members.invite.internal", "iam.roles.assign"];
    role(&admin, "manager", &may).await;
    let of_two = [("manager", "workspaces/paris"), ("manager", "workspaces/lyon")];
    world.member(&admin, "acme", "mia@acme.example", &of_two).await;
    let mia = world.sign_in("acme", "mia@acme.example").await;

    let inside = [("reader", "workspaces/paris"), ("reader", "workspaces/lyon/folders/1")];
    let id = create(&mia, "guest@acme.example", &inside).await.unwrap();
    world.mail_to("guest@acme.example").await;
    for outside in [
        &[("reader", "workspaces/oslo")][..],
        &[("reader", "workspaces/paris"), ("reader", "")],
        &[("reader", "workspaces/nowhere")],
        &[],
    ] {
        let refused = create(&mia, "x@acme.example", outside).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{outside:?}: {refused}");
    }
    // Nor more than her own.
    let refused = create(&mia, "x@acme.example", &[("administrator", "workspaces/paris")]).await;
    assert_eq!(reason(&refused.unwrap_err()), "ROLE_NOT_GRANTABLE");

    mia.invitations().resend_invitation(resend(&id)).await.unwrap();
    let token = world.token_to("guest@acme.example").await;
    let joined = join(&world, &token).await.unwrap();
    let user = joined.user_id.clone();
    assert_eq!(roles(joined).len(), 2);
    let question = |resource| check("acme", &user, "files.read", resource);
    for (resource, expected) in
        [("workspaces/paris/x/1", true), ("workspaces/lyon/folders/1", true), ("", false)]
    {
        let answer = world.operator.permissions().check_permission(question(resource)).await;
        assert_eq!(answer.unwrap().into_inner().allowed, expected, "{resource}");
    }

    // What others invited elsewhere looks to her as if it were not there.
    let theirs = create(&admin, "y@acme.example", &[("reader", "workspaces/oslo")]).await.unwrap();
    world.mail_to("y@acme.example").await;
    let unknown = format!("inv_{}", "0".repeat(32));
    let refusals = [theirs.as_str(), &unknown].map(cancel);
    let mut messages = Vec::new();
    for request in refusals {
        let refused = mia.invitations().cancel_invitation(request).await.unwrap_err();
        messages.push((refused.code(), refused.message().to_owned()));
    }
    assert_eq!(messages[0].0, Code::PermissionDenied);
    assert_eq!(messages[0], messages[1]);
    let own = create(&mia, "z@acme.example", &[("reader", "workspaces/paris")]).await.unwrap();
    mia.invitations().cancel_invitation(cancel(&own)).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_reminded_once_for_each_link_and_only_where_the_tenant_wants_it() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let id = create(&admin, "m@acme.example", &[]).await.unwrap();
    beta.invitations().create_invitation(invite("beta", "m@beta.example", &[])).await.unwrap();
    let first = world.token_to("m@acme.example").await;
    world.mail_to("m@beta.example").await;
    let days = |days: i64| Some(prost_types::Duration { seconds: days * 86_400, nanos: 0 });
    let settings = pb::UpdateMailSettingsRequest {
        tenant: "acme".into(),
        reminder_after: days(3),
        ..Default::default()
    };
    let half = prost_types::Duration { seconds: 43_200, nanos: 0 };
    let wrong = pb::UpdateMailSettingsRequest { reminder_after: Some(half), ..settings.clone() };
    let refused = admin.mail().update_mail_settings(wrong).await.unwrap_err();
    assert_eq!(crate::world::field(&refused), "reminder_after");
    admin.mail().update_mail_settings(settings).await.unwrap();

    remind(&world).await;
    assert_eq!(world.queued("m@acme.example").await, 1, "too early");
    world.advance(3 * DAY + Duration::from_secs(60));
    remind(&world).await;
    remind(&world).await;
    assert_eq!(world.queued("m@acme.example").await, 2, "once");
    let mail = world.mail_to("m@acme.example").await;
    assert!(mail.contains("Reminder"), "{mail}");
    assert_eq!(crate::world::token_of(&mail), first, "the same link");

    let admin = world.sign_in("acme", "admin@acme.example").await;
    admin.invitations().resend_invitation(resend(&id)).await.unwrap();
    world.mail_to("m@acme.example").await;
    remind(&world).await;
    assert_eq!(world.queued("m@acme.example").await, 3, "the new link is young");
    world.advance(3 * DAY + Duration::from_secs(60));
    remind(&world).await;
    let token = world.token_to("m@acme.example").await;
    join(&world, &token).await.unwrap();
    world.advance(4 * DAY);
    remind(&world).await;
    assert_eq!(world.queued("m@acme.example").await, 4, "nobody waits any more");
    assert_eq!(world.queued("m@beta.example").await, 1, "beta wants none");
    world.stop().await;
}

/// What the worker does once a minute.
async fn remind(world: &World) {
    rolecall::invitations::remind_now(&world.server.app).await.unwrap();
}

fn one(email: &str, roles: &[(&str, &str)]) -> pb::NewInvitation {
    pb::NewInvitation {
        email: email.into(),
        kind: pb::MemberKind::Internal.into(),
        roles: roles.iter().map(|(role, scope)| role_on(role, scope)).collect(),
        ..Default::default()
    }
}

fn batch(invitations: Vec<pb::NewInvitation>) -> pb::BatchCreateInvitationsRequest {
    let tenant = "acme".into();
    pb::BatchCreateInvitationsRequest { tenant, invitations, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_invitations_each_has_its_own_result_and_one_revision() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    workspace(&admin, "paris").await;
    let several = batch(vec![
        one("a@acme.example", &[]),
        one("not an address", &[]),
        one("A@acme.example", &[]),
        one("admin@acme.example", &[]),
        one("b@acme.example", &[("membr", "")]),
        one("c@acme.example", &[("member", "workspaces/paris")]),
    ]);
    let request_id = "0192f5c0-0000-7000-8000-000000000001".to_owned();
    let request = pb::BatchCreateInvitationsRequest { request_id, ..several.clone() };
    let answer = admin.invitations().batch_create_invitations(request.clone()).await.unwrap();
    let answer = answer.into_inner();
    let told: Vec<_> = answer
        .results
        .iter()
        .map(|result| match (&result.invitation, &result.refusal) {
            (Some(made), None) => ("", made.email.as_str()),
            (None, Some(refusal)) => (refusal.reason.as_str(), refusal.field.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("", "a@acme.example"),
        ("INVALID_FIELD", "invitations[1].email"),
        ("ALREADY_EXISTS", ""),
        ("ALREADY_EXISTS", ""),
        ("INVALID_FIELD", "invitations[4].roles[0].role"),
        ("", "c@acme.example"),
    ];
    assert_eq!(told, expected);
    assert!(answer.results[4].refusal.as_ref().unwrap().message.contains("did you mean `member`"));
    let again = admin.invitations().batch_create_invitations(request).await.unwrap().into_inner();
    assert_eq!(again, answer, "the same request, the same answer");
    for email in ["a@acme.example", "c@acme.example"] {
        world.accept(email).await;
    }
    let list = pb::ListInvitationsRequest { tenant: "acme".into(), ..Default::default() };
    let all = admin.invitations().list_invitations(list).await.unwrap().into_inner().invitations;
    assert_eq!(all.len(), 3, "her own, and two");

    let none = admin.invitations().batch_create_invitations(batch(Vec::new())).await;
    assert_eq!(none.unwrap_err().code(), Code::InvalidArgument);
    let many = (0..101).map(|n| one(&format!("p{n}@acme.example"), &[])).collect();
    let many = admin.invitations().batch_create_invitations(batch(many)).await;
    assert_eq!(crate::world::field(&many.unwrap_err()), "invitations");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_fills_the_seats_that_are_left_and_says_so_for_the_others() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let plan = pb::SetTenantPlanRequest {
        tenant: "acme".into(),
        plan: "free".into(),
        ..Default::default()
    };
    world.operator.plans().set_tenant_plan(plan).await.unwrap();
    let four = (0..4).map(|n| one(&format!("p{n}@acme.example"), &[])).collect();
    let dry = pb::BatchCreateInvitationsRequest { validate_only: true, ..batch(four) };
    let reasons = |answer: pb::BatchCreateInvitationsResponse| {
        let reason =
            |result: pb::BatchInvitation| result.refusal.map_or(String::new(), |r| r.reason);
        answer.results.into_iter().map(reason).collect::<Vec<_>>()
    };
    let expected = ["", "", "SEATS_EXHAUSTED", "SEATS_EXHAUSTED"];
    let answer = admin.invitations().batch_create_invitations(dry.clone()).await.unwrap();
    assert_eq!(reasons(answer.into_inner()), expected);
    assert_eq!(world.mails_to("p0@acme.example"), 0, "only asked");
    let real = pb::BatchCreateInvitationsRequest { validate_only: false, ..dry };
    let answer = admin.invitations().batch_create_invitations(real).await.unwrap().into_inner();
    for refused in answer.results.iter().filter_map(|result| result.refusal.as_ref()) {
        let numbers = "3 seats, of which 3 are taken, and this needs 1 more";
        assert!(refused.message.contains(numbers), "{}", refused.message);
    }
    assert_eq!(reasons(answer), expected);
    for n in 0..2 {
        world.accept(&format!("p{n}@acme.example")).await;
    }
    assert_eq!(world.mails_to("p2@acme.example") + world.mails_to("p3@acme.example"), 0);
    world.stop().await;
}
