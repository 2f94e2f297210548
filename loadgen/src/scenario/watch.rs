//! What comes back from a load, followed.

use std::collections::VecDeque;
use std::ops::Range;

use dunlin_packets::{PacketId, ReasonCode};
use hdrhistogram::Histogram;

use super::steady::Acknowledged;
use crate::audit::Audit;
use crate::client::Observer;
use crate::meter::Meter;
use crate::stamp::Stamp;

/// What a subscriber is called.
pub(super) fn subscriber_id(prefix: &str, number: usize) -> String {
    format!("{prefix}-s{number}")
}

/// One that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) topic: String,
    /// What is unacknowledged, and when it was due.
    pub(super) waiting: VecDeque<(PacketId, u64)>,
    /// Messages it has been given by the schedule.
    pub(super) scheduled: u64,
    pub(super) is_ready: bool,
}

/// Takes an acknowledged publication out of those that wait, and says since when it did.
/// Acknowledgements come in order [MQTT-4.6.0-2], so it is the first; a broker that does otherwise
/// only costs us time.
#[inline]
pub(super) fn settle(waiting: &mut VecDeque<(PacketId, u64)>, id: PacketId) -> Option<u64> {
    let at = waiting.iter().position(|(waits, _)| *waits == id)?;
    waiting.remove(at).map(|(_, since)| since)
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
    /// Times to the acknowledgement, where those are wanted.
    pub(super) acknowledged: Option<&'a mut Acknowledged>,
}

impl Observer for Watch<'_> {
    #[inline]
    fn on_publish(&mut self, client: usize, payload: &[u8], now: u64) {
        let Some(stamp) = Stamp::read(payload) else { return self.audit.foreign() };
        let is_new = self.audit.receive(client, stamp.publisher as usize, stamp.sequence);
        if is_new && self.measured.contains(&stamp.due_ns) {
            self.meter.record(now.saturating_sub(stamp.due_ns));
        }
    }

    #[inline]
    fn on_acknowledged(&mut self, client: usize, id: PacketId, code: ReasonCode, now: u64) {
        let number = client.checked_sub(self.subscribers);
        let Some(publisher) = number.and_then(|number| self.publishers.get_mut(number)) else {
            return;
        };
        let Some(due_ns) = settle(&mut publisher.waiting, id) else { return };
        *self.refused += u64::from(code.is_error());
        if let Some(acknowledged) = &mut self.acknowledged {
            acknowledged.record(due_ns, now);
        }
    }

    fn on_online(&mut self, client: usize, since_ns: u64, now: u64) {
        if client >= self.subscribers + self.publishers.len() {
            self.arrivals.saturating_record(now.saturating_sub(since_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_waits_no_longer_in_whatever_order_that_comes() {
        let id = |id: u16| PacketId::new(id).unwrap();
        let mut waiting: VecDeque<_> = [(id(1), 10), (id(2), 20), (id(3), 30)].into();
        assert_eq!(settle(&mut waiting, id(1)), Some(10));
        assert_eq!(settle(&mut waiting, id(3)), Some(30));
        assert_eq!(settle(&mut waiting, id(3)), None, "twice");
        assert_eq!(waiting, [(id(2), 20)]);
    }
}
