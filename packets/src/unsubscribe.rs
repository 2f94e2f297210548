//! UNSUBSCRIBE and UNSUBACK, sections 3.10 and 3.11.

use crate::property::Place;
use crate::publish::read_packet_id;
use crate::subscribe::{decode_codes, encode_codes};
use crate::topic::is_valid_filter;
use crate::wire::{Reader, put_binary, put_header, put_u16};
use crate::{PacketError, PacketId, Properties, Version};

/// The filters of an UNSUBSCRIBE, checked, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterNames<'a> {
    bytes: &'a [u8],
}

impl<'a> FilterNames<'a> {
    /// The filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || reader.string().ok())
    }
}

/// A request to end subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Repeated in the UNSUBACK.
    pub packet_id: PacketId,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
    /// At least one filter.
    pub filters: FilterNames<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        let mut reader = Reader::new(body);
        let packet_id = read_packet_id(&mut reader)?;
        let properties = if version.has_properties() {
            Properties::decode(&mut reader, Place::Unsubscribe)?
        } else {
            Properties::default()
        };
        let filters = FilterNames { bytes: reader.rest() };
        if reader.is_empty() {
            return Err(PacketError::protocol("3.10.3-2", "UNSUBSCRIBE without a filter"));
        }
        while !reader.is_empty() {
            if !is_valid_filter(reader.string()?) {
                return Err(PacketError::malformed("4.7.1-1", "a topic filter is not well formed"));
            }
        }
        Ok(Self { packet_id, properties, filters })
    }

    /// Appends an UNSUBSCRIBE for `filters`.
    ///
    /// # Panics
    /// When a filter is longer than 65,535 bytes.
    pub fn encode(
        version: Version,
        packet_id: PacketId,
        properties: Properties<'_>,
        filters: &[&str],
        out: &mut Vec<u8>,
    ) {
        let mut body = Vec::with_capacity(64);
        put_u16(&mut body, packet_id.get());
        if version.has_properties() {
            properties.encode(&mut body);
        }
        for filter in filters {
            put_binary(&mut body, filter.as_bytes());
        }
        put_header(out, 0xa2, body.len());
        out.extend_from_slice(&body);
    }
}

const UNSUBACK_CODES: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];

/// The answer to an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// That of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
    /// One code per filter in 5.0, none before.
    pub codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        let (packet_id, properties, codes) =
            decode_codes(body, version, Place::UnsubAck, UNSUBACK_CODES)?;
        if !version.has_properties() && !codes.is_empty() {
            return Err(PacketError::malformed("3.11", "bytes follow the packet identifier"));
        }
        Ok(Self { packet_id, properties, codes })
    }

    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let codes = if version.has_properties() { self.codes } else { &[] };
        encode_codes(0xb0, version, self.packet_id, self.properties, codes, out);
    }
}
