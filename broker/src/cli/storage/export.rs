//! `dunlin storage export`: everything that is kept, as lines of JSON.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dunlin_packets::SubscriptionOptions;
use dunlin_queue::{Message, Time};

use super::directory::{DataDirectory, Kept};
use super::line::{
    ConsumerLine, DeliveryLine, FORMAT, Header, InFlightLine, Line, MessageLine, RetainedLine,
    SessionLine, SubscriptionLine, VERSION, WillLine,
};
use super::message::{self, ReadMessage};
use super::property::{PropertyLine, describe};
use super::{Outcome, export_queues};
use crate::store::{
    StoredConsumer, StoredQueue, StoredRef, StoredRetained, StoredSession, StoredWill,
};

/// To `file`, under another name until it is complete; or else to standard output.
pub(super) fn run(directory: &DataDirectory<'_>, file: Option<&Path>) -> Outcome<()> {
    let kept = directory.read(true)?;
    let Some(file) = file else {
        let mut out = BufWriter::new(io::stdout().lock());
        write(&kept, &mut out)?;
        return Ok(out.flush()?);
    };
    let unfinished = unfinished_name(file);
    let failed =
        |error: Box<dyn std::error::Error>| format!("{}: {error}", unfinished.display()).into();
    let written = write_file(&kept, &unfinished)
        .and_then(|()| Ok(std::fs::rename(&unfinished, file)?))
        .and_then(|()| sync_directory_of(file));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        failed(error)
    })
}

/// Beside the file, so that it can be renamed.
fn unfinished_name(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

fn write_file(kept: &Kept, path: &Path) -> Outcome<()> {
    // Messages are nobody else's business.
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).to_owned();
    let mut out = BufWriter::new(options.open(path)?);
    write(kept, &mut out)?;
    out.flush()?;
    Ok(out.get_ref().sync_all()?)
}

fn sync_directory_of(file: &Path) -> Outcome<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?)
}

fn write(kept: &Kept, out: &mut impl Write) -> Outcome<()> {
    let image = &kept.image;
    put(&Line::Header(header(kept)), out)?;
    for session in &image.sessions {
        put(&Line::Session(session_line(session)?), out)?;
    }
    message::for_each(kept, |message| put(&Line::Message(message_line(message)?), out))?;
    let mut retained: Vec<&StoredRetained> = image.retained.iter().collect();
    retained.sort_unstable_by_key(|retained| retained.topic());
    for retained in retained {
        put(&Line::Retained(retained_line(retained)?), out)?;
    }
    export_queues::write(kept, out)
}

pub(super) fn put(line: &Line, out: &mut impl Write) -> Outcome<()> {
    serde_json::to_writer(&mut *out, line)?;
    Ok(out.write_all(b"\n")?)
}

fn header(kept: &Kept) -> Header {
    let image = &kept.image;
    Header {
        format: FORMAT.into(),
        version: VERSION,
        sessions: image.sessions.len() as u64,
        messages: image.messages.len() as u64,
        retained: image.retained.len() as u64,
        queues: image.queues.len() as u64,
        queue_messages: image.queues.iter().map(StoredQueue::messages_left).sum(),
        hash_keys: image.keys.map(|keys| keys.map(|key| format!("{key:016x}"))),
    }
}

pub(super) fn millis(time: Time) -> Option<u64> {
    (time != Time::NEVER).then(|| time.as_millis())
}

