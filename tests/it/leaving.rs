//! Leaving: suspension with and without an end, removal, deletion, and what is left of people.

use std::{
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rolecall::{erasure, proto as pb};
use secrecy::ExposeSecret;
use tonic::{Code, Status};

use crate::imports::preview_named;
use crate::world::{Api, PASSWORD, World, check, field, invite, reason, role_on};

const DAY: Duration = Duration::from_secs(86_400);

/// A new one, so that the answer is kept.
fn request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    uuid::Uuid::from_u64_pair(1, NEXT.fetch_add(1, Ordering::Relaxed)).to_string()
}

async fn suspend(by: &Api, tenant: &str, user: &str, retention: pb::Retention) -> pb::Membership {
    let request = pb::SuspendMembershipRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        retention: retention.into(),
        reason: "Kanarie left".into(),
        request_id: request_id(),
        ..Default::default()
    };
    by.memberships().suspend_membership(request).await.unwrap().into_inner().membership.unwrap()
}

async fn remove(by: &Api, tenant: &str, user: &str) {
    let request = pb::RemoveMembershipRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        request_id: request_id(),
        ..Default::default()
    };
    by.memberships().remove_membership(request).await.unwrap();
}

async fn purge(by: &Api, tenant: &str, user: &str, dry: bool) -> Result<pb::Erased, Status> {
    let request = pb::PurgeMemberRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        validate_only: dry,
        reason: "Kanarie asked for it".into(),
        ..Default::default()
    };
    Ok(by.memberships().purge_member(request).await?.into_inner().erased.unwrap())
}

async fn retain(by: &Api, tenant: &str, days: i64, automatically: bool) {
    let request = pb::UpdateTenantRequest {
        tenant: tenant.into(),
        retention: Some(prost_types::Duration { seconds: days * 86_400, nanos: 0 }),
        purge_automatically: automatically,
        ..Default::default()
    };
    by.tenants().update_tenant(request).await.unwrap();
}

async fn verdict(world: &World, tenant: &str, subject: &str) -> (bool, pb::Reason) {
    let question = check(tenant, subject, "iam.members.read", "");
    let answer = world.operator.permissions().check_permission(question).await.unwrap();
    let answer = answer.into_inner();
    (answer.allowed, answer.reason())
}

