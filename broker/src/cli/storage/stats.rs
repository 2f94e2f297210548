//! `dunlin storage stats`: what is in the log, and what that takes.

use std::io::{self, Write};

use serde::Serialize;

use super::Outcome;
use super::directory::{DataDirectory, Kept};
use crate::store::{Image, StoredQueue, StoredRef, StoredSession};

/// Sessions that are listed with what they wait for.
const BACKLOGS: usize = 10;
/// About what records take beside the texts and bytes in them.
const SESSION_BYTES: u64 = 32;
const SUBSCRIPTION_BYTES: u64 = 8;
const MESSAGE_BYTES: u64 = 24;
const DELIVERY_BYTES: u64 = 4;
const QUEUE_MESSAGE_BYTES: u64 = 32;

#[derive(Debug, Default, Serialize)]
struct Stats {
    sessions: u64,
    /// By the last record of them: after a crash some are not any more.
    sessions_online: u64,
    sessions_offline: u64,
    subscriptions: u64,
    wills: u64,
    queued: u64,
    in_flight: u64,
    /// Of QoS 2, and only PUBCOMP is to come.
    released: u64,
    messages: u64,
    message_bytes: u64,
    retained: u64,
    retained_bytes: u64,
    queues: u64,
    queue_groups: u64,
    /// Those that some group has still to settle.
    queue_messages: u64,
    queue_message_bytes: u64,
    /// Sessions times queues they consume.
    consumers: u64,
    segments: u64,
    oldest_segment: Option<String>,
    bytes: u64,
    torn_bytes: u64,
    missing_parts: u64,
    live_bytes_estimate: u64,
    dead_bytes_estimate: u64,
    largest_backlogs: Vec<Backlog>,
}

#[derive(Debug, Serialize)]
struct Backlog {
    client_id: String,
    deliveries: u64,
    bytes: u64,
}

pub(super) fn run(directory: &DataDirectory<'_>, json: bool) -> Outcome<()> {
    let stats = Stats::of(&directory.read(false)?);
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &stats)?;
        return Ok(writeln!(out)?);
    }
    stats.write(&mut out)
}

impl Stats {
    fn of(kept: &Kept) -> Self {
        let Kept { snapshot, report, image } = kept;
        let mut stats = Self {
            messages: image.messages.len() as u64,
            message_bytes: image.messages.values().map(|at| u64::from(at.content_len)).sum(),
            retained: image.retained.len() as u64,
            retained_bytes: image.retained.iter().map(|one| one.content.len() as u64).sum(),
            segments: report.segments.len() as u64,
            oldest_segment: report
                .segments
                .first()
                .map(|oldest| format!("{:016x}.log", oldest.segment.base)),
            bytes: snapshot.bytes(),
            torn_bytes: report.torn_bytes,
            missing_parts: report.missing.len() as u64,
            largest_backlogs: largest_backlogs(image),
            ..Self::default()
        };
        let mut live = stats.message_bytes + stats.messages * MESSAGE_BYTES;
        live += stats.retained_bytes + stats.retained * MESSAGE_BYTES;
        for session in &image.sessions {
            live += stats.add(session);
        }
        for queue in &image.queues {
            live += stats.add_queue(queue);
        }
        stats.live_bytes_estimate = live.min(stats.bytes);
        stats.dead_bytes_estimate = stats.bytes - stats.live_bytes_estimate;
        stats
    }

    /// Counts a session, and says about how many bytes it takes.
    fn add(&mut self, session: &StoredSession) -> u64 {
        self.sessions += 1;
        *if session.was_online { &mut self.sessions_online } else { &mut self.sessions_offline } +=
            1;
        self.subscriptions += session.subscriptions.len() as u64;
        self.consumers += session.consumers.len() as u64;
        self.wills += u64::from(session.will.is_some());
        self.queued += session.queue.len() as u64;
        let sent = session.in_flight.iter().filter(|(_, delivery)| delivery.is_some()).count();
        self.in_flight += sent as u64;
        self.released += (session.in_flight.len() - sent) as u64;
        let subscribed = session.subscriptions.iter().map(|(filter, _)| filter.len());
        let consumed = session.consumers.iter().map(|it| it.filter.len() + it.group.len());
        let filters = subscribed.chain(consumed).map(|len| len as u64);
        let will = session
            .will
            .as_ref()
            .map_or(0, |will| will.topic.len() + will.properties.len() + will.payload.len());
        SESSION_BYTES
            + (session.client_id.len() + will) as u64
            + filters.map(|len| len + SUBSCRIPTION_BYTES).sum::<u64>()
            // In flight, a message has a record of its own beside the delivery.
            + (session.queue.len() + 2 * session.in_flight.len()) as u64 * DELIVERY_BYTES
            + session.received.len() as u64 * DELIVERY_BYTES
    }

