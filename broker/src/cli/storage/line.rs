//! The lines of an export, each one JSON object: a header, the sessions, the messages they wait
//! for, the retained messages.
//!
//! Payloads and properties are in base64, byte for byte as in the log; properties are there a
//! second time for people to read. Times are milliseconds since the epoch, and `null` for never.
//! Messages are meant by their number; a session's queue has them in the order of delivery, which
//! is that of the numbers.

use serde::{Deserialize, Serialize};

use super::property::PropertyLine;

/// What the header says the file is.
pub(super) const FORMAT: &str = "dunlin-export";
/// The version that is written and read.
pub(super) const VERSION: u32 = 1;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Header(Header),
    Session(SessionLine),
    Message(MessageLine),
    Retained(RetainedLine),
}

/// The first line. Later versions keep `format` and `version`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) sessions: u64,
    pub(super) messages: u64,
    pub(super) retained: u64,
    /// Keys of the hash that makes a publisher's client identifier to `publisher`, in hexadecimal.
    pub(super) hash_keys: Option<[String; 4]>,
}

/// A session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionLine {
    pub(super) number: u64,
    pub(super) client_id: String,
    /// Seconds it outlives its connection; 4294967295 for ever.
    pub(super) expiry_s: u32,
    /// It had a connection.
    pub(super) online: bool,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) will_at_ms: Option<u64>,
    pub(super) will: Option<WillLine>,
    pub(super) subscriptions: Vec<SubscriptionLine>,
    /// Packet identifiers of QoS 2 publications of its client that are not released.
    pub(super) received: Vec<u16>,
    /// In the order of sending.
    pub(super) in_flight: Vec<InFlightLine>,
    pub(super) queue: Vec<DeliveryLine>,
}

/// A will.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WillLine {
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) delay_s: u32,
    pub(super) properties: Option<Vec<PropertyLine>>,
    pub(super) properties_base64: String,
    pub(super) payload_base64: String,
}

/// A subscription.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionLine {
    /// With `$share/<group>/` if there is one.
    pub(super) filter: String,
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    /// As on the wire: 0 always, 1 if new, 2 never.
    pub(super) retain_handling: u8,
    pub(super) identifier: Option<u32>,
}

/// A message in flight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlightLine {
    pub(super) packet_id: u16,
    /// `null` when the client has it, and only PUBCOMP is to come.
    pub(super) delivery: Option<DeliveryLine>,
}

/// A message that is to be delivered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveryLine {
    /// Its number.
    pub(super) message: u64,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Of the subscriptions that matched.
    pub(super) identifiers: Vec<u32>,
}

/// A message that sessions wait for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageLine {
    pub(super) number: u64,
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// To within a second.
    pub(super) received_at_ms: u64,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) properties: Option<Vec<PropertyLine>>,
    pub(super) properties_base64: String,
    pub(super) payload_base64: String,
}

/// The retained message of a topic.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetainedLine {
    pub(super) number: u64,
    pub(super) topic: String,
    pub(super) qos: u8,
    /// Hash of the publisher's client identifier, in hexadecimal.
    pub(super) publisher: String,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) properties: Option<Vec<PropertyLine>>,
    pub(super) properties_base64: String,
    pub(super) payload_base64: String,
}
