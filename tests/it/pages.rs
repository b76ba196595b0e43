//! The pages behind the links of invitations, as a browser without scripts sees them.

use std::time::Duration;

use rolecall::proto as pb;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::world::{Api, PASSWORD, World, accept, invite, reason, token_of};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Page {
    pub status: u16,
    head: String,
    body: String,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| {
            line.split_once(':').is_some_and(|(given, _)| given.eq_ignore_ascii_case(name))
        });
        line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    }

    #[track_caller]
    pub fn says(&self, status: u16, words: &[&str]) {
        assert_eq!(self.status, status, "{}", self.body);
        for word in words {
            assert!(self.body.contains(word), "no {word:?} in {}", self.body);
        }
    }
}

async fn exchange(world: &World, head: &str, body: &str) -> Page {
    let mut stream = TcpStream::connect(world.server.grpc).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head}host: {}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}",
        world.server.grpc
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, head: head.to_owned(), body: body.to_owned() }
}

pub async fn open(world: &World, path: &str) -> Page {
    exchange(world, &format!("GET {path} HTTP/1.1\r\n"), "").await
}

/// Sends a form as a browser sends that of a page of ours.
pub async fn send(world: &World, path: &str, form: &[(&str, &str)]) -> Page {
    post(world, path, form, "sec-fetch-site: same-origin\r\norigin: null\r\n").await
}

async fn post(world: &World, path: &str, form: &[(&str, &str)], headers: &str) -> Page {
    let encode =
        |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    let fields: Vec<String> = form.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
    let kind = "content-type: application/x-www-form-urlencoded\r\n";
    let head = format!("POST {path} HTTP/1.1\r\n{kind}{headers}");
    exchange(world, &head, &fields.join("&")).await
}

const NEW: [(&str, &str); 4] =
    [("account", "new"), ("first_name", "Maria"), ("last_name", "Smith"), ("password", PASSWORD)];
const EXISTING: [(&str, &str); 2] = [("account", "existing"), ("password", PASSWORD)];

async fn invited(world: &mut World, by: &Api, request: pb::CreateInvitationRequest) -> String {
    let email = request.email.clone();
    by.invitations().create_invitation(request).await.unwrap();
    format!("/invitations/{}", world.token_to(&email).await)
}

async fn settings(by: &Api, settings: pb::UpdateMailSettingsRequest) {
    by.mail().update_mail_settings(settings).await.unwrap();
}

