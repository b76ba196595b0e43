//! Groups: what they carry, who may join people to them, and what they cannot be used for.

use rolecall::proto as pb;
use tonic::{Code, Status};

use crate::world::{Api, World, check, field, reason, role_on};

fn new_group(key: &str) -> pb::CreateGroupRequest {
    pb::CreateGroupRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: key.to_uppercase(),
        ..Default::default()
    }
}

fn joining(group: &str, users: &[&str]) -> pb::AddGroupMembersRequest {
    pb::AddGroupMembersRequest {
        tenant: "acme".into(),
        group: group.into(),
        user_ids: users.iter().map(|u| (*u).to_owned()).collect(),
        ..Default::default()
    }
}

fn leaving(group: &str, users: &[&str]) -> pb::RemoveGroupMembersRequest {
    pb::RemoveGroupMembersRequest {
        tenant: "acme".into(),
        group: group.into(),
        user_ids: users.iter().map(|u| (*u).to_owned()).collect(),
        ..Default::default()
    }
}

fn roles(group: &str, add: &[(&str, &str)], remove: &[String]) -> pb::UpdateGroupRolesRequest {
    pb::UpdateGroupRolesRequest {
        tenant: "acme".into(),
        group: group.into(),
        add: add.iter().map(|(role, scope)| role_on(role, scope)).collect(),
        remove: remove.to_vec(),
        ..Default::default()
    }
}

fn deletion(group: &str) -> pb::DeleteGroupRequest {
    pb::DeleteGroupRequest { tenant: "acme".into(), group: group.into(), ..Default::default() }
}

