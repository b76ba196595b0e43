//! The lists behind a check: who may do something, where somebody may, and what they may do.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use rolecall::proto as pb;
use tonic::Code;

use crate::world::{Api, World, check, reason, role_on};

const READ: &str = "files.read";

/// A tenant with a role that reads files: Ada administers, Ben reads everywhere, Cleo in Paris through a
/// group, Dora was suspended, and Emil reads nothing.
struct Office {
    world: World,
    admin: Api,
    ben: String,
    cleo: String,
    dora: String,
    emil: String,
}

async fn office() -> Office {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "reader".into(),
        display_names: [("en".to_owned(), "Reader".to_owned())].into(),
        permissions: vec![READ.into(), "notes.*".into()],
        ..Default::default()
    };
    admin.roles().create_role(role).await.unwrap();
    for key in ["paris", "rome"] {
        let workspace = pb::CreateWorkspaceRequest {
            tenant: "acme".into(),
            key: key.into(),
            display_name: key.into(),
            ..Default::default()
        };
        admin.workspaces().create_workspace(workspace).await.unwrap();
    }
    let ben = world.member(&admin, "acme", "ben@acme.example", &[("reader", "")]).await;
    let cleo = world.member(&admin, "acme", "cleo@acme.example", &[]).await;
    let dora = world.member(&admin, "acme", "dora@acme.example", &[("reader", "")]).await;
    let emil = world.member(&admin, "acme", "emil@acme.example", &[]).await;
    let group = pb::CreateGroupRequest {
        tenant: "acme".into(),
        key: "team".into(),
        display_name: "Team".into(),
        ..Default::default()
    };
    admin.groups().create_group(group).await.unwrap();
    let carries = pb::UpdateGroupRolesRequest {
        tenant: "acme".into(),
        group: "team".into(),
        add: vec![role_on("reader", "workspaces/paris")],
        ..Default::default()
    };
    admin.groups().update_group_roles(carries).await.unwrap();
    let joined = pb::AddGroupMembersRequest {
        tenant: "acme".into(),
        group: "team".into(),
        user_ids: vec![cleo.clone()],
        ..Default::default()
    };
    admin.groups().add_group_members(joined).await.unwrap();
    let suspend = pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: dora.clone(),
        ..Default::default()
    };
    admin.memberships().suspend_membership(suspend).await.unwrap();
    Office { world, admin, ben, cleo, dora, emil }
}

fn who(resource: &str, page_size: i32, page_token: &str) -> pb::ListSubjectsRequest {
    pb::ListSubjectsRequest {
        tenant: "acme".into(),
        permission: READ.into(),
        resource: resource.into(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    }
}

async fn everybody(api: &Api, resource: &str, page_size: i32) -> Vec<pb::AllowedSubject> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = api.permissions().list_subjects(who(resource, page_size, &token)).await;
        let page = page.unwrap().into_inner();
        assert!(page.revision.starts_with("rev_"), "{page:?}");
        found.extend(page.subjects);
        token = page.next_page_token;
        if token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn who_may_is_listed_with_how_and_agrees_with_the_check() {
    let office = office().await;
    let Office { world, admin, ben, cleo, dora, emil } = &office;
    for resource in ["", "workspaces/paris", "workspaces/paris/folders/1", "workspaces/rome"] {
        let listed = everybody(admin, resource, 1).await;
        for subject in [ben, cleo, dora, emil] {
            let asked = check("acme", subject, READ, resource);
            let answer = world.operator.permissions().check_permission(asked).await.unwrap();
            let is_listed = listed.iter().any(|allowed| allowed.subject == *subject);
            assert_eq!(is_listed, answer.into_inner().allowed, "{subject} on {resource:?}");
        }
        assert!(listed.is_sorted_by(|a, b| a.subject < b.subject || b.subject.starts_with("svc_")));
    }
    let paris = everybody(admin, "workspaces/paris", 100).await;
    let of = |id: &str| paris.iter().find(|allowed| allowed.subject == id).unwrap();
    assert!(of(ben).direct && of(ben).groups.is_empty());
    assert_eq!((of(cleo).direct, of(cleo).groups.as_slice()), (false, &["team".to_owned()][..]));
    let operator = paris.iter().find(|allowed| allowed.subject.starts_with("svc_")).unwrap();
    assert!(operator.installation && !operator.direct, "{operator:?}");
    let nowhere = admin.permissions().list_subjects(who("workspaces/oslo", 10, "")).await.unwrap();
    assert_eq!(nowhere.into_inner().reason(), pb::Reason::WorkspaceUnknown);
    office.world.stop().await;
}

#[tokio::test]
async fn nobody_who_is_allowed_throughout_is_missed_while_others_come_and_go() {
    let mut office = office().await;
    let admin = office.admin.clone();
    let mut token = String::new();
    let mut seen = BTreeSet::new();
    for n in 0.. {
        let page =
            admin.permissions().list_subjects(who("", 1, &token)).await.unwrap().into_inner();
        seen.extend(page.subjects.into_iter().map(|allowed| allowed.subject));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        if n < 3 {
            let email = format!("new{n}@acme.example");
            office.world.member(&admin, "acme", &email, &[("reader", "")]).await;
        }
    }
    assert!(seen.contains(&office.ben), "{seen:?}");

    let first = admin.permissions().list_subjects(who("", 1, "")).await.unwrap().into_inner();
    let elsewhere = who("workspaces/rome", 1, &first.next_page_token);
    let refused = admin.permissions().list_subjects(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "a token of another list");
    office.world.stop().await;
}

#[tokio::test]
async fn a_stream_of_subjects_is_of_one_revision_and_says_when_it_is_complete() {
    let office = office().await;
    let asked = pb::StreamSubjectsRequest {
        tenant: "acme".into(),
        permission: READ.into(),
        resource: "workspaces/paris".into(),
        ..Default::default()
    };
    let stream = office.admin.permissions().stream_subjects(asked).await.unwrap().into_inner();
    let messages: Vec<_> = stream.try_collect().await.unwrap();
    let revisions: BTreeSet<_> = messages.iter().map(|message| &message.revision).collect();
    assert_eq!(revisions.len(), 1, "{messages:?}");
    let complete: Vec<_> = messages.iter().map(|message| message.complete).collect();
    assert!(complete.iter().rev().skip(1).all(|complete| !complete) && complete.ends_with(&[true]));
    let streamed: Vec<_> = messages.into_iter().flat_map(|message| message.subjects).collect();
    assert_eq!(streamed, everybody(&office.admin, "workspaces/paris", 2).await);
    office.world.stop().await;
}

fn scopes(subject: &str) -> pb::ListScopesRequest {
    pb::ListScopesRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        permission: READ.into(),
        ..Default::default()
    }
}

