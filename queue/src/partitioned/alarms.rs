//! When something of a queue has to be looked at, so that a timer costs what is due, however many
//! partitions and groups there are.
//!
//! Each place has one alarm at most, the earliest that was set, and keeps its time itself: a lane
//! that leases a million messages sets one, which rings when the first lease would end. Then it is
//! set anew for what there is.

use std::collections::BTreeSet;

use crate::Time;

use super::GroupId;

/// A partition of the queue ([`GroupId::EVERYBODY`]), or a group's lane in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) group: GroupId,
    pub(crate) partition: u16,
}

impl Place {
    pub(crate) fn of_queue(partition: u16) -> Self {
        Self { group: GroupId::EVERYBODY, partition }
    }

    pub(crate) fn is_of_queue(self) -> bool {
        self.group == GroupId::EVERYBODY
    }
}

#[derive(Debug)]
pub(crate) struct Alarms {
    set: BTreeSet<(Time, Place)>,
    /// The first of them, as that is asked for with every message.
    next: Time,
}

impl Default for Alarms {
    fn default() -> Self {
        Self { set: BTreeSet::new(), next: Time::NEVER }
    }
}

impl Alarms {
    /// Has `place` looked at by `at`; `alarm_at` is when it is already.
    #[inline]
    pub(crate) fn set(&mut self, alarm_at: &mut Time, at: Time, place: Place) {
        if at < *alarm_at {
            self.set_earlier(alarm_at, at, place);
        }
    }

    #[cold]
    fn set_earlier(&mut self, alarm_at: &mut Time, at: Time, place: Place) {
        self.unset(alarm_at, place);
        *alarm_at = at;
        self.set.insert((at, place));
        self.next = self.next.min(at);
    }

    /// There is nothing to look at.
    pub(crate) fn unset(&mut self, alarm_at: &mut Time, place: Place) {
        if *alarm_at != Time::NEVER {
            self.set.remove(&(*alarm_at, place));
            *alarm_at = Time::NEVER;
            self.note_first();
        }
    }

    fn note_first(&mut self) {
        self.next = self.set.first().map_or(Time::NEVER, |&(at, _)| at);
    }

    /// When the next one rings.
    #[inline]
    pub(crate) fn next(&self) -> Time {
        self.next
    }

    /// Takes the next one that is due. Who is there has none now.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Place> {
        if self.next() > now {
            return None;
        }
        let place = self.set.pop_first().map(|(_, place)| place);
        self.note_first();
        place
    }

    /// Gives memory back if none is set.
    pub(crate) fn shrink(&mut self) {
        if self.set.is_empty() {
            // An empty set keeps a node.
            self.set = BTreeSet::new();
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        // Nodes are half full at least.
        2 * self.set.len() * size_of::<(Time, Place)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_alarm_the_earliest_however_many_were_set() {
        let (mut alarms, mut alarm_at) = (Alarms::default(), Time::NEVER);
        let place = Place { group: GroupId(3), partition: 7 };
        for at in [50, 90, 20, 40, 30] {
            alarms.set(&mut alarm_at, Time::from_millis(at), place);
            assert_eq!(alarms.set.len(), 1);
        }
        assert_eq!(alarms.next(), Time::from_millis(20));
        assert_eq!(alarms.pop_due(Time::from_millis(19)), None);
        assert_eq!(alarms.pop_due(Time::from_millis(20)), Some(place));
        assert_eq!(alarms.next(), Time::NEVER);
    }
}
