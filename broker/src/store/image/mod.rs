//! What the log says when all of it is read: the sessions, their messages, the retained messages.
//!
//! Cleaning writes records again at the log's end, so a message may stand behind what was done with
//! it, and a session's own record behind those that belong to it. Nothing here depends on which of
//! them comes first, but for records of one thing, of which the last holds.

mod few;
mod places;
mod queues;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use dunlin_packets::{PacketId, QoS, SubscriptionOptions};
use dunlin_queue::Time;
use dunlin_router::Subscription;
use dunlin_storage::{Backend, BackendError, Entry, FRAME_HEADER_BYTES, Frames, Log, SegmentInfo};

pub use queues::{StoredGroup, StoredQueue};
use reading::Reading;

use super::port::Numbers;
use super::record::{ConsumerRecord, Unreadable};

/// A message that somebody has still to get. Its bytes are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAt {
    /// Where.
    pub position: u64,
    /// When it is not to be delivered any more.
    pub expires_at: Time,
    /// When it came in, as the queue has it.
    pub received: u32,
    /// QoS it was published at.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// Bytes of the topic.
    pub topic_len: u32,
    /// Bytes of the properties.
    pub properties_len: u32,
    /// Bytes in all.
    pub content_len: u32,
    /// Deliveries that are to be made.
    refs: u32,
}

/// Messages by their number.
pub type StoredMessages = HashMap<u64, StoredAt, RandomState>;

/// One delivery that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRef {
    /// The message.
    pub id: u64,
    /// QoS to deliver at.
    pub qos: QoS,
    /// RETAIN flag to deliver with.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: Box<[u32]>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its number in the log.
    pub sid: u64,
    /// The client identifier.
    pub client_id: Box<str>,
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// It had a connection.
    pub was_online: bool,
    /// When it ends, unless it had a connection.
    pub expires_at: Time,
    /// When the will is published, unless it had a connection.
    pub will_at: Time,
    /// The will.
    pub will: Option<Box<StoredWill>>,
    /// What it subscribes to.
    pub subscriptions: Vec<(Box<str>, Subscription)>,
    /// QoS 2 publications of its client that have not been released.
    pub received: Vec<PacketId>,
    /// What is in flight to it, in order; without a delivery, it only waits for PUBCOMP.
    pub in_flight: Vec<(PacketId, Option<StoredRef>)>,
    /// What waits for it, in order.
    pub queue: Vec<StoredRef>,
    /// Queues it consumes, by filter.
    pub consumers: Vec<StoredConsumer>,
}

/// What a session consumes of a queue. See [`ConsumerRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConsumer {
    /// The filter it has subscribed to.
    pub filter: Box<str>,
    /// The name of its group.
    pub group: Box<str>,
    /// What it asked for, at the QoS that was granted.
    pub options: SubscriptionOptions,
    /// The subscription identifier; 0 for none.
    pub identifier: u32,
    /// What else it asked for.
    pub flags: u8,
    /// Messages it takes at a time.
    pub prefetch: u32,
}

impl From<&ConsumerRecord<'_>> for StoredConsumer {
    fn from(record: &ConsumerRecord<'_>) -> Self {
        let ConsumerRecord { filter, group, options, identifier, flags, prefetch, .. } = *record;
        let (filter, group) = (filter.into(), group.into());
        Self { filter, group, options, identifier, flags, prefetch }
    }
}

impl StoredConsumer {
    /// As the log has it, of this session.
    #[must_use]
    pub fn record(&self, sid: u64) -> ConsumerRecord<'_> {
        let Self { filter, group, options, identifier, flags, prefetch } = self;
        let (options, identifier) = (*options, *identifier);
        let (flags, prefetch) = (*flags, *prefetch);
        ConsumerRecord { sid, filter, group, options, identifier, flags, prefetch }
    }
}

