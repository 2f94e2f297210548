//! Recent topics and where they go.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::epoch::TopicSlots;
use crate::filter_map::FilterId;
use crate::subscriptions::Match;

/// How many topics are remembered.
const TOPICS_MAX: usize = 4096;
/// Longest topic that is remembered, in bytes.
const TOPIC_BYTES_MAX: usize = 1024;
/// Merged matches that all entries may hold together, at 12 bytes each. What is above is merged
/// again for each message.
const MERGED_MAX: usize = 1 << 20;

/// Where a topic's matches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody here.
    Nobody,
    /// One filter matches: its list is read in place.
    One(FilterId),
    /// Several do: their lists were merged into the entry's own.
    Merged,
    /// Several do, and the merged list is not remembered.
    TooMany,
}

#[derive(Debug)]
pub(crate) struct CachedRoute {
    topic: String,
    pub(crate) slots: TopicSlots,
    /// Sum of the local counters when the entry was made.
    pub(crate) local_stamp: u64,
    /// Sum of the broker-wide counters when the entry was made.
    pub(crate) remote_stamp: u64,
    pub(crate) remote_workers: u64,
    pub(crate) source: Source,
    pub(crate) merged: Vec<Match>,
}

/// A bounded map from topic to route. A new topic takes the place of the oldest; an entry keeps its
/// buffers, so steady traffic over a stable set of topics allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct MatchCache {
    table: HashTable<u32>,
    routes: Vec<CachedRoute>,
    oldest: usize,
    /// Matches in all `merged` lists.
    merged: usize,
    hasher: RandomState,
}

impl MatchCache {
    #[inline]
    pub(crate) fn find(&self, topic: &str) -> Option<usize> {
        let same = |&index: &u32| self.routes[index as usize].topic == topic;
        self.table.find(self.hash(topic), same).map(|&index| index as usize)
    }

    #[inline]
    pub(crate) fn route(&self, index: usize) -> &CachedRoute {
        &self.routes[index]
    }

    #[inline]
    pub(crate) fn route_mut(&mut self, index: usize) -> &mut CachedRoute {
        &mut self.routes[index]
    }

    /// Makes an entry for `topic`, which has none. Its stamps say nothing yet. `None` when the
    /// topic is too long to be remembered.
    pub(crate) fn insert(&mut self, topic: &str) -> Option<usize> {
        if topic.len() > TOPIC_BYTES_MAX {
            return None;
        }
        let index = if self.routes.len() < TOPICS_MAX {
            self.routes.push(CachedRoute {
                topic: String::new(),
                slots: TopicSlots::default(),
                local_stamp: 0,
                remote_stamp: 0,
                remote_workers: 0,
                source: Source::Nobody,
                merged: Vec::new(),
            });
            self.routes.len() - 1
        } else {
            let index = self.oldest;
            self.oldest = (self.oldest + 1) % TOPICS_MAX;
            self.forget(index);
            index
        };
        let hash = self.hash(topic);
        let Self { table, routes, hasher, .. } = self;
        let route = &mut routes[index];
        route.topic.clear();
        route.topic.push_str(topic);
        route.slots = TopicSlots::of(topic);
        let hash_of = |&index: &u32| hasher.hash_one(routes[index as usize].topic.as_bytes());
        table.insert_unique(hash, index as u32, hash_of);
        Some(index)
    }

    /// Keeps a merged list with an entry. `false` when there is no room for it.
    pub(crate) fn keep_merged(&mut self, index: usize, merged: &[Match]) -> bool {
        let route = &mut self.routes[index];
        self.merged -= route.merged.len();
        route.merged.clear();
        let fits = self.merged + merged.len() <= MERGED_MAX;
        if fits {
            self.merged += merged.len();
            route.merged.extend_from_slice(merged);
        }
        if route.merged.capacity() > 4 * route.merged.len() {
            route.merged.shrink_to_fit();
        }
        fits
    }

    fn forget(&mut self, index: usize) {
        let hash = self.hash(&self.routes[index].topic);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other as usize == index) {
            entry.remove();
        }
    }

    fn hash(&self, topic: &str) -> u64 {
        self.hasher.hash_one(topic.as_bytes())
    }
}
