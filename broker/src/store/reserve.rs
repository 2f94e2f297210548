//! Space on the device that is kept for the log: a file of its own, which is given up when another
//! program has taken all that was free. With it the log goes on long enough to make room for itself
//! by cleaning up; the free space that is demanded of the device is nobody's.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The file beside the segments.
const NAME: &str = "reserve";
/// Its size at most.
const BYTES_MAX: u64 = 16 << 20;
/// And its part of the space that has to be free.
const PART: u64 = 4;

/// The file, or its place.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_there: bool,
}

impl Reserve {
    /// In the directory of the log, where `free_min` bytes have to be free.
    pub(super) fn new(directory: &Path, free_min: u64) -> Self {
        let (path, bytes) = (directory.join(NAME), BYTES_MAX.min(free_min / PART));
        let is_there = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes);
        Self { path, bytes, is_there }
    }

    /// Makes the file when there is so much more free than has to be.
    pub(super) fn refill(&mut self, above_min: u64) {
        if self.is_there || self.bytes == 0 || above_min < 2 * self.bytes {
            return;
        }
        self.is_there = true;
        if let Err(error) = self.make() {
            // Not every file system has that; it is not tried again.
            tracing::debug!(%error, "no space is reserved for the log");
            self.bytes = 0;
            self.give_up();
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&self.path)?;
        Ok(fallocate(file, FallocateFlags::empty(), 0, self.bytes)?)
    }

    /// Removes the file. Says whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        std::mem::take(&mut self.is_there) && fs::remove_file(&self.path).is_ok()
    }
}
