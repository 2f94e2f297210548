//! Reads messages back whose bytes are on disk only.

use dunlin_storage::{Backend, LogReader, ReadError};

use super::record::{CHECKSUM_BYTES, checked_content};

/// What a reader is asked for.
#[derive(Debug)]
pub enum ReadRequest {
    /// A worker needs messages.
    Read {
        /// The worker.
        worker: usize,
        /// The messages.
        wanted: Vec<Wanted>,
    },
    /// The segments before this address are removed: see [`Reader::forget_before`].
    ForgetBefore(u64),
}

/// A message whose bytes a worker needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its number.
    pub id: u64,
    /// Where its checksum and content are.
    pub position: u64,
    /// Bytes of the content.
    pub len: usize,
}

/// What was read for it.
#[derive(Debug)]
pub struct Loaded {
    /// What was asked for.
    pub wanted: Wanted,
    /// The content.
    pub content: Result<Vec<u8>, Unread>,
}

/// Why a message was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not there, or not what was written.
    Gone,
    /// It could not be looked for, for want of a descriptor perhaps: it can be tried again.
    Failed,
}

/// Files that the reader keeps open.
const FILES_MAX: usize = 64;
/// Messages that are no further apart are read at once, up to so many bytes.
const GAP_BYTES: u64 = 4 << 10;
const SPAN_BYTES: u64 = 256 << 10;

/// Reads beside the writer.
pub struct Reader<B: Backend> {
    log: LogReader<B>,
    span: Vec<u8>,
}

impl<B: Backend> Reader<B> {
    /// Of the log that is on `backend`.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self { log: LogReader::new(backend, FILES_MAX), span: Vec::new() }
    }

    /// Reads all that is wanted, those that lie side by side at once.
    pub fn read(&mut self, mut wanted: Vec<Wanted>) -> Vec<Loaded> {
        wanted.sort_unstable_by_key(|wanted| wanted.position);
        let mut loaded = Vec::with_capacity(wanted.len());
        let mut rest = &wanted[..];
        while let Some(first) = rest.first() {
            let mut end = end_of(first);
            let mut count = 1;
            for next in &rest[1..] {
                let is_near = next.position <= end + GAP_BYTES;
                if !is_near || end_of(next) - first.position > SPAN_BYTES {
                    break;
                }
                end = end.max(end_of(next));
                count += 1;
            }
            let (together, later) = rest.split_at(count);
            self.read_span(together, end, &mut loaded);
            rest = later;
        }
        loaded
    }

    /// Closes the files of removed segments, those before `address`. Open ones would keep their
    /// space on the device, where nobody sees it.
    pub fn forget_before(&mut self, address: u64) {
        self.log.forget_before(address);
    }

    fn read_span(&mut self, together: &[Wanted], end: u64, loaded: &mut Vec<Loaded>) {
        let Some(first) = together.first() else { return };
        self.span.resize((end - first.position) as usize, 0);
        if together.len() > 1 && self.log.read(first.position, &mut self.span).is_err() {
            // A segment may end between them.
            return together.iter().for_each(|wanted| {
                self.read_span(std::slice::from_ref(wanted), end_of(wanted), loaded);
            });
        }
        if together.len() == 1
            && let Err(error) = self.log.read(first.position, &mut self.span)
        {
            tracing::debug!(%error, position = first.position, "a message was not read");
            let unread = match error {
                ReadError::NotFound => Unread::Gone,
                ReadError::Failed(_) => Unread::Failed,
            };
            return loaded.push(Loaded { wanted: *first, content: Err(unread) });
        }
        for wanted in together {
            let from = (wanted.position - first.position) as usize;
            let bytes = &self.span[from..from + CHECKSUM_BYTES + wanted.len];
            let content = checked_content(bytes).map(<[u8]>::to_vec).map_err(|_| Unread::Gone);
            loaded.push(Loaded { wanted: *wanted, content });
        }
    }
}

fn end_of(wanted: &Wanted) -> u64 {
    wanted.position + (CHECKSUM_BYTES + wanted.len) as u64
}
