//! A publisher: as much as it may, as fast as it may, resumed after every kill.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_packets::Packet;
use dunlin_queue::Time;

use super::flights::WINDOW_MAX;
use super::member::{Faults, Member};
use super::outgoing::Outgoing;
use super::publication::ROUND;
use super::receipts::Published;
use super::shared::{Phase, Progress};
use super::wire::{Broken, Greeting, Link, Output};

/// Publications that are due at once, at most.
const BURST_MAX: u64 = 48;
/// How long a connected publisher waits for the next acknowledgement.
const STALL_LIMIT_MS: u64 = 60_000;
const READ_MS: u64 = 20;

/// A publisher of the run.
#[derive(Debug)]
pub(super) struct Publisher<'a> {
    member: Member<'a>,
    outgoing: Outgoing,
    /// Publications it has in flight, at most.
    window: usize,
    /// Whether it drops its connection now and then.
    is_flaky: bool,
    /// Of the present burst, and when the next one is due.
    burst_left: u64,
    burst_at: Time,
    /// Publications of the last round to go, once it has begun.
    last_left: Option<u32>,
    /// When the broker last acknowledged something, or a connection began.
    acked_at: Time,
}

/// What a publisher leaves behind.
#[derive(Debug)]
pub(super) struct PublisherRecord {
    pub(super) published: Published,
    pub(super) acked: [u64; 2],
    pub(super) refused: u64,
    pub(super) unacknowledged: u64,
    pub(super) faults: Faults,
}

impl<'a> Publisher<'a> {
    pub(super) fn new(mut member: Member<'a>, source: u16, is_flaky: bool) -> Self {
        let window = member.random.within(16..=WINDOW_MAX as u64) as usize;
        let now = member.shared.now();
        Self {
            outgoing: Outgoing::new(member.shared.seed, source),
            member,
            window,
            is_flaky,
            burst_left: 0,
            burst_at: now,
            last_left: None,
            acked_at: now,
        }
    }

    /// Publishes until the last round is acknowledged.
    pub(super) fn run(mut self) -> PublisherRecord {
        while let Some((link, greeting)) = self.member.dial() {
            match self.serve(link, greeting) {
                Ok(true) => break,
                Ok(false) => {}
                Err(broken) => self.member.ended(broken),
            }
            if self.has_stalled() {
                break;
            }
        }
        PublisherRecord {
            acked: self.outgoing.acked,
            refused: self.outgoing.refused,
            unacknowledged: self.outgoing.in_flight() as u64,
            published: self.outgoing.published,
            faults: self.member.faults,
        }
    }

    /// One connection. `true` when there is nothing more to do.
    fn serve(&mut self, mut link: Link, greeting: Greeting) -> Result<bool, Broken> {
        let window = self.window.min(usize::from(greeting.receive_maximum));
        self.acked_at = self.member.shared.now();
        self.outgoing.resume(greeting.session_present, &mut link.output);
        loop {
            self.publish(window, &mut link.output);
            link.flush()?;
            if self.drops_connection() {
                return Ok(false);
            }
            link.read(self.wait(window))?;
            while let Some(packet) = link.input.next()? {
                self.on_packet(&packet, &mut link.output)?;
            }
            link.flush()?;
            if self.member.is_over() {
                return Ok(true);
            }
            if self.last_left == Some(0) && self.outgoing.in_flight() == 0 {
                link.leave()?;
                return Ok(true);
            }
            if self.has_stalled() {
                return Err(Broken::fault("publications are not acknowledged"));
            }
        }
    }

    /// Now and then, once the broker may have taken what was sent and before its answers are read.
    fn drops_connection(&mut self) -> bool {
        let Member { shared, random, .. } = &mut self.member;
        let drops = self.is_flaky && self.last_left.is_none() && random.one_in(100);
        if drops {
            shared.pause(random.within(0..=3));
        }
        drops
    }

    fn has_stalled(&self) -> bool {
        let silence_ms = self.member.shared.now().millis_since(self.acked_at);
        self.outgoing.in_flight() > 0 && silence_ms > STALL_LIMIT_MS
    }

    /// Sends what is due, as far as the window goes.
    fn publish(&mut self, window: usize, out: &mut Output) {
        let shared = self.member.shared;
        if self.last_left.is_none() && shared.phase() >= Phase::LastRound {
            self.last_left = Some(ROUND);
        }
        while self.outgoing.in_flight() < window && self.is_due() {
            let publication = self.outgoing.upcoming();
            let next = publication.sequence + 1;
            if publication.is_retained() {
                let topic = publication.retained_topic() as usize;
                shared.retained_sent[topic].store(next, Ordering::SeqCst);
            } else if let Some(counter) = shared.next_of(publication.source) {
                counter.store(next, Ordering::SeqCst);
            }
            Progress::count(&shared.progress.published);
            self.outgoing.publish(out);
        }
    }

    /// Whether one more publication is due, which is then counted as sent.
    fn is_due(&mut self) -> bool {
        if let Some(left) = &mut self.last_left {
            let is_due = *left > 0;
            *left = left.saturating_sub(1);
            return is_due;
        }
        let shared = self.member.shared;
        // The last round has its room above the limit.
        if self.outgoing.published.count >= shared.publications_max {
            return false;
        }
        if self.burst_left == 0 && shared.now() >= self.burst_at {
            self.burst_left = self.member.random.within(1..=BURST_MAX);
            let pause_us = self.burst_left * 1_000_000 / u64::from(shared.rate);
            let pause_us = self.member.random.within(pause_us / 2..=pause_us * 3 / 2);
            self.burst_at = shared.now().plus_millis(pause_us / 1000);
        }
        let is_due = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        is_due
    }

    fn wait(&self, window: usize) -> Duration {
        let until_burst_ms = self.burst_at.millis_since(self.member.shared.now());
        let has_room = self.outgoing.in_flight() < window && self.last_left.is_none();
        Duration::from_millis(if has_room { until_burst_ms.min(READ_MS) } else { READ_MS })
    }

    fn on_packet(&mut self, packet: &Packet<'_>, out: &mut Output) -> Result<(), Broken> {
        let Packet::Ack(ack) = packet else {
            return Err(Broken::Fault(format!("a publisher got {packet:?}")));
        };
        let shared = self.member.shared;
        self.acked_at = shared.now();
        let Some(publication) = self.outgoing.on_ack(ack, out)? else { return Ok(()) };
        Progress::count(&shared.progress.acked);
        if publication.is_retained() {
            let topic = publication.retained_topic() as usize;
            shared.retained_acked[topic].fetch_max(publication.sequence + 1, Ordering::SeqCst);
        }
        Ok(())
    }
}
