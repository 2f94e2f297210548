//! Narrow invalidation of cached routes.
//!
//! A counter for every filter would be exact and too large; one for the whole index would empty
//! the cache at each connect. So a filter belongs to one of [`EPOCH_SLOTS`] counters, by the
//! literal levels it begins with, and a topic depends on the four that any filter matching it can
//! belong to. The counters only grow, so their sum says whether any of them has changed.

use ahash::RandomState;
use dunlin_packets::levels;

/// How many counters there are.
pub const EPOCH_SLOTS: usize = 2048;

const GLOBAL: u16 = 0;
const FIRST_LEVEL: u16 = 256;
const SECOND_LEVEL: u16 = 512;
const EXACT: u16 = 1024;

fn hash(parts: (&str, &str)) -> u64 {
    // Fixed keys: the slots of all workers have to agree, and a collision only costs a look-up.
    RandomState::with_seeds(0x6475, 0x6e6c, 0x696e, 0x2121).hash_one(parts)
}

fn slot(base: u16, count: u16, parts: (&str, &str)) -> u16 {
    base + (hash(parts) % u64::from(count)) as u16
}

/// The counter a change to `filter` belongs to.
#[must_use]
pub fn filter_slot(filter: &str) -> u16 {
    if !filter.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        return slot(EXACT, 1024, (filter, ""));
    }
    let mut levels = levels(filter);
    let is_literal = |level: Option<&str>| level.is_some_and(|text| text != "+" && text != "#");
    let (first, second) = (levels.next(), levels.next());
    match (first, second) {
        (Some(first), Some(second)) if is_literal(Some(first)) && is_literal(Some(second)) => {
            slot(SECOND_LEVEL, 512, (first, second))
        }
        (Some(first), _) if is_literal(Some(first)) => slot(FIRST_LEVEL, 256, (first, "")),
        _ => GLOBAL,
    }
}

/// The counters that a topic's route depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSlots([u16; 4]);

impl TopicSlots {
    /// Those of `topic`.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        let mut levels = levels(topic);
        let first = levels.next().unwrap_or("");
        let second = levels.next().unwrap_or("");
        Self([
            GLOBAL,
            slot(FIRST_LEVEL, 256, (first, "")),
            slot(SECOND_LEVEL, 512, (first, second)),
            slot(EXACT, 1024, (topic, "")),
        ])
    }

    /// The four of them.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.into_iter()
    }
}

/// The counters of one index.
#[derive(Debug)]
pub struct Epochs {
    counters: Box<[u32]>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self { counters: vec![0; EPOCH_SLOTS].into_boxed_slice() }
    }
}

impl Epochs {
    pub(crate) fn bump(&mut self, filter: &str) {
        let counter = &mut self.counters[usize::from(filter_slot(filter))];
        *counter = counter.wrapping_add(1);
    }

    #[inline]
    pub(crate) fn stamp(&self, slots: &TopicSlots) -> u64 {
        slots.iter().map(|slot| u64::from(self.counters[usize::from(slot)])).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_packets::filter_matches;

    #[test]
    fn a_topic_depends_on_the_slot_of_every_filter_that_matches_it() {
        let words = ["", "a", "b", "+", "#", "$x"];
        for first in words {
            for second in words {
                for third in words {
                    for filter in [
                        first.to_owned(),
                        format!("{first}/{second}"),
                        format!("{first}/{second}/{third}"),
                    ] {
                        for topic in
                            ["a", "a/b", "a/b/a", "/", "/a", "$x/a", "a/", "a//b", "b/a/b/a"]
                        {
                            if filter_matches(&filter, topic) {
                                let slot = filter_slot(&filter);
                                assert!(
                                    TopicSlots::of(topic).iter().any(|s| s == slot),
                                    "{filter} {topic}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
