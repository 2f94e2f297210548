//! From a queue to the session of a consumer, and what that says about it.

use dunlin_packets::Properties;
use dunlin_queue::partitioned::{Delivery, GroupId, MemberId, MessageId, Mode};
use dunlin_queue::{
    DropReason, Entry, Identifiers, Message, MessageRef, OverflowPolicy, QueueLimits,
};
use dunlin_session::{Answer as ClientAnswer, Context};

use super::contents::Content;
use super::{Member, MemberTerms, QueueKey};
use crate::queues::{DeliveryInfo, delivery_properties, delivery_topic};
use crate::worker::mail::Mail;
use crate::worker::sessions::{SessionId, SessionKey};
use crate::worker::{Transport, Worker};

/// Bytes of deliveries that a consumer has not answered, above which it gets no more; one it gets
/// always.
const UNANSWERED_BYTES_MAX: u64 = 8 << 20;

/// How much goes to a consumer is limited by its prefetch, its Receive Maximum and the bytes above.
const NO_LIMITS: QueueLimits = QueueLimits {
    messages_max: usize::MAX,
    bytes_max: usize::MAX,
    policy: OverflowPolicy::DropNewest,
};

/// A message a member was given, on its way there.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) delivery: Delivery,
    /// As soon as it is in memory.
    pub(super) content: Option<Content>,
    /// It is being read.
    pub(super) is_asked: bool,
    /// It has waited for that, or for others.
    pub(super) is_late: bool,
}

/// A delivery that a session has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub(super) home: u16,
    pub(super) key: QueueKey,
    pub(super) group: GroupId,
    pub(super) member: MemberId,
    pub(super) id: MessageId,
    /// What it counts at home.
    pub(super) bytes: u32,
    /// What the session's worker knows the membership by.
    pub(super) membership: u32,
}

/// A delivery to a session of another worker.
#[derive(Debug)]
pub struct QueueDeliver {
    pub(in crate::worker) message: Message,
    session: SessionKey,
    terms: MemberTerms,
    outgoing: Outgoing,
}

/// What has become of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct QueueAnswer {
    pub(super) key: QueueKey,
    pub(super) group: GroupId,
    pub(super) member: MemberId,
    pub(super) id: MessageId,
    pub(super) bytes: u32,
    pub(super) answer: ClientAnswer,
}

impl<T: Transport> Worker<T> {
    /// Gives a member what it may have, and sends it what is in memory.
    pub(super) fn poll_member(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        let Some(slot) = self.queues.get_mut(key) else { return };
        let Some(known) = slot.members.get_mut(&(group, member)) else { return };
        known.is_listed = false;
        let under_way = known.unanswered as usize + known.waiting.len();
        let is_idle = under_way == 0;
        let waiting_bytes: u64 = known.waiting.iter().map(|it| u64::from(it.delivery.bytes)).sum();
        let bytes = UNANSWERED_BYTES_MAX.saturating_sub(known.unanswered_bytes.into());
        let bytes = bytes.saturating_sub(waiting_bytes).max(is_idle.into());
        // What its client cannot be sent would only wait, and its lease would end meanwhile.
        let terms = &known.terms;
        let under_way_max = terms.prefetch.min(terms.in_flight_max.into()) as usize;
        let credit = under_way_max.saturating_sub(under_way);
        if credit > 0 && bytes > 0 {
            let mut deliveries = std::mem::take(&mut self.queues.deliveries);
            // A member that is none any more gets nothing.
            let _ = self.with_queue(key, |queue, cx| {
                queue.poll_within(group, member, (credit, bytes), &mut deliveries, cx)
            });
            for delivery in deliveries.drain(..) {
                let content = self.content(key, delivery.id);
                let waiting = Waiting { delivery, content, is_asked: false, is_late: false };
                let slot = self.queues.get_mut(key);
                if let Some(known) = slot.and_then(|it| it.members.get_mut(&(group, member))) {
                    known.waiting.push_back(waiting);
                }
            }
            self.queues.deliveries = deliveries;
            self.absorb(key);
        }
        self.send_waiting(key, group, member);
    }

