//! The table of all options.

use std::ops::RangeInclusive;

use dunlin_packets::VARINT_MAX;

use super::Config;
use super::field::{Field, Raw, integer};

/// Workers a set of 64 bits can name.
pub(super) const WORKERS_MAX: usize = 64;

/// One option.
pub(super) struct Spec {
    /// `section.name`, or a name at the top level.
    pub(super) key: &'static str,
    /// For the commented file: what it does, in which unit.
    pub(super) doc: &'static str,
    range: Option<RangeInclusive<i64>>,
    one_of: &'static [&'static str],
    pub(super) field: fn(&mut Config) -> &mut dyn Field,
}

const fn option(
    key: &'static str,
    doc: &'static str,
    field: fn(&mut Config) -> &mut dyn Field,
) -> Spec {
    Spec { key, doc, range: None, one_of: &[], field }
}

impl Spec {
    const fn within(mut self, range: RangeInclusive<i64>) -> Self {
        self.range = Some(range);
        self
    }

    const fn one_of(mut self, values: &'static [&'static str]) -> Self {
        self.one_of = values;
        self
    }
}

/// Gives the option `key` a value.
pub(super) fn set(config: &mut Config, key: &str, value: &Raw) -> Result<(), String> {
    let spec = TABLE.iter().find(|spec| spec.key == key).ok_or("there is no such option")?;
    if let Some(range) = &spec.range {
        let number = integer(value)?;
        if !range.contains(&number) {
            return Err(format!("{number} is not between {} and {}", range.start(), range.end()));
        }
    }
    if !spec.one_of.is_empty() {
        let is_known = matches!(value, Raw::Text(text) if spec.one_of.contains(&text.as_str()));
        if !is_known {
            return Err(format!("it has to be one of {}", spec.one_of.join(", ")));
        }
    }
    (spec.field)(config).set(value)
}

const BYTES_MAX: i64 = 1 << 50;
const COUNT_MAX: i64 = 1 << 40;

const QUEUES_DEFAULT: &str = "\
    How a queue is of which nothing else is said; what is left out is as it stands here.\n\
    partitions      1 to 1024; messages of one key keep their order in one of them\n\
    mode            work (a message is gone when each group has settled it) or stream (it stays,\n\
    and each group has its place)\n\
    lease           how long a consumer has a message for before another one gets it\n\
    attempts        deliveries before a message is a dead letter; 0: any number\n\
    backoff         before the second attempt, doubled for each further one up to backoff_max\n\
    member_timeout  without a sign of life a consumer is taken for gone; 0: never\n\
    serial          work: one message of a key at a time, the next when it is settled\n\
    compact         stream: only the last message of a key is kept\n\
    messages, bytes, age  how much is kept, and for how long; age 0: for ever\n\
    full            reject new messages or drop-oldest, above messages or bytes\n\
    level           fsync, interval or memory, as durability.level, which holds without it\n\
    capture_ack     publishers are acknowledged what is captured when the queue has it\n\
    prefetch        1 to 10000 deliveries to a consumer before it has to answer\n\
    groups          consumer groups\n\
    group_idle      a group without consumers is removed after this; 0: never\n\
    delayed         messages that are not due yet\n\
    Times are 500ms, 30s, 5m, 2h, 7d or 0.";

