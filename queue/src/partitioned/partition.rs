//! The messages of one partition: from the first that is left to the next to come.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use ahash::RandomState;

use crate::Time;

use super::chunk::{Chunk, IndexPool, Meta};
use super::index::{Index, Look};
use super::limits::CHUNK_LEN;

/// ```text
/// 0 … (gone) … start … waiting … kept … not in the log yet … end
/// ```
#[derive(Debug, Default)]
pub(crate) struct Partition {
    end: u64,
    /// Nothing as long as nothing waits, so that all three are one: an idle partition is these 16
    /// bytes.
    pub(crate) waiting: Option<Box<Waiting>>,
}

/// What a partition with messages has beside.
#[derive(Debug)]
pub(crate) struct Waiting {
    start: u64,
    kept: u64,
    pub(crate) index: Index,
    /// Messages that are not gone.
    pub(crate) live: u64,
    /// One bit for each priority there has been since the partition was empty.
    pub(crate) priorities: u16,
    /// Messages that are not due, and when they are.
    pub(crate) delayed: HashMap<u64, Time, RandomState>,
    pub(crate) due: BinaryHeap<Reverse<(Time, u64, u8)>>,
    pub(crate) compaction: Option<Box<Compaction>>,
    /// Its earliest alarm.
    pub(crate) alarm_at: Time,
}

/// Of a compacted stream.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// The last message of a key that is in the log, and its bytes.
    last: HashMap<u64, (u64, u32), RandomState>,
    /// Those behind `kept`: key, bytes.
    coming: std::collections::VecDeque<(u64, u32)>,
}