    /// A share of a message, if it is in memory.
    pub(super) fn content(&mut self, key: QueueKey, id: MessageId) -> Option<Content> {
        let contents = self.queues.get(key)?.contents.get(usize::from(id.partition))?;
        let Content { message, at, key_at, is_captured, .. } = contents.get(id.offset)?;
        let (at, key_at, is_captured) = (*at, *key_at, *is_captured);
        // The queue's own share stays.
        let message = self.pool.share(message);
        Some(Content { message, at, key_at, is_captured, is_only: false })
    }

    /// Sends a member what it was given, in order, as far as that is in memory; asks for the rest.
    pub(super) fn send_waiting(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        loop {
            let Some(slot) = self.queues.get_mut(key) else { return };
            let Some(known) = slot.members.get_mut(&(group, member)) else { return };
            let is_there = known.waiting.front().is_some_and(|it| it.content.is_some());
            if !is_there {
                break;
            }
            let Some(Waiting { delivery, content: Some(content), is_late, .. }) =
                known.waiting.pop_front()
            else {
                break;
            };
            if is_late && !slot.queue.is_out(group, member, &delivery) {
                self.pool.release(content.message);
                self.queues.list(key, group, member);
                continue;
            }
            self.send_one(key, group, member, &delivery, content);
        }
        self.load_waiting(key, group, member);
    }

    fn send_one(
        &mut self,
        key: QueueKey,
        group: GroupId,
        member: MemberId,
        delivery: &Delivery,
        content: Content,
    ) {
        if !self.is_wanted(key, group, &content) {
            self.pool.release(content.message);
            // Nobody in this group ever gets it.
            let _ = self.with_queue(key, |queue, cx| queue.ack(group, member, delivery.id, cx));
            self.absorb(key);
            return self.queues.list(key, group, member);
        }
        let Some(slot) = self.queues.get(key) else { return self.pool.release(content.message) };
        let Some(known) = slot.members.get(&(group, member)) else {
            return self.pool.release(content.message);
        };
        let Member { terms, session, membership, .. } = *known;
        let message = self.compose_delivery(key, group, delivery, &content, terms);
        self.pool.release(content.message);
        let bytes = u32::try_from(self.pool.get(&message).len()).unwrap_or(u32::MAX);
        let slot = self.queues.get_mut(key);
        if let Some(known) = slot.and_then(|slot| slot.members.get_mut(&(group, member))) {
            known.unanswered += 1;
            known.unanswered_bytes = known.unanswered_bytes.saturating_add(bytes);
        }
        let home = self.index as u16;
        let id = delivery.id;
        let outgoing = Outgoing { home, key, group, member, id, bytes, membership };
        if usize::from(session.worker) == self.index {
            return self.take_delivery(session, message, terms, outgoing);
        }
        let copy = self.pool.copy(&message);
        self.pool.release(message);
        let deliver = QueueDeliver { message: copy, session, terms, outgoing };
        self.mail(usize::from(session.worker), Mail::QueueDeliver(Box::new(deliver)));
    }

    /// Whether the group's filter matches the routing key.
    fn is_wanted(&self, key: QueueKey, group: GroupId, content: &Content) -> bool {
        let Some(group) = self.queues.get(key).and_then(|slot| slot.group(group)) else {
            return false;
        };
        let topic = self.pool.get(&content.message).topic();
        let routing_key = topic.get(usize::from(content.key_at)..).unwrap_or_default();
        group.filter.is_empty() || dunlin_packets::filter_matches(&group.filter, routing_key)
    }

    /// The message as its consumer gets it.
    fn compose_delivery(
        &mut self,
        key: QueueKey,
        group: GroupId,
        delivery: &Delivery,
        content: &Content,
        terms: MemberTerms,
    ) -> MessageRef {
        let mut text = std::mem::take(&mut self.queues.text);
        let mut properties = std::mem::take(&mut self.queues.properties);
        text.clear();
        properties.clear();
        let original = self.pool.get(&content.message);
        let topic = original.topic();
        let routing_key = topic.get(usize::from(content.key_at)..).unwrap_or_default();
        if let Some(slot) = self.queues.get(key)
            && let Some(group) = slot.group(group)
        {
            let queue = slot.name();
            delivery_topic(queue, routing_key, &mut text);
            if terms.has_properties {
                let info = DeliveryInfo {
                    queue,
                    group: &group.name,
                    id: delivery.id,
                    attempt: delivery.attempt,
                    at: content.at,
                    source_topic: content.is_captured.then_some(topic),
                    is_stream: slot.queue.config().mode == Mode::Stream,
                };
                let original = Properties::from_checked(original.properties());
                delivery_properties(original, &info, &mut properties);
            }
        }
        let message = &content.message;
        let (as_properties, now) = (properties.as_properties(), self.now);
        let derived = self.pool.derive(message, &text, as_properties, terms.qos, now);
        (self.queues.text, self.queues.properties) = (text, properties);
        derived
    }

