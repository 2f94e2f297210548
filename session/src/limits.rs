//! What the broker allows a client, in one place.

use dunlin_packets::{QoS, VARINT_MAX};
use dunlin_queue::{OverflowPolicy, QueueLimits};

/// Limits and capabilities that hold for every session of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Accept MQTT 3.1, 3.1.1, 5.0.
    pub accept_versions: [bool; 3],
    /// Accept an empty client identifier and assign one.
    pub allow_empty_client_id: bool,
    /// Largest packet taken from a client, in bytes.
    pub packet_bytes_max: u32,
    /// Largest payload of a PUBLISH or a will, in bytes.
    pub payload_bytes_max: u32,
    /// Highest QoS a client may publish at.
    pub qos_max: QoS,
    /// Whether RETAIN is supported.
    pub retain_available: bool,
    /// Whether filters may have wildcards.
    pub wildcards_available: bool,
    /// Whether `$share/…` is supported.
    pub shared_available: bool,
    /// Whether subscription identifiers are supported.
    pub identifiers_available: bool,
    /// QoS 1 and 2 publications a client may have unacknowledged.
    pub receive_maximum: u16,
    /// Topic aliases a client may set.
    pub topic_alias_maximum: u16,
    /// Topic aliases we set towards a client that allows them.
    pub outgoing_aliases_max: u16,
    /// Longest keep alive in seconds, also for clients that want none; 0 leaves it to them.
    pub keep_alive_max_s: u16,
    /// Longest session expiry in seconds; `u32::MAX` for no limit.
    pub session_expiry_max_s: u32,
    /// Deliveries in flight to one client, in messages and in bytes.
    pub in_flight_max: usize,
    /// Bytes in flight to one client; one message is always allowed.
    pub in_flight_bytes_max: usize,
    /// What waits for one client.
    pub queue: QueueLimits,
    /// Seconds a message waits at most; 0 for as long as it takes. Not for retained messages.
    pub queue_age_max_s: u32,
    /// Keep QoS 0 messages for a session without a connection.
    pub queue_qos0_offline: bool,
    /// What Response Information begins with; the client identifier follows. Empty for none.
    pub response_topic_prefix: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accept_versions: [true; 3],
            allow_empty_client_id: true,
            packet_bytes_max: VARINT_MAX + 5,
            payload_bytes_max: VARINT_MAX,
            qos_max: QoS::ExactlyOnce,
            retain_available: true,
            wildcards_available: true,
            shared_available: true,
            identifiers_available: true,
            receive_maximum: 1024,
            topic_alias_maximum: 32,
            outgoing_aliases_max: 32,
            keep_alive_max_s: 0,
            session_expiry_max_s: u32::MAX,
            in_flight_max: 1024,
            in_flight_bytes_max: 64 << 20,
            queue: QueueLimits {
                messages_max: 65_536,
                bytes_max: 64 << 20,
                policy: OverflowPolicy::DropNewest,
            },
            queue_age_max_s: 0,
            queue_qos0_offline: false,
            response_topic_prefix: String::new(),
        }
    }
}
