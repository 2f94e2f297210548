//! From a topic name to who wants it.
//!
//! * [`FilterMap`] maps topic filters to values and finds all that match a topic: one hash table
//!   for filters without wildcards, a compact trie for the others. It is used twice: by a worker
//!   for its own sessions, and broker-wide for the set of workers with an interest.
//! * [`Subscriptions`] is one worker's index: who subscribes with which options, behind a
//!   cache of recent topics.
//! * [`ShareGroups`] holds the members of shared subscriptions and picks the next one.
//! * [`RetainedIndex`] is the other direction: from a filter to the stored topics it matches.
//!
//! No threads, no clock, no allocation on a cached route.

mod arena;
mod cache;
mod epoch;
mod filter_map;
mod group;
mod retained;
mod subscriptions;
mod target;
mod trie;

pub use epoch::{EPOCH_SLOTS, Epochs, TopicSlots, filter_slot};
pub use filter_map::{FilterId, FilterMap, MatchScratch};
pub use group::{GroupId, Member, ShareGroups, Strategy};
pub use retained::RetainedIndex;
pub use subscriptions::{Added, Match, Remote, Route, Subscription, Subscriptions};
pub use target::{QueueId, SubscriberId, Target};
