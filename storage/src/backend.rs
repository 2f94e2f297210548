//! What a log needs of the place its segments are in.

use std::fmt;

/// Why a backend did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// There is no file of that name, or no such bytes in it.
    NotFound,
    /// There is a file of that name already.
    Exists,
    /// No space is left. What was there before is intact.
    Full,
    /// The device failed. After a failed sync nobody knows what is on it: stop writing.
    Failed,
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "there is no such file or no such part of it",
            Self::Exists => "there is such a file already",
            Self::Full => "no space is left",
            Self::Failed => "the device failed",
        })
    }
}

impl std::error::Error for BackendError {}

/// A flat directory of files that grow at their end.
///
/// A crash keeps what was synced: the bytes of a file up to its last [`Backend::sync`], and the
/// names as of the last [`Backend::sync_names`]. Of anything later it may keep any part.
pub trait Backend {
    /// Makes an empty file.
    ///
    /// # Errors
    /// `Exists`, `Full`, `Failed`.
    fn create(&mut self, name: &str) -> Result<(), BackendError>;

    /// Appends to a file. On an error none or a part of `bytes` may be there.
    ///
    /// # Errors
    /// `NotFound`, `Full`, `Failed`.
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackendError>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `NotFound` when the file is shorter than that, `Failed`.
    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError>;

    /// Length of a file in bytes.
    ///
    /// # Errors
    /// `NotFound`.
    fn len(&self, name: &str) -> Result<u64, BackendError>;

    /// Cuts a file off behind its first `len` bytes.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    fn truncate(&mut self, name: &str, len: u64) -> Result<(), BackendError>;

    /// Deletes a file.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    fn remove(&mut self, name: &str) -> Result<(), BackendError>;

    /// The names, in order.
    fn names(&self) -> Vec<String>;

    /// Makes the content of a file durable.
    ///
    /// # Errors
    /// `NotFound`; `Failed`, after which nothing may be assumed about the file.
    fn sync(&mut self, name: &str) -> Result<(), BackendError>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// `Failed`.
    fn sync_names(&mut self) -> Result<(), BackendError>;
}
