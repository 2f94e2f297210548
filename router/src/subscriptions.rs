//! One worker's subscriptions: filter -> who, with which options; topic -> who, at once.

use dunlin_packets::{QoS, RetainHandling, SubscriptionOptions};

use crate::cache::{MatchCache, Source};
use crate::epoch::{Epochs, TopicSlots};
use crate::filter_map::{FilterId, FilterMap, MatchScratch};
use crate::target::Target;

/// What a subscriber asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The options byte, taken apart.
    pub options: SubscriptionOptions,
    /// The subscription identifier; 0 for none.
    pub identifier: u32,
}

/// One subscription that matches, in 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    target: u32,
    identifier: u32,
    options: Packed,
}

/// Options in a byte with room for the compiler to tell a list from a single subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    qos: QoS,
    flags: u8,
}

const NO_LOCAL: u8 = 1;
const RETAIN_AS_PUBLISHED: u8 = 2;

impl Match {
    fn new(target: Target, subscription: Subscription) -> Self {
        let options = subscription.options;
        let handling = (options.retain_handling as u8) << 4;
        let no_local = if options.no_local { NO_LOCAL } else { 0 };
        let as_published = if options.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        Self {
            target: target.pack(),
            identifier: subscription.identifier,
            options: Packed { qos: options.qos, flags: no_local | as_published | handling },
        }
    }

    /// Who subscribes.
    #[inline]
    #[must_use]
    pub fn target(&self) -> Target {
        Target::unpack(self.target)
    }

    /// The granted QoS.
    #[inline]
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.options.qos
    }

    /// The subscription identifier; 0 for none.
    #[inline]
    #[must_use]
    pub fn identifier(&self) -> u32 {
        self.identifier
    }

    /// Whether the publisher itself is left out.
    #[inline]
    #[must_use]
    pub fn no_local(&self) -> bool {
        self.options.flags & NO_LOCAL != 0
    }

    /// Whether the publisher's RETAIN flag is passed on.
    #[inline]
    #[must_use]
    pub fn retain_as_published(&self) -> bool {
        self.options.flags & RETAIN_AS_PUBLISHED != 0
    }

    /// All that was asked for.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        let retain_handling = match self.options.flags >> 4 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            _ => RetainHandling::Never,
        };
        Subscription {
            options: SubscriptionOptions {
                qos: self.options.qos,
                no_local: self.no_local(),
                retain_as_published: self.retain_as_published(),
                retain_handling,
            },
            identifier: self.identifier,
        }
    }
}

/// The subscribers of one filter, ordered by target. Most filters have one, which costs 16 bytes;
/// a `Vec` in place of the box would make it 32.
#[derive(Debug)]
#[allow(clippy::box_collection)]
enum Subscribers {
    One(Match),
    Many(Box<Vec<Match>>),
}

impl Subscribers {
    #[inline]
    fn as_slice(&self) -> &[Match] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(list) => list,
        }
    }

    fn position(&self, target: u32) -> Result<usize, usize> {
        self.as_slice().binary_search_by_key(&target, |entry| entry.target)
    }

    /// Adds or replaces; says whether it is new.
    fn set(&mut self, entry: Match) -> bool {
        match (self.position(entry.target), &mut *self) {
            (Ok(_), Self::One(only)) => *only = entry,
            (Ok(at), Self::Many(list)) => list[at] = entry,
            (Err(at), Self::One(only)) => {
                let mut list = vec![*only];
                list.insert(at, entry);
                *self = Self::Many(Box::new(list));
                return true;
            }
            (Err(at), Self::Many(list)) => {
                list.insert(at, entry);
                return true;
            }
        }
        false
    }

    /// Removes one that is not the last.
    fn remove(&mut self, at: usize) {
        let Self::Many(list) = self else { unreachable!("the last one goes with its filter") };
        list.remove(at);
        if let [only] = list[..] {
            *self = Self::One(only);
        } else if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
    }
}

/// What a subscribe changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The filter, to unsubscribe by.
    pub filter: FilterId,
    /// The target had no subscription to this filter before.
    pub is_new: bool,
    /// Nobody here had one before.
    pub is_first: bool,
}

/// What other workers want, seen from this one.
pub trait Remote {
    /// Sum of the counters at `slots`.
    fn stamp(&self, slots: &TopicSlots) -> u64;
    /// The workers with an interest in `topic`, a bit each, this one left out.
    fn workers(&mut self, topic: &str) -> u64;
}

/// A broker with one worker.
impl Remote for () {
    fn stamp(&self, _: &TopicSlots) -> u64 {
        0
    }

    fn workers(&mut self, _: &str) -> u64 {
        0
    }
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// Matching subscriptions of this worker, ordered by target.
    pub matches: &'a [Match],
    /// Whether a target may stand there more than once.
    pub may_overlap: bool,
    /// Other workers with an interest, a bit each.
    pub workers: u64,
}

/// The subscriptions of one worker's sessions and of the share groups it keeps.
#[derive(Debug, Default)]
pub struct Subscriptions {
    filters: FilterMap<Subscribers>,
    epochs: Epochs,
    cache: MatchCache,
    scratch: MatchScratch,
    /// Filters that matched the topic being resolved.
    found: Vec<FilterId>,
    /// Their subscribers, where there are several filters.
    merged: Vec<Match>,
    len: usize,
}

