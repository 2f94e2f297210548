//! What a client is told: acknowledgements, and the end of its connection.

use dunlin_packets::{
    Ack, AckKind, Disconnect, Packet, PacketId, Properties, PropertiesBuf, Property, QoS,
    ReasonCode, SubAck, UnsubAck, Version,
};

use crate::LEVEL_PROPERTY;
use crate::session::{Outcome, Session};

impl Session {
    /// Answers a QoS 1 or 2 PUBLISH that is taken care of, or refused \[MQTT-4.3.2-4\]
    /// \[MQTT-4.3.3-8\]. Before 5.0 a refusal looks like success \[MQTT-3.3.5-2 of 3.1.1\].
    pub fn acknowledge(&mut self, id: PacketId, outcome: Outcome, out: &mut Vec<u8>) {
        let Outcome { qos, code, level, reason } = outcome;
        let kind = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => {
                // After a refusal the identifier begins a new message [MQTT-4.3.3-9]; before 5.0
                // the client cannot see one and will send PUBREL.
                let refused = code.is_error() && self.version() == Some(Version::V5);
                if refused {
                    self.received.remove(id);
                }
                AckKind::PubRec
            }
        };
        let ack = Ack { code, ..Ack::new(kind, id) };
        if !reason.is_empty() && self.link().is_some_and(|link| link.wants_reasons) {
            let mut properties = PropertiesBuf::new();
            properties.push(Property::ReasonString(reason));
            if self.send(&Packet::Ack(Ack { properties: properties.as_properties(), ..ack }), out) {
                return;
            }
        }
        if !code.is_error() && self.link().is_some_and(|link| link.wants_levels) {
            let mut properties = PropertiesBuf::new();
            properties.push(Property::UserProperty(LEVEL_PROPERTY, level.name()));
            if self.send(&Packet::Ack(Ack { properties: properties.as_properties(), ..ack }), out) {
                return;
            }
        }
        let _ = self.send(&Packet::Ack(ack), out);
    }

    /// Appends a SUBACK with a code per filter \[MQTT-3.8.4-6\], and why one of them is an error
    /// if that needs saying. `false` when the client takes no packet as large as that: it would
    /// wait for ever, so its connection has to end.
    #[must_use]
    pub fn suback(
        &self,
        packet_id: PacketId,
        codes: &[u8],
        reason: &str,
        out: &mut Vec<u8>,
    ) -> bool {
        if !reason.is_empty() && self.link().is_some_and(|link| link.wants_reasons) {
            let mut properties = PropertiesBuf::new();
            properties.push(Property::ReasonString(reason));
            let properties = properties.as_properties();
            if self.send(&Packet::SubAck(SubAck { packet_id, properties, codes }), out) {
                return true;
            }
        }
        let properties = Properties::default();
        self.send(&Packet::SubAck(SubAck { packet_id, properties, codes }), out)
    }

    /// Appends an UNSUBACK with a code per filter \[MQTT-3.11.3-1\]; `false` as for
    /// [`Self::suback`].
    #[must_use]
    pub fn unsuback(&self, packet_id: PacketId, codes: &[u8], out: &mut Vec<u8>) -> bool {
        let properties = Properties::default();
        self.send(&Packet::UnsubAck(UnsubAck { packet_id, properties, codes }), out)
    }

    /// Appends the DISCONNECT that ends the connection, where the version has one.
    pub fn disconnect(&self, code: ReasonCode, reason: &str, out: &mut Vec<u8>) {
        if self.version() != Some(Version::V5) {
            return;
        }
        let mut properties = PropertiesBuf::new();
        if !reason.is_empty() {
            properties.push(Property::ReasonString(reason));
        }
        let properties = properties.as_properties();
        // Too large with its reason string: without it, then [MQTT-3.14.2-3].
        if !self.send(&Packet::Disconnect(Disconnect { code, properties }), out) {
            let properties = Properties::default();
            let _ = self.send(&Packet::Disconnect(Disconnect { code, properties }), out);
        }
    }

    /// `false` when the packet is larger than the client takes. An acknowledgement never is: its
    /// client has taken a CONNACK.
    pub(crate) fn send(&self, packet: &Packet<'_>, out: &mut Vec<u8>) -> bool {
        self.link().is_none_or(|link| link.send(packet, out))
    }
}
