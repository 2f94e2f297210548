//! The message a client leaves behind.

use dunlin_packets::{self as packets, Properties, Property, QoS};
use dunlin_queue::MessageFields;

/// A will, kept with its session \[MQTT-3.1.2-7\].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub(crate) topic: Box<str>,
    pub(crate) payload: Box<[u8]>,
    pub(crate) properties: Box<[u8]>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Seconds between the end of the connection and the publication.
    pub delay_s: u32,
}

impl Will {
    pub(crate) fn new(will: &packets::Will<'_>) -> Self {
        let delay_s = will.properties.iter().find_map(|property| match property {
            Property::WillDelayInterval(seconds) => Some(seconds),
            _ => None,
        });
        Self {
            topic: will.topic.into(),
            payload: will.payload.into(),
            properties: will.properties.as_bytes().into(),
            qos: will.qos,
            retain: will.retain,
            delay_s: delay_s.unwrap_or(0),
        }
    }

    /// What to publish. Its properties keep their order \[MQTT-3.1.3-10\].
    #[must_use]
    pub fn fields(&self, publisher: u64) -> MessageFields<'_> {
        MessageFields {
            topic: &self.topic,
            payload: &self.payload,
            properties: Properties::from_checked(&self.properties),
            qos: self.qos,
            retain: self.retain,
            publisher,
        }
    }
}
