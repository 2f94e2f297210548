//! Which worker wants what: the index that all workers share.
//!
//! It changes when a worker's first subscription to a filter comes or its last one goes, and is
//! read when a topic is not in a worker's cache. So one lock around it is held for about a
//! microsecond at a time and hardly ever found taken, and a subscription is effective everywhere
//! the moment the writer lets go. A replica per worker would need an acknowledgement from each of
//! them before every SUBACK, and the memory as often as there are workers
//! (docs/design/threads.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dunlin_router::{EPOCH_SLOTS, FilterMap, MatchScratch, Remote, TopicSlots, filter_slot};
use parking_lot::RwLock;

use super::Shared;

/// Filters and the set of workers that have subscribers to them, a bit each.
#[derive(Debug)]
pub struct Interest {
    filters: RwLock<FilterMap<u64>>,
    /// Grow with every change to a filter of theirs: what cached routes are checked against.
    epochs: Box<[AtomicU32]>,
}

impl Default for Interest {
    fn default() -> Self {
        let epochs = (0..EPOCH_SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self { filters: RwLock::default(), epochs }
    }
}

impl Interest {
    pub(super) fn add(&self, filter: &str, worker: usize) {
        let mut filters = self.filters.write();
        match filters.find(filter) {
            Some(id) => *filters.value_mut(id) |= 1 << worker,
            None => {
                filters.insert(filter, 1 << worker);
            }
        }
        self.bump(filter);
    }

    pub(super) fn remove(&self, filter: &str, worker: usize) {
        let mut filters = self.filters.write();
        let Some(id) = filters.find(filter) else { return };
        let workers = filters.value_mut(id);
        *workers &= !(1 << worker);
        if *workers == 0 {
            filters.remove(id);
        }
        self.bump(filter);
    }

    /// Before the lock is let go: who looks up afterwards has the new epoch or the new filters.
    fn bump(&self, filter: &str) {
        self.epochs[usize::from(filter_slot(filter))].fetch_add(1, Ordering::Release);
    }
}

/// The index as one worker sees it.
#[derive(Debug)]
pub(super) struct InterestView {
    shared: Arc<Shared>,
    worker: usize,
    scratch: MatchScratch,
}

impl InterestView {
    pub(super) fn new(shared: Arc<Shared>, worker: usize) -> Self {
        Self { shared, worker, scratch: MatchScratch::default() }
    }

    /// Makes room for so many filters in all.
    pub(super) fn reserve(&self, total: usize) {
        let mut filters = self.shared.interest.filters.write();
        let missing = total.saturating_sub(filters.len());
        filters.reserve(missing);
    }

    pub(super) fn add(&self, filter: &str) {
        self.shared.interest.add(filter, self.worker);
    }

    pub(super) fn remove(&self, filter: &str) {
        self.shared.interest.remove(filter, self.worker);
    }
}

impl Remote for InterestView {
    #[inline]
    fn stamp(&self, slots: &TopicSlots) -> u64 {
        let epochs = &self.shared.interest.epochs;
        slots.iter().map(|slot| u64::from(epochs[usize::from(slot)].load(Ordering::Acquire))).sum()
    }

    fn workers(&mut self, topic: &str) -> u64 {
        let mut workers = 0;
        let filters = self.shared.interest.filters.read();
        filters.matches(topic, &mut self.scratch, |_, interested| workers |= interested);
        workers & !(1 << self.worker)
    }
}
