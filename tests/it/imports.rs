//! Imports from the file to the members, and the files that hostile people send.

mod export;
mod moved;
mod shapes;

use std::{collections::BTreeMap, time::Duration};

use rolecall::proto::{self as pb, ImportAction as Action};
use tonic::{Code, Status};

use crate::world::{Api, World, field, invite, reason, role_on, token_of};

/// As the product documents have it.
const EXAMPLE: &str = "first_name,last_name,email,role,department,job_title,phone,location
John,Doe,john.doe@company.com,employee,Sales,Sales Manager,+14155551234,New York
Maria,Smith,maria.smith@company.com,hr,HR,HR Director,+33612345678,Paris
";

pub async fn preview(
    by: &Api,
    tenant: &str,
    file: &[u8],
) -> Result<pb::PreviewImportResponse, Status> {
    preview_named(by, tenant, "people.csv", file).await
}

pub async fn preview_named(
    by: &Api,
    tenant: &str,
    name: &str,
    file: &[u8],
) -> Result<pb::PreviewImportResponse, Status> {
    let mut parts: Vec<pb::PreviewImportRequest> = file
        .chunks(64 << 10)
        .map(|chunk| pb::PreviewImportRequest { chunk: chunk.to_vec(), ..Default::default() })
        .collect();
    let first = pb::PreviewImportRequest {
        tenant: tenant.into(),
        file_name: name.into(),
        ..Default::default()
    };
    parts.insert(0, first);
    let answer = by.imports().preview_import(tokio_stream::iter(parts)).await?;
    Ok(answer.into_inner())
}

async fn planned(by: &Api, file: &str) -> String {
    let preview = preview(by, "acme", file.as_bytes()).await.unwrap();
    assert_eq!(errors(&preview), BTreeMap::new());
    preview.import.unwrap().id
}

/// All messages of a commit.
async fn commit(by: &Api, id: &str) -> Result<Vec<pb::CommitImportResponse>, Status> {
    let request = pb::CommitImportRequest {
        tenant: "acme".into(),
        import_id: id.into(),
        ..Default::default()
    };
    let mut stream = by.imports().commit_import(request).await?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

async fn committed(by: &Api, file: &str) -> pb::CommitImportResponse {
    let id = planned(by, file).await;
    commit(by, &id).await.unwrap().pop().unwrap()
}

/// Row to the columns that are wrong.
fn errors(preview: &pb::PreviewImportResponse) -> BTreeMap<i32, Vec<&str>> {
    let rows = preview.rows.iter().filter(|row| !row.errors.is_empty());
    rows.map(|row| (row.row, row.errors.iter().map(|error| error.column.as_str()).collect()))
        .collect()
}

fn actions(preview: &pb::PreviewImportResponse) -> Vec<Action> {
    preview.rows.iter().map(pb::ImportRow::action).collect()
}

async fn revision(world: &World) -> i64 {
    sqlx::query_scalar("select max(revision) from events")
        .fetch_one(&world.server.app.pool)
        .await
        .unwrap()
}

async fn business(world: &mut World) -> Api {
    let (admin, _) = world.tenant("acme").await;
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".into(),
        sector: "business".into(),
        set_default_role: true,
        ..Default::default()
    };
    admin.roles().install_role_templates(install).await.unwrap();
    workspace(&admin, "paris").await;
    admin
}

async fn workspace(by: &Api, key: &str) {
    let create = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: key.into(),
        ..Default::default()
    };
    by.workspaces().create_workspace(create).await.unwrap();
}

