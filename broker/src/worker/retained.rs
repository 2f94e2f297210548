//! Retained messages: each worker keeps those whose topic hashes to it, and searches them in bites
//! for subscriptions everywhere.
//!
//! A replay belongs to one subscription. It goes over the workers one by one, and asks for the
//! next bite when its session's queue has room: it holds no worker up and fills no queue.
//!
//! Live messages overtake it. A worker posts what it has published before what it has retained,
//! and inboxes keep the order things were caused in: so what a search finds is never newer than
//! what its subscriber has been sent live. A replay therefore leaves out topics that were
//! published while it was on its way: their stored messages are stale, or there a second time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dunlin_packets::QoS;
use dunlin_queue::{DropReason, Entry, Identifiers, Message, MessageRef};
use dunlin_router::{Match, Remote, RetainedIndex, SubscriberId, Subscription, Target};
use dunlin_session::SYS_PREFIX;
use slab::Slab;

use super::mail::{Answer, Mail, RetainedFound, RetainedSearch, Ticket};
use super::sessions::SessionId;
use super::settings::{Level, RetainedLimits};
use super::then::message_record;
use super::timers::Timer;
use super::{Transport, Worker, workers_in};
use crate::store::record::Record;

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
/// Topics a sweep looks at, and the time between two.
const SWEEP_TOPICS: usize = 10_000;
const SWEEP_INTERVAL_MS: u64 = 1_000;

/// This worker's part of the retained store.
#[derive(Debug, Default)]
pub(super) struct RetainedShard {
    index: RetainedIndex<MessageRef>,
    /// Where the sweep for expired messages goes on.
    swept_to: Option<Box<str>>,
}

/// Places of [`RetainedTotals::topics`].
const TOPIC_PLACES: usize = 1 << 14;

/// What the retained stores of all workers hold, for the limits and to save searches.
#[derive(Debug)]
pub(super) struct RetainedTotals {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// How many topics with a message hash to each place. One that is on its way to its store
    /// counts before any other worker hears of it, so who subscribes when it has been routed finds
    /// it here.
    topics: Box<[AtomicU32]>,
}

impl Default for RetainedTotals {
    fn default() -> Self {
        let topics = (0..TOPIC_PLACES).map(|_| AtomicU32::new(0)).collect();
        Self { messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0), topics }
    }
}

impl RetainedTotals {
    fn place(&self, topic_hash: u64) -> &AtomicU32 {
        &self.topics[topic_hash as usize % TOPIC_PLACES]
    }

    fn add_topic(&self, topic_hash: u64) {
        self.place(topic_hash).fetch_add(1, Ordering::SeqCst);
    }

