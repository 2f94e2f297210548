//! The lines of an export, each one JSON object: a header, the sessions, the messages they wait
//! for, the retained messages, and the queues, each with its messages behind it.
//!
//! Payloads and properties are in base64, byte for byte as in the log; properties are there a
//! second time for people to read. Times are milliseconds since the epoch, and `null` for never.
//! Messages are meant by their number; a session's queue has them in the order of delivery, which
//! is that of the numbers.
//!
//! Version 1 had no queues and no consumers of them; it is read as what it is.

use serde::{Deserialize, Serialize};

use super::property::PropertyLine;

/// What the header says the file is.
pub(super) const FORMAT: &str = "dunlin-export";
/// The version that is written, and the highest that is read.
pub(super) const VERSION: u32 = 2;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Header(Header),
    Session(SessionLine),
    Message(MessageLine),
    Retained(RetainedLine),
    Queue(QueueLine),
    QueueMessage(QueueMessageLine),
}

/// The first line. Later versions keep `format` and `version`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) sessions: u64,
    pub(super) messages: u64,
    pub(super) retained: u64,
    #[serde(default)]
    pub(super) queues: u64,
    #[serde(default)]
    pub(super) queue_messages: u64,
    /// Keys of the hash that makes a publisher's client identifier to `publisher`, in hexadecimal.
    pub(super) hash_keys: Option<[String; 4]>,
}

impl Header {
    /// Sessions, messages, retained messages, queues, messages in queues.
    pub(super) fn counts(&self) -> [u64; 5] {
        [self.sessions, self.messages, self.retained, self.queues, self.queue_messages]
    }
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
    #[serde(default)]
    pub(super) consumers: Vec<ConsumerLine>,
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

/// What a session consumes of a queue.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsumerLine {
    /// The name of its group.
    pub(super) group: String,
    pub(super) subscription: SubscriptionLine,
    /// What else it asked for, one bit each.
    pub(super) flags: u8,
    /// Messages it takes at a time.
    pub(super) prefetch: u32,
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

/// A queue.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueLine {
    /// Its number, which no session has.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) mode: ModeLine,
    /// Partitions it began with.
    pub(super) partitions: u16,
    /// How it has grown, in order.
    pub(super) growths: Vec<GrowthLine>,
    /// Of each partition the offset of the next message.
    pub(super) ends: Vec<u64>,
    /// The number of the next group.
    pub(super) next_group: u32,
    pub(super) groups: Vec<GroupLine>,
}

/// Work queue or stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeLine {
    Work,
    Stream,
}

/// Partitions that were added: they are not read before a group has done with what was in the old
/// ones.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrowthLine {
    /// Partitions from here on.
    pub(super) to: u16,
    /// Where each of the old ones ended.
    pub(super) before: Vec<u64>,
}

/// A group of a queue.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupLine {
    pub(super) number: u32,
    pub(super) name: String,
    /// What it consumes of the queue.
    pub(super) filter: String,
    /// It ends with its last member.
    pub(super) temporary: bool,
    /// Its cursors move by commits only.
    pub(super) explicit_commit: bool,
    /// Where it is in the partitions of a stream; where there is none, at the beginning.
    pub(super) cursors: Vec<CursorLine>,
}

/// Where a group is in a partition of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CursorLine {
    pub(super) partition: u16,
    /// The first message that is not done.
    pub(super) offset: u64,
    /// How often it was set by hand.
    pub(super) seeks: u32,
}

/// A message of the queue before it; by partition and offset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueMessageLine {
    /// The queue's number.
    pub(super) queue: u64,
    pub(super) partition: u16,
    pub(super) offset: u64,
    /// When the queue took it.
    pub(super) enqueued_at_ms: u64,
    /// Seconds from then until nobody gets it any more.
    pub(super) expiry_s: Option<u32>,
    /// Nobody gets it before.
    pub(super) deliver_at_ms: Option<u64>,
    /// Hash of its key, in hexadecimal.
    pub(super) key_hash: String,
    pub(super) priority: u8,
    /// Groups that have done with it, by number, if there are others that have not.
    pub(super) settled_by: Vec<u32>,
    /// Deliveries that have failed, by group.
    pub(super) failed: Vec<FailedLine>,
    /// It was not published to the queue, which took it by a filter of its own.
    pub(super) captured: bool,
    pub(super) topic: String,
    pub(super) published_at_ms: u64,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) properties: Option<Vec<PropertyLine>>,
    pub(super) properties_base64: String,
    pub(super) payload_base64: String,
}

/// Deliveries of a message to a group that have failed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailedLine {
    pub(super) group: u32,
    pub(super) attempts: u32,
    /// The last of them was: it is a dead letter as soon as it can be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) rejected: bool,
}
