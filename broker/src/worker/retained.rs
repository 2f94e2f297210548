//! Retained messages: each worker keeps those whose topic hashes to it, and says so to a publisher
//! of whom it takes no more. How subscriptions get them is in `replay`.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dunlin_packets::{QoS, ReasonCode};
use dunlin_queue::{DropReason, MessageRef};
use dunlin_router::{Remote, RetainedIndex};
use dunlin_session::SYS_PREFIX;

use super::acknowledge::Acknowledgement;
use super::conn::ConnId;
use super::mail::{Answer, Mail, Ticket};
use super::open_acks::HomeAnswered;
use super::queues::Refusal;
use super::settings::{Level, RetainedLimits};
use super::then::message_record;
use super::timers::Timer;
use super::{Transport, Worker, workers_in};
use crate::store::record::Record;

/// Topics a sweep looks at, and the time between two.
const SWEEP_TOPICS: usize = 10_000;
const SWEEP_INTERVAL_MS: u64 = 1_000;

/// This worker's part of the retained store.
#[derive(Debug, Default)]
pub(super) struct RetainedShard {
    pub(super) index: RetainedIndex<MessageRef>,
    /// Where the sweep for expired messages goes on.
    swept_to: Option<Box<str>>,
}

/// Who waits for what the home of a retained message makes of it.
#[derive(Clone, Copy, Debug)]
pub struct RetainAsker {
    /// Where there is no log, the number of the acknowledgement that waits.
    pub(super) ticket: Ticket,
    /// For whom, there.
    pub(super) conn: Option<ConnId>,
    /// It can be told that there is no room.
    pub(super) hears_refusal: bool,
}

/// What has become of a message that was to be retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retained {
    /// It is kept, or nobody has to know that it is not.
    Done,
    /// There is no room.
    Refused(Refusal),
    /// Its home will say, and with that the acknowledgement is given.
    Asked,
}

