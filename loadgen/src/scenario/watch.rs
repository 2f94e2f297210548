//! What comes back from a load, followed.

use std::ops::Range;

use dunlin_packets::{PacketId, Publish, ReasonCode};
use hdrhistogram::Histogram;

use crate::audit::Audit;
use crate::client::Observer;
use crate::meter::Meter;
use crate::stamp::Stamp;

/// One that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) topic: String,
    pub(super) unacknowledged: u32,
    /// Messages it has been given by the schedule.
    pub(super) scheduled: u64,
    pub(super) is_ready: bool,
}

/// Follows what comes back.
pub(super) struct Watch<'a> {
    pub(super) audit: &'a mut Audit,
    pub(super) meter: &'a mut Meter,
    pub(super) publishers: &'a mut [Publisher],
    /// Clients below are subscribers, then publishers come.
    pub(super) subscribers: usize,
    /// Latencies count of messages that were due in this time, whenever they come.
    pub(super) measured: Range<u64>,
    pub(super) refused: &'a mut u64,
    /// Times that connections took which came later.
    pub(super) arrivals: &'a mut Histogram<u64>,
}

impl Observer for Watch<'_> {
    #[inline]
    fn on_publish(&mut self, client: usize, publish: &Publish<'_>, now: u64) {
        let Some(stamp) = Stamp::read(publish.payload) else { return self.audit.foreign() };
        let is_new = self.audit.receive(client, stamp.publisher as usize, stamp.sequence);
        if is_new && self.measured.contains(&stamp.due_ns) {
            self.meter.record(now.saturating_sub(stamp.due_ns));
        }
    }

    #[inline]
    fn on_acknowledged(&mut self, client: usize, _: PacketId, code: ReasonCode, _now: u64) {
        let number = client.checked_sub(self.subscribers);
        if let Some(publisher) = number.and_then(|number| self.publishers.get_mut(number)) {
            publisher.unacknowledged = publisher.unacknowledged.saturating_sub(1);
            *self.refused += u64::from(code.is_error());
        }
    }

    fn on_online(&mut self, client: usize, since_ns: u64, now: u64) {
        if client >= self.subscribers + self.publishers.len() {
            self.arrivals.saturating_record(now.saturating_sub(since_ns));
        }
    }
}
