//! Where workers hand over what is to be written, and see how far the log is.
//!
//! A worker gives its frame an address when it submits it, by one atomic addition, so it knows at
//! once where each of its records will be. The writer brings the frames into that order. Nobody
//! waits for anybody; how much may be under way is limited ([`LogPort::has_room`]).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;
use dunlin_queue::mailbox::Wake;
use dunlin_storage::{FRAME_HEADER_BYTES, set_address};

use super::record::Record;

/// Frames that are submitted and not written.
const FRAMES_MAX: usize = 4096;
/// And their bytes, above which workers stop reading from publishers.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Buffers of written frames that are kept for the next ones, and their largest.
const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 4 << 20;

/// What one worker has written down in one turn.
#[derive(Debug)]
pub struct Submission {
    /// Where its frame is to be.
    pub address: u64,
    /// The frame: room for its header, and the records.
    pub frame: Vec<u8>,
    /// Somebody waits until it is synced.
    pub must_sync: bool,
    /// The worker.
    pub worker: usize,
    /// The number of the last [`Chunk`](super::Chunk) whose survivors are in this frame or an
    /// earlier one.
    pub cleaned: u64,
}

/// How the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogState {
    /// It takes everything.
    Ok = 0,
    /// Space is short: what is there goes on, no new message is taken that has to be kept.
    Full = 1,
    /// The device has failed: nothing is safe that was not before.
    Failed = 2,
}

impl LogState {
    /// Its name in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// What the log says of itself, for `$SYS`.
#[derive(Debug, Default)]
pub struct LogFigures {
    /// Bytes of all segments.
    pub bytes: AtomicU64,
    /// Segments.
    pub segments: AtomicU64,
    /// Frames written.
    pub frames: AtomicU64,
    /// Syncs.
    pub syncs: AtomicU64,
    /// Bytes written, those that were moved included.
    pub written: AtomicU64,
    /// Bytes that cleaning has written again.
    pub moved: AtomicU64,
    /// Segments that were removed.
    pub removed: AtomicU64,
}

/// Shared by the workers, the writer and the reader of a log.
pub struct LogPort {
    next: AtomicU64,
    frames: ArrayQueue<Submission>,
    backlog_bytes: AtomicUsize,
    spares: ArrayQueue<Vec<u8>>,
    written: AtomicU64,
    synced: AtomicU64,
    state: AtomicU8,
    /// Whoever submits at this address or behind it finds the log full.
    full_at: AtomicU64,
    /// What was submitted finds no room on the device, for some time now.
    is_stuck: AtomicBool,
    wake: Wake,
    /// What workers still need of what is in the log, in bytes, by worker.
    live: Box<[AtomicU64]>,
    next_message: AtomicU64,
    next_session: AtomicU64,
    durable_sessions: AtomicUsize,
    /// For `$SYS`.
    pub figures: LogFigures,
}

impl std::fmt::Debug for LogPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogPort").field("written", &self.written).finish_non_exhaustive()
    }
}

impl LogPort {
    /// For a log that ends at `end`; the numbers are the first that have never been used. `wake`
    /// ends the sleep of the writer.
    #[must_use]
    pub fn new(workers: usize, end: u64, numbers: Numbers, wake: Wake) -> Self {
        Self {
            next: AtomicU64::new(end),
            frames: ArrayQueue::new(FRAMES_MAX),
            backlog_bytes: AtomicUsize::new(0),
            spares: ArrayQueue::new(SPARES_MAX),
            written: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            state: AtomicU8::new(LogState::Ok as u8),
            full_at: AtomicU64::new(u64::MAX),
            is_stuck: AtomicBool::new(false),
            wake,
            // Everything, until the workers have what there was: nothing is cleaned up before.
            live: (0..workers).map(|_| AtomicU64::new(u64::MAX)).collect(),
            next_message: AtomicU64::new(numbers.message),
            next_session: AtomicU64::new(numbers.session),
            durable_sessions: AtomicUsize::new(0),
            figures: LogFigures::default(),
        }
    }

    /// Whether a worker may submit a frame now; if not, it goes on gathering.
    pub fn has_room(&self) -> bool {
        self.frames.len() < FRAMES_MAX / 2
    }

    /// Whether so much is under way that publishers have to wait.
    pub fn is_backed_up(&self) -> bool {
        self.backlog_bytes.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX || !self.has_room()
    }

