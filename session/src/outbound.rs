//! Messages to the client: pulled when its socket has room, so that packet identifiers, expiry and
//! aliases are those of the moment of sending.

use dunlin_packets::{Ack, AckKind, Delivery, Packet, PacketId, QoS};
use dunlin_queue::{DropReason, Entry, InFlight, MessagePool, MessageRef, Stage};

use crate::alias::Alias;
use crate::changes::{note_done, note_finished};
use crate::link::Link;
use crate::session::State;
use crate::{Change, Context, Session};

/// Payloads above this many bytes are not copied into the buffer but handed out, for a vectored
/// write.
pub(crate) const COPIED_PAYLOAD_MAX: usize = 16 << 10;

/// What [`Session::poll_publish`] did.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Polled {
    /// Nothing: no connection, nothing waits, or the window is full.
    Idle,
    /// A packet was appended.
    Sent,
    /// A packet was appended but for its payload, which is that of this message and has to follow
    /// at once. The share is the caller's.
    SentHead(MessageRef),
    /// A QoS 2 message was put in flight under an identifier that has to be written down before the
    /// packet is sent: [`Session::unhold`].
    Held(PacketId),
    /// The next message, with this number, is on its way to the log and not sent before.
    Waiting(u64),
    /// The next message is not in memory: load it, and ask again.
    Absent,
    /// A message could not be delivered. The entry is the caller's, to be released or given to
    /// another member of its share group.
    Undeliverable(Entry, DropReason),
}