async fn admin(world: &World, tenant: &str) -> Api {
    world.sign_in(tenant, &format!("admin@{tenant}.example")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_cannot_be_purged_and_what_is_purgeable_not_before_its_time() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let bob = world.member(&acme, "acme", "bob@acme.example", &[("administrator", "")]).await;
    let refused = purge(&acme, "acme", &bob, false).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "NOT_PURGEABLE")
    );

    assert_eq!(suspend(&acme, "acme", &bob, pb::Retention::Keep).await.purge_time, None);
    assert_eq!(reason(&purge(&acme, "acme", &bob, true).await.unwrap_err()), "NOT_PURGEABLE");
    retain(&acme, "acme", 2, false).await;
    let until = suspend(&acme, "acme", &bob, pb::Retention::Purgeable).await.purge_time.unwrap();
    let wanted = world.server.app.clock.now() + chrono::TimeDelta::days(2);
    assert!((until.seconds - wanted.timestamp()).abs() < 60, "{until:?}");
    // Said again, it does not begin anew.
    world.advance(DAY);
    let again = suspend(&acme, "acme", &bob, pb::Retention::Purgeable).await.purge_time.unwrap();
    assert_eq!(again, until);
    let refused = purge(&acme, "acme", &bob, false).await.unwrap_err();
    assert!(refused.message().contains("is kept until"), "{}", refused.message());

    // Nor does it end by being said again without a word of the data.
    let again = suspend(&acme, "acme", &bob, pb::Retention::Unspecified).await.purge_time.unwrap();
    assert_eq!(again, until);

    // Restored within it, and nothing is left of the end.
    let request = pb::ReactivateMembershipRequest {
        tenant: "acme".into(),
        user_id: bob.clone(),
        ..Default::default()
    };
    let back = acme.memberships().reactivate_membership(request).await.unwrap().into_inner();
    assert_eq!(back.membership.unwrap().purge_time, None);
    assert!(verdict(&world, "acme", &bob).await.0);

    // By itself, and only where the tenant wants it so.
    suspend(&acme, "acme", &bob, pb::Retention::Purgeable).await;
    world.advance(3 * DAY);
    assert_eq!(erasure::purge_due(&world.server.app).await.unwrap(), 0);
    let acme = admin(&world, "acme").await;
    retain(&acme, "acme", 2, true).await;
    assert_eq!(erasure::purge_due(&world.server.app).await.unwrap(), 1);
    assert_eq!(purge(&acme, "acme", &bob, false).await.unwrap_err().code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_suspends_cannot_erase_sooner_than_the_tenant_wants() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let create = pb::CreateRoleRequest {
        tenant: "acme".into(),
        key: "warden".into(),
        display_names: [("en".to_owned(), "Warden".to_owned())].into(),
        permissions: vec!["iam.members.suspend".into()],
        may_grant: vec!["member".into()],
        ..Default::default()
    };
    acme.roles().create_role(create).await.unwrap();
    world.member(&acme, "acme", "will@acme.example", &[("warden", "")]).await;
    let will = world.sign_in("acme", "will@acme.example").await;
    let bob = world.member(&acme, "acme", "bob@acme.example", &[]).await;
    let until = |days: i64| {
        let at = world.server.app.clock.now() + chrono::TimeDelta::days(days);
        pb::SuspendMembershipRequest {
            tenant: "acme".into(),
            user_id: bob.clone(),
            retention: pb::Retention::Purgeable.into(),
            purge_time: Some(prost_types::Timestamp { seconds: at.timestamp(), nanos: 0 }),
            ..Default::default()
        }
    };
    let refused = will.memberships().suspend_membership(until(29)).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_MISSING", "{refused}");
    assert!(refused.message().contains("iam.members.purge"), "{refused}");
    let allowed = until(31);
    will.memberships().suspend_membership(allowed.clone()).await.unwrap();
    world.advance(2 * DAY);
    let (acme, will) =
        (admin(&world, "acme").await, world.sign_in("acme", "will@acme.example").await);
    will.memberships().suspend_membership(allowed).await.expect("said again, it erases no sooner");
    let refused = will.memberships().suspend_membership(until(1)).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_MISSING", "{refused}");
    acme.memberships().suspend_membership(until(1)).await.unwrap();
    will.memberships().suspend_membership(until(9)).await.expect("it keeps for longer");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_comes_back_with_nothing_and_old_sessions_stay_ended() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    world.tenant("beta").await;
    let bob = world.member(&acme, "acme", "bob@acme.example", &[("administrator", "")]).await;
    let beta = admin(&world, "beta").await;
    beta.invitations().create_invitation(invite("beta", "bob@acme.example", &[])).await.unwrap();
    let token = world.token_to("bob@acme.example").await;
    let old = world.sign_in("acme", "bob@acme.example").await;
    let join = pb::AcceptInvitationRequest { token, account: None };
    old.invitations().accept_invitation(join).await.unwrap();

    retain(&acme, "acme", 1, false).await;
    remove(&acme, "acme", &bob).await;
    assert_eq!(verdict(&world, "acme", &bob).await.1, pb::Reason::NotAMember);
    world.advance(2 * DAY);
    let acme = admin(&world, "acme").await;
    assert!(!purge(&acme, "acme", &bob, false).await.unwrap().account, "beta knows them");
    acme.invitations().create_invitation(invite("acme", "bob@acme.example", &[])).await.unwrap();
    let token = world.token_to("bob@acme.example").await;
    let password = pb::ExistingAccount { password: PASSWORD.into() };
    let account = Some(pb::accept_invitation_request::Account::ExistingAccount(password));
    let join = pb::AcceptInvitationRequest { token, account };
    world.anonymous().await.invitations().accept_invitation(join).await.unwrap();
    assert_eq!(verdict(&world, "acme", &bob).await, (false, pb::Reason::NoRole));
    let mine = pb::GetMembershipRequest { tenant: "acme".into(), ..Default::default() };
    let refused = old.memberships().get_membership(mine).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_ENDED");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_ends_every_session_there_at_once_and_none_elsewhere() {
    let mut world = World::start().await;
    let email = "bob@acme.example";
    let mut bob = String::new();
    for tenant in ["acme", "beta", "gamma"] {
        let (by, _) = world.tenant(tenant).await;
        let roles = [("administrator", "")];
        if bob.is_empty() {
            bob = world.member(&by, tenant, email, &roles).await;
        } else {
            by.invitations().create_invitation(invite(tenant, email, &roles)).await.unwrap();
            let token = world.token_to(email).await;
            let session = world.sign_in("acme", email).await;
            let join = pb::AcceptInvitationRequest { token, account: None };
            session.invitations().accept_invitation(join).await.unwrap();
        }
    }
    let mut sessions = Vec::new();
    for n in 0..20 {
        let tenant = ["acme", "beta", "gamma"][n % 3];
        sessions.push((tenant, world.sign_in(tenant, email).await));
    }
    let beta = admin(&world, "beta").await;
    suspend(&beta, "beta", &bob, pb::Retention::Keep).await;
    for tenant in ["acme", "beta", "gamma"] {
        assert_eq!(verdict(&world, tenant, &bob).await.0, tenant != "beta", "{tenant}");
    }
    for (tenant, session) in &sessions {
        let mine = pb::GetMembershipRequest { tenant: (*tenant).into(), ..Default::default() };
        let used = session.memberships().get_membership(mine).await;
        assert_eq!(used.is_ok(), *tenant != "beta", "{tenant}: {used:?}");
        let token = session.bearer().strip_prefix("Bearer ").unwrap();
        assert_eq!(verdict(&world, tenant, token).await.0, *tenant != "beta", "{tenant}");
    }
    world.stop().await;
}

