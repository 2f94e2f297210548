//! What a subscriber has got, and how that compares with what it had to get.

use dunlin_packets::QoS;

use super::publication::{Publication, ROUND};

/// A set of sequence numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequences {
    words: Vec<u64>,
}

impl Sequences {
    /// `false` when it was there already.
    pub(super) fn insert(&mut self, sequence: u32) -> bool {
        let (word, bit) = (sequence as usize / 64, 1 << (sequence % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    pub(super) fn contains(&self, sequence: u32) -> bool {
        self.word(sequence as usize / 64) & 1 << (sequence % 64) != 0
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Those from `since` on that are not in `other`.
    pub(super) fn beyond(&self, since: u32, other: &Self) -> Self {
        let first = since as usize / 64;
        let word = |index: usize| match index {
            _ if index < first => 0,
            _ if index == first => self.word(index) & !other.word(index) & u64::MAX << (since % 64),
            _ => self.word(index) & !other.word(index),
        };
        Self { words: (0..self.words.len()).map(word).collect() }
    }

    pub(super) fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.words.len() as u32 * 64).filter(|&sequence| self.contains(sequence))
    }
}

/// What a publisher has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// Sequence numbers given away: those below.
    pub(super) count: u32,
    /// Those that the broker has taken over, by PUBACK or PUBREC.
    pub(super) acked: Sequences,
}

/// Which publications a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    /// One publisher's, or everybody's.
    pub(super) source: Option<u16>,
    /// The QoS of the subscription.
    pub(super) qos: QoS,
}

impl Interest {
    pub(super) fn covers(&self, source: u16) -> bool {
        self.source.is_none_or(|wanted| wanted == source)
    }

    pub(super) fn filter(&self) -> String {
        self.source.map_or_else(|| "t/#".into(), |source| format!("t/{source}/#"))
    }
}

/// What may be wrong with a delivery, beside its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    DuplicatedAtQos2,
    OutOfOrder,
}

/// Wrong deliveries that are remembered as examples.
const EXAMPLES_MAX: usize = 3;

/// What a subscriber was given, counted as an application would see it.
#[derive(Clone, Debug)]
pub(super) struct Receipts {
    pub(super) interest: Interest,
    /// By publisher.
    seen: Vec<Sequences>,
    /// By publisher and lane: one more than the highest sequence number so far.
    newest: Vec<[u32; ROUND as usize]>,
    /// Different publications.
    pub(super) delivered: u64,
    /// Repetitions where publication and subscription have QoS 2.
    pub(super) duplicated_at_qos2: u64,
    /// Repetitions elsewhere, which the standard allows.
    pub(super) duplicated_at_qos1: u64,
    /// First deliveries behind a later one of their publisher, topic and QoS.
    pub(super) out_of_order: u64,
    pub(super) examples: Vec<(Wrong, Publication)>,
}

impl Receipts {
    pub(super) fn new(interest: Interest, publishers: usize) -> Self {
        Self {
            interest,
            seen: vec![Sequences::default(); publishers],
            newest: vec![[0; ROUND as usize]; publishers],
            delivered: 0,
            duplicated_at_qos2: 0,
            duplicated_at_qos1: 0,
            out_of_order: 0,
            examples: Vec::new(),
        }
    }

    /// Counts a delivery. The source has to be one of the publishers. What it sent before the
    /// SUBACK, not `is_owed`, has no order: the first time it went past the subscription, and comes
    /// only as the publisher repeats it.
    pub(super) fn deliver(&mut self, publication: Publication, is_owed: bool) {
        let source = usize::from(publication.source);
        if !self.seen[source].insert(publication.sequence) {
            if publication.qos().min(self.interest.qos) == QoS::ExactlyOnce {
                self.duplicated_at_qos2 += 1;
                self.remember(Wrong::DuplicatedAtQos2, publication);
            } else {
                self.duplicated_at_qos1 += 1;
            }
            return;
        }
        self.delivered += 1;
        let newest = &mut self.newest[source][publication.lane() as usize];
        if publication.sequence >= *newest {
            *newest = publication.sequence + 1;
        } else if is_owed {
            self.out_of_order += 1;
            self.remember(Wrong::OutOfOrder, publication);
        }
    }