async fn member(by: &Api, user: &str) -> pb::Membership {
    let get = pb::GetMembershipRequest { tenant: "acme".into(), user_id: user.into() };
    by.memberships().get_membership(get).await.unwrap().into_inner().membership.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_previewed_without_a_trace_and_committed_as_it_was_shown() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let before = revision(&world).await;
    let shown = preview(&admin, "acme", EXAMPLE.as_bytes()).await.unwrap();
    assert_eq!(revision(&world).await, before);
    assert_eq!(world.mails_to("company.com"), 0);
    assert_eq!(errors(&shown), BTreeMap::new());
    assert_eq!(actions(&shown), [Action::Invite, Action::Invite]);
    let maria = &shown.rows[1];
    assert_eq!(
        (maria.row, maria.written_role.as_str(), maria.role.as_str()),
        (3, "hr", "hr_manager")
    );
    let import = shown.import.unwrap();
    let totals = import.totals.unwrap();
    assert_eq!((totals.rows, totals.people, totals.invited), (2, 2, 2));
    assert_eq!((import.encoding.as_str(), import.separator.as_str()), ("UTF-8", "comma"));

    let messages = commit(&admin, &import.id).await.unwrap();
    let last = messages.last().unwrap();
    assert!(messages.iter().rev().skip(1).all(|step| step.import.is_none() && step.total == 2));
    let done = last.import.clone().unwrap();
    assert_eq!(done.status(), pb::ImportStatus::Committed);
    assert_eq!((last.revision.as_str(), last.done), (done.commit_revision.as_str(), 2));
    assert_eq!(revision(&world).await, before + 1, "one change");

    let token = token_of(&world.mail_to("maria.smith@company.com").await);
    world.mail_to("john.doe@company.com").await;
    let mut anonymous = world.anonymous().await.invitations();
    let joined = anonymous.accept_invitation(crate::world::accept(&token)).await;
    let joined = joined.unwrap().into_inner().membership.unwrap();
    let profile = joined.profile.unwrap();
    let says = [profile.department, profile.job_title, profile.phone, profile.location];
    assert_eq!(says, ["HR", "HR Director", "+33612345678", "Paris"]);
    assert_eq!(
        joined.roles.iter().map(|role| role.role.as_str()).collect::<Vec<_>>(),
        ["hr_manager"]
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn committing_again_gives_the_same_answer_and_changes_nothing() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let id = planned(&admin, EXAMPLE).await;
    let first = commit(&admin, &id).await.unwrap().pop().unwrap();
    workspace(&admin, "lyon").await;
    let before = revision(&world).await;
    let again = commit(&admin, &id).await.unwrap();
    assert_eq!(again, [first], "nothing is done twice, so there is no progress to tell of");
    assert_eq!(revision(&world).await, before);
    for address in ["john.doe@company.com", "maria.smith@company.com"] {
        world.mail_to(address).await;
        assert_eq!(world.mails_to(address), 1);
    }
    // The same file again finds everybody invited.
    let shown = preview(&admin, "acme", EXAMPLE.as_bytes()).await.unwrap();
    assert_eq!(actions(&shown), [Action::AlreadyInvited, Action::AlreadyInvited]);
    let import = shown.import.unwrap();
    assert_eq!(import.totals.unwrap().unchanged, 2);
    commit(&admin, &import.id).await.unwrap();
    assert_eq!(world.mails_to("company.com"), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_says_what_is_wrong_with_it_and_nothing_can_be_committed() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let file = "first_name,email,role,phone,workspace,until
Ana,ana@a.example,emploiee,,,
Bob,bob@@a.example,employee,06 12,,
Cid,cid@a.example,employee,,nowhere,
Dan,dan@a.example,employee,,,2020-01-01
Eva,eva@a.example,visitor,,,2030-01-01
Fay,ANA@A.example,employee,,,
Fay,ana@a.example,employee,,,
Gil,gil@a.example,employee,,paris,2030-01-01
Hal,hal@@a.example,wizard,12,rome,2020-01-01
Ida,ida@@a.example,visitor,,,2040-01-01
";
    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    let expected = [
        (2, vec!["role"]),
        (3, vec!["phone", "email"]),
        (4, vec!["workspace"]),
        (5, vec!["until"]),
        (6, vec!["until"]),
        (7, vec!["first_name"]),
        (8, vec!["first_name", "email"]),
        (10, vec!["phone", "email", "role", "workspace", "until"]),
        (11, vec!["email", "until"]),
    ];
    assert_eq!(errors(&shown), BTreeMap::from(expected));
    assert_eq!(shown.rows[0].errors[0].suggestions, ["employee"]);
    assert_eq!((shown.rows[5].same_person_as, shown.rows[7].same_person_as), (2, 0));
    assert_eq!(shown.rows[7].action(), Action::Invite);
    let import = shown.import.unwrap();
    assert_eq!(import.status(), pb::ImportStatus::Faulty);
    let totals = import.totals.unwrap();
    assert_eq!((totals.rows_with_errors, totals.people), (9, 8));
    assert_eq!((totals.invited, totals.changed, totals.unchanged), (1, 0, 0));
    assert_eq!(shown.seats_needed, 1);
    let refused = commit(&admin, &import.id).await.unwrap_err();
    assert_eq!(reason(&refused), "IMPORT_HAS_ERRORS");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_get_the_roles_they_lack_and_keep_their_profile() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let email = "maria@acme.example";
    let maria = world.member(&admin, "acme", email, &[("employee", "")]).await;
    let file = "first_name,email,role,workspace,until
Other,Maria@ACME.example,employee,,
Other,maria@acme.example,secretary,paris,
Other,maria@acme.example,accountant,,2030-06-30
,new@acme.example,,,
";
    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    assert_eq!(errors(&shown), BTreeMap::new());
    let expected = [Action::AlreadyMember, Action::AddRole, Action::AddRole, Action::Invite];
    assert_eq!(actions(&shown), expected);
    assert_eq!(shown.rows[3].role, "employee", "the default role");
    let totals = shown.import.as_ref().unwrap().totals.unwrap();
    assert_eq!((totals.people, totals.invited, totals.changed), (2, 1, 1));
    commit(&admin, &shown.import.unwrap().id).await.unwrap();

    let now = member(&admin, &maria).await;
    let day = "2030-07-01T00:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp();
    let end = |role: &pb::RoleAssignment| role.end_time.map(|time| time.seconds);
    let roles = now.roles.iter().map(|r| (r.role.as_str(), r.scope.as_str(), end(r)));
    let roles = roles.collect::<std::collections::BTreeSet<_>>();
    let expected = [
        ("accountant", "", Some(day)),
        ("employee", "", None),
        ("secretary", "workspaces/paris", None),
    ];
    assert_eq!(roles, expected.into());
    assert_eq!(now.profile.unwrap().first_name, "New");
    world.mail_to("new@acme.example").await;

    // What they have is nothing to do, and one change that is refused refuses all.
    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    assert_eq!(shown.import.unwrap().totals.unwrap().unchanged, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_imports_what_they_may_not_give() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    world.member(&admin, "acme", "hana@acme.example", &[("hr_manager", "")]).await;
    let hana = world.sign_in("acme", "hana@acme.example").await;
    let file = "email,role,kind
a@acme.example,director,
b@acme.example,administrator,
c@acme.example,hr,
d@acme.example,employee,
hana@acme.example,director,
";
    let shown = preview(&hana, "acme", file.as_bytes()).await.unwrap();
    let wrong = errors(&shown);
    assert_eq!(wrong.keys().copied().collect::<Vec<_>>(), [2, 3, 6], "{wrong:?}");
    assert!(shown.rows[0].errors[0].message.contains("not yours to give"));

    // Between preview and commit the right goes: what was shown does not happen.
    let id = planned(&hana, "email,role\nd@acme.example,employee\n").await;
    let list = pb::ListMembershipsRequest {
        tenant: "acme".into(),
        query: "hana".into(),
        ..Default::default()
    };
    let rows = admin.memberships().list_memberships(list).await.unwrap().into_inner().memberships;
    let (user, role) = (rows[0].user_id.clone(), rows[0].roles[0].id.clone());
    let demote = pb::UpdateMemberRolesRequest {
        tenant: "acme".into(),
        subject: user,
        remove: vec![role],
        ..Default::default()
    };
    admin.memberships().update_member_roles(demote).await.unwrap();
    let refused = commit(&hana, &id).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn external_people_and_foreign_domains_are_judged_as_by_hand() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let update = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        allowed_email_domains: vec!["acme.example".into()],
        ..Default::default()
    };
    admin.tenants().update_tenant(update).await.unwrap();
    let file = "email,kind\na@acme.example,\nb@other.example,internal\nc@other.example,External\n";
    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    assert_eq!(errors(&shown), BTreeMap::from([(3, vec!["email"])]));
    assert_eq!(shown.rows[2].kind(), pb::MemberKind::External);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_refused_and_the_server_lives() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let rows = |n: usize| {
        let rows = (0..n).map(|n| format!("p{n}@a.example\n")).collect::<String>();
        format!("email\n{rows}").into_bytes()
    };
    let files: [(&str, Vec<u8>); 9] = [
        ("nothing", Vec::new()),
        ("too large", vec![b'a'; (2 << 20) + 1]),
        ("columns", vec![b','; 2 << 20]),
        ("quotes", vec![b'"'; 2 << 20]),
        ("lines", vec![b'\n'; 2 << 20]),
        ("nul", b"email\na@b.example\0".to_vec()),
        ("rows", rows(1001)),
        ("header", b"email,role,=cmd|'/C calc'!A0\na@b.example,employee,x".to_vec()),
        ("workbook", b"PK\x03\x04\x14\0\x06\0".to_vec()),
    ];
    for (what, file) in files {
        let refused = preview(&admin, "acme", &file).await.unwrap_err();
        assert_eq!(
            (refused.code(), field(&refused).as_str()),
            (Code::InvalidArgument, "chunk"),
            "{what}"
        );
    }
    assert_eq!(preview(&admin, "acme", &rows(1000)).await.unwrap().rows.len(), 1000);
    // Formulas and line breaks are text, or wrong, and never more.
    let file = "first_name,last_name,email,role\n\
        \"=HYPERLINK(\"\"http://evil.example\"\",\"\"x\"\")\",\"O\nBrien\",a@b.example,employee\n\
        x,y,\"a@b.example\r\nBcc: z@z.example\",employee\n";
    let shown = preview(&admin, "acme", file.as_bytes()).await.unwrap();
    assert_eq!(shown.rows[0].last_name, "O Brien");
    assert_eq!(errors(&shown), BTreeMap::from([(3, vec!["email"])]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_shows_who_imported_what_and_what_became_of_it() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let done = committed(&admin, "email\na@acme.example\n").await;
    let open = planned(&admin, "email\nb@acme.example\n").await;
    let cancelled = planned(&admin, "email\nc@acme.example\n").await;
    let (tenant, import_id) = ("acme".to_owned(), cancelled.clone());
    let cancel = pb::CancelImportRequest { tenant, import_id };
    for _ in 0..2 {
        let answer = admin.imports().cancel_import(cancel.clone()).await.unwrap().into_inner();
        assert_eq!(answer.import.unwrap().status(), pb::ImportStatus::Cancelled);
    }
    let refused = commit(&admin, &cancelled).await.unwrap_err();
    assert_eq!(reason(&refused), "IMPORT_CANCELLED");
    let cancel = pb::CancelImportRequest { import_id: done.import.clone().unwrap().id, ..cancel };
    let refused = admin.imports().cancel_import(cancel).await.unwrap_err();
    assert_eq!(reason(&refused), "IMPORT_COMMITTED");

    world.advance(Duration::from_secs(3600));
    let refused = commit(&admin, &open).await.unwrap_err();
    assert_eq!(reason(&refused), "IMPORT_EXPIRED");
    let list = pb::ListImportsRequest { tenant: "acme".into(), page_size: 2, ..Default::default() };
    let first = admin.imports().list_imports(list.clone()).await.unwrap().into_inner();
    let list = pb::ListImportsRequest { page_token: first.next_page_token.clone(), ..list };
    let second = admin.imports().list_imports(list).await.unwrap().into_inner();
    let all: Vec<pb::Import> = first.imports.into_iter().chain(second.imports).collect();
    let statuses: Vec<_> = all.iter().map(pb::Import::status).collect();
    use pb::ImportStatus::{Cancelled, Committed, Expired};
    assert_eq!(statuses, [Cancelled, Expired, Committed]);
    assert_eq!(Some(&all[2]), done.import.as_ref());
    assert!(all[2].created_by.starts_with("usr_") && all[2].file_name == "people.csv");

    let list = pb::ListAuditEventsRequest {
        tenant: "acme".into(),
        target: all[2].id.clone(),
        ..Default::default()
    };
    let events = admin.audit().list_audit_events(list).await.unwrap().into_inner().events;
    assert_eq!((events.len(), events[0].revision.as_str()), (1, all[2].commit_revision.as_str()));
    world.mail_to("a@acme.example").await;

    // The people of a plan are kept only as long as it can be committed.
    rolecall::imports::forget(&world.server.app.pool, world.server.app.clock.now()).await.unwrap();
    let kept: i64 = sqlx::query_scalar("select count(*) from imports where plan is not null")
        .fetch_one(&world.server.app.pool)
        .await
        .unwrap();
    assert_eq!(kept, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_its_makers_alone_and_ten_are_kept() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    world.member(&admin, "acme", "other@acme.example", &[("administrator", "")]).await;
    let other = world.sign_in("acme", "other@acme.example").await;
    let id = planned(&admin, "email\na@acme.example\n").await;
    let refused = commit(&other, &id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let cancel = pb::CancelImportRequest { tenant: "acme".into(), import_id: id.clone() };
    let refused = other.imports().cancel_import(cancel).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    for _ in 0..10 {
        planned(&admin, "email\na@acme.example\n").await;
    }
    let refused = commit(&admin, &id).await.unwrap_err();
    assert_eq!(reason(&refused), "IMPORT_CANCELLED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_a_file_without_people() {
    let mut world = World::start().await;
    let admin = business(&mut world).await;
    let get = pb::GetImportTemplateRequest { tenant: "acme".into(), ..Default::default() };
    let template = admin.imports().get_import_template(get.clone()).await.unwrap().into_inner();
    let header = EXAMPLE.lines().next().unwrap();
    assert_eq!(String::from_utf8(template.content.clone()).unwrap(), format!("{header}\r\n"));
    assert!(template.roles.contains(&"hr_manager".to_owned()));
    let refused = preview(&admin, "acme", &template.content).await.unwrap_err();
    assert!(refused.message().contains("add people"), "{refused:?}");
    let filled = [template.content, b"Ana,A,ana@a.example,staff,,,,\r\n".to_vec()].concat();
    assert_eq!(errors(&preview(&admin, "acme", &filled).await.unwrap()), BTreeMap::new());
    let get = pb::GetImportTemplateRequest {
        separator: pb::CsvSeparator::Semicolon.into(),
        with_scopes: true,
        ..get
    };
    let template = admin.imports().get_import_template(get).await.unwrap().into_inner();
    assert!(template.content.ends_with(b";location;workspace;until\r\n"));
    world.stop().await;
}
