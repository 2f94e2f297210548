//! Routing: a message to every session and every worker that wants it.

use dunlin_packets::{PacketId, QoS, ReasonCode, Version};
use dunlin_queue::{DropReason, Entry, Identifiers, MessageRef};
use dunlin_router::{Match, QueueId, SubscriberId, Target};
use dunlin_session::{Outcome, SYS_PREFIX};

use super::acknowledge::Acknowledgement;
use super::conn::ConnId;
use super::deliver::Publisher;
use super::mail::{Mail, PublisherKey};
use super::queues::Refusal;
use super::retained::Retained;
use super::run::may_begin_run;
use super::sessions::SessionId;
use super::settings::{Level, OverlapPolicy};
use super::{Transport, Worker, workers_in};
use crate::queues::is_queue_topic;

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routed {
    /// Other workers with an interest, a bit each.
    pub(super) workers: u64,
    /// Somebody here has one.
    pub(super) is_matched: bool,
}

impl Routed {
    fn is_wanted(self) -> bool {
        self.workers != 0 || self.is_matched
    }
}

/// What a client is told of its publication.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    /// This.
    Code(ReasonCode),
    /// That not everything could be done.
    Refused(Refusal),
    /// What another worker says.
    Later,
}

impl<T: Transport> Worker<T> {
    /// A client's PUBLISH, which its session found in order.
    #[inline]
    pub(super) fn on_publish(
        &mut self,
        publisher: Publisher,
        message: MessageRef,
        packet_id: Option<PacketId>,
    ) {
        self.counters.publishes_received += 1;
        self.counters.touch();
        if is_queue_topic(self.pool.get(&message).topic_bytes()) {
            return self.on_queue_publish(publisher, message, packet_id);
        }
        if self.journal.is_some() {
            return self.on_publish_beside_log(publisher, message, packet_id);
        }
        let qos = self.pool.get(&message).qos;
        let verdict = self.publish_for(publisher, &message, packet_id);
        self.pool.release(message);
        let Some(packet_id) = packet_id else { return };
        match verdict {
            Verdict::Code(code) if !self.open_acks.holds(publisher.conn) => {
                self.acknowledge_now(publisher, packet_id, qos, code);
            }
            _ => self.answer_publish_for(publisher, packet_id, qos, verdict),
        }
    }

    /// Acknowledges what is not acknowledged later.
    #[cold]
    fn answer_publish_for(
        &mut self,
        publisher: Publisher,
        packet_id: PacketId,
        qos: QoS,
        verdict: Verdict,
    ) {
        let session = self.sessions.key(self.index, publisher.session);
        let ack = Acknowledgement::new(publisher, session, packet_id, qos);
        match verdict {
            Verdict::Code(code) => self.acknowledge(ack.with_code(code)),
            Verdict::Refused(refusal) => self.acknowledge(ack.refused(refusal)),
            Verdict::Later => {}
        }
    }

    /// Publishes a client's message, and says what to answer.
    #[inline]
    fn publish_for(
        &mut self,
        publisher: Publisher,
        message: &MessageRef,
        packet_id: Option<PacketId>,
    ) -> Verdict {
        if self.pool.get(message).topic_bytes().starts_with(SYS_PREFIX.as_bytes()) {
            self.not_authorized(publisher, message);
            return Verdict::Code(ReasonCode::NotAuthorized);
        }
        let routed = self.route(message, Some(publisher.session), Some(publisher.conn));
        let code = match routed.is_wanted() {
            true => ReasonCode::Success,
            false => ReasonCode::NoMatchingSubscribers,
        };
        if !self.pool.get(message).retain {
            return Verdict::Code(code);
        }
        self.retain_for(publisher, message, packet_id, routed, code)
    }

    /// Retains a client's message, which has been routed.
    #[inline(never)]
    fn retain_for(
        &mut self,
        publisher: Publisher,
        message: &MessageRef,
        packet_id: Option<PacketId>,
        routed: Routed,
        code: ReasonCode,
    ) -> Verdict {
        let qos = self.pool.get(message).qos;
        let session = self.sessions.key(self.index, publisher.session);
        // Others cannot be told that there is no room.
        let is_v5 = self.sessions.get(publisher.session).session.version() == Some(Version::V5);
        let ack = packet_id.filter(|_| is_v5).map(|packet_id| {
            Acknowledgement::new(publisher, session, packet_id, qos).with_code(code)
        });
        match self.retain(message, routed.workers | 1 << self.index, ack) {
            Retained::Done => Verdict::Code(code),
            Retained::Refused(refusal) => Verdict::Refused(refusal),
            Retained::Asked => Verdict::Later,
        }
    }

