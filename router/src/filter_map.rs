//! Topic filters as keys: look up by text, match by topic.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::arena::{ChunkSlab, Text, TextArena};
use crate::trie::{Frontier, Trie};

/// A filter in a [`FilterMap`], valid until it is removed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(u32);

#[derive(Debug)]
struct Entry<V> {
    text: Text,
    value: V,
}

/// Buffers that matching uses, kept by the caller.
#[derive(Debug, Default)]
pub struct MatchScratch {
    frontier: Frontier,
}

/// Maps topic filters to values.
///
/// Every filter is in one hash table by its text. As a topic has no wildcards, looking the topic
/// up there finds the one filter that equals it; filters with wildcards are in a trie besides.
#[derive(Debug)]
pub struct FilterMap<V> {
    texts: TextArena,
    entries: ChunkSlab<Entry<V>>,
    table: HashTable<u32>,
    trie: Trie,
    hasher: RandomState,
}

impl<V> Default for FilterMap<V> {
    fn default() -> Self {
        Self {
            texts: TextArena::default(),
            entries: ChunkSlab::default(),
            table: HashTable::default(),
            trie: Trie::default(),
            hasher: RandomState::default(),
        }
    }
}

impl<V> FilterMap<V> {
    /// Number of filters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The filter with exactly this text \[MQTT-3.10.4-1\].
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<FilterId> {
        self.find_bytes(filter.as_bytes())
    }

    #[inline]
    fn find_bytes(&self, text: &[u8]) -> Option<FilterId> {
        let same = |&id: &u32| self.texts.bytes(self.entries.get(id).text) == text;
        self.table.find(self.hasher.hash_one(text), same).map(|&id| FilterId(id))
    }

    /// Makes room for so many filters more.
    pub fn reserve(&mut self, additional: usize) {
        let Self { texts, entries, table, hasher, .. } = self;
        table.reserve(additional, |&id| hasher.hash_one(texts.bytes(entries.get(id).text)));
    }

    /// Enters a well-formed filter that is not in the map yet.
    pub fn insert(&mut self, filter: &str, value: V) -> FilterId {
        debug_assert!(self.find(filter).is_none(), "{filter} is in the map already");
        let text = self.texts.insert(filter);
        let id = self.entries.insert(Entry { text, value });
        let Self { texts, entries, table, hasher, .. } = self;
        let hash_of = |&id: &u32| hasher.hash_one(texts.bytes(entries.get(id).text));
        table.insert_unique(hasher.hash_one(filter.as_bytes()), id, hash_of);
        if is_wildcard(filter) {
            self.trie.insert(filter, id);
        }
        FilterId(id)
    }

    /// Takes a filter out.
    pub fn remove(&mut self, id: FilterId) -> V {
        let text = self.entries.get(id.0).text;
        let hash = self.hasher.hash_one(self.texts.bytes(text));
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == id.0) {
            entry.remove();
        }
        let filter = self.texts.get(text);
        if is_wildcard(filter) {
            self.trie.remove(filter);
        }
        self.texts.remove(text);
        self.entries.remove(id.0).value
    }

    /// The text of a filter.
    #[must_use]
    pub fn filter(&self, id: FilterId) -> &str {
        self.texts.get(self.entries.get(id.0).text)
    }

    /// The value of a filter.
    #[inline]
    #[must_use]
    pub fn value(&self, id: FilterId) -> &V {
        &self.entries.get(id.0).value
    }

    /// The value of a filter, to change it.
    #[inline]
    pub fn value_mut(&mut self, id: FilterId) -> &mut V {
        &mut self.entries.get_mut(id.0).value
    }

    /// Calls `found` for every filter that matches `topic`, in no particular order.
    #[inline]
    pub fn matches(
        &self,
        topic: &str,
        scratch: &mut MatchScratch,
        mut found: impl FnMut(FilterId, &V),
    ) {
        if let Some(id) = self.find(topic) {
            found(id, self.value(id));
        }
        if !self.trie.is_empty() {
            self.trie.matches(topic, &mut scratch.frontier, |id| {
                found(FilterId(id), &self.entries.get(id).value);
            });
        }
    }
}

fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}
