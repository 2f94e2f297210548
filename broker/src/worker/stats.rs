//! What a worker counts.

use std::sync::atomic::{AtomicU64, Ordering};

use dunlin_queue::{DropReason, MessagePool};

use super::settings::Level;

/// Counted on the hot path, without atomics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) publishes_received: u64,
    pub(super) publishes_sent: u64,
    pub(super) connects: u64,
    pub(super) refused: u64,
    pub(super) paused: u64,
    pub(super) dropped: [u64; DropReason::ALL.len()],
    pub(super) online: i64,
    pub(super) sessions: u64,
    pub(super) subscriptions: u64,
    pub(super) retained: u64,
    /// QoS 1 and 2 publications acknowledged, by the level they had reached.
    pub(super) acknowledged: [u64; 3],
    changed: bool,
}

impl Counters {
    #[inline]
    pub(super) fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    #[inline]
    pub(super) fn drop_many(&mut self, reason: DropReason, count: usize) {
        self.dropped[reason as usize] += count as u64;
        self.changed = true;
    }

    #[inline]
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }
}

macro_rules! stats {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// A worker's figures, for others to read.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($name: AtomicU64,)*
            dropped: [AtomicU64; DropReason::ALL.len()],
        }

        /// The figures of all workers together.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StatsTotal {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// Messages that did not reach somebody, by [`DropReason`].
            pub dropped: [u64; DropReason::ALL.len()],
        }

        impl StatsTotal {
            /// Adds up.
            #[must_use]
            pub fn of(workers: &[Stats]) -> Self {
                let mut total = Self::default();
                for worker in workers {
                    $(total.$name += worker.$name.load(Ordering::Relaxed);)*
                    for (sum, part) in total.dropped.iter_mut().zip(&worker.dropped) {
                        *sum += part.load(Ordering::Relaxed);
                    }
                }
                total
            }
        }
    };
}

stats! {
    /// Bytes read from clients.
    bytes_received,
    /// Bytes written to clients.
    bytes_sent,
    /// PUBLISH packets from clients.
    publishes_received,
    /// PUBLISH packets to clients.
    publishes_sent,
    /// CONNECTs that were accepted.
    connects,
    /// Connections that were refused.
    refused,
    /// Times a publisher was held back for a slow consumer.
    paused,
    /// Clients online.
    online,
    /// Sessions, online or not.
    sessions,
    /// Subscriptions.
    subscriptions,
    /// Topics with a retained message.
    retained,
    /// QoS 1 and 2 publications that were acknowledged from memory: nobody had to get them who
    /// outlives a crash, or their topic is not kept.
    acknowledged_memory,
    /// Those that were acknowledged when they had been written, and were synced later.
    acknowledged_interval,
    /// Those that were acknowledged when they had been synced.
    acknowledged_fsync,
    /// Messages held for somebody.
    messages_held,
    /// Bytes of those.
    message_bytes_held,
}

impl Stats {
    /// Shows what has been counted. Relaxed stores of a single writer: each figure is right, two of
    /// them may be a turn apart.
    pub(super) fn publish(&self, counters: &mut Counters, pool: &MessagePool) {
        if !std::mem::take(&mut counters.changed) {
            return;
        }
        let show = |figure: &AtomicU64, value: u64| figure.store(value, Ordering::Relaxed);
        show(&self.bytes_received, counters.bytes_received);
        show(&self.bytes_sent, counters.bytes_sent);
        show(&self.publishes_received, counters.publishes_received);
        show(&self.publishes_sent, counters.publishes_sent);
        show(&self.connects, counters.connects);
        show(&self.refused, counters.refused);
        show(&self.paused, counters.paused);
        show(&self.online, counters.online.max(0) as u64);
        show(&self.sessions, counters.sessions);
        show(&self.subscriptions, counters.subscriptions);
        show(&self.retained, counters.retained);
        show(&self.acknowledged_memory, counters.acknowledged[Level::Memory as usize]);
        show(&self.acknowledged_interval, counters.acknowledged[Level::Interval as usize]);
        show(&self.acknowledged_fsync, counters.acknowledged[Level::Fsync as usize]);
        show(&self.messages_held, pool.live() as u64);
        show(&self.message_bytes_held, pool.live_bytes() as u64);
        for (figure, &value) in self.dropped.iter().zip(&counters.dropped) {
            show(figure, value);
        }
    }
}
