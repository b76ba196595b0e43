//! The real program under `kill -9`, and with its database stopped.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rolecall::{proto as pb, secret::Keys, server::Server};
use secrecy::ExposeSecret;
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;
use tonic::Code;

use crate::world::{self, Api, accept, check, invite, token_of};

/// `rolecall dev --json`, as a person would run it.
struct Program {
    child: Child,
    ready: Ready,
}

impl Drop for Program {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Ready {
    grpc: String,
    api_key: String,
    tenant: String,
    mail_dir: PathBuf,
}

impl Program {
    fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    fn start_with(data_dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rolecall"))
            .args(["dev", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--log", "warn", "--data-dir"])
            .arg(data_dir)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Self { child, ready }
    }

    async fn operator(&self) -> Api {
        Api::to(&format!("http://{}", self.ready.grpc), &self.ready.api_key).await
    }

    async fn anonymous(&self) -> Api {
        Api::to(&format!("http://{}", self.ready.grpc), "").await
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "a clean stop");
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rolecall-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn invitation(tenant: &str, n: usize) -> pb::CreateInvitationRequest {
    pb::CreateInvitationRequest {
        request_id: format!("0192f5c0-0000-7000-8000-{n:012}"),
        ..invite(tenant, &email(n), &[])
    }
}

fn email(n: usize) -> String {
    format!("person{n}@crash.example")
}

const COUNT: usize = 200;

/// Sends all invitations at once; returns those that were acknowledged before the program was killed.
async fn invite_until_killed(program: Program) -> HashMap<usize, String> {
    let operator = program.operator().await;
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..COUNT {
        let request = invitation(&program.ready.tenant, n);
        let (operator, acknowledged) = (operator.clone(), acknowledged.clone());
        tasks.spawn(async move {
            loop {
                match operator.invitations().create_invitation(request.clone()).await {
                    Ok(answer) => {
                        let id = answer.into_inner().invitation.unwrap().id;
                        acknowledged.lock().unwrap().insert(n, id);
                        return;
                    }
                    // The queue of a tenant is short: come back, as the answer says.
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    Err(_) => return,
                }
            }
        });
    }
    let patience = Instant::now() + Duration::from_secs(60);
    while acknowledged.lock().unwrap().len() < COUNT / 3 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    program.kill();
    tasks.join_all().await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() >= COUNT / 3, "only {} before the kill", acknowledged.len());
    assert!(acknowledged.len() < COUNT, "the kill came too late to mean anything");
    acknowledged
}

async fn all_invitations(operator: &Api, tenant: &str) -> Vec<pb::Invitation> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = pb::ListInvitationsRequest {
            tenant: tenant.into(),
            page_size: 70,
            page_token,
            ..Default::default()
        };
        let page = operator.invitations().list_invitations(list).await.unwrap().into_inner();
        found.extend(page.invitations);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// Every copy that arrived, by address.
async fn mails(folder: &Path, wanted: usize) -> HashMap<String, Vec<String>> {
    let patience = Instant::now() + Duration::from_secs(120);
    loop {
        let mut copies: HashMap<String, Vec<String>> = HashMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            let to = text.lines().find(|l| l.starts_with("To:")).unwrap_or_default();
            if let Some(n) = (0..COUNT).find(|n| to.contains(&format!("person{n}@"))) {
                copies.entry(email(n)).or_default().push(text);
            }
        }
        if copies.len() >= wanted {
            return copies;
        }
        assert!(Instant::now() < patience, "{} of {wanted} mails arrived", copies.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_200_invitations_loses_nothing_and_repeats_nothing() {
    let folder = folder("crash");
    let acknowledged = invite_until_killed(Program::start(&folder)).await;

    let program = Program::start(&folder);
    let tenant = program.ready.tenant.clone();
    let operator = program.operator().await;
    let ours = |i: &&pb::Invitation| i.email.ends_with("@crash.example");
    let found = all_invitations(&operator, &tenant).await;
    for (n, id) in &acknowledged {
        let same: Vec<_> = found.iter().filter(|i| i.email == email(*n)).collect();
        assert_eq!(same.len(), 1, "{} exists once", email(*n));
        assert_eq!(&same[0].id, id);
    }
    // Whoever was not told repeats the call, and gets the one true outcome.
    for n in 0..COUNT {
        let answer = operator.invitations().create_invitation(invitation(&tenant, n)).await;
        let id = answer.unwrap().into_inner().invitation.unwrap().id;
        assert!(acknowledged.get(&n).is_none_or(|first| *first == id), "{}", email(n));
    }
    let found = all_invitations(&operator, &tenant).await;
    let emails: HashSet<_> = found.iter().filter(ours).map(|i| i.email.clone()).collect();
    assert_eq!((found.iter().filter(ours).count(), emails.len()), (COUNT, COUNT));

    let copies = mails(&program.ready.mail_dir, COUNT).await;
    let repeats = copies.values().filter(|texts| texts.len() > 1).count();
    assert!(repeats <= 20, "{repeats} were sent twice; only those in a send at the kill may be");
    let anonymous = program.anonymous().await;
    // Every copy, and whoever has two uses either: one link, which works once.
    let mut accepting: Vec<_> = copies.values().collect();
    accepting.sort_by_key(|texts| std::cmp::Reverse(texts.len()));
    for (at, texts) in accepting.into_iter().enumerate() {
        let tokens: HashSet<_> = texts.iter().map(|t| token_of(t)).collect();
        assert_eq!(tokens.len(), 1, "every copy carries the same link");
        // Hashing takes its time: those with two copies, and some with one.
        if at >= 10 && texts.len() == 1 {
            continue;
        }
        let token = tokens.into_iter().next().unwrap();
        anonymous.invitations().accept_invitation(accept(&token)).await.unwrap();
        let second = anonymous.invitations().accept_invitation(accept(&token)).await;
        assert_eq!(second.unwrap_err().code(), Code::FailedPrecondition);
    }
    let verify = pb::VerifyAuditLogRequest { tenant };
    let report = operator.audit().verify_audit_log(verify).await.unwrap().into_inner();
    assert!(report.ok, "{report:?}");
    program.stop();
    fs::remove_dir_all(folder).unwrap();
}

/// Every process below this one with this name.
fn descendants(of: Pid, name: &str) -> Vec<Pid> {
    let mut parents = HashMap::new();
    let mut named = HashSet::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap();
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        let parent = tail.split(' ').nth(1).and_then(|p| p.parse::<i32>().ok()).unwrap();
        parents.insert(pid, parent);
        if head.split_once('(').is_some_and(|(_, comm)| comm.starts_with(name)) {
            named.insert(pid);
        }
    }
    let below = |mut pid: i32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == of.as_raw() {
                return true;
            }
            pid = *parent;
        }
        false
    };
    named.into_iter().filter(|pid| below(*pid)).map(Pid::from_raw).collect()
}

/// Asks from several connections at once; returns how many a second were answered.
async fn checks(program: &Program, count: usize) -> f64 {
    const LANES: usize = 32;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let api = program.operator().await;
    for _ in 0..LANES {
        let (api, tenant) = (api.clone(), program.ready.tenant.clone());
        tasks.spawn(async move {
            let mut client = api.permissions();
            for n in 0..count / LANES {
                let subject = format!("usr_{n:032x}");
                let question = check(&tenant, &subject, "files.read", "");
                let answer = client.check_permission(question).await.unwrap().into_inner();
                assert_eq!(answer.reason(), pb::Reason::NotAMember);
            }
        });
    }
    tasks.join_all().await;
    count as f64 / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_a_loaded_tenant_need_no_database() {
    let folder = folder("stopped");
    // Nothing is answered for longer than the lease.
    let program = Program::start_with(&folder, &["--lease", "30"]);
    let before = checks(&program, 20_000).await;
    let postgres = descendants(program.pid(), "postgres");
    assert!(postgres.len() > 3, "{postgres:?}");
    for pid in &postgres {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    let stopped = checks(&program, 20_000).await;
    for pid in &postgres {
        kill(*pid, Signal::SIGCONT).unwrap();
    }
    println!("checks a second: {before:.0} with the database, {stopped:.0} with it stopped");
    program.stop();
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_before_its_database_waits_for_it() {
    let database = world::database().await;
    let url = database.expose_secret();
    let port = url.parse::<PgConnectOptions>().unwrap().get_port();
    // Nobody listens there yet.
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let there = url.replace(&format!(":{port}/"), &format!(":{}/", address.port()));
    assert_ne!(there, url);
    let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
    let settings = world::settings(&there.into(), keys, "file:///tmp");
    let mut starting = tokio::spawn(Server::start(settings));
    let early = tokio::time::timeout(Duration::from_millis(1_500), &mut starting).await;
    assert!(early.is_err(), "it waits");
    let socket = tokio::net::TcpListener::bind(address).await.unwrap();
    let forward = tokio::spawn(async move {
        loop {
            let (mut near, _) = socket.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    starting.await.unwrap().unwrap().stop().await;
    forward.abort();
}
