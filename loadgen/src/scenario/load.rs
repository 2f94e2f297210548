//! Messages from publishers to subscribers: as fast as it goes, or by a schedule.
//!
//! As fast as it goes: a publisher has at most `window` messages on their way to the slowest of its
//! subscribers, and we read in naps of a millisecond, so that a broker that can put several frames
//! into one write gets to show it and we stay cheaper than it is.
//!
//! By a schedule: each message has its time, and is stamped with that and not with the time at
//! which it could be sent, so a broker that holds us up is charged for all who wait.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Duration;

use dunlin_packets::{PacketId, QoS};
use hdrhistogram::Histogram;

use super::Context;
use super::burst::Guests;
use super::steady::Acknowledged;
use super::watch::{Publisher, Watch, subscriber_id};
use crate::audit::{Audience, Audit};
use crate::client::Greeting;
use crate::clock::{MILLISECOND, SECOND, seconds};
use crate::meter::LATENCY_MAX_NS;
use crate::stamp::{STAMP_LEN, Stamp};
use crate::swarm::Swarm;

const WARM_UP_S: f64 = 1.0;
/// Silence after which what is under way counts as lost.
const QUIET_NS: u64 = 3 * SECOND;
/// The longest wait for what is under way at the end.
const DRAIN_MAX_NS: u64 = 30 * SECOND;
/// How often that may happen before the scenario ends.
const STALLS_MAX: u32 = 3;
/// More filters than this, and a subscriber takes them by one wildcard.
const FILTERS_MAX: usize = 8;
/// Bytes that wait for a socket, before its publisher waits too.
const OUTPUT_MAX: usize = 256 << 10;

/// A load that runs.
pub(super) struct Load<'a, 'b> {
    pub(super) cx: &'a mut Context<'b>,
    pub(super) swarm: Swarm,
    audit: Audit,
    publishers: Vec<Publisher>,
    qos: QoS,
    payload: Vec<u8>,
    /// Time of the schedule's first message, and how many have had their time.
    schedule_ns: u64,
    scheduled: u64,
    /// Publishers whose time has come.
    ready: VecDeque<usize>,
    refused: u64,
    stalls: u32,
    measured: Range<u64>,
    /// Deliveries before the phase began.
    before: u64,
    progress: (u64, u64),
    arrivals: Histogram<u64>,
    /// Connections still to come while the load is on.
    pub(super) guests: Option<Guests>,
    /// Times to the acknowledgement, where those are wanted.
    pub(super) acknowledged: Option<Acknowledged>,
}

/// Runs the load, and leaves one phase.
pub(super) fn run(cx: &mut Context<'_>, audience: Audience) -> io::Result<()> {
    let duration = cx.params.seconds;
    let mut load = Load::prepare(cx, audience, false)?;
    load.warm_up()?;
    load.measure("messages", duration)
}

impl<'a, 'b> Load<'a, 'b> {
    /// Connects everybody. With `keeps_sessions` those of the subscribers outlive the connection.
    pub(super) fn prepare(
        cx: &'a mut Context<'b>,
        audience: Audience,
        keeps_sessions: bool,
    ) -> io::Result<Self> {
        let params = cx.params;
        let mut swarm = cx.swarm()?;
        let qos = QoS::from_bits(params.qos).unwrap_or_default();
        let publishers: Vec<_> = (0..params.publishers)
            .map(|number| Publisher {
                topic: format!("{}/{number}", cx.prefix),
                waiting: VecDeque::new(),
                scheduled: 0,
                is_ready: false,
            })
            .collect();
        let prefix = cx.prefix.clone();
        let subscribers = (0..params.subscribers).map(|number| Greeting {
            client_id: subscriber_id(&prefix, number),
            keeps_session: keeps_sessions,
            filters: match audience {
                Audience::Partner => vec![publishers[number].topic.clone()],
                Audience::OneOf => vec![format!("$share/bench/{prefix}/+")],
                Audience::Everybody if publishers.len() <= FILTERS_MAX => {
                    publishers.iter().map(|publisher| publisher.topic.clone()).collect()
                }
                Audience::Everybody => vec![format!("{prefix}/+")],
            },
            qos,
        });
        let senders = (0..params.publishers).map(|number| Greeting {
            client_id: format!("{prefix}-p{number}"),
            ..Greeting::default()
        });
        cx.meter.start("connecting", "connection");
        let everybody = subscribers.chain(senders);
        let meter = &mut *cx.meter;
        let tick = |now, online| meter.tick(now, online as u64);
        swarm.connect_all(everybody, None, &mut crate::client::Deaf, tick)?;
        let window = if params.rate > 0.0 { 0 } else { params.window };
        let audit = Audit::new(audience, params.publishers, params.subscribers, window);
        let arrivals = Histogram::new_with_bounds(1000, LATENCY_MAX_NS, 3)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let schedule_ns = cx.clock.now_ns();
        Ok(Self {
            swarm,
            audit,
            publishers,
            qos,
            payload: vec![b'x'; params.payload.max(STAMP_LEN)],
            schedule_ns,
            scheduled: 0,
            ready: VecDeque::new(),
            refused: 0,
            stalls: 0,
            measured: 0..0,
            before: 0,
            progress: (0, schedule_ns),
            arrivals,
            guests: None,
            acknowledged: None,
            cx,
        })
    }

