//! What a check costs the server, beside the yardstick: a bare tonic service with the same messages, a
//! constant answer, no layer of ours and the same listener. Each server is a process pinned to core 0,
//! the clients are pinned to core 1, the two take turns, and medians are printed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench says what it saw, or stops")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rolecall::{
    db,
    dev::postgres::{DATABASE, Options, Postgres},
    mail::Mail,
    proto::{
        self as pb,
        invitation_service_client::InvitationServiceClient,
        permission_service_client::PermissionServiceClient,
        permission_service_server::{PermissionService, PermissionServiceServer},
        role_service_client::RoleServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    secret::Keys,
    server::{Listener, Server, Settings},
    service_accounts,
};
use secrecy::ExposeSecret;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::Routes,
    transport::{Channel, Endpoint},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const CALLS: usize = 100_000;
const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const MEMBERS: usize = 20;

fn main() {
    let mut args = env::args().skip(1).filter(|arg| arg != "--bench");
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match args.next().as_deref() {
        Some("bare") => threads.block_on(bare()),
        Some("rolecall") => threads.block_on(rolecall(&args.next().unwrap())),
        _ => threads.block_on(measure()),
    }
}

/// What a server says on stdout when it is ready.
#[derive(serde::Serialize, serde::Deserialize)]
struct Ready {
    address: String,
    key: String,
    subjects: Vec<String>,
}

fn ready(address: String, key: String, subjects: Vec<String>) {
    println!("{}", serde_json::to_string(&Ready { address, key, subjects }).unwrap());
}

struct Bare;

#[tonic::async_trait]
impl PermissionService for Bare {
    async fn check_permission(
        &self,
        _: Request<pb::CheckPermissionRequest>,
    ) -> Result<Response<pb::CheckPermissionResponse>, Status> {
        Ok(Response::new(pb::CheckPermissionResponse {
            allowed: true,
            reason: pb::Reason::Allowed.into(),
            revision: "rev_1000".to_owned(),
        }))
    }

    async fn explain_permission(
        &self,
        _: Request<pb::ExplainPermissionRequest>,
    ) -> Result<Response<pb::ExplainPermissionResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    async fn batch_check_permissions(
        &self,
        _: Request<pb::BatchCheckPermissionsRequest>,
    ) -> Result<Response<pb::BatchCheckPermissionsResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    type CheckPermissionStreamStream =
        futures::stream::Empty<Result<pb::CheckPermissionStreamResponse, Status>>;

    async fn check_permission_stream(
        &self,
        _: Request<tonic::Streaming<pb::CheckPermissionStreamRequest>>,
    ) -> Result<Response<Self::CheckPermissionStreamStream>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    async fn register_permissions(
        &self,
        _: Request<pb::RegisterPermissionsRequest>,
    ) -> Result<Response<pb::RegisterPermissionsResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    async fn list_permissions(
        &self,
        _: Request<pb::ListPermissionsRequest>,
    ) -> Result<Response<pb::ListPermissionsResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }
}

async fn bare() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let router = Routes::new(PermissionServiceServer::new(Bare)).prepare().into_axum_router();
    let _listener = Listener::start(socket, router, None).unwrap();
    ready(address, "none".to_owned(), vec![]);
    std::future::pending::<()>().await;
}

async fn rolecall(url: &str) {
    let mails = env::temp_dir().join("rolecall-bench-mail");
    fs::create_dir_all(&mails).unwrap();
    let server = Server::start(Settings {
        database: url.into(),
        database_pool: 4,
        facts_memory: 8 << 30,
        warm_tenants: Vec::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        keys: Keys::parse(&Keys::generate().unwrap()).unwrap(),
        mail: Mail::parse(&format!("file://{}", mails.display()).into(), "a@localhost").unwrap(),
        public_url: None,
        open_reflection: false,
        tls: None,
        drain: Duration::ZERO,
    })
    .await
    .unwrap();
    let (_, _, key) = service_accounts::create_operator(&server.app, "bench").await.unwrap();
    let key = key.expose_secret().to_owned();
    let subjects = members(&server, &key).await;
    ready(server.grpc.to_string(), key, subjects);
    std::future::pending::<()>().await;
}

