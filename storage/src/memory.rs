//! A backend in memory that crashes on demand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Backend, BackendError, ReadFile};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The content of a file. On the disk for certain are the first `kept` bytes, less what was
/// dropped, followed by `old`.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    kept: usize,
    /// What was cut off behind `kept` since the last sync.
    old: Vec<u8>,
    /// What failed syncs dropped. It reads as if it were there, and no later sync can
    /// make it durable.
    dropped: Vec<Range<usize>>,
}

/// Where the sector of the byte at `from` ends, or `to` if that comes first.
fn sector_end(from: usize, to: usize) -> usize {
    to.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES)
}

impl Content {
    fn truncate(&mut self, len: usize) {
        if len < self.kept {
            let dropped = |at: usize| self.dropped.iter().any(|dropped| dropped.contains(&at));
            let on_disk = (len..self.kept).map(|at| if dropped(at) { 0 } else { self.bytes[at] });
            self.old.splice(..0, on_disk);
            self.kept = len;
        }
        self.bytes.truncate(len);
        for dropped in &mut self.dropped {
            dropped.end = dropped.end.min(len);
        }
        self.dropped.retain(|dropped| !dropped.is_empty());
    }

    fn sync(&mut self) {
        self.kept = self.bytes.len();
        self.old.clear();
    }

    /// What a kernel does with pages that it could not write: it takes them for written.
    fn drop_unsynced(&mut self) {
        self.dropped.push(self.kept..self.bytes.len());
    }

    /// Leaves what a crash leaves. See [`MemoryBackend::crash_with`] about `choose`.
    fn crash(&mut self, choose: &mut impl FnMut(usize) -> usize) {
        let synced = self.kept + self.old.len();
        let longest = synced.max(self.bytes.len());
        let len = match choose(4) {
            0 => synced,
            1 => self.bytes.len(),
            _ => self.kept + choose(longest - self.kept + 1),
        };
        let mut after = self.bytes[..self.kept].to_vec();
        for dropped in &self.dropped {
            let (mut from, end) = (dropped.start, dropped.end.min(self.kept));
            while from < end {
                let to = sector_end(from, end);
                if choose(2) == 0 {
                    after[from..to].fill(0);
                }
                from = to;
            }
        }
        while after.len() < len {
            let from = after.len();
            let to = sector_end(from, len);
            let (source, skipped) =
                if choose(2) == 1 { (&self.bytes, 0) } else { (&self.old, self.kept) };
            let range = from - skipped..to - skipped;
            after.extend(range.map(|at| source.get(at).copied().unwrap_or(0)));
        }
        *self = Self { kept: after.len(), bytes: after, ..Self::default() };
    }
}

/// What fails, and when.
#[derive(Clone, Debug, Default)]
struct Faults {
    capacity: Option<usize>,
    /// Syncs that still succeed before one fails.
    syncs: Option<usize>,
    /// Appends that still succeed before one fails, and how many bytes of that one are written.
    appends: Option<(usize, usize)>,
    /// Changes that are still made before the power goes.
    changes: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    names: BTreeMap<String, u64>,
    contents: BTreeMap<u64, Content>,
    next_id: u64,
    /// What each name stood for that has changed since the last sync of the names, oldest first.
    renamed: BTreeMap<String, Vec<Option<u64>>>,
    faults: Faults,
    syncs: u64,
}

impl Disk {
    fn content(&self, name: &str) -> Result<&Content, BackendError> {
        let id = self.names.get(name).ok_or(BackendError::NotFound)?;
        self.contents.get(id).ok_or(BackendError::NotFound)
    }

    fn content_mut(&mut self, name: &str) -> Result<&mut Content, BackendError> {
        let id = self.names.get(name).ok_or(BackendError::NotFound)?;
        self.contents.get_mut(id).ok_or(BackendError::NotFound)
    }

