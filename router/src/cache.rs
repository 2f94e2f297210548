//! Recent topics and where they go.

use ahash::RandomState;
use hashbrown::HashTable;

use crate::epoch::TopicSlots;
use crate::filter_map::FilterId;
use crate::subscriptions::Match;

/// How many topics are remembered.
const TOPICS_MAX: usize = 4096;
/// How many copied matches one topic may hold before it is not worth remembering.
const COPIED_MAX: usize = 65_536;

/// Where a topic's matches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody here.
    Nobody,
    /// One filter matches: its list is read in place.
    One(FilterId),
    /// Several do: their lists were merged into the entry's own.
    Merged,
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

    /// Makes an entry for `topic`, which has none. Its stamps say nothing yet.
    pub(crate) fn insert(&mut self, topic: &str) -> usize {
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
        if route.topic.capacity() > 1024 {
            route.topic.shrink_to_fit();
        }
        if route.merged.capacity() > COPIED_MAX {
            route.merged = Vec::new();
        }
        let hash_of = |&index: &u32| hasher.hash_one(routes[index as usize].topic.as_bytes());
        table.insert_unique(hash, index as u32, hash_of);
        index
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
