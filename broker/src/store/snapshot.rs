//! A log as it is at one moment, for those who only look: nothing is written, and a broker that
//! runs on it does not notice.
//!
//! All segments are opened at once and their lengths noted. What is appended later is not seen;
//! what is removed later can still be read, as the files are open. The directory is listed again
//! behind that: if it is the same, no segment has come or gone meanwhile, so that everything alive
//! is in those that are open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use dunlin_storage::{Backend, BackendError, CheckReport, OpenError, ReadFile, check};

/// A directory that changes under every look is looked at so often.
const TRIES: usize = 20;
/// What the names of segments end with.
const SEGMENT_SUFFIX: &str = ".log";

/// The segments of a log, open. It refuses every change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    files: BTreeMap<String, SnapshotFile>,
}

/// A file as long as it was.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    file: Arc<File>,
    bytes: u64,
}

impl ReadFile for SnapshotFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.bytes => self.file.read(offset, buffer),
            _ => Err(BackendError::NotFound),
        }
    }

    fn bytes(&self) -> Result<u64, BackendError> {
        Ok(self.bytes)
    }
}

impl Snapshot {
    /// Opens the segments in `directory` and checks them.
    ///
    /// # Errors
    /// As [`check`]. What is corrupt is in the report.
    pub fn take(directory: &Path) -> Result<(Self, CheckReport), OpenError> {
        let mut last: Option<(Self, CheckReport)> = None;
        for _ in 0..TRIES {
            let Some(snapshot) = Self::open(directory)? else { continue };
            let report = match check(&snapshot) {
                // A write that ran out of space was taken back.
                Err(OpenError::Backend { error: BackendError::NotFound, .. }) => continue,
                report => report?,
            };
            // What is really missing is missing the next time too.
            let is_sure = report.missing.is_empty()
                || last.as_ref().is_some_and(|(_, before)| before.missing == report.missing);
            if is_sure {
                return Ok((snapshot, report));
            }
            last = Some((snapshot, report));
        }
        last.ok_or(OpenError::Backend { file: None, error: BackendError::NotFound })
    }

    /// `None` when the directory has changed meanwhile.
    fn open(directory: &Path) -> Result<Option<Self>, OpenError> {
        let before = listing(directory).map_err(|error| failed(None, &error))?;
        let mut files = BTreeMap::new();
        for name in &before.1 {
            let opened = File::open(directory.join(name));
            match opened.and_then(|file| Ok((file.metadata()?.len(), file))) {
                Ok((bytes, file)) => {
                    files.insert(name.clone(), SnapshotFile { file: Arc::new(file), bytes });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(Some(name.clone()), &error)),
            }
        }
        let after = listing(directory).map_err(|error| failed(None, &error))?;
        Ok((before == after).then_some(Self { files }))
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

/// Which directory it is, and the segments in it.
fn listing(directory: &Path) -> io::Result<(u64, Vec<String>)> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().into_string();
        names.extend(name.ok().filter(|name| name.ends_with(SEGMENT_SUFFIX)));
    }
    names.sort_unstable();
    Ok((std::fs::metadata(directory)?.ino(), names))
}

fn failed(file: Option<String>, error: &io::Error) -> OpenError {
    let error = match error.kind() {
        io::ErrorKind::NotFound => BackendError::NotFound,
        _ => BackendError::Failed(error.raw_os_error()),
    };
    OpenError::Backend { file, error }
}

impl Backend for Snapshot {
    type File = SnapshotFile;

    fn open(&self, name: &str) -> Result<SnapshotFile, BackendError> {
        self.files.get(name).cloned().ok_or(BackendError::NotFound)
    }

    fn names(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.files.keys().cloned().collect())
    }

    fn create(&mut self, _name: &str) -> Result<(), BackendError> {
        Err(BackendError::Failed(None))
    }

    fn append(&mut self, _name: &str, _bytes: &[u8]) -> Result<(), BackendError> {
        Err(BackendError::Failed(None))
    }

    fn truncate(&mut self, _name: &str, _bytes: u64) -> Result<(), BackendError> {
        Err(BackendError::Failed(None))
    }

    fn remove(&mut self, _name: &str) -> Result<(), BackendError> {
        Err(BackendError::Failed(None))
    }

    fn sync(&mut self, _name: &str) -> Result<(), BackendError> {
        Err(BackendError::Failed(None))
    }

    fn sync_names(&mut self) -> Result<(), BackendError> {
        Err(BackendError::Failed(None))
    }
}
