//! Mail against a server that speaks SMTP, says no, and goes away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rolecall::{
    mail::Mail,
    proto as pb,
    secret::Keys,
    server::{Server, Settings},
    service_accounts,
};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tonic::Code;

use crate::world::{Api, database, reason, settings};

/// A mail server that keeps what it accepts.
#[derive(Clone, Default)]
struct Smtp {
    accepted: Arc<Mutex<Vec<String>>>,
    busy: Arc<AtomicBool>,
    /// How many letters to `slow…` wait for their reply, and whether they get it.
    slow: Arc<AtomicUsize>,
    release: Arc<AtomicBool>,
}

impl Smtp {
    async fn start() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let smtp = Self::default();
        let serving = smtp.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().talk(stream));
            }
        });
        (smtp, port)
    }

    async fn wait_for_slow(&self, count: usize) {
        while self.slow.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn talk(self, stream: TcpStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 test ready\r\n").await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            let word = line.to_uppercase();
            let reply = match &word[..word.len().min(4)] {
                "EHLO" => "250-test\r\n250-AUTH PLAIN\r\n250 8BITMIME",
                // `u` with the password `right`, in base64.
                "AUTH" if line.ends_with("AHUAcmlnaHQ=") => "235 welcome",
                "AUTH" => "535 5.7.8 bad credentials",
                "RCPT" if word.contains("NOBODY@") => "550 5.1.1 no such user here",
                "RCPT" if word.contains("SLOW") => {
                    self.slow.fetch_add(1, Ordering::Relaxed);
                    while !self.release.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    "250 at last"
                }
                "RCPT" if self.busy.load(Ordering::Relaxed) => "451 4.3.0 come back later",
                "DATA" => {
                    write.write_all(b"354 go ahead\r\n").await.unwrap();
                    let mut mail = String::new();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if line == "." {
                            break;
                        }
                        mail.push_str(&line);
                        mail.push('\n');
                    }
                    self.accepted.lock().unwrap().push(mail);
                    "250 2.0.0 queued as 7"
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            if write.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn serve(url: String) -> (Server, Api) {
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    let settings = Settings {
        mail: Mail::parse(&url.as_str().into(), "Rolecall <rolecall@rolecall.example>").unwrap(),
        public_url: Some("https://id.example.com".to_owned()),
        ..settings(&database().await, keys, &url)
    };
    let server = Server::start(settings).await.unwrap();
    let (_, _, key) = service_accounts::create_operator(&server.app, "test").await.unwrap();
    let operator = Api::connect(&server, key.expose_secret()).await;
    (server, operator)
}

async fn invite_administrator(operator: &Api, tenant: &str, email: &str) {
    let administrator = pb::TenantAdministrator {
        email: email.into(),
        first_name: "Ada".into(),
        ..Default::default()
    };
    let create = pb::CreateTenantRequest {
        key: tenant.into(),
        display_name: tenant.to_uppercase(),
        administrator: Some(administrator),
        ..Default::default()
    };
    operator.tenants().create_tenant(create).await.unwrap();
}

/// Waits until the tenant's newest mail is as wanted.
async fn wait_for(by: &Api, tenant: &str, wanted: impl Fn(&pb::Mail) -> bool) -> pb::Mail {
    let mut last = None;
    for _ in 0..200 {
        let list = pb::ListMailsRequest { tenant: tenant.into(), ..Default::default() };
        let mails = by.mail().list_mails(list).await.unwrap().into_inner().mails;
        last = mails.into_iter().next();
        if last.as_ref().is_some_and(&wanted) {
            return last.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("in 10 s the mail became no other than {last:?}");
}

type Steps = Vec<pb::SendTestEmailResponse>;

async fn test_mail(by: &Api, to: &str) -> Result<Steps, tonic::Status> {
    let request =
        pb::SendTestEmailRequest { tenant: "system".into(), to: to.into(), ..Default::default() };
    let mut stream = by.mail().send_test_email(request).await?.into_inner();
    let mut steps = Vec::new();
    while let Some(step) = stream.message().await? {
        steps.push(step);
    }
    Ok(steps)
}

fn steps(told: &Steps) -> Vec<(pb::StepName, bool)> {
    told.iter().map(|told| (told.step(), told.ok)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_outlives_a_server_that_is_busy_and_is_given_up_for_a_wrong_address() {
    let (smtp, port) = Smtp::start().await;
    let (server, operator) = serve(format!("smtp://127.0.0.1:{port}")).await;
    smtp.busy.store(true, Ordering::Relaxed);
    invite_administrator(&operator, "acme", "ada@acme.example").await;
    let waiting = wait_for(&operator, "acme", |mail| {
        mail.attempts == 1 && mail.delivery() == pb::Delivery::Queued
    })
    .await;
    assert!(waiting.last_error.contains("come back later"), "{waiting:?}");
    assert!(waiting.next_attempt_time.is_some() && waiting.target.starts_with("inv_"));
    smtp.busy.store(false, Ordering::Relaxed);
    server.app.clock.advance(Duration::from_secs(60));
    let sent = wait_for(&operator, "acme", |mail| mail.delivery() == pb::Delivery::Sent).await;
    assert_eq!((sent.attempts, sent.last_error.as_str()), (2, ""));
    let mails = smtp.accepted.lock().unwrap().clone();
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0].contains(&format!("Message-ID: <{}@rolecall.example>", sent.id)),
        "{}",
        mails[0]
    );
    assert!(mails[0].contains("https://id.example.com/invitations/rci_"), "{}", mails[0]);

    invite_administrator(&operator, "beta", "nobody@beta.example").await;
    let failed = wait_for(&operator, "beta", |mail| mail.delivery() == pb::Delivery::Failed).await;
    assert!(failed.last_error.contains("no such user here"), "{failed:?}");
    assert_eq!(failed.attempts, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_mail_tells_each_step_that_the_server_answered() {
    use pb::StepName::{Authenticate, Connect, Queued, Recipient, Resolve, Sender};
    let (smtp, port) = Smtp::start().await;
    let (server, operator) = serve(format!("smtp://u:wrong@127.0.0.1:{port}")).await;
    let answer = test_mail(&operator, "ada@acme.example").await.unwrap();
    assert_eq!(steps(&answer), [(Resolve, true), (Connect, true), (Authenticate, false)]);
    assert!(answer[2].server_reply.contains("bad credentials"), "{answer:?}");
    server.stop().await;

    let (server, operator) = serve(format!("smtp://u:right@127.0.0.1:{port}")).await;
    let answer = test_mail(&operator, "ada@acme.example").await.unwrap();
    let all = [Resolve, Connect, Authenticate, Sender, Recipient, Queued].map(|step| (step, true));
    assert_eq!(steps(&answer), all);
    assert!(answer[5].server_reply.contains("queued as 7"), "{answer:?}");
    assert_eq!(smtp.accepted.lock().unwrap().len(), 1);
    let answer = test_mail(&operator, "nobody@acme.example").await.unwrap();
    assert_eq!(steps(&answer).last(), Some(&(Recipient, false)));
    for _ in 2..10 {
        test_mail(&operator, "ada@acme.example").await.unwrap();
    }
    let status = test_mail(&operator, "ada@acme.example").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS")
    );
    server.stop().await;

    // Nobody listens there.
    let (server, operator) = serve("smtp://127.0.0.1:1".to_owned()).await;
    let answer = test_mail(&operator, "ada@acme.example").await.unwrap();
    assert_eq!(steps(&answer), [(Resolve, true), (Connect, false)]);
    server.stop().await;

    let (server, operator) = serve("smtp://no-such-host.invalid".to_owned()).await;
    let answer = test_mail(&operator, "ada@acme.example").await.unwrap();
    assert_eq!(steps(&answer), [(Resolve, false)]);
    assert!(answer[0].server_reply.contains("no-such-host.invalid"), "{answer:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_letter_that_takes_long_holds_up_no_other() {
    let (smtp, port) = Smtp::start().await;
    let (server, operator) = serve(format!("smtp://127.0.0.1:{port}")).await;
    for n in 0..3 {
        invite_administrator(&operator, &format!("t{n}"), &format!("slow{n}@acme.example")).await;
    }
    smtp.wait_for_slow(3).await;
    for n in 3..15 {
        invite_administrator(&operator, &format!("t{n}"), "ada@acme.example").await;
    }
    for n in 3..15 {
        let sent = |mail: &pb::Mail| mail.delivery() == pb::Delivery::Sent;
        wait_for(&operator, &format!("t{n}"), sent).await;
    }
    for n in 0..3 {
        let sending = |mail: &pb::Mail| mail.delivery() == pb::Delivery::Sending;
        wait_for(&operator, &format!("t{n}"), sending).await;
    }
    smtp.release.store(true, Ordering::Relaxed);
    for n in 0..3 {
        let sent = |mail: &pb::Mail| mail.delivery() == pb::Delivery::Sent;
        wait_for(&operator, &format!("t{n}"), sent).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wording_of_a_folder_is_used_and_previewed() {
    let folder = std::env::temp_dir().join(format!("rolecall-wording-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let text = "Welcome aboard {{ tenant }}\nDear {{ name }}, go to {{ link }} until {{ expires }}";
    std::fs::write(folder.join("invitation.fr.txt"), text).unwrap();
    let (smtp, port) = Smtp::start().await;
    let url = format!("smtp://127.0.0.1:{port}");
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    let settings = Settings {
        mail_templates: Some(folder.clone()),
        public_url: Some("https://id.example.com".to_owned()),
        ..settings(&database().await, keys, &url)
    };
    let server = Server::start(settings).await.unwrap();
    let (_, _, key) = service_accounts::create_operator(&server.app, "test").await.unwrap();
    let operator = Api::connect(&server, key.expose_secret()).await;
    invite_administrator(&operator, "acme", "ada@acme.example").await;
    wait_for(&operator, "acme", |mail| mail.delivery() == pb::Delivery::Sent).await;
    assert!(!smtp.accepted.lock().unwrap()[0].contains("Welcome aboard"), "that is French");
    let preview = |kind: &str, language: &str| pb::PreviewMailRequest {
        tenant: "acme".into(),
        kind: kind.into(),
        language: language.into(),
    };
    let shown = operator.mail().preview_mail(preview("invitation", "fr")).await.unwrap();
    let shown = shown.into_inner();
    assert_eq!(shown.subject, "Welcome aboard ACME");
    assert!(shown.text.contains("https://id.example.com/invitations/rci_sample"), "{}", shown.text);
    assert!(shown.html.contains("<html lang=\"fr\">"), "{}", shown.html);
    for kind in ["invitation", "reminder", "request", "test"] {
        operator.mail().preview_mail(preview(kind, "")).await.unwrap();
    }
    let refused = operator.mail().preview_mail(preview("letter", "")).await.unwrap_err();
    assert_eq!(crate::world::field(&refused), "kind");
    server.stop().await;
    std::fs::remove_dir_all(folder).unwrap();
}
