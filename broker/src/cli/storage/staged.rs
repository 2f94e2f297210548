//! A log that is made beside the one in use, and takes its place once it is complete.
//!
//! `log` is a whole log at any moment: the two are exchanged in one step, which a crash leaves done
//! or not done. `log.new` is never needed: it is a log that was not finished, or the one from
//! before. The next one that is made removes it.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use dunlin_storage::DiskBackend;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::Outcome;
use super::directory::DataDirectory;

const STAGED_DIRECTORY: &str = "log.new";

/// The directory of such a log. Whoever makes it holds the lock of the data directory.
pub(super) struct Staged {
    data: PathBuf,
    log: PathBuf,
    pub(super) path: PathBuf,
}

impl Staged {
    /// An empty directory.
    pub(super) fn begin(directory: &DataDirectory<'_>) -> Outcome<Self> {
        let path = directory.path.join(STAGED_DIRECTORY);
        let staged = Self { data: directory.path.clone(), log: directory.log(), path };
        if staged.log.is_symlink() {
            // The link would be exchanged, and the log end up on another device.
            return Err(format!("{} is a symbolic link", staged.log.display()).into());
        }
        staged.remove()?;
        std::fs::create_dir(&staged.path)?;
        Ok(staged)
    }

    pub(super) fn backend(&self) -> io::Result<DiskBackend> {
        DiskBackend::open(&self.path)
    }

    /// Removes the directory and what is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Makes this the log, and removes the one there was. What is in it has been synced.
    pub(super) fn put_in_place(&self) -> Outcome<()> {
        let data = File::open(&self.data)?;
        data.sync_all()?;
        if self.log.exists() {
            match renameat_with(CWD, &self.path, CWD, &self.log, RenameFlags::EXCHANGE) {
                // In two steps there would be a moment without a log, after which a broker would
                // begin a new one.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    return Err("this file system cannot exchange two directories in one step; a \
                                broker that runs compacts without that"
                        .into());
                }
                result => result?,
            }
        } else {
            std::fs::rename(&self.path, &self.log)?;
        }
        data.sync_all()?;
        Ok(self.remove()?)
    }
}