    #[cold]
    fn not_authorized(&mut self, publisher: Publisher, message: &MessageRef) {
        let reason = DropReason::NotAuthorized;
        self.counters.drop(reason);
        let client = self.sessions.get(publisher.session).session.client_id();
        let topic = self.pool.get(message).topic();
        tracing::debug!(client, topic, reason = reason.name(), "not accepted");
    }

    /// A client's PUBLISH where there is a log, that may have to have it first.
    #[inline(never)]
    fn on_publish_beside_log(
        &mut self,
        publisher: Publisher,
        message: MessageRef,
        packet_id: Option<PacketId>,
    ) {
        let qos = self.pool.get(&message).qos;
        if let Some(code) = self.refusal_of_log(&message) {
            self.pool.release(message);
            return self.refuse_publish(publisher, packet_id, qos, code);
        }
        let is_recording = self.begin_recording(&message);
        let verdict = self.publish_for(publisher, &message, packet_id);
        match verdict {
            Verdict::Code(code) if is_recording => {
                let session = self.sessions.key(self.index, publisher.session);
                let ack = packet_id.map(|packet_id| {
                    Acknowledgement::new(publisher, session, packet_id, qos).with_code(code)
                });
                self.end_recording(&message, ack, None);
            }
            _ => {
                if let Some(packet_id) = packet_id {
                    self.answer_publish_for(publisher, packet_id, qos, verdict);
                }
            }
        }
        self.pool.release(message);
    }

    /// The log takes nothing, and the message would have to be in it. Before 5.0 a client can only
    /// be told by the end of its connection.
    #[cold]
    pub(super) fn refuse_publish(
        &mut self,
        publisher: Publisher,
        packet_id: Option<PacketId>,
        qos: QoS,
        code: ReasonCode,
    ) {
        self.counters.drop(DropReason::StorageRefused);
        let session = &mut self.sessions.get_mut(publisher.session).session;
        let version = session.version();
        if let Some(packet_id) = packet_id {
            // It comes again, and is no repetition then.
            session.forget_received(packet_id);
        }
        match packet_id {
            Some(packet_id) if version == Some(Version::V5) => {
                let session = self.sessions.key(self.index, publisher.session);
                let ack = Acknowledgement::new(publisher, session, packet_id, qos);
                self.acknowledge(ack.with_code(code));
            }
            _ => self.disconnect(publisher.conn, code, "the storage takes no more"),
        }
    }

    /// Acknowledges what needs nothing written down.
    #[inline(always)]
    pub(super) fn acknowledge_now(
        &mut self,
        publisher: Publisher,
        id: PacketId,
        qos: QoS,
        code: ReasonCode,
    ) {
        let Some(conn) = self.conns.get_mut(publisher.conn) else { return };
        let out = self.buffers.ready(&mut conn.control);
        let session = &mut self.sessions.get_mut(publisher.session).session;
        let level = Level::Memory;
        session.acknowledge(id, Outcome { qos, code, level, reason: "" }, out);
        self.counters.acknowledged[level as usize] += 1;
        self.mark_dirty(publisher.conn);
    }

    /// Sends a message of no client wherever somebody subscribes, and stores it if it is to be
    /// retained. `from` is the session whose will it is, if there is one. Whoever calls this
    /// settles the run, now or after the next message.
    pub(super) fn publish(&mut self, message: &MessageRef, from: Option<SessionId>) {
        let routed = self.route(message, from, None);
        if self.pool.get(message).retain {
            self.retain(message, routed.workers | 1 << self.index, None);
        }
    }

    /// Sends the message wherever somebody subscribes. `from` is the session that published it, if
    /// there is one, and `conn` the connection to hold back if a consumer cannot keep up.
    #[inline]
    fn route(
        &mut self,
        message: &MessageRef,
        from: Option<SessionId>,
        conn: Option<ConnId>,
    ) -> Routed {
        let key = conn.map(|conn| PublisherKey { worker: self.index as u16, conn });
        let routed = self.route_here(message, from, key);
        for worker in workers_in(routed.workers) {
            let copy = self.pool.copy(message);
            let ticket = self.recording_ticket(false);
            self.mail(worker, Mail::Publish { message: copy, publisher: conn, ticket });
        }
        routed
    }