/// A tenant with the business roles and some employees.
async fn members(server: &Server, key: &str) -> Vec<String> {
    let channel = connect(&server.grpc.to_string()).await;
    let tenant = pb::CreateTenantRequest {
        key: "acme".to_owned(),
        display_name: "Acme".to_owned(),
        administrator: Some(pb::TenantAdministrator {
            email: "first@acme.example".to_owned(),
            first_name: "First".to_owned(),
            last_name: "Person".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut tenants = TenantServiceClient::new(channel.clone());
    let created = tenants.create_tenant(by(key, tenant)).await.unwrap().into_inner();
    accept(server, channel.clone(), &created.invitation_id).await;
    let install = pb::InstallRoleTemplatesRequest {
        tenant: "acme".to_owned(),
        sector: "business".to_owned(),
        ..Default::default()
    };
    RoleServiceClient::new(channel.clone()).install_role_templates(by(key, install)).await.unwrap();
    let mut subjects = Vec::new();
    for n in 0..MEMBERS {
        let invite = pb::CreateInvitationRequest {
            tenant: "acme".to_owned(),
            email: format!("p{n}@acme.example"),
            kind: pb::MemberKind::Internal.into(),
            roles: vec![pb::AssignRole { role: "employee".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let mut invitations = InvitationServiceClient::new(channel.clone());
        let invited = invitations.create_invitation(by(key, invite)).await.unwrap().into_inner();
        subjects.push(accept(server, channel.clone(), &invited.invitation.unwrap().id).await);
    }
    subjects
}

async fn accept(server: &Server, channel: Channel, invitation: &str) -> String {
    let tenant = server.app.replica.facts().directory.tenants["acme"].id;
    let token = server.app.keys.invitation_token(tenant, invitation.parse().unwrap(), 1);
    let account = pb::NewAccount {
        password: "correct horse battery staple".to_owned(),
        first_name: "A".to_owned(),
        last_name: "B".to_owned(),
    };
    let request = pb::AcceptInvitationRequest {
        token: token.expose_secret().to_owned(),
        account: Some(pb::accept_invitation_request::Account::NewAccount(account)),
    };
    let answer = InvitationServiceClient::new(channel).accept_invitation(request).await.unwrap();
    answer.into_inner().user_id
}

fn by<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer(key));
    request
}

fn bearer(key: &str) -> MetadataValue<Ascii> {
    format!("Bearer {key}").parse().unwrap()
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A server in a process of its own, pinned to core 0.
struct Contestant {
    child: Child,
    ready: Ready,
}

impl Contestant {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(env::current_exe().unwrap())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    /// CPU seconds, user and system, so far.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: f64 = fields[11..13].iter().map(|f| f.parse::<f64>().unwrap()).sum();
        ticks / 100.0
    }

    /// Microseconds of CPU per call, and calls per second.
    async fn round(&self) -> (f64, f64) {
        let mut lanes = tokio::task::JoinSet::new();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(PermissionServiceClient::new(connect(&self.ready.address).await));
        }
        let (cpu, start) = (self.cpu(), Instant::now());
        for lane in 0..CONNECTIONS * STREAMS {
            let mut client = clients[lane % CONNECTIONS].clone();
            let bearer = bearer(&self.ready.key);
            let subjects = self.ready.subjects.clone();
            lanes.spawn(async move {
                for n in 0..CALLS / (CONNECTIONS * STREAMS) {
                    let subject = subjects.get((lane + n) % MEMBERS).cloned();
                    let mut request = Request::new(pb::CheckPermissionRequest {
                        tenant: "acme".to_owned(),
                        subject: subject.unwrap_or_else(|| "usr_".repeat(9)),
                        permission: "messaging.use".to_owned(),
                        resource: String::new(),
                    });
                    request.metadata_mut().insert("authorization", bearer.clone());
                    assert!(client.check_permission(request).await.unwrap().into_inner().allowed);
                }
            });
        }
        lanes.join_all().await;
        let (cpu, wall) = (self.cpu() - cpu, start.elapsed().as_secs_f64());
        (cpu * 1e6 / CALLS as f64, CALLS as f64 / wall)
    }
}

async fn measure() {
    let pid = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-a", "-p", "-c", "1", &pid]).output();
    assert!(pinned.unwrap().status.success(), "`taskset` pins the clients");
    let data_dir = env::temp_dir().join(format!("rolecall-bench-{pid}"));
    let options = Options { data_dir, bin_dir: None, port: 0, durable: false };
    let postgres = Postgres::start(options).await.unwrap();
    let url = postgres.url(DATABASE);
    db::migrate(&url.clone().into()).await.unwrap();

    let mut bare = Contestant::start(&["bare"]);
    let mut ours = Contestant::start(&["rolecall", &url]);
    let mut rounds = Vec::new();
    bare.round().await;
    ours.round().await;
    for round in 1..=ROUNDS {
        let (b, o) = (bare.round().await, ours.round().await);
        println!(
            "round {round}: bare {:.2} µs {:.0}/s, rolecall {:.2} µs {:.0}/s",
            b.0, b.1, o.0, o.1
        );
        rounds.push((b.0, o.0, b.0 / o.0));
    }
    let median = |f: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(f).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "CPU per check at {CONNECTIONS}x{STREAMS}, median of {ROUNDS}: bare {:.2} µs, rolecall {:.2} µs, \
         bare / rolecall {:.2}",
        median(|r| r.0),
        median(|r| r.1),
        median(|r| r.2)
    );
    for server in [&mut bare, &mut ours] {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }
    postgres.stop().await.unwrap();
}