    /// Runs until everything is as it is going to be.
    pub(super) fn warm_up(&mut self) -> io::Result<()> {
        self.cx.meter.start("warm-up", "delivery");
        self.run_for(WARM_UP_S)
    }

    /// Measures for some time, then waits for what is under way.
    pub(super) fn measure(&mut self, name: &'static str, duration_s: f64) -> io::Result<()> {
        self.cx.meter.start(name, "delivery");
        self.before = self.audit.received();
        let start = self.cx.clock.now_ns();
        self.measured = start..start + seconds(duration_s);
        let result = self.run_for(duration_s);
        let mut phase = self.cx.meter.finish(self.audit.received() - self.before, None);
        let drained = result.and_then(|()| self.drain());
        match &drained {
            Ok(None) => {}
            Ok(Some(cut_off)) => phase.notes.push((*cut_off).into()),
            Err(_) => phase.notes.push(
                "what was under way at the end was not waited for, and counts as lost".into(),
            ),
        }
        // What came late came late: its latency counts as well.
        phase.latency = self.cx.meter.latency();
        phase.account = Some(self.audit.account());
        let unsent = self.unsent();
        if unsent > 0 {
            phase.notes.push(format!("{unsent} messages were due and could not be sent"));
        }
        if self.refused > 0 {
            phase.notes.push(format!("{} publications were refused", self.refused));
        }
        if self.stalls > 0 {
            phase.notes.push(format!("{} times nothing came for 3 s", self.stalls));
        }
        let seconds = phase.seconds;
        self.cx.phases.push(phase);
        let arrivals = self.guests.as_ref().map(|guests| guests.phase(&self.arrivals, seconds));
        self.cx.phases.extend(arrivals);
        self.swarm.close_all();
        drained.map(|_| ())
    }

    fn run_for(&mut self, duration_s: f64) -> io::Result<()> {
        let end = self.cx.clock.now_ns() + seconds(duration_s);
        loop {
            let now = self.cx.clock.now_ns();
            if now >= end {
                // What was due since we last looked is part of the load as well.
                if self.cx.params.rate > 0.0 {
                    self.send_scheduled(end);
                }
                return Ok(());
            }
            if let Some(guests) = &mut self.guests {
                guests.open(now, &self.cx.prefix, &mut self.swarm)?;
            }
            let until = if self.cx.params.rate > 0.0 {
                self.send_scheduled(now)
            } else {
                self.send_all();
                // Paces the reading; nothing is waited for (see the top of the file).
                std::thread::sleep(Duration::from_nanos(MILLISECOND));
                now
            };
            self.poll(until.min(end))?;
            self.look_for_stall()?;
        }
    }

    fn poll(&mut self, until: u64) -> io::Result<()> {
        let mut watch = Watch {
            audit: &mut self.audit,
            meter: self.cx.meter,
            publishers: &mut self.publishers,
            subscribers: self.cx.params.subscribers,
            measured: self.measured.clone(),
            refused: &mut self.refused,
            arrivals: &mut self.arrivals,
            acknowledged: self.acknowledged.as_mut(),
        };
        self.swarm.poll(until, &mut watch)?;
        self.cx.meter.tick(self.cx.clock.now_ns(), self.audit.received() - self.before);
        if self.swarm.broken > 0 {
            let why = self.swarm.last_error.take().unwrap_or_default();
            return Err(io::Error::other(format!("a connection ended: {why}")));
        }
        Ok(())
    }

    /// Everything the windows allow.
    fn send_all(&mut self) {
        let window = self.cx.params.window as u32;
        for number in 0..self.publishers.len() {
            let mut any = false;
            while self.audit.under_way(number) < window && self.may_send(number, window) {
                let now = self.cx.clock.now_ns();
                self.send(number, now);
                any = true;
            }
            if any {
                self.swarm.flush(self.cx.params.subscribers + number);
            }
        }
    }

