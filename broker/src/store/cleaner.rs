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

/// Bytes of records handed out at a time, and the most where so much is written meanwhile that
/// cleaning would not keep up.
const CHUNK_BYTES: u64 = 4 << 20;
const CHUNK_BYTES_MAX: u64 = 16 << 20;
/// After records that were mostly alive, nothing is cleaned for so long unless the log grows.
const PATIENCE_MS: u64 = 60_000;
/// And unless it has grown by so many times what was looked at.
const PATIENCE_FACTOR: u64 = 4;
/// Cleaning begins when the log is so many times as large as what is alive in it.
const GARBAGE_FACTOR: u64 = 2;
/// When it is so many times as large, there is no patience before as much was moved as is alive:
/// then what is alive is not known well.
const IMPATIENCE_FACTOR: u64 = 4;

/// Some of the records of the oldest segments.
#[derive(Debug)]
pub struct Chunk {
    /// Chunks are numbered from 1 on.
    pub number: u64,
    /// The frames: where their records begin, and the records.
    pub frames: Vec<(u64, Box<[u8]>)>,
}

#[derive(Debug)]
struct Segment<F> {
    frames: Frames<F>,
    bytes: u64,
}

/// Segments of which nobody needs anything any more.
#[derive(Clone, Copy, Debug)]
struct Ready {
    count: usize,
    /// Behind the frames with what was moved from them.
    safe_at: u64,
    /// Bytes of records that workers have looked at for them, and what they have written again.
    looked_at: u64,
    moved: u64,
}

/// Cleans segments up, from the oldest on.
#[derive(Debug)]
pub(super) struct Cleaner<F> {
    /// The segment that is being read.
    segment: Option<Segment<F>>,
    /// Segments before it that are read and not removed, and their bytes.
    read: usize,
    read_bytes: u64,
    /// The last chunk that was handed out, and the last that each worker has done with.
    chunk: u64,
    done: Box<[u64]>,
    /// Behind the last frame that a worker was done in.
    done_at: u64,
    /// Where the log ended when the last chunk was handed out.
    chunk_at: u64,
    /// Waits to be safe, and known to the workers.
    ready: Option<Ready>,
    /// Bytes of records that workers have looked at since, and what
    /// [`LogFigures::moved`](super::LogFigures::moved) was.
    looked_at: u64,
    moved: u64,
    /// Where the log ended when the segment began that is the oldest now, or later: what was moved
    /// since is the price of one passage through the log.
    passage_end: u64,
    /// What [`LogFigures::moved`](super::LogFigures::moved) was then.
    passage_moved: u64,
    /// Sizes of the log below which nothing is cleaned: as configured, and after it was not worth
    /// it.
    bytes_min: u64,
    patience: u64,
    /// What was alive then.
    patience_live: u64,
    /// And until when: meanwhile more of it may have died.
    patience_until: Time,
    /// Segments before this address are cleaned whether it is worth it or not.
    asked_up_to: u64,
    is_short: bool,
}

impl<F: ReadFile> Cleaner<F> {
    pub(super) fn new(workers: usize, bytes_min: u64) -> Self {
        Self {
            segment: None,
            read: 0,
            read_bytes: 0,
            chunk: 0,
            done: vec![0; workers].into_boxed_slice(),
            done_at: 0,
            chunk_at: 0,
            ready: None,
            looked_at: 0,
            moved: 0,
            passage_end: 0,
            passage_moved: 0,
            bytes_min,
            patience: 0,
            patience_live: 0,
            patience_until: Time::default(),
            asked_up_to: 0,
            is_short: false,
        }
    }

    /// Where space is short, one segment has to go before the next is moved.
    pub(super) fn set_short_of_space(&mut self, is_short: bool) {
        self.is_short = is_short;
    }

