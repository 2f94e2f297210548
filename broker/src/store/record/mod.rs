//! What stands in the log: the records of a frame, one behind the other, each as long as its fields
//! say. A frame is written by one worker in one turn and is in the log as a whole or not at all.
//!
//! Integers are LEB128 unless they have a width; texts and byte strings have their length before
//! them. Sessions are meant by a number of their own (`sid`), messages by theirs (`id`), neither of
//! which is ever used again. docs/design/storage.md has the table.

mod content;
mod decode;
mod encode;
mod queue;
#[cfg(test)]
mod tests;

use dunlin_packets::{PacketId, QoS, SubscriptionOptions};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Change, GroupId};

pub use content::QueueContent;
pub use decode::Records;
pub use encode::put_ref;
pub use queue::{ConsumerRecord, QueueMessageRecord, QueueRecord};

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// One record. Borrowed from the frame it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message, and who still has to get it.
    Message(MessageRecord<'a>),
    /// A session, as it is from here on.
    Session(SessionRecord<'a>),
    /// The session has ended: nothing of it is left.
    SessionEnd {
        /// Which.
        sid: u64,
    },
    /// A session subscribes.
    Subscribed {
        /// Which.
        sid: u64,
        /// The filter, with `$share/<group>/` if there is one.
        filter: &'a str,
        /// What it asked for, at the QoS that was granted.
        options: SubscriptionOptions,
        /// The subscription identifier; 0 for none.
        identifier: u32,
    },
    /// A session subscribes no longer.
    Unsubscribed {
        /// Which.
        sid: u64,
        /// The filter.
        filter: &'a str,
    },
    /// A message was put in flight to a session.
    Sent {
        /// To which.
        sid: u64,
        /// Under which identifier.
        packet_id: PacketId,
        /// The message; 0 when it is in no log.
        id: u64,
        /// At QoS 2: the client may know the identifier until PUBCOMP has come, whatever has become
        /// of the message.
        is_exactly_once: bool,
    },
    /// The session's client has it; only PUBREL is sent from here on.
    Released {
        /// Which session.
        sid: u64,
        /// Under which identifier.
        packet_id: PacketId,
        /// The message.
        id: u64,
    },
    /// PUBCOMP came.
    Completed {
        /// From which session.
        sid: u64,
        /// For which identifier.
        packet_id: PacketId,
    },
    /// The session has no more to do with a message.
    Done {
        /// Which session.
        sid: u64,
        /// Which message.
        id: u64,
    },
    /// A session has published at QoS 2, and has not released it.
    Received {
        /// Which session.
        sid: u64,
        /// Under which identifier.
        packet_id: PacketId,
    },
    /// It has.
    Freed {
        /// Which session.
        sid: u64,
        /// Which identifier is free again.
        packet_id: PacketId,
    },
    /// A topic has no retained message any more.
    RetainedGone {
        /// Which.
        topic: &'a str,
    },
    /// The keys of the hash that is stored with messages.
    Keys([u64; 4]),
    /// A queue exists.
    Queue(QueueRecord<'a>),
    /// The queue has ended: nothing of it is left, wherever its records stand.
    QueueEnd {
        /// Which.
        qid: u64,
    },
    /// What a group of a queue is called; that it exists is a change.
    QueueGroup {
        /// Of which queue.
        qid: u64,
        /// Its number.
        group: GroupId,
        /// Its name.
        name: &'a str,
        /// What it consumes of the queue.
        filter: &'a str,
        /// It ends with its last member.
        is_temporary: bool,
    },
    /// A queue has a message.
    QueueMessage(QueueMessageRecord<'a>),
    /// What else is to be known of a queue.
    QueueChange {
        /// Which.
        qid: u64,
        /// Anything but [`Change::Enqueued`], which is [`Record::QueueMessage`].
        change: Change,
    },
    /// A piece of a queue's index that is not in memory. After a restart it means nothing.
    QueueChunk {
        /// Of which queue.
        qid: u64,
        /// Of which partition.
        partition: u16,
        /// Which piece.
        chunk: u64,
        /// What the queue has made of it.
        bytes: &'a [u8],
        /// Where its checksum begins, and the bytes behind that, counted from the beginning of the
        /// frame's records.
        position: usize,
    },
    /// A session consumes a queue.
    Consumer(ConsumerRecord<'a>),
}

/// A message. Its bytes, with their checksum before them, can be read on their own: their place in
/// the log is [`Self::position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// Its number.
    pub id: u64,
    /// QoS it was published at.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// It is the retained message of its topic from here on.
    pub is_retained: bool,
    /// When it is not to be delivered any more.
    pub expires_at: Time,
    /// When it came in, as the queue has it.
    pub received: u32,
    /// Hash of the publisher's client identifier.
    pub publisher: u64,
    /// Bytes of the topic.
    pub topic_len: u32,
    /// Bytes of the properties.
    pub properties_len: u32,
    /// Topic, properties and payload.
    pub content: &'a [u8],
    /// Who has to get it: [`Refs`], encoded, behind their number.
    pub refs: Refs<'a>,
    /// Where checksum and content begin, counted from the beginning of the frame's records.
    pub position: usize,
}

/// A session's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRecord<'a> {
    /// Its number.
    pub sid: u64,
    /// The client identifier.
    pub client_id: &'a str,
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// When it ends; [`Time::NEVER`] also while there is a connection.
    pub expires_at: Time,
    /// There is a connection, so the session ends `expiry_s` after that does.
    pub is_online: bool,
    /// When the will is published; [`Time::NEVER`] while there is a connection.
    pub will_at: Time,
    /// The will.
    pub will: Option<WillRecord<'a>>,
}

/// A will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its properties, encoded.
    pub properties: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Seconds from the end of the connection to its publication.
    pub delay_s: u32,
}

/// Deliveries of a message that are still to be made, encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refs<'a> {
    bytes: &'a [u8],
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// The session.
    pub sid: u64,
    /// QoS to deliver at.
    pub qos: QoS,
    /// RETAIN flag to deliver with.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: Vec<u32>,
}