    /// A delivery has come from a queue at home elsewhere.
    pub(in crate::worker) fn on_queue_deliver(&mut self, deliver: &mut QueueDeliver) {
        let message = self.pool.adopt(&mut deliver.message);
        let QueueDeliver { session, terms, outgoing, .. } = *deliver;
        if self.queues.memberships.is_ending(outgoing.membership) {
            // The home gives it to others, and has not known of the end when it sent this. The
            // session may be back as another member: it must not get what others have.
            self.pool.release(message);
            return self.push_answer(outgoing, ClientAnswer::Unsent);
        }
        self.take_delivery(session, message, terms, outgoing);
    }

    /// Puts a delivery into its session's queue.
    fn take_delivery(
        &mut self,
        session: SessionKey,
        message: MessageRef,
        terms: MemberTerms,
        outgoing: Outgoing,
    ) {
        let session = self.sessions.resolve(session);
        let online = session.filter(|&session| self.sessions.get(session).conn.is_some());
        let Some(session) = online else {
            self.pool.release(message);
            return self.push_answer(outgoing, ClientAnswer::Unsent);
        };
        let number = self.queues.outgoing.insert(outgoing) as u64;
        self.pool.mark_delivery(&message, number);
        let entry = Entry {
            message,
            identifiers: Identifiers::one(terms.identifier),
            group: Entry::FROM_QUEUE,
            qos: terms.qos,
            retain: false,
        };
        let slot = self.sessions.get_mut(session);
        let limits = &self.shared.settings.limits;
        let changes = &mut self.changes;
        let mut cx = Context { limits, pool: &mut self.pool, changes, now: self.now };
        slot.session.enqueue(entry, &NO_LIMITS, &mut cx, |_, _| {});
        self.after_delivery(session, None, false);
    }

    /// A session is done with a delivery from a queue.
    pub(in crate::worker) fn note_answer(&mut self, number: u64, answer: ClientAnswer) {
        let Some(outgoing) = self.queues.outgoing.try_remove(number as usize) else { return };
        self.push_answer(outgoing, answer);
    }

    fn push_answer(&mut self, outgoing: Outgoing, answer: ClientAnswer) {
        let Outgoing { home, key, group, member, id, bytes, .. } = outgoing;
        let answer = QueueAnswer { key, group, member, id, bytes, answer };
        self.queues.answers[usize::from(home)].push(answer);
        self.queues.is_busy = true;
    }

    /// Nobody is told any more what becomes of a delivery.
    pub(super) fn forget_outgoing(&mut self, number: u64) {
        let _ = self.queues.outgoing.try_remove(number as usize);
    }

    /// The session ends, with what it has in flight at QoS 2.
    pub(super) fn forget_outgoing_of(&mut self, session: SessionId) {
        let window = self.sessions.get(session).session.window();
        let numbers: Vec<u64> = window
            .iter()
            .filter_map(|slot| match &slot.stage {
                dunlin_queue::Stage::Publish(entry) if entry.is_from_queue() => {
                    Some(self.pool.get(&entry.message).publisher)
                }
                _ => None,
            })
            .collect();
        numbers.into_iter().for_each(|number| self.forget_outgoing(number));
    }

    /// A delivery that its session cannot send.
    pub(in crate::worker) fn undeliverable_from_queue(&mut self, entry: Entry, reason: DropReason) {
        let number = self.pool.get(&entry.message).publisher;
        entry.release(&mut self.pool);
        if reason == DropReason::Expired {
            // The queue finds that out itself, and counts it.
            return self.note_answer(number, ClientAnswer::Unsent);
        }
        self.counters.drop(reason);
        let answer = match reason {
            // Too large for this client: an attempt has failed, and the last one makes it a dead
            // letter.
            DropReason::PacketTooLarge => ClientAnswer::Refused,
            _ => ClientAnswer::Unsent,
        };
        self.note_answer(number, answer);
    }
}