fn home(tenant: &str, home_url: &str) -> pb::UpdateMailSettingsRequest {
    let (tenant, home_url) = (tenant.into(), home_url.into());
    pb::UpdateMailSettingsRequest { tenant, home_url, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_person_joins_by_the_page_and_signs_in_where_it_leads() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    settings(&admin, home("acme", "https://app.acme.example/start?x=1")).await;
    let workspace = pb::CreateWorkspaceRequest {
        tenant: "acme".into(),
        key: "paris".into(),
        display_name: "Paris & Co".into(),
        ..Default::default()
    };
    admin.workspaces().create_workspace(workspace).await.unwrap();
    let roles = [("member", ""), ("administrator", "workspaces/paris/folders/42")];
    let mut request = invite("acme", "maria@company.example", &roles);
    request.message = "See you <b>Monday</b>".into();
    let page = invited(&mut world, &admin, request).await;

    for _ in 0..2 {
        let shown = open(&world, &page).await;
        shown.says(200, &["<html lang=\"en\">", "<strong>New Person</strong> invites you", "ACME"]);
        let roles = ["Member", "Administrator", "in Paris &amp; Co, folders&#x2f;42"];
        shown.says(200, &roles);
        shown.says(200, &["See you &lt;b&gt;Monday", "maria@company.example", "new-password"]);
        assert!(!shown.body.contains("<script") && !shown.body.contains("<b>"), "{}", shown.body);
    }
    let joined = send(&world, &format!("{page}/accept"), &NEW).await;
    assert_eq!(
        (joined.status, joined.header("location")),
        (303, format!("{page}/welcome").as_str())
    );
    let welcome = open(&world, joined.header("location")).await;
    welcome.says(200, &["Welcome to ACME", "href=\"https://app.acme.example/start?x=1\""]);
    world.sign_in("acme", "maria@company.example").await;
    open(&world, &page).await.says(200, &["You have joined already", "app.acme.example"]);
    let again = send(&world, &format!("{page}/accept"), &NEW).await;
    assert_eq!((again.status, again.header("location")), (303, page.as_str()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_an_account_joins_with_its_password_in_french() {
    let mut world = World::start().await;
    let (acme, _) = world.tenant("acme").await;
    let (beta, _) = world.tenant("beta").await;
    world.member(&acme, "acme", "maria@company.example", &[]).await;
    let mut request = invite("beta", "maria@company.example", &[]);
    request.language = "fr".into();
    let page = invited(&mut world, &beta, request).await;
    let shown = open(&world, &page).await;
    shown.says(
        200,
        &["<html lang=\"fr\">", "vous invite à rejoindre", "current-password", "Membre"],
    );
    let form = [("account", "existing"), ("password", "not hers at all")];
    let wrong = send(&world, &format!("{page}/accept"), &form).await;
    wrong.says(422, &["role=\"alert\"", "pas le mot de passe", "aria-invalid"]);
    assert!(!wrong.body.contains("not hers at all"), "{}", wrong.body);
    // A page that was opened before the account was made.
    let late = send(&world, &format!("{page}/accept"), &NEW).await;
    late.says(422, &["existe déjà un compte", "current-password"]);
    let joined = send(&world, &format!("{page}/accept"), &EXISTING).await;
    let welcome = open(&world, joined.header("location")).await;
    welcome.says(200, &["Bienvenue chez BETA"]);
    world.sign_in("beta", "maria@company.example").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_wrong_is_said_and_what_is_right_is_kept() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let page = invited(&mut world, &admin, invite("acme", "maria@acme.example", &[])).await;
    let path = format!("{page}/accept");
    let typed = |password: &'static str, first: &'static str| {
        [("account", "new"), ("first_name", first), ("last_name", "O'<i>"), ("password", password)]
    };
    let short = send(&world, &path, &typed("short", "Maria")).await;
    short.says(422, &["at least 8 characters", "value=\"Maria\"", "O&#x27;&lt;i&gt;"]);
    let guessed = send(&world, &path, &typed("password1", "Maria")).await;
    guessed.says(422, &["guessed first"]);
    let hidden = send(&world, &path, &typed(PASSWORD, "Ma\u{202e}ria")).await;
    hidden.says(422, &["special characters"]);
    let unreadable = exchange(&world, &format!("POST {path} HTTP/1.1\r\n"), "{}").await;
    unreadable.says(400, &["could not be read"]);
    let long = "x".repeat(20_000);
    send(&world, &path, &[("password", &long)]).await.says(400, &["could not be read"]);
    let joined = send(&world, &path, &typed(PASSWORD, "Maria")).await;
    assert_eq!(joined.status, 303, "{}", joined.body);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_to_keep_nothing_load_nothing_and_tell_nobody() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let page = invited(&mut world, &admin, invite("acme", "maria@acme.example", &[])).await;
    let pages = [page.clone(), format!("{page}/decline"), "/invitations/rci_x".to_owned()];
    for path in pages {
        let shown = open(&world, &path).await;
        assert_eq!(shown.header("cache-control"), "no-store", "{path}");
        assert_eq!(shown.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(shown.header("x-content-type-options"), "nosniff", "{path}");
        let policy = shown.header("content-security-policy");
        for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(shown.header("set-cookie"), "", "{path}");
        for word in ["<script", "src=", " style=", "http://", "@import", "url("] {
            assert!(!shown.body.contains(word), "{path} has {word}");
        }
    }
    // A form that another page sends, or a browser that cannot say where it comes from but names it.
    for headers in
        ["sec-fetch-site: cross-site\r\norigin: null\r\n", "origin: https://e.example\r\n"]
    {
        for (what, form) in [("accept", &NEW[..]), ("decline", &[]), ("request", &[])] {
            let refused = post(&world, &format!("{page}/{what}"), form, headers).await;
            refused.says(403, &["sent from another page"]);
        }
    }
    open(&world, &page).await.says(200, &["new-password"]);
    assert_eq!(world.mails_to("admin@acme.example"), 1, "only her own invitation");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_a_dead_link_is_told_why_and_can_ask_for_a_new_one() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let created =
        admin.invitations().create_invitation(invite("acme", "m@acme.example", &[])).await;
    let id = created.unwrap().into_inner().invitation.unwrap().id;
    let page = format!("/invitations/{}", world.token_to("m@acme.example").await);

    let forged = open(&world, &format!("{}A", &page[..page.len() - 2])).await;
    forged.says(404, &["This link does not work", "latest mail"]);
    open(&world, "/invitations/%00%ff%2e%2e").await.says(404, &["This link does not work"]);

    world.advance(8 * DAY);
    open(&world, &page).await.says(200, &["has expired", &format!("action=\"{page}/request\"")]);
    let late = send(&world, &format!("{page}/accept"), &NEW).await;
    assert_eq!((late.status, late.header("location")), (303, page.as_str()));
    send(&world, &format!("{page}/request"), &[])
        .await
        .says(200, &["You have asked", "New Person"]);
    let mail = world.mail_to("admin@acme.example").await;
    assert!(mail.contains("m@acme.example") && mail.contains("has expired"), "{mail}");
    assert!(!mail.contains("rci_"), "{mail}");

    let admin = world.sign_in("acme", "admin@acme.example").await;
    let resend = pb::ResendInvitationRequest {
        tenant: "acme".into(),
        invitation_id: id.clone(),
        ..Default::default()
    };
    admin.invitations().resend_invitation(resend.clone()).await.unwrap();
    open(&world, &page).await.says(200, &["newer link"]);
    let page = format!("/invitations/{}", world.token_to("m@acme.example").await);
    let asked = open(&world, &format!("{page}/decline")).await;
    asked.says(200, &["Decline the invitation?"]);
    let declined = send(&world, &format!("{page}/decline"), &[]).await;
    open(&world, declined.header("location")).await.says(200, &["You declined"]);
    let get = pb::GetInvitationRequest { tenant: "acme".into(), invitation_id: id.clone() };
    let now = admin.invitations().get_invitation(get).await.unwrap().into_inner().invitation;
    assert_eq!(now.unwrap().status(), pb::InvitationStatus::Declined);
    let token = page.rsplit('/').next().unwrap();
    let refused = world.anonymous().await.invitations().accept_invitation(accept(token)).await;
    assert_eq!(reason(&refused.unwrap_err()), "INVITATION_DECLINED");

    // It was a mistake: the inviter sends it again, and it is good again.
    admin.invitations().resend_invitation(resend).await.unwrap();
    let page = format!("/invitations/{}", world.token_to("m@acme.example").await);
    open(&world, &page).await.says(200, &["new-password"]);
    let cancel = pb::CancelInvitationRequest {
        tenant: "acme".into(),
        invitation_id: id,
        ..Default::default()
    };
    admin.invitations().cancel_invitation(cancel).await.unwrap();
    open(&world, &page).await.says(200, &["was cancelled", "/request"]);
    for _ in 0..2 {
        send(&world, &format!("{page}/request"), &[]).await.says(200, &["You have asked"]);
        world.mail_to("admin@acme.example").await;
    }
    let often = send(&world, &format!("{page}/request"), &[]).await;
    often.says(429, &["You have asked before"]);
    assert!(often.header("retry-after").parse::<u32>().unwrap() > 60, "{}", often.head);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_the_administrators_when_the_inviter_has_left() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let roles = [("administrator", "")];
    let second = world.member(&admin, "acme", "second@acme.example", &roles).await;
    let by_second = world.sign_in("acme", "second@acme.example").await;
    let page = invited(&mut world, &by_second, invite("acme", "m@acme.example", &[])).await;
    let remove = pb::RemoveMembershipRequest {
        tenant: "acme".into(),
        user_id: second,
        ..Default::default()
    };
    admin.memberships().remove_membership(remove).await.unwrap();
    send(&world, &format!("{page}/request"), &[]).await.says(200, &["You have asked"]);
    let mail = world.mail_to("admin@acme.example").await;
    assert!(mail.contains("still open"), "{mail}");
    assert_eq!(world.mails_to("second@acme.example"), 1, "the invitation, no request");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_keeps_its_invitations_for_later() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let page = invited(&mut world, &admin, invite("acme", "m@acme.example", &[])).await;
    let tenant = || "acme".to_owned();
    let suspend = pb::SuspendTenantRequest { tenant: tenant(), ..Default::default() };
    world.operator.tenants().suspend_tenant(suspend).await.unwrap();
    open(&world, &page).await.says(200, &["closed for now", "stays as it is"]);
    let refused = send(&world, &format!("{page}/accept"), &NEW).await;
    assert_eq!((refused.status, refused.header("location")), (303, page.as_str()));
    let reactivate = pb::ReactivateTenantRequest { tenant: tenant(), ..Default::default() };
    world.operator.tenants().reactivate_tenant(reactivate).await.unwrap();
    let joined = send(&world, &format!("{page}/accept"), &NEW).await;
    assert_eq!(joined.header("location"), format!("{page}/welcome"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_address_is_not_allowed_any_more_is_told_so() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let page = invited(&mut world, &admin, invite("acme", "m@other.example", &[])).await;
    let settings = pb::UpdateTenantRequest {
        tenant: "acme".into(),
        allowed_email_domains: vec!["acme.example".into()],
        ..Default::default()
    };
    admin.tenants().update_tenant(settings).await.unwrap();
    let refused = send(&world, &format!("{page}/accept"), &NEW).await;
    refused.says(409, &["not allowed", "m@other.example"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_clicks_at_once_one_joins_and_all_are_led_to_a_friendly_page() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let page = invited(&mut world, &admin, invite("acme", "m@acme.example", &[])).await;
    let path = format!("{page}/accept");
    let clicks = futures::future::join_all((0..6).map(|_| send(&world, &path, &NEW))).await;
    for click in &clicks {
        assert_eq!(click.status, 303, "{}", click.body);
        let shown = open(&world, click.header("location")).await;
        assert!(shown.body.contains("Welcome") || shown.body.contains("joined already"));
    }
    let welcomed = clicks.iter().filter(|click| click.header("location").ends_with("/welcome"));
    assert_eq!(welcomed.count(), 1);
    let list = pb::ListMembershipsRequest { tenant: "acme".into(), ..Default::default() };
    let members = admin.memberships().list_memberships(list).await.unwrap().into_inner();
    assert_eq!(members.memberships.len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_opens_so_many_pages_and_not_more() {
    let world = World::start().await;
    let mut limited = 0;
    for _ in 0..20 {
        let pages = (0..40).map(|_| open(&world, "/invitations/rci_x"));
        let statuses = futures::future::join_all(pages).await;
        limited += statuses.iter().filter(|page| page.status == 429).count();
    }
    assert!(limited > 100, "only {limited} of 800");
    // Nor does that concern the calls.
    let list = pb::ListTenantsRequest::default();
    world.operator.tenants().list_tenants(list).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_go_out_in_the_name_of_the_tenant_and_may_lead_to_its_own_page() {
    let mut world = World::start().await;
    let (admin, _) = world.tenant("acme").await;
    let edit = pb::UpdateMailSettingsRequest {
        sender_name: "Acme <x@evil.example>, HR".into(),
        reply_to: "people@acme.example".into(),
        ..home("acme", "https://app.acme.example")
    };
    settings(&admin, edit).await;
    let set = pb::SetInvitationPageRequest {
        tenant: "acme".into(),
        invitation_page: "https://app.acme.example/join?a=1&t={token}".into(),
        ..Default::default()
    };
    let refused = admin.mail().set_invitation_page(set.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let answer = world.operator.mail().set_invitation_page(set).await.unwrap().into_inner();
    assert_eq!(answer.settings.unwrap().home_url, "https://app.acme.example");
    admin.invitations().create_invitation(invite("acme", "m@acme.example", &[])).await.unwrap();
    let mail = world.mail_to("m@acme.example").await;
    let from = mail.lines().find(|line| line.starts_with("From:")).unwrap();
    // Encoded: `Acme <x@evil.example>, HR`.
    let name = "=?utf-8?b?QWNtZSA8eEBldmlsLmV4YW1wbGU+LCBIUg==?=";
    assert_eq!(from, format!("From: {name} <rolecall@localhost>"));
    assert!(mail.contains("Reply-To: people@acme.example"), "{mail}");
    let token = token_of(&mail);
    assert!(mail.contains(&format!("https://app.acme.example/join?a=1&t={token}")), "{mail}");
    assert!(mail.contains("?a=1&amp;t="), "{mail}");

    let page = pb::OpenInvitationRequest { token: token.clone() };
    let opened = world.anonymous().await.invitations().open_invitation(page).await.unwrap();
    let opened = opened.into_inner();
    assert_eq!((opened.state(), opened.has_account), (pb::LinkState::Open, false));
    assert_eq!(opened.inviter_name, "New Person");

    for (wrong, field) in [
        (home("acme", "http://app.acme.example"), "home_url"),
        (
            pb::UpdateMailSettingsRequest {
                reply_to: "x\r\nBcc: y@z.fr".into(),
                ..home("acme", "")
            },
            "reply_to",
        ),
    ] {
        let status = admin.mail().update_mail_settings(wrong).await.unwrap_err();
        assert_eq!(crate::world::field(&status), field);
    }
    world.stop().await;
}
