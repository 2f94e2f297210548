//! PUBLISH, section 3.3: the packet as it comes in, and as the broker sends it on.

use crate::property::Place;
use crate::topic::is_valid_topic;
use crate::wire::{Reader, put_binary, put_header, put_u16, put_varint, varint_len};
use crate::{Frame, PacketError, PacketId, Properties, Property, QoS, ReasonCode, Version};

/// An application message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, as far as the sender knows.
    pub dup: bool,
    /// QoS of this hop.
    pub qos: QoS,
    /// Keep it for later subscribers; or, to a subscriber: it was kept.
    pub retain: bool,
    /// The topic name; empty only beside a topic alias.
    pub topic: &'a str,
    /// Present at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, PacketError> {
        let qos = QoS::from_bits(frame.flags >> 1 & 0b11)
            .ok_or(PacketError::malformed("3.3.1-4", "PUBLISH with QoS 3"))?;
        let dup = frame.flags & 0b1000 != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(PacketError::malformed("3.3.1-2", "DUP is set at QoS 0"));
        }
        let mut reader = Reader::new(frame.body);
        let topic = reader.string()?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(read_packet_id(&mut reader)?),
        };
        let properties = if version.has_properties() {
            Properties::decode(&mut reader, Place::Publish)?
        } else {
            Properties::default()
        };
        if !is_valid_topic(topic) {
            check_topic(topic, properties)?;
        }
        let retain = frame.flags & 0b0001 != 0;
        Ok(Self { dup, qos, retain, topic, packet_id, properties, payload: reader.rest() })
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// When a field is longer than 65,535 bytes, or the packet than 256 MB.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.as_delivery().encode(version, self.payload.len(), out);
        out.extend_from_slice(self.payload);
    }

    fn as_delivery(&self) -> Delivery<'a> {
        Delivery {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_bytes(),
            packet_id: self.packet_id,
            topic_alias: None,
            message_expiry_s: None,
            identifiers: &[],
            forwarded: self.properties.as_bytes(),
        }
    }
}

/// Anything but an empty topic name beside a topic alias is an error here.
#[cold]
fn check_topic(topic: &str, properties: Properties<'_>) -> Result<(), PacketError> {
    if !topic.is_empty() {
        return Err(PacketError::new(
            ReasonCode::TopicNameInvalid,
            "3.3.2-2",
            "a topic name has wildcards",
        ));
    }
    if properties.iter().any(|property| matches!(property, Property::TopicAlias(_))) {
        return Ok(());
    }
    Err(PacketError::protocol("4.7.3-1", "an empty topic name without a topic alias"))
}

#[inline]
pub(crate) fn read_packet_id(reader: &mut Reader<'_>) -> Result<PacketId, PacketError> {
    PacketId::new(reader.u16()?).ok_or(PacketError::protocol("2.2.1-3", "packet identifier 0"))
}

/// A PUBLISH as the broker composes it for one subscriber: what differs between subscribers as
/// fields, what does not as bytes that are copied through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Resent after a reconnect.
    pub dup: bool,
    /// QoS of this hop.
    pub qos: QoS,
    /// Stored, or subscribed with Retain As Published.
    pub retain: bool,
    /// The topic name; empty where the alias stands for it.
    pub topic: &'a [u8],
    /// Present at QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Alias of the topic on this connection.
    pub topic_alias: Option<u16>,
    /// Seconds the message has left.
    pub message_expiry_s: Option<u32>,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: &'a [u32],
    /// Properties that pass unaltered, as they came \[MQTT-3.3.2-17\] \[MQTT-3.3.2-18\].
    pub forwarded: &'a [u8],
}

impl Delivery<'_> {
    /// Appends everything before the payload.
    ///
    /// # Panics
    /// When the topic is longer than 65,535 bytes, or the packet than 256 MB.
    #[inline]
    pub fn encode(&self, version: Version, payload_len: usize, out: &mut Vec<u8>) {
        let properties_len = self.properties_len();
        put_header(out, self.first_byte(), self.body_len(version, properties_len, payload_len));
        put_binary(out, self.topic);
        if let Some(packet_id) = self.packet_id {
            put_u16(out, packet_id.get());
        }
        if !version.has_properties() {
            return;
        }
        put_varint(out, properties_len);
        if let Some(seconds) = self.message_expiry_s {
            Property::MessageExpiryInterval(seconds).encode(out);
        }
        if let Some(alias) = self.topic_alias {
            Property::TopicAlias(alias).encode(out);
        }
        for &identifier in self.identifiers {
            Property::SubscriptionIdentifier(identifier).encode(out);
        }
        out.extend_from_slice(self.forwarded);
    }

    /// Length of the whole packet.
    #[inline]
    #[must_use]
    pub fn packet_len(&self, version: Version, payload_len: usize) -> usize {
        let body = self.body_len(version, self.properties_len(), payload_len);
        1 + varint_len(body) + body
    }

    fn first_byte(&self) -> u8 {
        0x30 | u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    fn body_len(&self, version: Version, properties_len: usize, payload_len: usize) -> usize {
        let head = 2 + self.topic.len() + if self.packet_id.is_some() { 2 } else { 0 };
        let properties =
            if version.has_properties() { varint_len(properties_len) + properties_len } else { 0 };
        head + properties + payload_len
    }

    fn properties_len(&self) -> usize {
        let expiry = if self.message_expiry_s.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let identifiers: usize =
            self.identifiers.iter().map(|&identifier| 1 + varint_len(identifier as usize)).sum();
        expiry + alias + identifiers + self.forwarded.len()
    }
}
