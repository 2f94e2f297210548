//! Retained messages: each worker keeps those whose topic hashes to it, and searches them in bites
//! for subscriptions everywhere.
//!
//! A replay belongs to one subscription. It goes over the workers one by one, and asks for the
//! next bite when its session's queue has room: it holds no worker up and fills no queue.

use std::collections::VecDeque;

use dunlin_queue::{DropReason, Entry, Identifiers, Message, MessageRef};
use dunlin_router::{RetainedIndex, Subscription};
use slab::Slab;

use super::mail::{Mail, RetainedFound, RetainedSearch};
use super::sessions::{SessionId, SessionKey};
use super::settings::RetainedLimits;
use super::timers::Timer;
use super::{Transport, Worker};

/// Topics one bite looks at.
const BITE_TOPICS: usize = 256;
/// Bites a turn takes at most.
const BITES_PER_TURN: usize = 4;
/// Messages in a session's queue above which its replays wait, and below which they go on.
const QUEUE_HIGH: usize = 512;
const QUEUE_LOW: usize = 128;
/// Topics a sweep looks at, and the time between two.
const SWEEP_TOPICS: usize = 10_000;
const SWEEP_INTERVAL_MS: u64 = 1_000;

/// This worker's part of the retained store.
#[derive(Debug)]
pub(super) struct RetainedShard {
    index: RetainedIndex<MessageRef>,
    bytes: usize,
    limits: RetainedLimits,
    /// Where the sweep for expired messages goes on.
    swept_to: Option<Box<str>>,
}

impl RetainedShard {
    pub(super) fn new(limits: RetainedLimits, workers: usize) -> Self {
        let limits = RetainedLimits {
            messages_max: limits.messages_max.div_ceil(workers),
            bytes_max: limits.bytes_max.div_ceil(workers),
        };
        Self { index: RetainedIndex::default(), bytes: 0, limits, swept_to: None }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Where a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In the list of those to go on with.
    Ready,
    /// Another worker searches.
    Asked,
    /// Its session's queue is full enough.
    WaitsForRoom,
}

/// One subscription's way through the retained store.
#[derive(Debug)]
struct Replay {
    generation: u32,
    session: SessionKey,
    filter: Box<str>,
    subscription: Subscription,
    /// The worker to search next, and the one behind the last.
    worker: usize,
    workers_end: usize,
    /// The topic to go on behind.
    after: Option<Box<str>>,
    stage: Stage,
}

/// Replays of this worker's sessions.
#[derive(Debug, Default)]
pub(super) struct Replays {
    slots: Slab<Replay>,
    ready: VecDeque<u64>,
    generation: u32,
}

impl Replays {
    pub(super) fn are_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Replay> {
        let replay = self.slots.get_mut(id as u32 as usize)?;
        (replay.generation == (id >> 32) as u32).then_some(replay)
    }

    fn make_ready(&mut self, id: u64) {
        if let Some(replay) = self.get_mut(id) {
            replay.stage = Stage::Ready;
            self.ready.push_back(id);
        }
    }

    fn finish(&mut self, id: u64) {
        if self.get_mut(id).is_some() {
            self.slots.remove(id as u32 as usize);
        }
    }

    /// The session has ended.
    pub(super) fn cancel(&mut self, session: SessionId) {
        self.slots.retain(|_, replay| replay.session.slot != session.0);
    }
}

impl<T: Transport> Worker<T> {
    /// Stores, replaces or deletes the retained message of a topic \[MQTT-3.3.1-5\], on the worker
    /// that keeps it.
    pub(super) fn retain(&mut self, message: &MessageRef) {
        let home = self.shared.worker_of(self.pool.get(message).topic(), self.outboxes.len());
        if home == self.index {
            let message = self.pool.share(message);
            self.store_retained(message);
        } else {
            let copy = self.pool.copy(message);
            self.mail(home, Mail::Retain(copy));
        }
    }

    pub(super) fn store_retained(&mut self, message: MessageRef) {
        let content = self.pool.get(&message);
        let (topic, len) = (content.topic(), content.len());
        let shard = &mut self.retained;
        let replaced = if content.payload().is_empty() {
            // Deletes, and is never stored itself [MQTT-3.3.1-6] [MQTT-3.3.1-7].
            let removed = shard.index.remove(topic);
            self.pool.release(message);
            removed
        } else {
            let stored = shard.index.get(topic).map(|old| self.pool.get(old).len());
            let messages = shard.index.len() + usize::from(stored.is_none());
            let bytes = shard.bytes - stored.unwrap_or(0) + len;
            if messages > shard.limits.messages_max || bytes > shard.limits.bytes_max {
                self.pool.release(message);
                return self.counters.drop(DropReason::RetainedLimit);
            }
            shard.bytes += len;
            // An own borrow of the topic: the message moves into the index.
            let topic: Box<str> = topic.into();
            shard.index.insert(&topic, message)
        };
        if let Some(old) = replaced {
            self.release_retained(old);
        }
        self.counters.retained = self.retained.len() as u64;
        self.counters.touch();
    }

    fn release_retained(&mut self, message: MessageRef) {
        self.retained.bytes -= self.pool.get(&message).len();
        self.pool.release(message);
    }

    /// Begins to send a subscription the retained messages it matches.
    pub(super) fn start_replay(
        &mut self,
        session: SessionId,
        filter: &str,
        subscription: Subscription,
    ) {
        let is_exact = !filter.contains(['+', '#']);
        let workers = self.outboxes.len();
        let (worker, workers_end) = if is_exact {
            let home = self.shared.worker_of(filter, workers);
            (home, home + 1)
        } else {
            (0, workers)
        };
        self.replays.generation = self.replays.generation.wrapping_add(1);
        let generation = self.replays.generation;
        let slot = self.replays.slots.insert(Replay {
            generation,
            session: self.sessions.key(self.index, session),
            filter: filter.into(),
            subscription,
            worker,
            workers_end,
            after: None,
            stage: Stage::Ready,
        });
        self.replays.make_ready(u64::from(generation) << 32 | slot as u64);
    }

