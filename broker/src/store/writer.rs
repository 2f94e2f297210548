//! What the log's thread does: takes what workers have submitted, writes it, syncs it, and tells
//! how far it is. There is no timer in it: what gathers while one batch is written is the next.
//!
//! ```text
//! Ok ── space is short ──▶ Full ── there is space again ──▶ Ok
//!  └──────── anything else fails ──▶ Failed (for good)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dunlin_queue::Time;
use dunlin_storage::{Backend, Log, LogError, address_of};

use super::cleaner::{Chunk, Cleaner};
use super::port::{LogPort, LogState, Submission};

/// Bytes taken for one batch.
const BATCH_BYTES: usize = 8 << 20;
/// After the device had no space, until it is tried again.
const FULL_PAUSE_MS: u64 = 250;

/// Limits and times of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// What is written and nobody waits for is synced after so many milliseconds.
    pub interval_ms: u64,
    /// Bytes of all segments above which no new message is kept; 0 for no limit.
    pub bytes_max: u64,
    /// Free bytes on the device below which no new message is kept.
    pub free_min: u64,
    /// Bytes of all segments below which nothing is cleaned up.
    pub clean_min: u64,
}

/// What a step has led to.
#[derive(Debug, Default)]
pub struct Step {
    /// The log is further, or in another state: tell the workers.
    pub is_news: bool,
    /// Ask every worker what it still needs of this.
    pub chunk: Option<Arc<Chunk>>,
    /// Segments were removed, those before this address.
    pub removed_before: Option<u64>,
    /// There is more to do at once.
    pub more: bool,
}

/// The one that writes the log.
pub struct Writer<B: Backend> {
    log: Log<B>,
    port: Arc<LogPort>,
    options: WriterOptions,
    /// Taken and not written yet, by address.
    waiting: BTreeMap<u64, Submission>,
    batch: Vec<Vec<u8>>,
    cleaner: Cleaner<B::File>,
    /// When what is written and not synced has to be.
    sync_at: Time,
    /// No space was left: not before then again.
    retry_at: Time,
}

impl<B: Backend> Writer<B> {
    /// Writes what comes through `port` behind what is in `log`.
    #[must_use]
    pub fn new(log: Log<B>, port: Arc<LogPort>, options: WriterOptions) -> Self {
        let cleaner = Cleaner::new(port.workers(), options.clean_min);
        Self {
            log,
            port,
            options,
            waiting: BTreeMap::new(),
            batch: Vec::new(),
            cleaner,
            sync_at: Time::NEVER,
            retry_at: Time::default(),
        }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log<B> {
        &self.log
    }

    /// When [`Self::step`] has something to do if nothing is submitted before.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        if self.waiting.is_empty() { self.sync_at } else { self.sync_at.min(self.retry_at) }
    }

    /// Has the oldest segments cleaned up whether it is worth it or not.
    pub fn compact(&mut self) {
        self.cleaner.clean_up_to(self.log.end());
    }

    /// Whether everything that [`Self::compact`] asked for is done.
    #[must_use]
    pub fn is_compact(&self) -> bool {
        self.cleaner.is_at_rest()
    }

    /// One batch. `free_bytes` is what the device has left, where that is known.
    pub fn step(&mut self, now: Time, free_bytes: Option<u64>) -> Step {
        if self.port.state() == LogState::Failed {
            self.discard();
            return Step::default();
        }
        let before = self.port.progress();
        let state = self.port.state();
        let oldest = self.log.oldest();
        let taken = self.take(now);
        let result = self.write(taken, now).and_then(|()| self.clean(before.1, now));
        let mut step = Step::default();
        match result {
            Ok(chunk) => step.chunk = chunk,
            Err(LogError::Full) => self.retry_at = now.plus_millis(FULL_PAUSE_MS),
            Err(error) => {
                tracing::error!(%error, "THE LOG HAS FAILED: nothing is safe from here on");
                self.port.set_state(LogState::Failed);
            }
        }
        self.judge_space(self.retry_at > now, free_bytes);
        self.publish_figures();
        step.removed_before = Some(self.log.oldest()).filter(|now| *now > oldest);
        step.is_news = before != self.port.progress() || state != self.port.state();
        let has_next = self.waiting.first_key_value().is_some_and(|(&at, _)| at == self.log.end());
        let may_go_on = has_next && self.retry_at <= now;
        // When the workers have been told, which is now, the segment can go.
        let may_remove = self.cleaner.is_clean(self.log.durable());
        step.more = step.chunk.is_none() && (may_go_on || may_remove);
        step
    }

