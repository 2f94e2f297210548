//! Gives the space of dead records back: segments go from the oldest on, and what somebody still
//! needs of one is written again at the log's end before it goes.
//!
//! Who needs what is known to the workers only. They get the records of the oldest segment in
//! chunks; each writes again what is its own and alive, and says so with the frame it does that
//! in. As segments only ever go from the oldest on, a record that takes something back is never
//! needed once its own segment is the oldest: all it could take back is gone.

use std::sync::Arc;

use dunlin_queue::Time;
use dunlin_storage::{Backend, BackendError, Entry, Frames, Log, LogError, ReadFile};

/// Bytes of records handed out at a time.
const CHUNK_BYTES: usize = 4 << 20;
/// After a segment that was mostly alive, nothing is cleaned for so long unless the log grows.
const PATIENCE_MS: u64 = 60_000;
/// Cleaning begins when the log is so many times as large as what is alive in it.
const GARBAGE_FACTOR: u64 = 2;

/// Some of the records of the oldest segment.
#[derive(Debug)]
pub struct Chunk {
    /// Chunks are numbered from 1 on.
    pub number: u64,
    /// Where the segment ends: records before this address are about to go.
    pub segment_end: u64,
    /// The frames: where their records begin, and the records.
    pub frames: Vec<(u64, Box<[u8]>)>,
}

#[derive(Debug)]
struct Segment<F> {
    frames: Frames<F>,
    end: u64,
    bytes: u64,
    /// Size of the log when cleaning it began.
    log_bytes: u64,
    is_read: bool,
}

/// Cleans segments up, one at a time.
#[derive(Debug)]
pub(super) struct Cleaner<F> {
    segment: Option<Segment<F>>,
    /// The last chunk that was handed out, and the last that each worker has done with.
    chunk: u64,
    done: Box<[u64]>,
    /// Behind the last frame that a worker was done in.
    done_at: u64,
    /// Sizes of the log below which nothing is cleaned: as configured, and after it was not worth
    /// it.
    bytes_min: u64,
    patience: u64,
    /// And until when: meanwhile more of it may have died.
    patience_until: Time,
    /// Segments before this address are cleaned whether it is worth it or not.
    asked_up_to: u64,
}

impl<F: ReadFile> Cleaner<F> {
    pub(super) fn new(workers: usize, bytes_min: u64) -> Self {
        Self {
            segment: None,
            chunk: 0,
            done: vec![0; workers].into_boxed_slice(),
            done_at: 0,
            bytes_min,
            patience: 0,
            patience_until: Time::default(),
            asked_up_to: 0,
        }
    }

    pub(super) fn clean_up_to(&mut self, address: u64) {
        self.asked_up_to = address;
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.segment.is_none() && self.asked_up_to == 0
    }

    /// A frame was taken that ends at `end`; its worker is done with the chunks up to `chunk`.
    pub(super) fn on_submission(&mut self, worker: usize, chunk: u64, end: u64) {
        if chunk > self.done[worker] {
            self.done[worker] = chunk;
            self.done_at = end;
        }
    }

    fn is_waiting(&self) -> bool {
        self.done.iter().any(|&done| done < self.chunk)
    }

    /// Whether a segment can be removed when the workers know that the log is synced up to
    /// `announced`.
    pub(super) fn is_clean(&self, announced: u64) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.is_read)
            && !self.is_waiting()
            && announced >= self.done_at
    }

    /// Removes the segment that is cleaned up, if the workers know where everything is that was in
    /// it. Says how many went.
    pub(super) fn remove_clean<B: Backend<File = F>>(
        &mut self,
        log: &mut Log<B>,
        announced: u64,
        now: Time,
    ) -> Result<u64, LogError> {
        if !self.is_clean(announced) {
            return Ok(0);
        }
        let Some(segment) = self.segment.take() else { return Ok(0) };
        let Some(removed) = log.remove_oldest()? else { return Ok(0) };
        let won = segment.log_bytes.saturating_sub(log.bytes());
        tracing::debug!(base = removed.base, bytes = removed.bytes, won, "segment removed");
        // Most of it was alive: not again before there is more to win.
        self.patience = if won < segment.bytes / 4 { log.bytes() + 4 * segment.bytes } else { 0 };
        self.patience_until = now.plus_millis(PATIENCE_MS);
        Ok(1)
    }

    /// The next records to be looked at by the workers.
    pub(super) fn next_chunk<B: Backend<File = F>>(
        &mut self,
        log: &Log<B>,
        live: u64,
        now: Time,
    ) -> Result<Option<Arc<Chunk>>, LogError> {
        if self.is_waiting() || !self.has_segment(log, live, now)? {
            return Ok(None);
        }
        let Some(segment) = &mut self.segment else { return Ok(None) };
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES {
            match segment.frames.next().map_err(LogError::Failed)? {
                Some(Entry::Frame { address, payload }) => {
                    bytes += payload.len();
                    let records_at = address + dunlin_storage::FRAME_HEADER_BYTES as u64;
                    frames.push((records_at, payload.into()));
                }
                // It was missing before, and whoever started the broker knows.
                Some(Entry::Missing { .. }) => {}
                None => {
                    segment.is_read = true;
                    break;
                }
            }
        }
        if frames.is_empty() {
            return Ok(None);
        }
        self.chunk += 1;
        Ok(Some(Arc::new(Chunk { number: self.chunk, segment_end: segment.end, frames })))
    }

    /// Whether there is a segment with records to look at; begins with the next if it is time.
    fn has_segment<B: Backend<File = F>>(
        &mut self,
        log: &Log<B>,
        live: u64,
        now: Time,
    ) -> Result<bool, LogError> {
        if let Some(segment) = &self.segment {
            return Ok(!segment.is_read);
        }
        let mut segments = log.segments();
        let (Some(oldest), Some(_)) = (segments.next(), segments.next()) else {
            self.asked_up_to = 0;
            return Ok(false);
        };
        if now >= self.patience_until {
            self.patience = 0;
        }
        let worthwhile = self.bytes_min.max(live.saturating_mul(GARBAGE_FACTOR)).max(self.patience);
        if oldest.base >= self.asked_up_to {
            self.asked_up_to = 0;
            if log.bytes() <= worthwhile {
                return Ok(false);
            }
        }
        let frames = match log.frames(oldest.base) {
            Ok(frames) => frames,
            Err(BackendError::NotFound) => return Ok(false),
            Err(error) => return Err(LogError::Failed(error)),
        };
        let (end, bytes, log_bytes) = (oldest.end, oldest.bytes, log.bytes());
        self.segment = Some(Segment { frames, end, bytes, log_bytes, is_read: false });
        Ok(true)
    }
}
