//! Flags, environment and files, read and checked here and nowhere else. Half-set groups and unsafe
//! values are refused before anything starts.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

/// Who belongs here, and what may they do: a gRPC identity and access service over PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Command {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Everything on a laptop: a PostgreSQL of its own, demo data, and mail as files.
    Dev(DevArgs),
    /// The service, over a PostgreSQL that `rolecall migrate` has prepared.
    Serve(ServeArgs),
    /// Bring the database up to date. Safe to repeat, and to run twice at once.
    Migrate(DatabaseArgs),
    /// Keys of the installation's operators.
    #[command(subcommand)]
    Keys(KeysAction),
    /// The audit trail.
    #[command(subcommand)]
    Audit(AuditAction),
    /// Show the processes that answer: how far each has come, and whether its lease is renewed.
    Replicas(DatabaseArgs),
    /// Invite the people of a CSV file: shows what would happen, asks, and does it.
    Import(ImportArgs),
    /// Ask a running server whether it serves; for containers without a shell.
    Healthcheck(HealthcheckArgs),
}

#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Create an operator, a service account that may do everything, and print its key once.
    Create {
        /// What the key is for, such as a team or a pipeline.
        #[arg(long, default_value = "first operator")]
        name: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Print a new key of the installation, for `ROLECALL_SECRET_KEY`.
    Generate,
}

#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Recompute the hash chain of a tenant and say whether anything was altered.
    Verify {
        /// Key of the tenant; every tenant when absent.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log, such as `info` or `rolecall=debug,info`. Goes to stderr.
    #[arg(long, env = "ROLECALL_LOG", default_value = "info", global = true)]
    pub log: String,
    #[arg(long, env = "ROLECALL_LOG_FORMAT", default_value = "pretty", global = true)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Pretty,
}

#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    #[arg(long, env = "ROLECALL_DATABASE_URL", hide_env_values = true)]
    database_url: Option<SecretText>,
    /// A file that holds the URL.
    #[arg(long, env = "ROLECALL_DATABASE_URL_FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Connections of the pool; the feed has its own.
    #[arg(long, env = "ROLECALL_DATABASE_POOL", default_value_t = 16)]
    pub database_pool: u32,
    /// Memory for the facts of tenants, in MiB: when it is used up, the tenants that nobody asked about
    /// for the longest time are forgotten, and read again when somebody asks.
    #[arg(long, env = "ROLECALL_FACTS_MEMORY", default_value_t = 2048)]
    pub facts_memory: usize,
    /// Keys of tenants to read before serving, so that their first question does not wait.
    #[arg(long, env = "ROLECALL_WARM_TENANTS", value_delimiter = ',')]
    pub warm_tenants: Vec<String>,
    /// gRPC and pages.
    #[arg(long, env = "ROLECALL_LISTEN", default_value = "0.0.0.0:50051")]
    pub listen: SocketAddr,
    /// Health and metrics, in plain text: keep it inside the cluster.
    #[arg(long, env = "ROLECALL_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// Keys of the installation: `id:base64url[,id:base64url…]`, the first one signs.
    #[arg(long, env = "ROLECALL_SECRET_KEY", hide_env_values = true)]
    secret_key: Option<SecretText>,
    #[arg(long, env = "ROLECALL_SECRET_KEY_FILE", conflicts_with = "secret_key")]
    secret_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub replica: ReplicaArgs,
    #[command(flatten)]
    pub mail: MailArgs,
    /// Where links in mails lead, such as `https://id.example.com`.
    #[arg(long, env = "ROLECALL_PUBLIC_URL")]
    pub public_url: String,
    /// Networks of proxies in front, such as `10.0.0.0/8`: where they say `x-forwarded-for`, it counts as
    /// the address of the caller. Others are not believed.
    #[arg(long, env = "ROLECALL_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    #[arg(long, env = "ROLECALL_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    #[arg(long, env = "ROLECALL_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Serve reflection to callers without a credential too.
    #[arg(long, env = "ROLECALL_OPEN_REFLECTION")]
    pub open_reflection: bool,
    /// Seconds between `NOT_SERVING` and the end of listening, so that balancers notice.
    #[arg(long, env = "ROLECALL_DRAIN_SECONDS", default_value_t = 5)]
    pub drain_seconds: u64,
}

#[derive(Debug, Args)]
pub struct ReplicaArgs {
    /// Seconds for which a replica answers without having heard from the database, 1 to 30; the same for
    /// all replicas. A change waits as long, once, for a replica that is gone without a word.
    #[arg(long, env = "ROLECALL_LEASE", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=30))]
    lease: u64,
    /// A folder of this machine's own disk, for this process alone: who starts in it again need not wait
    /// for the lease of a predecessor that was killed.
    #[arg(long, env = "ROLECALL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// What operators know this process by; the name of the host when absent.
    #[arg(long, env = "ROLECALL_REPLICA_NAME")]
    replica_name: Option<String>,
    /// `strict` starts only over a PostgreSQL whose commits wait for a quorum of standbys, so that a
    /// failover loses nothing; `default` takes its word, and reports what a failover lost.
    #[arg(long, env = "ROLECALL_DURABILITY", default_value = "default")]
    pub durability: Durability,
    /// Promises to break, for tests.
    #[cfg(debug_assertions)]
    #[arg(long, env = "ROLECALL_FAULTS", default_value = "", hide = true)]
    pub faults: crate::faults::Faults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    Default,
    Strict,
}

