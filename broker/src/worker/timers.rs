//! What a worker has to do later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use dunlin_queue::Time;

use super::conn::ConnId;
use super::queues::QueueKey;
use super::sessions::SessionKey;

/// Something to look at when its time comes. A timer is never taken back: whoever is looked at
/// says whether anything is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// No CONNECT yet, half a packet, or a peer that does not close.
    Conn(ConnId),
    /// Keep alive, will delay or expiry.
    Session(SessionKey),
    /// A slow consumer has held its publishers back long enough.
    Pressure(SessionKey),
    /// Retained messages that have expired.
    RetainedSweep,
    /// `$SYS` is to be published.
    Sys,
    /// And what it says of queues.
    QueueSys,
    /// A queue has something to do.
    Queue(QueueKey),
    /// Queues and groups that nobody uses.
    QueueLook,
    /// The shutdown has taken long enough.
    Shutdown,
}

/// Deadlines are rounded up to this, so that close ones share a wake-up.
const GRAIN_MS: u64 = 16;

/// Timers in the order of their time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Timer)>>,
}

impl Timers {
    /// Sets a timer, and says for when: never earlier than `at`.
    pub(super) fn add(&mut self, at: Time, timer: Timer) -> Time {
        if at == Time::NEVER {
            return at;
        }
        let rounded = Self::round(at);
        self.heap.push(Reverse((rounded, timer)));
        rounded
    }

    /// When a timer for `at` fires.
    pub(super) fn round(at: Time) -> Time {
        match at {
            Time::NEVER => at,
            at => Time::from_millis(at.as_millis().div_ceil(GRAIN_MS) * GRAIN_MS),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Forgets timers that nobody waits for any more.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Time, Timer) -> bool) {
        self.heap.retain(|Reverse((at, timer))| keep(*at, *timer));
        self.heap.shrink_to(2 * self.heap.len());
    }

    pub(super) fn next(&self) -> Time {
        self.heap.peek().map_or(Time::NEVER, |Reverse((at, _))| *at)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<(Time, Timer)> {
        if self.next() > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }
}
