//! PUBACK, PUBREC, PUBREL and PUBCOMP, sections 3.4 to 3.7: four packets of one shape.

use crate::property::Place;
use crate::publish::read_packet_id;
use crate::wire::{Reader, put_header, put_u16};
use crate::{PacketError, PacketId, Properties, ReasonCode, Version};

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the standard's own names
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl AckKind {
    fn first_byte(self) -> u8 {
        match self {
            Self::PubAck => 0x40,
            Self::PubRec => 0x50,
            Self::PubRel => 0x62,
            Self::PubComp => 0x70,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::PubAck => Place::PubAck,
            Self::PubRec => Place::PubRec,
            Self::PubRel => Place::PubRel,
            Self::PubComp => Place::PubComp,
        }
    }

    /// Whether the packet's own table has the code \[MQTT-3.4.2-1\] \[MQTT-3.5.2-1\]
    /// \[MQTT-3.6.2-1\] \[MQTT-3.7.2-1\].
    fn has_code(self, code: ReasonCode) -> bool {
        use ReasonCode as R;
        match self {
            Self::PubAck | Self::PubRec => matches!(
                code,
                R::Success
                    | R::NoMatchingSubscribers
                    | R::UnspecifiedError
                    | R::ImplementationSpecificError
                    | R::NotAuthorized
                    | R::TopicNameInvalid
                    | R::PacketIdentifierInUse
                    | R::QuotaExceeded
                    | R::PayloadFormatInvalid
            ),
            Self::PubRel | Self::PubComp => {
                matches!(code, R::Success | R::PacketIdentifierNotFound)
            }
        }
    }

    fn clause(self) -> &'static str {
        match self {
            Self::PubAck => "3.4.2-1",
            Self::PubRec => "3.5.2-1",
            Self::PubRel => "3.6.2-1",
            Self::PubComp => "3.7.2-1",
        }
    }
}

/// One step of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which step.
    pub kind: AckKind,
    /// The PUBLISH it belongs to.
    pub packet_id: PacketId,
    /// Success or why not; always success before 5.0.
    pub code: ReasonCode,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    /// A successful step without properties.
    #[inline]
    #[must_use]
    pub fn new(kind: AckKind, packet_id: PacketId) -> Self {
        Self { kind, packet_id, code: ReasonCode::Success, properties: Properties::default() }
    }

    #[inline]
    pub(crate) fn decode(
        kind: AckKind,
        body: &'a [u8],
        version: Version,
    ) -> Result<Self, PacketError> {
        let mut reader = Reader::new(body);
        let mut ack = Ack::new(kind, read_packet_id(&mut reader)?);
        if reader.is_empty() {
            return Ok(ack);
        }
        if !version.has_properties() {
            return Err(PacketError::malformed(
                kind.clause(),
                "bytes follow the packet identifier",
            ));
        }
        ack.code = ReasonCode::from_u8(reader.u8()?).filter(|&code| kind.has_code(code)).ok_or(
            PacketError::protocol(kind.clause(), "a reason code this packet does not have"),
        )?;
        // Below a remaining length of 4 there is no property length, and its value is 0.
        if !reader.is_empty() {
            ack.properties = Properties::decode(&mut reader, kind.place())?;
        }
        if !reader.is_empty() {
            return Err(PacketError::malformed(kind.clause(), "bytes follow the properties"));
        }
        Ok(ack)
    }

    /// Appends the packet in its shortest form.
    #[inline]
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let plain = self.code == ReasonCode::Success && self.properties.is_empty();
        let body_len = match (plain || !version.has_properties(), self.properties.is_empty()) {
            (true, _) => 2,
            (false, true) => 3,
            (false, false) => 3 + self.properties.encoded_len(),
        };
        put_header(out, self.kind.first_byte(), body_len);
        put_u16(out, self.packet_id.get());
        if body_len > 2 {
            out.push(self.code as u8);
        }
        if body_len > 3 {
            self.properties.encode(out);
        }
    }
}