/// What a publisher is told when there is no room. It has been delivered, so at QoS 2 it is not
/// refused: an error would free the packet identifier before the client knows, and what it sends
/// again would be delivered again.
fn no_room(qos: QoS) -> Refusal {
    let code = match qos {
        QoS::ExactlyOnce => ReasonCode::Success,
        QoS::AtMostOnce | QoS::AtLeastOnce => ReasonCode::QuotaExceeded,
    };
    let reason = "delivered, but not retained: too many retained messages or bytes";
    Refusal { code, reason, is_for_now: false }
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
    pub(super) fn may_have(&self, topic_hash: u64) -> bool {
        self.place(topic_hash).load(Ordering::SeqCst) > 0
    }

    /// Whether a message of `len` bytes fits in place of one of `stored`. Two workers that ask at
    /// the same moment may exceed a limit by one message.
    fn has_room(&self, stored: Option<usize>, len: usize, limits: &RetainedLimits) -> bool {
        let messages = self.messages.load(Ordering::Relaxed) + usize::from(stored.is_none());
        let bytes = self.bytes.load(Ordering::Relaxed) - stored.unwrap_or(0) + len;
        messages <= limits.messages_max && bytes <= limits.bytes_max
    }

    /// Whether there may be no room any more when a message arrives at its home: less is left than
    /// what can be under way there already.
    fn is_tight(&self, len: usize, limits: &RetainedLimits) -> bool {
        let messages_left =
            limits.messages_max.saturating_sub(self.messages.load(Ordering::Relaxed));
        let bytes_left = limits.bytes_max.saturating_sub(self.bytes.load(Ordering::Relaxed) + len);
        messages_left <= (limits.messages_max / 16).max(1 << 17)
            || bytes_left <= (limits.bytes_max / 16).max(64 << 20)
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

impl<T: Transport> Worker<T> {
    /// Stores, replaces or deletes the retained message of a topic \[MQTT-3.3.1-5\], on the worker
    /// that keeps it. `ack` is for whoever can be told that there is no room; it is given away if
    /// the answer is [`Retained::Asked`].
    pub(super) fn retain(
        &mut self,
        message: &MessageRef,
        routed: u64,
        ack: Option<Acknowledgement>,
    ) -> Retained {
        if self.shared.settings.durability.level(self.pool.get(message).topic()) != Level::Memory {
            self.number(message);
        }
        let home = self.shared.worker_of(self.pool.get(message).topic(), self.outboxes.len());
        if home == self.index {
            let message = self.pool.share(message);
            return self.retain_here(message, ack.is_some());
        }
        self.shared.retained.add_topic(self.topic_hash(message));
        let asker = match self.recording_ticket(false) {
            Some(ticket) => Some(RetainAsker { ticket, conn: None, hears_refusal: ack.is_some() }),
            None => self.ask_home_if_tight(message, ack),
        };
        // While a message is written down, its acknowledgement waits for all of that.
        let is_asked = asker.is_some_and(|asker| asker.conn.is_some());
        let message = self.pool.copy(message);
        self.retains.push((home, Mail::Retain { message, routed, asker }));
        if is_asked { Retained::Asked } else { Retained::Done }
    }

    fn retain_here(&mut self, message: MessageRef, hears_refusal: bool) -> Retained {
        let stored = self.store_retained(message);
        let refusal = stored.err().filter(|_| hears_refusal);
        if let Some(recording) = self.journal.as_mut().and_then(|j| j.recording.as_mut()) {
            recording.is_recorded |= stored.is_ok();
            recording.refusal = recording.refusal.or(refusal);
            return Retained::Done;
        }
        refusal.map_or(Retained::Done, Retained::Refused)
    }

    /// Has an acknowledgement wait for the message's home, if that may have no room.
    #[cold]
    fn ask_home_if_tight(
        &mut self,
        message: &MessageRef,
        ack: Option<Acknowledgement>,
    ) -> Option<RetainAsker> {
        let content = self.pool.get(message);
        let limits = &self.shared.settings.retained;
        let is_tight =
            !content.payload().is_empty() && self.shared.retained.is_tight(content.len(), limits);
        let ack = ack.filter(|_| is_tight)?;
        let ticket = Ticket { worker: self.index as u16, number: self.open_ack(ack) };
        Some(RetainAsker { ticket, conn: Some(ack.publisher.conn), hears_refusal: true })
    }

    /// A message of another worker that this one keeps.
    pub(super) fn on_retain(
        &mut self,
        message: MessageRef,
        routed: u64,
        asker: Option<RetainAsker>,
    ) {
        self.route_to_latecomers(&message, routed);
        let topic_hash = self.topic_hash(&message);
        let is_logged = self.pool.get(&message).id != 0;
        let stored = self.store_retained(message);
        // On its way it counted; now it does if it is there.
        self.shared.retained.remove_topic(topic_hash);
        let Some(RetainAsker { ticket, conn, hears_refusal }) = asker else { return };
        let (to, number) = (usize::from(ticket.worker), ticket.number);
        let refusal = stored.err().filter(|_| hears_refusal);
        let Some(journal) = &mut self.journal else {
            if let Some(conn) = conn {
                self.mail(to, Mail::HomeAnswered(HomeAnswered { conn, number, refusal }));
            }
            return;
        };
        let is_recorded = is_logged && stored.is_ok();
        let answer = Answer { ticket: number, is_recorded, refusal, ..Answer::default() };
        if is_recorded {
            let must_sync = self.shared.settings.durability.strictest() == Level::Fsync;
            journal.late_answers.push((to, answer));
            journal.wait_for_frame(must_sync);
        } else {
            self.answer(to, answer);
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

    /// Stores, replaces or deletes; an error when there is no room, which is counted.
    pub(super) fn store_retained(&mut self, message: MessageRef) -> Result<(), Refusal> {
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
                let refusal = no_room(content.qos);
                self.counters.drop(DropReason::RetainedLimit);
                self.pool.release(message);
                return Err(refusal);
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
        Ok(())
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
