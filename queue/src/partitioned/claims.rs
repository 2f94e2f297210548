//! What one group has done with the messages of one partition, and which it gets next.
//!
//! ```text
//!              pick                      ack, reject+bury, expiry
//! (not seen) ───────▶ leased ──────────────────────────────────────▶ settled
//!   │  │ key taken      │ nack, lease ended                             ▲
//!   │  ▼                ▼                                               │ bury
//!   │ parked ──▶ ready ◀── later (backoff)      attempts used up ──▶ dying
//!   └─ delayed ────▲
//! ```
//!
//! Not seen are, of each priority, the messages at or behind its cursor `next`. A stream knows only
//! one cursor, and nothing between it and settled.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use ahash::RandomState;

use crate::Time;

use super::chunk::Meta;
use super::index::Look;
use super::keys::Keys;
use super::leases::Leases;
use super::limits::{CHUNK_LEN, FAIR_EVERY, PARKED_MAX, PRIORITIES};
use super::partition::Partition;
use super::settled::Settled;
use super::{Config, DeadReason, Mode};

/// A message on its way to the dead letters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dying {
    pub(crate) reason: DeadReason,
    pub(crate) attempts: u32,
    pub(crate) bytes: u32,
    pub(crate) key: u32,
}

/// What [`Claims::pick`] found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pick {
    Nothing,
    /// The next one is in this chunk, which is away.
    Away(u64),
    /// It is taken: whoever asked has to lease or settle it.
    Message(u64, Meta),
}

#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) settled: Settled,
    /// Of each priority the first offset that was not looked at; a stream's are all one.
    pub(crate) next: [u64; PRIORITIES],
    /// Messages that were looked at and can be delivered now, by priority and offset.
    pub(crate) ready: [BinaryHeap<Reverse<u64>>; PRIORITIES],
    pub(crate) leases: Leases,
    /// Failed deliveries of messages that are neither leased nor settled.
    pub(crate) failed: HashMap<u64, u32, RandomState>,
    /// Messages to be tried again, and when.
    pub(crate) later: BinaryHeap<Reverse<(Time, u64, u8)>>,
    pub(crate) dying: HashMap<u64, Dying, RandomState>,
    pub(crate) keys: Keys,
    /// When the owner that was told to give the partition up has to have done so.
    pub(crate) drain_until: Time,
    /// Its earliest alarm.
    pub(crate) alarm_at: Time,
    turn: u8,
}

impl Claims {
    pub(crate) fn new(floor: u64) -> Self {
        Self {
            settled: Settled::new(floor),
            next: [floor; PRIORITIES],
            ready: Default::default(),
            leases: Leases::default(),
            failed: HashMap::default(),
            later: BinaryHeap::new(),
            dying: HashMap::default(),
            keys: Keys::default(),
            drain_until: Time::NEVER,
            alarm_at: Time::NEVER,
            turn: 0,
        }
    }

    /// Takes the next message: the oldest of the highest priority, and one time in [`FAIR_EVERY`]
    /// the oldest of all.
    #[inline]
    pub(crate) fn pick(&mut self, partition: &Partition, config: &Config) -> Pick {
        let priorities = match config.mode {
            Mode::Stream => 1,
            Mode::Work => partition.priorities(),
        };
        let is_mixed = priorities.count_ones() > 1;
        let is_fair = is_mixed && self.turn + 1 == FAIR_EVERY;
        let mut best: Option<(usize, u64, Meta)> = None;
        let mut left = priorities;
        while left != 0 {
            let class = left.ilog2() as usize;
            left &= !(1 << class);
            match self.front(class, partition, config) {
                Pick::Nothing => continue,
                Pick::Away(chunk) => return Pick::Away(chunk),
                Pick::Message(offset, meta) => {
                    if best.is_none_or(|(_, other, _)| offset < other) {
                        best = Some((class, offset, meta));
                    }
                }
            }
            if !is_fair {
                break;
            }
        }
        let Some((class, offset, meta)) = best else { return Pick::Nothing };
        if is_mixed {
            self.turn = (self.turn + 1) % FAIR_EVERY;
        }
        if self.ready[class].peek() == Some(&Reverse(offset)) {
            self.ready[class].pop();
        } else {
            self.next[class] = offset + 1;
        }
        if config.is_serial {
            self.keys.hold(meta.key, offset);
        }
        Pick::Message(offset, meta)
    }

