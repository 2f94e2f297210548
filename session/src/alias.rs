//! Topic aliases, one table per direction; both die with the connection [MQTT-3.3.2-7].

use std::collections::HashMap;

use ahash::RandomState;
use dunlin_packets::{PacketError, ReasonCode};

/// Aliases the client has set.
#[derive(Debug, Default)]
pub(crate) struct IncomingAliases {
    topics: Vec<Box<str>>,
}

const INVALID: PacketError = PacketError::new(
    ReasonCode::TopicAliasInvalid,
    "3.2.2-17",
    "the topic alias is above the topic alias maximum",
);

impl IncomingAliases {
    /// The topic that a PUBLISH with `alias` means, and sets if it names one.
    pub(crate) fn resolve<'a>(
        &'a mut self,
        alias: u16,
        topic: &str,
        maximum: u16,
    ) -> Result<&'a str, PacketError> {
        if alias == 0 || alias > maximum {
            return Err(INVALID);
        }
        let at = usize::from(alias) - 1;
        if !topic.is_empty() {
            if self.topics.len() <= at {
                self.topics.resize_with(at + 1, Box::default);
            }
            if *self.topics[at] != *topic {
                self.topics[at] = topic.into();
            }
        }
        self.topics
            .get(at)
            .map(|topic| &**topic)
            .filter(|topic| !topic.is_empty())
            .ok_or(PacketError::protocol("3.3.2.3.4", "the topic alias has not been set"))
    }
}

/// Longest topic that is worth remembering as an alias.
const TOPIC_BYTES_MAX: usize = 256;

/// Aliases we have set: the first topics of the connection get them.
#[derive(Debug, Default)]
pub(crate) struct OutgoingAliases {
    aliases: HashMap<Box<[u8]>, u16, RandomState>,
}

/// How a topic goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    /// By name.
    None,
    /// By name, setting the alias.
    Set(u16),
    /// By the alias alone.
    Known(u16),
}

impl OutgoingAliases {
    /// How `topic` is to go out on a connection with so many aliases [MQTT-3.1.2-26].
    pub(crate) fn choose(&self, topic: &[u8], maximum: u16) -> Alias {
        match self.aliases.get(topic) {
            Some(&alias) => Alias::Known(alias),
            None if self.aliases.len() < usize::from(maximum) && topic.len() <= TOPIC_BYTES_MAX => {
                Alias::Set(self.aliases.len() as u16 + 1)
            }
            None => Alias::None,
        }
    }

    /// The PUBLISH that sets the alias is on its way.
    pub(crate) fn set(&mut self, topic: &[u8], alias: u16) {
        self.aliases.insert(topic.into(), alias);
    }
}
