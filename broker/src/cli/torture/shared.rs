//! What the clients and the one who kills know of each other.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dunlin_queue::Time;

use super::publication::{Publication, QUEUE_SOURCE, RETAINED_TOPICS};
use super::queues::QueueState;
use super::receipts::Published;
use crate::clock::Clock;

/// Where the broker listens at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Counts the starts, so that a port that comes again is no old acquaintance.
    pub(super) life: u32,
    pub(super) port: u16,
}

/// What the run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Publish, and be killed.
    Torture,
    /// No more kills: publishers publish one last round, see it acknowledged and leave.
    LastRound,
    /// Subscribers fetch what is still due to them and leave.
    Drain,
    /// Everybody leaves at once.
    Over,
}

/// State that all threads of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    clock: Clock,
    /// What the run's random numbers follow from.
    pub(super) seed: u64,
    /// Publications per second of each publisher.
    pub(super) rate: u32,
    /// Publications of each publisher until it stops by itself.
    pub(super) publications_max: u32,
    /// By publisher: the next sequence number. Counted up before the publication is sent, so
    /// whatever is sent after a look at it has that number or a higher one.
    pub(super) next: Vec<AtomicU32>,
    /// By retained topic: one more than the sequence number of the last publication sent.
    pub(super) retained_sent: Vec<AtomicU32>,
    /// By retained topic: one more than that of the last one acknowledged.
    pub(super) retained_acked: Vec<AtomicU32>,
    /// What was published, once the publishers have left.
    pub(super) published: OnceLock<Vec<Published>>,
    /// The same of the queue, and what came of it.
    pub(super) queue: QueueState,
    /// For the progress lines.
    pub(super) progress: Progress,
    /// Set by SIGINT and SIGTERM.
    interrupted: Arc<AtomicBool>,
    phase: AtomicU8,
    /// `life << 16 | port`; port 0 while there is no broker.
    address: AtomicU64,
}

/// Counts of the run so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) published: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) delivered: AtomicU64,
}

impl Progress {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn zeros(count: usize) -> Vec<AtomicU32> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}

impl Shared {
    pub(super) fn new(clock: Clock, seed: u64, publishers: usize) -> Self {
        Self {
            clock,
            seed,
            rate: 1,
            publications_max: u32::MAX,
            next: zeros(publishers),
            retained_sent: zeros(RETAINED_TOPICS as usize),
            retained_acked: zeros(RETAINED_TOPICS as usize),
            published: OnceLock::new(),
            queue: QueueState::new(0),
            progress: Progress::default(),
            interrupted: Arc::default(),
            phase: AtomicU8::new(Phase::Torture as u8),
            address: AtomicU64::new(0),
        }
    }

    /// The next sequence number of a publisher, of topics or the queue.
    pub(super) fn next_of(&self, source: u16) -> Option<&AtomicU32> {
        match source.checked_sub(QUEUE_SOURCE) {
            Some(publisher) => self.queue.next.get(usize::from(publisher)),
            None => self.next.get(usize::from(source)),
        }
    }

    /// Whether a publication was sent already.
    pub(super) fn is_sent(&self, publication: Publication) -> bool {
        let next = self.next_of(publication.source);
        next.is_some_and(|next| publication.sequence < next.load(Ordering::SeqCst))
    }

    /// What a signal sets.
    pub(super) fn interrupted(&self) -> &Arc<AtomicBool> {
        &self.interrupted
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(super) fn phase(&self) -> Phase {
        if self.is_interrupted() {
            return Phase::Over;
        }
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Torture,
            1 => Phase::LastRound,
            2 => Phase::Drain,
            _ => Phase::Over,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    pub(super) fn address(&self) -> Option<Address> {
        let bits = self.address.load(Ordering::SeqCst);
        let address = Address { life: (bits >> 16) as u32, port: bits as u16 };
        (address.port != 0).then_some(address)
    }

    /// The broker is about to be killed (`None`), or to be had again. A connection that ends while
    /// its address is still set was not ended by a kill.
    pub(super) fn set_address(&self, address: Option<Address>) {
        let bits =
            address.map_or(0, |address| u64::from(address.life) << 16 | u64::from(address.port));
        self.address.store(bits, Ordering::SeqCst);
    }

    /// Lets time pass, but not after the run is over. `false` if it is.
    pub(super) fn pause(&self, pause_ms: u64) -> bool {
        const SLICE_MS: u64 = 20;
        let end = self.now().plus_millis(pause_ms);
        loop {
            let left_ms = end.millis_since(self.now());
            if self.phase() == Phase::Over {
                return false;
            }
            if left_ms == 0 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(left_ms.min(SLICE_MS)));
        }
    }
}