    fn remove_topic(&self, topic_hash: u64) {
        self.place(topic_hash).fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether there may be a message of a topic. `false` is certain.
    fn may_have(&self, topic_hash: u64) -> bool {
        self.place(topic_hash).load(Ordering::SeqCst) > 0
    }

    /// Whether a message of `len` bytes fits in place of one of `stored`. Two workers that ask at
    /// the same moment may exceed a limit by one message.
    fn has_room(&self, stored: Option<usize>, len: usize, limits: &RetainedLimits) -> bool {
        let messages = self.messages.load(Ordering::Relaxed) + usize::from(stored.is_none());
        let bytes = self.bytes.load(Ordering::Relaxed) - stored.unwrap_or(0) + len;
        messages <= limits.messages_max && bytes <= limits.bytes_max
    }

    fn add(&self, len: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(len, Ordering::Relaxed);
    }

    fn remove(&self, len: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(len, Ordering::Relaxed);
    }
}

impl RetainedShard {
    pub(super) fn get(&self, topic: &str) -> Option<&MessageRef> {
        self.index.get(topic)
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

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
    /// Stores, replaces or deletes the retained message of a topic \[MQTT-3.3.1-5\], on the worker
    /// that keeps it.
    pub(super) fn retain(&mut self, message: &MessageRef, routed: u64) {
        if self.shared.settings.durability.level(self.pool.get(message).topic()) != Level::Memory {
            self.number(message);
        }
        let home = self.shared.worker_of(self.pool.get(message).topic(), self.outboxes.len());
        if home == self.index {
            let message = self.pool.share(message);
            self.store_retained(message);
            if let Some(recording) = self.journal.as_mut().and_then(|j| j.recording.as_mut()) {
                recording.is_recorded = true;
            }
        } else {
            self.shared.retained.add_topic(self.topic_hash(message));
            let message = self.pool.copy(message);
            let ticket = self.recording_ticket(false);
            self.retains.push((home, Mail::Retain { message, routed, ticket }));
        }
    }

    /// Whether a message is to be retained and there is no room for one more. If its topic may have
    /// one already, that is seen where it is kept.
    pub(super) fn exceeds_retained(&self, message: &MessageRef) -> bool {
        let content = self.pool.get(message);
        let totals = &self.shared.retained;
        content.retain
            && !content.payload().is_empty()
            && !totals.has_room(None, content.len(), &self.shared.settings.retained)
            && !totals.may_have(self.topic_hash(message))
    }

    /// A message of another worker that this one keeps.
    pub(super) fn on_retain(&mut self, message: MessageRef, routed: u64, ticket: Option<Ticket>) {
        self.route_to_latecomers(&message, routed);
        let topic_hash = self.topic_hash(&message);
        self.store_retained(message);
        // On its way it counted; now it does if it is there.
        self.shared.retained.remove_topic(topic_hash);
        let Some(ticket) = ticket else { return };
        let must_sync = self.shared.settings.durability.strictest() == Level::Fsync;
        if let Some(journal) = &mut self.journal {
            let answer = Answer { ticket: ticket.number, is_recorded: true, ..Answer::default() };
            journal.late_answers.push((usize::from(ticket.worker), answer));
            journal.wait_for_frame(must_sync);
        }
    }

    fn topic_hash(&self, message: &MessageRef) -> u64 {
        self.shared.hash(self.pool.get(message).topic())
    }

    /// Writes down what becomes of a topic's retained message.
    /// `replaces_logged` says that the log has an earlier one, which has to go even if the topic is
    /// not kept any more.
    fn record_retained(&mut self, message: &MessageRef, replaces_logged: bool) {
        let Some(journal) = &mut self.journal else { return };
        let is_kept = self.pool.get(message).id != 0;
        if !is_kept && !replaces_logged {
            return;
        }
        if !is_kept || self.pool.get(message).payload().is_empty() {
            let topic = self.pool.get(message).topic();
            journal.write(&Record::RetainedGone { topic });
        } else {
            // Searches need it, and for every bite.
            self.pool.pin(message);
            journal.write(&Record::Message(message_record(&self.pool, message, &[], true)));
        }
    }

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

    /// Who subscribed after a retained message was routed, and searched here before it arrived, has
    /// missed it both ways. Those are on workers that had no interest then and have one now.
    pub(super) fn route_to_latecomers(&mut self, message: &MessageRef, routed: u64) {
        if routed & 1 << self.index == 0 {
            self.route_here(message, None, None);
        }
        let topic = self.pool.get(message).topic();
        let interested = self.interest.as_mut().map_or(0, |interest| interest.workers(topic));
        for worker in workers_in(interested & !routed) {
            let copy = self.pool.copy(message);
            self.mail(worker, Mail::Publish { message: copy, publisher: None, ticket: None });
        }
    }

    pub(super) fn store_retained(&mut self, message: MessageRef) {
        let content = self.pool.get(&message);
        let (topic, len) = (content.topic(), content.len());
        let shard = &mut self.retained;
        let replaced = if content.payload().is_empty() {
            // Deletes, and is never stored itself [MQTT-3.3.1-6] [MQTT-3.3.1-7].
            let removed = shard.index.remove(topic);
            if let Some(removed) = &removed {
                let is_logged = self.pool.get(removed).id != 0;
                self.record_retained(&message, is_logged);
            }
            self.pool.release(message);
            removed
        } else {
            let stored = shard.index.get(topic).map(|old| self.pool.get(old).len());
            let totals = &self.shared.retained;
            // The broker's own figures find room whatever the clients have stored.
            let is_own = topic.starts_with(SYS_PREFIX);
            if !is_own && !totals.has_room(stored, len, &self.shared.settings.retained) {
                tracing::debug!(topic, reason = DropReason::RetainedLimit.name(), "not retained");
                self.pool.release(message);
                return self.counters.drop(DropReason::RetainedLimit);
            }
            if !is_own {
                totals.add(len);
            }
            // An own borrow of the topic: the message moves into the index.
            let topic: Box<str> = topic.into();
            let old = shard.index.get(&topic);
            let is_logged = old.is_some_and(|old| self.pool.get(old).id != 0);
            self.record_retained(&message, is_logged);
            self.shared.retained.add_topic(self.shared.hash(&topic));
            self.retained.index.insert(&topic, message)
        };
        if let Some(old) = replaced {
            self.release_retained(old);
        }
        self.counters.retained = self.retained.len() as u64;
        self.counters.touch();
    }

    /// Takes a message that the log has as the retained one of its topic.
    pub(super) fn insert_retained(&mut self, topic: &str, message: MessageRef) {
        self.shared.retained.add(self.pool.get(&message).len());
        self.shared.retained.add_topic(self.shared.hash(topic));
        if let Some(old) = self.retained.index.insert(topic, message) {
            self.release_retained(old);
        }
    }

    fn release_retained(&mut self, message: MessageRef) {
        self.shared.retained.remove_topic(self.topic_hash(&message));
        let content = self.pool.get(&message);
        if !content.topic().starts_with(SYS_PREFIX) {
            self.shared.retained.remove(content.len());
        }
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
