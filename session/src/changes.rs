//! What of a session's state has changed and has to outlive a crash, if the session does.

use dunlin_packets::PacketId;

/// One change, to be written down by the owner of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A logged message was put in flight.
    Sent {
        /// Its packet identifier.
        packet_id: PacketId,
        /// The message's number in the log.
        id: u64,
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
    },
    /// PUBREL came for a QoS 2 publication of the client: its packet identifier is free again.
    Freed {
        /// Which one.
        packet_id: PacketId,
    },
}
