//! Every limit of a partitioned queue, and what happens at it.
//!
//! What an operator sets is in [`Limits`] and in [`Retention`](super::Retention); the constants are
//! what the data structures are built for.

/// Messages of one chunk of the index: what is forgotten, stored and loaded at once. 6 KiB.
pub const CHUNK_LEN: u64 = 256;

/// Priorities: 0 (the default, last) to 9 (first).
pub const PRIORITIES: usize = 10;

/// Of so many deliveries from a partition with several priorities one is the oldest message
/// whatever its priority, so that a message is overtaken at most 15 times by each one before it.
pub const FAIR_EVERY: u8 = 16;

/// Messages of one group and partition that wait for their key, with serial processing. At the
/// limit the group looks no further until a key is settled.
pub const PARKED_MAX: usize = 1024;

/// Messages a stream's consumer may be ahead of the cursor that its acknowledgements move, per
/// partition. At the limit it gets no more. 8 KiB of bits.
pub const AHEAD_MAX: u64 = 65_536;

/// Buffers of chunks a worker keeps for use again; 6 KiB each. What is more is freed.
pub const SPARE_CHUNKS_MAX: usize = 64;

/// Bytes of one message; what the index has bits for, and more than a packet of MQTT can hold
/// (268,435,455). Larger ones are refused.
pub const MESSAGE_BYTES_MAX: u32 = (1 << 28) - 1;

/// Partitions of one queue. More are refused.
pub const PARTITIONS_MAX: u16 = 1024;

/// Milliseconds a message may be delayed, when it is published or when it is put back: 30 days.
/// A longer delay is refused.
pub const DELAY_MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// A partition that is to be given on waits for the leases its owner has, at most for so many times
/// the duration of a lease: as long as leases can be extended in this state. Then they end.
pub const DRAIN_LEASES_MAX: u64 = 10;

/// What one queue may hold beside its messages. At each of them the call is refused with
/// [`Refused`](super::Refused) and nothing is changed, if not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that are not due yet, as each takes some 60 bytes beside its 24.
    pub delayed_max: u32,
    /// Consumer groups. Each costs 32 bytes per partition, and looking at it when a message is
    /// settled.
    pub groups_max: u32,
    /// Members of one group.
    pub members_max: u32,
    /// Leases of one member at a time, over all partitions; 48 bytes each. At the limit a poll
    /// gives nothing.
    pub leases_per_member_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            delayed_max: 100_000,
            groups_max: 64,
            members_max: 1024,
            leases_per_member_max: 10_000,
        }
    }
}
