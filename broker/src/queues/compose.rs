//! What consumers get: the publisher's properties, and the broker's own, which nobody can forge.

use dunlin_packets::{Properties, PropertiesBuf, Property};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{DeadReason, MessageId};

use super::address::{DEAD_PREFIX, QUEUE_PREFIX, QueueName};
use super::terms::MessageName;

/// Bytes of the reason a consumer gives that stay with a dead letter; the rest is cut off.
pub const DETAIL_BYTES_MAX: usize = 1024;

/// Bytes of a topic name.
const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// User properties that only the broker sets, beside those of dead letters.
const RESERVED: [&str; 8] = [
    "message-id",
    "group-id",
    "queue",
    "partition",
    "offset",
    "attempt",
    "x-source-topic",
    "x-stream-timestamp",
];

/// What the names of a dead letter's user properties begin with.
const DEAD_NAMES: &str = "x-dead-";

/// `properties` without the user properties that only the broker sets; all others keep their order,
/// duplicates and bytes. Copied to `buf` only if there are such.
#[must_use]
pub fn strip_reserved<'a>(
    properties: Properties<'a>,
    buf: &'a mut PropertiesBuf,
) -> Properties<'a> {
    let is_free = |property: &Property<'_>| !is_user(property, is_reserved);
    if properties.iter().all(|property| is_free(&property)) {
        return properties;
    }
    buf.clear();
    copy(properties, buf, is_free);
    buf.as_properties()
}

/// What the broker says about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryInfo<'a> {
    /// Which queue it comes from.
    pub queue: QueueName<'a>,
    /// For which consumer group.
    pub group: &'a str,
    /// Which message it is.
    pub id: MessageId,
    /// Which attempt, from 1. Not said of streams.
    pub attempt: u32,
    /// When the message came to the queue. Said of streams.
    pub at: Time,
    /// Where the message was published, if the queue captured it.
    pub source_topic: Option<&'a str>,
    /// The queue is a stream.
    pub is_stream: bool,
}

/// Writes the properties of a delivery to `out`: the original ones, but what belongs to one hop or
/// is the broker's own, and then the latter. What the broker said of a dead letter stays.
///
/// # Panics
/// When group or source topic is longer than 65,535 bytes, which none on the wire is.
pub fn delivery_properties(
    original: Properties<'_>,
    info: &DeliveryInfo<'_>,
    out: &mut PropertiesBuf,
) {
    out.clear();
    let is_forged =
        |name: &str| is_reserved(name) && !(info.queue.is_dead && name.starts_with(DEAD_NAMES));
    copy(original, out, |property| is_end_to_end(property) && !is_user(property, is_forged));
    out.push_user("message-id", MessageName { queue: info.queue, id: info.id })
        .push(Property::UserProperty("group-id", info.group))
        .push_user("queue", info.queue)
        .push_user("partition", info.id.partition)
        .push_user("offset", info.id.offset);
    if info.is_stream {
        out.push_user("x-stream-timestamp", info.at.as_millis());
    } else {
        out.push_user("attempt", info.attempt);
    }
    if let Some(topic) = info.source_topic {
        out.push(Property::UserProperty("x-source-topic", topic));
    }
}

/// Writes the topic of a delivery to `out`: that of the queue, and the routing key if there is one.
/// A key that does not fit behind it is left out: it is the topic of a captured message, which
/// `x-source-topic` has as well.
pub fn delivery_topic(queue: QueueName<'_>, key: &str, out: &mut String) {
    out.clear();
    out.push_str(if queue.is_dead { DEAD_PREFIX } else { QUEUE_PREFIX });
    out.push_str(queue.name);
    if !key.is_empty() && out.len() + 1 + key.len() <= TOPIC_BYTES_MAX {
        out.push('/');
        out.push_str(key);
    }
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadInfo<'a> {
    /// Why it is one.
    pub reason: DeadReason,
    /// Deliveries to the group.
    pub attempts: u32,
    /// The consumer group that could not do with it.
    pub group: &'a str,
    /// What it was.
    pub id: MessageId,
    /// In which queue.
    pub queue: QueueName<'a>,
    /// When it became one.
    pub at: Time,
    /// What the consumer said; up to [`DETAIL_BYTES_MAX`] of it are kept.
    pub detail: Option<&'a str>,
}

