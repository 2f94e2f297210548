//! Properties of 5.0: one table of what exists, what type it has and where it is allowed.

use std::fmt;
use std::io::Write as _;

use crate::wire::{Reader, put_binary, put_u16, put_u32, put_varint, varint_len};
use crate::{PacketError, ReasonCode};

/// Where a property may stand: the packets of section 2.2.2.2, and the will as one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    Connect,
    Will,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth,
}

/// One property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the standard's own names
pub enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(bool),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

const USER_PROPERTY: u8 = 0x26;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;

/// Bits of the places a property is allowed in. Table 2-4 of the standard.
fn allowed_places(identifier: u8) -> Option<u16> {
    use Place::{
        Auth, ConnAck, Connect, Disconnect, PubAck, PubComp, PubRec, PubRel, Publish, SubAck,
        Subscribe, UnsubAck, Unsubscribe, Will,
    };
    const ANSWERS: &[Place] =
        &[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth];
    let places: &[Place] = match identifier {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => &[Publish, Will],
        0x0b => &[Publish, Subscribe],
        0x11 => &[Connect, ConnAck, Disconnect],
        0x12 | 0x13 | 0x1a | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => &[ConnAck],
        0x15 | 0x16 => &[Connect, ConnAck, Auth],
        0x17 | 0x19 => &[Connect],
        0x18 => &[Will],
        0x1c => &[ConnAck, Disconnect],
        0x1f => ANSWERS,
        0x21 | 0x22 | 0x27 => &[Connect, ConnAck],
        0x23 => &[Publish],
        0x26 => &[
            Connect,
            Will,
            ConnAck,
            Publish,
            PubAck,
            PubRec,
            PubRel,
            PubComp,
            Subscribe,
            SubAck,
            Unsubscribe,
            UnsubAck,
            Disconnect,
            Auth,
        ],
        _ => return None,
    };
    Some(places.iter().fold(0, |bits, &place| bits | 1 << place as u8))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, PacketError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(PacketError::protocol("2.2.2.2", "a yes-or-no property is neither 0 nor 1")),
    }
}

const ZERO: PacketError =
    PacketError::protocol("2.2.2.2", "a property that must not be zero is zero");

const UNKNOWN: PacketError = PacketError::malformed("2.2.2.2", "unknown property identifier");

fn read_identifier(reader: &mut Reader<'_>) -> Result<u8, PacketError> {
    u8::try_from(reader.varint()?).map_err(|_| UNKNOWN)
}

/// Reads the value of a property, in its range.
fn read_value<'a>(identifier: u8, reader: &mut Reader<'a>) -> Result<Property<'a>, PacketError> {
    use Property as P;
    Ok(match identifier {
        0x01 => P::PayloadFormatIndicator(flag(reader)?),
        0x02 => P::MessageExpiryInterval(reader.u32()?),
        0x03 => P::ContentType(reader.string()?),
        0x08 => P::ResponseTopic(response_topic(reader.string()?)?),
        0x09 => P::CorrelationData(reader.binary()?),
        0x0b => P::SubscriptionIdentifier(reader.varint().and_then(non_zero)?),
        0x11 => P::SessionExpiryInterval(reader.u32()?),
        0x12 => P::AssignedClientIdentifier(reader.string()?),
        0x13 => P::ServerKeepAlive(reader.u16()?),
        0x15 => P::AuthenticationMethod(reader.string()?),
        0x16 => P::AuthenticationData(reader.binary()?),
        0x17 => P::RequestProblemInformation(flag(reader)?),
        0x18 => P::WillDelayInterval(reader.u32()?),
        0x19 => P::RequestResponseInformation(flag(reader)?),
        0x1a => P::ResponseInformation(reader.string()?),
        0x1c => P::ServerReference(reader.string()?),
        0x1f => P::ReasonString(reader.string()?),
        0x21 => P::ReceiveMaximum(reader.u16().and_then(non_zero)?),
        0x22 => P::TopicAliasMaximum(reader.u16()?),
        0x23 => P::TopicAlias(topic_alias(reader.u16()?)?),
        0x24 => P::MaximumQos(flag(reader)?),
        0x25 => P::RetainAvailable(flag(reader)?),
        0x26 => P::UserProperty(reader.string()?, reader.string()?),
        0x27 => P::MaximumPacketSize(reader.u32().and_then(non_zero)?),
        0x28 => P::WildcardSubscriptionAvailable(flag(reader)?),
        0x29 => P::SubscriptionIdentifierAvailable(flag(reader)?),
        0x2a => P::SharedSubscriptionAvailable(flag(reader)?),
        _ => return Err(UNKNOWN),
    })
}

