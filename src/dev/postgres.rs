//! Runs a real PostgreSQL as a child of this process, from binaries installed on the machine, for
//! `rolecall dev` and for tests. Owns the data folder, its lock and its password; the server never
//! outlives us, listens on 127.0.0.1 only and lets nobody in without the password. It must not
//! know what the databases hold.

mod binaries;
mod folder;
mod process;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateDatabase;

use binaries::Binaries;
use folder::Folder;
use process::Server;

/// The database that exists after a start.
pub const DATABASE: &str = "rolecall";

const SUPERUSER: &str = "postgres";
const PORT_TRIES: u32 = 3;

/// How to run the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Made when it is missing. Two servers never share one.
    pub data_dir: PathBuf,
    /// The folder with `postgres` and `initdb`; searched for when absent.
    pub bin_dir: Option<PathBuf>,
    /// 0 takes a free port.
    pub port: u16,
    /// `false` only for tests: what was written survives us but not the machine.
    pub durable: bool,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "no PostgreSQL server was found; do one of these:\n\
         - install one: `apt-get install postgresql` or `brew install postgresql@17`\n\
         - name the folder that holds `postgres` and `initdb` with `--pg-bin`\n\
         - use one that runs elsewhere: `ROLECALL_DATABASE_URL=postgres://… rolecall serve`"
    )]
    NotInstalled,
    #[error("`{}` holds no `postgres` and `initdb` that run; name another `--pg-bin`", .folder.display())]
    NoBinaries { folder: PathBuf },
    #[error(
        "PostgreSQL {found} is too old; install version 15 or newer, or name it with `--pg-bin`"
    )]
    TooOld { found: u32 },
    #[error(
        "the data folder was made by PostgreSQL {existing} but version {found} was found; \
         install version {existing} beside it, or choose another `--data-dir`"
    )]
    OtherVersion { existing: u32, found: u32 },
    #[error("`{}` is in use by process {holder}; stop it, or choose another `--data-dir`", .folder.display())]
    InUse { folder: PathBuf, holder: String },
    #[error(
        "PostgreSQL refuses to run as root and there is no user `postgres` or `nobody`; add one"
    )]
    NoUser,
    #[error("the PostgreSQL of an earlier run did not stop; end it with `kill -9 {pid}`")]
    Leftover { pid: i32 },
    #[error("could not {doing} `{}`: {source}; check who owns it and the free space", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("`{program}` failed; mend what it says:\n{said}")]
    Failed { program: &'static str, said: String },
    #[error("PostgreSQL did not become ready in time; look into `{}`", .log.display())]
    Slow { log: PathBuf },
    #[error("PostgreSQL started but refused us: {0}; look into `postgres.log` in the data folder")]
    Refused(#[from] sqlx::Error),
}

/// A running server. `stop` stops it orderly; dropping it stops it at once, as a crash would,
/// which loses nothing that was committed.
pub struct Postgres {
    server: Server,
    port: u16,
    // Last, so that its lock is let go only when the server is gone.
    folder: Folder,
}

impl Postgres {
    /// Starts the server, first making its data folder and stopping the leftover of an earlier run
    /// where needed, and waits until it answers and has the database `rolecall`.
    pub async fn start(options: Options) -> Result<Self, PostgresError> {
        let postgres = blocking(move || launch(&options)).await?;
        let url = postgres.url(DATABASE);
        if !sqlx::Postgres::database_exists(&url).await? {
            sqlx::Postgres::create_database(&url).await?;
        }
        Ok(postgres)
    }

    /// Where a database of this server is reached, as its superuser; the password is in it.
    pub fn url(&self, database: &str) -> String {
        let (password, port) = (&self.folder.password, self.port);
        format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    pub fn superuser_url(&self) -> String {
        self.url(SUPERUSER)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the data really lies: elsewhere than asked when we are root and the server's user
    /// cannot reach the folder.
    pub fn data_dir(&self) -> &Path {
        &self.folder.path
    }

    /// Ends all connections, writes everything out and waits for the server's end.
    pub async fn stop(mut self) -> Result<(), PostgresError> {
        blocking(move || {
            self.server.stop();
            Ok(())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PostgresError> + Send + 'static,
) -> Result<T, PostgresError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|stopped| {
        Err(PostgresError::Failed { program: "the launcher", said: stopped.to_string() })
    })
}

fn launch(options: &Options) -> Result<Postgres, PostgresError> {
    let folder = Folder::open(&options.data_dir, options.durable)?;
    let binaries = binaries::find(options.bin_dir.as_deref(), folder.version())?;
    if folder.version().is_none() {
        initialise(&folder, &binaries, options.durable)?;
    }
    process::stop_leftover(&folder)?;
    let mut tries = if options.port == 0 { PORT_TRIES } else { 1 };
    loop {
        let port = match options.port {
            0 => free_port(&folder)?,
            chosen => chosen,
        };
        tries -= 1;
        match Server::start(&folder, &binaries, port, options.durable) {
            Ok(server) => {
                return Ok(Postgres { server, port, folder });
            }
            // Somebody may have taken the free port between our look and the start.
            Err(PostgresError::Failed { .. }) if tries > 0 => process::pause(),
            Err(error) => return Err(error),
        }
    }
}

fn initialise(folder: &Folder, binaries: &Binaries, durable: bool) -> Result<(), PostgresError> {
    let draft = folder.begin_cluster()?;
    let mut initdb = folder.command(binaries.folder.join("initdb"));
    initdb.arg("--pgdata").arg(&draft).args(["--username", SUPERUSER]);
    initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
    // What is upper and lower case beyond ASCII; the order of texts stays that of their bytes.
    let letters = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };
    initdb.args(["--lc-ctype", letters]);
    initdb.arg("--pwfile").arg(folder.password_file());
    if !durable {
        initdb.arg("--no-sync");
    }
    let output = initdb.output().map_err(|source| folder.error("run initdb in", source))?;
    if output.status.success() {
        return folder.complete_cluster(&draft);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(PostgresError::Failed { program: "initdb", said })
}

fn free_port(folder: &Folder) -> Result<u16, PostgresError> {
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    Ok(address.map_err(|source| folder.error("find a free port for", source))?.port())
}