/// Every option but the listeners, in the order of the default file.
pub(super) const TABLE: &[Spec] = &[
    option("workers", "Worker threads; 0 for one per core.", |c| &mut c.workers)
        .within(0..=WORKERS_MAX as i64),
    option(
        "data_dir",
        "Directory for what has to outlive a crash: sessions, their messages, retained ones.\n\
         Locked while the broker runs. Empty: everything is in memory.",
        |c| &mut c.data_dir,
    ),
    option(
        "allow_anonymous",
        "Accept clients without authentication. A listener that is not on loopback needs this\n\
         written out, as nothing authenticates clients yet; false refuses everybody.",
        |c| &mut c.allow_anonymous,
    ),
    option("log.level", "error, warn, info (each connect and disconnect), debug or trace.", |c| {
        &mut c.log.level
    })
    .one_of(&["error", "warn", "info", "debug", "trace"]),
    option("log.format", "text or json.", |c| &mut c.log.format).one_of(&["text", "json"]),
    option("mqtt.versions", "Protocol versions to accept.", |c| {
        &mut c.settings.limits.accept_versions
    }),
    option(
        "mqtt.allow_empty_client_id",
        "Assign a client identifier to clients without one.",
        |c| &mut c.settings.limits.allow_empty_client_id,
    ),
    option("mqtt.max_qos", "Highest QoS: 0, 1 or 2.", |c| &mut c.settings.limits.qos_max),
    option(
        "mqtt.upgrade_outgoing_qos",
        "Deliver at the granted QoS, even above the published one.",
        |c| &mut c.settings.upgrade_qos,
    ),
    option("mqtt.wildcard_subscriptions", "Allow + and # in filters.", |c| {
        &mut c.settings.limits.wildcards_available
    }),
    option("mqtt.shared_subscriptions", "Allow $share/<group>/<filter>.", |c| {
        &mut c.settings.limits.shared_available
    }),
    option(
        "mqtt.shared_strategy",
        "round-robin, random, sticky, hash-client or hash-topic.",
        |c| &mut c.settings.share_strategy,
    ),
    option("mqtt.subscription_identifiers", "Allow subscription identifiers.", |c| {
        &mut c.settings.limits.identifiers_available
    }),
    option(
        "mqtt.overlapping_subscriptions",
        "merge: one copy with all identifiers; separate: one copy per subscription.",
        |c| &mut c.settings.overlap,
    ),
    option(
        "mqtt.max_keep_alive_s",
        "Longest keep alive, also for 5.0 clients that want none; 0: any.",
        |c| &mut c.settings.limits.keep_alive_max_s,
    ),
    option("mqtt.max_session_expiry_s", "Longest session expiry; 4294967295: any.", |c| {
        &mut c.settings.limits.session_expiry_max_s
    }),
    option("mqtt.topic_alias_maximum", "Topic aliases a client may set; 0: none.", |c| {
        &mut c.settings.limits.topic_alias_maximum
    }),
    option(
        "mqtt.outgoing_topic_aliases",
        "Topic aliases set towards clients that allow them; 0: none.",
        |c| &mut c.settings.limits.outgoing_aliases_max,
    ),
    option(
        "mqtt.response_topic_prefix",
        "Response Information for clients that ask: this and their identifier.",
        |c| &mut c.settings.limits.response_topic_prefix,
    ),
    option("mqtt.sys_interval_ms", "Between two publications of $SYS; 0: none.", |c| {
        &mut c.settings.sys_interval_ms
    }),
    option("limits.max_connections", "Connections in all.", |c| &mut c.settings.connections_max)
        .within(1..=COUNT_MAX),
    option("limits.max_packet_size", "Largest packet from a client, in bytes.", |c| {
        &mut c.settings.limits.packet_bytes_max
    })
    .within(128..=VARINT_MAX as i64 + 5),
    option("limits.max_payload_size", "Largest payload, in bytes.", |c| {
        &mut c.settings.limits.payload_bytes_max
    })
    .within(0..=VARINT_MAX as i64),
    option(
        "limits.receive_maximum",
        "QoS 1 and 2 publications a client may have unacknowledged.",
        |c| &mut c.settings.limits.receive_maximum,
    )
    .within(1..=65_535),
    option("limits.max_subscriptions", "Subscriptions of one client.", |c| {
        &mut c.settings.subscriptions_max
    })
    .within(1..=COUNT_MAX),
    option("limits.max_filter_bytes", "Bytes of the filters of one client's subscriptions.", |c| {
        &mut c.settings.filter_bytes_max
    })
    .within(1..=BYTES_MAX),
    option("limits.connect_timeout_ms", "From accept to a complete CONNECT.", |c| {
        &mut c.settings.connect_timeout_ms
    })
    .within(1..=3_600_000),
    option("limits.packet_timeout_ms", "Without a byte inside a packet.", |c| {
        &mut c.settings.packet_timeout_ms
    })
    .within(1..=3_600_000),
    option("limits.shutdown_timeout_ms", "For the last deliveries at shutdown.", |c| {
        &mut c.settings.shutdown_timeout_ms
    })
    .within(0..=3_600_000),
    option("queue.max_messages", "Messages that wait for one client.", |c| {
        &mut c.settings.limits.queue.messages_max
    })
    .within(1..=COUNT_MAX),
    option("queue.max_bytes", "Bytes that wait for one client.", |c| {
        &mut c.settings.limits.queue.bytes_max
    })
    .within(1..=BYTES_MAX),
    option(
        "queue.max_age_s",
        "Seconds a message waits for one client at most, to within two; 0: as long as it takes.",
        |c| &mut c.settings.limits.queue_age_max_s,
    ),
    option("queue.when_full", "drop-newest, drop-oldest or disconnect.", |c| {
        &mut c.settings.limits.queue.policy
    }),
    option("queue.qos0_offline", "Keep QoS 0 messages for sessions without a connection.", |c| {
        &mut c.settings.limits.queue_qos0_offline
    }),
    option("queue.max_in_flight", "Unacknowledged deliveries to one client.", |c| {
        &mut c.settings.limits.in_flight_max
    })
    .within(1..=65_535),
    option("queue.max_in_flight_bytes", "Bytes of them.", |c| {
        &mut c.settings.limits.in_flight_bytes_max
    })
    .within(1..=BYTES_MAX),
    option(
        "queue.backpressure_ms",
        "How long a consumer that falls behind may hold its publishers back without draining a\n\
         quarter of its queue; 0: not at all.",
        |c| &mut c.settings.backpressure_ms,
    )
    .within(0..=3_600_000),
    option(
        "queues.auto_create",
        "Make the queue when somebody publishes or subscribes to $queue/<name>; false: only\n\
         those that are declared.",
        |c| &mut c.settings.queues.auto_create,
    ),
    option("queues.max", "Queues there may be, without those of dead letters.", |c| {
        &mut c.settings.queues.max
    })
    .within(0..=COUNT_MAX),
    option(
        "queues.index_per_worker",
        "Bytes of memory in which a worker keeps where its queues' messages are, 24 for each;\n\
         what is above it is on disk.",
        |c| &mut c.settings.queues.index_bytes,
    )
    .within(0..=BYTES_MAX),
    option(
        "queues.memory_per_worker",
        "Bytes of messages of one worker's queues that are in memory only: by level=memory, or as\n\
         data_dir is empty. At the limit they refuse more.",
        |c| &mut c.settings.queues.memory_bytes,
    )
    .within(0..=BYTES_MAX),
    option("queues.default", QUEUES_DEFAULT, |c| &mut c.settings.queues.defaults),
    option(
        "queues.declare",
        "Queues that are there from the beginning: the name, and what is not as by default. What\n\
         is published to topics that match capture=<filter> is put into the queue too; it may be\n\
         repeated: [\"orders partitions=16 serial=true\", \"meters mode=stream capture=m/#\"].",
        |c| &mut c.queues,
    ),
    option(
        "durability.level",
        "When a publication is acknowledged that a session must get that outlives its connection:\n\
         fsync: when it is synced to disk; interval: when it is written, to be synced within\n\
         interval_ms; memory: at once, and a crash loses it.",
        |c| &mut c.settings.durability.level,
    ),
    option(
        "durability.topics",
        "Other levels for some topics, the first that matches: [\"telemetry/#=memory\"].",
        |c| &mut c.settings.durability.topics,
    ),
    option(
        "durability.interval_ms",
        "What nobody waits for, and all of level interval, is synced within this time.",
        |c| &mut c.settings.durability.interval_ms,
    )
    .within(1..=60_000),
    option(
        "durability.memory_per_worker",
        "Bytes of messages in a worker's memory above which those that are on disk stay there\n\
         until their session comes for them.",
        |c| &mut c.settings.durability.memory_bytes,
    )
    .within(0..=BYTES_MAX),
    option(
        "storage.max_bytes",
        "Bytes on disk above which no new message is kept, and publishers are told so; 0: any.",
        |c| &mut c.storage.bytes_max,
    )
    .within(0..=BYTES_MAX),
    option(
        "storage.min_free_bytes",
        "Free bytes of the device below which no new message is kept.",
        |c| &mut c.storage.free_min,
    )
    .within(0..=BYTES_MAX),
    option(
        "storage.clean_above_bytes",
        "Bytes on disk above which the space of what is done with is given back, once it is more\n\
         than half.",
        |c| &mut c.storage.clean_min,
    )
    .within(0..=BYTES_MAX),
    option("storage.segment_bytes", "Size of a file of the log.", |c| &mut c.storage.segment_bytes)
        .within(64 << 10..=1 << 32),
    option(
        "storage.skip_damage",
        "Start although a part of what was kept is damaged, without that part. The log says what\n\
         is missing.",
        |c| &mut c.storage.skip_damage,
    ),
    option("retained.available", "Support retained messages.", |c| {
        &mut c.settings.limits.retain_available
    }),
    option(
        "retained.max_messages",
        "Topics with a retained message. What would be one more is delivered and not retained,\n\
         which is counted; who publishes with 5.0 is told, at QoS 1 by 0x97.",
        |c| &mut c.settings.retained.messages_max,
    )
    .within(0..=COUNT_MAX),
    option("retained.max_bytes", "Bytes of retained messages; as retained.max_messages.", |c| {
        &mut c.settings.retained.bytes_max
    })
    .within(0..=BYTES_MAX),
];