fn non_zero<N: PartialEq + Default + Copy>(value: N) -> Result<N, PacketError> {
    if value == N::default() { Err(ZERO) } else { Ok(value) }
}

fn topic_alias(alias: u16) -> Result<u16, PacketError> {
    let zero = PacketError::new(ReasonCode::TopicAliasInvalid, "3.3.2-8", "topic alias 0");
    if alias == 0 { Err(zero) } else { Ok(alias) }
}

fn response_topic(topic: &str) -> Result<&str, PacketError> {
    if topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(PacketError::protocol("3.3.2-14", "the response topic has wildcards"));
    }
    Ok(topic)
}

/// The properties of a packet, checked, as they lie in its bytes: order and duplicates are kept.
/// Empty for packets of 3.1 and 3.1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Reads a property length and that many bytes of properties, each checked for its type, its
    /// place, and against a second appearance.
    pub(crate) fn decode(reader: &mut Reader<'a>, place: Place) -> Result<Self, PacketError> {
        let len = reader.varint()?;
        let bytes = reader.take(len as usize)?;
        let mut rest = Reader::new(bytes);
        let mut seen = 0u64;
        while !rest.is_empty() {
            let identifier = read_identifier(&mut rest)?;
            let places = allowed_places(identifier).ok_or(UNKNOWN)?;
            if places & (1 << place as u8) == 0 {
                return Err(PacketError::malformed(
                    "2.2.2.2",
                    "a property stands in a packet that does not have it",
                ));
            }
            read_value(identifier, &mut rest)?;
            let may_repeat = match identifier {
                USER_PROPERTY => true,
                SUBSCRIPTION_IDENTIFIER => place == Place::Publish,
                _ => false,
            };
            if seen & (1 << identifier) != 0 && !may_repeat {
                return Err(PacketError::protocol("2.2.2.2", "a property stands there twice"));
            }
            seen |= 1 << identifier;
        }
        Ok(Self { bytes })
    }

    /// Properties as bytes that were checked before, such as those of [`PropertiesBuf`].
    #[inline]
    #[must_use]
    pub fn from_checked(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The properties in the order they came.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        self.iter_raw().map(|(property, _)| property)
    }

    /// Each property beside the bytes it was read from.
    #[inline]
    pub fn iter_raw(&self) -> impl Iterator<Item = (Property<'a>, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            let before = reader.rest();
            let identifier = read_identifier(&mut reader).ok()?;
            let property = read_value(identifier, &mut reader).ok()?;
            Some((property, &before[..before.len() - reader.rest().len()]))
        })
    }

    /// The bytes, without their length.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The reason string, if there is one.
    #[must_use]
    pub fn reason_string(&self) -> Option<&'a str> {
        self.iter().find_map(|property| match property {
            Property::ReasonString(text) => Some(text),
            _ => None,
        })
    }

    pub(crate) fn encoded_len(&self) -> usize {
        varint_len(self.bytes.len()) + self.bytes.len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.bytes.len());
        out.extend_from_slice(self.bytes);
    }
}

/// Properties being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf {
    bytes: Vec<u8>,
}

impl PropertiesBuf {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one. Its value has to be in the property's range.
    pub fn push(&mut self, property: Property<'_>) -> &mut Self {
        property.encode(&mut self.bytes);
        self
    }