    /// Takes what has been submitted, and says whether any of the next batch has to be synced.
    fn take(&mut self, now: Time) -> bool {
        while let Some(submission) = self.port.take() {
            self.waiting.insert(submission.address, submission);
        }
        let mut must_sync = false;
        if now < self.retry_at {
            return must_sync;
        }
        let (mut next, mut bytes) = (self.log.end(), 0);
        while bytes < BATCH_BYTES
            && let Some(submission) = self.waiting.remove(&next)
        {
            next += submission.frame.len() as u64;
            bytes += submission.frame.len();
            must_sync |= submission.must_sync;
            self.cleaner.on_submission(submission.worker, submission.cleaned, next);
            self.batch.push(submission.frame);
        }
        must_sync
    }

    fn write(&mut self, must_sync: bool, now: Time) -> Result<(), LogError> {
        if self.batch.is_empty() {
            if self.sync_at <= now {
                self.sync()?;
            }
            return Ok(());
        }
        let result = self.log.append(&mut self.batch);
        let end = self.log.end();
        let written = self.batch.iter().take_while(|frame| address_of(frame) < end).count();
        self.port.figures.frames.fetch_add(written as u64, Ordering::Relaxed);
        for frame in self.batch.drain(..written) {
            self.port.figures.written.fetch_add(frame.len() as u64, Ordering::Relaxed);
            self.port.give_back(frame);
        }
        // What found no room waits in its place.
        for frame in self.batch.drain(..) {
            let address = address_of(&frame);
            let (worker, cleaned) = (0, 0);
            self.waiting.insert(address, Submission { address, frame, must_sync, worker, cleaned });
        }
        if must_sync || self.sync_at <= now {
            self.sync()?;
        } else {
            self.sync_at = self.sync_at.min(now.plus_millis(self.options.interval_ms));
        }
        // A new segment begins with everything before it synced.
        self.port.set_progress(end, self.log.durable());
        result
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.sync_at = Time::NEVER;
        self.port.figures.syncs.fetch_add(1, Ordering::Relaxed);
        self.log.sync()?;
        self.port.set_progress(self.log.end(), self.log.durable());
        Ok(())
    }

    /// `announced` is how far the log was synced when the workers were last told: they know where
    /// everything is that was moved up to there.
    fn clean(&mut self, announced: u64, now: Time) -> Result<Option<Arc<Chunk>>, LogError> {
        let moved = self.port.figures.moved.load(Ordering::Relaxed);
        let removed = self.cleaner.remove_clean(&mut self.log, announced, moved, now)?;
        self.port.figures.removed.fetch_add(removed, Ordering::Relaxed);
        self.cleaner.next_chunk(&self.log, self.port.live(), moved, now)
    }

    /// Closes and opens the log for new messages.
    fn judge_space(&mut self, is_full: bool, free_bytes: Option<u64>) {
        let state = self.port.state();
        if state == LogState::Failed {
            return;
        }
        let max = self.options.bytes_max;
        // Some way below the limit before it is opened again, so that it does not flap.
        let margin = if state == LogState::Full { max / 16 } else { 0 };
        let is_over = max != 0 && self.log.bytes() > max - margin;
        let is_short = free_bytes.is_some_and(|free| free < self.options.free_min);
        let next = if is_full || is_over || is_short { LogState::Full } else { LogState::Ok };
        if next != state {
            let (bytes, free) = (self.log.bytes(), free_bytes.unwrap_or(0));
            if next == LogState::Full {
                tracing::error!(bytes, free, "storage is full: no new message is kept");
            } else {
                tracing::warn!(bytes, free, "storage has room again");
            }
            self.port.set_state(next);
        }
    }

    fn publish_figures(&self) {
        self.port.figures.bytes.store(self.log.bytes(), Ordering::Relaxed);
        let segments = self.log.segments().count() as u64;
        self.port.figures.segments.store(segments, Ordering::Relaxed);
    }

    /// After a failure: what is submitted goes nowhere.
    fn discard(&mut self) {
        while let Some(submission) = self.port.take() {
            self.port.give_back(submission.frame);
        }
        for (_, submission) in std::mem::take(&mut self.waiting) {
            self.port.give_back(submission.frame);
        }
    }

    /// Writes and syncs everything that was submitted: the end.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn finish(&mut self, now: Time) -> Result<(), LogError> {
        self.retry_at = Time::default();
        loop {
            let must_sync = self.take(now);
            if self.batch.is_empty() {
                break;
            }
            self.write(must_sync, now)?;
        }
        self.sync()
    }
}