    /// Everything that changes the disk asks here.
    fn take_change(&mut self) -> Result<(), BackendError> {
        match &mut self.faults.changes {
            Some(0) => return Err(BackendError::Failed(None)),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn take_sync(&mut self) -> Result<(), BackendError> {
        self.syncs += 1;
        match self.faults.syncs {
            Some(0) => {
                self.faults.syncs = None;
                return Err(BackendError::Failed(None));
            }
            Some(left) => self.faults.syncs = Some(left - 1),
            None => {}
        }
        Ok(())
    }

    /// How much of an append is written before it fails, and how it fails.
    fn take_append(&mut self, bytes: usize) -> (usize, Result<(), BackendError>) {
        if let Err(error) = self.take_change() {
            return (0, Err(error));
        }
        match self.faults.appends {
            Some((0, kept)) => {
                self.faults.appends = None;
                return (bytes.min(kept), Err(BackendError::Failed(None)));
            }
            Some((left, kept)) => self.faults.appends = Some((left - 1, kept)),
            None => {}
        }
        let Some(capacity) = self.faults.capacity else { return (bytes, Ok(())) };
        let used: usize = self
            .names
            .values()
            .filter_map(|id| self.contents.get(id))
            .map(|content| content.bytes.len())
            .sum();
        let room = capacity.saturating_sub(used);
        (bytes.min(room), if bytes > room { Err(BackendError::Full) } else { Ok(()) })
    }

    /// Has a name stand for something else.
    fn rename(&mut self, name: &str, id: Option<u64>) {
        let before = match id {
            Some(id) => self.names.insert(name.to_owned(), id),
            None => self.names.remove(name),
        };
        self.renamed.entry(name.to_owned()).or_insert_with(|| vec![before]).push(id);
    }

    fn forget_nameless(&mut self) {
        let Self { names, contents, .. } = self;
        contents.retain(|id, _| names.values().any(|named| named == id));
    }

    fn crash(&mut self, choose: &mut impl FnMut(usize) -> usize) {
        for (name, states) in std::mem::take(&mut self.renamed) {
            match states[choose(states.len())] {
                Some(id) => self.names.insert(name, id),
                None => self.names.remove(&name),
            };
        }
        self.forget_nameless();
        for content in self.contents.values_mut() {
            content.crash(choose);
        }
        self.faults = Faults::default();
    }
}

/// Files in memory. Keeps what a disk would keep at a crash, and fails when a test says so. The
/// same calls always give the same. A clone is another handle to the same files.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    disk: Arc<Mutex<Disk>>,
}

impl MemoryBackend {
    /// Empty and without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Files of their own that are as these are now, what is not synced included.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk.lock().clone())) }
    }

    /// Takes no more than so many bytes from now on, all files together; `None` for any number.
    pub fn limit_capacity(&self, bytes: Option<usize>) {
        self.disk.lock().faults.capacity = bytes;
    }

    /// Lets so many syncs succeed, of content or names, and fails the one after. The bytes that one
    /// was to make durable never are: they read as before, but a crash may lose them even after a
    /// later sync of the file that succeeds.
    pub fn fail_sync_after(&self, count: usize) {
        self.disk.lock().faults.syncs = Some(count);
    }

    /// Lets so many appends succeed; of the one after, `kept` bytes are written before it fails.
    pub fn fail_append_after(&self, count: usize, kept: usize) {
        self.disk.lock().faults.appends = Some((count, kept));
    }

    /// The power goes after so many more changes: everything that changes or syncs anything fails
    /// from then on, until [`MemoryBackend::crash`]. With a later `stop_after(usize::MAX)` instead,
    /// only the process was killed, and the disk has what was written.
    pub fn stop_after(&self, changes: usize) {
        self.disk.lock().faults.changes = Some(changes);
    }

    /// The power goes. What was synced is there afterwards. Of the rest, each creation and each
    /// removal survives or does not; each sector of 512 bytes of a file reached the disk or did not
    /// (it is zeros then, or what had been there); and the file ends anywhere in its unsynced part.
    /// All limits and failures are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut random = seed;
        self.crash_with(|below| {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = random;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % below as u64) as usize
        });
    }

    /// As [`MemoryBackend::crash`], with the choices taken by `choose`: it is given a number and
    /// answers one below it. Always 0 means that nothing survives that was not synced.
    pub fn crash_with(&self, mut choose: impl FnMut(usize) -> usize) {
        self.disk.lock().crash(&mut choose);
    }

    /// Flips the bits of `mask` in one byte of a file, on the disk too.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        let byte = disk.content_mut(name)?.bytes.get_mut(offset);
        *byte.ok_or(BackendError::NotFound)? ^= mask;
        Ok(())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn content(&self, name: &str) -> Result<Vec<u8>, BackendError> {
        Ok(self.disk.lock().content(name)?.bytes.clone())
    }

    /// Syncs so far, of content and names.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }
}

