//! Any packet: the one dispatch from a frame to its type.

use crate::{
    Ack, AckKind, Auth, ConnAck, Connect, Disconnect, Frame, Kind, PacketError, Publish, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version,
};

/// A decoded packet, borrowing from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the standard's own names
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    Ack(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Reads the packet in `frame`.
    ///
    /// # Errors
    /// What is wrong with it, with the reason code and the clause.
    #[inline]
    pub fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, PacketError> {
        let body = frame.body;
        Ok(match frame.kind {
            Kind::Publish => Self::Publish(Publish::decode(frame, version)?),
            Kind::PubAck => Self::Ack(Ack::decode(AckKind::PubAck, body, version)?),
            Kind::PubRec => Self::Ack(Ack::decode(AckKind::PubRec, body, version)?),
            Kind::PubRel => Self::Ack(Ack::decode(AckKind::PubRel, body, version)?),
            Kind::PubComp => Self::Ack(Ack::decode(AckKind::PubComp, body, version)?),
            Kind::Connect => Self::Connect(Connect::decode(frame).map_err(|e| e.error)?),
            Kind::ConnAck => Self::ConnAck(ConnAck::decode(body, version)?),
            Kind::Subscribe => Self::Subscribe(Subscribe::decode(body, version)?),
            Kind::SubAck => Self::SubAck(SubAck::decode(body, version)?),
            Kind::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, version)?),
            Kind::UnsubAck => Self::UnsubAck(UnsubAck::decode(body, version)?),
            Kind::PingReq => empty(body, Self::PingReq)?,
            Kind::PingResp => empty(body, Self::PingResp)?,
            Kind::Disconnect => Self::Disconnect(Disconnect::decode(body, version)?),
            Kind::Auth => Self::Auth(Auth::decode(body, version)?),
        })
    }

    /// Appends the packet as `version` writes it. SUBSCRIBE and UNSUBSCRIBE are written from
    /// their parts by [`Subscribe::encode`] and [`Unsubscribe::encode`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Ack(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => {
                let filters: Vec<_> = packet.filters.iter().collect();
                Subscribe::encode(version, packet.packet_id, packet.properties, &filters, out);
            }
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => {
                let filters: Vec<_> = packet.filters.iter().collect();
                Unsubscribe::encode(version, packet.packet_id, packet.properties, &filters, out);
            }
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => out.extend_from_slice(&[0xc0, 0]),
            Self::PingResp => out.extend_from_slice(&[0xd0, 0]),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(out),
        }
    }
}

fn empty<'a>(body: &[u8], packet: Packet<'a>) -> Result<Packet<'a>, PacketError> {
    if body.is_empty() {
        return Ok(packet);
    }
    Err(PacketError::malformed("3.12", "a ping has a body"))
}