impl Session {
    /// Appends the next packet for the client, if there is one that may be sent now. First what an
    /// earlier connection left unacknowledged \[MQTT-4.4.0-1\], then what waits, in order.
    #[inline]
    pub fn poll_publish(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Polled {
        let State::Online(link) = &mut self.state else { return Polled::Idle };
        if link.resends
            && let Some(polled) = self.poll_resend(cx, out)
        {
            return polled;
        }
        self.poll_queue(cx, out)
    }

    /// `None` when there is nothing to send again any more. What was sent once goes out again
    /// whatever its expiry says \[MQTT-4.3.3-7\].
    #[cold]
    fn poll_resend(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Option<Polled> {
        let State::Online(link) = &mut self.state else { return None };
        let is_full = self.window.counted() >= usize::from(link.receive_maximum);
        let must_wait =
            |slot: &InFlight| is_full && !slot.counted && matches!(slot.stage, Stage::Publish(_));
        let Some((mut at, mut slot)) = self.window.next_unsent(false) else {
            link.resends = false;
            return None;
        };
        if must_wait(slot) {
            // PUBREL does not wait for the quota [MQTT-4.9.0-3].
            match self.window.next_unsent(true) {
                Some(release) => (at, slot) = release,
                None => return Some(Polled::Idle),
            }
        }
        let id = slot.packet_id;
        let mut reason = DropReason::PacketTooLarge;
        let copied = match &slot.stage {
            // It has waited for the log only: its delivery has not begun [MQTT-3.3.2-5].
            Stage::Publish(entry)
                if slot.fresh && cx.pool.get(&entry.message).is_expired(cx.now) =>
            {
                reason = DropReason::Expired;
                None
            }
            Stage::Publish(entry)
                if cx.pool.get(&entry.message).is_absent() && !cx.pool.is_lost(&entry.message) =>
            {
                return Some(Polled::Absent);
            }
            Stage::Publish(entry) if cx.pool.is_lost(&entry.message) => None,
            Stage::Publish(entry) => encode(link, entry, Some(id), !slot.fresh, cx, out),
            Stage::Release | Stage::Done => {
                link.send(&Packet::Ack(Ack::new(AckKind::PubRel, id)), out);
                Some(true)
            }
        };
        let head = match (copied, &slot.stage) {
            (Some(false), Stage::Publish(entry)) => Some(cx.pool.share(&entry.message)),
            _ => None,
        };
        if copied.is_some() {
            self.window.mark_sent(at);
            return Some(head.map_or(Polled::Sent, Polled::SentHead));
        }
        // This connection takes only smaller packets: counts as delivered [MQTT-3.1.2-25].
        match self.window.finish(id, cx.pool) {
            Some(Some(mut entry)) => {
                if self.is_durable {
                    note_finished(id, &entry, cx.pool, cx.changes);
                }
                if entry.qos == QoS::ExactlyOnce && !entry.is_from_queue() {
                    // It was sent before, so nobody else may get it [MQTT-4.8.2-5].
                    entry.group = 0;
                }
                Some(Polled::Undeliverable(entry, reason))
            }
            _ => Some(Polled::Idle),
        }
    }

    #[inline]
    fn poll_queue(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Polled {
        let Some(entry) = self.queue.front() else { return Polled::Idle };
        let qos = entry.qos;
        if qos != QoS::AtMostOnce && !self.window_has_room(cx) {
            return Polled::Idle;
        }
        let message = cx.pool.get(&entry.message);
        if message.is_expired(cx.now) {
            return self.give_up(DropReason::Expired, cx);
        }
        let State::Online(link) = &mut self.state else { return Polled::Idle };
        let is_unusual = link.is_durable || message.is_absent() || cx.limits.queue_age_max_s != 0;
        let (mut recorded, mut dup) = (0, false);
        if is_unusual {
            let is_recorded = link.is_durable && qos == QoS::AtLeastOnce;
            recorded = if is_recorded { message.id } else { 0 };
            dup = recorded != 0 && recorded <= self.maybe_sent;
            if let Some(polled) = self.poll_kept_back(cx) {
                return polled;
            }
        }
        let polled = self.poll_front(dup, cx, out);
        if recorded != 0 && matches!(polled, Polled::Sent | Polled::SentHead(_)) {
            self.note_sent(recorded, cx);
        }
        polled
    }

    /// Sends the next message, which nothing keeps from being sent.
    #[inline(always)]
    fn poll_front(&mut self, dup: bool, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Polled {
        let Some(entry) = self.queue.front() else { return Polled::Idle };
        let qos = entry.qos;
        let State::Online(link) = &mut self.state else { return Polled::Idle };
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => match self.window.next_id() {
                Some(id) => Some(id),
                None => return Polled::Idle,
            },
        };
        let Some(copied) = encode(link, entry, packet_id, dup, cx, out) else {
            if let Some(id) = packet_id {
                self.window.return_id(id);
            }
            return self.give_up(DropReason::PacketTooLarge, cx);
        };
        let Some(entry) = self.queue.pop(cx.pool) else { return Polled::Idle };
        let head = (!copied).then(|| cx.pool.share(&entry.message));
        match packet_id {
            Some(packet_id) => {
                self.window.push(packet_id, entry, cx.pool);
            }
            None => entry.release(cx.pool),
        }
        head.map_or(Polled::Sent, Polled::SentHead)
    }

    /// A message of a session that outlives a crash was put in flight at QoS 1.
    #[cold]
    fn note_sent(&mut self, id: u64, cx: &mut Context<'_>) {
        if let Some(packet_id) = self.window.last_id() {
            cx.changes.push(Change::Sent { packet_id, id, is_exactly_once: false });
        }
    }

    /// What keeps the next message back: its age, the log. `None` when nothing does.
    #[inline(never)]
    fn poll_kept_back(&mut self, cx: &mut Context<'_>) -> Option<Polled> {
        let entry = self.queue.front()?;
        let message = cx.pool.get(&entry.message);
        let age_max_s = u64::from(cx.limits.queue_age_max_s);
        if age_max_s != 0 && !entry.retain && message.waited_s(cx.now) > age_max_s {
            return Some(self.give_up(DropReason::TooOld, cx));
        }
        let (id, qos) = (message.id, entry.qos);
        let is_recorded = self.is_durable && qos != QoS::AtMostOnce;
        if is_recorded && cx.pool.is_held(&entry.message) {
            // Nobody gets what a crash could take back.
            return Some(Polled::Waiting(id));
        }
        if message.is_absent() && cx.pool.is_lost(&entry.message) {
            return Some(self.give_up(DropReason::Unreadable, cx));
        }
        if message.is_absent() {
            return Some(Polled::Absent);
        }
        if !is_recorded || qos != QoS::ExactlyOnce {
            return None;
        }
        let Some(packet_id) = self.window.next_id() else { return Some(Polled::Idle) };
        cx.changes.push(Change::Sent { packet_id, id, is_exactly_once: true });
        let entry = self.queue.pop(cx.pool)?;
        self.window.push_held(packet_id, entry, cx.pool);
        Some(Polled::Held(packet_id))
    }

    fn window_has_room(&self, cx: &Context<'_>) -> bool {
        let Some(link) = self.link() else { return false };
        self.window.counted() < usize::from(link.receive_maximum)
            && self.window.len() < cx.limits.in_flight_max
            && (self.window.bytes() < cx.limits.in_flight_bytes_max || self.window.is_empty())
    }

    #[cold]
    fn give_up(&mut self, reason: DropReason, cx: &mut Context<'_>) -> Polled {
        match self.queue.pop(cx.pool) {
            Some(entry) => {
                if self.is_durable {
                    note_done(&entry, cx.pool, cx.changes);
                }
                Polled::Undeliverable(entry, reason)
            }
            None => Polled::Idle,
        }
    }

    /// The log has the packet identifier of a message in flight, or that it was released: the
    /// packet that waited for it can be polled.
    pub fn unhold(&mut self, id: PacketId) {
        self.window.unhold(id);
        if let State::Online(link) = &mut self.state {
            link.resends = true;
        }
    }
}

/// Appends the PUBLISH, without its payload if that is large. Says whether the payload was copied;
/// `None` when the packet is larger than the client takes, and nothing was appended
/// \[MQTT-3.1.2-24\].
#[inline(always)]
pub(crate) fn encode(
    link: &mut Link,
    entry: &Entry,
    packet_id: Option<PacketId>,
    dup: bool,
    cx: &mut Context<'_>,
    out: &mut Vec<u8>,
) -> Option<bool> {
    let pool: &MessagePool = cx.pool;
    let message = pool.get(&entry.message);
    let topic = message.topic_bytes();
    let mut one = [0];
    let mut delivery = Delivery {
        dup,
        qos: entry.qos,
        retain: entry.retain,
        topic,
        packet_id,
        topic_alias: None,
        message_expiry_s: None,
        identifiers: &[],
        forwarded: &[],
    };
    let mut alias = Alias::None;
    if link.version.has_properties() {
        delivery.message_expiry_s = message.seconds_left(cx.now);
        delivery.identifiers = pool.identifier_slice(&entry.identifiers, &mut one);
        delivery.forwarded = message.properties();
        if link.topic_alias_maximum > 0 {
            alias = apply_alias(link, &mut delivery);
        }
    }
    let payload = message.payload();
    let fits = |delivery: &Delivery<'_>| {
        delivery.packet_len(link.version, payload.len()) <= link.packet_bytes_max as usize
    };
    if !fits(&delivery) {
        // An alias takes three bytes, which may be more than it saves.
        (delivery.topic, delivery.topic_alias, alias) = (topic, None, Alias::None);
        if !fits(&delivery) {
            return None;
        }
    }
    delivery.encode(link.version, payload.len(), out);
    if let Alias::Set(number) = alias {
        link.outgoing.get_or_insert_default().set(topic, number);
    }
    let copied = payload.len() <= COPIED_PAYLOAD_MAX;
    if copied {
        out.extend_from_slice(payload);
    }
    Some(copied)
}

fn apply_alias(link: &mut Link, delivery: &mut Delivery<'_>) -> Alias {
    let aliases = link.outgoing.get_or_insert_default();
    let alias = aliases.choose(delivery.topic, link.topic_alias_maximum);
    match alias {
        Alias::None => {}
        Alias::Set(number) => delivery.topic_alias = Some(number),
        Alias::Known(number) => {
            delivery.topic_alias = Some(number);
            delivery.topic = &[];
        }
    }
    alias
}
