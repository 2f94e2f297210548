//! Publishers that send numbered messages to numbered topics, and whoever reads them.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use dunlin_packets::{PacketId, QoS, ReasonCode};

use super::Context;
use super::watch::settle;
use crate::audit::Audit;
use crate::client::Observer;
use crate::clock::{MILLISECOND, SECOND};
use crate::meter::Meter;
use crate::stamp::{STAMP_LEN, Stamp};
use crate::swarm::Swarm;

/// Silence after which what is under way counts as lost.
const QUIET_NS: u64 = 5 * SECOND;
/// The longest a phase may take, however slowly it gets on.
const PATIENCE_NS: u64 = 60 * SECOND;
/// Bytes that wait for a publisher's socket.
const OUTPUT_MAX: usize = 64 << 10;
/// Packet identifiers that a publisher uses in turn.
const PACKET_IDS: usize = 60_000;

/// Who has read a delivery. The stamp's publisher is the number of a stream: of messages that have
/// to come in order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Readers {
    /// There is one client, which stands for the readers of all streams.
    One,
    /// Every client reads every stream.
    All,
    /// So many clients, to which the streams are dealt out in turn.
    InTurn(usize),
}

impl Readers {
    /// The reader by the audit's count; one that is none if it is not for this client.
    fn of(self, client: usize, stream: usize) -> usize {
        match self {
            Self::One => stream,
            Self::All => client,
            Self::InTurn(clients) if stream % clients == client => stream,
            Self::InTurn(_) => usize::MAX,
        }
    }
}

/// What is to be published.
pub(super) struct Plan<T> {
    /// The publishers' numbers among the clients.
    pub(super) publishers: Range<usize>,
    /// Messages in all; each publisher sends as many as the others.
    pub(super) count: usize,
    /// Messages of one publisher that are unacknowledged, at most; at QoS 0 messages in all that
    /// are undelivered, if somebody reads.
    pub(super) window: usize,
    pub(super) is_reading: bool,
    pub(super) retain: bool,
    /// Deliveries that each message makes, where those are what is counted.
    pub(super) weight: u64,
    /// Of a publisher's number and its message's: writes the topic, and returns the stream.
    pub(super) topic: T,
}

impl<T> Plan<T> {
    fn share(&self, publisher: usize) -> usize {
        let publishers = self.publishers.len();
        self.count / publishers + usize::from(publisher < self.count % publishers)
    }
}

#[derive(Clone, Debug, Default)]
struct Sender {
    sent: usize,
    /// What is unacknowledged, and since when.
    waiting: VecDeque<(PacketId, u64)>,
}

/// Counts acknowledgements and deliveries. Each has its latency entered; no phase has both.
pub(super) struct Flow<'a, 'b> {
    pub(super) cx: &'a mut Context<'b>,
    pub(super) audit: Audit,
    readers: Readers,
    qos: QoS,
    payload: Vec<u8>,
    topic: String,
    first_sender: usize,
    senders: Vec<Sender>,
    acknowledged: u64,
    refused: u64,
}

struct Watch<'a> {
    audit: &'a mut Audit,
    meter: &'a mut Meter,
    readers: Readers,
    first_sender: usize,
    senders: &'a mut [Sender],
    acknowledged: &'a mut u64,
    refused: &'a mut u64,
}

impl Observer for Watch<'_> {
    #[inline]
    fn on_publish(&mut self, client: usize, payload: &[u8], now: u64) {
        let Some(stamp) = Stamp::read(payload) else { return self.audit.foreign() };
        let stream = stamp.publisher as usize;
        if self.audit.receive(self.readers.of(client, stream), stream, stamp.sequence) {
            self.meter.record(now.saturating_sub(stamp.due_ns));
        }
    }

    fn on_acknowledged(&mut self, client: usize, id: PacketId, code: ReasonCode, now: u64) {
        let number = client.checked_sub(self.first_sender);
        let Some(sender) = number.and_then(|number| self.senders.get_mut(number)) else { return };
        let Some(since) = settle(&mut sender.waiting, id) else { return };
        self.meter.record(now.saturating_sub(since));
        *self.acknowledged += 1;
        *self.refused += u64::from(code.is_error());
    }
}

impl<'a, 'b> Flow<'a, 'b> {
    pub(super) fn new(cx: &'a mut Context<'b>, audit: Audit, readers: Readers) -> Self {
        let payload = vec![b'x'; cx.params.payload.max(STAMP_LEN)];
        let qos = QoS::from_bits(cx.params.qos).unwrap_or_default();
        Self {
            cx,
            audit,
            readers,
            qos,
            payload,
            topic: String::new(),
            first_sender: 0,
            senders: Vec::new(),
            acknowledged: 0,
            refused: 0,
        }
    }

