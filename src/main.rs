//! The commands.

mod client;

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Parser;
use rolecall::{
    app::App,
    audit::{self, Broken, Verified},
    config::{
        Action, AuditAction, Command, DatabaseArgs, Durability, HealthcheckArgs, KeysAction,
        ServeArgs,
    },
    db, dev,
    mail::Mail,
    replica,
    secret::Keys,
    server,
    server::{Server, Settings, Tls},
    service_accounts, telemetry,
};
use secrecy::ExposeSecret;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub type Outcome = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = run(command);
    outcome.unwrap_or_else(|error| {
        let text = rolecall::error::chain(error.as_ref());
        let _ = writeln!(std::io::stderr(), "error: {text}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Outcome {
    telemetry::log(&command.log)?;
    // Before any TLS: one implementation for everything.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match command.action {
            Action::Dev(args) => dev::run(args).await.map(|()| ExitCode::SUCCESS),
            Action::Serve(args) => serve(args).await,
            Action::Migrate(args) => migrate(&args).await,
            Action::Keys(KeysAction::Create { name, database }) => {
                create_key(&name, &database).await
            }
            Action::Keys(KeysAction::Generate) => print(Keys::generate()?.expose_secret()),
            Action::Audit(AuditAction::Verify { tenant, database }) => {
                verify(tenant.as_deref(), &database).await
            }
            Action::Replicas(args) => replicas(&args).await,
            Action::Import(args) => client::import(&args).await,
            Action::Healthcheck(args) => healthcheck(&args).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

fn print(line: &str) -> Outcome {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: ServeArgs) -> Outcome {
    let mail_url = args.mail.url()?.ok_or("`ROLECALL_MAIL_URL` is not set; name an SMTP server")?;
    let mail_from = args.mail.mail_from.as_deref();
    let mail_from = mail_from.ok_or("`ROLECALL_MAIL_FROM` is not set; name the sender of mails")?;
    let tls = match (&args.tls_cert_file, &args.tls_key_file) {
        (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
        _ => None,
    };
    // Before anything is open: the first process of a container ignores what it does not listen for.
    let mut terminated = std::pin::pin!(dev::terminated()?);
    let start = Server::start(Settings {
        database: args.database.url()?,
        database_pool: args.database_pool,
        lease: args.replica.lease(),
        replica_name: args.replica.name(),
        state_dir: args.replica.state_dir.clone(),
        quorum: args.replica.durability == Durability::Strict,
        faults: args.replica.faults(),
        facts_memory: args.facts_memory << 20,
        warm_tenants: args.warm_tenants.clone(),
        listen: args.listen,
        admin_listen: args.admin_listen,
        keys: Keys::parse(&args.secret_key()?)?,
        mail: Mail::parse(&mail_url, mail_from)?,
        mail_templates: args.mail.mail_templates.clone(),
        public_url: Some(args.public_url()?),
        open_reflection: args.open_reflection,
        trusted_proxies: args.trusted_proxies,
        tls,
        drain: Duration::from_secs(args.drain_seconds),
    });
    let server = tokio::select! {
        server = start => server?,
        () = &mut terminated => return Ok(ExitCode::SUCCESS),
    };
    terminated.await;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn migrate(args: &DatabaseArgs) -> Outcome {
    db::migrate(&args.url()?).await?;
    tracing::info!("the schema is up to date");
    Ok(ExitCode::SUCCESS)
}

async fn create_key(name: &str, database: &DatabaseArgs) -> Outcome {
    let url = database.url()?;
    let created =
        server::once(&url, async |app: &App| service_accounts::create_operator(app, name).await);
    let (account, key, secret) = created.await??;
    tracing::info!(%account, %key, "an operator was created; its key is shown only now");
    print(secret.expose_secret())
}

async fn verify(tenant: Option<&str>, database: &DatabaseArgs) -> Outcome {
    let pool = db::pool(&database.url()?, 1).await?;
    let mut intact = true;
    for (tenant, verified) in audit::verify_each(&pool, tenant).await? {
        let Verified { checked, head, broken } = verified;
        match broken {
            None => print(&format!("{tenant}: ok, {checked} events, head {head}"))?,
            Some(Broken { revision, reason }) => {
                intact = false;
                print(&format!("{tenant}: BROKEN at revision {revision}: {reason}"))?
            }
        };
    }
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn replicas(args: &DatabaseArgs) -> Outcome {
    let mut conn = db::connect(&args.url()?).await?;
    print(&replica::state(&mut conn).await?.to_string())
}

async fn healthcheck(args: &HealthcheckArgs) -> Outcome {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let mut address = args.address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?
        .timeout(Duration::from_secs(3));
    let mut client = HealthClient::new(endpoint.connect().await?);
    let answer = client.check(HealthCheckRequest::default()).await?.into_inner();
    let serving = answer.status() == ServingStatus::Serving;
    Ok(if serving { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
