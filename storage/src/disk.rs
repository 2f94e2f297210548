//! A backend in a directory of a file system.
//!
//! One handle for writing is kept, that of the file written last: a failed sync is told to the
//! handles that were open at the time, so the one that wrote has to be the one that syncs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Backend, BackendError, ReadFile};

/// A directory. It may be opened more than once, to read beside the one that writes.
#[derive(Debug)]
pub struct DiskBackend {
    path: PathBuf,
    directory: File,
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    name: String,
    file: File,
    /// Was cut since its last sync. `fdatasync` promises only the metadata that it takes to find
    /// the data, and a smaller length is not among that everywhere.
    cut: bool,
}

impl DiskBackend {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// When there is none or it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let directory = File::open(&path)?;
        if !directory.metadata()?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(Self { path, directory, writing: None })
    }

    /// The handle that writes to `name`; opened if it is not the file that was written last.
    fn writing(&mut self, name: &str) -> Result<&mut Writing, BackendError> {
        let writing = match self.writing.take() {
            Some(writing) if writing.name == name => writing,
            _ => {
                let file = OpenOptions::new().append(true).open(self.path.join(name));
                Writing { name: name.to_owned(), file: file.map_err(error)?, cut: false }
            }
        };
        Ok(self.writing.insert(writing))
    }
}

/// What an error of the operating system means for the caller.
#[expect(clippy::needless_pass_by_value, reason = "it is an argument of map_err")]
fn error(error: io::Error) -> BackendError {
    match error.kind() {
        ErrorKind::NotFound => BackendError::NotFound,
        ErrorKind::AlreadyExists => BackendError::Exists,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => BackendError::Full,
        _ => BackendError::Failed(error.raw_os_error()),
    }
}

/// A sync that fails has failed, whatever the reason: it is never `Full`, which could be tried
/// again.
#[expect(clippy::needless_pass_by_value, reason = "it is an argument of map_err")]
fn sync_error(error: io::Error) -> BackendError {
    BackendError::Failed(error.raw_os_error())
}

impl Backend for DiskBackend {
    type File = File;

    fn create(&mut self, name: &str) -> Result<(), BackendError> {
        let options = OpenOptions::new().append(true).create_new(true).to_owned();
        let file = options.open(self.path.join(name)).map_err(error)?;
        self.writing = Some(Writing { name: name.to_owned(), file, cut: false });
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        self.writing(name)?.file.write_all(bytes).map_err(error)
    }

    fn open(&self, name: &str) -> Result<File, BackendError> {
        File::open(self.path.join(name)).map_err(error)
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), BackendError> {
        let writing = self.writing(name)?;
        if writing.file.metadata().map_err(error)?.len() > bytes {
            writing.file.set_len(bytes).map_err(error)?;
            writing.cut = true;
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), BackendError> {
        // An open handle would keep its blocks.
        self.writing.take_if(|writing| writing.name == name);
        fs::remove_file(self.path.join(name)).map_err(error)
    }

    fn names(&self) -> Result<Vec<String>, BackendError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error)? {
            names.extend(entry.map_err(error)?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync(&mut self, name: &str) -> Result<(), BackendError> {
        let writing = self.writing(name)?;
        if writing.cut {
            writing.file.sync_all().map_err(sync_error)?;
            writing.cut = false;
            return Ok(());
        }
        writing.file.sync_data().map_err(sync_error)
    }

    fn sync_names(&mut self) -> Result<(), BackendError> {
        self.directory.sync_all().map_err(sync_error)
    }
}

impl ReadFile for File {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        self.read_exact_at(buffer, offset).map_err(|failed| match failed.kind() {
            ErrorKind::UnexpectedEof => BackendError::NotFound,
            _ => error(failed),
        })
    }

    fn bytes(&self) -> Result<u64, BackendError> {
        Ok(self.metadata().map_err(error)?.len())
    }
}