    /// Publishes what is planned, and waits until it is acknowledged.
    pub(super) fn publish<T>(&mut self, swarm: &mut Swarm, plan: &Plan<T>) -> io::Result<()>
    where
        T: Fn(usize, usize, &mut String) -> usize,
    {
        let (received, acknowledged) = (self.audit.received(), self.acknowledged);
        self.first_sender = plan.publishers.start;
        self.senders = vec![Sender::default(); plan.publishers.len()];
        let (mut sent, count) = (0u64, plan.count as u64);
        let mut watched = (0, self.cx.clock.now_ns());
        loop {
            let settled = match self.qos {
                QoS::AtMostOnce if plan.is_reading => self.audit.received() - received,
                QoS::AtMostOnce => sent,
                _ => self.acknowledged - acknowledged,
            };
            let mut is_written = true;
            for number in 0..plan.publishers.len() {
                let under_way = sent.saturating_sub(settled) as usize;
                let (more, is_flushed) =
                    self.send(swarm, plan, number, plan.window.saturating_sub(under_way))?;
                sent += more;
                is_written &= is_flushed;
            }
            // At QoS 0 nothing says that it has been taken but the socket.
            if settled >= count && is_written {
                return Ok(());
            }
            let now = self.cx.clock.now_ns();
            if settled != watched.0 {
                watched = (settled, now);
            } else if now - watched.1 > QUIET_NS {
                return Err(io::Error::other(format!("nothing came for 5 s after {settled}")));
            }
            if self.cx.meter.elapsed(now) > PATIENCE_NS {
                return Err(io::Error::other(format!("only {settled} of {count} in 60 s")));
            }
            self.poll(swarm, now + 10 * MILLISECOND, settled * plan.weight)?;
        }
    }

    /// Has a publisher send what it may: `room` messages at QoS 0, else what its window and the
    /// broker's Receive Maximum allow. Returns how many, and whether its socket has taken all.
    fn send<T>(
        &mut self,
        swarm: &mut Swarm,
        plan: &Plan<T>,
        number: usize,
        room: usize,
    ) -> io::Result<(u64, bool)>
    where
        T: Fn(usize, usize, &mut String) -> usize,
    {
        let place = plan.publishers.start + number;
        let Some(client) = swarm.client(place) else {
            let why = swarm.last_error.take().unwrap_or_default();
            return Err(io::Error::other(format!("a publisher's connection ended: {why}")));
        };
        let sender = &mut self.senders[number];
        let in_flight_max = plan.window.min(usize::from(client.receive_maximum)).min(PACKET_IDS);
        let room = match self.qos {
            QoS::AtMostOnce => room,
            _ => in_flight_max.saturating_sub(sender.waiting.len()),
        };
        let mut more = 0;
        while more < room && sender.sent < plan.share(number) && client.output.len() < OUTPUT_MAX {
            self.topic.clear();
            let stream = (plan.topic)(number, sender.sent, &mut self.topic);
            let sequence = self.audit.send(stream);
            let due_ns = self.cx.clock.now_ns();
            Stamp { due_ns, publisher: stream as u32, sequence }.write(&mut self.payload);
            let id = PacketId::new((sender.sent % PACKET_IDS) as u16 + 1);
            let id = id.filter(|_| self.qos != QoS::AtMostOnce);
            client.publish(&self.topic, &self.payload, self.qos, id, plan.retain);
            sender.waiting.extend(id.map(|id| (id, due_ns)));
            sender.sent += 1;
            more += 1;
        }
        if client.output.is_empty() {
            return Ok((more as u64, true));
        }
        swarm.flush(place);
        let is_flushed = swarm.client(place).is_some_and(|client| client.output.is_empty());
        Ok((more as u64, is_flushed))
    }

    /// Reads until everything is there, or nothing comes any more.
    pub(super) fn receive(&mut self, swarm: &mut Swarm) -> io::Result<()> {
        let mut watched = (self.audit.received(), self.cx.clock.now_ns());
        while !self.audit.is_complete() {
            let now = self.cx.clock.now_ns();
            let received = self.audit.received();
            if received != watched.0 {
                watched = (received, now);
            } else if now - watched.1 > QUIET_NS || self.cx.meter.elapsed(now) > PATIENCE_NS {
                return Ok(());
            }
            self.poll(swarm, now + 10 * MILLISECOND, received)?;
        }
        Ok(())
    }

    /// Works off what has come, or comes until then. `count` is how far the phase is.
    pub(super) fn poll(&mut self, swarm: &mut Swarm, until: u64, count: u64) -> io::Result<()> {
        let mut watch = Watch {
            audit: &mut self.audit,
            meter: self.cx.meter,
            readers: self.readers,
            first_sender: self.first_sender,
            senders: &mut self.senders,
            acknowledged: &mut self.acknowledged,
            refused: &mut self.refused,
        };
        swarm.poll(until, &mut watch)?;
        self.cx.meter.tick(self.cx.clock.now_ns(), count);
        Ok(())
    }

    /// Publications that the broker refused, as a note.
    pub(super) fn notes(&self) -> Vec<String> {
        match self.refused {
            0 => Vec::new(),
            refused => vec![format!("{refused} publications were refused")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_share_the_messages_and_nothing_is_left() {
        let topic = |_: usize, _: usize, _: &mut String| 0;
        let plan = Plan {
            publishers: 5..8,
            count: 10,
            window: 1,
            is_reading: false,
            retain: false,
            weight: 1,
            topic,
        };
        assert_eq!([0, 1, 2].map(|publisher| plan.share(publisher)), [4, 3, 3]);
    }

    #[test]
    fn streams_are_dealt_out_to_their_readers_and_are_foreign_to_others() {
        assert_eq!(Readers::InTurn(2).of(1, 3), 3);
        assert_eq!(Readers::InTurn(2).of(0, 3), usize::MAX);
        assert_eq!(Readers::All.of(1, 3), 1);
        assert_eq!(Readers::One.of(0, 3), 3);
    }
}
