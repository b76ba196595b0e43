//! Roles: who may make and change them, the shipped sets, and what a role in use refuses.

use rolecall::proto as pb;
use tonic::{Code, Status};

use crate::world::{Api, World, check, field, invite, reason, role_on};

fn new_role(key: &str, permissions: &[&str]) -> pb::CreateRoleRequest {
    pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_names: [("en".to_owned(), key.to_owned())].into(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    }
}

fn edit(key: &str, permissions: &[&str]) -> pb::UpdateRoleRequest {
    pb::UpdateRoleRequest {
        tenant: "acme".into(),
        role: key.into(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    }
}

fn deletion(key: &str) -> pb::DeleteRoleRequest {
    pb::DeleteRoleRequest { tenant: "acme".into(), role: key.into(), ..Default::default() }
}

fn install(sector: &str) -> pb::InstallRoleTemplatesRequest {
    pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: sector.into(),
        ..Default::default()
    }
}

async fn create(by: &Api, new: pb::CreateRoleRequest) -> Result<pb::Role, Status> {
    Ok(by.roles().create_role(new).await?.into_inner().role.unwrap())
}

async fn get(by: &Api, key: &str) -> Result<pb::Role, Status> {
    let request = pb::GetRoleRequest { tenant: "acme".into(), role: key.into() };
    Ok(by.roles().get_role(request).await?.into_inner().role.unwrap())
}

