//! Tenants: how they begin, who sees them, and how they are closed and opened.

use rolecall::{proto as pb, tenants};
use tonic::{Code, Status};

use crate::world::{Api, World, accept, check, field, invite, reason};

fn new_tenant(key: &str, administrator: Option<&str>) -> pb::CreateTenantRequest {
    pb::CreateTenantRequest {
        key: key.into(),
        display_name: key.to_uppercase(),
        administrator: administrator
            .map(|email| pb::TenantAdministrator { email: email.into(), ..Default::default() }),
        ..Default::default()
    }
}

async fn get(by: &Api, key: &str) -> Result<pb::Tenant, Status> {
    let request = pb::GetTenantRequest { tenant: key.into() };
    Ok(by.tenants().get_tenant(request).await?.into_inner().tenant.unwrap())
}

fn suspension(key: &str) -> pb::SuspendTenantRequest {
    pb::SuspendTenantRequest { tenant: key.into(), ..Default::default() }
}

fn reactivation(key: &str) -> pb::ReactivateTenantRequest {
    pb::ReactivateTenantRequest { tenant: key.into(), ..Default::default() }
}

async fn verdict(world: &World, tenant: &str, subject: &str) -> (bool, String) {
    let question = check(tenant, subject, "iam.members.read", "");
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    let answer = answer.into_inner();
    (answer.allowed, answer.reason().as_str_name().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_pending_until_its_administrator_accepts() {
    let mut world = World::start().await;
    let new = new_tenant("acme", Some("ada@acme.example"));
    let created = world.operator.tenants().create_tenant(new.clone()).await.unwrap().into_inner();
    let tenant = created.tenant.unwrap();
    assert_eq!(tenant.status(), pb::TenantStatus::Pending);
    assert_eq!(tenant.default_role, "member");
    assert!(created.invitation_id.starts_with("inv_"));
    assert!(get(&world.operator, "acme").await.unwrap().warnings.is_empty());
    let taken = world.operator.tenants().create_tenant(new).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");

    let user = world.accept("ada@acme.example").await;
    let tenant = get(&world.operator, "acme").await.unwrap();
    assert_eq!(tenant.status(), pb::TenantStatus::Active);
    assert_eq!(
        (tenant.administrator_count, tenant.warnings),
        (1, vec!["SINGLE_ADMINISTRATOR".into()])
    );
    assert!(verdict(&world, "acme", &user).await.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_creates_a_tenant_administers_it_at_once() {
    let mut world = World::start().await;
    let status =
        world.operator.tenants().create_tenant(new_tenant("acme", None)).await.unwrap_err();
    assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, "administrator"));

    let operator = world.operator.clone();
    let invitation = invite("system", "olaf@host.example", &[("operator", "")]);
    operator.invitations().create_invitation(invitation).await.unwrap();
    let user = world.accept("olaf@host.example").await;
    let person = world.sign_in("system", "olaf@host.example").await;
    let created = person.tenants().create_tenant(new_tenant("acme", None)).await.unwrap();
    let tenant = created.into_inner().tenant.unwrap();
    assert_eq!((tenant.status(), tenant.administrator_count), (pb::TenantStatus::Active, 1));
    let request = pb::GetMembershipRequest { tenant: "acme".into(), user_id: user };
    let member = operator.memberships().get_membership(request).await.unwrap().into_inner();
    let roles: Vec<_> = member.membership.unwrap().roles.into_iter().map(|r| r.role).collect();
    assert_eq!(roles, ["administrator"]);

    let dry = pb::CreateTenantRequest { validate_only: true, ..new_tenant("dry", None) };
    person.tenants().create_tenant(dry).await.unwrap();
    assert_eq!(get(&operator, "dry").await.unwrap_err().code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_closed_until_it_is_opened_again() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let invitation = invite("beta", "admin@acme.example", &[]);
    beta.invitations().create_invitation(invitation).await.unwrap();
    let token = world.token_to("admin@acme.example").await;
    let join = pb::AcceptInvitationRequest { token, account: None };
    admin.invitations().accept_invitation(join).await.unwrap();
    let mut operator = world.operator.tenants();
    let suspended = operator.suspend_tenant(suspension("acme")).await.unwrap().into_inner();
    assert_eq!(suspended.tenant.unwrap().status(), pb::TenantStatus::Suspended);
    assert_eq!(verdict(&world, "acme", &user).await, (false, "REASON_TENANT_SUSPENDED".into()));
    assert_eq!(get(&admin, "acme").await.unwrap_err().code(), Code::Unauthenticated);
    let again = operator.suspend_tenant(suspension("acme")).await.unwrap().into_inner();
    assert_eq!(again.revision, suspended.revision);

    // Whoever belongs to it sees that it is closed, from where they are.
    let at_beta = world.sign_in("beta", "admin@acme.example").await;
    let mine = at_beta.users().list_my_tenants(pb::ListMyTenantsRequest::default()).await.unwrap();
    let mine = mine.into_inner().tenants.into_iter();
    let open: Vec<_> = mine.map(|one| (one.tenant.clone(), one.tenant_status())).collect();
    let expected = [("acme", pb::TenantStatus::Suspended), ("beta", pb::TenantStatus::Active)];
    assert_eq!(open, expected.map(|(tenant, status)| (tenant.to_owned(), status)));
    let switch = pb::SwitchTenantRequest { tenant: "acme".into() };
    let refused = at_beta.sessions().switch_tenant(switch).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_SUSPENDED", "{refused}");

    let opened = operator.reactivate_tenant(reactivation("acme")).await.unwrap().into_inner();
    assert_eq!(opened.tenant.unwrap().status(), pb::TenantStatus::Active);
    assert!(verdict(&world, "acme", &user).await.0);
    assert_eq!(get(&admin, "acme").await.unwrap().administrator_count, 1);

    let reserved = operator.suspend_tenant(suspension("system")).await.unwrap_err();
    assert_eq!(reason(&reserved), "TENANT_RESERVED");
    let denied = admin.tenants().suspend_tenant(suspension("acme")).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_is_closed_and_comes_back_as_it_was() {
    let mut world = World::start().await;
    let (admin, user) = world.tenant("acme").await;
    let mut operator = world.operator.tenants();
    let delete = |etag: &str| pb::DeleteTenantRequest {
        tenant: "acme".into(),
        etag: etag.into(),
        ..Default::default()
    };
    let restore = || pb::RestoreTenantRequest { tenant: "acme".into(), ..Default::default() };
    let denied = admin.tenants().delete_tenant(delete("")).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let stale = operator.delete_tenant(delete("1")).await.unwrap_err();
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    let trial = pb::DeleteTenantRequest { validate_only: true, ..delete("") };
    operator.delete_tenant(trial).await.unwrap();
    assert!(verdict(&world, "acme", &user).await.0);

    let etag = get(&admin, "acme").await.unwrap().etag;
    let deleted = operator.delete_tenant(delete(&etag)).await.unwrap().into_inner();
    let tenant = deleted.tenant.unwrap();
    assert_eq!(tenant.status(), pb::TenantStatus::Deleted);
    let kept = tenant.purge_time.unwrap().seconds - tenant.update_time.unwrap().seconds;
    assert_eq!(kept, 30 * 86_400);
    assert_eq!(verdict(&world, "acme", &user).await, (false, "REASON_TENANT_DELETED".into()));
    assert_eq!(reason(&get(&admin, "acme").await.unwrap_err()), "TENANT_DELETED");
    let again = operator.delete_tenant(delete(&etag)).await.unwrap().into_inner();
    assert_eq!(again.revision, deleted.revision);
    let refused = operator.suspend_tenant(suspension("acme")).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_DELETED");
    let refused = operator.reactivate_tenant(reactivation("acme")).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_DELETED");
    let taken = operator.create_tenant(new_tenant("acme", Some("eve@acme.example"))).await;
    assert_eq!(taken.unwrap_err().code(), Code::AlreadyExists);

    // Listed by those who ask for it.
    for (status, seen) in [(pb::TenantStatus::Unspecified, 0), (pb::TenantStatus::Deleted, 1)] {
        let list = pb::ListTenantsRequest { status: status.into(), ..Default::default() };
        let listed = operator.list_tenants(list).await.unwrap().into_inner().tenants;
        assert_eq!(listed.iter().filter(|tenant| tenant.key == "acme").count(), seen);
    }

    let restored = operator.restore_tenant(restore()).await.unwrap().into_inner();
    let tenant = restored.tenant.unwrap();
    assert_eq!((tenant.status(), tenant.purge_time), (pb::TenantStatus::Active, None));
    assert_eq!(tenant.administrator_count, 1);
    assert!(verdict(&world, "acme", &user).await.0);
    get(&admin, "acme").await.unwrap();
    let again = operator.restore_tenant(restore()).await.unwrap().into_inner();
    assert_eq!(again.revision, restored.revision);

    // What was closed before stays closed.
    operator.suspend_tenant(suspension("acme")).await.unwrap();
    operator.delete_tenant(delete("")).await.unwrap();
    let restored = operator.restore_tenant(restore()).await.unwrap().into_inner();
    assert_eq!(restored.tenant.unwrap().status(), pb::TenantStatus::Suspended);

    let reserved = pb::DeleteTenantRequest { tenant: "system".into(), ..Default::default() };
    let reserved = operator.delete_tenant(reserved).await.unwrap_err();
    assert_eq!(reason(&reserved), "TENANT_RESERVED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_a_deleted_tenant_and_the_invitation_outlives_it() {
    let mut world = World::start().await;
    let mut operator = world.operator.tenants();
    operator.create_tenant(new_tenant("acme", Some("ada@acme.example"))).await.unwrap();
    let token = world.token_to("ada@acme.example").await;
    let named = || "acme".to_owned();
    let delete = pb::DeleteTenantRequest { tenant: named(), ..Default::default() };
    operator.delete_tenant(delete).await.unwrap();
    let mut anonymous = world.anonymous().await.invitations();
    let refused = anonymous.accept_invitation(accept(&token)).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_SUSPENDED");
    let late = invite("acme", "bob@acme.example", &[]);
    let refused = world.operator.invitations().create_invitation(late).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_DELETED", "nobody could accept it");
    let restore = pb::RestoreTenantRequest { tenant: named(), ..Default::default() };
    let restored = operator.restore_tenant(restore).await.unwrap().into_inner();
    assert_eq!(restored.tenant.unwrap().status(), pb::TenantStatus::Pending);
    anonymous.accept_invitation(accept(&token)).await.unwrap();
    assert_eq!(get(&world.operator, "acme").await.unwrap().status(), pb::TenantStatus::Active);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_its_first_administrator_is_reactivated_as_pending() {
    let mut world = World::start().await;
    let mut operator = world.operator.tenants();
    operator.create_tenant(new_tenant("acme", Some("ada@acme.example"))).await.unwrap();
    let by = world.operator.clone();
    world.member(&by, "acme", "bob@acme.example", &[]).await;
    operator.suspend_tenant(suspension("acme")).await.unwrap();
    let opened = operator.reactivate_tenant(reactivation("acme")).await.unwrap().into_inner();
    assert_eq!(opened.tenant.unwrap().status(), pb::TenantStatus::Pending);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_changed_within_what_the_caller_may_give() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let role = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "settings".into(),
        display_names: [("en".to_owned(), "Settings".to_owned())].into(),
        permissions: vec!["iam.tenant.*".into()],
        ..Default::default()
    };
    admin.roles().create_role(role).await.unwrap();
    world.member(&admin, "acme", "sam@acme.example", &[("settings", "")]).await;
    let sam = world.sign_in("acme", "sam@acme.example").await;
    let edit = || pb::UpdateTenantRequest { tenant: "acme".into(), ..Default::default() };

    let rise = pb::UpdateTenantRequest { default_role: "administrator".into(), ..edit() };
    let status = sam.tenants().update_tenant(rise).await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_NOT_GRANTABLE", "{status}");
    let unknown = pb::UpdateTenantRequest { default_role: "nobody".into(), ..edit() };
    let status = sam.tenants().update_tenant(unknown).await.unwrap_err();
    assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, "default_role"));
    let hours = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (named, wrong) in [
        (
            "invitation_lifetime",
            pb::UpdateTenantRequest { invitation_lifetime: hours(59), ..edit() },
        ),
        ("language", pb::UpdateTenantRequest { language: "tlh".into(), ..edit() }),
        (
            "allowed_email_domains[1]",
            pb::UpdateTenantRequest {
                allowed_email_domains: vec!["a.fr".into(), "not a domain".into()],
                ..edit()
            },
        ),
    ] {
        let status = sam.tenants().update_tenant(wrong).await.unwrap_err();
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, named));
    }
    let good = pb::UpdateTenantRequest {
        display_name: "Acme SA".into(),
        default_role: "settings".into(),
        invitation_lifetime: hours(7_200),
        language: "fr".into(),
        allowed_email_domains: vec!["Acme.example".into(), "acme.example".into()],
        etag: get(&sam, "acme").await.unwrap().etag,
        ..edit()
    };
    let changed = sam.tenants().update_tenant(good.clone()).await.unwrap().into_inner();
    let changed = changed.tenant.unwrap();
    assert_eq!(changed.allowed_email_domains, ["acme.example"]);
    assert_eq!(changed.default_role, "settings");
    assert_eq!(changed.invitation_lifetime.unwrap().seconds, 7_200);
    assert_eq!((changed.language.as_str(), changed.administrator_count), ("fr", 1));
    assert_eq!(reason(&sam.tenants().update_tenant(good).await.unwrap_err()), "ETAG_MISMATCH");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_listed_for_operators_and_hidden_from_the_others() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    for key in ["acme-2", "beta"] {
        let email = format!("root@{key}.example");
        let new = new_tenant(key, Some(&email));
        world.operator.tenants().create_tenant(new).await.unwrap();
        world.mail_to(&email).await;
    }
    let list = async |request: pb::ListTenantsRequest| {
        let answer = world.operator.tenants().list_tenants(request).await.unwrap().into_inner();
        let keys: Vec<_> = answer.tenants.into_iter().map(|t| t.key).collect();
        (keys, answer.next_page_token)
    };
    let all = list(pb::ListTenantsRequest::default()).await;
    assert_eq!(
        all,
        (["acme", "acme-2", "beta", "system"].map(str::to_owned).into(), String::new())
    );
    let pending = pb::TenantStatus::Pending.into();
    let (keys, next) =
        list(pb::ListTenantsRequest { status: pending, page_size: 1, ..Default::default() }).await;
    assert_eq!(keys, ["acme-2"]);
    let second =
        pb::ListTenantsRequest { status: pending, page_token: next.clone(), ..Default::default() };
    assert_eq!(list(second).await, (vec!["beta".into()], String::new()));
    let prefix = pb::ListTenantsRequest { key_prefix: "acme".into(), ..Default::default() };
    assert_eq!(list(prefix).await.0, ["acme", "acme-2"]);
    let other = pb::ListTenantsRequest { page_token: next, ..Default::default() };
    let status = world.operator.tenants().list_tenants(other).await.unwrap_err();
    assert_eq!(field(&status), "page_token");

    let denied = admin.tenants().list_tenants(pb::ListTenantsRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let theirs = get(&admin, "beta").await.unwrap_err();
    let nobodys = get(&admin, "nowhere").await.unwrap_err();
    assert_eq!(theirs.code(), Code::PermissionDenied);
    assert_eq!(theirs.code(), nobodys.code());
    assert_eq!(theirs.message().replace("beta", "nowhere"), nobodys.message());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installation_is_founded_once_however_many_processes_start() {
    let world = World::start().await;
    let app = &world.server.app;
    let before = app.replica.facts().revision;
    let (first, second) = tokio::join!(tenants::bootstrap(app), tenants::bootstrap(app));
    first.and(second).unwrap();
    assert_eq!(app.replica.facts().revision, before);
    let list = pb::ListRolesRequest { tenant: "system".into(), ..Default::default() };
    let roles = world.operator.roles().list_roles(list).await.unwrap().into_inner().roles;
    let keys: Vec<_> = roles.iter().map(|r| r.key.as_str()).collect();
    assert_eq!(keys, ["application", "auditor", "checker", "member", "operator", "support"]);
    assert!(roles.iter().all(|role| role.locked));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_administrator_was_disabled_says_so_and_can_be_looked_after() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let disable = pb::DisableUserRequest { user_id: user.clone(), ..Default::default() };
    world.operator.users().disable_user(disable).await.unwrap();
    let tenant = get(&world.operator, "acme").await.unwrap();
    assert_eq!(tenant.status(), pb::TenantStatus::NoAdministrator);
    assert_eq!((tenant.administrator_count, tenant.warnings), (0, vec!["NO_ADMINISTRATOR".into()]));

    let mut operator = world.operator.tenants();
    let rename = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        display_name: "Acme SA".into(),
        ..Default::default()
    };
    operator.update_tenant(rename).await.unwrap();
    operator.suspend_tenant(suspension("acme")).await.unwrap();
    let status = operator.reactivate_tenant(reactivation("acme")).await.unwrap_err();
    assert_eq!(reason(&status), "LAST_ADMINISTRATOR", "{status}");
    let enable = pb::EnableUserRequest { user_id: user, ..Default::default() };
    world.operator.users().enable_user(enable).await.unwrap();
    let opened = operator.reactivate_tenant(reactivation("acme")).await.unwrap().into_inner();
    assert_eq!(opened.tenant.unwrap().status(), pb::TenantStatus::Active);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_repairs_a_tenant_whose_last_administrator_was_disabled() {
    let mut world = World::start().await;
    let (admin, ada) = world.tenant("acme").await;
    let guest = world.member(&admin, "acme", "guest@acme.example", &[]).await;
    let suspend = |user: &str| pb::SuspendMembershipRequest {
        tenant: "acme".into(),
        user_id: user.into(),
        ..Default::default()
    };
    let appoint = |user: &str| pb::AppointAdministratorRequest {
        tenant: "acme".into(),
        user_id: user.into(),
        ..Default::default()
    };
    let counts = || rolecall::change::count_without(&world.server.app.pool);
    assert_eq!(counts().await.unwrap(), (0, 1));
    let mut operator = world.operator.tenants();
    let status = operator.appoint_administrator(appoint(&guest)).await.unwrap_err();
    assert_eq!(reason(&status), "HAS_ADMINISTRATOR");
    let disable = pb::DisableUserRequest { user_id: ada.clone(), ..Default::default() };
    let disabled = world.operator.users().disable_user(disable).await.unwrap().into_inner();
    assert_eq!(disabled.tenants_without_administrator, ["acme"]);
    assert_eq!(counts().await.unwrap(), (1, 0));

    // Nothing else is held up by what is missing already.
    world.operator.memberships().suspend_membership(suspend(&guest)).await.unwrap();
    let status = operator.appoint_administrator(appoint(&ada)).await.unwrap_err();
    assert_eq!(reason(&status), "ACCOUNT_DISABLED");
    assert_eq!(counts().await.unwrap(), (1, 0));
    let repaired = operator.appoint_administrator(appoint(&guest)).await.unwrap().into_inner();
    let tenant = repaired.tenant.unwrap();
    assert_eq!((tenant.status(), tenant.administrator_count), (pb::TenantStatus::Active, 1));
    assert_eq!(counts().await.unwrap(), (0, 1));
    assert!(verdict(&world, "acme", &guest).await.0);
    let status =
        world.operator.memberships().suspend_membership(suspend(&guest)).await.unwrap_err();
    assert_eq!(reason(&status), "LAST_ADMINISTRATOR");
    assert!(status.message().contains(&guest), "{}", status.message());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_learns_how_a_closed_tenant_gets_an_administrator() {
    let mut world = World::start().await;
    let (admin, ada) = world.tenant("acme").await;
    let guest = world.member(&admin, "acme", "guest@acme.example", &[]).await;
    let disable = pb::DisableUserRequest { user_id: ada, ..Default::default() };
    world.operator.users().disable_user(disable).await.unwrap();
    let mut operator = world.operator.tenants();
    operator.suspend_tenant(suspension("acme")).await.unwrap();
    let refused = operator.reactivate_tenant(reactivation("acme")).await.unwrap_err();
    assert_eq!(reason(&refused), "LAST_ADMINISTRATOR");
    assert!(refused.message().contains("AppointAdministrator"), "{refused}");
    let appoint = pb::AppointAdministratorRequest {
        tenant: "acme".into(),
        user_id: guest,
        ..Default::default()
    };
    operator.appoint_administrator(appoint).await.unwrap();
    operator.reactivate_tenant(reactivation("acme")).await.unwrap();
    world.stop().await;
}
