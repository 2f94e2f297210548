//! Cutting packets off a byte stream: the fixed header.

use crate::wire::{OVERLONG, read_varint};
use crate::{PacketError, ReasonCode, Version};

/// The type of a packet, by its number in the fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's own names
pub enum Kind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl Kind {
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The flags every packet of this type has to carry; PUBLISH is free in its own.
    fn required_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }
}

/// One packet as it lies in the input: its type, its flags and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The packet's type.
    pub kind: Kind,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// Variable header and payload.
    pub body: &'a [u8],
    /// Whether the remaining length had its shortest form, which 5.0 demands of CONNECT too but
    /// which can only be judged when the version is known.
    pub shortest: bool,
}

impl<'a> Frame<'a> {
    /// Cuts the first packet off `input` and says how many bytes it took; `None` when it is not
    /// complete yet. The type, the flags and the length are checked as soon as they are there, so
    /// a peer that announces more than `max_len` bytes is refused before it can send them.
    ///
    /// # Errors
    /// Malformed for an unknown type, wrong flags \[MQTT-2.1.3-1\] or a bad length
    /// \[MQTT-1.5.5-1\]; packet too large above `max_len` bytes in all.
    #[inline]
    pub fn split(
        input: &'a [u8],
        max_len: usize,
        version: Version,
    ) -> Result<Option<(Self, usize)>, PacketError> {
        let Some(&first) = input.first() else { return Ok(None) };
        let kind = Kind::from_bits(first >> 4)
            .ok_or(PacketError::malformed("2.1.2", "packet type 0 is reserved"))?;
        let flags = first & 0x0f;
        check_flags(kind, flags, version)?;
        let Some((len, used, shortest)) = read_varint(&input[1..])? else { return Ok(None) };
        if !shortest && version.has_properties() {
            return Err(OVERLONG);
        }
        let total = 1 + used + len as usize;
        if total > max_len {
            return Err(PacketError::new(
                ReasonCode::PacketTooLarge,
                "3.2.2-15",
                "the packet is larger than the maximum packet size",
            ));
        }
        let Some(body) = input.get(1 + used..total) else { return Ok(None) };
        Ok(Some((Self { kind, flags, body, shortest }, total)))
    }
}

#[inline]
fn check_flags(kind: Kind, flags: u8, version: Version) -> Result<(), PacketError> {
    let Some(required) = kind.required_flags() else { return Ok(()) };
    // 3.1 had a DUP bit on PUBREL, SUBSCRIBE and UNSUBSCRIBE, and its clients do resend.
    let ignored = if version == Version::V3 && required != 0 { 0b1000 } else { 0 };
    if flags & !ignored == required {
        return Ok(());
    }
    let clause = match kind {
        Kind::PubRel => "3.6.1-1",
        Kind::Subscribe => "3.8.1-1",
        Kind::Unsubscribe => "3.10.1-1",
        Kind::Disconnect => "3.14.1-1",
        Kind::Auth => "3.15.1-1",
        _ => "2.1.3-1",
    };
    Err(PacketError::malformed(clause, "reserved bits of the fixed header are not as they must be"))
}
