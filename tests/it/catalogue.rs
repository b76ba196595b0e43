//! The permission catalogue: who registers, what a role may name, and what a permission leaves behind.

use rolecall::proto as pb;
use tonic::{Code, Status};

use crate::world::{Api, World, check, field, reason};

fn registration(module: &str, permissions: &[&str]) -> pb::RegisterPermissionsRequest {
    let new = |permission: &&str| pb::NewPermission {
        permission: (*permission).to_owned(),
        descriptions: [("en".to_owned(), format!("May {permission}"))].into(),
    };
    pb::RegisterPermissionsRequest {
        module: module.into(),
        permissions: permissions.iter().map(new).collect(),
        ..Default::default()
    }
}

async fn register(
    by: &Api,
    new: pb::RegisterPermissionsRequest,
) -> Result<pb::RegisterPermissionsResponse, Status> {
    Ok(by.permissions().register_permissions(new).await?.into_inner())
}

/// An application: a service account of the installation that may register.
async fn application(world: &World, key: &str) -> Api {
    let create = pb::CreateServiceAccountRequest {
        tenant: "system".into(),
        key: key.into(),
        display_name: key.into(),
        ..Default::default()
    };
    let account = world.operator.service_accounts().create_service_account(create).await.unwrap();
    let account = account.into_inner().service_account.unwrap().id;
    let give = pb::UpdateMemberRolesRequest {
        tenant: "system".into(),
        subject: account.clone(),
        add: vec![crate::world::role_on("application", "")],
        ..Default::default()
    };
    world.operator.memberships().update_member_roles(give).await.unwrap();
    let create = pb::CreateApiKeyRequest {
        tenant: "system".into(),
        service_account_id: account,
        display_name: "test".into(),
        ..Default::default()
    };
    let key = world.operator.service_accounts().create_api_key(create).await.unwrap();
    world.with(&key.into_inner().secret).await
}

fn role(key: &str, permissions: &[&str]) -> pb::CreateRoleRequest {
    pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_names: [("en".to_owned(), key.to_owned())].into(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    }
}

async fn create(by: &Api, new: pb::CreateRoleRequest) -> Result<pb::Role, Status> {
    Ok(by.roles().create_role(new).await?.into_inner().role.unwrap())
}

async fn edit(by: &Api, key: &str, permissions: &[&str]) -> Result<pb::Role, Status> {
    let edit = pb::UpdateRoleRequest {
        tenant: "acme".into(),
        role: key.into(),
        permissions: permissions.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    Ok(by.roles().update_role(edit).await?.into_inner().role.unwrap())
}

async fn set_words(by: &Api, words: pb::PermissionWords) {
    let edit = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        permission_words: words.into(),
        ..Default::default()
    };
    let tenant = by.tenants().update_tenant(edit).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.permission_words(), words);
}

async fn list(by: &Api, tenant: &str, module: &str) -> Vec<pb::CatalogueEntry> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let request = pb::ListPermissionsRequest {
            tenant: tenant.into(),
            module: module.into(),
            page_size: 7,
            page_token: token,
        };
        let page = by.permissions().list_permissions(request).await.unwrap().into_inner();
        assert!(page.permissions.len() <= 7);
        all.extend(page.permissions);
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