    /// Hands a frame over and says where it is going to be.
    pub fn submit(&self, mut submission: Submission) -> u64 {
        let len = submission.frame.len();
        let address = self.next.fetch_add(len as u64, Ordering::SeqCst);
        submission.address = address;
        set_address(&mut submission.frame, address);
        self.backlog_bytes.fetch_add(len, Ordering::Relaxed);
        while let Err(back) = self.frames.push(submission) {
            // More workers than there is room for have found room at the same moment.
            submission = back;
            std::thread::yield_now();
        }
        (self.wake)();
        address
    }

    /// Writes the keys of the hash in messages down, in a new log.
    pub fn submit_keys(&self, keys: [u64; 4]) {
        let mut frame = self.frame();
        Record::Keys(keys).encode(&mut frame);
        let (address, worker, cleaned) = (0, 0, 0);
        self.submit(Submission { address, frame, must_sync: true, worker, cleaned });
    }

    /// An empty frame: room for the header.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.spares.pop().unwrap_or_default();
        frame.clear();
        frame.resize(FRAME_HEADER_BYTES, 0);
        frame
    }

    /// Whatever is submitted from here on has this address or a higher one.
    pub fn reserved(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// How far the log is: everything before the first address is written, before the second also
    /// synced.
    pub fn progress(&self) -> (u64, u64) {
        // In this order, as what is synced is written.
        let synced = self.synced.load(Ordering::SeqCst);
        (self.written.load(Ordering::SeqCst), synced)
    }

    /// How the log is for what is submitted now.
    pub fn state(&self) -> LogState {
        match self.settled_state() {
            // What is under way will fill it.
            LogState::Ok
                if self.next.load(Ordering::Relaxed) >= self.full_at.load(Ordering::Relaxed) =>
            {
                LogState::Full
            }
            state => state,
        }
    }

    /// Whether what was submitted finds no room on the device and nobody should wait for that any
    /// longer.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// How the log is, as far as it is written.
    pub(super) fn settled_state(&self) -> LogState {
        match self.state.load(Ordering::Relaxed) {
            0 => LogState::Ok,
            1 => LogState::Full,
            _ => LogState::Failed,
        }
    }

    /// A number for a message, never used before.
    pub fn message_number(&self) -> u64 {
        self.next_message.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a session, never used before.
    pub fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether any worker has a session that outlives a crash.
    #[inline]
    pub fn has_durable_sessions(&self) -> bool {
        self.durable_sessions.load(Ordering::SeqCst) > 0
    }

    /// One more session outlives a crash.
    pub fn add_durable_session(&self) {
        self.durable_sessions.fetch_add(1, Ordering::SeqCst);
    }

    /// One less does.
    pub fn remove_durable_session(&self) {
        self.durable_sessions.fetch_sub(1, Ordering::SeqCst);
    }

    /// What a worker still needs of what is in the log, in bytes.
    pub fn set_live(&self, worker: usize, bytes: u64) {
        self.live[worker].store(bytes, Ordering::Relaxed);
    }

    /// Bytes that anybody still needs, about.
    pub(super) fn live(&self) -> u64 {
        self.live.iter().fold(0, |sum, bytes| sum.saturating_add(bytes.load(Ordering::Relaxed)))
    }

    pub(super) fn workers(&self) -> usize {
        self.live.len()
    }

    pub(super) fn take(&self) -> Option<Submission> {
        self.frames.pop()
    }

    pub(super) fn set_state(&self, state: LogState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn set_full_at(&self, address: u64) {
        self.full_at.store(address, Ordering::Relaxed);
    }

    pub(super) fn set_stuck(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
    }

    pub(super) fn set_progress(&self, written: u64, synced: u64) {
        self.written.store(written, Ordering::SeqCst);
        self.synced.store(synced, Ordering::SeqCst);
    }

    /// A frame has been written; its buffer serves again.
    pub(super) fn give_back(&self, frame: Vec<u8>) {
        self.backlog_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        if frame.capacity() <= SPARE_BYTES_MAX {
            // If there are enough, this one is let go.
            let _ = self.spares.push(frame);
        }
    }
}

/// The first numbers that have never been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Of messages.
    pub message: u64,
    /// Of sessions.
    pub session: u64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { message: 1, session: 1 }
    }
}
