//! Options that workers go by.

use dunlin_packets::{QoS, filter_matches};
use dunlin_router::Strategy;
pub use dunlin_session::Level;
use dunlin_session::{Limits, SYS_PREFIX};

use crate::queues::settings::QueueSettings;

/// What a client gets whose subscriptions overlap on a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlapPolicy {
    /// One copy, at the highest QoS, with all identifiers \[MQTT-3.3.4-4\].
    #[default]
    Merge,
    /// One copy per subscription, each with its own identifier \[MQTT-3.3.4-5\].
    Separate,
}

/// What is kept of what sessions that outlive their connection are to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durability {
    /// For every topic that has no level of its own.
    pub level: Level,
    /// Levels of topics, by filter; the first that matches holds.
    pub topics: Vec<(String, Level)>,
    /// What nobody waits for is synced after so many milliseconds.
    pub interval_ms: u64,
    /// Bytes of messages in one worker's memory above which those that are on disk are let go.
    pub memory_bytes: usize,
}

impl Default for Durability {
    fn default() -> Self {
        Self {
            level: Level::default(),
            topics: Vec::new(),
            interval_ms: 200,
            memory_bytes: 256 << 20,
        }
    }
}

impl Durability {
    /// The level of a topic. Of the broker's own figures nothing is kept.
    #[must_use]
    pub fn level(&self, topic: &str) -> Level {
        if topic.starts_with(SYS_PREFIX) {
            return Level::Memory;
        }
        let own = self.topics.iter().find(|(filter, _)| filter_matches(filter, topic));
        own.map_or(self.level, |(_, level)| *level)
    }

    /// The highest level that any topic has, which is also that of sessions.
    #[must_use]
    pub fn strictest(&self) -> Level {
        self.topics.iter().map(|(_, level)| *level).fold(self.level, Level::max)
    }
}

/// Limits of the retained store, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Topics with a retained message.
    pub messages_max: usize,
    /// Bytes of those messages.
    pub bytes_max: usize,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self { messages_max: 10_000_000, bytes_max: 4 << 30 }
    }
}

/// Options of the broker as its workers need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What a session may do.
    pub limits: Limits,
    /// Accept clients that nothing has authenticated.
    pub allow_anonymous: bool,
    /// Overlapping subscriptions.
    pub overlap: OverlapPolicy,
    /// Deliver at the granted QoS even what was published at a lower one.
    pub upgrade_qos: bool,
    /// How share groups pick.
    pub share_strategy: Strategy,
    /// The retained store.
    pub retained: RetainedLimits,
    /// What is kept.
    pub durability: Durability,
    /// Partitioned queues.
    pub queues: QueueSettings,
    /// Subscriptions one client may have.
    pub subscriptions_max: usize,
    /// Bytes of the filters of one client's subscriptions.
    pub filter_bytes_max: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// From accept to a complete CONNECT, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Without progress inside a packet, in milliseconds.
    pub packet_timeout_ms: u64,
    /// How long a slow consumer may hold its publishers back, in milliseconds.
    pub backpressure_ms: u64,
    /// Between two publications of `$SYS`, in milliseconds; 0 for none.
    pub sys_interval_ms: u64,
    /// From the beginning of a shutdown to its end at the latest, in milliseconds.
    pub shutdown_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            allow_anonymous: true,
            overlap: OverlapPolicy::default(),
            upgrade_qos: false,
            share_strategy: Strategy::default(),
            retained: RetainedLimits::default(),
            durability: Durability::default(),
            queues: QueueSettings::default(),
            subscriptions_max: 100_000,
            filter_bytes_max: 4 << 20,
            connections_max: 1_000_000,
            connect_timeout_ms: 10_000,
            packet_timeout_ms: 30_000,
            backpressure_ms: 1_000,
            sys_interval_ms: 10_000,
            shutdown_timeout_ms: 5_000,
        }
    }
}

impl Settings {
    /// QoS of a delivery: that of the message, as far as it was granted \[MQTT-3.8.4-8\].
    #[inline]
    pub(super) fn delivery_qos(&self, published: QoS, granted: QoS) -> QoS {
        if self.upgrade_qos { granted } else { published.min(granted) }
    }
}
