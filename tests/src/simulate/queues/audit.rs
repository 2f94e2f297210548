//! What the broker owes the clients of queues.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_queue::Time;

use super::{ATTEMPTS, LEASE_MS, LOOK_MS};

/// A delivery as a consumer got it.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) payload: String,
    pub(super) message_id: String,
    pub(super) attempt: u32,
}

/// Who has a message of a group, and until when.
#[derive(Clone, Copy, Debug)]
struct Lease {
    consumer: usize,
    until: Time,
}

/// What has happened, by queue's name and group where that matters. Payloads are `queue/key/number`.
#[derive(Debug, Default)]
pub(super) struct Audit {
    acknowledged: BTreeSet<String>,
    sent: BTreeSet<String>,
    /// Which message a payload is.
    messages: BTreeMap<String, String>,
    received: BTreeSet<(String, String)>,
    confirmed: BTreeSet<(String, String)>,
    /// The highest number of a key that a group got.
    last: BTreeMap<(String, String), u64>,
    leases: BTreeMap<(String, String), Lease>,
}

impl Audit {
    pub(super) fn send(&mut self, payload: &str) {
        self.sent.insert(payload.to_owned());
    }

    pub(super) fn acknowledge(&mut self, payload: &str) {
        self.acknowledged.insert(payload.to_owned());
    }

    pub(super) fn receive(
        &mut self,
        consumer: usize,
        group: &str,
        got: &Got,
        now: Time,
    ) -> Result<(), String> {
        let Got { payload, message_id, attempt } = got;
        if !self.sent.contains(payload) {
            return Err(format!("{payload} was published by nobody"));
        }
        let known = self.messages.entry(payload.clone()).or_insert_with(|| message_id.clone());
        if known != message_id {
            return Err(format!("{payload} is in the queue twice: {known} and {message_id}"));
        }
        if *attempt > ATTEMPTS {
            return Err(format!("{payload} was tried {attempt} times"));
        }
        let place = (group.to_owned(), payload.clone());
        if self.confirmed.contains(&place) {
            return Err(format!("{payload} comes again to {group}, though it was settled"));
        }
        if let Some(lease) = self.leases.get(&place)
            && lease.consumer != consumer
            && lease.until > now
        {
            let other = lease.consumer;
            return Err(format!(
                "{payload} is consumer {other}'s, and consumer {consumer} gets it"
            ));
        }
        // It may have come any time since the last look.
        let until = now.plus_millis(LEASE_MS - LOOK_MS);
        self.leases.insert(place.clone(), Lease { consumer, until });
        if self.received.insert(place) {
            let (key, number) = payload.rsplit_once('/').unwrap_or_default();
            let number: u64 = number.parse().unwrap_or_default();
            let last = self.last.entry((group.to_owned(), key.to_owned())).or_default();
            if number < *last {
                return Err(format!("{payload} comes to {group} behind {last}"));
            }
            *last = number;
        }
        Ok(())
    }

    /// A message was sent to a client that was gone by then.
    pub(super) fn lose(&mut self, group: &str, payload: &str) {
        self.received.insert((group.to_owned(), payload.to_owned()));
    }

    /// A consumer has said what becomes of a message, or has gone.
    pub(super) fn give_up(&mut self, consumer: usize, group: &str, payload: &str) {
        let place = (group.to_owned(), payload.to_owned());
        if self.leases.get(&place).is_some_and(|lease| lease.consumer == consumer) {
            self.leases.remove(&place);
        }
    }

    /// The broker has confirmed that a message is settled.
    pub(super) fn confirm(&mut self, group: &str, payload: &str) {
        self.confirmed.insert((group.to_owned(), payload.to_owned()));
    }

    /// Nobody has anything.
    pub(super) fn restarted(&mut self) {
        self.leases.clear();
    }

    /// Deliveries so far, each message and group once.
    pub(super) fn received(&self) -> usize {
        self.received.len()
    }

    /// Whether every group has got all that was acknowledged.
    pub(super) fn everything_came(&self, groups: &[&str]) -> Result<(), String> {
        for group in groups {
            let missing: Vec<_> = self
                .acknowledged
                .iter()
                .filter(|it| !self.received.contains(&((*group).to_owned(), (*it).clone())))
                .collect();
            if !missing.is_empty() {
                return Err(format!("{group} never got {missing:?}"));
            }
        }
        Ok(())
    }
}
