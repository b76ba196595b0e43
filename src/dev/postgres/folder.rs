//! The data folder: its lock, its password and the user who runs the server in it. It must not
//! change what it did not make.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};
use sha2::{Digest, Sha256};

use super::PostgresError;

/// Where root keeps the data of folders that the server's user cannot reach.
const REACHABLE: &str = "/var/lib/rolecall";

/// An opened data folder, ours as long as this lives.
pub(super) struct Folder {
    pub path: PathBuf,
    pub password: String,
    run_as: Option<Account>,
    _lock: Lock,
}

/// That the folder is ours. Let go of at once: a program that another thread starts just then has the
/// file open, too, and would hold it a moment longer.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

/// A user and its main group.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Folder {
    pub fn open(asked: &Path, durable: bool) -> Result<Self, PostgresError> {
        let asked = std::path::absolute(asked).map_err(|e| error("find", asked, e))?;
        let run_as = account(&asked)?;
        let path = match run_as {
            Some(account) if !account.reaches(&asked) => elsewhere(&asked, durable),
            _ => asked,
        };
        make(&path, run_as.is_some()).map_err(|e| error("make", &path, e))?;
        let lock = Lock(lock(&path)?);
        let password =
            password(&path, run_as).map_err(|e| error("keep a password in", &path, e))?;
        Ok(Self { path, password, run_as, _lock: lock })
    }

    /// PostgreSQL's own data inside the folder.
    pub fn cluster(&self) -> PathBuf {
        cluster(&self.path)
    }

    /// An empty folder for `initdb`; only its completed work becomes the cluster.
    pub fn begin_cluster(&self) -> Result<PathBuf, PostgresError> {
        let draft = self.path.join("cluster.new");
        let made = || {
            fs::remove_dir_all(&draft).or_else(absent)?;
            fs::create_dir(&draft)?;
            fs::set_permissions(&draft, Permissions::from_mode(0o700))?;
            match self.run_as {
                Some(Account { uid, gid }) => chown(&draft, Some(uid), Some(gid)),
                None => Ok(()),
            }
        };
        made().map_err(|e| error("make", &draft, e))?;
        Ok(draft)
    }

    pub fn complete_cluster(&self, draft: &Path) -> Result<(), PostgresError> {
        fs::rename(draft, self.cluster()).map_err(|e| error("rename", draft, e))
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// An empty log that others cannot read: PostgreSQL writes values into it.
    pub fn new_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(self.log())
    }

    pub fn password_file(&self) -> PathBuf {
        password_file(&self.path)
    }

    /// The major version that made the data; `None` before the first use.
    pub fn version(&self) -> Option<u32> {
        fs::read_to_string(self.cluster().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// A program run as the server's user, in a process group of its own so that Ctrl-C reaches
    /// only us, and with nothing of our environment, which may hold secrets.
    pub fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.current_dir(&self.path).process_group(0);
        if let Some(Account { uid, gid }) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub fn error(&self, doing: &'static str, source: io::Error) -> PostgresError {
        error(doing, &self.path, source)
    }
}

impl Account {
    /// Whether the account may pass through every folder on the way; missing ones we make.
    fn reaches(self, path: &Path) -> bool {
        let passes = |found: Metadata| {
            let bit = match (found.uid() == self.uid, found.gid() == self.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            found.mode() & bit != 0
        };
        path.ancestors().filter_map(|folder| fs::metadata(folder).ok()).all(passes)
    }
}

fn cluster(path: &Path) -> PathBuf {
    path.join("cluster")
}

fn password_file(path: &Path) -> PathBuf {
    path.join("password")
}

fn error(doing: &'static str, path: &Path, source: io::Error) -> PostgresError {
    PostgresError::Io { doing, path: path.to_path_buf(), source }
}

/// Whom root runs the server as: the owner of the data, else `postgres`, else `nobody`.
fn account(path: &Path) -> Result<Option<Account>, PostgresError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    if let Ok(data) = fs::metadata(cluster(path))
        && data.uid() != 0
    {
        return Ok(Some(Account { uid: data.uid(), gid: data.gid() }));
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
        .ok_or(PostgresError::NoUser)
}

fn elsewhere(asked: &Path, durable: bool) -> PathBuf {
    let digest = Sha256::digest(asked.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if durable {
        Path::new(REACHABLE).join(name)
    } else {
        Path::new("/tmp").join(format!("rolecall-{name}"))
    }
}

/// Makes the folder, private to us; the server's user may pass through it when it is another.
fn make(path: &Path, passable: bool) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder)?;
        let mode = if passable { 0o711 } else { 0o700 };
        fs::set_permissions(folder, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Takes the folder for this process; the system lets go of it when we die.
fn lock(path: &Path) -> Result<File, PostgresError> {
    let open = || {
        let file = path.join("lock");
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(file)
    };
    let mut file = open().map_err(|e| error("lock", path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).ok();
            return Err(PostgresError::InUse { folder: path.to_path_buf(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(error("lock", path, e)),
    }
    let note = std::process::id().to_string();
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(note.as_bytes()))
        .map_err(|e| error("lock", path, e))?;
    Ok(file)
}

/// The password of the data's superuser, made anew as long as there is no data.
fn password(path: &Path, run_as: Option<Account>) -> io::Result<String> {
    let file = password_file(path);
    if cluster(path).exists() {
        return fs::read_to_string(file);
    }
    let password = random()?;
    // Of a first use that was cut short, perhaps as another user.
    fs::remove_file(&file).or_else(absent)?;
    let mut new = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&file)?;
    new.write_all(password.as_bytes())?;
    if let Some(Account { uid, gid }) = run_as {
        chown(&file, Some(uid), Some(gid))?;
    }
    Ok(password)
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[expect(clippy::disallowed_methods, reason = "made before the App exists, which owns `Random`")]
fn random() -> io::Result<String> {
    let mut bytes = [0u8; 24];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
