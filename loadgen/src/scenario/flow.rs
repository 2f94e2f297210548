//! One publisher that sends numbered messages to numbered topics, and whoever reads them.

use std::io;

use dunlin_packets::{PacketId, Publish, QoS, ReasonCode};

use super::Context;
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
/// Bytes that wait for the publisher's socket.
const OUTPUT_MAX: usize = 64 << 10;

/// Counts acknowledgements and deliveries.
pub(super) struct Flow<'a, 'b> {
    pub(super) cx: &'a mut Context<'b>,
    pub(super) audit: Audit,
    /// The stamp's publisher is the topic's number; everybody reads as subscriber 0.
    pub(super) reads_as_one: bool,
    payload: Vec<u8>,
    acknowledged: u64,
    refused: u64,
}

struct Watch<'a> {
    audit: &'a mut Audit,
    meter: &'a mut Meter,
    reads_as_one: bool,
    acknowledged: &'a mut u64,
    refused: &'a mut u64,
}

impl Observer for Watch<'_> {
    #[inline]
    fn on_publish(&mut self, client: usize, publish: &Publish<'_>, now: u64) {
        let Some(stamp) = Stamp::read(publish.payload) else { return self.audit.foreign() };
        let reader = if self.reads_as_one { stamp.publisher as usize } else { client };
        if self.audit.receive(reader, stamp.publisher as usize, stamp.sequence) {
            self.meter.record(now.saturating_sub(stamp.due_ns));
        }
    }

    fn on_acknowledged(&mut self, _client: usize, _id: PacketId, code: ReasonCode, _now: u64) {
        *self.acknowledged += 1;
        *self.refused += u64::from(code.is_error());
    }
}

impl<'a, 'b> Flow<'a, 'b> {
    pub(super) fn new(cx: &'a mut Context<'b>, audit: Audit, reads_as_one: bool) -> Self {
        let payload = vec![b'x'; cx.params.payload.max(STAMP_LEN)];
        Self { cx, audit, reads_as_one, payload, acknowledged: 0, refused: 0 }
    }

    /// Publishes one message to each topic in turn, `count` in all, at most `window` of them
    /// unacknowledged, or undelivered at QoS 0 if somebody `is_reading`.
    pub(super) fn publish(
        &mut self,
        swarm: &mut Swarm,
        publisher: usize,
        count: usize,
        is_reading: bool,
        topic: impl Fn(usize) -> (usize, String),
        retain: bool,
    ) -> io::Result<()> {
        let qos = QoS::from_bits(self.cx.params.qos).unwrap_or_default();
        let window = self.cx.params.window as u64;
        let (received, acknowledged) = (self.audit.received(), self.acknowledged);
        let mut sent = 0u64;
        let mut watched = (0, self.cx.clock.now_ns());
        loop {
            let settled = match qos {
                QoS::AtMostOnce if is_reading => self.audit.received() - received,
                QoS::AtMostOnce => sent,
                _ => self.acknowledged - acknowledged,
            };
            let Some(client) = swarm.client(publisher) else {
                let why = swarm.last_error.take().unwrap_or_default();
                return Err(io::Error::other(format!("the publisher's connection ended: {why}")));
            };
            // At QoS 0 nothing says that it has been taken but the socket.
            if settled >= count as u64 && client.output.is_empty() {
                break;
            }
            while sent < count as u64
                && sent.saturating_sub(settled) < window
                && client.output.len() < OUTPUT_MAX
            {
                let (number, topic) = topic(sent as usize);
                let sequence = self.audit.send(number);
                let due_ns = self.cx.clock.now_ns();
                Stamp { due_ns, publisher: number as u32, sequence }.write(&mut self.payload);
                let id = PacketId::new((sent % 60_000) as u16 + 1);
                let id = id.filter(|_| qos != QoS::AtMostOnce);
                client.publish(&topic, &self.payload, qos, id, retain);
                sent += 1;
            }
            swarm.flush(publisher);
            let now = self.cx.clock.now_ns();
            if settled != watched.0 {
                watched = (settled, now);
            } else if now - watched.1 > QUIET_NS {
                return Err(io::Error::other(format!("nothing came for 5 s after {settled}")));
            }
            if self.cx.meter.elapsed(now) > PATIENCE_NS {
                return Err(io::Error::other(format!("only {settled} of {count} in 60 s")));
            }
            self.poll(swarm, now + 10 * MILLISECOND, settled)?;
        }
        Ok(())
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

    fn poll(&mut self, swarm: &mut Swarm, until: u64, count: u64) -> io::Result<()> {
        let mut watch = Watch {
            audit: &mut self.audit,
            meter: self.cx.meter,
            reads_as_one: self.reads_as_one,
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
