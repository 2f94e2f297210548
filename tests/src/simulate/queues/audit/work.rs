//! Groups of work queues.
//!
//! * A publication is in its queue once, also at QoS 2 over crashes; once more for each redrive.
//! * Messages of a key come to a group for the first time in their order.
//! * While a consumer has a message, no other of its group is given that or another one of the
//!   partition.
//! * No consumer has more than its prefetch.
//! * What was settled and confirmed never comes again, and what was put off not before its time.
//! * Attempts are counted one by one, none is forgotten but in a crash, and none is too many.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_queue::Time;

use super::super::delivery::Delivery;
use super::super::{ATTEMPTS, leased_until};
use super::{Place, key_of};

/// Who has a message of a group, and at least until when.
#[derive(Clone, Debug)]
struct Lease {
    consumer: usize,
    until: Time,
    partition: String,
    /// That of the delivery.
    packet_id: u16,
}

/// How often a message was tried.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    last: u64,
    most: u64,
    /// The life of the broker in which that was.
    life: u32,
}

#[derive(Debug, Default)]
pub(in super::super) struct Work {
    /// Keys do not have to be in order.
    pub(in super::super) unordered: BTreeSet<&'static str>,
    pub(in super::super) prefetch: usize,
    /// Messages that consumers have may be gone for the sake of newer ones.
    pub(in super::super) dropping: BTreeSet<&'static str>,
    /// Which messages a payload is.
    messages: BTreeMap<String, BTreeSet<String>>,
    received: BTreeSet<(&'static str, String)>,
    /// Messages with identifiers, and what was in them.
    seen: BTreeMap<Place, String>,
    settled: BTreeSet<Place>,
    /// Settled by an acknowledgement: the broker does not confirm that, so a power cut may undo it.
    acknowledged: BTreeSet<Place>,
    attempts: BTreeMap<Place, Attempts>,
    /// Connections that a group has dropped.
    drops: BTreeMap<&'static str, u64>,
    /// Attempts by clients before 5.0, who are not told which message it is.
    untold: BTreeMap<(&'static str, String), u64>,
    not_before: BTreeMap<Place, Time>,
    /// The highest number of a key that a group got.
    last: BTreeMap<(&'static str, String), u64>,
    leases: BTreeMap<Place, Lease>,
    life: u32,
    /// When a consumer has last said something.
    heard: BTreeMap<usize, Time>,
}

impl Work {
    /// A consumer says something.
    pub(in super::super) fn hear(&mut self, consumer: usize, now: Time) {
        self.heard.insert(consumer, now);
    }

    /// A consumer has got a message, of which there may be so many in the queue.
    pub(super) fn receive(
        &mut self,
        consumer: usize,
        place: Place,
        delivery: &Delivery,
        copies: usize,
        now: Time,
    ) -> Result<(), String> {
        let (payload, group) = (&delivery.payload, place.0);
        if !place.1.is_empty() {
            let known = self.messages.entry(payload.clone()).or_default();
            known.insert(place.1.clone());
            if known.len() > copies {
                return Err(format!(
                    "{payload} is in the queue more than {copies} times: {known:?}"
                ));
            }
            if self.is_settled(&place) {
                return Err(format!("{payload} comes again to {group}, though it was settled"));
            }
            if self.not_before.get(&place).is_some_and(|time| now < *time) {
                return Err(format!("{payload} comes to {group} before its delay is over"));
            }
            self.count_attempt(&place, delivery, false)?;
            self.lease(consumer, &place, delivery, now)?;
            self.seen.insert(place, payload.clone());
        } else {
            *self.untold.entry((group, payload.clone())).or_default() += 1;
        }
        if self.received.insert((group, payload.clone())) {
            self.check_order(group, payload)?;
        }
        Ok(())
    }

    fn check_order(&mut self, group: &'static str, payload: &str) -> Result<(), String> {
        let (key, number) = key_of(payload);
        // What was dropped may be back after a crash.
        if self.unordered.iter().chain(&self.dropping).any(|queue| key.starts_with(queue)) {
            return Ok(());
        }
        let last = self.last.entry((group, key.to_owned())).or_default();
        if number < *last {
            return Err(format!("{payload} comes to {group} behind {last}"));
        }
        *last = number;
        Ok(())
    }

    fn count_attempt(
        &mut self,
        place: &Place,
        delivery: &Delivery,
        is_lost: bool,
    ) -> Result<(), String> {
        let (payload, attempt, life) = (&delivery.payload, delivery.number("attempt"), self.life);
        if !(1..=u64::from(ATTEMPTS)).contains(&attempt) {
            return Err(format!("{payload} is tried for the {attempt}. time"));
        }
        let untold = self.untold(place.0, payload);
        let first = Attempts { last: 0, most: 0, life };
        let known = self.attempts.entry(place.clone()).or_insert(first);
        let is_next = (known.last + 1..=known.last + 1 + untold).contains(&attempt);
        let may_be = is_next || known.life != life && attempt <= known.most + 1 + untold;
        if !may_be && !is_lost {
            let Attempts { last, .. } = known;
            return Err(format!("{payload}, group {}: attempt {attempt} behind {last}", place.0));
        }
        known.last = if known.life == life { known.last.max(attempt) } else { attempt };
        (known.most, known.life) = (known.most.max(attempt), life);
        Ok(())
    }

    fn lease(
        &mut self,
        consumer: usize,
        place: &Place,
        delivery: &Delivery,
        now: Time,
    ) -> Result<(), String> {
        let (payload, group) = (&delivery.payload, place.0);
        let partition = format!("{}:{}", delivery.user("queue"), delivery.user("partition"));
        let is_others = |(of, lease): &(&Place, &Lease)| {
            of.0 == group
                && lease.partition == partition
                && lease.consumer != consumer
                && lease.until > now
                && !self.dropping.contains(delivery.user("queue"))
        };
        if let Some((of, other)) = self.leases.iter().find(is_others) {
            let other = other.consumer;
            return Err(format!(
                "consumer {consumer} gets {payload}, and consumer {other} has {} of {partition}",
                of.1
            ));
        }
        let until = leased_until(now, self.heard.get(&consumer).copied().unwrap_or(now));
        let packet_id = delivery.packet_id;
        self.leases.insert(place.clone(), Lease { consumer, until, partition, packet_id });
        let held = self.leases.iter().filter(|(_, it)| it.consumer == consumer && it.until > now);
        let held: Vec<_> = held.map(|(place, lease)| (&place.1, lease.until)).collect();
        if held.len() > self.prefetch && !self.dropping.contains(delivery.user("queue")) {
            let prefetch = self.prefetch;
            return Err(format!("consumer {consumer} has more than {prefetch}: {held:?}"));
        }
        Ok(())
    }

    /// A message was sent to a client that was gone by then: an attempt all the same.
    pub(in super::super) fn lose(
        &mut self,
        group: &'static str,
        delivery: &Delivery,
    ) -> Result<(), String> {
        self.received.insert((group, delivery.payload.clone()));
        if delivery.id().is_empty() {
            *self.untold.entry((group, delivery.payload.clone())).or_default() += 1;
            return Ok(());
        }
        let place = (group, delivery.id().to_owned());
        self.count_attempt(&place, delivery, true)?;
        self.messages.entry(delivery.payload.clone()).or_default().insert(place.1.clone());
        self.seen.insert(place, delivery.payload.clone());
        Ok(())
    }

    /// Whether a consumer certainly has a message, by the delivery with that packet identifier.
    pub(in super::super) fn is_leased(
        &self,
        consumer: usize,
        place: &Place,
        packet_id: u16,
        now: Time,
    ) -> bool {
        self.leases.get(place).is_some_and(|lease| {
            (lease.consumer, lease.packet_id) == (consumer, packet_id) && lease.until > now
        })
    }

    /// A consumer has said what becomes of a message, or has gone.
    pub(in super::super) fn give_up(&mut self, consumer: usize, place: &Place) {
        if self.leases.get(place).is_some_and(|lease| lease.consumer == consumer) {
            self.leases.remove(place);
        }
    }

    /// The broker has confirmed that a message is settled.
    pub(in super::super) fn confirm(&mut self, place: Place) {
        self.settled.insert(place);
    }

    /// The broker has confirmed that a message comes again, but not before.
    pub(in super::super) fn put_off(&mut self, place: Place, until: Time) {
        self.not_before.insert(place, until);
    }

    /// The broker has confirmed that a lease is longer.
    pub(in super::super) fn extend(&mut self, consumer: usize, place: &Place, until: Time) {
        if let Some(lease) = self.leases.get_mut(place).filter(|it| it.consumer == consumer) {
            lease.until = lease.until.max(until);
        }
    }

    /// The broker is at rest and has a consumer's acknowledgement.
    pub(in super::super) fn acknowledge(&mut self, place: Place) {
        self.acknowledged.insert(place);
    }

    /// Nobody has anything.
    pub(super) fn restarted(&mut self, is_cut: bool) {
        if is_cut {
            self.acknowledged.clear();
        }
        self.leases.clear();
        self.not_before.clear();
        self.life += 1;
    }

    pub(super) fn has(&self, group: &'static str, payload: &str) -> bool {
        self.received.contains(&(group, payload.to_owned()))
    }

    pub(super) fn is_settled(&self, place: &Place) -> bool {
        self.settled.contains(place) || self.acknowledged.contains(place)
    }

    /// What is written to a connection that is dropped is an attempt that nobody sees.
    pub(super) fn dropped(&mut self, group: &'static str) {
        *self.drops.entry(group).or_default() += 1;
    }

    /// Attempts that may have been made without being seen.
    fn untold(&self, group: &'static str, payload: &str) -> u64 {
        let untold = self.untold.get(&(group, payload.to_owned())).copied().unwrap_or(0);
        untold + self.drops.get(group).copied().unwrap_or(0)
    }

    /// Whether a message may be gone for the sake of newer ones.
    pub(super) fn may_drop(&self, id: &str) -> bool {
        self.dropping.iter().any(|queue| id.starts_with(queue))
    }

    /// The most attempts that a message can have had.
    pub(super) fn most_attempts(&self, place: &Place, payload: &str) -> u64 {
        let told = self.attempts.get(place).map_or(0, |attempts| attempts.most);
        told + self.untold(place.0, payload)
    }

    /// How many messages of a payload a group may have got.
    pub(super) fn copies(&self, group: &'static str, payload: &str) -> usize {
        let seen = self.seen.iter().filter(|((of, _), it)| *of == group && *it == payload);
        seen.count() + self.untold(group, payload) as usize
    }

    pub(super) fn received(&self) -> usize {
        self.seen.len() + self.received.len()
    }
}