async fn role(by: &Api, key: &str, permissions: &[&str]) {
    let new = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_names: [("en".to_owned(), key.to_owned())].into(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    by.roles().create_role(new).await.unwrap();
}

async fn get(by: &Api, key: &str) -> Result<pb::Group, Status> {
    let request = pb::GetGroupRequest { tenant: "acme".into(), group: key.into() };
    Ok(by.groups().get_group(request).await?.into_inner().group.unwrap())
}

async fn allowed(world: &World, subject: &str, permission: &str, resource: &str) -> bool {
    let question = check("acme", subject, permission, resource);
    world.operator.permissions().check_permission(question).await.unwrap().into_inner().allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_carries_holds_for_whoever_is_in_it_and_no_longer() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    role(&admin, "reader", &["files.read"]).await;
    admin.groups().create_group(new_group("team")).await.unwrap();
    let user = world.member(&admin, "acme", "tim@acme.example", &[]).await;
    let before = get(&admin, "team").await.unwrap();
    let given = admin.groups().update_group_roles(roles("team", &[("reader", "")], &[])).await;
    let given = given.unwrap().into_inner().group.unwrap();
    assert_ne!(given.etag, before.etag);
    assert!(!allowed(&world, &user, "files.read", "").await);

    let joined = admin.groups().add_group_members(joining("team", &[&user])).await.unwrap();
    assert_eq!(joined.into_inner().group.unwrap().member_count, 1);
    assert!(allowed(&world, &user, "files.read", "").await);
    let again = admin.groups().add_group_members(joining("team", &[&user, &user])).await.unwrap();
    assert_eq!(again.into_inner().group.unwrap().member_count, 1);

    admin.groups().remove_group_members(leaving("team", &[&user])).await.unwrap();
    assert!(!allowed(&world, &user, "files.read", "").await);
    admin.groups().add_group_members(joining("team", &[&user])).await.unwrap();
    let held = get(&admin, "team").await.unwrap().roles[0].id.clone();
    let emptied = admin.groups().update_group_roles(roles("team", &[], &[held])).await.unwrap();
    assert!(emptied.into_inner().group.unwrap().roles.is_empty());
    assert!(!allowed(&world, &user, "files.read", "").await);

    admin.groups().update_group_roles(roles("team", &[("reader", "")], &[])).await.unwrap();
    assert!(allowed(&world, &user, "files.read", "").await);
    admin.groups().delete_group(deletion("team")).await.unwrap();
    assert!(!allowed(&world, &user, "files.read", "").await);
    assert_eq!(get(&admin, "team").await.unwrap_err().code(), Code::NotFound);
    // The key is free again, and the new group knows nothing of the old one.
    admin.groups().create_group(new_group("team")).await.unwrap();
    let fresh = get(&admin, "team").await.unwrap();
    assert_eq!((fresh.member_count, fresh.roles.len()), (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_rises_by_way_of_a_group() {
    let mut world = World::start().await;
    let (admin, boss) = world.tenant("acme").await;
    role(&admin, "organiser", &["iam.groups.*", "iam.roles.assign"]).await;
    for group in ["bosses", "club"] {
        admin.groups().create_group(new_group(group)).await.unwrap();
    }
    let carry = roles("bosses", &[("administrator", "")], &[]);
    admin.groups().update_group_roles(carry).await.unwrap();
    admin.groups().add_group_members(joining("bosses", &[&boss])).await.unwrap();
    let user = world.member(&admin, "acme", "olga@acme.example", &[("organiser", "")]).await;
    let organiser = world.sign_in("acme", "olga@acme.example").await;
    let mut groups = organiser.groups();
    let held = get(&admin, "bosses").await.unwrap().roles[0].id.clone();

    let refused = [
        groups.add_group_members(joining("bosses", &[&user])).await.unwrap_err(),
        groups.remove_group_members(leaving("bosses", &[&boss])).await.unwrap_err(),
        groups.delete_group(deletion("bosses")).await.unwrap_err(),
        groups.update_group_roles(roles("club", &[("administrator", "")], &[])).await.unwrap_err(),
        groups.update_group_roles(roles("bosses", &[], &[held])).await.unwrap_err(),
    ];
    for (at, status) in refused.iter().enumerate() {
        assert_eq!(reason(status), "ROLE_NOT_GRANTABLE", "{at}: {status}");
    }
    groups.add_group_members(joining("club", &[&user])).await.unwrap();
    groups.update_group_roles(roles("club", &[("organiser", "")], &[])).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_through_a_group_is_kept_when_it_is_the_last() {
    let mut world = World::start().await;
    let (admin, boss) = world.tenant("acme").await;
    admin.groups().create_group(new_group("bosses")).await.unwrap();
    let carry = roles("bosses", &[("administrator", "")], &[]);
    admin.groups().update_group_roles(carry).await.unwrap();
    admin.groups().add_group_members(joining("bosses", &[&boss])).await.unwrap();
    let request = pb::GetMembershipRequest { tenant: "acme".into(), user_id: boss.clone() };
    let member = admin.memberships().get_membership(request).await.unwrap().into_inner();
    let own = member.membership.unwrap().roles.into_iter().find(|r| r.group.is_empty()).unwrap();
    let take = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: boss.clone(),
        remove: vec![own.id],
        ..Default::default()
    };
    admin.memberships().update_member_roles(take).await.unwrap();

    let held = get(&admin, "bosses").await.unwrap().roles[0].id.clone();
    let mut groups = admin.groups();
    for status in [
        groups.remove_group_members(leaving("bosses", &[&boss])).await.unwrap_err(),
        groups.update_group_roles(roles("bosses", &[], &[held])).await.unwrap_err(),
        groups.delete_group(deletion("bosses")).await.unwrap_err(),
    ] {
        assert_eq!(reason(&status), "LAST_ADMINISTRATOR", "{status}");
    }
    let tenant = pb::GetTenantRequest { tenant: "acme".into() };
    let tenant = admin.tenants().get_tenant(tenant).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.administrator_count, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_takes_members_of_its_tenant_all_or_none() {
    let mut world = World::start().await;
    let (admin, boss) = world.tenant("acme").await;
    let (_, stranger) = world.tenant("other").await;
    admin.groups().create_group(new_group("team")).await.unwrap();
    let status =
        admin.groups().add_group_members(joining("team", &[&boss, &stranger])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(get(&admin, "team").await.unwrap().member_count, 0);
    let status = admin.groups().add_group_members(joining("team", &["svc_1"])).await.unwrap_err();
    assert_eq!(field(&status), "user_ids[0]");
    let status = admin.groups().add_group_members(joining("team", &[])).await.unwrap_err();
    assert_eq!(field(&status), "user_ids");

    let mut users = vec![boss];
    for name in ["ana", "ben"] {
        users.push(world.member(&admin, "acme", &format!("{name}@acme.example"), &[]).await);
    }
    users.sort();
    let all: Vec<&str> = users.iter().map(String::as_str).collect();
    admin.groups().add_group_members(joining("team", &all)).await.unwrap();
    let mut listed = Vec::new();
    let mut page = pb::ListGroupMembersRequest {
        tenant: "acme".into(),
        group: "team".into(),
        page_size: 2,
        ..Default::default()
    };
    loop {
        let answer = admin.groups().list_group_members(page.clone()).await.unwrap().into_inner();
        listed.extend(answer.members.into_iter().map(|m| m.user_id));
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = answer.next_page_token;
    }
    assert_eq!(listed, users);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_of_a_group_are_given_and_taken_where_one_may_assign() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    for key in ["paris", "rome"] {
        let new = pb::CreateWorkspaceRequest {
            tenant: "acme".into(),
            key: key.into(),
            display_name: key.into(),
            ..Default::default()
        };
        admin.workspaces().create_workspace(new).await.unwrap();
    }
    role(&admin, "reader", &["files.read"]).await;
    role(&admin, "local", &["files.read", "iam.roles.assign"]).await;
    admin.groups().create_group(new_group("team")).await.unwrap();
    let both = roles("team", &[("reader", "workspaces/paris"), ("reader", "workspaces/rome")], &[]);
    let both = admin.groups().update_group_roles(both).await.unwrap().into_inner().group.unwrap();
    let on = |scope: &str| both.roles.iter().find(|r| r.scope == scope).unwrap().id.clone();
    world.member(&admin, "acme", "lea@acme.example", &[("local", "workspaces/paris")]).await;
    let local = world.sign_in("acme", "lea@acme.example").await;
    let (stranger, _) = world.tenant("other").await;

    let malformed = roles("team", &[("reader", "workspaces")], &[]);
    let status = local.groups().update_group_roles(malformed).await.unwrap_err();
    assert_eq!(field(&status), "add[0].scope", "{status}");
    let elsewhere = roles("team", &[], &[on("workspaces/rome")]);
    let there = roles("team", &[("reader", "workspaces/rome")], &[]);
    let nothing = roles("team", &[], &["asg_0199aaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned()]);
    let empty = roles("team", &[], &[]);
    for request in [elsewhere, there, nothing.clone(), empty] {
        let status = local.groups().update_group_roles(request).await.unwrap_err();
        assert_eq!(reason(&status), "PERMISSION_MISSING", "{status}");
    }
    let status = stranger.groups().update_group_roles(nothing.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "PERMISSION_MISSING", "{status}");
    let status = admin.groups().update_group_roles(nothing).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");

    let here = roles("team", &[], &[on("workspaces/paris")]);
    let left = local.groups().update_group_roles(here).await.unwrap().into_inner().group.unwrap();
    assert_eq!(left.roles.len(), 1);
    assert_eq!(left.roles[0].scope, "workspaces/rome");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_renamed_by_the_version_that_was_read() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let created = admin.groups().create_group(new_group("team")).await.unwrap().into_inner();
    let etag = created.group.unwrap().etag;
    let rename = pb::UpdateGroupRequest {
        tenant: "acme".into(),
        group: "team".into(),
        display_name: "The team".into(),
        etag,
        ..Default::default()
    };
    let renamed = admin.groups().update_group(rename.clone()).await.unwrap().into_inner();
    assert_eq!(renamed.group.unwrap().display_name, "The team");
    let status = admin.groups().update_group(rename).await.unwrap_err();
    assert_eq!(reason(&status), "ETAG_MISMATCH");
    let get = pb::GetGroupRequest { tenant: "acme".into(), group: "team".into() };
    let etag = admin.groups().get_group(get).await.unwrap().into_inner().group.unwrap().etag;
    let join = pb::AddGroupMembersRequest {
        tenant: "acme".into(),
        group: "team".into(),
        user_ids: vec![user],
        ..Default::default()
    };
    admin.groups().add_group_members(join).await.unwrap();
    let delete = pb::DeleteGroupRequest {
        tenant: "acme".into(),
        group: "team".into(),
        etag,
        ..Default::default()
    };
    let status = admin.groups().delete_group(delete).await.unwrap_err();
    assert_eq!(reason(&status), "ETAG_MISMATCH", "somebody joined in between");
    let status = admin.groups().create_group(new_group("team")).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_left_and_comes_back_is_in_no_group() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    role(&admin, "reader", &["files.read"]).await;
    admin.groups().create_group(new_group("team")).await.unwrap();
    admin.groups().update_group_roles(roles("team", &[("reader", "")], &[])).await.unwrap();
    let user = world.member(&admin, "acme", "rob@acme.example", &[]).await;
    admin.groups().add_group_members(joining("team", &[&user])).await.unwrap();
    let remove = pb::RemoveMembershipRequest {
        tenant: "acme".into(),
        user_id: user.clone(),
        ..Default::default()
    };
    admin.memberships().remove_membership(remove).await.unwrap();
    assert_eq!(get(&admin, "team").await.unwrap().member_count, 0);
    let gone = admin.groups().add_group_members(joining("team", &[&user])).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");

    let again = crate::world::invite("acme", "rob@acme.example", &[]);
    admin.invitations().create_invitation(again).await.unwrap();
    let token = world.token_to("rob@acme.example").await;
    let proof = pb::ExistingAccount { password: crate::world::PASSWORD.into() };
    let account = Some(pb::accept_invitation_request::Account::ExistingAccount(proof));
    let accept = pb::AcceptInvitationRequest { token, account };
    world.anonymous().await.invitations().accept_invitation(accept).await.unwrap();
    assert!(!allowed(&world, &user, "files.read", "").await);
    assert_eq!(get(&admin, "team").await.unwrap().member_count, 0);
    world.stop().await;
}