    fn remember(&mut self, wrong: Wrong, publication: Publication) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push((wrong, publication));
        }
    }

    /// By publisher: what it has to have and has not, where `since` are the first sequence
    /// numbers that were sent after its SUBACK.
    pub(super) fn missing(&self, since: &[u32], published: &[Published]) -> Vec<Sequences> {
        let each = published.iter().zip(&self.seen).zip(since).enumerate();
        each.map(|(source, ((published, seen), &since))| {
            if self.interest.covers(source as u16) {
                published.acked.beyond(since, seen)
            } else {
                Sequences::default()
            }
        })
        .collect()
    }

    /// How many deliveries are due to it.
    pub(super) fn due(&self, since: &[u32], published: &[Published]) -> u64 {
        let nothing = Sequences::default();
        let each = published.iter().zip(since).enumerate();
        each.filter(|(source, _)| self.interest.covers(*source as u16))
            .map(|(_, (published, &since))| published.acked.beyond(since, &nothing).len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(qos: QoS) -> Receipts {
        Receipts::new(Interest { source: None, qos }, 2)
    }

    fn published(count: u32) -> Published {
        let mut acked = Sequences::default();
        (0..count).for_each(|sequence| assert!(acked.insert(sequence)));
        Published { count, acked }
    }

    fn deliver(receipts: &mut Receipts, sequences: impl IntoIterator<Item = u32>) {
        for sequence in sequences {
            receipts.deliver(Publication { source: 1, sequence }, true);
        }
    }

    #[test]
    fn what_was_acknowledged_after_the_suback_and_never_came_is_missing() {
        let mut receipts = receipts(QoS::ExactlyOnce);
        let published = [published(0), published(200)];
        deliver(&mut receipts, (0..200).filter(|sequence| ![5, 70, 71, 199].contains(sequence)));
        let missing = receipts.missing(&[0, 71], &published);
        assert_eq!(missing[0].len(), 0);
        assert_eq!(missing[1].iter().collect::<Vec<_>>(), [71, 199]);
        assert_eq!(receipts.due(&[0, 71], &published), 129);
    }

    #[test]
    fn a_subscription_to_one_publisher_misses_nothing_of_another() {
        let interest = Interest { source: Some(0), qos: QoS::AtLeastOnce };
        let receipts = Receipts::new(interest, 2);
        let missing = receipts.missing(&[0, 0], &[published(1), published(9)]);
        assert_eq!(missing.iter().map(Sequences::len).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_second_delivery_is_a_fault_only_where_both_sides_have_qos_2() {
        // Of a round, the first half is published at QoS 1.
        for (qos, expected) in [(QoS::AtLeastOnce, (0, 2)), (QoS::ExactlyOnce, (1, 1))] {
            let mut receipts = receipts(qos);
            deliver(&mut receipts, [0, 3, 0, 3]);
            let counted = (receipts.duplicated_at_qos2, receipts.duplicated_at_qos1);
            assert_eq!((counted, receipts.delivered), (expected, 2));
        }
    }

    #[test]
    fn order_counts_between_first_deliveries_of_one_topic_and_qos() {
        let mut receipts = receipts(QoS::ExactlyOnce);
        deliver(&mut receipts, [0, 6, 0, 1, 12, 7]);
        assert_eq!(receipts.out_of_order, 0);
        deliver(&mut receipts, [24, 18]);
        assert_eq!(receipts.out_of_order, 1);
    }

    #[test]
    fn what_was_sent_before_the_suback_and_is_repeated_has_no_order() {
        let mut receipts = receipts(QoS::ExactlyOnce);
        deliver(&mut receipts, [12]);
        receipts.deliver(Publication { source: 1, sequence: 6 }, false);
        assert_eq!((receipts.out_of_order, receipts.delivered), (0, 2));
    }
}
