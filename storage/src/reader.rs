//! Reads bytes by address.

use std::fmt;

use crate::recovery::bases;
use crate::segment::{SEGMENT_HEADER_BYTES, name_of};
use crate::{Backend, BackendError, ReadFile};

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No segment has all of these bytes: they are removed, not written yet, or in two segments.
    NotFound,
    /// The backend failed. It may be tried again.
    Failed(BackendError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("the log does not have these bytes"),
            Self::Failed(error) => write!(f, "the log could not be read: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<BackendError> for ReadError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotFound => Self::NotFound,
            error => Self::Failed(error),
        }
    }
}

/// Reads what a log has written, through a backend of its own. It sees bytes as soon as they are
/// written, synced or not, and does not check them: a caller who cannot trust the disk has a
/// checksum in what it reads, or reads [`crate::Frames`].
///
/// The segments are listed when an address is not found in those that are known.
#[derive(Debug)]
pub struct LogReader<B: Backend> {
    backend: B,
    /// Of the known segments, in order.
    bases: Vec<u64>,
    /// Open files by the base of their segment, the one used last at the end.
    open: Vec<(u64, B::File)>,
    files_max: usize,
}

impl<B: Backend> LogReader<B> {
    /// Keeps up to `files_max` files open, and at least one.
    #[must_use]
    pub fn new(backend: B, files_max: usize) -> Self {
        Self { backend, bases: Vec::new(), open: Vec::new(), files_max: files_max.max(1) }
    }

    /// Fills `buffer` with the bytes from `address` on.
    ///
    /// # Errors
    /// `NotFound` unless one segment has all of them, `Failed`. The buffer may have changed.
    pub fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        match self.read_known(address, buffer) {
            Err(ReadError::NotFound) => {
                self.refresh()?;
                self.read_known(address, buffer)
            }
            result => result,
        }
    }

    /// Closes the files of segments that begin before `address`. A file that was removed keeps its
    /// blocks as long as it is open.
    pub fn forget_before(&mut self, address: u64) {
        self.bases.retain(|base| *base >= address);
        self.open.retain(|(base, _)| *base >= address);
    }

    /// Lists the segments, and closes the files of those that are removed.
    fn refresh(&mut self) -> Result<(), ReadError> {
        self.bases = bases(&self.backend)?;
        let bases = &self.bases;
        self.open.retain(|(base, _)| bases.binary_search(base).is_ok());
        Ok(())
    }

    fn read_known(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let before = self.bases.partition_point(|base| *base <= address);
        let Some(&base) = self.bases[..before].last() else { return Err(ReadError::NotFound) };
        let file = self.file(base)?;
        let offset = SEGMENT_HEADER_BYTES + (address - base);
        Ok(file.read(offset, buffer)?)
    }

    fn file(&mut self, base: u64) -> Result<&B::File, ReadError> {
        let file = match self.open.iter().position(|(open, _)| *open == base) {
            Some(index) => self.open.remove(index).1,
            None => self.backend.open(&name_of(base))?,
        };
        if self.open.len() >= self.files_max {
            self.open.remove(0);
        }
        self.open.push((base, file));
        Ok(&self.open[self.open.len() - 1].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Damage, DiskBackend, Log, LogOptions, MemoryBackend, set_address};

    /// A log of so many segments with an empty frame each.
    fn log_of(segments: usize) -> Log<MemoryBackend> {
        let options = LogOptions { segment_bytes: 0, ..LogOptions::default() };
        let (mut log, _) = Log::open(MemoryBackend::new(), options, Damage::Refuse).unwrap();
        for _ in 0..segments {
            let mut frame = vec![0; 32];
            set_address(&mut frame, log.end());
            log.append(&mut [frame]).unwrap();
        }
        log
    }

    fn open_files<B: Backend>(reader: &LogReader<B>) -> Vec<u64> {
        reader.open.iter().map(|(base, _)| *base).collect()
    }

    #[test]
    fn no_more_files_are_open_than_allowed() {
        let log = log_of(4);
        let bases: Vec<_> = log.segments().map(|segment| segment.base).collect();
        for files_max in 0..5 {
            let mut reader = LogReader::new(log.backend().clone(), files_max);
            for base in [0, 1, 2, 0, 3, 0].map(|index: usize| bases[index]) {
                reader.read(base, &mut [0; 32]).unwrap();
                assert_eq!(open_files(&reader).last(), Some(&base));
            }
            assert_eq!(open_files(&reader).len(), files_max.clamp(1, 4));
        }
        let mut reader = LogReader::new(log.backend().clone(), 2);
        for base in [0, 1, 0, 2].map(|index: usize| bases[index]) {
            reader.read(base, &mut [0; 32]).unwrap();
        }
        assert_eq!(open_files(&reader), [bases[0], bases[2]], "the one used longest ago is closed");
    }

    #[test]
    fn removed_files_are_closed() {
        let mut log = log_of(4);
        let mut reader = LogReader::new(log.backend().clone(), 8);
        let bases: Vec<_> = log.segments().map(|segment| segment.base).collect();
        for base in &bases {
            reader.read(*base, &mut [0; 32]).unwrap();
        }
        log.remove_oldest().unwrap();
        assert_eq!(reader.read(log.end(), &mut [0]), Err(ReadError::NotFound));
        assert_eq!(open_files(&reader), bases[1..]);
        log.remove_oldest().unwrap();
        reader.forget_before(log.oldest());
        assert_eq!(open_files(&reader), bases[2..]);
    }

    #[test]
    fn logs_and_readers_can_be_given_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Log<MemoryBackend>>();
        is_send::<Log<DiskBackend>>();
        is_send::<LogReader<MemoryBackend>>();
        is_send::<LogReader<DiskBackend>>();
    }
}
