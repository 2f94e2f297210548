//! Lines of an export to what the log has, each checked. A log made from them has nothing in it
//! that a broker could not have written, so that none has to expect it.

use std::collections::BTreeSet;
use std::hash::Hash;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dunlin_packets::{
    Connect, Frame, Packet, PacketId, Properties, Publish, QoS, SubscriptionOptions, VARINT_MAX,
    Version, Will, is_valid_filter, is_valid_topic,
};
use dunlin_queue::{Message, Time};
use dunlin_router::Subscription;

use super::line::{
    ConsumerLine, DeliveryLine, InFlightLine, MessageLine, RetainedLine, SessionLine,
    SubscriptionLine, WillLine,
};
use super::property::{PropertyLine, describe};
use crate::store::{StoredConsumer, StoredRef, StoredRetained, StoredSession, StoredWill};

/// Numbers of sessions, queues and messages, so that the next can be counted and JSON has them
/// exactly.
pub(super) const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Bytes of a string in a packet.
pub(super) const STRING_BYTES_MAX: usize = 65_535;

/// What is wrong with a line, in words for the user.
pub(super) type Checked<T> = Result<T, String>;

/// A message that sessions wait for.
pub(super) struct CheckedMessage {
    pub(super) id: u64,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) expires_at: Time,
    pub(super) received: u32,
    pub(super) content: Content,
}

/// The bytes of a message.
pub(super) struct Content {
    pub(super) topic_len: u32,
    pub(super) properties_len: u32,
    /// Topic, properties and payload.
    pub(super) bytes: Vec<u8>,
}

pub(super) fn hash_keys(keys: &[String; 4]) -> Checked<[u64; 4]> {
    let mut numbers = [0; 4];
    for (number, key) in numbers.iter_mut().zip(keys) {
        *number = hexadecimal(key).map_err(|error| format!("hash_keys: {error}"))?;
    }
    Ok(numbers)
}

pub(super) fn session(line: &SessionLine) -> Checked<StoredSession> {
    let will =
        line.will.as_ref().map(will).transpose().map_err(|error| format!("will: {error}"))?;
    check_connect(&line.client_id, will.as_ref())?;
    let subscriptions: Vec<_> =
        line.subscriptions.iter().map(subscription).collect::<Checked<_>>()?;
    all_differ(subscriptions.iter().map(|(filter, _)| filter), "a filter")?;
    let received: Vec<PacketId> =
        line.received.iter().map(|&number| packet_id(number)).collect::<Checked<_>>()?;
    all_differ(&received, "a packet identifier of received")?;
    let in_flight: Vec<_> = line.in_flight.iter().map(in_flight).collect::<Checked<_>>()?;
    all_differ(in_flight.iter().map(|(packet_id, _)| packet_id), "a packet identifier in flight")?;
    let queue: Vec<StoredRef> = line.queue.iter().map(delivery).collect::<Checked<_>>()?;
    if !queue.is_sorted_by(|one, next| one.id < next.id) {
        return Err("the messages of the queue are not in the order of their numbers".into());
    }
    let sent = in_flight.iter().filter_map(|(_, delivery)| delivery.as_ref());
    all_differ(sent.chain(&queue).map(|delivery| delivery.id), "a message of the session")?;
    let consumers: Vec<_> = line.consumers.iter().map(consumer).collect::<Checked<_>>()?;
    all_differ(consumers.iter().map(|consumer| &consumer.filter), "a filter of consumers")?;
    let mut session = StoredSession {
        sid: number(line.number)?,
        client_id: line.client_id.as_str().into(),
        expiry_s: line.expiry_s,
        was_online: line.online,
        expires_at: time(line.expires_at_ms),
        will_at: time(line.will_at_ms),
        will: will.map(Box::new),
        subscriptions,
        received,
        in_flight,
        queue,
        consumers,
    };
    // In the order in which they are read again.
    session.subscriptions.sort_unstable_by(|(one, _), (next, _)| one.cmp(next));
    session.received.sort_unstable();
    session.consumers.sort_unstable_by(|one, next| one.filter.cmp(&next.filter));
    Ok(session)
}

pub(super) fn message(line: &MessageLine) -> Checked<CheckedMessage> {
    Ok(CheckedMessage {
        id: number(line.number)?,
        qos: qos(line.qos)?,
        retain: line.retain,
        expires_at: time(line.expires_at_ms),
        received: Message::received_at(Time::from_millis(line.received_at_ms)),
        content: content(
            &line.topic,
            &line.properties_base64,
            line.properties.as_deref(),
            &line.payload_base64,
        )?,
    })
}

