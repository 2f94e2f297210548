//! Which queue has a name, and which a number in the log: some five bytes for each, as names and
//! numbers stand in the queues themselves.

use ahash::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::QueueSlot;

type Slots = Slab<Box<QueueSlot>>;

/// The slots of queues, by name and by number.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_name: HashTable<u32>,
    by_qid: HashTable<u32>,
    hasher: RandomState,
}

impl Directory {
    pub(super) fn find(&self, name: &str, slots: &Slots) -> Option<u32> {
        let is_it = |&at: &u32| slots.get(at as usize).is_some_and(|slot| *slot.name == *name);
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    pub(super) fn find_qid(&self, qid: u64, slots: &Slots) -> Option<u32> {
        let is_it = |&at: &u32| slots.get(at as usize).is_some_and(|slot| slot.key.qid == qid);
        self.by_qid.find(self.hasher.hash_one(qid), is_it).copied()
    }

    /// Enters a queue that is in its slot.
    pub(super) fn add(&mut self, at: u32, slots: &Slots) {
        let Self { by_name, by_qid, hasher } = self;
        let name_hash =
            |at: &u32| slots.get(*at as usize).map_or(0, |it| hasher.hash_one(&*it.name));
        let qid_hash =
            |at: &u32| slots.get(*at as usize).map_or(0, |it| hasher.hash_one(it.key.qid));
        by_name.insert_unique(name_hash(&at), at, name_hash);
        by_qid.insert_unique(qid_hash(&at), at, qid_hash);
    }

    /// Takes a queue out, by what stood in its slot.
    pub(super) fn remove(&mut self, at: u32, slot: &QueueSlot) {
        let Self { by_name, by_qid, hasher } = self;
        let is_it = |other: &u32| *other == at;
        if let Ok(entry) = by_name.find_entry(hasher.hash_one(&*slot.name), is_it) {
            entry.remove();
        }
        if let Ok(entry) = by_qid.find_entry(hasher.hash_one(slot.key.qid), is_it) {
            entry.remove();
        }
    }
}
