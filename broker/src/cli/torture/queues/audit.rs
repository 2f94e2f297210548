//! What the groups of a queue got, and what of it is wrong.
//!
//! Order has two halves. Messages of a key stand in the queue in the order they were published, of
//! those at QoS 1 that are there more than once the first. And messages of a key are given to a
//! group in the order they stand there, as far as they are given for the first time: not by
//! `attempt`, and not by the flag of the packet. A kill begins that anew, as what was given and
//! not settled is given once more, and the broker need not know that it was.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use dunlin_packets::QoS;
use dunlin_queue::Time;

use super::Group;
use super::delivery::{Attempt, Delivery, MessageId};
use crate::cli::torture::publication::{Publication, QUEUE_SOURCE};
use crate::cli::torture::receipts::{Published, Sequences};

/// What is wrong that is told in words, at most.
const EXAMPLES_MAX: usize = 12;

/// Source, key and sequence number of a publication.
type Line = (u16, u32, u32);

/// What has come.
#[derive(Debug)]
pub(in crate::cli::torture) struct Audit {
    /// Which publication a message is.
    messages: HashMap<MessageId, Publication>,
    /// The first message that is this publication.
    first: BTreeMap<Line, MessageId>,
    /// By [`Group`].
    groups: [GroupAudit; 2],
    /// Publications at QoS 1, and QoS 2, that are one more time in the queue.
    pub(in crate::cli::torture) duplicated: [u64; 2],
    /// Messages that are two publications.
    pub(in crate::cli::torture) mixed_up: u64,
    /// In words, as far as there is room.
    pub(in crate::cli::torture) examples: Vec<String>,
    heard: Time,
}

/// What one group got.
#[derive(Debug)]
pub(in crate::cli::torture) struct GroupAudit {
    /// By publisher.
    seen: Vec<Sequences>,
    /// Settled for good, and in which life of the broker it said so.
    confirmed: HashMap<MessageId, u32>,
    /// By source and key: in which life a message was last given for the first time, and the
    /// offset behind it.
    newest: HashMap<(u16, u32), (u32, u64)>,
    /// Different publications.
    pub(in crate::cli::torture) delivered: u64,
    /// Deliveries of what was delivered before.
    pub(in crate::cli::torture) redelivered: u64,
    pub(in crate::cli::torture) settled: u64,
    /// Deliveries of what was settled for good.
    pub(in crate::cli::torture) came_again: u64,
    pub(in crate::cli::torture) out_of_order: u64,
}

impl Audit {
    pub(in crate::cli::torture) fn new(publishers: usize) -> Self {
        Self {
            messages: HashMap::new(),
            first: BTreeMap::new(),
            groups: Group::ALL.map(|_| GroupAudit::new(publishers)),
            duplicated: [0; 2],
            mixed_up: 0,
            examples: Vec::new(),
            heard: Time::default(),
        }
    }

    /// A consumer got a publication of one of the publishers.
    pub(super) fn deliver(&mut self, group: Group, delivery: &Delivery, now: Time) {
        self.heard = now;
        if let Some(attempt) = delivery.attempt {
            self.identify(attempt.message, delivery.publication);
        }
        if let Some(wrong) = self.groups[group as usize].deliver(delivery) {
            let Delivery { publication, attempt, life, .. } = delivery;
            let message = attempt.map(|it| it.message.to_string()).unwrap_or_default();
            self.example(|| {
                format!(
                    "{message} in group {}, life {life}: {wrong} ({publication:?})",
                    group.name()
                )
            });
        }
    }

    fn identify(&mut self, message: MessageId, publication: Publication) {
        match self.messages.entry(message) {
            Entry::Occupied(known) if *known.get() == publication => return,
            Entry::Occupied(known) => {
                let known = *known.get();
                self.mixed_up += 1;
                return self.example(|| format!("{message} is {known:?} and {publication:?}"));
            }
            Entry::Vacant(vacant) => vacant.insert(publication),
        };
        let line = (publication.source, publication.key(), publication.sequence);
        let Some(first) = self.first.get_mut(&line) else {
            self.first.insert(line, message);
            return;
        };
        let other = *first;
        if message.offset < first.offset {
            *first = message;
        }
        let is_exactly_once = publication.qos() == QoS::ExactlyOnce;
        self.duplicated[usize::from(is_exactly_once)] += 1;
        if is_exactly_once {
            self.example(|| format!("{publication:?} is {message} and {other}"));
        }
    }

    /// The broker has confirmed that a message is settled, to a connection of that life.
    pub(super) fn settle(&mut self, group: Group, message: MessageId, life: u32) {
        let group = &mut self.groups[group as usize];
        group.settled += u64::from(group.confirmed.insert(message, life).is_none());
    }