fn words(entries: &[pb::CatalogueEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.permission.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_registers_its_module_whole_and_repeating_it_changes_nothing() {
    let world = World::start().await;
    let billing = application(&world, "billing").await;
    let list_of_two = registration("bills", &["bills.send", "bills.create"]);
    let first = register(&billing, list_of_two.clone()).await.unwrap();
    assert_eq!(words(&first.permissions), ["bills.create", "bills.send"]);
    assert!(first.permissions.iter().all(|entry| entry.owner.starts_with("svc_")));
    let again = register(&billing, list_of_two).await.unwrap();
    assert_eq!(again, first, "the same list is no new revision");

    // A check only, and what it would do.
    let dry = pb::RegisterPermissionsRequest {
        validate_only: true,
        ..registration("bills", &["bills.create"])
    };
    assert_eq!(words(&register(&billing, dry).await.unwrap().permissions), ["bills.create"]);
    assert_eq!(
        words(&list(&billing, "system", "bills").await),
        ["bills.create", "bills.send"],
        "nothing was written"
    );

    let events = pb::ListAuditEventsRequest {
        tenant: "system".into(),
        verb: "permissions.registered".into(),
        ..Default::default()
    };
    let events = world.operator.audit().list_audit_events(events).await.unwrap().into_inner();
    assert_eq!(events.events.len(), 1);
    assert_eq!(events.events[0].target, "bills");
    assert!(events.events[0].after.as_ref().unwrap().fields.contains_key("permissions"));

    let other = |permission: &str| registration("bills", &["bills.create", permission]);
    let nameless = pb::NewPermission { permission: "bills.pay".into(), ..Default::default() };
    for (wrong, named) in [
        (registration("Bills", &[]), "module"),
        (registration("bills.own", &[]), "module"),
        (other("files.read"), "permissions[1].permission"),
        (other("bills.*"), "permissions[1].permission"),
        (other("bills.create"), "permissions[1].permission"),
        (
            pb::RegisterPermissionsRequest {
                permissions: vec![nameless],
                ..registration("bills", &[])
            },
            "permissions[0].descriptions",
        ),
    ] {
        let status = register(&billing, wrong).await.unwrap_err();
        assert_eq!(
            (status.code(), field(&status).as_str()),
            (Code::InvalidArgument, named),
            "{status}"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_belongs_to_whom_registered_it_first() {
    let world = World::start().await;
    let billing = application(&world, "billing").await;
    let shop = application(&world, "shop").await;
    register(&billing, registration("bills", &["bills.create"])).await.unwrap();

    let mine = registration("bills", &["bills.refund"]);
    let status = register(&shop, mine.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "MODULE_TAKEN".into()));
    let by_force = pb::RegisterPermissionsRequest { take_over: true, ..mine.clone() };
    let status = register(&shop, by_force.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("iam.catalogue.transfer"), "{status}");
    let status = register(&world.operator, registration("iam", &["iam.all"])).await.unwrap_err();
    assert_eq!(reason(&status), "MODULE_RESERVED");
    assert_eq!(words(&list(&shop, "system", "bills").await), ["bills.create"]);

    // An operator may take it, and a module that was given up is anybody's.
    register(&world.operator, by_force).await.unwrap();
    let status = register(&billing, registration("bills", &["bills.create"])).await.unwrap_err();
    assert_eq!(reason(&status), "MODULE_TAKEN");
    register(&world.operator, registration("bills", &[])).await.unwrap();
    assert_eq!(words(&list(&shop, "system", "bills").await), [""; 0]);
    register(&shop, mine).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_permission_in_a_role_is_refused_with_the_nearest() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    create(&admin, role("before", &["bills.craete", "own.words"])).await.unwrap();
    let billing = application(&world, "billing").await;
    let all = ["bills.create", "bills.send", "bills.lines.create"];
    register(&billing, registration("bills", &all)).await.unwrap();

    let mixed = role("clerk", &["own.words", "bills.send", "bills.craete", "bills.line.*"]);
    let status = create(&admin, mixed).await.unwrap_err();
    assert_eq!((status.code(), field(&status)), (Code::InvalidArgument, "permissions[2]".into()));
    assert!(status.message().contains("did you mean `bills.create`"), "{status}");
    assert!(status.message().contains("permissions[3]"), "every one is named: {status}");
    let status = create(&admin, role("clerk", &["iam.rolls.read"])).await.unwrap_err();
    assert!(status.message().contains("`iam.roles.read`"), "{status}");
    create(&admin, role("clerk", &["own.words", "bills.*", "bills.lines.*"])).await.unwrap();
    let status = edit(&admin, "clerk", &["bills.send", "bills.sent"]).await.unwrap_err();
    assert_eq!(field(&status), "permissions[1]", "{status}");
    // What a role has it keeps.
    edit(&admin, "before", &["bills.craete", "bills.send"]).await.unwrap();

    set_words(&admin, pb::PermissionWords::Strict).await;
    let status = create(&admin, role("strict", &["bilss.send"])).await.unwrap_err();
    assert!(status.message().contains("did you mean `bills`?"), "{status}");
    create(&admin, role("strict", &["files.read", "bills.*", "*"])).await.unwrap();
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: "business".into(),
        ..Default::default()
    };
    admin.roles().install_role_templates(install).await.unwrap();

    set_words(&admin, pb::PermissionWords::Free).await;
    create(&admin, role("free", &["bills.craete", "bilss.*"])).await.unwrap();
    let status = create(&admin, role("iam", &["iam.rolls.read"])).await.unwrap_err();
    assert_eq!(field(&status), "permissions[0]", "{status}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_vanishes_stays_in_the_roles_that_have_it() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let billing = application(&world, "billing").await;
    let three = registration("bills", &["bills.create", "bills.send", "bills.void"]);
    register(&billing, three).await.unwrap();
    create(&admin, role("clerk", &["bills.send"])).await.unwrap();
    let clerk = world.member(&admin, "acme", "cleo@acme.example", &[("clerk", "")]).await;

    let less = registration("bills", &["bills.create"]);
    let answer = register(&billing, less.clone()).await.unwrap();
    let used = pb::DeprecatedUse { permission: "bills.send".into(), role_count: 1 };
    assert_eq!(answer.still_used, [used]);
    let listed = list(&admin, "acme", "bills").await;
    assert_eq!(words(&listed), ["bills.create", "bills.send"], "nobody had `bills.void`");
    assert_eq!(listed.iter().map(|e| e.deprecated).collect::<Vec<_>>(), [false, true]);
    let question = check("acme", &clerk, "bills.send", "");
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    assert!(answer.into_inner().allowed);
    let status = create(&admin, role("late", &["bills.send"])).await.unwrap_err();
    assert_eq!(field(&status), "permissions[0]", "{status}");
    edit(&admin, "clerk", &["bills.create", "bills.send"]).await.unwrap();

    edit(&admin, "clerk", &["bills.create"]).await.unwrap();
    let answer = register(&billing, less).await.unwrap();
    assert_eq!((words(&answer.permissions), answer.still_used), (vec!["bills.create"], vec![]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_roles_reads_the_whole_catalogue_in_order() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let billing = application(&world, "billing").await;
    register(&billing, registration("invoices", &["invoices.frame", "invoices.create"]))
        .await
        .unwrap();
    register(&billing, registration("zoo", &["zoo.enter"])).await.unwrap();

    let all = list(&admin, "acme", "").await;
    let listed = words(&all);
    assert!(listed.is_sorted() && listed.len() > 80, "{listed:?}");
    let source =
        |word: &str| all.iter().find(|e| e.permission == word).map(pb::CatalogueEntry::source);
    assert_eq!(source("iam.catalogue.register"), Some(pb::PermissionSource::Builtin));
    assert_eq!(source("payroll.prepare"), Some(pb::PermissionSource::Template));
    assert_eq!(source("zoo.enter"), Some(pb::PermissionSource::Application));
    // The application's own list replaces what we ship for its module.
    assert_eq!(source("invoices.frame"), Some(pb::PermissionSource::Application));
    assert_eq!(source("invoices.send"), None);
    assert!(all.iter().all(|entry| entry.descriptions.contains_key("en")));

    world.member(&admin, "acme", "mo@acme.example", &[]).await;
    let nobody = world.sign_in("acme", "mo@acme.example").await;
    let request = pb::ListPermissionsRequest { tenant: "acme".into(), ..Default::default() };
    let status = nobody.permissions().list_permissions(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = register(&admin, registration("mine", &["mine.all"])).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    world.stop().await;
}