    pub(super) fn run_replays(&mut self) {
        for _ in 0..BITES_PER_TURN {
            let Some(id) = self.replays.ready.pop_front() else { return };
            self.run_replay(id);
        }
    }

    fn run_replay(&mut self, id: u64) {
        let index = self.index;
        let Some(replay) = self.replays.get_mut(id) else { return };
        let Some(session) = self.sessions.resolve(replay.session) else {
            return self.replays.finish(id);
        };
        let slot = self.sessions.get_mut(session);
        if slot.session.queue().len() > QUEUE_HIGH {
            slot.replays_waiting += 1;
            replay.stage = Stage::WaitsForRoom;
            return;
        }
        if replay.worker == index {
            let (filter, after) = (replay.filter.clone(), replay.after.take());
            let (found, next) = self.search_retained(&filter, after.as_deref());
            for message in found {
                self.deliver_retained(id, message);
            }
            return self.on_bite(id, next);
        }
        replay.stage = Stage::Asked;
        let (filter, after) = (replay.filter.clone(), replay.after.take());
        let to = replay.worker;
        self.mail(to, Mail::RetainedSearch(Box::new(RetainedSearch { replay: id, filter, after })));
    }

    /// One bite of a search has been delivered.
    fn on_bite(&mut self, id: u64, next: Option<Box<str>>) {
        let Some(replay) = self.replays.get_mut(id) else { return };
        if next.is_none() {
            replay.worker += 1;
        }
        replay.after = next;
        if replay.worker == replay.workers_end {
            self.replays.finish(id);
        } else {
            self.replays.make_ready(id);
        }
    }

    /// Looks at a bite of this worker's topics: a share of each message found, and where to go on.
    fn search_retained(
        &mut self,
        filter: &str,
        after: Option<&str>,
    ) -> (Vec<MessageRef>, Option<Box<str>>) {
        let Self { retained, pool, now, .. } = self;
        let mut found = Vec::new();
        let next = retained.index.search(filter, after, BITE_TOPICS, |_, message| {
            if !pool.get(message).is_expired(*now) {
                found.push(pool.share(message));
            }
        });
        (found, next.map(Into::into))
    }

    /// Another worker's session searches here.
    pub(super) fn on_retained_search(&mut self, from: usize, search: &RetainedSearch) {
        let (found, next) = self.search_retained(&search.filter, search.after.as_deref());
        let mut messages: Vec<Message> = Vec::with_capacity(found.len());
        for message in found {
            messages.push(self.pool.copy(&message));
            self.pool.release(message);
        }
        let found = RetainedFound { replay: search.replay, messages, next };
        self.mail(from, Mail::RetainedFound(Box::new(found)));
    }

    pub(super) fn on_retained_found(&mut self, _from: usize, mut found: RetainedFound) {
        for message in &mut found.messages {
            let message = self.pool.adopt(message);
            self.deliver_retained(found.replay, message);
        }
        self.on_bite(found.replay, found.next);
    }

    /// Queues a stored message, with RETAIN set and the subscription's identifier
    /// \[MQTT-3.3.4-3\].
    fn deliver_retained(&mut self, id: u64, message: MessageRef) {
        let Some(replay) = self.replays.get_mut(id) else { return self.pool.release(message) };
        let (key, subscription) = (replay.session, replay.subscription);
        let Some(session) = self.sessions.resolve(key) else {
            return self.pool.release(message);
        };
        let content = self.pool.get(&message);
        let is_own = content.publisher == self.sessions.get(session).hash;
        if is_own && subscription.options.no_local {
            return self.pool.release(message);
        }
        let entry = Entry {
            qos: self.delivery_qos(content, subscription.options.qos),
            identifiers: Identifiers::one(subscription.identifier),
            group: 0,
            retain: true,
            message,
        };
        self.deliver(session, entry, None);
    }

    /// The session's queue may have room for its replays again.
    pub(super) fn wake_replays(&mut self, session: SessionId) {
        let slot = self.sessions.get_mut(session);
        if slot.session.queue().len() > QUEUE_LOW {
            return;
        }
        slot.replays_waiting = 0;
        let waits = |replay: &Replay| {
            replay.session.slot == session.0 && replay.stage == Stage::WaitsForRoom
        };
        let ids: Vec<u64> = (self.replays.slots.iter())
            .filter(|(_, replay)| waits(replay))
            .map(|(slot, replay)| u64::from(replay.generation) << 32 | slot as u64)
            .collect();
        for id in ids {
            self.replays.make_ready(id);
        }
    }

    /// Deletes expired messages, so many topics at a time.
    pub(super) fn sweep_retained(&mut self) {
        let Self { retained, pool, now, .. } = self;
        let mut expired: Vec<Box<str>> = Vec::new();
        let after = retained.swept_to.take();
        let next = retained.index.scan(after.as_deref(), SWEEP_TOPICS, |topic, message| {
            if pool.get(message).is_expired(*now) {
                expired.push(topic.into());
            }
        });
        retained.swept_to = next.map(Into::into);
        for topic in expired {
            if let Some(message) = self.retained.index.remove(&topic) {
                self.release_retained(message);
                self.counters.drop(DropReason::Expired);
            }
        }
        self.counters.retained = self.retained.len() as u64;
        self.timers.add(self.now.plus_millis(SWEEP_INTERVAL_MS), Timer::RetainedSweep);
    }
}
