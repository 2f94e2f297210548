//! Replays: what is retained, on its way to a new subscription.
//!
//! A replay belongs to one subscription. It goes over the workers one by one, and asks for the
//! next bite when its session's queue has room: it holds no worker up and fills no queue.
//!
//! Live messages overtake it. A worker posts what it has published before what it has retained,
//! and inboxes keep the order things were caused in: so what a search finds is never newer than
//! what its subscriber has been sent live. A replay therefore leaves out topics that were
//! published while it was on its way: their stored messages are stale, or there a second time.

use std::collections::{BTreeSet, VecDeque};

use dunlin_packets::QoS;
use dunlin_queue::{Entry, Identifiers, Message, MessageRef};
use dunlin_router::{Match, SubscriberId, Subscription, Target};
use slab::Slab;

use super::mail::{Mail, RetainedFound, RetainedSearch};
use super::sessions::SessionId;
use super::{Transport, Worker};

/// Topics one bite looks at, and a turn.
const BITE_TOPICS: usize = 256;
const TURN_TOPICS: usize = 1024;
/// Bytes of messages above which a bite ends.
const BITE_BYTES: usize = 1 << 20;
/// Messages in a session's queue above which its replays wait, and below which they go on; less
/// where the queue is smaller.
const QUEUE_HIGH: usize = 512;
const QUEUE_LOW: usize = 128;
/// Topics a replay remembers as published while it was on its way.
const LIVE_TOPICS_MAX: usize = 10_000;

/// A replay of this worker, with the generation of its slot.
pub(super) type ReplayId = u64;

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
    session: SessionId,
    filter: Box<str>,
    subscription: Subscription,
    /// The worker to search next, and the one behind the last.
    worker: usize,
    workers_end: usize,
    /// The topic to go on behind.
    after: Option<Box<str>>,
    stage: Stage,
    /// Topics that were published meanwhile.
    live: BTreeSet<Box<str>>,
}

/// Replays of this worker's sessions: one for a filter of a session.
#[derive(Debug, Default)]
pub(super) struct Replays {
    slots: Slab<Replay>,
    ready: VecDeque<ReplayId>,
    generation: u32,
}

impl Replays {
    pub(super) fn are_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn insert(&mut self, replay: impl FnOnce(u32) -> Replay) -> ReplayId {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slots.insert(replay(self.generation));
        u64::from(self.generation) << 32 | slot as u64
    }

    fn get_mut(&mut self, id: ReplayId) -> Option<&mut Replay> {
        let replay = self.slots.get_mut(id as u32 as usize)?;
        (replay.generation == (id >> 32) as u32).then_some(replay)
    }

    fn remove(&mut self, id: ReplayId) -> Option<Replay> {
        self.get_mut(id)?;
        let replay = self.slots.remove(id as u32 as usize);
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
            self.ready = VecDeque::new();
        }
        Some(replay)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn make_ready(&mut self, id: ReplayId) {
        if let Some(replay) = self.get_mut(id) {
            replay.stage = Stage::Ready;
            self.ready.push_back(id);
        }
    }
}

/// One bite of a search.
struct Bite {
    found: Vec<MessageRef>,
    looked_at: usize,
    next: Option<Box<str>>,
}