impl Backend for MemoryBackend {
    type File = MemoryFile;

    fn create(&mut self, name: &str) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        disk.take_change()?;
        if disk.names.contains_key(name) {
            return Err(BackendError::Exists);
        }
        let id = disk.next_id;
        disk.next_id += 1;
        disk.contents.insert(id, Content::default());
        disk.rename(name, Some(id));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        disk.content(name)?;
        // A disk that fills in the middle of a write has written its beginning.
        let (written, result) = disk.take_append(bytes.len());
        disk.content_mut(name)?.bytes.extend_from_slice(&bytes[..written]);
        result
    }

    fn open(&self, name: &str) -> Result<MemoryFile, BackendError> {
        let id = *self.disk.lock().names.get(name).ok_or(BackendError::NotFound)?;
        Ok(MemoryFile { disk: Arc::clone(&self.disk), id })
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        disk.take_change()?;
        disk.content_mut(name)?.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        disk.take_change()?;
        disk.content(name)?;
        disk.rename(name, None);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.disk.lock().names.keys().cloned().collect())
    }

    fn sync(&mut self, name: &str) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        disk.content(name)?;
        disk.take_change()?;
        let result = disk.take_sync();
        let content = disk.content_mut(name)?;
        if result.is_ok() {
            content.sync();
        } else {
            content.drop_unsynced();
        }
        result
    }

    fn sync_names(&mut self) -> Result<(), BackendError> {
        let mut disk = self.disk.lock();
        disk.take_change()?;
        disk.take_sync()?;
        if !disk.renamed.is_empty() {
            disk.renamed.clear();
            disk.forget_nameless();
        }
        Ok(())
    }
}

/// An open file of a [`MemoryBackend`].
#[derive(Debug)]
pub struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
}

