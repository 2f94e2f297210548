//! Keys with a message out, and what waits for them: serial processing.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

#[derive(Debug)]
struct Held {
    /// The message that has the key: leased, to be tried again, on its way to the dead letters, or
    /// next in turn.
    holder: u64,
    /// By priority, highest first, and offset.
    waiting: VecDeque<(u8, u64)>,
}

/// Keys by the lower half of their hash: two that share it wait for each other, which costs time
/// and nothing else.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    held: HashMap<u32, Held, RandomState>,
    parked: usize,
}

impl Keys {
    /// Messages that wait.
    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// Whether another message has the key.
    #[inline]
    pub(crate) fn is_held_from(&self, key: u32, offset: u64) -> bool {
        self.held.get(&key).is_some_and(|held| held.holder != offset)
    }

    /// The message has the key from here on; it must be free, or the message's.
    #[inline]
    pub(crate) fn hold(&mut self, key: u32, offset: u64) {
        self.held.entry(key).or_insert_with(|| Held { holder: offset, waiting: VecDeque::new() });
    }

    /// The message waits for its key.
    pub(crate) fn park(&mut self, key: u32, priority: u8, offset: u64) {
        let Some(held) = self.held.get_mut(&key) else { return };
        let rank = |(priority, offset): (u8, u64)| (u8::MAX - priority, offset);
        let new = (priority, offset);
        let at = held.waiting.partition_point(|&other| rank(other) < rank(new));
        held.waiting.insert(at, new);
        self.parked += 1;
    }

    /// The message has done with its key. Gives the one that has it now.
    #[inline]
    pub(crate) fn release(&mut self, key: u32, offset: u64) -> Option<(u8, u64)> {
        let held = self.held.get_mut(&key)?;
        if held.holder != offset {
            return None;
        }
        let Some(next) = held.waiting.pop_front() else {
            self.held.remove(&key);
            return None;
        };
        held.holder = next.1;
        self.parked -= 1;
        Some(next)
    }

    /// Messages before `start` are gone. Gives those that have a key in place of one of them.
    pub(crate) fn forget_before(&mut self, start: u64) -> Vec<(u8, u64)> {
        let mut next = Vec::new();
        let parked = &mut self.parked;
        self.held.retain(|_, held| {
            let waiting = held.waiting.len();
            held.waiting.retain(|&(_, offset)| offset >= start);
            *parked -= waiting - held.waiting.len();
            if held.holder >= start {
                return true;
            }
            let Some(first) = held.waiting.pop_front() else { return false };
            *parked -= 1;
            held.holder = first.1;
            next.push(first);
            true
        });
        next
    }
}
