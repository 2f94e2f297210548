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
}

impl Default for Message {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            topic_len: 0,
            properties_len: 0,
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
        let Self { bytes, topic_len, properties_len, expires_at, publisher, qos, retain } = other;
        self.bytes.clone_from(bytes);
        (self.topic_len, self.properties_len) = (*topic_len, *properties_len);
        (self.expires_at, self.publisher) = (*expires_at, *publisher);
        (self.qos, self.retain) = (*qos, *retain);
    }

    /// The topic name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).expect("a topic is stored from a string")
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
        self.bytes.len()
    }

    /// Whether there is neither topic nor anything else: a spare.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
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