    pub(super) fn silence_ms(&self, now: Time) -> u64 {
        now.millis_since(self.heard)
    }

    /// Sums up a figure of the groups.
    pub(in crate::cli::torture) fn sum(&self, of: fn(&GroupAudit) -> u64) -> u64 {
        self.groups.iter().map(of).sum()
    }

    /// What was acknowledged and a group never got.
    pub(in crate::cli::torture) fn lost(&self, published: &[Published]) -> u64 {
        self.groups.iter().flat_map(|group| group.missing(published)).map(|it| it.len()).sum()
    }

    /// The first losses of each group, in words.
    pub(in crate::cli::torture) fn lost_examples(&self, published: &[Published]) -> Vec<String> {
        let each = Group::ALL.into_iter().zip(&self.groups);
        each.flat_map(|(name, group)| {
            group.missing(published).zip(0..).flat_map(move |(missing, source)| {
                let first: Vec<u32> = missing.iter().take(3).collect();
                let tell = move |sequence| {
                    let publication = Publication { source: QUEUE_SOURCE + source, sequence };
                    format!("lost: {publication:?} in group {}", name.name())
                };
                first.into_iter().map(tell)
            })
        })
        .collect()
    }

    /// Publications that stand in the queue before an earlier one of their key, or elsewhere.
    pub(in crate::cli::torture) fn misplaced(&self) -> Vec<String> {
        let neighbours = self.first.iter().zip(self.first.iter().skip(1));
        neighbours
            .filter(|((a, _), (b, _))| (a.0, a.1) == (b.0, b.1))
            .filter(|((_, a), (_, b))| a.partition != b.partition || a.offset > b.offset)
            .map(|((a, before), (b, behind))| {
                format!("of key {:?} {} is {before}, and {} is {behind}", (a.0, a.1), a.2, b.2)
            })
            .collect()
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

impl GroupAudit {
    fn new(publishers: usize) -> Self {
        Self {
            seen: vec![Sequences::default(); publishers],
            confirmed: HashMap::new(),
            newest: HashMap::new(),
            delivered: 0,
            redelivered: 0,
            settled: 0,
            came_again: 0,
            out_of_order: 0,
        }
    }

    /// Says what is wrong with it.
    fn deliver(&mut self, delivery: &Delivery) -> Option<String> {
        let Publication { source, sequence } = delivery.publication;
        let is_new = self.seen[usize::from(source - QUEUE_SOURCE)].insert(sequence);
        self.delivered += u64::from(is_new);
        self.redelivered += u64::from(!is_new);
        let attempt = delivery.attempt?;
        // A connection of a former life may be read after what came to a later one.
        let settled = self.confirmed.get(&attempt.message);
        if let Some(life) = settled.filter(|life| **life <= delivery.life) {
            self.came_again += 1;
            return Some(format!("settled in life {life} and given again"));
        }
        let behind = self.place(delivery, attempt)?;
        self.out_of_order += 1;
        let first = if is_new { "first" } else { "again" };
        Some(format!("given {first} behind {behind}"))
    }

    /// Takes it up in the order of its key. Returns the offset it came behind, if it should
    /// not have.
    fn place(&mut self, delivery: &Delivery, attempt: Attempt) -> Option<u64> {
        if attempt.number > 1 || delivery.is_repeated {
            return None;
        }
        let offset = attempt.message.offset;
        let Delivery { publication, life, .. } = *delivery;
        let newest = self.newest.entry((publication.source, publication.key())).or_default();
        let (newest_life, next) = *newest;
        *newest = (*newest).max((life, offset + 1));
        (newest_life == life && offset < next).then(|| next - 1)
    }

    fn missing(&self, published: &[Published]) -> impl Iterator<Item = Sequences> {
        published.iter().zip(&self.seen).map(|(published, seen)| published.acked.beyond(0, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A publication with the key of the first: those of one key, in order.
    fn of_one_key(index: usize, qos: QoS) -> Publication {
        let all = (0..).map(|sequence| Publication { source: QUEUE_SOURCE, sequence });
        let mut same = all.filter(|it| it.key() == 0 && it.qos() == qos);
        same.nth(index).expect("there is no end of them")
    }

    fn delivery(publication: Publication, offset: u64) -> Delivery {
        let attempt = Attempt { message: MessageId { partition: 0, offset }, number: 1 };
        Delivery { publication, attempt: Some(attempt), is_repeated: false, life: 0 }
    }

    fn again(mut delivery: Delivery, number: u32) -> Delivery {
        delivery.attempt = delivery.attempt.map(|attempt| Attempt { number, ..attempt });
        delivery
    }

    /// What comes to a group, in this order.
    fn came(group: Group, deliveries: &[Delivery]) -> Audit {
        let mut audit = Audit::new(1);
        for delivery in deliveries {
            audit.deliver(group, delivery, Time::default());
        }
        audit
    }

    fn first(index: usize) -> Delivery {
        delivery(of_one_key(index, QoS::AtLeastOnce), index as u64)
    }

    #[test]
    fn what_one_group_got_and_another_did_not_is_lost() {
        let mut published = Published { count: 100, ..Published::default() };
        let acked = [0, 1].map(|index| of_one_key(index, QoS::AtLeastOnce).sequence);
        acked.into_iter().for_each(|sequence| assert!(published.acked.insert(sequence)));
        let published = [published];
        let mut audit = came(Group::Verbs, &[first(0), first(1)]);
        assert_eq!(audit.lost(&published), 2);
        audit.deliver(Group::Auto, &first(1), Time::default());
        assert_eq!(audit.lost(&published), 1);
        assert_eq!(audit.lost_examples(&published).len(), 1);
        // Whoever is not told about messages has them all the same.
        let untold = Delivery { attempt: None, ..first(0) };
        audit.deliver(Group::Auto, &untold, Time::default());
        assert_eq!(audit.lost(&published), 0);
        assert_eq!(audit.sum(|group| group.delivered), 4);
    }

    #[test]
    fn a_second_message_of_one_publication_is_a_fault_at_qos_2_only() {
        for (qos, expected) in [(QoS::AtLeastOnce, [1, 0]), (QoS::ExactlyOnce, [0, 1])] {
            let publication = of_one_key(0, qos);
            let one = delivery(publication, 1);
            let audit = came(Group::Auto, &[one, again(one, 2), delivery(publication, 2)]);
            assert_eq!(audit.duplicated, expected);
            assert_eq!((audit.sum(|group| group.redelivered), audit.mixed_up), (2, 0));
        }
    }

    #[test]
    fn a_message_that_is_two_publications_is_mixed_up() {
        let other = delivery(of_one_key(1, QoS::AtLeastOnce), 0);
        assert_eq!(came(Group::Auto, &[first(0), other]).mixed_up, 1);
    }

    #[test]
    fn what_was_settled_for_good_must_not_come_again_to_its_group() {
        let mut audit = came(Group::Verbs, &[Delivery { life: 1, ..first(0) }]);
        audit.settle(Group::Verbs, MessageId { partition: 0, offset: 0 }, 1);
        // Neither to another group, nor when it was sent by a life before.
        audit.deliver(Group::Auto, &Delivery { life: 1, ..first(0) }, Time::default());
        audit.deliver(Group::Verbs, &first(0), Time::default());
        assert_eq!(audit.sum(|group| group.came_again), 0);
        for (life, expected) in [(1, 1), (2, 2)] {
            let delivery = Delivery { life, ..again(first(0), 2) };
            audit.deliver(Group::Verbs, &delivery, Time::default());
            assert_eq!(audit.sum(|group| group.came_again), expected);
        }
    }

    #[test]
    fn first_deliveries_of_a_key_come_in_order_until_a_kill() {
        let repeated = Delivery { is_repeated: true, ..first(1) };
        let in_order = [first(0), first(2), again(first(1), 2), repeated, first(3)];
        assert_eq!(came(Group::Auto, &in_order).sum(|group| group.out_of_order), 0);
        let killed = [first(2), Delivery { life: 1, ..first(1) }, first(3)];
        assert_eq!(came(Group::Auto, &killed).sum(|group| group.out_of_order), 0);
        for twice in [0, 1] {
            let audit = came(Group::Auto, &[first(0), first(1), first(twice)]);
            assert_eq!(audit.sum(|group| group.out_of_order), 1);
        }
        // A key that is worked on by one at a time lets others pass.
        let other = Publication { sequence: 1, ..first(0).publication };
        assert_ne!(other.key(), 0);
        let passed = [first(0), delivery(other, 2), first(1)];
        assert_eq!(came(Group::Auto, &passed).sum(|group| group.out_of_order), 0);
    }

    #[test]
    fn a_publication_that_stands_before_an_earlier_one_of_its_key_is_misplaced() {
        let [one, two] = [0, 1].map(|index| of_one_key(index, QoS::AtLeastOnce));
        let misplaced = |offsets: &[(Publication, u64)]| {
            let each: Vec<_> = offsets.iter().map(|&(it, offset)| delivery(it, offset)).collect();
            came(Group::Auto, &each).misplaced().len()
        };
        assert_eq!(misplaced(&[(one, 1), (two, 2), (one, 3)]), 0, "the first one counts");
        assert_eq!(misplaced(&[(one, 3), (two, 2), (one, 1)]), 0, "whichever comes first");
        assert_eq!(misplaced(&[(one, 2), (two, 1)]), 1);
    }
}
