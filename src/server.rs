//! The composition root: what a server is made of, in which order it starts, and how it stops.

mod admin;
mod body;
mod connection;
mod fast;
mod layer;
mod listener;
mod proxies;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, routing::post};
use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    activity::Activity,
    app::{App, Parts, Rpc},
    change::Turns,
    clock::Clock,
    db,
    error::is_away,
    faults::Faults,
    framing::MAX_MESSAGE,
    invitations,
    mail::{Mail, Templates},
    outbox,
    passwords::Passwords,
    permissions, proto,
    refusals::Refusals,
    replica::{self, Options, Replica, Tail},
    secret::Keys,
    telemetry, tenants, web,
};

/// Everything a server needs to be told.
pub struct Settings {
    pub database: SecretString,
    pub database_pool: u32,
    /// How long this replica answers without having heard from the database.
    pub lease: Duration,
    /// What operators know this replica by.
    pub replica_name: String,
    /// Where the lock of this process is kept.
    pub state_dir: Option<PathBuf>,
    /// Whether the database must have a quorum of standbys.
    pub quorum: bool,
    /// None, but in tests.
    pub faults: Faults,
    /// For the facts of tenants, in bytes.
    pub facts_memory: usize,
    /// Keys of tenants to load before serving.
    pub warm_tenants: Vec<String>,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub keys: Keys,
    pub mail: Mail,
    /// A folder that overrides how letters are worded.
    pub mail_templates: Option<PathBuf>,
    /// Where links in mails lead; `None` means this server.
    pub public_url: Option<String>,
    pub open_reflection: bool,
    /// Proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub tls: Option<listener::Tls>,
    /// Between `NOT_SERVING` and the end of listening.
    pub drain: Duration,
}

pub use listener::{Listener, Tls, TlsError};

/// The health service that says whether the process lives, whatever it can answer.
const LIVE: &str = "live";