fn effective(subject: &str, resource: &str, expand: bool) -> pb::ListEffectivePermissionsRequest {
    pb::ListEffectivePermissionsRequest {
        tenant: "acme".into(),
        subject: subject.into(),
        resource: resource.into(),
        expand,
        ..Default::default()
    }
}

#[tokio::test]
async fn where_and_what_somebody_may_is_listed_and_why_nothing_is() {
    let office = office().await;
    let mut api = office.admin.permissions();
    let ben = api.list_scopes(scopes(&office.ben)).await.unwrap().into_inner().scopes;
    assert_eq!(ben, [pb::AllowedScope { scope: String::new(), includes_beneath: true }]);
    let cleo = api.list_scopes(scopes(&office.cleo)).await.unwrap().into_inner().scopes;
    let paris = pb::AllowedScope { scope: "workspaces/paris".into(), includes_beneath: true };
    assert_eq!(cleo, [paris]);
    let dora = api.list_scopes(scopes(&office.dora)).await.unwrap().into_inner();
    assert_eq!((dora.scopes.len(), dora.reason()), (0, pb::Reason::MembershipSuspended));

    let asked = effective(&office.cleo, "workspaces/paris", false);
    let what = api.list_effective_permissions(asked).await.unwrap().into_inner();
    assert!(what.permissions.contains(&"notes.*".to_owned()), "{what:?}");
    assert!(what.permissions.contains(&READ.to_owned()), "{what:?}");
    let asked = effective(&office.cleo, "workspaces/rome", false);
    let elsewhere = api.list_effective_permissions(asked).await.unwrap().into_inner();
    assert!(!elsewhere.permissions.contains(&READ.to_owned()), "{elsewhere:?}");
    let asked = effective(&office.cleo, "workspaces/paris", true);
    let words = api.list_effective_permissions(asked).await.unwrap().into_inner().permissions;
    assert!(words.contains(&READ.to_owned()), "{words:?}");
    assert!(words.iter().all(|word| !word.ends_with('*')), "{words:?}");
    office.world.stop().await;
}

#[tokio::test]
async fn people_may_ask_about_themselves_and_nobody_else() {
    let office = office().await;
    let cleo = office.world.sign_in("acme", "cleo@acme.example").await;
    let own = cleo.permissions().list_scopes(scopes(&office.cleo)).await.unwrap().into_inner();
    assert_eq!(own.scopes.len(), 1);
    let mine = effective(&office.cleo, "workspaces/paris", false);
    cleo.permissions().list_effective_permissions(mine).await.unwrap();
    let refused = cleo.permissions().list_scopes(scopes(&office.ben)).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_MISSING");
    let refused = cleo.permissions().list_subjects(who("", 1, "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let foreign = pb::ListSubjectsRequest { tenant: "zeta".into(), ..who("", 1, "") };
    let foreign = office.admin.permissions().list_subjects(foreign).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied, "unknown looks like not yours");
    office.world.stop().await;
}
