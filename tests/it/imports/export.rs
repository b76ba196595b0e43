//! Members as a file, and back.

use super::*;

async fn export(by: &Api, tenant: &str) -> String {
    export_as(by, tenant, pb::CsvSeparator::Comma).await
}

async fn export_as(by: &Api, tenant: &str, separator: pb::CsvSeparator) -> String {
    let request = pb::ExportMembersRequest {
        tenant: tenant.into(),
        separator: separator.into(),
        ..Default::default()
    };
    let mut stream = by.imports().export_members(request).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        assert!(!part.revision.is_empty());
        file.extend(part.chunk);
    }
    String::from_utf8(file).unwrap()
}

/// Without the line of the administrator, who is in every tenant.
fn people(file: &str) -> String {
    file.lines().filter(|line| !line.contains("admin@")).map(|line| format!("{line}\n")).collect()
}

async fn prepare(world: &mut World, key: &str) -> Api {
    let (admin, _) = world.tenant(key).await;
    let install = pb::InstallRoleTemplatesRequest {
        tenant: key.into(),
        sector: "business".into(),
        ..Default::default()
    };
    admin.roles().install_role_templates(install).await.unwrap();
    let create = pb::CreateWorkspaceRequest {
        tenant: key.into(),
        key: "paris".into(),
        display_name: "Paris".into(),
        ..Default::default()
    };
    admin.workspaces().create_workspace(create).await.unwrap();
    admin
}

async fn import(by: &Api, tenant: &str, file: &str) {
    let shown = preview(by, tenant, file.as_bytes()).await.unwrap();
    assert_eq!(errors(&shown), BTreeMap::new());
    let request = pb::CommitImportRequest {
        tenant: tenant.into(),
        import_id: shown.import.unwrap().id,
        ..Default::default()
    };
    let mut stream = by.imports().commit_import(request).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
}

async fn accept_all(world: &mut World, file: &str) {
    let addresses: std::collections::BTreeSet<String> = file
        .lines()
        .skip(1)
        .map(|line| line.split([',', '"']).find(|cell| cell.contains('@')).unwrap().to_owned())
        .collect();
    for address in addresses {
        let token = world.token_to(&address).await;
        let account =
            pb::NewAccount { password: crate::world::PASSWORD.into(), ..Default::default() };
        let account = Some(pb::accept_invitation_request::Account::NewAccount(account));
        let accept = pb::AcceptInvitationRequest { token: token.clone(), account };
        let api = world.anonymous().await;
        if api.invitations().accept_invitation(accept).await.is_err() {
            // They have an account already, from the other tenant.
            let proof = pb::ExistingAccount { password: crate::world::PASSWORD.into() };
            let account = Some(pb::accept_invitation_request::Account::ExistingAccount(proof));
            let accept = pb::AcceptInvitationRequest { token, account };
            api.invitations().accept_invitation(accept).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_imported_accepted_and_exported_again_is_the_same() {
    let mut world = World::start().await;
    let acme = prepare(&mut world, "acme").await;
    let beta = prepare(&mut world, "beta").await;
    let soon = world.server.app.clock.now() + chrono::TimeDelta::days(20);
    let soon = soon.format("%Y-%m-%d");
    let file = format!(
        "first_name,last_name,email,role,department,job_title,phone,location,workspace,until,from,kind
Zoë,\"O'Brien, née Łuk\",zoe@a.example,employee,R&D;=1+1,''=boss,+33612345678,Paris,,,,
Zoë,,zoe@a.example,secretary,,,,,paris,2030-12-31,,
Zoë,,zoe@a.example,accountant,,,,,workspaces/paris/folders/42,2030-12-31T18:00:00Z,2029-01-01,
=HYPERLINK(1),+Plus,bob@a.example,employee,-minus,@at,,\"quo\"\"ted\",folders/7,,,
Eve,Out,eve@out.example,visitor,,,+14155551234,,,{soon},,external
"
    );
    import(&acme, "acme", &file).await;
    accept_all(&mut world, &file).await;
    let first = export(&acme, "acme").await;
    assert!(first.starts_with("\u{feff}first_name,last_name,email,role,"));
    for line in [
        "'=HYPERLINK(1),'+Plus,bob@a.example,employee,'-minus,'@at,,\"quo\"\"ted\",folders/7,,,",
        "Zoë,\"O'Brien, née Łuk\",zoe@a.example,employee,R&D;'=1+1,''=boss,'+33612345678,Paris,,,,",
        "secretary,R&D;'=1+1,''=boss,'+33612345678,Paris,paris,2030-12-31,,",
        "paris/folders/42,2030-12-31T18:00:00Z,2029-01-01,",
        "visitor,,,'+14155551234,,,",
    ] {
        assert!(first.contains(line), "{line}\n{first}");
    }
    import(&beta, "beta", &people(&first)).await;
    assert_eq!(people(&export(&beta, "beta").await), people(&first), "also while they are invited");
    accept_all(&mut world, &people(&first)).await;
    assert_eq!(people(&export(&beta, "beta").await), people(&first));
    // In every form that it can be written in.
    let written = export_as(&beta, "beta", pb::CsvSeparator::Semicolon).await;
    let shown = preview(&acme, "acme", people(&written).as_bytes()).await.unwrap();
    assert_eq!(errors(&shown), BTreeMap::new());
    assert!(actions(&shown).iter().all(|action| *action == Action::AlreadyMember), "{shown:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_usual_tenant_exports_the_usual_columns_and_what_is_over_is_left_out() {
    let mut world = World::start().await;
    let acme = prepare(&mut world, "acme").await;
    let maria = world.member(&acme, "acme", "maria@acme.example", &[("employee", "")]).await;
    let end = prost_types::Timestamp {
        seconds: (world.server.app.clock.now() + chrono::TimeDelta::hours(1)).timestamp(),
        nanos: 0,
    };
    let update = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: maria,
        add: vec![pb::AssignRole { end_time: Some(end), ..role_on("secretary", "") }],
        ..Default::default()
    };
    acme.memberships().update_member_roles(update).await.unwrap();
    assert_eq!(export(&acme, "acme").await.matches("maria@").count(), 2);
    world.advance(Duration::from_secs(3601));
    let file = export(&acme, "acme").await;
    let header = EXAMPLE.lines().next().unwrap();
    let expected = format!(
        "\u{feff}{header},workspace,until\r\n\
         New,Person,admin@acme.example,administrator,,,,,,\r\n\
         New,Person,maria@acme.example,employee,,,,,,\r\n"
    );
    assert_eq!(file, expected);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_any_more_gets_no_more() {
    let mut world = World::start().await;
    let acme = prepare(&mut world, "acme").await;
    world.member(&acme, "acme", "nobody@acme.example", &[("employee", "")]).await;
    let nobody = world.sign_in("acme", "nobody@acme.example").await;
    let request = pb::ExportMembersRequest { tenant: "acme".into(), ..Default::default() };
    let refused = nobody.imports().export_members(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    world.stop().await;
}
