//! Messages of one partition that a group's member has, in the order in which their leases end.
//!
//! All belong to the owner of the partition, so none says whose it is.

use std::collections::HashMap;

use ahash::RandomState;
use slab::Slab;

use crate::Time;

const NONE: u32 = u32::MAX;

/// A message out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) offset: u64,
    pub(crate) deadline: Time,
    /// 1 for the first delivery.
    pub(crate) attempt: u32,
    pub(crate) bytes: u32,
    pub(crate) key: u32,
    pub(crate) priority: u8,
}

#[derive(Debug)]
struct Node {
    lease: Lease,
    before: u32,
    after: u32,
}

/// A list by deadline, in a slab. Leases are all of one duration, so a new one goes to the end.
#[derive(Debug)]
pub(crate) struct Leases {
    nodes: Slab<Node>,
    places: HashMap<u64, u32, RandomState>,
    first: u32,
    last: u32,
}

impl Default for Leases {
    fn default() -> Self {
        Self { nodes: Slab::new(), places: HashMap::default(), first: NONE, last: NONE }
    }
}

impl Leases {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.places.contains_key(&offset)
    }

    /// The lease of a message.
    pub(crate) fn get(&self, offset: u64) -> Option<&Lease> {
        let place = *self.places.get(&offset)?;
        self.nodes.get(place as usize).map(|node| &node.lease)
    }

    /// When the next one ends.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.nodes.get(self.first as usize).map(|node| node.lease.deadline)
    }

    #[inline]
    pub(crate) fn insert(&mut self, lease: Lease) {
        let mut before = self.last;
        while let Some(node) = self.nodes.get(before as usize)
            && node.lease.deadline > lease.deadline
        {
            // Only after the duration was made shorter, or when an extension was cut.
            before = node.before;
        }
        let after = match self.nodes.get(before as usize) {
            Some(node) => node.after,
            None => self.first,
        };
        let at = self.nodes.insert(Node { lease, before, after }) as u32;
        *self.after_of(before) = at;
        *self.before_of(after) = at;
        self.places.insert(lease.offset, at);
    }

    #[inline]
    pub(crate) fn remove(&mut self, offset: u64) -> Option<Lease> {
        let at = self.places.remove(&offset)?;
        let Node { lease, before, after } = self.nodes.remove(at as usize);
        *self.after_of(before) = after;
        *self.before_of(after) = before;
        Some(lease)
    }

    /// Takes the one that ends first.
    pub(crate) fn pop(&mut self) -> Option<Lease> {
        let offset = self.nodes.get(self.first as usize)?.lease.offset;
        self.remove(offset)
    }

    /// Takes the one that ends first, if it has.
    pub(crate) fn pop_ended(&mut self, now: Time) -> Option<Lease> {
        if self.deadline()? > now { None } else { self.pop() }
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.nodes.iter().map(|(_, node)| &node.lease)
    }

    fn after_of(&mut self, at: u32) -> &mut u32 {
        match self.nodes.get_mut(at as usize) {
            Some(node) => &mut node.after,
            None => &mut self.first,
        }
    }

    fn before_of(&mut self, at: u32) -> &mut u32 {
        match self.nodes.get_mut(at as usize) {
            Some(node) => &mut node.before,
            None => &mut self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(offset: u64, deadline: u64) -> Lease {
        let deadline = Time::from_millis(deadline);
        Lease { offset, deadline, attempt: 1, bytes: 0, key: 0, priority: 0 }
    }

    #[test]
    fn leases_end_in_the_order_of_their_deadlines() {
        let mut leases = Leases::default();
        for (offset, deadline) in [(1, 10), (2, 20), (3, 15), (4, 5), (5, 20)] {
            leases.insert(lease(offset, deadline));
        }
        assert!(leases.remove(3).is_some());
        assert!(leases.remove(3).is_none());
        assert_eq!(leases.deadline(), Some(Time::from_millis(5)));
        let mut order = Vec::new();
        while let Some(lease) = leases.pop_ended(Time::from_millis(20)) {
            order.push(lease.offset);
        }
        assert_eq!(order, [4, 1, 2, 5]);
        leases.insert(lease(9, 1));
        assert_eq!((leases.len(), leases.contains(9)), (1, true));
    }
}
