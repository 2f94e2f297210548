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
/// Bytes that are written without another look at the device, however short it is.
const LOOK_BYTES: u64 = 64 << 10;
/// After the device had no space, until it is tried again.
const FULL_PAUSE_MS: u64 = 250;
/// And until those who wait for what found no room are told so.
const STUCK_AFTER_MS: u64 = 2_000;
/// So much below a limit, as a part of it, the log is opened again, so that it does not flap.
const MARGIN: u64 = 16;

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
    /// Something has found no room on the device.
    pub is_out_of_room: bool,
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
    /// Since when nothing has found any.
    stuck_since: Option<Time>,
    /// What the device had left when it was looked at last, and where the log ended then.
    free: Option<(u64, u64)>,
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
            stuck_since: None,
            free: None,
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

    /// What the device has left. Without that it may be full, but never short.
    pub fn set_free_bytes(&mut self, free: u64) {
        self.free = Some((free, self.log.end()));
    }

    /// Bytes that can be written before there is less free than has to be, as of the last look at
    /// the device.
    fn free_room(&self, margin: u64) -> Option<u64> {
        let (free, end) = self.free?;
        let written = self.log.end() - end;
        Some(free.saturating_sub(written).saturating_sub(self.options.free_min + margin))
    }

    /// Whether so much was written since the last look at the device that it is time for another.
    #[must_use]
    pub fn should_look(&self) -> bool {
        let Some((free, end)) = self.free else { return false };
        let written = self.log.end() - end;
        written > free.saturating_sub(self.options.free_min) / 2 && written > LOOK_BYTES
    }

    /// Space was made: what found no room is tried again now.
    pub fn retry(&mut self) {
        self.retry_at = Time::default();
    }

    /// Free bytes on the device below which no new message is kept.
    pub(super) fn free_min(&self) -> u64 {
        self.options.free_min
    }

    /// The log cannot be written any more, as whoever looks after its directory says. Says whether
    /// that is news.
    pub(super) fn fail(&mut self) -> bool {
        let is_news = self.port.settled_state() != LogState::Failed;
        self.port.set_state(LogState::Failed);
        self.discard();
        is_news
    }

    /// One batch.
    pub fn step(&mut self, now: Time) -> Step {
        if self.port.settled_state() == LogState::Failed {
            self.discard();
            return Step::default();
        }
        let before = self.port.progress();
        let state = (self.port.settled_state(), self.port.is_stuck());
        let oldest = self.log.oldest();
        let taken = self.take(now);
        let mut step = Step::default();
        let mut result = self.write(taken, now);
        if result == Err(LogError::Full) {
            self.retry_at = now.plus_millis(FULL_PAUSE_MS);
            self.stuck_since.get_or_insert(now);
            step.is_out_of_room = true;
            // What is cleaned up already can go.
            result = Ok(());
        }
        match result.and_then(|()| self.clean(before.1, now)) {
            Ok(chunk) => step.chunk = chunk,
            Err(error) => {
                tracing::error!(%error, "THE LOG HAS FAILED: nothing is safe from here on");
                self.port.set_state(LogState::Failed);
                self.discard();
            }
        }
        self.judge_space(now);
        self.publish_figures();
        step.removed_before = Some(self.log.oldest()).filter(|now| *now > oldest);
        step.is_news = before != self.port.progress()
            || state != (self.port.settled_state(), self.port.is_stuck());
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
        if written > 0 {
            self.stuck_since = None;
        }
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
        self.cleaner.set_short_of_space(self.port.settled_state() == LogState::Full);
        let moved = self.port.figures.moved.load(Ordering::Relaxed);
        let live = self.port.live();
        let removed = self.cleaner.remove_clean(&mut self.log, announced, (live, moved), now)?;
        self.port.figures.removed.fetch_add(removed, Ordering::Relaxed);
        self.cleaner.next_chunk(&self.log, live, moved, now)
    }

    /// Closes and opens the log for new messages.
    fn judge_space(&mut self, now: Time) {
        let state = self.port.settled_state();
        if state == LogState::Failed {
            return;
        }
        let stuck_since = self.stuck_since.map_or(0, |since| now.millis_since(since));
        self.port.set_stuck(stuck_since >= STUCK_AFTER_MS);
        let WriterOptions { bytes_max: max, free_min, .. } = self.options;
        let margin = |limit: u64| if state == LogState::Full { limit / MARGIN } else { 0 };
        let below_max = match max {
            0 => u64::MAX,
            max => (max - margin(max)).saturating_sub(self.log.bytes()),
        };
        let room = below_max.min(self.free_room(margin(free_min)).unwrap_or(u64::MAX));
        self.port.set_full_at(self.log.end().saturating_add(room));
        let is_full = room == 0 || self.retry_at > now;
        let next = if is_full { LogState::Full } else { LogState::Ok };
        if next != state {
            let (bytes, free) = (self.log.bytes(), self.free.map_or(0, |(free, _)| free));
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

    /// After a failure: what is submitted goes nowhere, and what was written is not synced any
    /// more, so that nothing is due: whoever waits for that would wake up in vain for ever.
    fn discard(&mut self) {
        self.sync_at = Time::NEVER;
        while let Some(submission) = self.port.take() {
            self.port.give_back(submission.frame);
        }
        for (_, submission) in std::mem::take(&mut self.waiting) {
            self.port.give_back(submission.frame);
        }
    }

    /// Writes and syncs everything that was submitted: the end. What finds no room is left out:
    /// nobody was told that it is safe.
    ///
    /// # Errors
    /// When that is not possible for another reason.
    pub fn finish(&mut self, now: Time) -> Result<(), LogError> {
        if self.port.settled_state() == LogState::Failed {
            return Err(LogError::Poisoned);
        }
        self.retry_at = Time::default();
        loop {
            let must_sync = self.take(now);
            if self.batch.is_empty() {
                break;
            }
            match self.write(must_sync, now) {
                Err(LogError::Full) => {
                    let frames = self.waiting.len();
                    tracing::error!(frames, "storage is full: what waited for room is not kept");
                    break;
                }
                result => result?,
            }
        }
        self.sync()
    }
}
