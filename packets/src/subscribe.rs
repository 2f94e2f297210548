//! SUBSCRIBE and SUBACK, sections 3.8 and 3.9.

use crate::property::Place;
use crate::publish::read_packet_id;
use crate::topic::{is_valid_filter, split_shared};
use crate::wire::{Reader, put_binary, put_header, put_u16};
use crate::{PacketError, PacketId, Properties, QoS, Version};

/// When retained messages are sent at subscribe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE \[MQTT-3.3.1-9\].
    #[default]
    Always = 0,
    /// Only if the subscription is new \[MQTT-3.3.1-10\].
    IfNew = 1,
    /// Never \[MQTT-3.3.1-11\].
    Never = 2,
}

/// The options byte of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS to deliver at.
    pub qos: QoS,
    /// Not back to the client that published \[MQTT-3.8.3-3\].
    pub no_local: bool,
    /// Pass the publisher's RETAIN flag on \[MQTT-3.3.1-13\].
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    fn decode(bits: u8, version: Version) -> Result<Self, PacketError> {
        let reserved = if version.has_properties() { 0b1100_0000 } else { 0b1111_1100 };
        if bits & reserved != 0 {
            return Err(PacketError::malformed("3.8.3-5", "reserved subscription options are set"));
        }
        let qos = QoS::from_bits(bits & 0b11)
            .ok_or(PacketError::malformed("3.8.3-5", "SUBSCRIBE asks for QoS 3"))?;
        let retain_handling = match bits >> 4 & 0b11 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(PacketError::protocol("3.8.3.1", "retain handling 3")),
        };
        Ok(Self {
            qos,
            no_local: bits & 0b0100 != 0,
            retain_as_published: bits & 0b1000 != 0,
            retain_handling,
        })
    }

    /// From the byte that [`Self::to_bits`] makes.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Self::decode(bits, Version::V5).ok()
    }

    /// The byte on the wire.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        self.qos as u8
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterRequest<'a> {
    /// The filter as sent, `$share/…` included; well formed, unless it is a malformed `$share`
    /// from a version that does not know it.
    pub filter: &'a str,
    /// What is asked for.
    pub options: SubscriptionOptions,
}

/// The filters of a SUBSCRIBE, checked, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterRequests<'a> {
    bytes: &'a [u8],
    version: Version,
}

impl<'a> FilterRequests<'a> {
    /// The filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = FilterRequest<'a>> + use<'a> {
        let (mut reader, version) = (Reader::new(self.bytes), self.version);
        std::iter::from_fn(move || read_request(&mut reader, version).ok())
    }
}

fn read_request<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<FilterRequest<'a>, PacketError> {
    let filter = reader.string()?;
    let options = SubscriptionOptions::decode(reader.u8()?, version)?;
    Ok(FilterRequest { filter, options })
}

/// A request to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Repeated in the SUBACK.
    pub packet_id: PacketId,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
    /// At least one filter.
    pub filters: FilterRequests<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        let properties = if version.has_properties() {
            Properties::decode(&mut reader, Place::Subscribe)?
        } else {
            Properties::default()
        };
        let filters = FilterRequests { bytes: reader.rest(), version };
        if reader.is_empty() {
            return Err(PacketError::protocol("3.8.3-2", "SUBSCRIBE without a filter"));
        }
        while !reader.is_empty() {
            check_request(&read_request(&mut reader, version)?, version)?;
        }
        Ok(Self { packet_id, properties, filters })
    }

    /// Appends a SUBSCRIBE for `filters`.
    ///
    /// # Panics
    /// When a filter is longer than 65,535 bytes.
    pub fn encode(
        version: Version,
        packet_id: PacketId,
        properties: Properties<'_>,
        filters: &[FilterRequest<'_>],
        out: &mut Vec<u8>,
    ) {
        let mut body = Vec::with_capacity(64);
        put_u16(&mut body, packet_id.get());
        if version.has_properties() {
            properties.encode(&mut body);
        }
        for request in filters {
            put_binary(&mut body, request.filter.as_bytes());
            body.push(request.options.to_bits());
        }
        put_header(out, 0x82, body.len());
        out.extend_from_slice(&body);
    }
}

fn check_request(request: &FilterRequest<'_>, version: Version) -> Result<(), PacketError> {
    if !is_valid_filter(request.filter) {
        return Err(PacketError::malformed("4.7.1-1", "a topic filter is not well formed"));
    }
    match split_shared(request.filter) {
        Ok(Some(_)) if request.options.no_local => {
            Err(PacketError::protocol("3.8.3-4", "No Local on a shared subscription"))
        }
        Err(()) if version.has_properties() => {
            Err(PacketError::malformed("4.8.2-1", "a $share filter is not well formed"))
        }
        _ => Ok(()),
    }
}

/// The answer to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// That of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
    /// One code per filter, in their order, as they stand on the wire.
    pub codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        let table = if version.has_properties() { SUBACK_CODES } else { SUBACK_CODES_BEFORE_5 };
        let (packet_id, properties, codes) = decode_codes(body, version, Place::SubAck, table)?;
        if codes.is_empty() {
            return Err(PacketError::malformed("3.8.4-6", "SUBACK without a code"));
        }
        Ok(Self { packet_id, properties, codes })
    }

    /// Appends the packet. Before 5.0 every failure is 0x80 \[MQTT-3.9.3-2 of 3.1.1\].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_codes(0x90, version, self.packet_id, self.properties, self.codes, out);
    }
}

const SUBACK_CODES: &[u8] =
    &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
const SUBACK_CODES_BEFORE_5: &[u8] = &[0x00, 0x01, 0x02, 0x80];

/// Reads what SUBACK and UNSUBACK have in common: identifier, properties, a code per filter.
pub(crate) fn decode_codes<'a>(
    body: &'a [u8],
    version: Version,
    place: Place,
    table: &[u8],
) -> Result<(PacketId, Properties<'a>, &'a [u8]), PacketError> {
    let mut reader = Reader::new(body);
    let packet_id = read_packet_id(&mut reader)?;
    let properties = if version.has_properties() {
        Properties::decode(&mut reader, place)?
    } else {
        Properties::default()
    };
    if !reader.rest().iter().all(|code| table.contains(code)) {
        return Err(PacketError::malformed("3.9.3-2", "a reason code this packet does not have"));
    }
    Ok((packet_id, properties, reader.rest()))
}

pub(crate) fn encode_codes(
    first: u8,
    version: Version,
    packet_id: PacketId,
    properties: Properties<'_>,
    codes: &[u8],
    out: &mut Vec<u8>,
) {
    let with_properties = version.has_properties();
    let properties_len = if with_properties { properties.encoded_len() } else { 0 };
    put_header(out, first, 2 + properties_len + codes.len());
    put_u16(out, packet_id.get());
    if with_properties {
        properties.encode(out);
        out.extend_from_slice(codes);
    } else {
        out.extend(codes.iter().map(|&code| code.min(0x80)));
    }
}
