//! The state folder: a lock that the kernel holds for the life of a process, so that who takes it next
//! knows that the process before is dead and need not wait for its lease to be over.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::random;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("another process uses the state folder `{}`; give each its own", .0.display())]
    InUse(PathBuf),
    #[error("the state folder `{}` cannot be used: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The lock, held for as long as this lives.
#[derive(Debug)]
pub struct StateFolder {
    _lock: File,
    /// Names the lock in the row of this process.
    pub proof: Uuid,
    /// What it was named in the row of the process before.
    pub predecessor: Option<Uuid>,
}

impl StateFolder {
    /// Takes the lock.
    ///
    /// # Errors
    /// When a living process holds it, or the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let file = folder.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(file)
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(io)?;
        let predecessor = text.trim().parse().ok();
        // A new name each time: a row with the old one is of a process that held the lock before.
        let proof = random::name().map_err(|error| io(io::Error::other(error)))?;
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(io)?;
        lock.write_all(proof.to_string().as_bytes()).map_err(io)?;
        lock.sync_all().map_err(io)?;
        Ok(Self { _lock: lock, proof, predecessor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_names_the_one_before() {
        let folder = std::env::temp_dir().join(format!("rolecall-state-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let first = StateFolder::open(&folder).unwrap();
        assert_eq!(first.predecessor, None);
        assert!(matches!(StateFolder::open(&folder), Err(StateError::InUse(_))));
        let proof = first.proof;
        drop(first);
        let second = StateFolder::open(&folder).unwrap();
        assert_eq!(second.predecessor, Some(proof));
        assert_ne!(second.proof, proof);
        drop(second);
        fs::remove_dir_all(folder).unwrap();
    }
}
