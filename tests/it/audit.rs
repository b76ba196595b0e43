//! The audit log: found by every filter, paged both ways, and altered nowhere.

use rolecall::proto as pb;
use secrecy::ExposeSecret;
use sqlx::{Connection, Executor, PgConnection};

use crate::world::{Api, World, field, invite, role_on};

async fn list(by: &Api, request: pb::ListAuditEventsRequest) -> pb::ListAuditEventsResponse {
    by.audit().list_audit_events(request).await.unwrap().into_inner()
}

fn of(tenant: &str) -> pb::ListAuditEventsRequest {
    pb::ListAuditEventsRequest { tenant: tenant.into(), ..Default::default() }
}

fn workspace(key: &str, reason: &str) -> pb::CreateWorkspaceRequest {
    pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: key.into(),
        display_name: key.to_uppercase(),
        reason: reason.into(),
        ..Default::default()
    }
}

async fn verify(by: &Api, tenant: &str) -> pb::VerifyAuditLogResponse {
    let request = pb::VerifyAuditLogRequest { tenant: tenant.into() };
    by.audit().verify_audit_log(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_every_filter_and_paged_both_ways() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    world.advance(std::time::Duration::from_secs(3600));
    let later = world.server.app.clock.now();
    for key in ["paris", "lyon", "nice"] {
        admin.workspaces().create_workspace(workspace(key, "a new office")).await.unwrap();
    }

    let newest = list(&admin, pb::ListAuditEventsRequest { page_size: 500, ..of("acme") }).await;
    let mut all = newest.events;
    assert!(all.len() > 10 && newest.next_page_token.is_empty());
    assert_eq!(all[0].target, "nice");
    for oldest_first in [false, true] {
        let mut paged = Vec::new();
        let mut token = String::new();
        loop {
            let request = pb::ListAuditEventsRequest {
                page_size: 3,
                oldest_first,
                page_token: token,
                ..of("acme")
            };
            let page = list(&admin, request).await;
            paged.extend(page.events);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, all, "oldest first: {oldest_first}");
        all.reverse();
    }

    let paris = list(&admin, pb::ListAuditEventsRequest { target: "paris".into(), ..of("acme") });
    let paris = paris.await.events.remove(0);
    assert_eq!((paris.verb.as_str(), paris.actor.as_str()), ("workspace.created", user.as_str()));
    assert_eq!((paris.reason.as_str(), paris.source.as_str()), ("a new office", "127.0.0.1"));
    assert!(paris.before.is_none());
    let after = paris.after.unwrap().fields;
    assert_eq!(after["key"].kind, Some(prost_types::value::Kind::StringValue("paris".into())));
    assert!(after.contains_key("display_name"), "{after:?}");

    let workspaces = pb::ListAuditEventsRequest { verb: "workspace.*".into(), ..of("acme") };
    assert_eq!(list(&admin, workspaces).await.events.len(), 3);
    let since = pb::ListAuditEventsRequest { start_time: Some(pb::timestamp(later)), ..of("acme") };
    assert_eq!(list(&admin, since).await.events.len(), 3);
    let until = pb::ListAuditEventsRequest { end_time: Some(pb::timestamp(later)), ..of("acme") };
    assert_eq!(list(&admin, until).await.events.len(), all.len() - 3);
    let never = pb::ListAuditEventsRequest {
        start_time: Some(pb::timestamp(later + chrono::TimeDelta::days(1))),
        ..of("acme")
    };
    assert_eq!(list(&admin, never).await.events, []);
    let about = pb::ListAuditEventsRequest { target: maria, ..of("acme") };
    let about = list(&admin, about).await.events;
    let added = about.iter().find(|event| event.verb == "member.added").unwrap();
    assert_eq!(added.personal["first_name"], "New");
    let by_nobody = pb::ListAuditEventsRequest { actor: "installation".into(), ..of("acme") };
    assert_eq!(list(&admin, by_nobody).await.events, []);
    for (request, wrong) in [
        (pb::ListAuditEventsRequest { actor: "maria".into(), ..of("acme") }, "actor"),
        (pb::ListAuditEventsRequest { verb: "%".into(), ..of("acme") }, "verb"),
        (pb::ListAuditEventsRequest { page_token: "x".into(), ..of("acme") }, "page_token"),
    ] {
        let refused = admin.audit().list_audit_events(request).await.unwrap_err();
        assert_eq!(field(&refused), wrong);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_cut_off_or_put_under_is_found() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    admin.workspaces().create_workspace(workspace("paris", "why not")).await.unwrap();
    let whole = verify(&admin, "acme").await;
    assert!(whole.ok && whole.checked_count > 5 && whole.head_hash.len() == 64, "{whole:?}");
    assert!(verify(&world.operator, "system").await.ok);
    let url = world.database.expose_secret().to_owned();
    let mut owner = PgConnection::connect(&url).await.unwrap();

    // Erased values leave the chain whole; altered ones do not.
    let erase = "delete from event_values where values like '%why not%'";
    assert_eq!(owner.execute(erase).await.unwrap().rows_affected(), 1);
    assert!(verify(&admin, "acme").await.ok);
    let rename = "update event_values set values = replace(values, 'Ada', 'Eve')";
    owner.execute(rename).await.unwrap();
    let report = verify(&admin, "acme").await;
    assert!(!report.ok && report.broken_reason.contains("personal values"), "{report:?}");
    let back = "update event_values set values = replace(values, 'Eve', 'Ada')";
    owner.execute(back).await.unwrap();
    assert!(verify(&admin, "acme").await.ok);

    // What is cut off at the end of one chain is missing among all numbers.
    admin.workspaces().create_workspace(workspace("lyon", "")).await.unwrap();
    world.tenant("other").await;
    let cut = "delete from events where verb = 'workspace.created' and target = 'lyon'";
    assert_eq!(owner.execute(cut).await.unwrap().rows_affected(), 1);
    assert!(verify(&admin, "acme").await.ok, "its own chain cannot show it");
    let report = verify(&world.operator, "system").await;
    assert!(!report.ok && report.broken_reason.contains("missing"), "{report:?}");

    let shift = "update events set at = at + interval '1 microsecond' where target = 'paris'";
    owner.execute(shift).await.unwrap();
    let report = verify(&admin, "acme").await;
    assert!(!report.ok && report.broken_revision.starts_with("rev_"), "{report:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_exported_as_a_file_that_no_spreadsheet_evaluates() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    admin
        .workspaces()
        .create_workspace(workspace("paris", "=HYPERLINK(\"http://x\")"))
        .await
        .unwrap();
    let export = |verb: &str| pb::ExportAuditEventsRequest {
        tenant: "acme".into(),
        verb: verb.into(),
        oldest_first: true,
        ..Default::default()
    };
    let mut files = Vec::new();
    for verb in ["", "workspace.created"] {
        let mut stream =
            admin.audit().export_audit_events(export(verb)).await.unwrap().into_inner();
        let mut file = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            file.extend(part.chunk);
        }
        files.push(String::from_utf8(file).unwrap());
    }
    let listed = list(&admin, pb::ListAuditEventsRequest { page_size: 500, ..of("acme") }).await;
    assert_eq!(files[0].lines().count(), listed.events.len() + 1);
    let hashes = listed.events.iter().rev().map(|event| event.hash.as_str());
    let mut rest = files[0].as_str();
    for hash in hashes {
        rest = rest.split_once(hash).expect("every event, oldest first").1;
    }
    let line = files[1].lines().nth(1).unwrap();
    assert!(files[1].starts_with("\u{feff}time,revision,n,verb,"), "{}", files[1]);
    assert!(line.contains(&format!("workspace.created,{user},,paris,\"'=HYPERLINK(")), "{line}");
    assert!(line.contains("PARIS"), "{line}");
    assert_eq!(files[1].lines().count(), 2);
    let refused = admin.audit().export_audit_events(export("workspace")).await.unwrap_err();
    assert_eq!(field(&refused), "verb");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_what_ids_were_called() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    admin.workspaces().create_workspace(workspace("paris", "")).await.unwrap();
    let maria = world.member(&admin, "acme", "maria@acme.example", &[]).await;
    roles_and_groups(&admin, &maria).await;
    // All that is called something has ended, and the log goes on to say what it was.
    let told = async |verb: &str, target: &str, field: &str| {
        let (verb, target) = (verb.to_owned(), target.to_owned());
        let request = pb::ListAuditEventsRequest { verb: verb.clone(), target, ..of("acme") };
        let event = list(&admin, request).await.events.into_iter().next().expect(&verb);
        let value = |side: Option<prost_types::Struct>| {
            side.unwrap_or_default().fields.get(field).map(text)
        };
        (value(event.before), value(event.after))
    };
    let is = |text: &str| Some(text.to_owned());
    let reader = is("[reader]");
    for (verb, target, field, before, after) in [
        ("role.assigned", "team", "role_key", None, is("editor")),
        ("role.assigned", "team", "workspace_key", None, is("paris")),
        ("role.unassigned", "team", "role_key", is("editor"), None),
        ("role.unassigned", "team", "workspace_key", is("paris"), None),
        ("role.assigned", &maria, "role_key", None, is("member")),
        ("role.assigned", &maria, "workspace_key", None, None),
        ("group.joined", &maria, "group_key", None, is("team")),
        ("group.left", &maria, "group_key", is("team"), None),
        ("role.created", "editor", "include_keys", None, reader.clone()),
        ("role.updated", "editor", "include_keys", reader.clone(), reader.clone()),
        ("role.updated", "editor", "may_grant_keys", None, reader.clone()),
        ("role.deleted", "editor", "include_keys", reader.clone(), None),
        ("role.deleted", "editor", "may_grant_keys", reader, None),
        (
            "invitation.created",
            "",
            "promises",
            None,
            is("[{role: reader, scope: workspaces/paris}]"),
        ),
    ] {
        assert_eq!(told(verb, target, field).await, (before, after), "{verb} {field}");
    }
    world.stop().await;
}

/// A role that includes another and lets it be given, held by a group that somebody is in; a promise of
/// the other one. Group and role are deleted again.
async fn roles_and_groups(admin: &Api, member: &str) {
    let tenant = || "acme".to_owned();
    for (key, includes) in [("reader", vec![]), ("editor", vec!["reader".to_owned()])] {
        let role = pb::CreateRoleRequest {
            tenant: tenant(),
            key: key.into(),
            display_names: [("en".to_owned(), key.to_owned())].into(),
            includes,
            ..Default::default()
        };
        admin.roles().create_role(role).await.unwrap();
    }
    let group = pb::CreateGroupRequest {
        tenant: tenant(),
        key: "team".into(),
        display_name: "Team".into(),
        ..Default::default()
    };
    admin.groups().create_group(group).await.unwrap();
    let give = pb::UpdateGroupRolesRequest {
        tenant: tenant(),
        group: "team".into(),
        add: vec![role_on("editor", "workspaces/paris/files/7")],
        ..Default::default()
    };
    admin.groups().update_group_roles(give).await.unwrap();
    let join = pb::AddGroupMembersRequest {
        tenant: tenant(),
        group: "team".into(),
        user_ids: vec![member.to_owned()],
        ..Default::default()
    };
    admin.groups().add_group_members(join).await.unwrap();
    let invited = invite("acme", "ben@acme.example", &[("reader", "workspaces/paris")]);
    admin.invitations().create_invitation(invited).await.unwrap();
    let edit = pb::UpdateRoleRequest {
        tenant: tenant(),
        role: "editor".into(),
        may_grant: vec!["reader".into()],
        ..Default::default()
    };
    admin.roles().update_role(edit).await.unwrap();
    let delete =
        pb::DeleteGroupRequest { tenant: tenant(), group: "team".into(), ..Default::default() };
    admin.groups().delete_group(delete).await.unwrap();
    let delete =
        pb::DeleteRoleRequest { tenant: tenant(), role: "editor".into(), ..Default::default() };
    admin.roles().delete_role(delete).await.unwrap();
}

fn text(value: &prost_types::Value) -> String {
    use prost_types::value::Kind;
    match value.kind.as_ref() {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::ListValue(list)) => {
            format!("[{}]", list.values.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        Some(Kind::StructValue(map)) => {
            let fields = map.fields.iter().map(|(name, value)| format!("{name}: {}", text(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}