impl ReadFile for MemoryFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BackendError> {
        let disk = self.disk.lock();
        let content = disk.contents.get(&self.id).ok_or(BackendError::NotFound)?;
        let offset = usize::try_from(offset).map_err(|_| BackendError::NotFound)?;
        let end = offset.checked_add(buffer.len()).ok_or(BackendError::NotFound)?;
        buffer.copy_from_slice(content.bytes.get(offset..end).ok_or(BackendError::NotFound)?);
        Ok(())
    }

    fn bytes(&self) -> Result<u64, BackendError> {
        let disk = self.disk.lock();
        Ok(disk.contents.get(&self.id).ok_or(BackendError::NotFound)?.bytes.len() as u64)
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

    /// All that survived somewhere in a thousand crashes of copies of `backend`.
    fn outcomes<T: Ord>(backend: &MemoryBackend, seen: impl Fn(&MemoryBackend) -> T) -> Vec<T> {
        let after = |seed| {
            let copy = backend.fork();
            copy.crash(seed);
            seen(&copy)
        };
        let mut outcomes: Vec<T> = (0..1000).map(after).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        outcomes
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_perhaps_more() {
        let mut backend = with_file(b"safe");
        backend.sync("a").unwrap();
        backend.append("a", b"12").unwrap();
        let contents = outcomes(&backend, |copy| copy.content("a").unwrap());
        let expected: [&[u8]; 5] = [b"safe", b"safe\0", b"safe\0\0", b"safe1", b"safe12"];
        assert_eq!(contents, expected);
        backend.crash_with(|_| 0);
        assert_eq!(backend.content("a").unwrap(), b"safe");
    }

    #[test]
    fn sectors_reach_the_disk_in_any_order() {
        let backend = with_file(&[1; 2 * SECTOR_BYTES]);
        let corners = outcomes(&backend, |copy| {
            let content = copy.content("a").unwrap();
            (content.len() == 2 * SECTOR_BYTES).then(|| (content[0], content[SECTOR_BYTES]))
        });
        assert_eq!(corners, [None, Some((0, 0)), Some((0, 1)), Some((1, 0)), Some((1, 1))]);
    }

    #[test]
    fn a_crash_brings_back_what_was_cut_off_until_that_is_synced() {
        let mut backend = with_file(b"1234");
        backend.sync("a").unwrap();
        backend.truncate("a", 3).unwrap();
        backend.truncate("a", 2).unwrap();
        backend.append("a", b"x").unwrap();
        let contents = outcomes(&backend, |copy| copy.content("a").unwrap());
        assert!(contents.contains(&b"1234".to_vec()));
        assert!(contents.contains(&b"12x".to_vec()));
        backend.sync("a").unwrap();
        assert_eq!(outcomes(&backend, |copy| copy.content("a").unwrap()), [b"12x"]);
    }

    #[test]
    fn creations_and_removals_survive_one_by_one() {
        let mut backend = with_file(b"x");
        backend.sync("a").unwrap();
        backend.create("b").unwrap();
        backend.sync("b").unwrap();
        backend.remove("a").unwrap();
        let names = outcomes(&backend, |copy| copy.names().unwrap().concat());
        assert_eq!(names, ["", "a", "ab", "b"]);
        backend.sync_names().unwrap();
        assert_eq!(outcomes(&backend, |copy| copy.names().unwrap().concat()), ["b"]);
    }

    #[test]
    fn a_removed_file_that_comes_back_has_its_content() {
        let mut backend = with_file(b"x");
        backend.sync("a").unwrap();
        backend.remove("a").unwrap();
        backend.create("a").unwrap();
        backend.crash_with(|_| 0);
        assert_eq!(backend.content("a").unwrap(), b"x");
    }

    #[test]
    fn a_full_disk_takes_the_beginning_and_says_so() {
        let mut backend = with_file(b"12345");
        backend.limit_capacity(Some(8));
        assert_eq!(backend.append("a", b"67890"), Err(BackendError::Full));
        assert_eq!(backend.content("a").unwrap(), b"12345678");
        backend.truncate("a", 5).unwrap();
        assert_eq!(backend.append("a", b"678"), Ok(()));
    }

    #[test]
    fn a_failed_sync_makes_nothing_durable() {
        let mut backend = with_file(b"x");
        backend.fail_sync_after(0);
        assert_eq!(backend.sync("a"), Err(BackendError::Failed(None)));
        backend.crash_with(|_| 0);
        assert_eq!(backend.content("a").unwrap(), b"");
    }

    #[test]
    fn what_a_failed_sync_dropped_is_never_durable() {
        let mut backend = with_file(b"safe");
        backend.sync("a").unwrap();
        backend.append("a", b"12").unwrap();
        backend.fail_sync_after(0);
        assert!(backend.sync("a").is_err());
        backend.append("a", b"34").unwrap();
        assert_eq!(backend.sync("a"), Ok(()));
        assert_eq!(backend.content("a").unwrap(), b"safe1234");
        let contents = outcomes(&backend, |copy| copy.content("a").unwrap());
        assert_eq!(contents, [b"safe\x00\x0034", b"safe1234"]);
        // What is written in its place is durable as usual.
        backend.truncate("a", 4).unwrap();
        backend.append("a", b"56").unwrap();
        backend.sync("a").unwrap();
        assert_eq!(outcomes(&backend, |copy| copy.content("a").unwrap()), [b"safe56"]);
    }

    #[test]
    fn a_failed_append_may_have_written_something() {
        let mut backend = with_file(b"x");
        backend.fail_append_after(1, 1);
        backend.append("a", b"y").unwrap();
        assert_eq!(backend.append("a", b"zz"), Err(BackendError::Failed(None)));
        assert_eq!(backend.content("a").unwrap(), b"xyz");
    }

    #[test]
    fn nothing_changes_once_the_power_is_gone() {
        let mut backend = with_file(b"x");
        backend.stop_after(1);
        backend.append("a", b"y").unwrap();
        let gone = Err(BackendError::Failed(None));
        assert_eq!(backend.append("a", b"z"), gone);
        assert_eq!(backend.sync("a"), gone);
        assert_eq!(backend.remove("a"), gone);
        assert_eq!(backend.content("a").unwrap(), b"xy");
        backend.crash(1);
        assert_eq!(backend.append("a", b"z"), Ok(()));
    }

    #[test]
    fn reading_beyond_the_end_is_an_error() {
        let backend = with_file(b"x");
        let file = backend.open("a").unwrap();
        assert_eq!(file.read(1, &mut [0]), Err(BackendError::NotFound));
        assert_eq!(file.read(u64::MAX, &mut [0]), Err(BackendError::NotFound));
        assert_eq!(backend.open("b").map(|_| ()), Err(BackendError::NotFound));
    }
}
