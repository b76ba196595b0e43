//! Mail against a server that speaks SMTP, says no, and goes away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
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

async fn test_mail(by: &Api, to: &str) -> Result<pb::SendTestEmailResponse, tonic::Status> {
    let request =
        pb::SendTestEmailRequest { tenant: "system".into(), to: to.into(), ..Default::default() };
    Ok(by.mail().send_test_email(request).await?.into_inner())
}

fn steps(answer: &pb::SendTestEmailResponse) -> Vec<(pb::StepName, bool)> {
    answer.steps.iter().map(|step| (step.name(), step.ok)).collect()
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
    use pb::StepName::{Accepted, Authenticate, Connect, Recipient, Sender};
    let (smtp, port) = Smtp::start().await;
    let (server, operator) = serve(format!("smtp://u:wrong@127.0.0.1:{port}")).await;
    let answer = test_mail(&operator, "ada@acme.example").await.unwrap();
    assert_eq!(steps(&answer), [(Connect, true), (Authenticate, false)]);
    assert!(answer.steps[1].server_reply.contains("bad credentials"), "{answer:?}");
    server.stop().await;

    let (server, operator) = serve(format!("smtp://u:right@127.0.0.1:{port}")).await;
    let answer = test_mail(&operator, "ada@acme.example").await.unwrap();
    let all = [Connect, Authenticate, Sender, Recipient, Accepted].map(|step| (step, true));
    assert_eq!((answer.ok, steps(&answer)), (true, all.to_vec()));
    assert!(answer.steps[4].server_reply.contains("queued as 7"), "{answer:?}");
    assert_eq!(smtp.accepted.lock().unwrap().len(), 1);
    let answer = test_mail(&operator, "nobody@acme.example").await.unwrap();
    assert_eq!((answer.ok, steps(&answer).last()), (false, Some(&(Recipient, false))));
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
    assert_eq!(steps(&answer), [(Connect, false)]);
    server.stop().await;
}
