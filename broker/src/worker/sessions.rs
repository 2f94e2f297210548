//! The sessions of a worker, by client identifier and by number.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::RandomState;
use dunlin_queue::{QueueLimits, Time};
use dunlin_router::{FilterId, SubscriberId, Subscription, Target};
use dunlin_session::{Limits, Session};
use slab::Slab;

use super::conn::ConnId;
use super::durable::Durable;
use super::pressure::Pressure;
use super::replay::ReplayId;

/// A session of this worker, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u32);

impl SessionId {
    /// As subscriptions mean it.
    pub(super) fn target(self) -> Target {
        Target::Session(SubscriberId(self.0))
    }
}

/// A session of any worker; the generation tells it from a successor in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    pub(super) worker: u16,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A session and what the worker keeps beside it. A fan-out goes through thousands of these, so
/// what a delivery looks at comes first, in two lines of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct SessionSlot {
    pub(super) conn: Option<ConnId>,
    pub(super) generation: u32,
    /// Publishers that wait for it to catch up.
    pub(super) pressure: Option<Box<Pressure>>,
    pub(super) session: Session,
    /// One of its retained replays waits for room in the queue.
    pub(super) replays_wait: bool,
    /// Hash of the client identifier.
    pub(super) hash: u64,
    pub(super) subscriptions: BTreeSet<FilterId>,
    /// Share groups, by `$share/<group>/<filter>`.
    pub(super) memberships: BTreeMap<Box<str>, Subscription>,
    /// Bytes of its filters.
    pub(super) filter_bytes: usize,
    /// The earliest timer that is set for it.
    pub(super) timer_at: Time,
    /// Retained replays, by filter.
    pub(super) replays: BTreeMap<Box<str>, ReplayId>,
    /// It outlives a crash.
    pub(super) durable: Option<Box<Durable>>,
}

impl SessionSlot {
    /// What the session's queue may hold now: more while its publishers are being told to wait.
    #[inline]
    pub(super) fn queue_limits<'a>(
        &self,
        limits: &'a Limits,
        elastic: &'a QueueLimits,
    ) -> &'a QueueLimits {
        match &self.pressure {
            Some(pressure) if !pressure.is_lagging => elastic,
            _ => &limits.queue,
        }
    }
}

/// All sessions of a worker.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Slab<SessionSlot>,
    by_client: HashMap<Box<str>, SessionId, RandomState>,
    generation: u32,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.slots.reserve(additional);
        self.by_client.reserve(additional);
    }

    pub(super) fn find(&self, client_id: &str) -> Option<SessionId> {
        self.by_client.get(client_id).copied()
    }

    pub(super) fn insert(&mut self, client_id: &str, hash: u64) -> SessionId {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slots.insert(SessionSlot {
            session: Session::new(client_id.into()),
            conn: None,
            generation: self.generation,
            hash,
            subscriptions: BTreeSet::new(),
            memberships: BTreeMap::new(),
            filter_bytes: 0,
            timer_at: Time::NEVER,
            pressure: None,
            replays: BTreeMap::new(),
            replays_wait: false,
            durable: None,
        });
        let id = SessionId(slot as u32);
        self.by_client.insert(client_id.into(), id);
        id
    }

    pub(super) fn remove(&mut self, id: SessionId) -> SessionSlot {
        let slot = self.slots.remove(id.0 as usize);
        self.by_client.remove(slot.session.client_id());
        slot
    }

    #[inline]
    pub(super) fn get(&self, id: SessionId) -> &SessionSlot {
        &self.slots[id.0 as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: SessionId) -> &mut SessionSlot {
        &mut self.slots[id.0 as usize]
    }

    pub(super) fn key(&self, worker: usize, id: SessionId) -> SessionKey {
        let generation = self.get(id).generation;
        SessionKey { worker: worker as u16, slot: id.0, generation }
    }

    /// The session that `key` means, if it still lives.
    pub(super) fn resolve(&self, key: SessionKey) -> Option<SessionId> {
        let slot = self.slots.get(key.slot as usize)?;
        (slot.generation == key.generation).then_some(SessionId(key.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_looks_at_two_lines_of_the_cache() {
        // conn, generation, pressure and the queue; then the terms of the connection.
        assert_eq!(std::mem::offset_of!(SessionSlot, session), 24);
        assert_eq!(size_of::<dunlin_queue::DeliveryQueue>(), 40);
        assert_eq!(size_of::<SessionSlot>(), 384);
    }
}
