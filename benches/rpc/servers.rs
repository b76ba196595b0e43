//! The contestants, each a process of its own: Rolecall, and the yardstick: a bare tonic service with
//! the same messages, constant answers, no layer of ours, on a single-threaded runtime as ours.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rolecall::{
    mail::Mail,
    proto::{
        self as pb,
        permission_service_server::{PermissionService, PermissionServiceServer},
    },
    secret::Keys,
    server::{Server, Settings},
};
use tonic::{Request, Response, Status, service::Routes};

struct Bare;

const REVISION: &str = "rev_AAAAAQAAAAEAAAAAAAAD6A";

fn allowed() -> pb::CheckPermissionResult {
    pb::CheckPermissionResult { allowed: true, reason: pb::Reason::Allowed.into(), error: None }
}

#[tonic::async_trait]
impl PermissionService for Bare {
    async fn check_permission(
        &self,
        _: Request<pb::CheckPermissionRequest>,
    ) -> Result<Response<pb::CheckPermissionResponse>, Status> {
        Ok(Response::new(pb::CheckPermissionResponse {
            allowed: true,
            reason: pb::Reason::Allowed.into(),
            revision: REVISION.to_owned(),
            ..Default::default()
        }))
    }

    async fn batch_check_permissions(
        &self,
        request: Request<pb::BatchCheckPermissionsRequest>,
    ) -> Result<Response<pb::BatchCheckPermissionsResponse>, Status> {
        Ok(Response::new(pb::BatchCheckPermissionsResponse {
            results: vec![allowed(); request.get_ref().items.len()],
            revision: REVISION.to_owned(),
            ..Default::default()
        }))
    }

    type CheckPermissionStreamStream =
        futures::stream::BoxStream<'static, Result<pb::CheckPermissionStreamResponse, Status>>;

    async fn check_permission_stream(
        &self,
        request: Request<tonic::Streaming<pb::CheckPermissionStreamRequest>>,
    ) -> Result<Response<Self::CheckPermissionStreamStream>, Status> {
        let answers = request.into_inner().map(|question| {
            Ok(pb::CheckPermissionStreamResponse {
                allowed: true,
                reason: pb::Reason::Allowed.into(),
                error: None,
                correlation_id: question?.correlation_id,
                staleness: None,
                revision: REVISION.to_owned(),
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn explain_permission(
        &self,
        _: Request<pb::ExplainPermissionRequest>,
    ) -> Result<Response<pb::ExplainPermissionResponse>, Status> {
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

    async fn list_effective_permissions(
        &self,
        _: Request<pb::ListEffectivePermissionsRequest>,
    ) -> Result<Response<pb::ListEffectivePermissionsResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    async fn list_scopes(
        &self,
        _: Request<pb::ListScopesRequest>,
    ) -> Result<Response<pb::ListScopesResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    async fn list_subjects(
        &self,
        _: Request<pb::ListSubjectsRequest>,
    ) -> Result<Response<pb::ListSubjectsResponse>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }

    type StreamSubjectsStream =
        futures::stream::BoxStream<'static, Result<pb::StreamSubjectsResponse, Status>>;

    async fn stream_subjects(
        &self,
        _: Request<pb::StreamSubjectsRequest>,
    ) -> Result<Response<Self::StreamSubjectsStream>, Status> {
        Err(Status::unimplemented("the yardstick only checks"))
    }
}

/// The process of the yardstick: says its address and serves until it is killed.
pub fn bare() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", socket.local_addr().unwrap());
        let router = Routes::new(PermissionServiceServer::new(Bare)).prepare().into_axum_router();
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(256);
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (builder, service) = (builder.clone(), TowerToHyperService::new(router.clone()));
            tokio::spawn(async move {
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// The process of Rolecall.
pub async fn rolecall(url: &str) {
    let mails = env::temp_dir().join("rolecall-bench-mail");
    fs::create_dir_all(&mails).unwrap();
    let server = Server::start(Settings {
        database: url.into(),
        database_pool: 4,
        lease: Duration::from_secs(10),
        replica_name: "bench".to_owned(),
        state_dir: None,
        quorum: false,
        faults: rolecall::faults::Faults::default(),
        facts_memory: 8 << 30,
        warm_tenants: Vec::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        keys: Keys::parse(&Keys::generate().unwrap()).unwrap(),
        mail: Mail::parse(&format!("file://{}", mails.display()).into(), "a@localhost").unwrap(),
        mail_templates: None,
        public_url: None,
        open_reflection: false,
        trusted_proxies: Vec::new(),
        tls: None,
        drain: Duration::ZERO,
    })
    .await
    .unwrap();
    println!("{}", server.grpc);
    std::future::pending::<()>().await;
}

/// A server in a process of its own, on some cores.
pub struct Contestant {
    child: Child,
    pub address: String,
}

impl Contestant {
    pub fn start(cores: &str, args: &[&str]) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", cores])
            .arg(env::current_exe().unwrap())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the server started");
        Self { child, address: line.trim().to_owned() }
    }

    pub fn cpu(&self) -> f64 {
        cpu(self.child.id())
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of CPU, user and system, that the threads of a process have had.
pub fn cpu(process: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let nanos: u64 = tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("schedstat")).ok())
        .map(|stat| stat.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    nanos as f64 / 1e9
}

/// Lets a process, with all its threads, run on these cores only.
pub fn pin(process: u32, cores: &str) {
    let args = ["-a", "-p", "-c", cores, &process.to_string()];
    let pinned = Command::new("taskset").args(args).output().unwrap();
    assert!(pinned.status.success(), "two cores are needed, and `taskset` to share them out");
}
