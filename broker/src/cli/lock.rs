//! The lock of a data directory: whoever writes there holds it, so it also tells whether a broker
//! runs.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The file that is locked. What is in it does not matter.
pub(super) const LOCK_FILE: &str = "dunlin.lock";

/// Takes the lock of a directory that exists, until the file is closed. `None` when somebody else
/// has it.
pub(super) fn try_lock(directory: &Path) -> Result<Option<File>, Box<dyn Error>> {
    let failed = |problem: &dyn std::fmt::Display| {
        format!("cannot write to the data directory {}: {problem}", directory.display())
    };
    let file = File::create(directory.join(LOCK_FILE)).map_err(|error| failed(&error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(&error).into()),
    }
}