pub(super) fn retained(line: &RetainedLine) -> Checked<StoredRetained> {
    let content = content(
        &line.topic,
        &line.properties_base64,
        line.properties.as_deref(),
        &line.payload_base64,
    )?;
    Ok(StoredRetained {
        id: number(line.number)?,
        publisher: hexadecimal(&line.publisher).map_err(|error| format!("publisher: {error}"))?,
        expires_at: time(line.expires_at_ms),
        qos: qos(line.qos)?,
        topic_len: content.topic_len,
        properties_len: content.properties_len,
        content: content.bytes.into(),
    })
}

pub(super) fn number(number: u64) -> Checked<u64> {
    if (1..=NUMBER_MAX).contains(&number) {
        return Ok(number);
    }
    Err(format!("the number {number} is not between 1 and {NUMBER_MAX}"))
}

fn packet_id(number: u16) -> Checked<PacketId> {
    PacketId::new(number).ok_or_else(|| "a packet identifier is 0".into())
}

fn qos(bits: u8) -> Checked<QoS> {
    QoS::from_bits(bits).ok_or_else(|| format!("the QoS is {bits}"))
}

pub(super) fn time(millis: Option<u64>) -> Time {
    millis.map_or(Time::NEVER, Time::from_millis)
}

pub(super) fn hexadecimal(text: &str) -> Checked<u64> {
    let is_hexadecimal = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_hexadecimal.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    number.ok_or_else(|| format!("\"{text}\" is not 16 hexadecimal digits"))
}

fn base64(text: &str, name: &str) -> Checked<Vec<u8>> {
    BASE64_STANDARD.decode(text).map_err(|error| format!("{name}: {error}"))
}

pub(super) fn all_differ<T: Hash + Ord>(
    things: impl IntoIterator<Item = T>,
    name: &str,
) -> Checked<()> {
    let mut seen = BTreeSet::new();
    if things.into_iter().all(|thing| seen.insert(thing)) {
        return Ok(());
    }
    Err(format!("{name} is there twice"))
}

fn in_flight(line: &InFlightLine) -> Checked<(PacketId, Option<StoredRef>)> {
    Ok((packet_id(line.packet_id)?, line.delivery.as_ref().map(delivery).transpose()?))
}

fn delivery(line: &DeliveryLine) -> Checked<StoredRef> {
    let qos = qos(line.qos)?;
    if qos == QoS::AtMostOnce {
        return Err("a delivery at QoS 0 is kept".into());
    }
    line.identifiers.iter().try_for_each(|&identifier| subscription_identifier(identifier))?;
    let (retain, identifiers) = (line.retain, line.identifiers.as_slice().into());
    Ok(StoredRef { id: number(line.message)?, qos, retain, identifiers })
}

fn subscription_identifier(identifier: u32) -> Checked<()> {
    if (1..=VARINT_MAX).contains(&identifier) {
        return Ok(());
    }
    Err(format!("the subscription identifier {identifier} is not between 1 and {VARINT_MAX}"))
}

fn subscription(line: &SubscriptionLine) -> Checked<(Box<str>, Subscription)> {
    let SubscriptionLine { filter, qos, no_local, retain_as_published, retain_handling, .. } = line;
    if filter.len() > STRING_BYTES_MAX || !is_valid_filter(filter) {
        return Err(format!("\"{}\" is not a topic filter", shown(filter)));
    }
    let bits = [*qos, u8::from(*no_local) << 2, u8::from(*retain_as_published) << 3];
    let is_in_range = *qos <= 2 && *retain_handling <= 2;
    let options = SubscriptionOptions::from_bits(
        bits.iter().fold(retain_handling.checked_shl(4).unwrap_or(0), |all, bit| all | bit),
    );
    let options = options
        .filter(|_| is_in_range)
        .ok_or_else(|| format!("\"{}\": qos or retain_handling is above 2", shown(filter)))?;
    line.identifier.map_or(Ok(()), subscription_identifier)?;
    let identifier = line.identifier.unwrap_or(0);
    Ok((filter.as_str().into(), Subscription { options, identifier }))
}

fn consumer(line: &ConsumerLine) -> Checked<StoredConsumer> {
    let (filter, Subscription { options, identifier }) = subscription(&line.subscription)?;
    let ConsumerLine { group, flags, prefetch, .. } = line;
    check_text(group, "the name of a group")?;
    let (group, flags, prefetch) = (group.as_str().into(), *flags, *prefetch);
    Ok(StoredConsumer { filter, group, options, identifier, flags, prefetch })
}

