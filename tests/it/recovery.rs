//! Forgotten passwords and other addresses: links in mails that prove who opens them.

use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use rolecall::proto as pb;
use tonic::{Code, Status};

use crate::world::{Api, PASSWORD, World, field, invite, link_of, reason};

const NEW: &str = "an entirely different phrase";
const MINUTE: Duration = Duration::from_secs(60);

async fn forget(world: &World, email: &str) -> Result<(), Status> {
    let request = pb::RequestPasswordResetRequest { email: email.into() };
    world.anonymous().await.users().request_password_reset(request).await.map(drop)
}

async fn reset(world: &World, token: &str, password: &str) -> Result<(), Status> {
    let request = pb::ResetPasswordRequest { token: token.into(), new_password: password.into() };
    world.anonymous().await.users().reset_password(request).await.map(drop)
}

async fn sign_in(world: &World, email: &str, password: &str) -> Result<String, Status> {
    let request =
        pb::SignInRequest { tenant: "acme".into(), email: email.into(), password: password.into() };
    Ok(world.anonymous().await.sessions().sign_in(request).await?.into_inner().token)
}

async fn works(session: &Api) -> Result<(), Status> {
    let mine = pb::GetMembershipRequest { tenant: "acme".into(), ..Default::default() };
    session.memberships().get_membership(mine).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_replaced_once_and_every_session_ends() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let email = "admin@acme.example";
    forget(&world, "nobody@acme.example").await.unwrap();
    assert_eq!(field(&forget(&world, "nonsense").await.unwrap_err()), "email");
    forget(&world, "ADMIN@acme.example").await.unwrap();
    let first = link_of(&world.mail_to(email).await, "rcp_");
    forget(&world, email).await.unwrap();
    let second = link_of(&world.mail_to(email).await, "rcp_");

    // The newer link kills the older one, and no other text is one.
    for dead in [first.as_str(), "", "rcp_", &second[..second.len() - 1]] {
        assert_eq!(reset(&world, dead, NEW).await.unwrap_err().code(), Code::NotFound, "{dead}");
    }
    let weak = reset(&world, &second, "short").await.unwrap_err();
    assert_eq!(field(&weak), "new_password");
    works(&admin).await.unwrap();
    reset(&world, &second, NEW).await.unwrap();
    assert_eq!(reason(&works(&admin).await.unwrap_err()), "SESSION_ENDED");
    assert_eq!(reset(&world, &second, PASSWORD).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(reason(&sign_in(&world, email, PASSWORD).await.unwrap_err()), "SIGN_IN_FAILED");
    sign_in(&world, email, NEW).await.unwrap();

    world.advance(20 * MINUTE);
    forget(&world, email).await.unwrap();
    let late = link_of(&world.mail_to(email).await, "rcp_");
    world.advance(10 * MINUTE);
    assert_eq!(reset(&world, &late, PASSWORD).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.mails_to("nobody@acme.example"), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_mailbox_is_not_held_up_by_what_others_guessed() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    let email = "admin@acme.example";
    forget(&world, email).await.unwrap();
    let link = link_of(&world.mail_to(email).await, "rcp_");
    let refused = reset(&world, &link, "Admin@acme.example").await.unwrap_err();
    assert_eq!(field(&refused), "new_password", "one's own address is guessed first");
    while reason(&sign_in(&world, email, "wrong").await.unwrap_err()) == "SIGN_IN_FAILED" {}
    assert_eq!(reason(&sign_in(&world, email, PASSWORD).await.unwrap_err()), "TOO_MANY_ATTEMPTS");
    reset(&world, &link, NEW).await.unwrap();
    sign_in(&world, email, NEW).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_for_passwords_are_limited_whether_or_not_there_is_an_account() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    for email in ["admin@acme.example", "nobody@acme.example"] {
        for _ in 0..3 {
            forget(&world, email).await.unwrap();
        }
        let refused = forget(&world, email).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS")
        );
    }
    for _ in 0..3 {
        world.mail_to("admin@acme.example").await;
    }
    world.advance(6 * MINUTE);
    forget(&world, "admin@acme.example").await.unwrap();
    world.mail_to("admin@acme.example").await;
    world.stop().await;
}

async fn ask_for(by: &Api, email: &str, password: &str) -> Result<(), Status> {
    let request = pb::RequestEmailChangeRequest {
        new_email: email.into(),
        password: password.into(),
        ..Default::default()
    };
    by.users().request_email_change(request).await.map(drop)
}

async fn confirm(world: &World, token: &str) -> Result<pb::User, Status> {
    let request = pb::ConfirmEmailChangeRequest { token: token.into() };
    let answer = world.anonymous().await.users().confirm_email_change(request).await?;
    Ok(answer.into_inner().user.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_counts_once_it_is_proved_and_accounts_are_never_merged() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    world.member(&admin, "acme", "bob@acme.example", &[]).await;
    let bob = world.sign_in("acme", "bob@acme.example").await;
    let wrong = ask_for(&bob, "robert@acme.example", "wrong").await.unwrap_err();
    assert_eq!(reason(&wrong), "PASSWORD_WRONG");
    let same = ask_for(&bob, "BOB@acme.example", PASSWORD).await.unwrap_err();
    assert_eq!(field(&same), "new_email");

    ask_for(&bob, "robert@acme.example", PASSWORD).await.unwrap();
    let token = link_of(&world.mail_to("robert@acme.example").await, "rce_");
    let early = sign_in(&world, "robert@acme.example", PASSWORD).await.unwrap_err();
    assert_eq!(reason(&early), "SIGN_IN_FAILED");
    assert_eq!(confirm(&world, &token).await.unwrap().email, "robert@acme.example");
    world.mail_to("bob@acme.example").await;
    // The tenant is told, and by whom.
    let events = pb::ListAuditEventsRequest {
        tenant: "acme".into(),
        verb: "member.email_changed".into(),
        ..Default::default()
    };
    let events = admin.audit().list_audit_events(events).await.unwrap().into_inner().events;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert!(event.actor == event.target && event.source.is_empty(), "{event:?}");
    assert!(event.personal["email"].contains("robert@acme.example"), "{event:?}");
    works(&bob).await.unwrap();
    assert_eq!(confirm(&world, &token).await.unwrap_err().code(), Code::NotFound);
    let search = pb::ListMembershipsRequest {
        tenant: "acme".into(),
        query: "ROBERT@".into(),
        ..Default::default()
    };
    let found = admin.memberships().list_memberships(search).await.unwrap().into_inner();
    assert_eq!(found.total_count, 1);
    sign_in(&world, "robert@acme.example", PASSWORD).await.unwrap();
    assert!(sign_in(&world, "bob@acme.example", PASSWORD).await.is_err());

    // The asking tells nothing; the proof is refused where there is an account.
    ask_for(&bob, "admin@acme.example", PASSWORD).await.unwrap();
    let token = link_of(&world.mail_to("admin@acme.example").await, "rce_");
    let taken = confirm(&world, &token).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (Code::FailedPrecondition, "EMAIL_TAKEN"));
    assert!(taken.message().contains("not merged"), "{}", taken.message());

    // Nor does it lead out of the domains that a tenant allows.
    let domains = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        allowed_email_domains: vec!["acme.example".into()],
        ..Default::default()
    };
    admin.tenants().update_tenant(domains).await.unwrap();
    let outside = ask_for(&bob, "bob@far.example", PASSWORD).await.unwrap_err();
    assert_eq!(reason(&outside), "EMAIL_DOMAIN_NOT_ALLOWED");
    // The old address is free again.
    admin.invitations().create_invitation(invite("acme", "bob@acme.example", &[])).await.unwrap();
    world.mail_to("bob@acme.example").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_hashed_otherwise_is_hashed_anew_when_it_is_used() {
    let mut world = World::start().await;
    let (_, user) = world.tenant("acme").await;
    let pool = &world.server.app.pool;
    let id = uuid::Uuid::parse_str(user.strip_prefix("usr_").unwrap()).unwrap();
    let hash = || async {
        let hash = sqlx::query_scalar::<_, String>("select password_hash from users where id = $1");
        hash.bind(id).fetch_one(pool).await.unwrap()
    };
    let today = hash().await;
    let params = Params::new(8_192, 1, 1, None).unwrap();
    let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let weaker = weaker.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
    let set = "update users set password_hash = $2 where id = $1";
    sqlx::query(set).bind(id).bind(&weaker).execute(pool).await.unwrap();
    assert!(sign_in(&world, "admin@acme.example", "wrong").await.is_err());
    assert_eq!(hash().await, weaker, "who does not know it changes nothing");
    let token = sign_in(&world, "admin@acme.example", PASSWORD).await.unwrap();
    for _ in 0..200 {
        if hash().await != weaker {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let cost = |hash: &str| hash.split('$').nth(3).unwrap().to_owned();
    assert_eq!(cost(&hash().await), cost(&today));
    works(&world.with(&token).await).await.unwrap();
    sign_in(&world, "admin@acme.example", PASSWORD).await.unwrap();
    world.stop().await;
}