impl<T: Transport> Worker<T> {
    /// A message to be retained is on its way to these sessions.
    #[cold]
    pub(super) fn note_live(&mut self, message: &MessageRef, matched: &[Match]) {
        let topic = self.pool.get(message).topic();
        for entry in matched {
            let Target::Session(SubscriberId(session)) = entry.target() else { continue };
            for &id in self.sessions.get(SessionId(session)).replays.values() {
                let Some(replay) = self.replays.get_mut(id) else { continue };
                if replay.live.len() < LIVE_TOPICS_MAX {
                    replay.live.insert(topic.into());
                }
            }
        }
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
            if !self.shared.retained.may_have(self.shared.hash(filter)) {
                // Another worker need not be woken for that.
                return;
            }
            let home = self.shared.worker_of(filter, workers);
            (home, home + 1)
        } else {
            (0, workers)
        };
        let id = self.replays.insert(|generation| Replay {
            generation,
            session,
            filter: filter.into(),
            subscription,
            worker,
            workers_end,
            after: None,
            stage: Stage::Ready,
            live: BTreeSet::new(),
        });
        self.sessions.get_mut(session).replays.insert(filter.into(), id);
        self.replays.make_ready(id);
    }

    /// The subscription has changed or ended: nothing more is sent for it \[MQTT-3.10.4-2\].
    pub(super) fn cancel_replay(&mut self, session: SessionId, filter: &str) {
        if let Some(id) = self.sessions.get_mut(session).replays.remove(filter) {
            self.replays.remove(id);
        }
    }

    /// The session ends.
    pub(super) fn cancel_replays(&mut self, session: SessionId) {
        for id in std::mem::take(&mut self.sessions.get_mut(session).replays).into_values() {
            self.replays.remove(id);
        }
    }

    /// Goes on with replays, as far as a turn allows.
    pub(super) fn run_replays(&mut self) {
        let mut left = TURN_TOPICS;
        while left > 0
            && let Some(id) = self.replays.ready.pop_front()
        {
            left = left.saturating_sub(1 + self.run_replay(id));
        }
    }

    /// One bite of a replay. Returns how many topics were looked at.
    fn run_replay(&mut self, id: ReplayId) -> usize {
        let index = self.index;
        let Some(replay) = self.replays.get_mut(id) else { return 0 };
        let slot = self.sessions.get_mut(replay.session);
        let limits = &self.shared.settings.limits.queue;
        let queue = slot.session.queue();
        if queue.len() > QUEUE_HIGH.min(limits.messages_max / 4) || queue.is_high(limits) {
            slot.replays_wait = true;
            replay.stage = Stage::WaitsForRoom;
            return 0;
        }
        let bite_max = BITE_TOPICS.min(limits.messages_max.div_ceil(4));
        let (filter, after) = (replay.filter.clone(), replay.after.take());
        if replay.worker == index {
            let bite = self.search_retained(&filter, after.as_deref(), bite_max);
            for message in bite.found {
                self.deliver_retained(id, message);
            }
            self.on_bite(id, bite.next);
            return bite.looked_at;
        }
        replay.stage = Stage::Asked;
        let to = replay.worker;
        let search = RetainedSearch { replay: id, filter, after, limit: bite_max };
        // Behind what this worker has still to retain, which its session may have been sent live.
        self.retains.push((to, Mail::RetainedSearch(Box::new(search))));
        0
    }

    /// One bite of a search has been delivered.
    fn on_bite(&mut self, id: ReplayId, next: Option<Box<str>>) {
        let Some(replay) = self.replays.get_mut(id) else { return };
        if next.is_none() {
            replay.worker += 1;
        }
        replay.after = next;
        if replay.worker < replay.workers_end {
            return self.replays.make_ready(id);
        }
        if let Some(replay) = self.replays.remove(id) {
            self.sessions.get_mut(replay.session).replays.remove(&replay.filter);
        }
    }

    /// Looks at a bite of this worker's topics: a share of each message found, and where to go on.
    fn search_retained(&mut self, filter: &str, after: Option<&str>, limit: usize) -> Bite {
        let Self { retained, pool, now, .. } = self;
        let (mut found, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        let mut next: Option<Box<str>> = after.map(Into::into);
        // In steps, as the bytes of a bite are only known while it is taken.
        while looked_at < limit && bytes < BITE_BYTES {
            let step = 16.min(limit - looked_at);
            let last = retained.index.search(filter, next.as_deref(), step, |_, message| {
                if !pool.get(message).is_expired(*now) {
                    bytes += pool.get(message).len();
                    found.push(pool.share(message));
                }
            });
            looked_at += step;
            next = last.map(Into::into);
            if next.is_none() {
                break;
            }
        }
        Bite { found, looked_at, next }
    }

    /// Another worker's session searches here.
    pub(super) fn on_retained_search(&mut self, from: usize, search: &RetainedSearch) {
        let Bite { found, next, .. } =
            self.search_retained(&search.filter, search.after.as_deref(), search.limit);
        let mut messages: Vec<Message> = Vec::with_capacity(found.len());
        for message in found {
            messages.push(self.pool.copy(&message));
            self.pool.release(message);
        }
        let found = RetainedFound { replay: search.replay, messages, next };
        self.mail(from, Mail::RetainedFound(Box::new(found)));
    }

    pub(super) fn on_retained_found(&mut self, mut found: RetainedFound) {
        for message in &mut found.messages {
            let message = self.pool.adopt(message);
            self.deliver_retained(found.replay, message);
        }
        self.on_bite(found.replay, found.next);
    }

    /// Queues a stored message, with RETAIN set and the subscription's identifier
    /// \[MQTT-3.3.4-3\].
    fn deliver_retained(&mut self, id: ReplayId, message: MessageRef) {
        let Some(replay) = self.replays.get_mut(id) else { return self.pool.release(message) };
        let (session, subscription) = (replay.session, replay.subscription);
        let content = self.pool.get(&message);
        if !replay.live.is_empty() && replay.live.contains(content.topic()) {
            return self.pool.release(message);
        }
        let is_own = content.publisher == self.sessions.get(session).hash;
        if is_own && subscription.options.no_local {
            return self.pool.release(message);
        }
        let qos = self.shared.settings.delivery_qos(content.qos, subscription.options.qos);
        let is_recording = qos != QoS::AtMostOnce
            && content.id != 0
            && self.sessions.get(session).durable.is_some();
        let message = if is_recording {
            let copy = self.renumbered(&message);
            self.pool.release(message);
            self.begin_recording_for(&copy, None);
            copy
        } else {
            message
        };
        let entry = Entry {
            qos,
            identifiers: Identifiers::one(subscription.identifier),
            group: 0,
            retain: true,
            message: self.pool.share(&message),
        };
        self.deliver(session, entry, None);
        if is_recording {
            self.end_recording(&message, None, None);
        }
        self.pool.release(message);
    }

    /// The session's queue may have room for its replays again.
    pub(super) fn wake_replays(&mut self, session: SessionId) {
        let slot = self.sessions.get_mut(session);
        let limit = QUEUE_LOW.min(self.shared.settings.limits.queue.messages_max / 8);
        if !slot.replays_wait || slot.session.queue().len() > limit {
            return;
        }
        slot.replays_wait = false;
        let replays = &mut self.replays;
        for &id in slot.replays.values() {
            if replays.get_mut(id).is_some_and(|replay| replay.stage == Stage::WaitsForRoom) {
                replays.make_ready(id);
            }
        }
    }
}