/// Everything that stands in the database, in lowercase.
fn dump(world: &World) -> String {
    let newest = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
        versions.filter_map(|v| Some(v.ok()?.path().join("bin/pg_dump"))).max()
    });
    let program = newest.unwrap_or_else(|| "pg_dump".into());
    let dumped = Command::new(program)
        .arg("--inserts")
        .arg(world.database.expose_secret())
        .output()
        .expect("pg_dump comes with PostgreSQL");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    String::from_utf8(dumped.stdout).unwrap().to_lowercase()
}

/// The lines of the dump with something of the person, also where it stands in bytes.
fn traces(dump: &str) -> Vec<&str> {
    let canaries = ["kanarie", "+31999888777", "198.51.100.77"];
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let mut wanted: Vec<String> = canaries.iter().map(|c| (*c).to_owned()).collect();
    wanted.extend(["kanarie", "Kanarie", "KANARIE", "+31999888777"].map(hex));
    dump.lines().filter(|line| wanted.iter().any(|w| line.contains(w.as_str()))).collect()
}

async fn verify(by: &Api, tenant: &str) {
    let request = pb::VerifyAuditLogRequest { tenant: tenant.into() };
    let verified = by.audit().verify_audit_log(request).await.unwrap().into_inner();
    assert!(verified.ok, "{verified:?}");
}

fn kanaries_profile() -> pb::Profile {
    pb::Profile {
        first_name: "Kanarie".into(),
        last_name: "KANARIE-Vogel".into(),
        department: "Kanarie dept".into(),
        job_title: "Kanarie singer".into(),
        phone: "+31999888777".into(),
        location: "Kanarie islands".into(),
    }
}

/// A member with something in every field, and a history.
async fn kanarie(world: &mut World, by: &Api, tenant: &str, joined: bool) -> String {
    let email = "kanarie@birds.example";
    let profile = kanaries_profile();
    // A first invitation that nobody used.
    let lost = pb::CreateInvitationRequest {
        profile: Some(profile.clone()),
        message: "Dear Kanarie".into(),
        reason: "Kanarie was recommended".into(),
        request_id: request_id(),
        ..invite(tenant, email, &[])
    };
    let lost = by.invitations().create_invitation(lost).await.unwrap().into_inner();
    world.mail_to(email).await;
    let cancel = pb::CancelInvitationRequest {
        tenant: tenant.into(),
        invitation_id: lost.invitation.unwrap().id,
        reason: "Kanarie has another address".into(),
        ..Default::default()
    };
    by.invitations().cancel_invitation(cancel).await.unwrap();
    let again = pb::CreateInvitationRequest {
        profile: Some(profile),
        message: "Dear Kanarie".into(),
        roles: vec![role_on("member", "")],
        ..invite(tenant, email, &[])
    };
    by.invitations().create_invitation(again).await.unwrap();
    let user = if joined { join(world, email).await } else { world.accept(email).await };
    live(world, by, tenant, email, &user).await;
    user
}

/// Accepts an invitation with the account that is there.
async fn join(world: &mut World, email: &str) -> String {
    let token = world.token_to(email).await;
    let password = pb::ExistingAccount { password: PASSWORD.into() };
    let account = Some(pb::accept_invitation_request::Account::ExistingAccount(password));
    let join = pb::AcceptInvitationRequest { token, account };
    let joined = world.anonymous().await.invitations().accept_invitation(join).await;
    joined.unwrap().into_inner().user_id
}

