//! The laptop: a PostgreSQL of our own, keys and mail in a folder, a demo tenant, and a welcome with
//! calls to paste. Nothing in production relies on this folder.

mod demo;
pub mod postgres;

use std::{fs, io::Write, path::Path, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{DevArgs, Durability},
    db,
    dev::postgres::{DATABASE, Options, Postgres},
    mail::Mail,
    secret::Keys,
    server::{Server, Settings},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs until Ctrl-C or SIGTERM. What is in the data folder survives.
///
/// # Errors
/// When PostgreSQL cannot be found or started, or a port is taken.
pub async fn run(args: DevArgs) -> Result<(), Error> {
    // Before PostgreSQL: a signal during the start is obeyed after it, and stops both.
    let terminated = terminated()?;
    fs::create_dir_all(&args.data_dir)?;
    let data_dir = fs::canonicalize(&args.data_dir)?;
    let options = Options {
        data_dir: data_dir.join("postgres"),
        bin_dir: args.pg_bin.clone(),
        port: 0,
        durable: true,
    };
    let postgres = Postgres::start(options).await?;
    let served = serve(&args, &data_dir, &postgres, terminated).await;
    postgres.stop().await?;
    served
}

async fn serve(
    args: &DevArgs,
    data_dir: &Path,
    postgres: &Postgres,
    terminated: impl Future<Output = ()>,
) -> Result<(), Error> {
    let database = SecretString::from(postgres.url(DATABASE));
    db::migrate(&database).await?;
    let mail_dir = data_dir.join("mail");
    fs::create_dir_all(&mail_dir)?;
    let mail_url = match args.mail.url()? {
        Some(url) => url,
        None => format!("file://{}", mail_dir.display()).into(),
    };
    let mail_from = args.mail.mail_from.as_deref().unwrap_or("Rolecall <rolecall@localhost>");
    let server = Server::start(Settings {
        database,
        database_pool: 16,
        lease: args.replica.lease(),
        replica_name: args.replica.name(),
        state_dir: Some(args.replica.state_dir.clone().unwrap_or_else(|| data_dir.join("state"))),
        quorum: args.replica.durability == Durability::Strict,
        faults: args.replica.faults(),
        facts_memory: 2 << 30,
        warm_tenants: Vec::new(),
        listen: args.listen,
        admin_listen: args.admin_listen,
        keys: Keys::parse(&kept(&data_dir.join("secret.key"), Keys::generate)?)?,
        mail: Mail::parse(&mail_url, mail_from)?,
        mail_templates: args.mail.mail_templates.clone(),
        public_url: args.public_url.clone(),
        open_reflection: true,
        trusted_proxies: Vec::new(),
        tls: None,
        drain: Duration::ZERO,
    })
    .await?;
    let welcomed = welcome(args, data_dir, &server).await;
    if welcomed.is_ok() {
        terminated.await;
    }
    server.stop().await;
    welcomed
}

async fn welcome(args: &DevArgs, data_dir: &Path, server: &Server) -> Result<(), Error> {
    let file = data_dir.join("operator.key");
    let api_key = match fs::read_to_string(&file) {
        Ok(key) => SecretString::from(key.trim()),
        Err(_) => {
            let created = crate::service_accounts::create_operator(&server.app, "dev").await?;
            keep(&file, &created.2)?;
            created.2
        }
    };
    demo::load(server, &api_key).await?;
    let (grpc, admin) = (server.grpc, server.admin);
    let mail_dir = data_dir.join("mail");
    let key = api_key.expose_secret();
    let mut out = std::io::stdout();
    if args.json {
        let ready = serde_json::json!({
            "grpc": grpc.to_string(),
            "http": format!("http://{grpc}"),
            "admin": admin.to_string(),
            "api_key": key,
            "tenant": demo::TENANT,
            "mail_dir": mail_dir,
        });
        writeln!(out, "{ready}")?;
    } else {
        write!(out, "{}", welcome_text(&grpc.to_string(), &admin.to_string(), key, &mail_dir))?;
    }
    out.flush()?;
    Ok(())
}

fn welcome_text(grpc: &str, admin: &str, key: &str, mail_dir: &Path) -> String {
    let mail_dir = mail_dir.display();
    let (tenant, email, password) = (demo::TENANT, demo::EMAIL, demo::PASSWORD);
    format!(
        "
Rolecall serves gRPC on {grpc}; health and metrics on {admin}; mail arrives in {mail_dir}

Paste these (grpcurl; `make run` puts one into target/tools):

  export PATH=\"$PWD/target/tools/bin:$PATH\" KEY={key}

  # everything there is to call
  grpcurl -plaintext {grpc} list

  # sign in to the demo tenant as its administrator
  grpcurl -plaintext -d '{{\"tenant\":\"{tenant}\",\"email\":\"{email}\",\"password\":\"{password}\"}}' \\
    {grpc} rolecall.v1.SessionService/SignIn

  # who belongs here
  grpcurl -plaintext -H \"authorization: Bearer $KEY\" -d '{{\"tenant\":\"{tenant}\"}}' \\
    {grpc} rolecall.v1.MembershipService/ListMemberships

  # and what may they do
  grpcurl -plaintext -H \"authorization: Bearer $KEY\" \\
    -d '{{\"tenant\":\"{tenant}\",\"subject\":\"{email}\",\"permission\":\"invoices.create\",\"resource\":\"workspaces/paris\"}}' \\
    {grpc} rolecall.v1.PermissionService/CheckPermission

Ctrl-C stops it; what you did is kept.
"
    )
}

/// Reads a secret that was made at the first run, or makes it.
fn kept(
    file: &Path,
    make: impl FnOnce() -> crate::error::Result<SecretString>,
) -> Result<SecretString, Error> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = make()?;
            keep(file, &secret)?;
            Ok(secret)
        }
        Err(error) => Err(error.into()),
    }
}

fn keep(file: &Path, secret: &SecretString) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    // Never half-written: a crash leaves the old state, and the next run makes a new one.
    let draft = file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    out.write_all(secret.expose_secret().as_bytes())?;
    out.sync_all()?;
    fs::rename(draft, file)?;
    Ok(())
}

/// Listens for Ctrl-C and SIGTERM from now on; the future ends with the first one.
///
/// # Errors
/// When the signals cannot be listened for.
pub fn terminated() -> Result<impl Future<Output = ()>, std::io::Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