    /// Everything whose time has come. Returns when the next is due.
    fn send_scheduled(&mut self, now: u64) -> u64 {
        let (rate, count) = (self.cx.params.rate, self.publishers.len() as u64);
        let start = self.schedule_ns;
        let due_at = |index: u64| start + (index as f64 * 1e9 / rate) as u64;
        while due_at(self.scheduled) <= now {
            let number = (self.scheduled % count) as usize;
            self.scheduled += 1;
            if !self.publishers[number].is_ready {
                self.publishers[number].is_ready = true;
                self.ready.push_back(number);
            }
        }
        for _ in 0..self.ready.len() {
            let Some(number) = self.ready.pop_front() else { break };
            let mut is_behind = false;
            loop {
                let index = self.publishers[number].scheduled * count + number as u64;
                if index >= self.scheduled {
                    break;
                }
                if !self.may_send(number, u32::MAX) {
                    is_behind = true;
                    break;
                }
                self.publishers[number].scheduled += 1;
                self.send(number, due_at(index));
            }
            self.swarm.flush(self.cx.params.subscribers + number);
            self.publishers[number].is_ready = is_behind;
            if is_behind {
                self.ready.push_back(number);
            }
        }
        let next = due_at(self.scheduled);
        if self.ready.is_empty() { next } else { next.min(now + MILLISECOND) }
    }

    /// Whether the broker and the socket take one more.
    fn may_send(&mut self, number: usize, window: u32) -> bool {
        let unacknowledged = self.publishers[number].waiting.len() as u32;
        let Some(client) = self.swarm.client(self.cx.params.subscribers + number) else {
            return false;
        };
        let in_flight_max = u32::from(client.receive_maximum).min(window).min(60_000);
        let is_full = self.qos != QoS::AtMostOnce && unacknowledged >= in_flight_max;
        !is_full && client.output.len() < OUTPUT_MAX
    }

    fn send(&mut self, number: usize, due_ns: u64) {
        let sequence = self.audit.send(number);
        Stamp { due_ns, publisher: number as u32, sequence }.write(&mut self.payload);
        let publisher = &mut self.publishers[number];
        let id = match self.qos {
            QoS::AtMostOnce => None,
            _ => PacketId::new(((sequence - 1) % 60_000) as u16 + 1),
        };
        publisher.waiting.extend(id.map(|id| (id, due_ns)));
        if let Some(client) = self.swarm.client(self.cx.params.subscribers + number) {
            client.publish(&publisher.topic, &self.payload, self.qos, id, false);
        }
    }

    /// A broker that has lost something in a flood would wait with us for ever.
    fn look_for_stall(&mut self) -> io::Result<()> {
        let now = self.cx.clock.now_ns();
        let received = self.audit.received();
        if received != self.progress.0 || self.cx.params.rate > 0.0 {
            self.progress = (received, now);
        } else if now - self.progress.1 > QUIET_NS {
            self.stalls += 1;
            self.audit.give_up();
            self.publishers.iter_mut().for_each(|publisher| publisher.waiting.clear());
            self.progress.1 = now;
            if self.stalls == STALLS_MAX {
                return Err(io::Error::other("the broker stalled: nothing came for 3 s, 3 times"));
            }
        }
        Ok(())
    }

    /// Messages that the schedule has given out and no publisher could send yet.
    fn unsent(&self) -> u64 {
        let sent = self.publishers.iter().map(|publisher| publisher.scheduled).sum();
        self.scheduled.saturating_sub(sent)
    }

    /// Whether acknowledgements are under way that the scenario wants the times of.
    fn is_unacknowledged(&self) -> bool {
        self.acknowledged.is_some()
            && self.publishers.iter().any(|publisher| !publisher.waiting.is_empty())
    }

    /// Sends what was due, and waits for what is under way. Says if the wait was cut off.
    fn drain(&mut self) -> io::Result<Option<&'static str>> {
        let started = self.cx.clock.now_ns();
        let (mut received, mut since) = (self.audit.received(), started);
        while !self.audit.is_complete() || self.unsent() > 0 || self.is_unacknowledged() {
            let now = self.cx.clock.now_ns();
            if now - since > QUIET_NS {
                return Ok(None);
            }
            if now - started > DRAIN_MAX_NS {
                return Ok(Some(
                    "deliveries still came 30 s after the end: the rest counts as lost",
                ));
            }
            if self.cx.params.rate > 0.0 {
                self.send_scheduled(self.measured.end.min(now));
            }
            self.poll(now + 10 * MILLISECOND)?;
            if self.audit.received() != received {
                (received, since) = (self.audit.received(), now);
            }
        }
        Ok(None)
    }
}
