//! PUBACK and PUBREC: at once, or in their turn behind what has to be safe first.

use dunlin_packets::{PacketId, QoS, ReasonCode, Version};
use dunlin_session::Outcome;

use super::deliver::Publisher;
use super::queues::Refusal;
use super::recording::Pending;
use super::sessions::SessionKey;
use super::settings::Level;
use super::{Transport, Worker};
use crate::store::record::Record;

/// What a client waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    pub(super) publisher: Publisher,
    pub(super) session: SessionKey,
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    pub(super) code: ReasonCode,
    /// Why, for people.
    pub(super) reason: &'static str,
    /// It is refused now, and may be taken later.
    pub(super) is_for_now: bool,
}

impl Acknowledgement {
    /// Of a publication that is taken care of.
    pub(super) fn new(
        publisher: Publisher,
        session: SessionKey,
        packet_id: PacketId,
        qos: QoS,
    ) -> Self {
        let (code, reason, is_for_now) = (ReasonCode::Success, "", false);
        Self { publisher, session, packet_id, qos, code, reason, is_for_now }
    }

    pub(super) fn with_code(self, code: ReasonCode) -> Self {
        Self { code, ..self }
    }

    /// Of a publication that is refused, or of which not everything could be done.
    pub(super) fn refused(self, refusal: Refusal) -> Self {
        let Refusal { code, reason, is_for_now } = refusal;
        if code.is_error() {
            Self { code, reason, is_for_now, ..self }
        } else {
            Self { reason, ..self }
        }
    }

    /// As [`Self::refused`], if there is a refusal. One that is an error stays.
    pub(super) fn refuse(&mut self, refusal: Option<Refusal>) {
        if let Some(refusal) = refusal.filter(|it| it.code.is_error() || !self.code.is_error()) {
            *self = self.refused(refusal);
        }
    }

    pub(super) fn is_exactly_once(&self) -> bool {
        self.qos == QoS::ExactlyOnce
    }
}

impl<T: Transport> Worker<T> {
    /// Acknowledges when everything that was written down before is safe.
    pub(super) fn acknowledge_behind(
        &mut self,
        ack: Acknowledgement,
        level: Level,
        may_be_kept: bool,
    ) {
        let Acknowledgement { publisher, session: key, packet_id, qos, code, reason, .. } = ack;
        let Some(journal) = &mut self.journal else { return };
        if let Some(held) = journal.held.get_mut(&publisher.conn) {
            held.pending = held.pending.saturating_sub(1);
        }
        let Some(session) = self.sessions.resolve(key) else { return };
        if self.ends_instead(&ack) {
            return;
        }
        let Some(journal) = &mut self.journal else { return };
        let slot = self.sessions.get_mut(session);
        // A refusal frees the packet identifier, and the client may use it for something else.
        let is_refused = code.is_error() && slot.session.version() == Some(Version::V5);
        if may_be_kept
            && !is_refused
            && qos == QoS::ExactlyOnce
            && let Some(durable) = &slot.durable
            && slot.session.set_recorded(packet_id)
        {
            // In the frame of the message: a crash keeps both or neither.
            journal.write(&Record::Received { sid: durable.sid, packet_id });
        }
        if slot.conn != Some(publisher.conn) {
            // Gone, or back on another connection: it asks again.
            journal.held.remove(&publisher.conn);
            return;
        }
        let session = &mut slot.session;
        // What needs nothing written down waits only for what it must not overtake.
        let must_wait = level != Level::Memory || journal.has_answers(publisher.conn);
        let is_held = must_wait
            && journal.hold_answer(publisher.conn, |out| {
                session.acknowledge(packet_id, Outcome { qos, code, level, reason }, out);
            });
        if is_held {
            self.counters.acknowledged[level as usize] += 1;
        } else {
            // There is nothing to wait for.
            if journal.held.get(&publisher.conn).is_some_and(|held| held.pending == 0) {
                journal.held.remove(&publisher.conn);
            }
            self.give(ack);
        }
    }

    /// Whether this is for a QoS 2 publication of a session that outlives a crash, so that its
    /// packet identifier has to as well.
    pub(super) fn outlives_crash(&self, ack: &Acknowledgement) -> bool {
        ack.is_exactly_once()
            && self
                .sessions
                .resolve(ack.session)
                .is_some_and(|session| self.sessions.get(session).durable.is_some())
    }

    /// An acknowledgement that needs nothing written down; it may have to queue up all the same.
    #[inline]
    pub(super) fn acknowledge(&mut self, ack: Acknowledgement) {
        match &mut self.journal {
            Some(journal) if journal.holds(ack.publisher.conn) => self.acknowledge_in_turn(ack),
            None if self.open_acks.holds(ack.publisher.conn) => self.open_acks.follow(ack),
            _ => self.give(ack),
        }
    }

    /// Gives an acknowledgement whose turn it is.
    pub(super) fn give(&mut self, ack: Acknowledgement) {
        if self.ends_instead(&ack) {
            return;
        }
        let Acknowledgement { publisher, session, packet_id, qos, code, reason, .. } = ack;
        let Some(session) = self.sessions.resolve(session) else { return };
        let slot = self.sessions.get_mut(session);
        let Some(conn) = self.conns.get_mut(publisher.conn) else { return };
        if slot.conn != Some(publisher.conn) {
            return;
        }
        let out = self.buffers.ready(&mut conn.control);
        let level = Level::Memory;
        slot.session.acknowledge(packet_id, Outcome { qos, code, level, reason }, out);
        self.counters.acknowledged[level as usize] += 1;
        self.mark_dirty(publisher.conn);
    }

    /// Before 5.0 a client cannot be told that what it sent is not kept now and may be later: its
    /// connection ends, so that it sends it again.
    fn ends_instead(&mut self, ack: &Acknowledgement) -> bool {
        let Some(session) = self.sessions.resolve(ack.session).filter(|_| ack.is_for_now) else {
            return false;
        };
        let slot = self.sessions.get_mut(session);
        if slot.session.version().is_none_or(|version| version == Version::V5)
            || slot.conn != Some(ack.publisher.conn)
        {
            return false;
        }
        slot.session.forget_received(ack.packet_id);
        self.disconnect(ack.publisher.conn, ack.code, ack.reason);
        true
    }

    /// A QoS 2 publication has come again. It is acknowledged when it is safe, as it may still be
    /// on its way; once the log has failed, nobody knows whether it is.
    pub(super) fn on_repeated(&mut self, publisher: Publisher, packet_id: PacketId) {
        let qos = QoS::ExactlyOnce;
        if let Some(code) = self.log_refusal().filter(|_| self.has_log_failed()) {
            return self.refuse_publish(publisher, Some(packet_id), qos, code);
        }
        let session = self.sessions.key(self.index, publisher.session);
        let ack = Acknowledgement::new(publisher, session, packet_id, qos);
        match self.journal {
            Some(_) => self.acknowledge_in_turn(ack),
            None => self.acknowledge(ack),
        }
    }

    /// Acknowledges behind everything that came before from anybody.
    pub(super) fn acknowledge_in_turn(&mut self, ack: Acknowledgement) {
        let Some(journal) = &mut self.journal else { return };
        journal.held.entry(ack.publisher.conn).or_default().pending += 1;
        journal.pending.push_back(Pending::of(ack));
        self.settle_pending();
    }
}
