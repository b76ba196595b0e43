//! The audit log: found by every filter, paged both ways, and altered nowhere.

use rolecall::proto as pb;
use secrecy::ExposeSecret;
use sqlx::{Connection, Executor, PgConnection};

use crate::world::{Api, World, field};

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