impl Partition {
    /// The first message that is not gone, or where the next one will be.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.waiting.as_ref().map_or(self.end, |waiting| waiting.start)
    }

    /// What is before may be delivered.
    #[inline]
    pub(crate) fn kept(&self) -> u64 {
        self.waiting.as_ref().map_or(self.end, |waiting| waiting.kept)
    }

    /// Where the next message will be.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// What is before `to` may be delivered.
    #[inline]
    pub(crate) fn keep_before(&mut self, to: u64) {
        if let Some(waiting) = &mut self.waiting {
            waiting.kept = waiting.kept.max(to);
        }
    }

    /// The next message will be at `offset`: those between were there once, and are gone.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.end = self.end.max(offset);
    }

    #[inline]
    fn waiting(&mut self) -> &mut Waiting {
        let end = self.end;
        let new = || Box::new(Waiting::new(end));
        self.waiting.get_or_insert_with(new)
    }

    #[inline]
    pub(crate) fn look(&self, offset: u64) -> Look {
        self.waiting.as_ref().map_or(Look::Nothing, |waiting| waiting.index.look(offset))
    }

    #[inline]
    pub(crate) fn is_hole(&self, offset: u64) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| waiting.index.is_hole(offset))
    }

    pub(crate) fn is_delayed(&self, offset: u64) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.delayed.contains_key(&offset))
    }

    /// Whether the message is delayed, and not due at `now` either: it may wait for the timer.
    pub(crate) fn is_due_after(&self, offset: u64, now: Time) -> bool {
        let due = self.waiting.as_ref().and_then(|waiting| waiting.delayed.get(&offset));
        due.is_some_and(|&due| due > now)
    }

    pub(crate) fn live(&self) -> u64 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.live)
    }

    pub(crate) fn priorities(&self) -> u16 {
        self.waiting.as_ref().map_or(0, |waiting| waiting.priorities)
    }

    /// When the oldest message came: that of its chunk if the chunk is away.
    pub(crate) fn oldest(&self) -> Option<Time> {
        if self.live() == 0 { None } else { self.came(self.start()) }
    }

    /// When a message came, as [`Self::oldest`].
    pub(crate) fn came(&self, offset: u64) -> Option<Time> {
        match self.look(offset) {
            Look::Here(meta) => Some(meta.at),
            _ => self.waiting.as_ref()?.index.chunk(offset / CHUNK_LEN).map(Chunk::first),
        }
    }

    /// Appends a message at `end`.
    #[inline]
    pub(crate) fn push(
        &mut self,
        new: &Meta,
        deliver_at: Option<Time>,
        pool: &mut IndexPool,
    ) -> u64 {
        let offset = self.end;
        let waiting = self.waiting();
        if waiting.live == 0 {
            waiting.priorities = 0;
        }
        waiting.index.push(offset, new, pool);
        waiting.live += 1;
        waiting.priorities |= 1 << new.priority;
        if let Some(due) = deliver_at {
            waiting.delayed.insert(offset, due);
            waiting.due.push(Reverse((due, offset, new.priority)));
        }
        self.end += 1;
        offset
    }

    /// A message of a compacted stream has come, but is not in the log.
    pub(crate) fn note_key(&mut self, key_hash: u64, bytes: u32) {
        let compaction = &mut self.waiting().compaction;
        compaction.get_or_insert_default().coming.push_back((key_hash, bytes));
    }

    /// The message at `offset`, for which [`Self::note_key`] was said in turn, is in the log. Gives
    /// the one it replaces.
    pub(crate) fn replace(&mut self, offset: u64) -> Option<(u64, u32)> {
        let waiting = self.waiting.as_mut()?;
        let start = waiting.start;
        let compaction = waiting.compaction.as_mut()?;
        let (key_hash, bytes) = compaction.coming.pop_front()?;
        compaction.last.insert(key_hash, (offset, bytes)).filter(|(old, _)| *old >= start)
    }

    /// The message is gone for everybody. Says how many bytes it had; `None` if it was before.
    #[inline]
    pub(crate) fn remove(
        &mut self,
        offset: u64,
        bytes: Option<u32>,
        pool: &mut IndexPool,
    ) -> Option<u64> {
        let waiting = self.waiting.as_mut()?;
        if waiting.index.is_hole(offset) {
            return None;
        }
        let freed = waiting.index.remove(offset, bytes, pool);
        waiting.live -= 1;
        if !waiting.delayed.is_empty() {
            waiting.delayed.remove(&offset);
        }
        if offset == waiting.start {
            waiting.start = waiting.index.advance(offset, self.end, pool);
            waiting.forget_keys();
        }
        Some(freed)
    }

    /// Takes the next delayed message that is due, and its priority.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(u64, u8)> {
        let waiting = self.waiting.as_mut()?;
        loop {
            let &Reverse((due, offset, priority)) = waiting.due.peek()?;
            if due > now {
                return None;
            }
            waiting.due.pop();
            if waiting.delayed.remove(&offset).is_some() {
                return Some((offset, priority));
            }
        }
    }

    /// When the next delayed message is due.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.waiting.as_ref()?.due.peek().map(|&Reverse((due, _, _))| due)
    }

    /// The first message that came at `at` or later; the first of its chunk, if that is away.
    pub(crate) fn find_time(&self, at: Time) -> u64 {
        let Some(waiting) = &self.waiting else { return self.end };
        let mut found = waiting.start;
        for (number, chunk) in waiting.index.chunks() {
            if chunk.first() >= at {
                break;
            }
            found = number * CHUNK_LEN;
        }
        let mut offset = found.max(waiting.start);
        while offset < self.end {
            match waiting.index.look(offset) {
                Look::Away => break,
                Look::Here(meta) if meta.at >= at => break,
                _ => offset += 1,
            }
        }
        offset
    }

    /// Calls `each` with the ranges at or after `start` that are gone.
    pub(crate) fn hole_ranges(&self, mut each: impl FnMut(u64, u64)) {
        let Some(waiting) = &self.waiting else { return };
        let mut from = None;
        let mut offset = waiting.start;
        while offset < self.end {
            let is_whole = waiting.index.chunk(offset / CHUNK_LEN).is_some_and(|chunk| {
                offset.is_multiple_of(CHUNK_LEN) && u64::from(chunk.live) == CHUNK_LEN
            });
            let is_hole = !is_whole && waiting.index.is_hole(offset);
            match (is_hole, from) {
                (true, None) => from = Some(offset),
                (false, Some(first)) => {
                    each(first, offset);
                    from = None;
                }
                _ => (),
            }
            offset += if is_whole { CHUNK_LEN } else { 1 };
        }
        if let Some(first) = from {
            each(first, self.end);
        }
    }

    /// Gives up what it has beside if nothing waits.
    pub(crate) fn shrink(&mut self, pool: &mut IndexPool) -> Option<Box<Waiting>> {
        let end = self.end;
        let is_idle = |waiting: &mut Box<Waiting>| waiting.live == 0 && waiting.start == end;
        let mut waiting = self.waiting.take_if(is_idle)?;
        waiting.index.clear(pool);
        Some(waiting)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let Some(waiting) = &self.waiting else { return 0 };
        let compaction = waiting.compaction.as_ref();
        size_of::<Waiting>()
            + waiting.index.heap_bytes()
            + waiting.delayed.capacity() * size_of::<(u64, Time)>()
            + waiting.due.capacity() * size_of::<(Time, u64, u8)>()
            + compaction.map_or(0, |compaction| compaction.last.capacity() * 24)
    }
}

impl Waiting {
    fn new(start: u64) -> Self {
        Self {
            start,
            kept: start,
            index: Index::default(),
            live: 0,
            priorities: 0,
            delayed: HashMap::default(),
            due: BinaryHeap::new(),
            compaction: None,
            alarm_at: Time::NEVER,
        }
    }

    /// Keys whose last message was dropped would be remembered for ever.
    fn forget_keys(&mut self) {
        let (start, live) = (self.start, self.live);
        if let Some(compaction) = &mut self.compaction
            && compaction.last.len() as u64 > 2 * live + CHUNK_LEN
        {
            compaction.last.retain(|_, (offset, _)| *offset >= start);
        }
    }
}