impl<'a> Refs<'a> {
    /// Deliveries that [`put_ref`] has encoded.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each of them; ends early at what cannot be read.
    pub fn iter(&self) -> impl Iterator<Item = Ref> + use<'a> {
        let mut reader = decode::Reader::new(self.bytes);
        std::iter::from_fn(move || reader.next_ref().ok())
    }
}

const MESSAGE: u8 = 1;
const SESSION: u8 = 2;
const SESSION_END: u8 = 3;
const SUBSCRIBED: u8 = 4;
const UNSUBSCRIBED: u8 = 5;
const SENT: u8 = 6;
const RELEASED: u8 = 7;
const COMPLETED: u8 = 8;
const DONE: u8 = 9;
const RECEIVED: u8 = 10;
const FREED: u8 = 11;
const RETAINED_GONE: u8 = 12;
const KEYS: u8 = 13;
const SENT_EXACTLY_ONCE: u8 = 14;
const QUEUE: u8 = 15;
const QUEUE_END: u8 = 16;
const QUEUE_GROUP: u8 = 17;
const QUEUE_MESSAGE: u8 = 18;
const QUEUE_CHUNK: u8 = 19;
const CONSUMER: u8 = 20;
const SETTLED: u8 = 21;
const CURSOR: u8 = 22;
const ATTEMPTS: u8 = 23;
const DEAD: u8 = 24;
const GROUP_CREATED: u8 = 25;
const GROUP_REMOVED: u8 = 26;
const GROUPS_NUMBERED: u8 = 27;
const GROWN: u8 = 28;

const QOS_BITS: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const IS_RETAINED: u8 = 1 << 3;
const HAS_EXPIRY: u8 = 1 << 4;
const HAS_IDENTIFIERS: u8 = 1 << 3;
const IS_ONLINE: u8 = 1;
const HAS_WILL: u8 = 1 << 1;
const PRIORITY_BITS: u8 = 0b1111;
const HAS_DELIVER_AT: u8 = 1 << 5;

/// Offsets of a partition are below: so that no sum of two overflows. Nobody gets there.
const OFFSET_END: u64 = 1 << 62;

/// Bytes of the checksum before a message's content.
pub const CHECKSUM_BYTES: usize = 4;

/// The content behind its checksum, as both were read from the log.
///
/// # Errors
/// When it is not what was written.
pub fn checked_content(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    let (checksum, content) = bytes.split_first_chunk::<CHECKSUM_BYTES>().ok_or(Unreadable)?;
    let is_right = crc32c::crc32c(content) == u32::from_le_bytes(*checksum);
    if is_right { Ok(content) } else { Err(Unreadable) }
}
