//! The pages behind the links of recovery.

use rolecall::proto as pb;

use crate::{
    pages::{open, send},
    world::{PASSWORD, World, link_of},
};

const NEW: &str = "an entirely different phrase";

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_replaced_on_the_page_of_the_link() {
    let mut world = World::start().await;
    world.tenant("acme").await;
    let email = "admin@acme.example";
    let request = pb::RequestPasswordResetRequest { email: email.into() };
    world.anonymous().await.users().request_password_reset(request).await.unwrap();
    let mail = world.mail_to(email).await;
    let token = link_of(&mail, "rcp_");
    let page = format!("/password-resets/{token}");
    assert!(mail.replace("=\r\n", "").contains(&page), "{mail}");
    for _ in 0..2 {
        open(&world, &page).await.says(200, &["Choose a new password", email, "new-password"]);
    }
    send(&world, &page, &[("password", "short")]).await.says(422, &["at least 8 characters"]);
    send(&world, &page, &[("password", "password1")]).await.says(422, &["guessed first"]);
    let done = send(&world, &page, &[("password", NEW)]).await;
    assert_eq!((done.status, done.header("location")), (303, "/password-resets/done/en"));
    open(&world, "/password-resets/done/en").await.says(200, &["Your password is new"]);
    let sign_in = |password: &str| pb::SignInRequest {
        tenant: "acme".into(),
        email: email.into(),
        password: password.into(),
    };
    let sessions = world.anonymous().await;
    sessions.sessions().sign_in(sign_in(NEW)).await.unwrap();
    sessions.sessions().sign_in(sign_in(PASSWORD)).await.unwrap_err();
    open(&world, &page).await.says(404, &["does not work any more"]);
    send(&world, &page, &[("password", NEW)]).await.says(404, &["does not work any more"]);
    open(&world, "/password-resets/rcp_x").await.says(404, &["does not work any more"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_address_counts_when_its_page_says_so() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let request = pb::RequestEmailChangeRequest {
        new_email: "new@acme.example".into(),
        password: PASSWORD.into(),
        ..Default::default()
    };
    admin.users().request_email_change(request).await.unwrap();
    let token = link_of(&world.mail_to("new@acme.example").await, "rce_");
    let page = format!("/email-changes/{token}");
    for _ in 0..2 {
        open(&world, &page).await.says(200, &["admin@acme.example", "new@acme.example"]);
    }
    let done = send(&world, &page, &[]).await;
    assert_eq!((done.status, done.header("location")), (303, "/email-changes/done/en"));
    open(&world, "/email-changes/done/en").await.says(200, &["Your address is confirmed"]);
    world.mail_to("admin@acme.example").await;
    world.sign_in("acme", "new@acme.example").await;
    open(&world, &page).await.says(404, &["does not work any more"]);
    world.stop().await;
}
