//! CONNACK, section 3.2.

use crate::property::Place;
use crate::wire::{Reader, put_header};
use crate::{PacketError, Properties, ReasonCode, Version};

/// The answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the client goes on with a stored session. Not in 3.1.
    pub session_present: bool,
    /// Success or why not.
    pub code: ReasonCode,
    /// What the server can do, in 5.0.
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        if flags > 1 {
            return Err(PacketError::malformed("3.2.2-1", "reserved CONNACK flags are set"));
        }
        let code = reader.u8()?;
        let (code, properties) = if version.has_properties() {
            (ReasonCode::from_u8(code), Properties::decode(&mut reader, Place::ConnAck)?)
        } else {
            (ReasonCode::from_connect_return_code(code), Properties::default())
        };
        let code = code.ok_or(PacketError::malformed("3.2.2-8", "unknown CONNACK code"))?;
        if !reader.is_empty() {
            return Err(PacketError::malformed("3.2", "bytes follow the last field"));
        }
        Ok(Self { session_present: flags == 1, code, properties })
    }

    /// Appends the packet; nothing where `version` has no return code for the reason, and the
    /// connection is to be closed without one.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let session_present = u8::from(self.session_present && version != Version::V3);
        if version.has_properties() {
            put_header(out, 0x20, 2 + self.properties.encoded_len());
            out.extend_from_slice(&[session_present, self.code as u8]);
            self.properties.encode(out);
        } else if let Some(code) = self.code.connect_return_code() {
            put_header(out, 0x20, 2);
            out.extend_from_slice(&[session_present, code]);
        }
    }
}