    /// Counts a queue, and says about how many bytes it takes.
    fn add_queue(&mut self, queue: &StoredQueue) -> u64 {
        let (mut messages, mut bytes) = (0, 0);
        for message in queue.restoring.messages(queue.mode) {
            messages += 1;
            bytes += u64::from(message.bytes);
        }
        self.queues += 1;
        self.queue_groups += queue.groups.len() as u64;
        self.queue_messages += messages;
        self.queue_message_bytes += bytes;
        let groups = queue.groups.iter().map(|group| group.name.len() + group.filter.len());
        SESSION_BYTES
            + (queue.name.len() + groups.sum::<usize>()) as u64
            + queue.groups.len() as u64 * SUBSCRIPTION_BYTES
            + bytes
            + messages * QUEUE_MESSAGE_BYTES
    }

    fn write(&self, out: &mut impl Write) -> Outcome<()> {
        let mut row =
            |name: &str, value: &dyn std::fmt::Display| writeln!(out, "{name:<16} {value}");
        let Self { sessions, sessions_online, sessions_offline, subscriptions, wills, .. } = self;
        row(
            "sessions",
            &format_args!("{sessions} ({sessions_online} online, {sessions_offline} offline)"),
        )?;
        row("subscriptions", subscriptions)?;
        row("wills", wills)?;
        row("queued", &self.queued)?;
        row("in flight", &self.in_flight)?;
        row("released", &self.released)?;
        row("messages", &format_args!("{} of {} bytes", self.messages, self.message_bytes))?;
        row("retained", &format_args!("{} of {} bytes", self.retained, self.retained_bytes))?;
        row("queues", &format_args!("{} with {} groups", self.queues, self.queue_groups))?;
        let (count, bytes) = (self.queue_messages, self.queue_message_bytes);
        row("in queues", &format_args!("{count} messages of {bytes} bytes"))?;
        row("consumers", &self.consumers)?;
        row("segments", &self.segments)?;
        row("oldest segment", &self.oldest_segment.as_deref().unwrap_or("none"))?;
        row("bytes", &self.bytes)?;
        row("of these alive", &format_args!("about {}", self.live_bytes_estimate))?;
        row("dead", &format_args!("about {}", self.dead_bytes_estimate))?;
        row("torn", &self.torn_bytes)?;
        row("missing parts", &self.missing_parts)?;
        if !self.largest_backlogs.is_empty() {
            writeln!(out, "\n{:>12} {:>14}  largest backlogs", "deliveries", "bytes")?;
        }
        for Backlog { client_id, deliveries, bytes } in &self.largest_backlogs {
            writeln!(out, "{deliveries:>12} {bytes:>14}  {}", client_id.escape_debug())?;
        }
        Ok(())
    }
}

fn largest_backlogs(image: &Image) -> Vec<Backlog> {
    let mut backlogs: Vec<(usize, &StoredSession)> = image
        .sessions
        .iter()
        .map(|session| (deliveries_of(session).count(), session))
        .filter(|(deliveries, _)| *deliveries > 0)
        .collect();
    backlogs.sort_unstable_by(|(one, first), (other, second)| {
        other.cmp(one).then_with(|| first.client_id.cmp(&second.client_id))
    });
    backlogs.truncate(BACKLOGS);
    let bytes_of = |delivery: &StoredRef| {
        image.messages.get(&delivery.id).map_or(0, |at| u64::from(at.content_len))
    };
    let backlog = |(deliveries, session): (usize, &StoredSession)| Backlog {
        client_id: session.client_id.to_string(),
        deliveries: deliveries as u64,
        bytes: deliveries_of(session).map(bytes_of).sum(),
    };
    backlogs.into_iter().map(backlog).collect()
}

/// What a session has still to get or to acknowledge.
fn deliveries_of(session: &StoredSession) -> impl Iterator<Item = &StoredRef> {
    let in_flight = session.in_flight.iter().filter_map(|(_, delivery)| delivery.as_ref());
    in_flight.chain(&session.queue)
}
