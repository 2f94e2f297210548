//! From a filter to the stored topics it matches, in bites.

use std::collections::BTreeMap;
use std::ops::Bound;

use dunlin_packets::filter_matches;

/// A map from topic names to values that can be searched by filter.
///
/// Topics are kept in byte order. A search runs over those that share the filter's literal
/// beginning, a bounded number at a time, and goes on behind the last topic it looked at: it never
/// holds anything up, and what changes between two bites does no harm.
#[derive(Debug)]
pub struct RetainedIndex<V> {
    topics: BTreeMap<Box<str>, V>,
}

impl<V> Default for RetainedIndex<V> {
    fn default() -> Self {
        Self { topics: BTreeMap::new() }
    }
}

impl<V> RetainedIndex<V> {
    /// Number of topics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Stores a value, and gives back the one it replaces.
    pub fn insert(&mut self, topic: &str, value: V) -> Option<V> {
        match self.topics.get_mut(topic) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => self.topics.insert(topic.into(), value),
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        self.topics.remove(topic)
    }

    /// The value at exactly this topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&V> {
        self.topics.get(topic)
    }

    /// Looks at up to `limit` topics behind `after` that may match `filter`, and calls `found` for
    /// those that do. Returns the last one it looked at, to go on from; `None` when the search is
    /// over.
    pub fn search(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
        mut found: impl FnMut(&str, &V),
    ) -> Option<&str> {
        let Some(prefix) = prefix_before_wildcard(filter) else {
            if let Some(value) = self.get(filter) {
                found(filter, value);
            }
            return None;
        };
        let start = match after {
            Some(topic) => Bound::Excluded(topic),
            None => {
                self.search_parent(filter, prefix, &mut found);
                Bound::Included(prefix)
            }
        };
        let mut last = None;
        let within = self.topics.range::<str, _>((start, Bound::Unbounded));
        let within = within.take_while(|(topic, _)| topic.starts_with(prefix));
        for (looked_at, (topic, value)) in within.enumerate() {
            if looked_at == limit {
                return last;
            }
            last = Some(&**topic);
            if filter_matches(filter, topic) {
                found(topic, value);
            }
        }
        None
    }

    /// `a/#` matches `a` as well, which does not begin with `a/`.
    fn search_parent(&self, filter: &str, prefix: &str, found: &mut impl FnMut(&str, &V)) {
        let Some(parent) = prefix.strip_suffix('/') else { return };
        if let Some(value) = self.get(parent).filter(|_| filter_matches(filter, parent)) {
            found(parent, value);
        }
    }

    /// Looks at up to `limit` topics behind `after`, whatever they are called. Returns where to go
    /// on; `None` after the last.
    pub fn scan(
        &self,
        after: Option<&str>,
        limit: usize,
        mut found: impl FnMut(&str, &V),
    ) -> Option<&str> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (topic, value) in self.topics.range::<str, _>((start, Bound::Unbounded)).take(limit) {
            last = Some(&**topic);
            found(topic, value);
        }
        last
    }
}

/// The part of `filter` before its first wildcard; `None` when it has none.
fn prefix_before_wildcard(filter: &str) -> Option<&str> {
    filter.find(['+', '#']).map(|at| &filter[..at])
}
