//! An application message in one buffer.

use dunlin_packets::{Properties, Property, QoS};

use crate::Time;
use crate::pool::SMALL_BUFFER;

/// What a message is made from.
#[derive(Clone, Copy, Debug)]
pub struct MessageFields<'a> {
    /// Topic name, aliases resolved.
    pub topic: &'a str,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// Properties as received; those that concern one hop only are left out of the message.
    pub properties: Properties<'a>,
    /// QoS it was published at.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// A hash of the publisher's client identifier.
    pub publisher: u64,
}

/// What a message is made from that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage<'a> {
    /// Its number in the log.
    pub id: u64,
    /// When it is not to be delivered any more.
    pub expires_at: Time,
    /// A hash of the publisher's client identifier.
    pub publisher: u64,
    /// QoS it was published at.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// Bytes of the topic.
    pub topic_len: u32,
    /// Bytes of the properties.
    pub properties_len: u32,
    /// As [`Message::received`] gave it.
    pub received: u32,
    /// Topic, properties and payload.
    pub content: Content<'a>,
}

/// The bytes of a stored message, or what is known while they are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Topic, properties and payload, one behind the other.
    Bytes(&'a [u8]),
    /// Their length together.
    Absent(u32),
}

/// Stored bytes that no message consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMessage;

/// An application message: topic, properties that pass unaltered, and payload, one behind the
/// other in a buffer that is used again for the next message.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
    topic_len: u32,
    properties_len: u32,
    /// When it is not to be delivered any more; [`Time::NEVER`] without an expiry interval.
    pub expires_at: Time,
    /// A hash of the publisher's client identifier.
    pub publisher: u64,
    /// QoS it was published at.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// What [`Self::len`] says while the bytes are not in memory; 0 while they are.
    absent_len: u32,
    /// Its number in the log, the same on every worker; 0 when it is in no log.
    pub id: u64,
    /// When it came in, in units of 1024 milliseconds.
    received: u32,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            topic_len: 0,
            properties_len: 0,
            absent_len: 0,
            id: 0,
            received: 0,
            expires_at: Time::NEVER,
            publisher: 0,
            qos: QoS::AtMostOnce,
            retain: false,
        }
    }
}

impl Message {
    /// Replaces the content, in the same buffer.
    pub fn fill(&mut self, fields: &MessageFields<'_>, now: Time) {
        self.expires_at = Time::NEVER;
        self.publisher = fields.publisher;
        self.qos = fields.qos;
        self.retain = fields.retain;
        (self.absent_len, self.id) = (0, 0);
        self.received = ticks(now);
        self.bytes.clear();
        self.bytes.extend_from_slice(fields.topic.as_bytes());
        self.topic_len = self.bytes.len() as u32;
        if !fields.properties.is_empty() {
            self.copy_properties(fields.properties, now);
        }
        self.properties_len = self.bytes.len() as u32 - self.topic_len;
        self.bytes.extend_from_slice(fields.payload);
    }

    /// Keeps what every subscriber gets as it was sent [MQTT-3.3.2-4] [MQTT-3.3.2-15]
    /// [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20].
    fn copy_properties(&mut self, properties: Properties<'_>, now: Time) {
        for (property, raw) in properties.iter_raw() {
            match property {
                Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(..) => self.bytes.extend_from_slice(raw),
                Property::MessageExpiryInterval(seconds) => {
                    self.expires_at = now.plus_seconds(seconds);
                }
                // Aliases and subscription identifiers belong to the hop; a will's delay has
                // passed.
                _ => {}
            }
        }
    }

