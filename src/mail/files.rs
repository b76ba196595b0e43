//! Letters kept as files, for a laptop.

use std::{
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use lettre::message::Mailbox;

use super::{
    Letter, Step, Talk,
    compose::{as_written, compose},
};
use crate::error::{Error, Result};

/// A folder with one `.eml` file per letter, readable by its owner only: the letters carry links.
pub struct Files {
    folder: PathBuf,
    from: Mailbox,
}

impl Files {
    pub(super) fn new(folder: PathBuf, from: Mailbox) -> Self {
        Self { folder, from }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) async fn keep(&self, letter: &Letter, talk: &mut Talk) -> Result<()> {
        let message = compose(letter, &self.from, as_written)?.formatted();
        let file = self.folder.join(format!("{}.eml", letter.id));
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, &file, &message));
        match written.await.map_err(Error::internal)? {
            Ok(()) => talk.told(Step::Queued, true, "kept as a file"),
            Err(error) => talk.told(Step::Queued, false, error),
        }
        Ok(())
    }
}

/// Whoever watches the folder sees whole letters only.
fn write(folder: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = file.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&part)?.write_all(bytes)?;
    std::fs::rename(part, file)
}
