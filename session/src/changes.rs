//! What of a session's state has changed and has to outlive a crash, if the session does.

use dunlin_packets::{PacketId, QoS};
use dunlin_queue::{Entry, MessagePool};

/// One change, to be written down by the owner of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message was put in flight.
    Sent {
        /// Its packet identifier.
        packet_id: PacketId,
        /// The message's number in the log; 0 for one at QoS 2 that is in none.
        id: u64,
        /// At QoS 2.
        is_exactly_once: bool,
    },
    /// PUBREC came for it: only PUBREL is sent from here on \[MQTT-4.3.3-4\]. The packet is held
    /// until [`Session::unhold`](crate::Session::unhold).
    Released {
        /// Its packet identifier.
        packet_id: PacketId,
        /// The message's number in the log.
        id: u64,
    },
    /// A QoS 2 delivery is over.
    Completed {
        /// Its packet identifier, free again.
        packet_id: PacketId,
    },
    /// The session has no more to do with the message: acknowledged, expired, dropped.
    Done {
        /// The message's number in the log.
        id: u64,
        /// It is on its way there.
        is_held: bool,
    },
    /// The client has answered a delivery from a partitioned queue, or will not get it.
    Answered {
        /// The number under which the worker knows it.
        number: u64,
        /// What has become of it.
        answer: Answer,
    },
    /// PUBREL came for a QoS 2 publication of the client: its packet identifier is free again.
    Freed {
        /// Which one.
        packet_id: PacketId,
    },
}

/// What has become of a delivery from a partitioned queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// PUBACK or PUBREC.
    Acknowledged,
    /// PUBACK or PUBREC with an error.
    Refused,
    /// It was not sent, and will not be.
    Unsent,
}

/// Somebody wants to know what has become of a delivery.
#[inline]
pub(crate) fn note_answer(
    entry: &Entry,
    answer: Answer,
    pool: &MessagePool,
    changes: &mut Vec<Change>,
) {
    if entry.is_from_queue() {
        let number = pool.get(&entry.message).publisher;
        changes.push(Change::Answered { number, answer });
    }
}

/// The session has no more to do with a message that it would have got after a crash.
#[inline]
pub(crate) fn note_done(entry: &Entry, pool: &MessagePool, changes: &mut Vec<Change>) {
    let id = pool.get(&entry.message).id;
    if id != 0 && entry.qos != QoS::AtMostOnce {
        changes.push(Change::Done { id, is_held: pool.is_held(&entry.message) });
    }
}

/// A delivery in flight is over without PUBCOMP.
pub(crate) fn note_finished(
    packet_id: PacketId,
    entry: &Entry,
    pool: &MessagePool,
    changes: &mut Vec<Change>,
) {
    note_done(entry, pool, changes);
    if entry.qos == QoS::ExactlyOnce {
        changes.push(Change::Completed { packet_id });
    }
}