    /// Replaces the content by that of `other`, in the same buffer.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { bytes, topic_len, properties_len, expires_at, publisher, .. } = other;
        debug_assert!(!other.is_absent());
        self.bytes.clone_from(bytes);
        (self.absent_len, self.id, self.received) = (0, other.id, other.received);
        (self.topic_len, self.properties_len) = (*topic_len, *properties_len);
        (self.expires_at, self.publisher) = (*expires_at, *publisher);
        (self.qos, self.retain) = (other.qos, other.retain);
    }

    /// The topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).expect("a topic is stored from a string")
    }

    /// The topic name for people; empty if the bytes are on disk only.
    #[must_use]
    pub fn topic_if_here(&self) -> &str {
        if self.is_absent() { "" } else { self.topic() }
    }

    /// The topic name, for those who only copy it: once per subscriber, a look for invalid UTF-8
    /// would cost more than the copy.
    #[inline]
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        &self.bytes[..self.topic_len as usize]
    }

    /// The properties that pass unaltered, encoded.
    #[inline]
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        let start = self.topic_len as usize;
        &self.bytes[start..start + self.properties_len as usize]
    }

    /// The application's bytes.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[(self.topic_len + self.properties_len) as usize..]
    }

    /// Bytes of topic, properties and payload: what the message counts against a limit.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.absent_len as usize
    }

    /// Whether the bytes are on disk only: neither topic nor properties nor payload can be had.
    #[inline]
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.absent_len != 0
    }

    /// Lengths of topic and properties.
    #[must_use]
    pub fn part_lens(&self) -> (u32, u32) {
        (self.topic_len, self.properties_len)
    }

    /// Topic, properties and payload, one behind the other, as [`Self::restore`] takes them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Replaces the content by what was stored: `bytes` as [`Self::as_bytes`] gave them, or nothing
    /// but their length.
    ///
    /// # Errors
    /// When the parts do not lie within the bytes, or the topic is not UTF-8; the message is empty
    /// then.
    pub fn restore(&mut self, stored: &StoredMessage<'_>) -> Result<(), NotAMessage> {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
        let parts_len = u64::from(stored.topic_len) + u64::from(stored.properties_len);
        match stored.content {
            Content::Bytes(bytes) => {
                let topic = bytes.get(..stored.topic_len as usize).ok_or(NotAMessage)?;
                std::str::from_utf8(topic).map_err(|_| NotAMessage)?;
                if parts_len > bytes.len() as u64 {
                    return Err(NotAMessage);
                }
                self.bytes.extend_from_slice(bytes);
            }
            Content::Absent(len) => {
                if parts_len > u64::from(len) || len == 0 {
                    return Err(NotAMessage);
                }
                self.absent_len = len;
                self.bytes = Vec::new();
            }
        }
        (self.topic_len, self.properties_len) = (stored.topic_len, stored.properties_len);
        (self.expires_at, self.publisher) = (stored.expires_at, stored.publisher);
        (self.qos, self.retain, self.id) = (stored.qos, stored.retain, stored.id);
        self.received = stored.received;
        Ok(())
    }

    /// Lets the bytes go: they are on disk.
    pub(crate) fn forget_bytes(&mut self) {
        self.absent_len = self.len() as u32;
        self.bytes = Vec::new();
    }

    /// Takes the bytes back that [`Self::forget_bytes`] let go.
    pub(crate) fn remember_bytes(&mut self, bytes: Vec<u8>) -> Result<(), NotAMessage> {
        let topic = bytes.get(..self.topic_len as usize).ok_or(NotAMessage)?;
        if bytes.len() != self.len() || std::str::from_utf8(topic).is_err() {
            return Err(NotAMessage);
        }
        (self.bytes, self.absent_len) = (bytes, 0);
        Ok(())
    }

    /// Whether there is neither topic nor anything else: a spare.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Lets a buffer go that is far too large for what comes next: a small message that is kept
    /// for long would hold on to it, and no limit would see that.
    #[inline]
    pub(crate) fn keep_capacity_for(&mut self, len: usize) {
        if self.bytes.capacity() > SMALL_BUFFER.max(4 * len) {
            self.bytes = Vec::new();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        (self.absent_len, self.id) = (0, 0);
    }

    /// When it came in, to be stored.
    #[must_use]
    pub fn received(&self) -> u32 {
        self.received
    }

    /// What [`Self::received`] says of a message that came in at `time`.
    #[must_use]
    pub fn received_at(time: Time) -> u32 {
        ticks(time)
    }

    /// When a message came in of which [`Self::received`] says this.
    #[must_use]
    pub fn time_of_receipt(received: u32) -> Time {
        Time::from_millis(u64::from(received) << TICK_BITS)
    }

    /// Seconds since it came in, to within one or two.
    #[inline]
    #[must_use]
    pub fn waited_s(&self, now: Time) -> u64 {
        (u64::from(ticks(now).wrapping_sub(self.received)) << TICK_BITS) / 1000
    }

    /// Whether its time is over.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at <= now
    }

    /// Seconds it has left, for the subscriber \[MQTT-3.3.2-6\]; `None` without an expiry.
    #[inline]
    #[must_use]
    pub fn seconds_left(&self, now: Time) -> Option<u32> {
        (self.expires_at != Time::NEVER).then(|| self.expires_at.seconds_from(now))
    }
}

/// A unit of 1024 milliseconds: 32 bits last for a century.
const TICK_BITS: u32 = 10;

#[inline]
fn ticks(time: Time) -> u32 {
    (time.as_millis() >> TICK_BITS) as u32
}