/// Writes the properties of a dead letter to `out`: the original ones, but what belongs to one hop
/// or is the broker's own, and then what became of it.
///
/// # Panics
/// When the group is longer than 65,535 bytes, which none on the wire is.
pub fn dead_properties(original: Properties<'_>, info: &DeadInfo<'_>, out: &mut PropertiesBuf) {
    alive_properties(original, out);
    let reason = match info.reason {
        DeadReason::Exhausted => "exhausted",
        DeadReason::Rejected => "rejected",
    };
    out.push(Property::UserProperty("x-dead-reason", reason))
        .push_user("x-dead-attempts", info.attempts)
        .push(Property::UserProperty("x-dead-group", info.group))
        .push_user("x-dead-queue", info.queue)
        .push_user("x-dead-message-id", MessageName { queue: info.queue, id: info.id })
        .push_user("x-dead-at", info.at.as_millis());
    if let Some(detail) = info.detail {
        let detail = &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)];
        out.push(Property::UserProperty("x-dead-detail", detail));
    }
}

/// Writes the properties to `out` that the message had before it was a dead letter.
pub fn alive_properties(original: Properties<'_>, out: &mut PropertiesBuf) {
    out.clear();
    copy(original, out, |property| is_end_to_end(property) && !is_user(property, is_reserved));
}