impl Subscriptions {
    /// Makes room for so many filters more.
    pub fn reserve(&mut self, additional: usize) {
        self.filters.reserve(additional);
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Subscribes `target`, or replaces what it had for this filter \[MQTT-3.8.4-3\].
    pub fn subscribe(&mut self, filter: &str, target: Target, wanted: Subscription) -> Added {
        let entry = Match::new(target, wanted);
        self.epochs.bump(filter);
        let added = match self.filters.find(filter) {
            Some(id) => {
                let is_new = self.filters.value_mut(id).set(entry);
                Added { filter: id, is_new, is_first: false }
            }
            None => {
                let filter = self.filters.insert(filter, Subscribers::One(entry));
                Added { filter, is_new: true, is_first: true }
            }
        };
        self.len += usize::from(added.is_new);
        added
    }

    /// Ends a subscription. `false` if there was none \[MQTT-3.10.4-1\]. `gone` gets the filter
    /// when nobody here subscribes to it any more.
    pub fn unsubscribe(
        &mut self,
        filter: FilterId,
        target: Target,
        gone: impl FnOnce(&str),
    ) -> bool {
        let subscribers = self.filters.value_mut(filter);
        let Ok(at) = subscribers.position(target.pack()) else { return false };
        let was_last = subscribers.as_slice().len() == 1;
        if !was_last {
            subscribers.remove(at);
        }
        let text = self.filters.filter(filter);
        self.epochs.bump(text);
        if was_last {
            gone(text);
            self.filters.remove(filter);
        }
        self.len -= 1;
        true
    }

    /// The filter with this text, if anybody here subscribes to it.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<FilterId> {
        self.filters.find(filter)
    }

    /// The text of a filter.
    #[must_use]
    pub fn filter(&self, id: FilterId) -> &str {
        self.filters.filter(id)
    }

    /// What `target` has for the filter `id`.
    #[must_use]
    pub fn get(&self, id: FilterId, target: Target) -> Option<Subscription> {
        let subscribers = self.filters.value(id);
        let at = subscribers.position(target.pack()).ok()?;
        Some(subscribers.as_slice()[at].subscription())
    }

    /// Where a message to `topic` goes. Once for each message, so it is part of its caller wherever
    /// else it is asked.
    #[inline(always)]
    pub fn route(&mut self, topic: &str, remote: &mut impl Remote) -> Route<'_> {
        let index = match self.cache.find(topic) {
            Some(index) if self.is_current(index, remote) => index,
            Some(index) => self.renew(index, topic, remote),
            None => match self.cache.insert(topic) {
                Some(index) => self.renew(index, topic, remote),
                None => {
                    let source = self.resolve(topic);
                    return self.as_route(source, &[], remote.workers(topic));
                }
            },
        };
        let cached = self.cache.route(index);
        self.as_route(cached.source, &cached.merged, cached.remote_workers)
    }

    #[inline]
    fn as_route<'a>(&'a self, source: Source, merged: &'a [Match], workers: u64) -> Route<'a> {
        let matches = match source {
            Source::Nobody => &[],
            Source::One(id) => self.filters.value(id).as_slice(),
            Source::Merged => merged,
            Source::TooMany => &self.merged,
        };
        let may_overlap = matches!(source, Source::Merged | Source::TooMany);
        Route { matches, may_overlap, workers }
    }

    #[inline]
    fn is_current(&self, index: usize, remote: &impl Remote) -> bool {
        let cached = self.cache.route(index);
        cached.source != Source::TooMany
            && cached.local_stamp == self.epochs.stamp(&cached.slots)
            && cached.remote_stamp == remote.stamp(&cached.slots)
    }

    /// Looks the topic up anew for its entry in the cache.
    fn renew(&mut self, index: usize, topic: &str, remote: &mut impl Remote) -> usize {
        let mut source = self.resolve(topic);
        let merged = if source == Source::TooMany { &self.merged[..] } else { &[] };
        if self.cache.keep_merged(index, merged) && source == Source::TooMany {
            source = Source::Merged;
        }
        let cached = self.cache.route_mut(index);
        cached.local_stamp = self.epochs.stamp(&cached.slots);
        // The stamp is taken before the look-up: a change in between only costs another one.
        cached.remote_stamp = remote.stamp(&cached.slots);
        cached.remote_workers = remote.workers(topic);
        cached.source = source;
        index
    }

    /// Looks a topic up. Where several filters match, their subscribers are in `merged` afterwards.
    fn resolve(&mut self, topic: &str) -> Source {
        self.found.clear();
        let found = &mut self.found;
        self.filters.matches(topic, &mut self.scratch, |id, _| found.push(id));
        match self.found[..] {
            [] => Source::Nobody,
            [only] => Source::One(only),
            _ => {
                self.merged.clear();
                for &id in &self.found {
                    self.merged.extend_from_slice(self.filters.value(id).as_slice());
                }
                self.merged.sort_by_key(|entry| entry.target);
                Source::TooMany
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_subscription_takes_sixteen_bytes() {
        assert_eq!(size_of::<Match>(), 12);
        assert_eq!(size_of::<Subscribers>(), 16);
    }
}