async fn allowed(world: &World, subject: &str, permission: &str) -> bool {
    let question = check("acme", subject, permission, "");
    world.operator.permissions().check_permission(question).await.unwrap().into_inner().allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_of_roles_makes_nothing_that_they_do_not_hold() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    create(&admin, new_role("editor", &["iam.roles.*", "files.read"])).await.unwrap();
    create(&admin, new_role("payroll", &["payroll.*"])).await.unwrap();
    world.member(&admin, "acme", "ed@acme.example", &[("editor", "")]).await;
    let editor = world.sign_in("acme", "ed@acme.example").await;

    let mut refused = Vec::new();
    refused.push(create(&editor, new_role("all", &["*"])).await.unwrap_err());
    refused.push(create(&editor, new_role("files", &["files.*"])).await.unwrap_err());
    let including = pb::CreateRoleRequest {
        includes: vec!["payroll".into()],
        ..new_role("including", &["files.read"])
    };
    refused.push(create(&editor, including).await.unwrap_err());
    let granting = pb::CreateRoleRequest {
        may_grant: vec!["administrator".into()],
        ..new_role("granting", &["files.read"])
    };
    refused.push(create(&editor, granting).await.unwrap_err());
    // Not even with the very rights that the change would bring.
    let own = edit("editor", &["iam.roles.*", "files.read", "payroll.*"]);
    refused.push(editor.roles().update_role(own).await.unwrap_err());
    // Nor taking away from, or deleting, what they do not hold.
    let less = edit("payroll", &["payroll.read"]);
    refused.push(editor.roles().update_role(less).await.unwrap_err());
    refused.push(editor.roles().delete_role(deletion("payroll")).await.unwrap_err());
    refused.push(editor.roles().install_role_templates(install("business")).await.unwrap_err());
    for (at, status) in refused.iter().enumerate() {
        assert_eq!(status.code(), Code::PermissionDenied, "{at}: {status}");
        assert_eq!(reason(status), "ROLE_NOT_GRANTABLE", "{at}: {status}");
    }

    create(&editor, new_role("reader", &["files.read"])).await.unwrap();
    editor.roles().update_role(edit("reader", &["iam.roles.read"])).await.unwrap();
    editor.roles().delete_role(deletion("reader")).await.unwrap();
    assert_eq!(get(&admin, "reader").await.unwrap_err().code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_role_is_refused_by_the_field_that_is_wrong() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let wrong = |at: &str, new: pb::CreateRoleRequest| (at.to_owned(), new);
    let plain = || new_role("plain", &["files.read"]);
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (named, new) in [
        wrong("key", new_role("Not A Key", &[])),
        wrong("permissions[1]", new_role("x", &["files.read", "Files"])),
        wrong("display_names", pb::CreateRoleRequest { display_names: [].into(), ..plain() }),
        wrong("reach", pb::CreateRoleRequest { reach: 9, ..plain() }),
        wrong("includes[0]", pb::CreateRoleRequest { includes: vec!["nobody".into()], ..plain() }),
        wrong("may_grant[0]", pb::CreateRoleRequest { may_grant: vec!["x".into()], ..plain() }),
        wrong("exclusive_set", pb::CreateRoleRequest { exclusive_set: "A b".into(), ..plain() }),
        wrong("max_duration", pb::CreateRoleRequest { max_duration: seconds(59), ..plain() }),
        wrong("max_duration", pb::CreateRoleRequest { max_duration: seconds(i64::MAX), ..plain() }),
    ] {
        let status = create(&admin, new).await.unwrap_err();
        assert_eq!((status.code(), field(&status)), (Code::InvalidArgument, named), "{status}");
    }

    create(&admin, new_role("a", &["files.read"])).await.unwrap();
    let b = pb::CreateRoleRequest { includes: vec!["a".into()], ..new_role("b", &["files.write"]) };
    let b = create(&admin, b).await.unwrap();
    assert_eq!(b.effective_permissions, ["files.read", "files.write"]);
    let circle = pb::UpdateRoleRequest { includes: vec!["b".into()], ..edit("a", &[]) };
    let status = admin.roles().update_role(circle).await.unwrap_err();
    assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, "includes"));
    let status = create(&admin, new_role("a", &[])).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    let stale = pb::UpdateRoleRequest { etag: "v9".into(), ..edit("a", &["files.list"]) };
    assert_eq!(reason(&admin.roles().update_role(stale).await.unwrap_err()), "ETAG_MISMATCH");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn installing_a_sector_adds_its_roles_once() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let with_default =
        pb::InstallRoleTemplatesRequest { set_default_role: true, ..install("business") };
    let first = admin.roles().install_role_templates(with_default.clone()).await.unwrap();
    let first = first.into_inner();
    assert_eq!((first.roles.len(), first.skipped.len()), (8, 0));
    let tenant = pb::GetTenantRequest { tenant: "acme".into() };
    let tenant = admin.tenants().get_tenant(tenant).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.default_role, "employee");

    admin.roles().update_role(edit("accountant", &["billing.read"])).await.unwrap();
    let second = admin.roles().install_role_templates(with_default).await.unwrap().into_inner();
    assert_eq!((second.roles.len(), second.skipped.len()), (0, 8));
    assert_eq!(get(&admin, "accountant").await.unwrap().permissions, ["billing.read"]);
    let visitor = get(&admin, "visitor").await.unwrap();
    assert_eq!(visitor.max_duration.unwrap().seconds, 30 * 86_400);
    assert_eq!((visitor.template.as_str(), visitor.template_version), ("business", 1));
    let hr = get(&admin, "hr_manager").await.unwrap();
    assert_eq!(hr.may_grant, ["employee", "secretary", "visitor"]);

    create(&admin, new_role("dean", &["files.read"])).await.unwrap();
    let taken = admin.roles().install_role_templates(install("education")).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    assert_eq!(get(&admin, "professor").await.unwrap_err().code(), Code::NotFound);
    let unknown = admin.roles().install_role_templates(install("circus")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    admin.roles().install_role_templates(install("platform")).await.unwrap();
    assert_eq!(get(&admin, "administrator").await.unwrap().exclusive_set, "environment");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_templates_show_what_their_roles_would_give() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let request = pb::ListRoleTemplatesRequest { tenant: "acme".into() };
    let templates =
        admin.roles().list_role_templates(request).await.unwrap().into_inner().templates;
    let sectors: Vec<_> = templates.iter().map(|t| t.sector.as_str()).collect();
    assert_eq!(sectors, ["business", "education", "platform", "accounting"]);
    let professor = templates[1].roles.iter().find(|r| r.key == "professor").unwrap();
    let has = |permission: &str| professor.effective_permissions.iter().any(|p| p == permission);
    assert!(has("labs.book") && has("grades.publish") && has("homework.create"));

    admin.roles().install_role_templates(install("education")).await.unwrap();
    let installed = get(&admin, "professor").await.unwrap();
    assert_eq!(installed.effective_permissions, professor.effective_permissions);
    assert_eq!(installed.display_names, professor.display_names);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_in_use_or_built_in_is_not_deleted() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    for key in ["held", "invited", "inner", "free"] {
        create(&admin, new_role(key, &["files.read"])).await.unwrap();
    }
    let outer = pb::CreateRoleRequest {
        includes: vec!["inner".into()],
        may_grant: vec!["free".into()],
        ..new_role("outer", &["files.write"])
    };
    create(&admin, outer).await.unwrap();
    let mo = world.member(&admin, "acme", "mo@acme.example", &[("held", "")]).await;
    create(&admin, new_role("over", &["files.read"])).await.unwrap();
    let ends = world.server.app.clock.now() + chrono::TimeDelta::milliseconds(1_500);
    let until = pb::AssignRole { end_time: Some(pb::timestamp(ends)), ..role_on("over", "") };
    let give = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: mo,
        add: vec![until],
        ..Default::default()
    };
    admin.memberships().update_member_roles(give).await.unwrap();
    let refused = admin.roles().delete_role(deletion("over")).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_IN_USE");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    admin.roles().delete_role(deletion("over")).await.unwrap();
    let invitation = invite("acme", "late@acme.example", &[("invited", "")]);
    let created = admin.invitations().create_invitation(invitation).await.unwrap().into_inner();

    for (key, why) in [
        ("administrator", "ROLE_LOCKED"),
        ("held", "ROLE_IN_USE"),
        ("invited", "ROLE_IN_USE"),
        ("inner", "ROLE_IN_USE"),
        ("member", "ROLE_IN_USE"),
    ] {
        let status = admin.roles().delete_role(deletion(key)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{key}: {status}");
        assert_eq!(reason(&status), why, "{key}: {status}");
    }
    let locked = admin.roles().update_role(edit("administrator", &["files.read"])).await;
    assert_eq!(reason(&locked.unwrap_err()), "ROLE_LOCKED");

    admin.roles().delete_role(deletion("free")).await.unwrap();
    assert_eq!(get(&admin, "outer").await.unwrap().may_grant, [""; 0]);
    // An invitation that is over holds no role any more.
    let cancel = pb::CancelInvitationRequest {
        tenant: "acme".into(),
        invitation_id: created.invitation.unwrap().id,
        ..Default::default()
    };
    admin.invitations().cancel_invitation(cancel).await.unwrap();
    admin.roles().delete_role(deletion("invited")).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_role_is_obeyed_by_the_next_check() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    create(&admin, new_role("clerk", &["files.read"])).await.unwrap();
    let user = world.member(&admin, "acme", "cleo@acme.example", &[("clerk", "")]).await;
    assert!(allowed(&world, &user, "files.read").await);

    let dry = pb::UpdateRoleRequest { validate_only: true, ..edit("clerk", &["files.list"]) };
    let answer = admin.roles().update_role(dry).await.unwrap().into_inner();
    assert_eq!(answer.role.unwrap().permissions, ["files.list"]);
    assert!(answer.revision.is_empty());
    assert!(allowed(&world, &user, "files.read").await);

    admin.roles().update_role(edit("clerk", &["files.list"])).await.unwrap();
    assert!(!allowed(&world, &user, "files.read").await);
    assert!(allowed(&world, &user, "files.list").await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_edit_of_a_role_takes_the_last_administrator() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    create(&admin, new_role("owner", &["*"])).await.unwrap();
    let give = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: user.clone(),
        add: vec![role_on("owner", "")],
        ..Default::default()
    };
    let member = admin.memberships().update_member_roles(give).await.unwrap().into_inner();
    let held = member.roles.iter().find(|r| r.role == "administrator").unwrap().id.clone();
    let take = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: user,
        remove: vec![held],
        ..Default::default()
    };
    admin.memberships().update_member_roles(take).await.unwrap();

    let status = admin.roles().update_role(edit("owner", &["files.*"])).await.unwrap_err();
    assert_eq!(reason(&status), "LAST_ADMINISTRATOR", "{status}");
    admin.roles().update_role(edit("owner", &["files.*", "iam.*"])).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_a_role_takes_away_nothing_that_the_giver_may_not_take() {
    let mut world = World::start().await;
    let (admin, boss) = world.tenant("acme").await;
    world.member(&admin, "acme", "second@acme.example", &[("administrator", "")]).await;
    admin.roles().install_role_templates(install("platform")).await.unwrap();
    let clerk = pb::CreateRoleRequest {
        may_grant: vec!["basic".into(), "advanced".into()],
        ..new_role("clerk", &["iam.roles.assign"])
    };
    create(&admin, clerk).await.unwrap();
    let user = world.member(&admin, "acme", "kim@acme.example", &[("basic", "")]).await;
    world.member(&admin, "acme", "cleo@acme.example", &[("clerk", "")]).await;
    let clerk = world.sign_in("acme", "cleo@acme.example").await;
    let give = |subject: &str, role: &str| pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        add: vec![role_on(role, "")],
        ..Default::default()
    };
    let status = clerk.memberships().update_member_roles(give(&boss, "basic")).await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_NOT_GRANTABLE", "{status}");
    let moved = clerk.memberships().update_member_roles(give(&user, "advanced")).await.unwrap();
    let roles: Vec<_> = moved.into_inner().roles.into_iter().map(|r| r.role).collect();
    assert_eq!(roles, ["advanced"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_rules_the_tenant_and_not_what_is_in_it_is_no_administrator() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let root = |reach: pb::Reach| pb::CreateRoleRequest {
        reach: reach.into(),
        ..new_role(&format!("root-{}", i32::from(reach)), &["*"])
    };
    create(&admin, root(pb::Reach::Here)).await.unwrap();
    create(&admin, root(pb::Reach::Everywhere)).await.unwrap();
    let get = pb::GetMembershipRequest { tenant: "acme".into(), user_id: user.clone() };
    let membership = admin.memberships().get_membership(get).await.unwrap().into_inner();
    let held: Vec<String> =
        membership.membership.unwrap().roles.into_iter().map(|role| role.id).collect();
    let exchange = |role: &str| pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: user.clone(),
        add: vec![role_on(role, "")],
        remove: held.clone(),
        ..Default::default()
    };
    let refused = admin.memberships().update_member_roles(exchange("root-3")).await.unwrap_err();
    assert_eq!(reason(&refused), "LAST_ADMINISTRATOR");
    admin.memberships().update_member_roles(exchange("root-1")).await.unwrap();
    let narrow = pb::UpdateRoleRequest { reach: pb::Reach::Here.into(), ..edit("root-1", &[]) };
    let refused = admin.roles().update_role(narrow).await.unwrap_err();
    assert_eq!(reason(&refused), "LAST_ADMINISTRATOR");
    let get = pb::GetTenantRequest { tenant: "acme".into() };
    let tenant = admin.tenants().get_tenant(get).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.administrator_count, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_request_gives_does_not_replace_another_part_of_it() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    for key in ["day", "night"] {
        let exclusive =
            pb::CreateRoleRequest { exclusive_set: "shift".into(), ..new_role(key, &["desk.use"]) };
        create(&admin, exclusive).await.unwrap();
    }
    for add in [["day", "night"], ["day", "day"]] {
        let update = pb::UpdateMemberRolesRequest {
            tenant: "acme".into(),
            subject: user.clone(),
            add: add.map(|role| role_on(role, "")).to_vec(),
            ..Default::default()
        };
        let refused = admin.memberships().update_member_roles(update).await.unwrap_err();
        assert_eq!((refused.code(), field(&refused)), (Code::InvalidArgument, "add[1]".to_owned()));
    }
    world.stop().await;
}