/// Leaves traces wherever a member can.
async fn live(world: &mut World, by: &Api, tenant: &str, email: &str, user: &str) {
    let edit = pb::UpdateMembershipRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        external_id: "kanarie-1".into(),
        metadata: [("note".to_owned(), "kanarie sings".to_owned())].into(),
        request_id: request_id(),
        reason: "Kanarie wished it".into(),
        ..Default::default()
    };
    by.memberships().update_membership(edit).await.unwrap();
    let session = pb::CreateSessionRequest {
        tenant: tenant.into(),
        user_id: user.into(),
        source_address: "198.51.100.77".into(),
        user_agent: "KanarieBrowser/1.0".into(),
        ..Default::default()
    };
    by.sessions().create_session(session).await.unwrap();
    let own = world.sign_in(tenant, email).await;
    let rename = pb::UpdateUserRequest {
        first_name: format!("Kanarie of {tenant}"),
        request_id: request_id(),
        reason: "Kanarie is my name".into(),
        ..Default::default()
    };
    own.users().update_user(rename).await.unwrap();
    let named = pb::UpdateUserRequest {
        user_id: user.into(),
        external_id: "kanarie-of-the-product".into(),
        metadata: [("kanarie".to_owned(), tenant.to_owned())].into(),
        request_id: request_id(),
        reason: "Kanarie is a customer".into(),
        ..Default::default()
    };
    world.operator.users().update_user(named).await.unwrap();
    let failing = pb::SignInRequest {
        tenant: tenant.into(),
        email: email.into(),
        password: "Kanarie".into(),
    };
    world.anonymous().await.sessions().sign_in(failing).await.unwrap_err();
    let forgotten = pb::RequestPasswordResetRequest { email: email.into() };
    world.anonymous().await.users().request_password_reset(forgotten).await.unwrap();
    world.mail_to(email).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_leaves_no_byte_of_the_person_and_the_audit_log_whole() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let user = kanarie(&mut world, &acme, "acme", false).await;
    assert_eq!(kanarie(&mut world, &beta, "beta", true).await, user);
    rolecall::security::flush(&world.server.app).await.unwrap();
    assert!(traces(&dump(&world)).len() > 20, "the canary stands everywhere");

    suspend(&acme, "acme", &user, pb::Retention::Purgeable).await;
    world.advance(31 * DAY);
    let acme = admin(&world, "acme").await;
    verify(&acme, "acme").await;
    let file = "email,first_name,last_name,role\nKanarie@birds.example,Kanarie,Vogel,member\n";
    let name = "for Kanarie@birds.example.csv";
    preview_named(&acme, "acme", name, file.as_bytes()).await.unwrap();
    let preview = purge(&acme, "acme", &user, true).await.unwrap();
    assert!(preview.invitations == 2 && preview.mails == 2 && preview.sessions == 2, "{preview:?}");
    assert_eq!(preview.imports, 1);
    let before = dump(&world);
    let erased = purge(&acme, "acme", &user, false).await.unwrap();
    assert_eq!(erased, preview);
    assert!(!erased.account);
    // With a second tenant everything of the first goes, and nothing of the second.
    let tenant_of = |dump: &str, key: &str| -> String {
        let row = dump.lines().find(|l| l.contains("into public.tenants ") && l.contains(key));
        row.unwrap().split('\'').nth(1).unwrap().to_owned()
    };
    let (first, second) = (tenant_of(&before, "'acme'"), tenant_of(&before, "'beta'"));
    let after = dump(&world);
    let of = |dump: &str, tenant: &str| -> usize {
        traces(dump).iter().filter(|line| line.contains(tenant)).count()
    };
    assert_eq!(of(&after, &first), 0, "{:#?}", traces(&after));
    assert!(of(&before, &second) > 5);
    assert_eq!(of(&after, &second), of(&before, &second));
    assert!(world.session("beta", "kanarie@birds.example").await.starts_with("rcs_"));

    // With the last one the account goes, and then nothing is left at all.
    let beta = admin(&world, "beta").await;
    remove(&beta, "beta", &user).await;
    world.advance(31 * DAY);
    let beta = admin(&world, "beta").await;
    verify(&beta, "beta").await;
    assert!(purge(&beta, "beta", &user, false).await.unwrap().account);
    assert_eq!(traces(&dump(&world)), Vec::<&str>::new());
    let acme = admin(&world, "acme").await;
    verify(&acme, "acme").await;
    verify(&beta, "beta").await;
    verify(&world.operator, "system").await;
    world.stop().await;
}

