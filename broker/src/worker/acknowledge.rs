//! PUBACK and PUBREC: at once, or in their turn behind what has to be safe first.

use dunlin_packets::{PacketId, QoS, ReasonCode};
use dunlin_session::Outcome;

use super::deliver::Publisher;
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
}

impl<T: Transport> Worker<T> {
    /// Acknowledges when everything that was written down before is safe.
    pub(super) fn acknowledge_behind(
        &mut self,
        ack: Acknowledgement,
        level: Level,
        may_be_kept: bool,
    ) {
        let Acknowledgement { publisher, session: key, packet_id, qos, code } = ack;
        let Some(journal) = &mut self.journal else { return };
        if let Some(held) = journal.held.get_mut(&publisher.conn) {
            held.pending = held.pending.saturating_sub(1);
        }
        let Some(session) = self.sessions.resolve(key) else { return };
        let slot = self.sessions.get_mut(session);
        if may_be_kept
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
                session.acknowledge(packet_id, Outcome { qos, code, level }, out);
            });
        if is_held {
            self.counters.acknowledged[level as usize] += 1;
        } else {
            // There is nothing to wait for.
            if journal.held.get(&publisher.conn).is_some_and(|held| held.pending == 0) {
                journal.held.remove(&publisher.conn);
            }
            self.acknowledge_now(publisher, packet_id, qos, code);
        }
    }

    /// An acknowledgement that needs nothing written down; it may have to queue up all the same.
    #[inline]
    pub(super) fn acknowledge(
        &mut self,
        publisher: Publisher,
        packet_id: PacketId,
        qos: QoS,
        code: ReasonCode,
    ) {
        match &mut self.journal {
            Some(journal) if journal.holds(publisher.conn) => {
                let session = self.sessions.key(self.index, publisher.session);
                let ack = Acknowledgement { publisher, session, packet_id, qos, code };
                self.acknowledge_in_turn(ack);
            }
            _ => self.acknowledge_now(publisher, packet_id, qos, code),
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