fn copy(
    properties: Properties<'_>,
    out: &mut PropertiesBuf,
    is_kept: impl Fn(&Property<'_>) -> bool,
) {
    for (property, raw) in properties.iter_raw() {
        if is_kept(&property) {
            out.push_raw(raw);
        }
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(DEAD_NAMES)
}

fn is_user(property: &Property<'_>, is_meant: impl Fn(&str) -> bool) -> bool {
    matches!(property, Property::UserProperty(name, _) if is_meant(name))
}

/// What a subscriber gets as it was sent, as in [`Message::fill`](dunlin_queue::Message::fill). How
/// long a message has left is said when it is sent.
fn is_end_to_end(property: &Property<'_>) -> bool {
    matches!(
        property,
        Property::PayloadFormatIndicator(_)
            | Property::ContentType(_)
            | Property::ResponseTopic(_)
            | Property::CorrelationData(_)
            | Property::UserProperty(..)
    )
}

#[cfg(test)]
mod tests {
    use Property::UserProperty;

    use super::*;

    const ORDERS: QueueName<'_> = QueueName { name: "orders", is_dead: false };
    const ID: MessageId = MessageId { partition: 3, offset: 77 };

    fn buf(properties: &[Property<'_>]) -> PropertiesBuf {
        let mut buf = PropertiesBuf::new();
        for property in properties {
            buf.push(*property);
        }
        buf
    }

    /// What has to come through, with a few that must not, in between.
    fn mixed<'a>(reserved: &[Property<'a>]) -> PropertiesBuf {
        let mut all = vec![UserProperty("b", "1"), Property::ContentType("text/plain")];
        all.extend_from_slice(reserved);
        all.extend_from_slice(&PLAIN[2..]);
        buf(&all)
    }

    const PLAIN: [Property<'_>; 8] = [
        UserProperty("b", "1"),
        Property::ContentType("text/plain"),
        UserProperty("a", ""),
        UserProperty("b", "1"),
        Property::ResponseTopic("replies"),
        Property::CorrelationData(b"\0\xff"),
        UserProperty("b", "2"),
        Property::PayloadFormatIndicator(true),
    ];

    const FORGED: [Property<'_>; 10] = [
        UserProperty("message-id", "orders:0:0"),
        UserProperty("group-id", "g"),
        UserProperty("queue", "q"),
        UserProperty("partition", "0"),
        UserProperty("offset", "0"),
        UserProperty("attempt", "0"),
        UserProperty("x-source-topic", "t"),
        UserProperty("x-stream-timestamp", "0"),
        UserProperty("x-dead-reason", "rejected"),
        UserProperty("x-dead-", ""),
    ];

    const HOP: [Property<'_>; 3] = [
        Property::TopicAlias(7),
        Property::SubscriptionIdentifier(300),
        Property::MessageExpiryInterval(60),
    ];

    const INFO: DeliveryInfo<'_> = DeliveryInfo {
        queue: ORDERS,
        group: "billing",
        id: ID,
        attempt: 2,
        at: Time::from_millis(1_790_000_000_000),
        source_topic: None,
        is_stream: false,
    };

    const DEAD: DeadInfo<'_> = DeadInfo {
        reason: DeadReason::Exhausted,
        attempts: 5,
        group: "billing",
        id: ID,
        queue: ORDERS,
        at: Time::from_millis(1_790_000_000_000),
        detail: None,
    };

    fn delivered(original: Properties<'_>, info: &DeliveryInfo<'_>) -> PropertiesBuf {
        let mut out = buf(&[UserProperty("left", "over")]);
        delivery_properties(original, info, &mut out);
        out
    }

    fn list(buf: &PropertiesBuf) -> Vec<Property<'_>> {
        buf.as_properties().iter().collect()
    }

    #[test]
    fn properties_without_reserved_names_are_not_copied() {
        let similar = ["Queue", "message-id ", "x-dead", "x-stream", "offsets", ""];
        let mut all = PLAIN.to_vec();
        all.extend(similar.map(|name| UserProperty(name, "1")));
        all.extend(HOP);
        let original = buf(&all);
        let mut copied = PropertiesBuf::new();
        let bytes = strip_reserved(original.as_properties(), &mut copied).as_bytes();
        assert!(std::ptr::eq(bytes, original.as_properties().as_bytes()));
        assert!(strip_reserved(Properties::default(), &mut copied).is_empty());
    }

    #[test]
    fn reserved_names_are_stripped_and_nothing_else_changes() {
        for forged in FORGED {
            let mut out = buf(&[UserProperty("left", "over")]);
            let original = mixed(&[forged, HOP[0], forged]);
            let stripped = strip_reserved(original.as_properties(), &mut out);
            assert_eq!(stripped, mixed(&HOP[..1]).as_properties(), "{forged:?}");
        }
        let all = buf(&FORGED);
        assert!(strip_reserved(all.as_properties(), &mut PropertiesBuf::new()).is_empty());
    }

    #[test]
    fn a_delivery_says_what_it_is_behind_the_publishers_properties() {
        let original = mixed(&[]);
        let own = [
            UserProperty("message-id", "orders:3:77"),
            UserProperty("group-id", "billing"),
            UserProperty("queue", "orders"),
            UserProperty("partition", "3"),
            UserProperty("offset", "77"),
        ];
        let work = delivered(original.as_properties(), &INFO);
        let expected = [&PLAIN[..], &own, &[UserProperty("attempt", "2")]].concat();
        assert_eq!(list(&work), expected);

        let captured = DeliveryInfo { is_stream: true, source_topic: Some("m/1"), ..INFO };
        let stream = delivered(original.as_properties(), &captured);
        let of_streams = [
            UserProperty("x-stream-timestamp", "1790000000000"),
            UserProperty("x-source-topic", "m/1"),
        ];
        assert_eq!(list(&stream), [&PLAIN[..], &own, &of_streams].concat());
    }

    #[test]
    fn a_delivery_has_nothing_forged_and_nothing_of_another_hop() {
        let plain = delivered(mixed(&[]).as_properties(), &INFO);
        for unwanted in FORGED.into_iter().chain(HOP) {
            let original = mixed(&[unwanted]);
            assert_eq!(delivered(original.as_properties(), &INFO), plain, "{unwanted:?}");
        }
    }

    #[test]
    fn a_delivery_of_a_dead_letter_says_why_it_is_one() {
        let mut dead = PropertiesBuf::new();
        dead_properties(mixed(&[]).as_properties(), &DEAD, &mut dead);
        let info = DeliveryInfo { queue: ORDERS.dead(), ..INFO };
        let out = delivered(dead.as_properties(), &info);
        let names = ["x-dead-reason", "x-dead-attempts", "x-dead-group", "x-dead-queue"];
        for name in names.into_iter().chain(["x-dead-message-id", "x-dead-at"]) {
            let count = list(&out).into_iter().filter(|p| is_user(p, |n| n == name)).count();
            assert_eq!(count, 1, "{name}");
        }
        assert!(list(&out).contains(&UserProperty("message-id", "$dlq/orders:3:77")));
        assert!(list(&out).contains(&UserProperty("queue", "$dlq/orders")));
    }

    #[test]
    fn a_dead_letter_says_what_became_of_it() {
        let mut out = buf(&[UserProperty("left", "over")]);
        let original = mixed(&[FORGED[8], HOP[2], FORGED[0]]);
        let info =
            DeadInfo { reason: DeadReason::Rejected, detail: Some("no such customer"), ..DEAD };
        dead_properties(original.as_properties(), &info, &mut out);
        let own = [
            UserProperty("x-dead-reason", "rejected"),
            UserProperty("x-dead-attempts", "5"),
            UserProperty("x-dead-group", "billing"),
            UserProperty("x-dead-queue", "orders"),
            UserProperty("x-dead-message-id", "orders:3:77"),
            UserProperty("x-dead-at", "1790000000000"),
            UserProperty("x-dead-detail", "no such customer"),
        ];
        assert_eq!(list(&out), [&PLAIN[..], &own].concat());
    }

    #[test]
    fn a_dead_letter_comes_back_as_it_was() {
        let original = mixed(&[]);
        let (mut dead, mut alive) = (PropertiesBuf::new(), buf(&[UserProperty("left", "over")]));
        dead_properties(original.as_properties(), &DEAD, &mut dead);
        alive_properties(dead.as_properties(), &mut alive);
        assert_eq!(alive, original);
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        // The limit lies within the last ß that fits in part.
        let detail = format!("x{}", "ß".repeat(30_000));
        let mut out = PropertiesBuf::new();
        let info = DeadInfo { detail: Some(&detail), ..DEAD };
        dead_properties(Properties::default(), &info, &mut out);
        let Some(UserProperty("x-dead-detail", kept)) = out.as_properties().iter().last() else {
            panic!("{out:?}")
        };
        assert_eq!(kept.len(), DETAIL_BYTES_MAX - 1);
        assert!(detail.starts_with(kept));
    }

    #[test]
    fn the_topic_of_a_delivery_has_the_key_if_it_fits() {
        let mut out = String::from("left over");
        let mut topic = |queue, key: &str| {
            delivery_topic(queue, key, &mut out);
            out.clone()
        };
        assert_eq!(topic(ORDERS, ""), "$queue/orders");
        assert_eq!(topic(ORDERS, "eu/42"), "$queue/orders/eu/42");
        assert_eq!(topic(ORDERS, "/42"), "$queue/orders//42");
        assert_eq!(topic(ORDERS.dead(), "eu/42"), "$dlq/orders/eu/42");
        let room = TOPIC_BYTES_MAX - "$queue/orders/".len();
        assert_eq!(topic(ORDERS, &"k".repeat(room)).len(), TOPIC_BYTES_MAX);
        assert_eq!(topic(ORDERS, &"k".repeat(room + 1)), "$queue/orders");
    }
}