    pub(super) fn clean_up_to(&mut self, address: u64) {
        self.asked_up_to = address;
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.segment.is_none() && self.read == 0 && self.asked_up_to == 0
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

    /// Whether segments can be removed when the workers know that the log is synced up to
    /// `announced`.
    pub(super) fn is_clean(&self, announced: u64) -> bool {
        self.ready.is_some_and(|ready| announced >= ready.safe_at)
    }

    /// When all are done with what was handed out.
    fn note_ready(&mut self, moved: u64) {
        if self.ready.is_some() || self.read == 0 || self.is_waiting() {
            return;
        }
        let (count, safe_at) = (self.read, self.done_at);
        let looked_at = std::mem::take(&mut self.looked_at);
        let moved_before = std::mem::replace(&mut self.moved, moved);
        self.ready = Some(Ready { count, safe_at, looked_at, moved: moved - moved_before });
    }

    /// Removes the segments that are cleaned up, if the workers know where everything is that was
    /// in them. Says how many went. `moved` is what workers have written again so far, in bytes.
    pub(super) fn remove_clean<B: Backend<File = F>>(
        &mut self,
        log: &mut Log<B>,
        announced: u64,
        (live, moved): (u64, u64),
        now: Time,
    ) -> Result<u64, LogError> {
        self.note_ready(moved);
        let Some(ready) = self.ready.take_if(|ready| announced >= ready.safe_at) else {
            return Ok(0);
        };
        let Ready { count, looked_at, moved, .. } = ready;
        for _ in 0..count {
            let removed = log.remove_oldest()?;
            self.read -= 1;
            self.read_bytes -= removed.map_or(0, |removed| removed.bytes);
        }
        tracing::debug!(count, looked_at, moved, "segments removed");
        // Most of it was alive: not again before there is more to win.
        let is_worthwhile = moved < looked_at - looked_at / 4;
        self.patience = if is_worthwhile { 0 } else { log.bytes() + PATIENCE_FACTOR * looked_at };
        self.patience_live = live;
        self.patience_until = now.plus_millis(PATIENCE_MS);
        Ok(count as u64)
    }

    /// The next records to be looked at by the workers.
    pub(super) fn next_chunk<B: Backend<File = F>>(
        &mut self,
        log: &Log<B>,
        live: u64,
        moved: u64,
        now: Time,
    ) -> Result<Option<Arc<Chunk>>, LogError> {
        if self.is_waiting() {
            return Ok(None);
        }
        // More than is written meanwhile, or the log would grow for ever.
        let written = log.end() - self.chunk_at.min(log.end());
        let wanted = CHUNK_BYTES.max(2 * written).min(CHUNK_BYTES_MAX);
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < wanted && self.has_segment(log, live, moved, now)? {
            let Some(segment) = &mut self.segment else { break };
            match segment.frames.next().map_err(LogError::Failed)? {
                Some(Entry::Frame { address, payload }) => {
                    bytes += payload.len() as u64;
                    let records_at = address + dunlin_storage::FRAME_HEADER_BYTES as u64;
                    frames.push((records_at, payload.into()));
                }
                // It was missing before, and whoever started the broker knows.
                Some(Entry::Missing { .. }) => {}
                None => {
                    self.read += 1;
                    self.read_bytes += segment.bytes;
                    self.segment = None;
                }
            }
        }
        if frames.is_empty() {
            self.note_ready(moved);
            return Ok(None);
        }
        self.chunk += 1;
        self.chunk_at = log.end();
        self.looked_at += bytes;
        Ok(Some(Arc::new(Chunk { number: self.chunk, frames })))
    }

    /// Whether there is a segment with records to look at; begins with the next if it is time.
    fn has_segment<B: Backend<File = F>>(
        &mut self,
        log: &Log<B>,
        live: u64,
        moved: u64,
        now: Time,
    ) -> Result<bool, LogError> {
        if self.segment.is_some() {
            return Ok(true);
        }
        if self.is_short && self.read > 0 {
            return Ok(false);
        }
        let mut segments = log.segments().skip(self.read);
        let (Some(next), Some(_)) = (segments.next(), segments.next()) else {
            self.asked_up_to = 0;
            return Ok(false);
        };
        if next.base >= self.passage_end {
            (self.passage_end, self.passage_moved) = (log.end(), moved);
        }
        if next.base >= self.asked_up_to {
            self.asked_up_to = 0;
            if !self.is_worthwhile(log.bytes() - self.read_bytes, live, moved, now) {
                return Ok(false);
            }
        }
        let frames = match log.frames(next.base) {
            Ok(frames) => frames,
            Err(BackendError::NotFound) => return Ok(false),
            Err(error) => return Err(LogError::Failed(error)),
        };
        self.segment = Some(Segment { frames, bytes: next.bytes });
        Ok(true)
    }

    /// Whether a log of so many bytes is to be cleaned.
    fn is_worthwhile(&mut self, bytes: u64, live: u64, moved: u64, now: Time) -> bool {
        // Or what was alive when there was reason for patience is not any more.
        let has_died = live < self.patience_live / 2;
        let is_far_above = bytes > live.saturating_mul(IMPATIENCE_FACTOR)
            && (has_died || moved - self.passage_moved <= live);
        if is_far_above || now >= self.patience_until {
            self.patience = 0;
        }
        bytes > self.bytes_min.max(live.saturating_mul(GARBAGE_FACTOR)).max(self.patience)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_storage::{Damage, LogOptions, MemoryBackend, set_address};

    use super::*;

    const PAYLOAD: u64 = 1000;

    /// A log with so many segments of one frame each.
    fn log_of(segments: usize) -> Log<MemoryBackend> {
        let options = LogOptions { segment_bytes: 0, ..LogOptions::default() };
        let opened = Log::open(MemoryBackend::new(), options, Damage::Refuse);
        let (mut log, _) = opened.expect("a log");
        for _ in 0..segments {
            let mut frame = vec![0; PAYLOAD as usize + 32];
            set_address(&mut frame, log.end());
            log.append(&mut [frame]).expect("room");
        }
        log
    }

    fn cleaner() -> Cleaner<<MemoryBackend as Backend>::File> {
        let mut cleaner = Cleaner::new(1, 0);
        // So that one segment is cleaned at a time.
        cleaner.set_short_of_space(true);
        cleaner
    }

    #[test]
    fn patience_with_what_is_alive_ends_when_it_dies() {
        let (mut log, mut cleaner) = (log_of(20), cleaner());
        let now = Time::from_millis(1_000_000);
        let live = 4 * PAYLOAD;
        let chunk = cleaner.next_chunk(&log, live, 0, now).expect("a log").expect("a chunk");
        assert_eq!(chunk.frames.len(), 1, "where space is short");
        cleaner.on_submission(0, chunk.number, log.end());
        // All of it was alive, and more.
        let (end, moved) = (log.end(), 5 * PAYLOAD);
        assert_eq!(cleaner.remove_clean(&mut log, end, (live, moved), now), Ok(1));
        assert!(cleaner.next_chunk(&log, live, moved, now).expect("a log").is_none());
        assert!(cleaner.next_chunk(&log, live / 4, moved, now).expect("a log").is_some());
    }

    #[test]
    fn there_is_no_patience_before_as_much_was_moved_as_is_alive() {
        let (mut log, mut cleaner) = (log_of(40), cleaner());
        let now = Time::from_millis(1_000_000);
        let (live, mut moved) = (4 * PAYLOAD, 0);
        for removed in 0..20 {
            let Some(chunk) = cleaner.next_chunk(&log, live, moved, now).expect("a log") else {
                assert_eq!(removed, 5, "one more than is alive");
                return;
            };
            cleaner.on_submission(0, chunk.number, log.end());
            moved += PAYLOAD;
            let end = log.end();
            assert_eq!(cleaner.remove_clean(&mut log, end, (live, moved), now), Ok(1));
        }
        panic!("it goes on for ever");
    }
}