    /// Queues the message for the sessions of this worker and the groups that live here, or adds it
    /// to the run that [`Self::settle_run`] will queue.
    pub(super) fn route_here(
        &mut self,
        message: &MessageRef,
        from: Option<SessionId>,
        publisher: Option<PublisherKey>,
    ) -> Routed {
        if let Some(workers) = self.extend_run(message, from, publisher) {
            return Routed { workers, is_matched: true };
        }
        let topic = self.pool.get(message).topic();
        let route = match &mut self.interest {
            Some(interest) => self.subscriptions.route(topic, interest),
            None => self.subscriptions.route(topic, &mut ()),
        };
        let (workers, may_overlap) = (route.workers, route.may_overlap);
        let retain = self.pool.get(message).retain;
        let is_recording = self.journal.as_ref().is_some_and(|journal| journal.recording.is_some());
        if !may_overlap && !retain && !is_recording && may_begin_run(route.matches) {
            self.begin_run(message, workers, from, publisher);
            return Routed { workers, is_matched: true };
        }
        self.matched.clear();
        self.matched.extend_from_slice(route.matches);
        let matched = std::mem::take(&mut self.matched);
        if !self.replays.is_empty() && retain {
            self.note_live(message, &matched);
        }
        if may_overlap && self.shared.settings.overlap == OverlapPolicy::Merge {
            for same in matched.chunk_by(|a, b| a.target() == b.target()) {
                self.deliver_merged(message, same, from, publisher);
            }
        } else {
            let mut last = None;
            for entry in &matched {
                let target = entry.target();
                // A queue has a message once, whatever filters of it match.
                if !matches!(target, Target::Queue(_)) || last != Some(target) {
                    self.deliver_match(message, entry, from, publisher);
                }
                last = Some(target);
            }
        }
        let is_matched = !matched.is_empty();
        self.matched = matched;
        Routed { workers, is_matched }
    }

    #[inline]
    fn deliver_match(
        &mut self,
        message: &MessageRef,
        entry: &Match,
        from: Option<SessionId>,
        publisher: Option<PublisherKey>,
    ) {
        match entry.target() {
            Target::Session(SubscriberId(id)) => {
                let session = SessionId(id);
                // Not back to where it came from [MQTT-3.8.3-3].
                if entry.no_local() && from == Some(session) {
                    return;
                }
                let identifiers = Identifiers::one(entry.identifier());
                let (qos, retain) = self.terms(message, entry);
                let message = self.pool.share(message);
                let entry = Entry { message, identifiers, group: 0, qos, retain };
                self.deliver(session, entry, publisher);
            }
            Target::Group(group) => self.deliver_to_group(group, message, publisher),
            Target::Queue(QueueId(slot)) => self.capture(slot, message),
        }
    }

    /// One copy for all subscriptions of a session that match, at their highest QoS, with all
    /// their identifiers \[MQTT-3.3.4-2\] \[MQTT-3.3.4-4\].
    fn deliver_merged(
        &mut self,
        message: &MessageRef,
        same: &[Match],
        from: Option<SessionId>,
        publisher: Option<PublisherKey>,
    ) {
        let [first, rest @ ..] = same else { return };
        let Target::Session(SubscriberId(id)) = first.target() else {
            return self.deliver_match(message, first, from, publisher);
        };
        if rest.is_empty() {
            return self.deliver_match(message, first, from, publisher);
        }
        let session = SessionId(id);
        let is_own = from == Some(session);
        let mut identifiers = std::mem::take(&mut self.identifiers);
        identifiers.clear();
        let mut terms: Option<(QoS, bool)> = None;
        for entry in same.iter().filter(|entry| !(is_own && entry.no_local())) {
            let (qos, retain) = self.terms(message, entry);
            let so_far = terms.get_or_insert((qos, retain));
            *so_far = (so_far.0.max(qos), so_far.1 || retain);
            if entry.identifier() != 0 {
                identifiers.push(entry.identifier());
            }
        }
        if let Some((qos, retain)) = terms {
            let entry = Entry {
                message: self.pool.share(message),
                identifiers: self.pool.identifiers(&identifiers),
                group: 0,
                qos,
                retain,
            };
            self.deliver(session, entry, publisher);
        }
        self.identifiers = identifiers;
    }

    /// QoS and RETAIN flag for a subscription \[MQTT-3.8.4-8\] \[MQTT-3.3.1-12\]
    /// \[MQTT-3.3.1-13\].
    #[inline]
    fn terms(&self, message: &MessageRef, entry: &Match) -> (QoS, bool) {
        let message = self.pool.get(message);
        let qos = self.shared.settings.delivery_qos(message.qos, entry.qos());
        (qos, message.retain && entry.retain_as_published())
    }
}