/// A text that was in a packet, and is not empty.
pub(super) fn check_text(text: &str, name: &str) -> Checked<()> {
    if text.is_empty() || text.len() > STRING_BYTES_MAX || text.contains('\0') {
        return Err(format!("{name} is empty, longer than 65535 bytes, or has U+0000 in it"));
    }
    Ok(())
}

/// A text for an error: it may be long.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

fn will(line: &WillLine) -> Checked<StoredWill> {
    check_topic(&line.topic)?;
    let properties = base64(&line.properties_base64, "properties_base64")?;
    check_described(&properties, line.properties.as_deref())?;
    Ok(StoredWill {
        topic: line.topic.as_str().into(),
        properties: properties.into(),
        payload: base64(&line.payload_base64, "payload_base64")?.into(),
        qos: qos(line.qos)?,
        retain: line.retain,
        delay_s: line.delay_s,
    })
}

pub(super) fn check_topic(topic: &str) -> Checked<()> {
    if topic.len() > STRING_BYTES_MAX || !is_valid_topic(topic) {
        return Err(format!("\"{}\" is not a topic name", shown(topic)));
    }
    Ok(())
}

/// What people read has to be what is taken: one who edits it has meant something.
fn check_described(
    properties: &[u8],
    description: Option<&[PropertyLine]>,
) -> Checked<Vec<PropertyLine>> {
    let found = describe(properties)
        .ok_or("properties_base64: there are properties that such a message cannot have")?;
    if description.is_some_and(|description| description != found) {
        return Err("properties: they are not what properties_base64 is".into());
    }
    Ok(found)
}

/// Checks what a client says at its CONNECT as such a packet: there are rules enough for one.
fn check_connect(client_id: &str, will: Option<&StoredWill>) -> Checked<()> {
    if client_id.is_empty() || client_id.len() > STRING_BYTES_MAX {
        return Err("the client identifier is empty or longer than 65535 bytes".into());
    }
    if will.is_some_and(|will| will.payload.len() > STRING_BYTES_MAX) {
        return Err("will: the payload is longer than 65535 bytes".into());
    }
    let will = will.map(|will| Will {
        qos: will.qos,
        retain: will.retain,
        topic: &will.topic,
        payload: &will.payload,
        properties: Properties::from_checked(&will.properties),
    });
    let mut packet = Vec::new();
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive_s: 0,
        client_id,
        properties: Properties::default(),
        will,
        user_name: None,
        password: None,
    }
    .encode(&mut packet);
    check_packet(&packet).map_err(|error| format!("client_id or will: {error}"))
}

pub(super) fn content(
    topic: &str,
    properties_base64: &str,
    description: Option<&[PropertyLine]>,
    payload_base64: &str,
) -> Checked<Content> {
    check_topic(topic)?;
    let properties = base64(properties_base64, "properties_base64")?;
    let payload = base64(payload_base64, "payload_base64")?;
    let mut bytes = Vec::with_capacity(topic.len() + properties.len() + payload.len());
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&properties);
    bytes.extend_from_slice(&payload);
    // With room for what a PUBLISH has beside.
    if bytes.len() + 16 > VARINT_MAX as usize {
        return Err(format!("a message of {} bytes does not fit into a packet", bytes.len()));
    }
    let mut packet = Vec::new();
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: Properties::from_checked(&properties),
        // Any bytes are one.
        payload: b"",
    }
    .encode(Version::V5, &mut packet);
    check_packet(&packet).map_err(|error| format!("topic or properties_base64: {error}"))?;
    let found = check_described(&properties, description)?;
    if found.iter().any(|property| matches!(property, PropertyLine::MessageExpiryInterval(_))) {
        return Err("properties_base64: an expiry belongs into expires_at_ms".into());
    }
    let (topic_len, properties_len) = (topic.len() as u32, properties.len() as u32);
    Ok(Content { topic_len, properties_len, bytes })
}

fn check_packet(packet: &[u8]) -> Checked<()> {
    let decoded = Frame::split(packet, VARINT_MAX as usize + 5, Version::V5)
        .map_err(|error| error.to_string())?
        .ok_or("it does not fit into a packet")?;
    Packet::decode(&decoded.0, Version::V5).map_err(|error| error.to_string())?;
    Ok(())
}
