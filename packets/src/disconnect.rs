//! DISCONNECT, section 3.14.

use crate::property::Place;
use crate::wire::{Reader, put_header};
use crate::{PacketError, Properties, ReasonCode, Version};

/// The last packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; always success before 5.0.
    pub code: ReasonCode,
    /// Properties, in 5.0.
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        let mut reader = Reader::new(body);
        let mut disconnect =
            Disconnect { code: ReasonCode::Success, properties: Properties::default() };
        if reader.is_empty() {
            return Ok(disconnect);
        }
        if !version.has_properties() {
            return Err(PacketError::malformed("3.14", "DISCONNECT has a body"));
        }
        disconnect.code = ReasonCode::from_u8(reader.u8()?)
            .filter(|&code| is_disconnect_code(code))
            .ok_or(PacketError::protocol("3.14.2-1", "a reason code DISCONNECT does not have"))?;
        if !reader.is_empty() {
            disconnect.properties = Properties::decode(&mut reader, Place::Disconnect)?;
        }
        if !reader.is_empty() {
            return Err(PacketError::malformed("3.14", "bytes follow the properties"));
        }
        Ok(disconnect)
    }

    /// Appends the packet in its shortest form.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        encode_code(0xe0, version, self.code, self.properties, out);
    }
}

/// Table 3-10: which codes a DISCONNECT may carry.
fn is_disconnect_code(code: ReasonCode) -> bool {
    use ReasonCode as R;
    !matches!(
        code,
        R::GrantedQos1
            | R::GrantedQos2
            | R::NoMatchingSubscribers
            | R::NoSubscriptionExisted
            | R::ContinueAuthentication
            | R::ReAuthenticate
            | R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::ServerUnavailable
            | R::Banned
            | R::PacketIdentifierInUse
            | R::PacketIdentifierNotFound
    )
}

/// Writes DISCONNECT or AUTH: a code and properties, both left out where they say nothing.
pub(crate) fn encode_code(
    first: u8,
    version: Version,
    code: ReasonCode,
    properties: Properties<'_>,
    out: &mut Vec<u8>,
) {
    let plain = !version.has_properties() || (code == ReasonCode::Success && properties.is_empty());
    let body_len = match (plain, properties.is_empty()) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 1 + properties.encoded_len(),
    };
    put_header(out, first, body_len);
    if body_len > 0 {
        out.push(code as u8);
    }
    if body_len > 1 {
        properties.encode(out);
    }
}