fn session_line(session: &StoredSession) -> Outcome<SessionLine> {
    let in_flight = session.in_flight.iter().map(|(packet_id, delivery)| InFlightLine {
        packet_id: packet_id.get(),
        delivery: delivery.as_ref().map(delivery_line),
    });
    let subscriptions = session.subscriptions.iter().map(|(filter, subscription)| {
        subscription_line(filter, subscription.options, subscription.identifier)
    });
    Ok(SessionLine {
        number: session.sid,
        client_id: session.client_id.to_string(),
        expiry_s: session.expiry_s,
        online: session.was_online,
        expires_at_ms: millis(session.expires_at),
        will_at_ms: millis(session.will_at),
        will: session.will.as_ref().map(|will| will_line(will)).transpose()?,
        subscriptions: subscriptions.collect(),
        received: session.received.iter().map(|packet_id| packet_id.get()).collect(),
        in_flight: in_flight.collect(),
        queue: session.queue.iter().map(delivery_line).collect(),
        consumers: session.consumers.iter().map(consumer_line).collect(),
    })
}

fn subscription_line(
    filter: &str,
    options: SubscriptionOptions,
    identifier: u32,
) -> SubscriptionLine {
    SubscriptionLine {
        filter: filter.into(),
        qos: options.qos as u8,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: options.retain_handling as u8,
        identifier: (identifier != 0).then_some(identifier),
    }
}

fn consumer_line(consumer: &StoredConsumer) -> ConsumerLine {
    let StoredConsumer { filter, group, options, identifier, flags, prefetch } = consumer;
    ConsumerLine {
        group: group.to_string(),
        subscription: subscription_line(filter, *options, *identifier),
        flags: *flags,
        prefetch: *prefetch,
    }
}

fn delivery_line(delivery: &StoredRef) -> DeliveryLine {
    DeliveryLine {
        message: delivery.id,
        qos: delivery.qos as u8,
        retain: delivery.retain,
        identifiers: delivery.identifiers.to_vec(),
    }
}

fn will_line(will: &StoredWill) -> Outcome<WillLine> {
    Ok(WillLine {
        topic: will.topic.to_string(),
        qos: will.qos as u8,
        retain: will.retain,
        delay_s: will.delay_s,
        properties: Some(described(&will.properties)?),
        properties_base64: BASE64_STANDARD.encode(&will.properties),
        payload_base64: BASE64_STANDARD.encode(&will.payload),
    })
}

fn message_line(message: &ReadMessage) -> Outcome<MessageLine> {
    let ReadMessage { id, at, content } = message;
    let (topic, properties, payload) = parts(content, at.topic_len, at.properties_len)
        .ok_or_else(|| format!("message {id} is none"))?;
    Ok(MessageLine {
        number: *id,
        topic: topic.into(),
        qos: at.qos as u8,
        retain: at.retain,
        received_at_ms: Message::time_of_receipt(at.received).as_millis(),
        expires_at_ms: millis(at.expires_at),
        properties: Some(described(properties)?),
        properties_base64: BASE64_STANDARD.encode(properties),
        payload_base64: BASE64_STANDARD.encode(payload),
    })
}

fn retained_line(retained: &StoredRetained) -> Outcome<RetainedLine> {
    let lens = (retained.topic_len, retained.properties_len);
    let (topic, properties, payload) = parts(&retained.content, lens.0, lens.1)
        .ok_or_else(|| format!("message {} is none", retained.id))?;
    Ok(RetainedLine {
        number: retained.id,
        topic: topic.into(),
        qos: retained.qos as u8,
        publisher: format!("{:016x}", retained.publisher),
        expires_at_ms: millis(retained.expires_at),
        properties: Some(described(properties)?),
        properties_base64: BASE64_STANDARD.encode(properties),
        payload_base64: BASE64_STANDARD.encode(payload),
    })
}

pub(super) fn described(properties: &[u8]) -> Outcome<Vec<PropertyLine>> {
    Ok(describe(properties).ok_or("a message has properties that it cannot have")?)
}

/// Topic, properties and payload.
fn parts(content: &[u8], topic_len: u32, properties_len: u32) -> Option<(&str, &[u8], &[u8])> {
    let (topic, rest) = content.split_at_checked(topic_len as usize)?;
    let (properties, payload) = rest.split_at_checked(properties_len as usize)?;
    Some((std::str::from_utf8(topic).ok()?, properties, payload))
}
