//! Messages of one partition that are in memory.

use std::collections::VecDeque;

use dunlin_queue::{MessageRef, Time};

/// A message of a queue.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) message: MessageRef,
    /// When it came into the queue.
    pub(super) at: Time,
    /// Where in its topic the routing key begins.
    pub(super) key_at: u16,
    /// It was published to somebody else, and captured.
    pub(super) is_captured: bool,
    /// It is nowhere else.
    pub(super) is_only: bool,
}

/// Messages by offset, from the first that is in memory.
#[derive(Debug, Default)]
pub(super) struct Contents {
    base: u64,
    slots: VecDeque<Option<Content>>,
}

impl Contents {
    /// Takes a message in. Offsets only grow.
    pub(super) fn put(&mut self, offset: u64, content: Content) {
        if self.slots.is_empty() {
            self.base = offset;
        }
        let end = self.base + self.slots.len() as u64;
        debug_assert!(offset >= end);
        self.slots.extend((end..offset).map(|_| None));
        self.slots.push_back(Some(content));
    }

    #[inline]
    pub(super) fn get(&self, offset: u64) -> Option<&Content> {
        self.slots.get(offset.checked_sub(self.base)? as usize)?.as_ref()
    }

    /// Takes a message out.
    pub(super) fn take(&mut self, offset: u64) -> Option<Content> {
        let at = offset.checked_sub(self.base)? as usize;
        let content = self.slots.get_mut(at)?.take();
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        if self.slots.is_empty() && self.slots.capacity() > SLOTS_KEPT {
            self.slots = VecDeque::new();
        }
        content
    }

    /// The part of a range that may have messages in it.
    pub(super) fn clip(&self, from: u64, to: u64) -> std::ops::Range<u64> {
        let end = self.base + self.slots.len() as u64;
        from.max(self.base)..to.min(end)
    }

    /// Offsets of all that are in memory.
    pub(super) fn offsets(&self) -> Vec<u64> {
        let known = (self.base..).zip(&self.slots).filter(|(_, slot)| slot.is_some());
        known.map(|(offset, _)| offset).collect()
    }
}

/// Slots an empty partition keeps room for.
const SLOTS_KEPT: usize = 256;
