//! What can be wrong with a packet.

use std::fmt;

use crate::{ReasonCode, Version};

/// A packet that breaks the standard. The connection that sent it has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketError {
    /// The reason code for the peer's DISCONNECT or CONNACK (5.0).
    pub code: ReasonCode,
    /// The statement that was broken, without the `MQTT-` prefix; a section number where the
    /// standard numbers no statement.
    pub clause: &'static str,
    /// What was wrong, for the log and the reason string.
    pub detail: &'static str,
}

impl PacketError {
    /// A packet that cannot be parsed.
    #[must_use]
    pub const fn malformed(clause: &'static str, detail: &'static str) -> Self {
        Self { code: ReasonCode::MalformedPacket, clause, detail }
    }

    /// A packet that parses but must not be sent like this.
    #[must_use]
    pub const fn protocol(clause: &'static str, detail: &'static str) -> Self {
        Self { code: ReasonCode::ProtocolError, clause, detail }
    }

    /// Any other error with its own reason code.
    #[must_use]
    pub const fn new(code: ReasonCode, clause: &'static str, detail: &'static str) -> Self {
        Self { code, clause, detail }
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [MQTT-{}] ({:?})", self.detail, self.clause, self.code)
    }
}

impl std::error::Error for PacketError {}

/// A CONNECT that cannot be accepted as it stands, and how far it could be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// What was wrong.
    pub error: PacketError,
    /// The version to answer in, once it was read; without it the connection is closed unanswered.
    pub version: Option<Version>,
}

impl From<PacketError> for ConnectError {
    fn from(error: PacketError) -> Self {
        Self { error, version: None }
    }
}