    /// Appends a user property whose value is written for it, without a string in between.
    ///
    /// # Panics
    /// When the value takes more than 65,535 bytes.
    pub fn push_user(&mut self, key: &str, value: impl fmt::Display) -> &mut Self {
        put_text(&mut self.bytes, USER_PROPERTY, key.as_bytes());
        let at = self.bytes.len();
        put_u16(&mut self.bytes, 0);
        // Writing to memory does not fail.
        let _ = write!(self.bytes, "{value}");
        let len = u16::try_from(self.bytes.len() - at - 2);
        let len = len.expect("a field over 65,535 bytes cannot be encoded");
        self.bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
        self
    }

    /// Appends properties as [`Properties::iter_raw`] gives them.
    #[inline]
    pub fn push_raw(&mut self, raw: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(raw);
        self
    }

    /// Takes all off again, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// What was written, to put into a packet.
    #[must_use]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { bytes: &self.bytes }
    }
}

impl Property<'_> {
    /// Appends identifier and value.
    pub fn encode(self, out: &mut Vec<u8>) {
        use Property as P;
        match self {
            P::PayloadFormatIndicator(value) => put_flag(out, 0x01, value),
            P::MessageExpiryInterval(value) => put_four(out, 0x02, value),
            P::ContentType(text) => put_text(out, 0x03, text.as_bytes()),
            P::ResponseTopic(text) => put_text(out, 0x08, text.as_bytes()),
            P::CorrelationData(bytes) => put_text(out, 0x09, bytes),
            P::SubscriptionIdentifier(value) => {
                out.push(0x0b);
                put_varint(out, value as usize);
            }
            P::SessionExpiryInterval(value) => put_four(out, 0x11, value),
            P::AssignedClientIdentifier(text) => put_text(out, 0x12, text.as_bytes()),
            P::ServerKeepAlive(value) => put_two(out, 0x13, value),
            P::AuthenticationMethod(text) => put_text(out, 0x15, text.as_bytes()),
            P::AuthenticationData(bytes) => put_text(out, 0x16, bytes),
            P::RequestProblemInformation(value) => put_flag(out, 0x17, value),
            P::WillDelayInterval(value) => put_four(out, 0x18, value),
            P::RequestResponseInformation(value) => put_flag(out, 0x19, value),
            P::ResponseInformation(text) => put_text(out, 0x1a, text.as_bytes()),
            P::ServerReference(text) => put_text(out, 0x1c, text.as_bytes()),
            P::ReasonString(text) => put_text(out, 0x1f, text.as_bytes()),
            P::ReceiveMaximum(value) => put_two(out, 0x21, value),
            P::TopicAliasMaximum(value) => put_two(out, 0x22, value),
            P::TopicAlias(value) => put_two(out, 0x23, value),
            P::MaximumQos(value) => put_flag(out, 0x24, value),
            P::RetainAvailable(value) => put_flag(out, 0x25, value),
            P::UserProperty(key, value) => {
                put_text(out, 0x26, key.as_bytes());
                put_binary(out, value.as_bytes());
            }
            P::MaximumPacketSize(value) => put_four(out, 0x27, value),
            P::WildcardSubscriptionAvailable(value) => put_flag(out, 0x28, value),
            P::SubscriptionIdentifierAvailable(value) => put_flag(out, 0x29, value),
            P::SharedSubscriptionAvailable(value) => put_flag(out, 0x2a, value),
        }
    }
}

fn put_flag(out: &mut Vec<u8>, identifier: u8, value: bool) {
    out.extend_from_slice(&[identifier, u8::from(value)]);
}

fn put_two(out: &mut Vec<u8>, identifier: u8, value: u16) {
    out.push(identifier);
    put_u16(out, value);
}

fn put_four(out: &mut Vec<u8>, identifier: u8, value: u32) {
    out.push(identifier);
    put_u32(out, value);
}

fn put_text(out: &mut Vec<u8>, identifier: u8, bytes: &[u8]) {
    out.push(identifier);
    put_binary(out, bytes);
}
