//! A backend in memory that crashes on demand.

use std::collections::BTreeMap;

use crate::{Backend, BackendError};

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// How much of it a crash keeps for certain.
    synced: usize,
}

/// Files in memory. Keeps what a disk would keep at a crash, and fails when a test says so.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    files: BTreeMap<String, File>,
    /// The names as of the last [`Backend::sync_names`], with what their files held durably.
    durable: BTreeMap<String, Vec<u8>>,
    capacity: Option<usize>,
    /// Syncs that still succeed.
    syncs_left: Option<usize>,
}

impl MemoryBackend {
    /// Empty and without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes no more than so many bytes from now on.
    pub fn limit_capacity(&mut self, bytes: usize) {
        self.capacity = Some(bytes);
    }

    /// Lets so many syncs succeed, and fails every later one.
    pub fn fail_syncs_after(&mut self, count: usize) {
        self.syncs_left = Some(count);
    }

    /// The power goes. What was synced is there afterwards; of what was not, `keep` says for each
    /// file how many of its later bytes happened to reach the disk.
    pub fn crash(&mut self, mut keep: impl FnMut(&str, usize) -> usize) {
        let mut survivors = BTreeMap::new();
        for (name, durable) in &self.durable {
            let bytes = match self.files.get(name) {
                Some(file) => {
                    let unsynced = file.bytes.len() - file.synced;
                    let kept = file.synced + keep(name, unsynced).min(unsynced);
                    file.bytes[..kept].to_vec()
                }
                // Removed, but the removal was not synced.
                None => durable.clone(),
            };
            survivors.insert(name.clone(), File { synced: bytes.len(), bytes });
        }
        self.durable =
            survivors.iter().map(|(name, file)| (name.clone(), file.bytes.clone())).collect();
        self.files = survivors;
        (self.capacity, self.syncs_left) = (None, None);
    }

    fn file(&self, name: &str) -> Result<&File, BackendError> {
        self.files.get(name).ok_or(BackendError::NotFound)
    }

    fn file_mut(&mut self, name: &str) -> Result<&mut File, BackendError> {
        self.files.get_mut(name).ok_or(BackendError::NotFound)
    }

    fn take_sync(&mut self) -> Result<(), BackendError> {
        match &mut self.syncs_left {
            Some(0) => Err(BackendError::Failed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Backend for MemoryBackend {
    fn create(&mut self, name: &str) -> Result<(), BackendError> {
        if self.files.contains_key(name) {
            return Err(BackendError::Exists);
        }
        self.files.insert(name.to_owned(), File::default());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        let used: usize = self.files.values().map(|file| file.bytes.len()).sum();
        let room = self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used));
        let file = self.file_mut(name)?;
        // A disk that fills in the middle of a write has written its beginning.
        file.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(BackendError::Full) } else { Ok(()) }
    }

    fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let offset = usize::try_from(offset).map_err(|_| BackendError::NotFound)?;
        let end = offset.checked_add(buffer.len()).ok_or(BackendError::NotFound)?;
        let bytes = self.file(name)?.bytes.get(offset..end).ok_or(BackendError::NotFound)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn len(&self, name: &str) -> Result<u64, BackendError> {
        Ok(self.file(name)?.bytes.len() as u64)
    }

    fn truncate(&mut self, name: &str, len: u64) -> Result<(), BackendError> {
        let file = self.file_mut(name)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        file.bytes.truncate(len);
        file.synced = file.synced.min(len);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), BackendError> {
        self.files.remove(name).map(|_| ()).ok_or(BackendError::NotFound)
    }

    fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    fn sync(&mut self, name: &str) -> Result<(), BackendError> {
        self.file(name)?;
        self.take_sync()?;
        let file = self.file_mut(name)?;
        file.synced = file.bytes.len();
        let bytes = file.bytes.clone();
        if let Some(durable) = self.durable.get_mut(name) {
            *durable = bytes;
        }
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), BackendError> {
        self.take_sync()?;
        let durable =
            |(name, file): (&String, &File)| (name.clone(), file.bytes[..file.synced].to_vec());
        self.durable = self.files.iter().map(durable).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(bytes: &[u8]) -> MemoryBackend {
        let mut backend = MemoryBackend::new();
        backend.create("a").unwrap();
        backend.sync_names().unwrap();
        backend.append("a", bytes).unwrap();
        backend
    }

    fn content(backend: &MemoryBackend, name: &str) -> Vec<u8> {
        let mut buffer = vec![0; backend.len(name).unwrap() as usize];
        backend.read(name, 0, &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_perhaps_more() {
        let mut backend = with_file(b"safe");
        backend.sync("a").unwrap();
        backend.append("a", b"lost").unwrap();
        let mut torn = backend.clone();
        backend.crash(|_, _| 0);
        assert_eq!(content(&backend, "a"), b"safe");
        torn.crash(|_, unsynced| unsynced / 2);
        assert_eq!(content(&torn, "a"), b"safelo");
    }

    #[test]
    fn a_crash_forgets_names_that_were_not_synced() {
        let mut backend = with_file(b"x");
        backend.sync("a").unwrap();
        backend.create("b").unwrap();
        backend.sync("b").unwrap();
        backend.remove("a").unwrap();
        backend.crash(|_, _| 0);
        assert_eq!(backend.names(), ["a"]);
        assert_eq!(content(&backend, "a"), b"x");
    }

    #[test]
    fn a_full_disk_takes_the_beginning_and_says_so() {
        let mut backend = with_file(b"12345");
        backend.limit_capacity(8);
        assert_eq!(backend.append("a", b"67890"), Err(BackendError::Full));
        assert_eq!(content(&backend, "a"), b"12345678");
        backend.truncate("a", 5).unwrap();
        assert_eq!(backend.append("a", b"678"), Ok(()));
    }

    #[test]
    fn a_failed_sync_makes_nothing_durable() {
        let mut backend = with_file(b"x");
        backend.fail_syncs_after(0);
        assert_eq!(backend.sync("a"), Err(BackendError::Failed));
        backend.crash(|_, _| 0);
        assert_eq!(content(&backend, "a"), b"");
    }

    #[test]
    fn reading_beyond_the_end_is_an_error() {
        let backend = with_file(b"x");
        assert_eq!(backend.read("a", 1, &mut [0]), Err(BackendError::NotFound));
        assert_eq!(backend.read("a", u64::MAX, &mut [0]), Err(BackendError::NotFound));
        assert_eq!(backend.read("b", 0, &mut []), Err(BackendError::NotFound));
    }
}
