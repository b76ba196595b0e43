//! Ways to more than one was given, each of which was open once here or at a comparable system.

use rolecall::proto as pb;
use tonic::{Code, Status};

use crate::world::{Api, PASSWORD, World, reason, role_on};

async fn account(by: &Api, key: &str, roles: &[&str]) -> String {
    let create = pb::CreateServiceAccountRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: key.into(),
        ..Default::default()
    };
    let created = by.service_accounts().create_service_account(create).await.unwrap().into_inner();
    let id = created.service_account.unwrap().id;
    assign(by, &id, roles).await.unwrap();
    id
}

async fn key(by: &Api, account: &str, narrowed: &[&str]) -> Result<String, Status> {
    let create = pb::CreateApiKeyRequest {
        tenant: "acme".into(),
        service_account_id: account.into(),
        display_name: "key".into(),
        permissions: narrowed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    by.service_accounts().create_api_key(create).await.map(|answer| answer.into_inner().secret)
}

async fn assign(by: &Api, subject: &str, roles: &[&str]) -> Result<(), Status> {
    let update = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        add: roles.iter().map(|role| role_on(role, "")).collect(),
        ..Default::default()
    };
    by.memberships().update_member_roles(update).await.map(|_| ())
}

async fn role(by: &Api, key: &str, permissions: &[&str], may_grant: &[&str]) {
    let create = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_names: [("en".to_owned(), key.to_owned())].into(),
        permissions: permissions.iter().map(ToString::to_string).collect(),
        may_grant: may_grant.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    by.roles().create_role(create).await.unwrap();
}

