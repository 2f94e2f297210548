//! What a log needs of the place its segments are in.

use std::{fmt, io};

/// Why a backend did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// There is no file of that name, or no such bytes in it.
    NotFound,
    /// There is a file of that name already.
    Exists,
    /// No space is left. What was there before is intact.
    Full,
    /// The device failed, with the error number of the operating system where there is one. After a
    /// failed sync nobody knows what is on it: stop writing.
    Failed(Option<i32>),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such file or no such part of it"),
            Self::Exists => f.write_str("there is such a file already"),
            Self::Full => f.write_str("no space is left"),
            Self::Failed(None) => f.write_str("the device failed"),
            Self::Failed(Some(code)) => {
                write!(f, "the device failed: {}", io::Error::from_raw_os_error(*code))
            }
        }
    }
}

impl std::error::Error for BackendError {}

/// A file that is open for reading.
pub trait ReadFile {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `NotFound` when the file is shorter than that, `Failed`.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    fn bytes(&self) -> Result<u64, BackendError>;
}

/// A flat directory of files that grow at their end.
///
/// A crash keeps what was synced: the bytes of a file up to its last [`Backend::sync`], and the
/// names as of the last [`Backend::sync_names`]. Of anything later it may keep any part, in any
/// order.
pub trait Backend {
    /// What [`Backend::open`] gives.
    type File: ReadFile;

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

    /// Opens a file for reading. It sees what is appended later.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    fn open(&self, name: &str) -> Result<Self::File, BackendError>;

    /// Cuts a file off behind its first `bytes` bytes; nothing happens to one that is shorter.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), BackendError>;

    /// Deletes a file.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    fn remove(&mut self, name: &str) -> Result<(), BackendError>;

    /// The names, in order.
    ///
    /// # Errors
    /// `Failed`.
    fn names(&self) -> Result<Vec<String>, BackendError>;

    /// Makes the content of a file durable, its length included.
    ///
    /// # Errors
    /// `NotFound`; any other one means that nothing may be assumed about the file.
    fn sync(&mut self, name: &str) -> Result<(), BackendError>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// Any one means that nothing may be assumed about the names.
    fn sync_names(&mut self) -> Result<(), BackendError>;
}
