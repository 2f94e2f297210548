//! What the log knows of partitioned queues and of who consumes them.
//!
//! A queue has a number of its own (`qid`), drawn from the same ones as those of sessions and never
//! used again. Its records may stand in any order.

use dunlin_packets::SubscriptionOptions;
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Change, MessageId, Mode};

/// A queue exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRecord<'a> {
    /// Its number.
    pub qid: u64,
    /// Its name; `$dlq/<name>` for the dead letters of another.
    pub name: &'a str,
    /// Partitions it began with.
    pub partitions: u16,
    /// Work queue or stream.
    pub mode: Mode,
}

/// A message of a queue. Its bytes can be read on their own, as those of a
/// [`MessageRecord`](super::MessageRecord).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueMessageRecord<'a> {
    /// Its queue.
    pub qid: u64,
    /// Its place there.
    pub id: MessageId,
    /// When it came.
    pub at: Time,
    /// Of its key.
    pub key_hash: u64,
    /// 0 to 9.
    pub priority: u8,
    /// Seconds after `at`.
    pub expiry_s: Option<u32>,
    /// Not to be delivered before.
    pub deliver_at: Option<Time>,
    /// A [`QueueContent`](super::QueueContent), encoded.
    pub content: &'a [u8],
    /// Where checksum and content begin, counted from the beginning of the frame's records.
    pub position: usize,
}

impl QueueMessageRecord<'_> {
    /// As the queue has it.
    #[must_use]
    pub fn change(&self) -> Change {
        Change::Enqueued {
            id: self.id,
            at: self.at,
            key_hash: self.key_hash,
            bytes: self.content.len() as u32,
            priority: self.priority,
            expiry_s: self.expiry_s,
            deliver_at: self.deliver_at,
            original: None,
        }
    }
}

/// A session consumes a queue, until it says [`Unsubscribed`](super::Record::Unsubscribed) of the
/// same filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerRecord<'a> {
    /// The session.
    pub sid: u64,
    /// The filter it has subscribed to.
    pub filter: &'a str,
    /// The name of its group.
    pub group: &'a str,
    /// What it asked for, at the QoS that was granted.
    pub options: SubscriptionOptions,
    /// The subscription identifier; 0 for none.
    pub identifier: u32,
    /// What else it asked for; the log does not know what they mean.
    pub flags: u8,
    /// Messages it takes at a time.
    pub prefetch: u32,
}