/// Two people, the second of whom is in `beta` too, and traces of the first wherever a tenant keeps some.
async fn furnish(world: &mut World, acme: &Api, beta: &Api) -> (String, String) {
    let user = kanarie(world, acme, "acme", false).await;
    let workspace = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: "nest".into(),
        display_name: "The nest".into(),
        ..Default::default()
    };
    acme.workspaces().create_workspace(workspace).await.unwrap();
    let rename = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        display_name: "Acme & Sons".into(),
        ..Default::default()
    };
    acme.tenants().update_tenant(rename).await.unwrap();
    let open = invite("acme", "kanarie.too@birds.example", &[("member", "")]);
    acme.invitations().create_invitation(open).await.unwrap();
    let both = world.member(acme, "acme", "both@beta.example", &[("member", "")]).await;
    beta.invitations()
        .create_invitation(invite("beta", "both@beta.example", &[("member", "")]))
        .await
        .unwrap();
    assert_eq!(join(world, "both@beta.example").await, both);
    rolecall::security::flush(&world.server.app).await.unwrap();
    (user, both)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_tenant_leaves_its_key_and_its_audit_log_and_nobody_who_was_only_there() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    let (user, both) = furnish(&mut world, &acme, &beta).await;

    let operator = world.operator.clone();
    let purge = |validate_only: bool| pb::PurgeTenantRequest {
        tenant: "acme".into(),
        validate_only,
        ..Default::default()
    };
    let early = operator.tenants().purge_tenant(purge(false)).await.unwrap_err();
    assert_eq!(reason(&early), "NOT_PURGEABLE");
    let delete = pb::DeleteTenantRequest { tenant: "acme".into(), ..Default::default() };
    operator.tenants().delete_tenant(delete).await.unwrap();
    let early = operator.tenants().purge_tenant(purge(false)).await.unwrap_err();
    assert_eq!(reason(&early), "NOT_PURGEABLE");
    world.advance(31 * DAY);
    // Nobody switched it on.
    let app = &world.server.app;
    assert_eq!(erasure::purge_due(app).await.unwrap(), 0);
    let preview = operator.tenants().purge_tenant(purge(true)).await.unwrap().into_inner();
    assert_eq!(preview.member_count, 3);
    assert!(traces(&dump(&world)).len() > 20, "the canary stands everywhere");
    let purged = operator.tenants().purge_tenant(purge(false)).await.unwrap().into_inner();
    assert_eq!(
        (purged.member_count, purged.tenant.unwrap().status()),
        (3, pb::TenantStatus::Purged)
    );

    // From here on it is final, whatever is done first.
    let restore = pb::RestoreTenantRequest { tenant: "acme".into(), ..Default::default() };
    let refused = operator.tenants().restore_tenant(restore).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_PURGED");
    let late = invite("acme", "late@acme.example", &[("member", "")]);
    let refused = operator.invitations().create_invitation(late).await.unwrap_err();
    assert_eq!(reason(&refused), "TENANT_PURGED");
    assert_eq!(verdict(&world, "acme", &user).await, (false, pb::Reason::TenantDeleted));
    while erasure::purge_due(app).await.unwrap() > 0 {}
    assert_eq!(traces(&dump(&world)), Vec::<&str>::new());
    let again = operator.tenants().purge_tenant(purge(false)).await.unwrap().into_inner();
    assert_eq!((again.member_count, again.tenant.unwrap().display_name), (0, "acme".into()));

    // Whoever is elsewhere, too, is still there; the log is whole; the key is taken.
    assert_eq!(verdict(&world, "beta", &both).await, (false, pb::Reason::NoRole));
    assert!(world.session("beta", "both@beta.example").await.starts_with("rcs_"));
    verify(&operator, "acme").await;
    verify(&operator, "beta").await;
    let create = pb::CreateTenantRequest {
        key: "acme".into(),
        display_name: "Acme".into(),
        administrator: Some(pb::TenantAdministrator {
            email: "new@acme.example".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let taken = operator.tenants().create_tenant(create).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_is_purged_by_itself_where_it_wanted_that() {
    let mut world = World::start().await;
    let (acme, user) = world.tenant("acme").await;
    let want = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        purge_automatically: true,
        ..Default::default()
    };
    acme.tenants().update_tenant(want).await.unwrap();
    let delete = pb::DeleteTenantRequest { tenant: "acme".into(), ..Default::default() };
    world.operator.tenants().delete_tenant(delete).await.unwrap();
    let app = &world.server.app;
    assert_eq!(erasure::purge_due(app).await.unwrap(), 0);
    world.advance(31 * DAY);
    while erasure::purge_due(app).await.unwrap() > 0 {}
    let get = pb::GetTenantRequest { tenant: "acme".into() };
    let tenant = world.operator.tenants().get_tenant(get).await.unwrap().into_inner().tenant;
    assert_eq!(tenant.unwrap().status(), pb::TenantStatus::Purged);
    let gone = pb::GetUserRequest { user_id: user };
    let gone = world.operator.users().get_user(gone).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_deleted_by_its_owner_from_every_tenant_or_from_none() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, ada) = world.tenant("beta").await;
    let user = kanarie(&mut world, &acme, "acme", false).await;
    kanarie(&mut world, &beta, "beta", true).await;
    let email = "kanarie@birds.example";
    let give = |add: Vec<pb::AssignRole>| pb::UpdateMemberRolesRequest {
        tenant: "beta".into(),
        subject: user.clone(),
        add,
        ..Default::default()
    };
    beta.memberships().update_member_roles(give(vec![role_on("administrator", "")])).await.unwrap();
    let own = world.sign_in("beta", email).await;
    remove(&own, "beta", &ada).await;

    let end = |email: &str, password: &str| pb::DeleteUserRequest {
        email: email.into(),
        password: password.into(),
        reason: "Kanarie flies away".into(),
        ..Default::default()
    };
    let wrong = own.users().delete_user(end("other@birds.example", PASSWORD)).await.unwrap_err();
    assert_eq!(field(&wrong), "email");
    let wrong = own.users().delete_user(end(email, "wrong")).await.unwrap_err();
    assert_eq!(reason(&wrong), "PASSWORD_WRONG");
    let last = own.users().delete_user(end(email, PASSWORD)).await.unwrap_err();
    assert_eq!(reason(&last), "LAST_ADMINISTRATOR");
    assert!(last.message().contains("`beta`"), "{}", last.message());
    assert!(verdict(&world, "beta", &user).await.0);
    world.session("acme", email).await;

    own.invitations()
        .create_invitation(invite("beta", "eve@beta.example", &[("administrator", "")]))
        .await
        .unwrap();
    world.accept("eve@beta.example").await;
    let gone = own.users().delete_user(end(email, PASSWORD)).await.unwrap().into_inner();
    assert_eq!(gone.tenants, ["acme", "beta"]);
    assert_eq!(traces(&dump(&world)), Vec::<&str>::new());
    let refused = own.users().delete_user(end(email, PASSWORD)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    verify(&acme, "acme").await;
    // An operator may, and finds nobody any more.
    let by_operator =
        pb::DeleteUserRequest { user_id: user.clone(), email: email.into(), ..Default::default() };
    let refused = world.operator.users().delete_user(by_operator).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_workspace_is_deleted_it_is_told_who_loses_what() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let workspace = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: "paris".into(),
        display_name: "Paris".into(),
        ..Default::default()
    };
    acme.workspaces().create_workspace(workspace).await.unwrap();
    let roles = [("member", "workspaces/paris/files/7"), ("member", "")];
    let bob = world.member(&acme, "acme", "bob@acme.example", &roles).await;
    let delete = |validate_only: bool| pb::DeleteWorkspaceRequest {
        tenant: "acme".into(),
        workspace: "paris".into(),
        validate_only,
        ..Default::default()
    };
    let told = acme.workspaces().delete_workspace(delete(true)).await.unwrap().into_inner();
    let loss = pb::WorkspaceLoss {
        holder: bob,
        role: "member".into(),
        scope: "workspaces/paris/files/7".into(),
        end_time: None,
    };
    assert_eq!((told.ended_assignment_count, told.losses.clone()), (1, vec![loss]));
    let done = acme.workspaces().delete_workspace(delete(false)).await.unwrap().into_inner();
    assert_eq!(done.losses, told.losses);
    let again = acme.workspaces().delete_workspace(delete(true)).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    world.stop().await;
}
