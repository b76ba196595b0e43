//! What comes between a preview and its commit.

use super::*;
use tonic_types::StatusExt;

/// The differences that a refusal lists: type and subject.
fn differences(status: &Status) -> Vec<(String, String)> {
    let failure = status.get_details_precondition_failure();
    let violations = failure.map(|failure| failure.violations).unwrap_or_default();
    violations.into_iter().map(|v| (v.r#type, v.subject)).collect()
}

async fn stale(by: &Api, id: &str) -> Vec<(String, String)> {
    let refused = commit(by, id).await.unwrap_err();
    assert_eq!(reason(&refused), "IMPORT_STALE", "{refused:?}");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    differences(&refused)
}

fn difference(kind: &str, subject: &str) -> (String, String) {
    (kind.to_owned(), subject.to_owned())
}

async fn delete_role(by: &Api, key: &str) {
    let delete =
        pb::DeleteRoleRequest { tenant: "acme".into(), role: key.into(), ..Default::default() };
    by.roles().delete_role(delete).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_refuses_with_the_differences_and_writes_nothing() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let file = "email,role\n\
        a@acme.example,it\n\
        b@acme.example,employee\n\
        c@acme.example,employee\n\
        d@acme.example,employee\n";
    let id = planned(&admin, file).await;
    delete_role(&admin, "it_support").await;
    world.member(&admin, "acme", "b@acme.example", &[("secretary", "")]).await;
    admin.invitations().create_invitation(invite("acme", "c@acme.example", &[])).await.unwrap();
    world.mail_to("c@acme.example").await;
    let before = revision(&world).await;
    let expected = [
        difference("ROLE", "row 2"),
        difference("MEMBER", "row 3"),
        difference("INVITATION", "row 4"),
    ];
    assert_eq!(stale(&admin, &id).await, expected);
    assert_eq!(revision(&world).await, before);
    assert_eq!(world.mails_to("d@acme.example"), 0);
    // It is still a plan: what moved may move back.
    assert_eq!(stale(&admin, &id).await, expected);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_matter_does_not_keep_an_import_from_happening() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[("employee", "")]).await;
    admin.invitations().create_invitation(invite("acme", "ivo@acme.example", &[])).await.unwrap();
    let file = "email,role\nmaria@acme.example,employee\nivo@acme.example,employee\n\
        new@acme.example,HR Manager\n";
    let id = planned(&admin, file).await;
    // Invited becomes a member with that role, a role gets another name, somebody joins.
    world.accept("ivo@acme.example").await;
    world.member(&admin, "acme", "else@acme.example", &[]).await;
    let update = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: maria.clone(),
        add: vec![role_on("secretary", "")],
        ..Default::default()
    };
    admin.memberships().update_member_roles(update).await.unwrap();
    commit(&admin, &id).await.unwrap();
    world.mail_to("new@acme.example").await;
    assert_eq!(member(&admin, &maria).await.roles.len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_means_another_role_by_now_gives_neither() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let id = planned(&admin, "email,role\na@acme.example,hr\n").await;
    let create = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "hr".into(),
        display_names: [("en".to_owned(), "Hard Rock".to_owned())].into(),
        permissions: vec!["files.read".into()],
        ..Default::default()
    };
    admin.roles().create_role(create).await.unwrap();
    assert_eq!(stale(&admin, &id).await, [difference("ROLE", "row 2")]);
    let shown = preview(&admin, "acme", b"email,role\na@acme.example,hr\n").await.unwrap();
    assert_eq!(shown.rows[0].role, "hr", "a tenant's own roles come first");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_import_takes_the_last_administrator() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: "platform".into(),
        ..Default::default()
    };
    admin.roles().install_role_templates(install).await.unwrap();
    // One of a set replaces the other on its scope.
    let id =
        planned(&admin, "email,role\nnew@acme.example,basic\nadmin@acme.example,basic\n").await;
    let before = revision(&world).await;
    let refused = commit(&admin, &id).await.unwrap_err();
    assert_eq!(reason(&refused), "LAST_ADMINISTRATOR");
    assert_eq!(revision(&world).await, before, "nor was anybody invited");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commits_at_once_are_one() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let id = planned(&admin, EXAMPLE).await;
    let before = revision(&world).await;
    let (a, b) = tokio::join!(commit(&admin, &id), commit(&admin, &id));
    assert_eq!(a.unwrap().pop(), b.unwrap().pop());
    assert_eq!(revision(&world).await, before + 1);
    for address in ["john.doe@company.com", "maria.smith@company.com"] {
        world.mail_to(address).await;
        assert_eq!(world.mails_to(address), 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_seats_are_taken_once() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let plan = pb::SetTenantPlanRequest {
        tenant: "acme".into(),
        plan: "free".into(),
        ..Default::default()
    };
    world.operator.plans().set_tenant_plan(plan).await.unwrap();
    let file = "email\na@acme.example\nb@acme.example\n";
    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    assert_eq!((shown.seats_needed, shown.seats_available), (2, Some(2)));
    let id = shown.import.unwrap().id;
    admin.invitations().create_invitation(invite("acme", "c@acme.example", &[])).await.unwrap();
    let before = revision(&world).await;
    let refused = commit(&admin, &id).await.unwrap_err();
    assert_eq!(reason(&refused), "SEATS_EXHAUSTED");
    assert_eq!(revision(&world).await, before, "nobody was invited");
    world.mail_to("c@acme.example").await;

    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    assert_eq!((shown.seats_needed, shown.seats_available), (2, Some(1)));
    // A seat comes free again.
    let list = pb::ListInvitationsRequest { tenant: "acme".into(), ..Default::default() };
    let invited =
        admin.invitations().list_invitations(list).await.unwrap().into_inner().invitations;
    let invited = invited.into_iter().find(|one| one.email.starts_with("c@")).unwrap();
    let cancel = pb::CancelInvitationRequest {
        tenant: "acme".into(),
        invitation_id: invited.id,
        ..Default::default()
    };
    admin.invitations().cancel_invitation(cancel).await.unwrap();
    commit(&admin, &shown.import.unwrap().id).await.unwrap();
    world.mail_to("a@acme.example").await;
    world.mail_to("b@acme.example").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_up_their_own_rights_does_so_after_the_rest() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let platform = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: "platform".into(),
        ..Default::default()
    };
    admin.roles().install_role_templates(platform).await.unwrap();
    let dan = world.member(&admin, "acme", "dan@acme.example", &[("administrator", "")]).await;
    let by_dan = world.sign_in("acme", "dan@acme.example").await;
    let file = "email,role\ndan@acme.example,basic\nnew@acme.example,administrator\n";
    committed(&by_dan, file).await;
    let roles = member(&admin, &dan).await.roles;
    assert_eq!(roles.iter().map(|r| r.role.as_str()).collect::<Vec<_>>(), ["basic"]);
    world.mail_to("new@acme.example").await;
    world.stop().await;
}