impl ReplicaArgs {
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease)
    }

    #[must_use]
    pub fn name(&self) -> String {
        self.replica_name.clone().unwrap_or_else(host_name)
    }

    #[cfg(debug_assertions)]
    #[must_use]
    pub fn faults(&self) -> crate::faults::Faults {
        self.faults.clone()
    }

    #[cfg(not(debug_assertions))]
    #[must_use]
    pub fn faults(&self) -> crate::faults::Faults {
        crate::faults::Faults::default()
    }
}

/// What operators know a process of this machine by.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[derive(Debug, Args)]
pub struct MailArgs {
    /// `smtp://user:password@host:587?tls=required`, `smtps://…`, or a folder as `file:///path`.
    #[arg(long, env = "ROLECALL_MAIL_URL", hide_env_values = true)]
    mail_url: Option<SecretText>,
    #[arg(long, env = "ROLECALL_MAIL_URL_FILE", conflicts_with = "mail_url")]
    mail_url_file: Option<PathBuf>,
    /// The sender of every mail, such as `Rolecall <no-reply@example.com>`.
    #[arg(long, env = "ROLECALL_MAIL_FROM")]
    pub mail_from: Option<String>,
    /// A folder whose files say how mails are worded, such as `invitation.fr.html` and
    /// `invitation.fr.txt`, whose first line is the subject; what it lacks is built in.
    #[arg(long, env = "ROLECALL_MAIL_TEMPLATES")]
    pub mail_templates: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where PostgreSQL, keys and mail are kept between runs.
    #[arg(long, env = "ROLECALL_DATA_DIR", default_value = ".dev")]
    pub data_dir: PathBuf,
    #[arg(long, default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub admin_listen: SocketAddr,
    /// The folder of PostgreSQL's `postgres` and `initdb`; found by itself when absent.
    #[arg(long, env = "ROLECALL_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// When ready, print one line of JSON on stdout instead of the welcome.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub replica: ReplicaArgs,
    #[command(flatten)]
    pub mail: MailArgs,
    /// Where links in mails lead; this server when absent.
    #[arg(long, env = "ROLECALL_PUBLIC_URL")]
    pub public_url: Option<String>,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; `-` reads it from stdin, and then `--yes` is needed.
    pub file: PathBuf,
    /// Key of the tenant.
    #[arg(long)]
    pub tenant: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Language of the mails, `en` or `fr`; the tenant's when absent.
    #[arg(long, default_value = "")]
    pub language: String,
    /// A personal message in every mail.
    #[arg(long, default_value = "")]
    pub message: String,
    #[command(flatten)]
    pub server: ClientArgs,
}

/// A running server, for commands that call it.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// Where the server answers, such as `https://id.example.com`.
    #[arg(long, env = "ROLECALL_SERVER", default_value = "http://127.0.0.1:50051")]
    pub server: String,
    /// An API key (`rck_…`) or the token of a session (`rcs_…`).
    #[arg(long, env = "ROLECALL_TOKEN", hide_env_values = true)]
    token: Option<SecretText>,
    /// A file that holds it.
    #[arg(long, env = "ROLECALL_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// The admin address of the server.
    #[arg(long, env = "ROLECALL_ADMIN_LISTEN", default_value = "127.0.0.1:9090")]
    pub address: SocketAddr,
}

/// Why the settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{0}` is not set; set it, or `{0}_FILE` to a file that holds it")]
    Missing(&'static str),
    #[error("the file {path} of `{name}_FILE` cannot be read: {source}")]
    File { name: &'static str, path: PathBuf, source: std::io::Error },
    #[error("`ROLECALL_PUBLIC_URL` must start with `https://`, or `http://` for this machine")]
    PublicUrl,
}

/// A text that is never printed.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

fn secret(
    name: &'static str,
    text: Option<&SecretText>,
    file: Option<&PathBuf>,
) -> Result<Option<SecretString>, ConfigError> {
    if let Some(path) = file {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::File {
            name,
            path: path.clone(),
            source,
        })?;
        return Ok(Some(text.trim().into()));
    }
    Ok(text.map(|text| text.0.clone()))
}

impl DatabaseArgs {
    /// # Errors
    /// When neither the URL nor its file is given.
    pub fn url(&self) -> Result<SecretString, ConfigError> {
        const NAME: &str = "ROLECALL_DATABASE_URL";
        secret(NAME, self.database_url.as_ref(), self.database_url_file.as_ref())?
            .ok_or(ConfigError::Missing(NAME))
    }
}

impl ServeArgs {
    /// # Errors
    /// When neither the key nor its file is given.
    pub fn secret_key(&self) -> Result<SecretString, ConfigError> {
        const NAME: &str = "ROLECALL_SECRET_KEY";
        secret(NAME, self.secret_key.as_ref(), self.secret_key_file.as_ref())?
            .ok_or(ConfigError::Missing(NAME))
    }

    /// # Errors
    /// When links would travel in plain text.
    pub fn public_url(&self) -> Result<String, ConfigError> {
        let url = self.public_url.trim_end_matches('/');
        let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
        if url.starts_with("https://") || local.iter().any(|start| url.starts_with(start)) {
            Ok(url.to_owned())
        } else {
            Err(ConfigError::PublicUrl)
        }
    }
}

impl ClientArgs {
    /// # Errors
    /// When neither the token nor its file is given.
    pub fn token(&self) -> Result<SecretString, ConfigError> {
        const NAME: &str = "ROLECALL_TOKEN";
        secret(NAME, self.token.as_ref(), self.token_file.as_ref())?
            .ok_or(ConfigError::Missing(NAME))
    }
}

impl MailArgs {
    /// # Errors
    /// When the file cannot be read.
    pub fn url(&self) -> Result<Option<SecretString>, ConfigError> {
        secret("ROLECALL_MAIL_URL", self.mail_url.as_ref(), self.mail_url_file.as_ref())
    }
}