/// A will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWill {
    /// Its topic.
    pub topic: Box<str>,
    /// Its properties, encoded.
    pub properties: Box<[u8]>,
    /// Its payload.
    pub payload: Box<[u8]>,
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Seconds from the end of the connection to its publication.
    pub delay_s: u32,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRetained {
    /// Its number in the log.
    pub id: u64,
    /// Hash of the publisher's client identifier.
    pub publisher: u64,
    /// When it expires.
    pub expires_at: Time,
    /// QoS it was published at.
    pub qos: QoS,
    /// Bytes of the topic.
    pub topic_len: u32,
    /// Bytes of the properties.
    pub properties_len: u32,
    /// Topic, properties and payload.
    pub content: Box<[u8]>,
}

impl StoredRetained {
    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        let topic = self.content.get(..self.topic_len as usize).unwrap_or_default();
        std::str::from_utf8(topic).unwrap_or_default()
    }
}

/// Everything.
#[derive(Debug, Default)]
pub struct Image {
    /// Sessions, by number.
    pub sessions: Vec<StoredSession>,
    /// Messages that they wait for.
    pub messages: StoredMessages,
    /// Retained messages, in no order.
    pub retained: Vec<StoredRetained>,
    /// Queues, by number.
    pub queues: Vec<StoredQueue>,
    /// Keys of the hash in messages; `None` in a new log.
    pub keys: Option<[u64; 4]>,
    /// The first numbers that have never been used.
    pub numbers: Numbers,
    /// Records that were read.
    pub records: u64,
}

/// What one worker gets of an image.
#[derive(Debug, Default)]
pub struct ImageShare {
    /// Its sessions.
    pub sessions: Vec<StoredSession>,
    /// The messages of all sessions.
    pub messages: Arc<StoredMessages>,
    /// Its retained messages.
    pub retained: Vec<StoredRetained>,
    /// Its queues.
    pub queues: Vec<StoredQueue>,
}

/// Why a log has no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It could not be read.
    Backend(BackendError),
    /// A frame whose checksum is right has records in it that are none: another version's, or
    /// somebody else's.
    Unreadable {
        /// Address of the frame.
        address: u64,
    },
}

impl std::fmt::Display for ImageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(error) => write!(f, "the log cannot be read: {error}"),
            Self::Unreadable { address } => {
                write!(f, "the frame at {address:016x} has records that this version does not know")
            }
        }
    }
}

impl std::error::Error for ImageError {}

impl Image {
    /// A share for each of so many workers; `owner` says which one a client identifier, a topic or
    /// the name of a queue belongs to. The dead letters of a queue are where that is.
    #[must_use]
    pub fn split(self, workers: usize, owner: impl Fn(&str) -> usize) -> Vec<ImageShare> {
        let messages = Arc::new(self.messages);
        let mut shares: Vec<ImageShare> = (0..workers)
            .map(|_| ImageShare { messages: Arc::clone(&messages), ..ImageShare::default() })
            .collect();
        for session in self.sessions {
            shares[owner(&session.client_id)].sessions.push(session);
        }
        for retained in self.retained {
            shares[owner(retained.topic())].retained.push(retained);
        }
        for queue in self.queues {
            shares[owner(queue.base_name())].queues.push(queue);
        }
        shares
    }

    /// Reads all of a log.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read<B: Backend>(log: &Log<B>) -> Result<Self, ImageError> {
        Self::read_segments(log.backend(), log.segments())
    }

    /// Reads all of a log that is not open, from its segments, oldest first.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read_segments<B: Backend>(
        backend: &B,
        segments: impl IntoIterator<Item = SegmentInfo>,
    ) -> Result<Self, ImageError> {
        let mut reading = Reading::default();
        for SegmentInfo { base, end, .. } in segments {
            let mut frames = Frames::open(backend, base, end).map_err(ImageError::Backend)?;
            while let Some(entry) = frames.next().map_err(ImageError::Backend)? {
                // What is missing was found when the log was opened.
                let Entry::Frame { address, payload } = entry else { continue };
                reading
                    .frame(address + FRAME_HEADER_BYTES as u64, payload)
                    .map_err(|Unreadable| ImageError::Unreadable { address })?;
            }
        }
        Ok(reading.finish())
    }
}
