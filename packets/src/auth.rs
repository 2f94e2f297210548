//! AUTH, section 3.15.

use crate::disconnect::encode_code;
use crate::property::Place;
use crate::wire::Reader;
use crate::{PacketError, Properties, ReasonCode, Version};

/// One step of an enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate \[MQTT-3.15.2-1\].
    pub code: ReasonCode,
    /// Method and data.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(body: &'a [u8], version: Version) -> Result<Self, PacketError> {
        if !version.has_properties() {
            return Err(PacketError::malformed("2.1.2", "packet type 15 is reserved"));
        }
        let mut reader = Reader::new(body);
        let mut auth = Auth { code: ReasonCode::Success, properties: Properties::default() };
        if reader.is_empty() {
            return Ok(auth);
        }
        let code = ReasonCode::from_u8(reader.u8()?).filter(|code| {
            use ReasonCode as R;
            matches!(code, R::Success | R::ContinueAuthentication | R::ReAuthenticate)
        });
        auth.code =
            code.ok_or(PacketError::protocol("3.15.2-1", "a reason code AUTH does not have"))?;
        if !reader.is_empty() {
            auth.properties = Properties::decode(&mut reader, Place::Auth)?;
        }
        if !reader.is_empty() {
            return Err(PacketError::malformed("3.15", "bytes follow the properties"));
        }
        Ok(auth)
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_code(0xf0, Version::V5, self.code, self.properties, out);
    }
}
