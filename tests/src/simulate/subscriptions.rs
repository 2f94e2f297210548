//! What a session has asked to be subscribed to, as a history: between a SUBSCRIBE and its SUBACK
//! the old terms may hold or the new ones.

use std::collections::BTreeMap;

use dunlin_packets::RetainHandling;

use super::names::{FilterId, TopicId};
use super::publication::{PubId, Tick};

/// Terms of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The highest QoS.
    pub qos: u8,
    /// Not what the client itself publishes.
    pub no_local: bool,
    /// RETAIN as the publisher set it.
    pub as_published: bool,
    /// When retained messages are sent.
    pub handling: RetainHandling,
    /// Subscription identifier; 0 for none.
    pub identifier: u32,
}

/// A SUBSCRIBE or an UNSUBSCRIBE for one filter.
#[derive(Clone, Debug)]
pub struct Change {
    /// The broker cannot have seen it before.
    pub sent: Tick,
    /// It was carried out by then: the answer has come.
    pub acked: Option<Tick>,
    /// The new terms; `None` for the end of the subscription.
    pub terms: Option<Terms>,
    /// It certainly asks for retained messages.
    pub wants_retained: bool,
    /// By topic, the last publication that was certainly retained or deleted at `sent`, and its
    /// place in the order of all sendings: what is replayed is not older.
    pub floors: Vec<(TopicId, PubId, u64)>,
}

impl Change {
    /// Whether carrying it out may send what is retained under `topic` and was last sent at
    /// `place`.
    #[must_use]
    pub fn may_replay(&self, topic: TopicId, place: u64) -> bool {
        let wants = self.terms.is_some_and(|terms| terms.handling != RetainHandling::Never);
        wants && self.floors.iter().all(|&(other, _, floor)| other != topic || place >= floor)
    }
}

/// All filters of one session, from its beginning.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    by_filter: BTreeMap<FilterId, Vec<Change>>,
}

impl Subscriptions {
    /// A request was sent. Returns its place, to be [acknowledged](Self::acknowledge).
    pub fn request(&mut self, filter: FilterId, change: Change) -> usize {
        let changes = self.by_filter.entry(filter).or_default();
        changes.push(change);
        changes.len() - 1
    }

    /// The answer has come.
    pub fn acknowledge(&mut self, filter: FilterId, place: usize, tick: Tick) -> Option<&Change> {
        let change = self.by_filter.get_mut(&filter)?.get_mut(place)?;
        change.acked = Some(tick);
        Some(change)
    }

    /// Filters that were ever asked for.
    pub fn filters(&self) -> impl Iterator<Item = (FilterId, &[Change])> {
        self.by_filter.iter().map(|(&filter, changes)| (filter, &changes[..]))
    }

    /// Whether there certainly is no subscription to `filter`, and none under way.
    #[must_use]
    pub fn is_certainly_absent(&self, filter: FilterId) -> bool {
        let last = self.by_filter.get(&filter).and_then(|changes| changes.last());
        last.is_none_or(|last| last.acked.is_some() && last.terms.is_none())
    }

    /// Whether there may be a subscription to `filter` now.
    #[must_use]
    pub fn is_possible(&self, filter: FilterId) -> bool {
        !self.is_certainly_absent(filter)
    }
}

/// Whether a subscription was certainly there from `from` until `to`, all the time on terms that
/// are `good`.
pub fn is_certain(changes: &[Change], from: Tick, to: Tick, good: impl Fn(&Terms) -> bool) -> bool {
    let certain = changes.iter().rposition(|change| change.acked.is_some_and(|at| at < from));
    let Some(certain) = certain else { return false };
    let is_good = |change: &Change| change.terms.as_ref().is_some_and(&good);
    is_good(&changes[certain])
        && changes[certain + 1..].iter().all(|change| change.sent > to || is_good(change))
}

/// All terms a subscription may have had at some moment between `from` and `to`.
pub fn possible(changes: &[Change], from: Tick, to: Tick) -> impl Iterator<Item = &Terms> {
    let mut end = Tick::MAX;
    changes.iter().rev().filter_map(move |change| {
        let overlaps = change.sent <= to && end >= from;
        if let Some(acked) = change.acked {
            end = end.min(acked);
        }
        change.terms.as_ref().filter(|_| overlaps)
    })
}