async fn install(by: &Api) {
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: "business".into(),
        ..Default::default()
    };
    by.roles().install_role_templates(install).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_session_gives_no_token() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    let dry = pb::CreateSessionRequest {
        tenant: "acme".into(),
        user_id: maria,
        validate_only: true,
        ..Default::default()
    };
    let answer = admin.sessions().create_session(dry).await.unwrap().into_inner();
    assert_eq!(answer.token, "");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_service_opened_holds_in_its_tenant_only() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let (_, owner) = world.tenant("beta").await;
    let invited = crate::world::invite("acme", "admin@beta.example", &[]);
    admin.invitations().create_invitation(invited).await.unwrap();
    let token = world.token_to("admin@beta.example").await;
    let proof = pb::ExistingAccount { password: PASSWORD.into() };
    let accept = pb::AcceptInvitationRequest {
        token,
        account: Some(pb::accept_invitation_request::Account::ExistingAccount(proof)),
    };
    world.anonymous().await.invitations().accept_invitation(accept).await.unwrap();

    let open = pb::CreateSessionRequest {
        tenant: "acme".into(),
        user_id: owner.clone(),
        ..Default::default()
    };
    let opened = admin.sessions().create_session(open).await.unwrap().into_inner();
    let theirs = world.with(&opened.token).await;
    let get = pb::GetMembershipRequest { tenant: "acme".into(), user_id: owner.clone() };
    theirs.memberships().get_membership(get).await.unwrap();
    let switch = pb::SwitchTenantRequest { tenant: "beta".into() };
    let refused = theirs.sessions().switch_tenant(switch).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_BY_SERVICE");
    let get = pb::GetUserRequest { user_id: owner };
    let refused = theirs.users().get_user(get).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_BY_SERVICE");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_key_gives_nothing_that_it_leaves_out() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    install(&admin).await;
    let target = account(&admin, "target", &[]).await;
    let robot = account(&admin, "robot", &["hr_manager"]).await;
    let wide = world.with(&key(&admin, &robot, &[]).await.unwrap()).await;
    assign(&wide, &target, &["employee"]).await.unwrap();
    let narrow = key(&admin, &robot, &["iam.roles.assign"]).await.unwrap();
    let refused = assign(&world.with(&narrow).await, &target, &["secretary"]).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_NOT_GRANTABLE");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chain_of_roles_that_give_roles_leads_to_more() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    role(&admin, "second", &["iam.roles.assign"], &["administrator"]).await;
    role(&admin, "first", &["iam.roles.assign"], &["second"]).await;
    role(&admin, "assigner", &["iam.roles.assign"], &[]).await;
    let robot = account(&admin, "robot", &["assigner"]).await;
    let api = world.with(&key(&admin, &robot, &[]).await.unwrap()).await;
    for wanted in ["administrator", "second", "first"] {
        let refused = assign(&api, &robot, &[wanted]).await.unwrap_err();
        assert_eq!(reason(&refused), "ROLE_NOT_GRANTABLE", "{wanted}");
    }
    let other = account(&admin, "other", &[]).await;
    assign(&admin, &robot, &["first"]).await.unwrap();
    assign(&api, &other, &["second"]).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_lists_as_to_be_given_is_for_others() {
    let mut world = World::start().await;
    let (admin, ada) = world.tenant("acme").await;
    install(&admin).await;
    role(&admin, "crew", &["iam.groups.update", "iam.service_accounts.keys"], &[]).await;
    let roles = [("hr_manager", ""), ("crew", "")];
    let hana = world.member(&admin, "acme", "hana@acme.example", &roles).await;
    let bob = world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let by_hana = world.sign_in("acme", "hana@acme.example").await;
    for (key, role) in [("staff", "employee"), ("hers", "")] {
        let create = pb::CreateGroupRequest {
            tenant: "acme".into(),
            key: key.into(),
            display_name: key.into(),
            ..Default::default()
        };
        admin.groups().create_group(create).await.unwrap();
        let update = pb::UpdateGroupRolesRequest {
            tenant: "acme".into(),
            group: key.into(),
            add: (!role.is_empty()).then(|| role_on(role, "")).into_iter().collect(),
            ..Default::default()
        };
        admin.groups().update_group_roles(update).await.unwrap();
    }
    let join = |group: &str, users: &[&String]| pb::AddGroupMembersRequest {
        tenant: "acme".into(),
        group: group.into(),
        user_ids: users.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    admin.groups().add_group_members(join("hers", &[&hana])).await.unwrap();
    let own = pb::UpdateGroupRolesRequest {
        tenant: "acme".into(),
        group: "hers".into(),
        add: vec![role_on("employee", "")],
        ..Default::default()
    };

    let herself = assign(&by_hana, &hana, &["employee"]).await.unwrap_err();
    let joined = by_hana.groups().add_group_members(join("staff", &[&bob, &hana])).await;
    let raised = by_hana.groups().update_group_roles(own).await;
    for refused in [herself, joined.unwrap_err(), raised.unwrap_err()] {
        assert_eq!(reason(&refused), "ROLE_NOT_GRANTABLE");
        assert!(refused.message().contains("to yourself"), "{refused}");
    }
    let file = "email,role\nhana@acme.example,employee\nbob@acme.example,employee\n";
    let shown = crate::imports::preview(&by_hana, "acme", file.as_bytes()).await.unwrap();
    assert_eq!(shown.rows.iter().map(|row| row.errors.len()).collect::<Vec<_>>(), [1, 0]);
    // Nor by a key of somebody who has it.
    let clerk = account(&admin, "clerk", &["employee"]).await;
    let refused = key(&by_hana, &clerk, &[]).await.unwrap_err();
    assert_eq!(reason(&refused), "MEMBER_OUTRANKS_CALLER", "{refused}");
    assign(&by_hana, &bob, &["employee"]).await.unwrap();
    by_hana.groups().add_group_members(join("staff", &[&bob])).await.unwrap();
    // Whoever holds all of it raises nobody; nor does who acts for them.
    role(&admin, "portal", &["iam.act_as", "iam.roles.assign"], &["employee"]).await;
    let portal = account(&admin, "portal", &["portal"]).await;
    let portal = world.with(&key(&admin, &portal, &[]).await.unwrap()).await;
    assign(&portal.on_behalf_of(&ada), &ada, &["employee"]).await.unwrap();
    assign(&admin, &hana, &["employee"]).await.unwrap();
    assign(&by_hana, &hana, &["employee"]).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_for_somebody_above_does_not_reach_them() {
    let mut world = World::start().await;
    let (admin, first) = world.tenant("acme").await;
    let words = ["iam.act_as", "iam.members.suspend", "iam.members.remove.internal"];
    role(&admin, "portal", &words, &[]).await;
    let robot = account(&admin, "robot", &["portal"]).await;
    let api = world.with(&key(&admin, &robot, &[]).await.unwrap()).await;
    // So that the last administrator is not what refuses.
    world.member(&admin, "acme", "other@acme.example", &[("administrator", "")]).await;
    let (tenant, user_id) = ("acme".to_owned(), first.clone());
    let suspend = pb::SuspendMembershipRequest { tenant, user_id, ..Default::default() };
    let refused = api.on_behalf_of(&first).memberships().suspend_membership(suspend).await;
    assert_eq!(reason(&refused.unwrap_err()), "MEMBER_OUTRANKS_CALLER");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_that_changed_nothing_changes_nothing_later_either() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    let suspend = |request_id: &str| pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: maria.clone(),
        request_id: request_id.into(),
        ..Default::default()
    };
    let again = "0192f5c0-0000-7000-8000-000000000009";
    admin.memberships().suspend_membership(suspend("")).await.unwrap();
    admin.memberships().suspend_membership(suspend(again)).await.unwrap();
    let (tenant, user_id) = ("acme".to_owned(), maria.clone());
    let back = pb::ReactivateMembershipRequest { tenant, user_id, ..Default::default() };
    admin.memberships().reactivate_membership(back).await.unwrap();
    admin.memberships().suspend_membership(suspend(again)).await.unwrap();
    let get = pb::GetMembershipRequest { tenant: "acme".into(), user_id: maria.clone() };
    let now = admin.memberships().get_membership(get).await.unwrap().into_inner();
    assert_eq!(now.membership.unwrap().status(), pb::MembershipStatus::Active);
    let unknown =
        pb::GetMembershipRequest { tenant: "acme".into(), user_id: format!("usr_{:032x}", 1) };
    let refused = admin.memberships().get_membership(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    world.stop().await;
}
