//! What an operator decides about a queue.

use super::limits::{Limits, PARTITIONS_MAX};

/// What settling a message means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each message is leased to one member of each group, and gone when all groups have settled
    /// it.
    #[default]
    Work,
    /// Messages stay until retention takes them; a group has a cursor in each partition.
    Stream,
}

/// What happens to a message for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullPolicy {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest messages of the queue make room, settled or not, leased or not. In a stream, and
    /// where the index of the oldest is not in memory, these are whole chunks.
    DropOldest,
}

/// How much of a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Messages, over all partitions.
    pub messages_max: u64,
    /// Bytes of messages, over all partitions.
    pub bytes_max: u64,
    /// Milliseconds; older messages are dropped whatever the policy. 0: they stay. In a stream
    /// whole chunks go, when the youngest message in them is too old.
    pub age_ms_max: u64,
    /// What happens to a new message above the first two.
    pub policy: FullPolicy,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            messages_max: 10_000_000,
            bytes_max: 16 << 30,
            age_ms_max: 7 * 24 * 3600 * 1000,
            policy: FullPolicy::Reject,
        }
    }
}

/// How a queue behaves. [`Config::check`] says what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Partitions the queue begins with; [`Queue::grow`](super::Queue::grow) makes more.
    pub partitions: u16,
    /// Work queue or stream.
    pub mode: Mode,
    /// Milliseconds a member has a message for before it goes out again.
    pub lease_ms: u32,
    /// Deliveries of a message to one group before it is a dead letter; 0: any number.
    pub attempts_max: u32,
    /// Milliseconds before the second attempt; doubled for each further one. 0: at once.
    pub backoff_base_ms: u32,
    /// Milliseconds the delay before an attempt grows to.
    pub backoff_max_ms: u32,
    /// Milliseconds after which a member that has not been heard of is taken for gone; 0: never.
    pub member_timeout_ms: u32,
    /// At most one message of a key is leased at a time, and the next only when it is settled.
    pub is_serial: bool,
    /// A stream keeps only the last message of each key.
    pub is_compacted: bool,
    /// Dead letters are given out ([`Action::DeadLetter`](super::Action::DeadLetter)). Otherwise,
    /// as in a dead-letter queue itself, they are settled and counted.
    pub has_dead_letters: bool,
    /// What is kept.
    pub retention: Retention,
    /// What is allowed beside messages.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 8,
            mode: Mode::Work,
            lease_ms: 30_000,
            attempts_max: 5,
            backoff_base_ms: 1000,
            backoff_max_ms: 60_000,
            member_timeout_ms: 0,
            is_serial: false,
            is_compacted: false,
            has_dead_letters: true,
            retention: Retention::default(),
            limits: Limits::default(),
        }
    }
}

/// Why a [`Config`] is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadConfig {
    /// No partition, or more than [`PARTITIONS_MAX`].
    Partitions,
    /// A lease of no duration would be over before it is given out.
    Lease,
    /// The delay begins above its maximum.
    Backoff,
    /// A work queue cannot be compacted: a message that is being worked on would vanish.
    Compaction,
    /// A stream has no leases, so there is nothing that would be serial: its partitions are.
    Serial,
    /// Room for no message.
    Retention,
}

impl Config {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), BadConfig> {
        let is_stream = self.mode == Mode::Stream;
        let retention = &self.retention;
        let checks = [
            (self.partitions == 0 || self.partitions > PARTITIONS_MAX, BadConfig::Partitions),
            (self.lease_ms == 0, BadConfig::Lease),
            (self.backoff_base_ms > self.backoff_max_ms, BadConfig::Backoff),
            (self.is_compacted && !is_stream, BadConfig::Compaction),
            (self.is_serial && is_stream, BadConfig::Serial),
            (retention.messages_max == 0 || retention.bytes_max == 0, BadConfig::Retention),
        ];
        checks.into_iter().find(|(is_bad, _)| *is_bad).map_or(Ok(()), |(_, bad)| Err(bad))
    }

    /// Milliseconds from the failure of an attempt to the next.
    pub(crate) fn backoff_ms(&self, attempts: u32) -> u64 {
        let doublings = attempts.saturating_sub(1).min(31);
        (u64::from(self.backoff_base_ms) << doublings).min(u64::from(self.backoff_max_ms))
    }
}
