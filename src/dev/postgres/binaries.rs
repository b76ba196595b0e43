//! Finds the installed server binaries of PostgreSQL and says which version they are. Starts
//! nothing and installs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;

/// The oldest version whose SQL we may use.
const OLDEST: u32 = 15;

/// Folders of packages, each with one `*` for the version.
const PACKAGED: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
];

/// A folder with `initdb` and `postgres` of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub folder: PathBuf,
    pub version: u32,
}

/// Chooses the binaries: the named folder alone, else the first of `pg_config`, the search path and
/// the packages' folders from the newest. `existing` is the version that a data folder already has.
pub(super) fn find(named: Option<&Path>, existing: Option<u32>) -> Result<Binaries, PostgresError> {
    let folders = match named {
        Some(folder) => vec![folder.to_path_buf()],
        None => candidates(),
    };
    let found: Vec<Binaries> = folders.iter().filter_map(|folder| inspect(folder)).collect();
    let fits = |b: &&Binaries| b.version >= OLDEST && existing.is_none_or(|v| v == b.version);
    if let Some(binaries) = found.iter().find(fits) {
        return Ok(binaries.clone());
    }
    let newest = found.iter().map(|b| b.version).max();
    Err(match (named, existing, newest) {
        (Some(folder), _, None) => PostgresError::NoBinaries { folder: folder.to_path_buf() },
        (_, Some(existing), Some(found)) if found >= OLDEST => {
            PostgresError::OtherVersion { existing, found }
        }
        (_, _, Some(found)) => PostgresError::TooOld { found },
        (None, _, None) => PostgresError::NotInstalled,
    })
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let on_path = said_by("sh", &["-c", "command -v postgres"])
        .and_then(|found| std::fs::canonicalize(found).ok())
        .and_then(|server| server.parent().map(Path::to_path_buf));
    let asked = said_by("pg_config", &["--bindir"]).map(PathBuf::from);
    let mut packaged: Vec<PathBuf> = PACKAGED.iter().flat_map(|p| expand(p)).collect();
    packaged.sort_by_key(|folder| std::cmp::Reverse(inspect(folder).map(|b| b.version)));
    for folder in asked.into_iter().chain(on_path).chain(packaged) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The folders that a pattern with one `*` names.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return Vec::new();
    };
    let Some((parent, prefix)) = before.rsplit_once('/') else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let is_ours = |name: &str| name.starts_with(prefix);
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_ours(name))
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

fn inspect(folder: &Path) -> Option<Binaries> {
    let server = folder.join("postgres");
    if !server.is_file() || !folder.join("initdb").is_file() {
        return None;
    }
    let version = version_in(&said_by(server, &["--version"])?)?;
    Some(Binaries { folder: folder.to_path_buf(), version })
}

/// The major version in a line such as `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version_in(line: &str) -> Option<u32> {
    let number = line.split(") ").nth(1)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn said_by(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn the_version_is_read_from_what_every_package_prints() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(version_in(debian), Some(15));
        assert_eq!(version_in("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(version_in("postgres (PostgreSQL) 17.2 (Homebrew)"), Some(17));
        assert_eq!(version_in("something else"), None);
    }
}
