//! What belongs to the present connection and ends with it.

use dunlin_packets::{Packet, Version};
use dunlin_queue::Time;

use crate::alias::{IncomingAliases, OutgoingAliases};
use crate::{Limits, Offer};

/// The terms of a connection, and what has been agreed on it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) version: Version,
    pub(crate) keep_alive_s: u16,
    /// The least of what the client and we allow in flight.
    pub(crate) receive_maximum: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_alias_maximum: u16,
    /// Deliveries of an earlier connection have still to be sent again.
    pub(crate) resends: bool,
    /// Its session outlives a crash: as `Session::is_durable`, where a delivery looks anyway.
    pub(crate) is_durable: bool,
    /// Acknowledgements say how safe the message is.
    pub(crate) wants_levels: bool,
    /// They may say why.
    pub(crate) wants_reasons: bool,
    pub(crate) last_received: Time,
    pub(crate) incoming: Option<Box<IncomingAliases>>,
    pub(crate) outgoing: Option<Box<OutgoingAliases>>,
}

impl Link {
    pub(crate) fn new(offer: &Offer, limits: &Limits, resends: bool, now: Time) -> Self {
        Self {
            version: offer.version,
            keep_alive_s: offer.keep_alive_s,
            receive_maximum: offer.receive_maximum,
            packet_bytes_max: offer.packet_bytes_max,
            topic_alias_maximum: offer.topic_alias_maximum.min(limits.outgoing_aliases_max),
            resends,
            is_durable: false,
            wants_levels: offer.wants_levels,
            wants_reasons: offer.wants_reasons,
            last_received: now,
            incoming: None,
            outgoing: None,
        }
    }

    /// Appends a packet, unless it is larger than the client takes \[MQTT-3.1.2-24\].
    pub(crate) fn send(&self, packet: &Packet<'_>, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        packet.encode(self.version, out);
        let fits = out.len() - before <= self.packet_bytes_max as usize;
        if !fits {
            out.truncate(before);
        }
        fits
    }

    /// When the client counts as gone: one and a half keep alives of silence \[MQTT-3.1.2-22\].
    pub(crate) fn keep_alive_deadline(&self) -> Time {
        match self.keep_alive_s {
            0 => Time::NEVER,
            seconds => self.last_received.plus_millis(u64::from(seconds) * 1500),
        }
    }
}
