//! What the workers of one broker share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dunlin_queue::Time;

use super::conn::ConnectionCounts;
use super::retained::RetainedTotals;
use super::{Interest, Settings, Stats};

/// What all workers of a broker share. Nothing in it is written on the path of a message but
/// counters, each by one worker.
#[derive(Debug)]
pub struct Shared {
    /// Options.
    pub settings: Settings,
    /// Which worker wants what.
    pub interest: Interest,
    /// What happened, by worker.
    pub stats: Box<[Stats]>,
    /// Connections, broker-wide and by listener.
    pub connections: ConnectionCounts,
    /// Keys of the hashes that have to agree between workers.
    pub(super) hasher: ahash::RandomState,
    /// Makes client identifiers that nobody can guess.
    assigner: ahash::RandomState,
    client_numbers: AtomicU64,
    pub(super) retained: RetainedTotals,
    /// Queues of all workers, without those of dead letters: there is one for each other at most.
    /// Those of the configuration have their place from the beginning.
    queues: AtomicUsize,
    pub(super) started: Time,
}

impl Shared {
    /// For so many workers and listeners. `keys` are those of the hash that messages have of their
    /// publisher: if messages are kept, so are the keys.
    #[must_use]
    pub fn new(
        settings: Settings,
        workers: usize,
        listeners: usize,
        started: Time,
        keys: [u64; 4],
    ) -> Self {
        let [first, second, third, fourth] = keys;
        let queues = AtomicUsize::new(settings.queues.declared.len());
        Self {
            settings,
            interest: Interest::default(),
            stats: (0..workers).map(|_| Stats::default()).collect(),
            connections: ConnectionCounts::new(listeners),
            hasher: ahash::RandomState::with_seeds(first, second, third, fourth),
            assigner: ahash::RandomState::new(),
            client_numbers: AtomicU64::new(1),
            retained: RetainedTotals::default(),
            queues,
            started,
        }
    }

    /// Whether there may be one queue more; then it is counted.
    pub(super) fn try_add_queue(&self) -> bool {
        let max = self.settings.queues.max;
        let add = |count| (count < max).then_some(count + 1);
        self.queues.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// A queue that was there before this start is, however many there may be.
    pub(super) fn add_restored_queue(&self) {
        self.queues.fetch_add(1, Ordering::Relaxed);
    }

    /// A queue is gone.
    pub(super) fn remove_queue(&self) {
        self.queues.fetch_sub(1, Ordering::Relaxed);
    }

    /// Keys that nobody can guess.
    #[must_use]
    pub fn random_keys() -> [u64; 4] {
        let random = ahash::RandomState::new();
        [0, 1, 2, 3].map(|number: u64| random.hash_one(number))
    }

    pub(super) fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text.as_bytes())
    }

    /// A client identifier nobody has, that belongs to worker `index` of `workers`
    /// \[MQTT-3.2.2-16\]. It cannot be guessed from an earlier one.
    pub(super) fn assign_client_id(&self, index: usize, workers: usize) -> String {
        loop {
            let number = self.client_numbers.fetch_add(1, Ordering::Relaxed);
            let client_id = format!("auto-{:016x}{number:x}", self.assigner.hash_one(number));
            if self.worker_of(&client_id, workers) == index {
                return client_id;
            }
        }
    }

    /// The worker that a client identifier, a topic or a group belongs to.
    #[must_use]
    pub fn worker_of(&self, name: &str, workers: usize) -> usize {
        (self.hash(name) % workers as u64) as usize
    }
}