    /// The next message of a priority, left where it is. Those whose key is taken are parked.
    #[inline]
    fn front(&mut self, class: usize, partition: &Partition, config: &Config) -> Pick {
        let ready = match self.ready[class].is_empty() {
            true => Pick::Nothing,
            false => self.front_ready(class, partition, config),
        };
        if let Pick::Away(_) = ready {
            return ready;
        }
        loop {
            let found = self.scan(class, partition, config.mode);
            let Pick::Message(offset, meta) = found else {
                return if let Pick::Message(..) = ready { ready } else { found };
            };
            if let Pick::Message(other, _) = ready
                && other < offset
            {
                return ready;
            }
            if !config.is_serial || !self.keys.is_held_from(meta.key, offset) {
                return found;
            }
            if self.keys.parked() >= PARKED_MAX {
                return ready;
            }
            self.keys.park(meta.key, meta.priority, offset);
            self.next[class] = offset + 1;
        }
    }

    #[cold]
    fn front_ready(&mut self, class: usize, partition: &Partition, config: &Config) -> Pick {
        while let Some(&Reverse(offset)) = self.ready[class].peek() {
            match partition.look(offset) {
                Look::Away => return Pick::Away(offset / CHUNK_LEN),
                Look::Here(meta) if !self.settled.get(offset) => {
                    if !config.is_serial || !self.keys.is_held_from(meta.key, offset) {
                        return Pick::Message(offset, meta);
                    }
                    // A delayed one that came due. The limit of what may be parked is not asked:
                    // it must not stand before others that have their key.
                    self.keys.park(meta.key, meta.priority, offset);
                }
                _ => (),
            }
            self.ready[class].pop();
        }
        Pick::Nothing
    }

    /// Moves the cursor of a priority to its next message.
    #[inline]
    fn scan(&mut self, class: usize, partition: &Partition, mode: Mode) -> Pick {
        let Some(waiting) = &partition.waiting else { return Pick::Nothing };
        let wanted = if mode == Mode::Stream { u16::MAX } else { 1 << class };
        let mut offset = self.next[class].max(partition.start());
        let mut found = Pick::Nothing;
        while offset < partition.kept() {
            let number = offset / CHUNK_LEN;
            let Some(chunk) = waiting.index.chunk(number) else { break };
            if !chunk.may_have(wanted) {
                offset = ((number + 1) * CHUNK_LEN).min(partition.kept());
                continue;
            }
            if chunk.is_away() {
                found = Pick::Away(number);
                break;
            }
            if let Look::Here(meta) = waiting.index.look(offset)
                && wanted & (1 << meta.priority) != 0
                && !self.settled.get(offset)
                && !(meta.is_delayed && waiting.delayed.contains_key(&offset))
            {
                found = Pick::Message(offset, meta);
                break;
            }
            offset += 1;
        }
        self.next[class] = offset;
        found
    }

    /// A message that was delayed is due. If the cursor has passed it, it is ready.
    pub(crate) fn on_due(&mut self, offset: u64, priority: u8) {
        let class = usize::from(priority);
        if self.next[class] > offset {
            self.ready[class].push(Reverse(offset));
        }
    }

    /// A message is to be tried again.
    pub(crate) fn retry(&mut self, offset: u64, priority: u8, due: Time, now: Time) {
        if due <= now {
            self.ready[usize::from(priority)].push(Reverse(offset));
        } else {
            self.later.push(Reverse((due, offset, priority)));
        }
    }

    /// A message is settled, or gone: the next of its key may go.
    #[inline]
    pub(crate) fn release_key(&mut self, key: u32, offset: u64) {
        if let Some((priority, next)) = self.keys.release(key, offset) {
            self.ready[usize::from(priority)].push(Reverse(next));
        }
    }

    /// The messages of a range are gone. Says how many leases ended.
    pub(crate) fn forget(&mut self, from: u64, to: u64) -> u32 {
        let mut ended = 0;
        for offset in from..to {
            ended += u32::from(self.leases.remove(offset).is_some());
            self.failed.remove(&offset);
            self.dying.remove(&offset);
        }
        for (priority, next) in self.keys.forget_before(to) {
            self.ready[usize::from(priority)].push(Reverse(next));
        }
        ended
    }

    /// When there is something to do.
    pub(crate) fn deadline(&self) -> Time {
        let later = self.later.peek().map_or(Time::NEVER, |&Reverse((due, _, _))| due);
        let lease = self.leases.deadline().unwrap_or(Time::NEVER);
        lease.min(later).min(self.drain_until)
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.leases.len() == 0
            && self.dying.is_empty()
            && self.later.is_empty()
            && self.drain_until == Time::NEVER
    }

    /// Whether a chunk has a cursor in it, or right before.
    pub(crate) fn is_near(&self, chunk: u64) -> bool {
        self.next.iter().any(|next| {
            let at = next / CHUNK_LEN;
            chunk == at || chunk == at + 1
        })
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let ready: usize = self.ready.iter().map(BinaryHeap::capacity).sum();
        size_of::<Self>()
            + self.settled.heap_bytes()
            + ready * 8
            + self.leases.len() * 72
            + self.failed.capacity() * 16
            + self.later.capacity() * 24
    }
}