/// How long calls in flight may take to end.
const GRACE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the database's schema is older than this program; run `rolecall migrate` first")]
    Schema,
    #[error("this replica cannot start: {0}")]
    Replica(#[from] replica::StartError),
    #[error("{address} cannot be listened on: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Start(#[from] crate::error::Error),
    #[error("metrics cannot be collected: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Mail(#[from] crate::mail::MailError),
    #[error(transparent)]
    Templates(#[from] crate::mail::TemplatesError),
    #[error(transparent)]
    Keys(#[from] crate::secret::KeysError),
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A running server.
pub struct Server {
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
    pub app: App,
    health: HealthReporter,
    drain: Duration,
    listener: listener::Listener,
    admin_task: JoinHandle<()>,
    streams: watch::Sender<bool>,
    workers: watch::Sender<bool>,
    readiness: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts in the order in which the parts rely on each other; serves when it returns.
    ///
    /// # Errors
    /// When something that the server cannot do without is missing.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let metrics = telemetry::metrics()?;
        let mut conn = reach(&settings.database).await?;
        if !db::schema_is_current(&mut conn).await? {
            return Err(StartError::Schema);
        }
        conn.close().await?;
        let socket = bind(settings.listen).await?;
        let admin_socket = bind(settings.admin_listen).await?;
        let (grpc, admin) = (socket.local_addr()?, admin_socket.local_addr()?);
        let public_url = settings.public_url.unwrap_or_else(|| format!("http://{grpc}"));
        let templates = Templates::read(settings.mail_templates.as_deref())?;
        outbox::check(&templates, Clock::default().now())?;
        let post = Post { mail: settings.mail, templates };
        let (streams, stopping) = watch::channel(false);
        let options = Options {
            database: settings.database,
            facts_memory: settings.facts_memory,
            lease: settings.lease,
            name: settings.replica_name,
            state_dir: settings.state_dir,
            quorum: settings.quorum,
            faults: settings.faults,
        };
        let pool = settings.database_pool;
        let (app, threads) =
            assemble(options, pool, settings.keys, post, public_url, stopping).await?;
        app.replica.warm(&settings.warm_tenants).await?;

        let (health, health_service) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(health_service.clone());
        add_features(&mut routes, &app);
        add_reflection(&mut routes)?;
        let gate = layer::Gate::new(app.clone(), settings.open_reflection);
        let calls = add_stream(routes.prepare().into_axum_router(), &app);
        let calls = layer::around(calls, gate);
        let trusted: Arc<[ipnet::IpNet]> = settings.trusted_proxies.into();
        let believe = axum::middleware::from_fn_with_state(trusted, proxies::believe);
        let router = calls.merge(web::router(&app)?).layer(believe);
        let listener = listener::Listener::start(socket, &router, settings.tls.as_ref(), &app)?;
        let admin_task = tokio::spawn(admin::serve(admin_socket, health_service, metrics));
        let (workers, stop) = watch::channel(false);
        let forgetting = tokio::spawn(forget_old(app.clone(), stop.clone()));
        let security = tokio::spawn(write_refusals(app.clone(), stop.clone()));
        let sessions = tokio::spawn(write_activity(app.clone(), stop.clone()));
        let recovery = tokio::spawn(crate::recovery::run(app.clone(), stop.clone()));
        let purging = tokio::spawn(purge_due(app.clone(), stop.clone()));
        let watching = tokio::spawn(watch_administrators(app.clone(), stop.clone()));
        let reminding = tokio::spawn(invitations::remind(app.clone(), stop.clone()));
        let outbox = tokio::spawn(outbox::run(app.clone(), stop));
        health.set_service_status(LIVE, ServingStatus::Serving).await;
        health.set_service_status("", ServingStatus::Serving).await;
        let readiness = tokio::spawn(follow_lease(app.replica.leased(), health.clone()));
        tracing::info!(%grpc, %admin, "serving");
        Ok(Self {
            grpc,
            admin,
            app,
            health,
            drain: settings.drain,
            listener,
            admin_task,
            streams,
            workers,
            readiness,
            tasks: [outbox, reminding, recovery, forgetting, purging, watching, security, sessions]
                .into_iter()
                .chain(threads)
                .collect(),
        })
    }

    /// Tells balancers, waits for them, ends streams, lets calls end, and stops.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.readiness.abort();
        self.health.set_service_status("", ServingStatus::NotServing).await;
        tokio::time::sleep(self.drain).await;
        self.streams.send_replace(true);
        self.listener.stop().await;
        // Nothing is answered any more: changes need not wait for this replica.
        self.app.replica.retire().await;
        self.workers.send_replace(true);
        self.admin_task.abort();
        let pool = self.app.pool.clone();
        // The feed ends when nobody holds the replica any more.
        drop(self.app);
        for task in self.tasks {
            let _ = tokio::time::timeout(GRACE, task).await;
        }
        pool.close().await;
        tracing::info!("stopped");
    }
}

/// Connects. A database that is away is waited for: whoever looks after this process could only begin it
/// again, and later each time.
async fn reach(database: &SecretString) -> sqlx::Result<PgConnection> {
    const AGAIN: Duration = Duration::from_secs(1);
    loop {
        match db::connect(database).await {
            Err(error) if is_away(&error) => {
                tracing::warn!(%error, "the database is away; waiting for it");
                tokio::time::sleep(AGAIN).await;
            }
            reached => return reached,
        }
    }
}

/// Where letters go, and how they are worded.
struct Post {
    mail: Mail,
    templates: Templates,
}

/// The app and the threads of its replica, which is all that a command needs who makes a change and ends.
async fn assemble(
    options: Options,
    pool: u32,
    keys: Keys,
    post: Post,
    public_url: String,
    stopping: watch::Receiver<bool>,
) -> Result<(App, [JoinHandle<()>; 2]), StartError> {
    let clock = Clock::default();
    let (database, quorum, faults) =
        (options.database.clone(), options.quorum, options.faults.clone());
    let (replica, feed, keeper) = Replica::start(options, clock.clone()).await?;
    // Threads of their own: no storm of operations can starve them, nor a large tenant the lease.
    let feed = own_thread("feed", feed.run())?;
    let keeper = own_thread("lease", keeper.run())?;
    let app = App::new(Parts {
        pool: db::pool(&database, pool).await?,
        replica,
        clock,
        keys,
        mail: post.mail,
        templates: post.templates,
        passwords: Passwords::new()?,
        refusals: Refusals::default(),
        activity: Activity::default(),
        turns: Turns::default(),
        tail: Tail::default(),
        public_url,
        stopping,
        quorum,
        faults,
    });
    leased(&app).await;
    tenants::bootstrap(&app).await?;
    Ok((app, [feed, keeper]))
}

/// Waits until the replica may answer.
async fn leased(app: &App) {
    const TELL: Duration = Duration::from_secs(5);
    let mut leased = app.replica.leased();
    while tokio::time::timeout(TELL, leased.wait_for(|leased| *leased)).await.is_err() {
        tracing::warn!("waiting for the database to confirm the lease");
    }
}

/// Whether this replica should be asked: balancers and `rolecall healthcheck` read it.
async fn follow_lease(mut leased: watch::Receiver<bool>, health: HealthReporter) {
    while leased.changed().await.is_ok() {
        let serving = *leased.borrow_and_update();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status("", status).await;
    }
}

/// Runs one operation of a command beside the database, without serving anything.
///
/// # Errors
/// When the database cannot be used; the inner result is the operation's.
pub async fn once<T>(
    database: &SecretString,
    operation: impl AsyncFnOnce(&App) -> T,
) -> Result<T, StartError> {
    let mut conn = db::connect(database).await?;
    if !db::schema_is_current(&mut conn).await? {
        return Err(StartError::Schema);
    }
    conn.close().await?;
    // A command sends no mail and opens no link: the servers do, with keys of their own.
    let keys = Keys::parse(&Keys::generate()?)?;
    let mail = Mail::parse(&"file:///dev/null".into(), "rolecall@localhost")?;
    let post = Post { mail, templates: Templates::read(None)? };
    let (_, stopping) = watch::channel(false);
    let options = Options {
        database: database.clone(),
        facts_memory: 64 << 20,
        lease: Duration::from_secs(1),
        name: "a command".to_owned(),
        state_dir: None,
        quorum: false,
        faults: Faults::default(),
    };
    let (app, threads) = assemble(options, 2, keys, post, String::new(), stopping).await?;
    let outcome = operation(&app).await;
    app.replica.retire().await;
    drop(app);
    for thread in threads {
        let _ = tokio::time::timeout(GRACE, thread).await;
    }
    Ok(outcome)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

/// Forgets the answers of repeated requests when their day is over, and plans when their hour is.
async fn forget_old(app: App, mut stop: watch::Receiver<bool>) {
    const EVERY: Duration = Duration::from_secs(600);
    loop {
        let now = app.clock.now();
        let answers = crate::change::forget(&app.pool, now).await;
        let plans = crate::imports::forget(&app.pool, now).await;
        let mut pause = EVERY;
        for more in [answers, plans] {
            match more {
                Ok(true) => pause = Duration::from_secs(1),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "what is old was not forgotten"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Writes the security log, the last time when the server stops.
async fn write_refusals(app: App, mut stop: watch::Receiver<bool>) {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        let stopped = tokio::time::timeout(EVERY, stop.wait_for(|stop| *stop)).await.is_ok();
        if let Err(error) = crate::security::flush(&app).await {
            tracing::warn!(%error, "the security log was not written");
        }
        if stopped {
            return;
        }
    }
}

/// Writes which sessions were used, and ends those that nobody used for too long.
async fn write_activity(app: App, mut stop: watch::Receiver<bool>) {
    loop {
        let stopped = stop.wait_for(|stop| *stop);
        let stopped = tokio::time::timeout(crate::sessions::BATCH, stopped).await.is_ok();
        if let Err(error) = crate::sessions::write_activity(&app).await {
            tracing::warn!(%error, "activity was not written");
        }
        if stopped {
            return;
        }
        if let Err(error) = crate::sessions::end_idle(&app).await {
            tracing::warn!(%error, "idle sessions were not ended");
        }
    }
}

/// Erases people and tenants whose retention is over, where they switched it on, and purged tenants.
async fn purge_due(app: App, mut stop: watch::Receiver<bool>) {
    const EVERY: Duration = Duration::from_secs(120);
    loop {
        let purged = crate::erasure::purge_due(&app).await;
        match &purged {
            Ok(0) => {}
            Ok(changes) => tracing::info!(changes, "people and tenants were purged"),
            Err(error) => tracing::warn!(%error, "people and tenants were not purged"),
        }
        let pause = if matches!(purged, Ok(1..)) { Duration::from_secs(1) } else { EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Shows in the metrics how many tenants have no administrator, or a single one.
async fn watch_administrators(app: App, mut stop: watch::Receiver<bool>) {
    const EVERY: Duration = Duration::from_secs(15);
    loop {
        match crate::change::count_without(&app.pool).await {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            Ok((none, single)) => {
                metrics::gauge!("rolecall_tenants_without_administrator").set(none as f64);
                metrics::gauge!("rolecall_tenants_with_single_administrator").set(single as f64);
            }
            Err(error) => tracing::warn!(%error, "tenants without administrator were not counted"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Runs a future on a runtime and thread of its own; the handle ends with it.
fn own_thread(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        runtime.block_on(work);
        let _ = done.send(());
    })?;
    Ok(tokio::spawn(async move {
        let _ = ended.await;
    }))
}

fn add_features(routes: &mut Routes, app: &App) {
    macro_rules! serve {
        ($($module:ident::$service:ident),* $(,)?) => {{
            let rpc = Arc::new(Rpc(app.clone()));
            let mut served = std::mem::take(routes);
            $(served = served.add_service(
                proto::$module::$service::from_arc(rpc.clone())
                    .max_decoding_message_size(MAX_MESSAGE),
            );)*
            *routes = served;
        }};
    }
    serve!(
        audit_service_server::AuditServiceServer,
        group_service_server::GroupServiceServer,
        import_service_server::ImportServiceServer,
        invitation_service_server::InvitationServiceServer,
        mail_service_server::MailServiceServer,
        membership_service_server::MembershipServiceServer,
        permission_service_server::PermissionServiceServer,
        plan_service_server::PlanServiceServer,
        role_service_server::RoleServiceServer,
        service_account_service_server::ServiceAccountServiceServer,
        session_service_server::SessionServiceServer,
        tenant_service_server::TenantServiceServer,
        user_service_server::UserServiceServer,
        workspace_service_server::WorkspaceServiceServer,
    );
}

/// The one RPC below the gate that is answered from its bytes: it takes the path from its service.
fn add_stream(router: Router, app: &App) -> Router {
    router.route(layer::STREAM, post(permissions::serve_stream).with_state(app.clone()))
}

/// Both versions, since older clients know only the first; with the types of error details, so that
/// clients can print them.
fn add_reflection(routes: &mut Routes) -> Result<(), tonic_reflection::server::Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    *routes = std::mem::take(routes)
        .add_service(builder().build_v1()?)
        .add_service(builder().build_v1alpha()?);
    Ok(())
}
