//! The verdict: figures, and which of them have to be 0.

use std::fmt::Write;
use std::sync::OnceLock;

use super::member::Faults;
use super::publication::{Publication, ROUND};
use super::publisher::PublisherRecord;
use super::queues::Audit;
use super::receipts::{Published, Sequences};
use super::retained::Findings;
use super::shared::Shared;
use super::subscriber::SubscriberRecord;

/// Examples of each kind that are named, at most, and of what one subscriber lacks.
const EXAMPLES_MAX: usize = 12;
const LOST_EXAMPLES_MAX: usize = 3;

/// What is known of the broker's lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives {
    pub(super) kills: u32,
    /// From spawn to "listening", of each start.
    pub(super) starts_ms: Vec<u64>,
    /// Looks at the retained messages that were not cut short.
    pub(super) looks: Vec<Findings>,
    /// What went wrong with the run itself.
    pub(super) faults: Vec<String>,
}

/// What the clients have left behind.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) publishers: Vec<PublisherRecord>,
    pub(super) subscribers: Vec<SubscriberRecord>,
    pub(super) queue_publishers: Vec<PublisherRecord>,
    pub(super) consumers: Vec<Faults>,
}

/// One line of the table.
#[derive(Clone, Debug)]
struct Figure {
    name: &'static str,
    value: u64,
    has_to_be_0: bool,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    figures: Vec<Figure>,
    starts_ms: Vec<u64>,
    examples: Vec<String>,
    /// Examples up to which there is room for the present kind.
    examples_end: usize,
}

impl Report {
    /// Audits a run.
    pub(super) fn new(lives: &Lives, records: &Records, shared: &Shared) -> Self {
        let Records { publishers, subscribers, queue_publishers, consumers } = records;
        let published = |all: &OnceLock<Vec<Published>>| all.get().cloned().unwrap_or_default();
        let mut report = Self { starts_ms: lives.starts_ms.clone(), ..Self::default() };
        report.starts_ms.sort_unstable();
        report.inform("kills", u64::from(lives.kills));
        report.add_publishers(publishers);
        report.add_subscribers(subscribers, &published(&shared.published));
        report.add_retained(&lives.looks);
        if !consumers.is_empty() {
            report.require("queue: groups that never came", shared.queue.absent());
            report.add_queue_publishers(queue_publishers);
            report.add_queue(&shared.queue.audit.lock(), &published(&shared.queue.published));
        }
        let publishers = publishers.iter().chain(queue_publishers).map(|record| &record.faults);
        let subscribers = subscribers.iter().map(|record| &record.faults);
        report.add_faults(publishers.chain(subscribers).chain(consumers));
        report.another_kind();
        for fault in &lives.faults {
            report.example(|| fault.clone());
        }
        report.require("faults of the run", lives.faults.len() as u64);
        report
    }

    fn inform(&mut self, name: &'static str, value: u64) {
        self.figures.push(Figure { name, value, has_to_be_0: false });
    }

    fn require(&mut self, name: &'static str, value: u64) {
        self.figures.push(Figure { name, value, has_to_be_0: true });
    }

    /// Examples of another kind follow.
    fn another_kind(&mut self) {
        self.examples_end = self.examples.len() + EXAMPLES_MAX;
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < self.examples_end {
            self.examples.push(text());
        }
    }

    fn add_publishers(&mut self, records: &[PublisherRecord]) {
        let sum = |of: fn(&PublisherRecord) -> u64| records.iter().map(of).sum();
        self.inform("published", sum(|record| u64::from(record.published.count)));
        self.inform("acknowledged at QoS 1", sum(|record| record.acked[0]));
        self.inform("acknowledged at QoS 2", sum(|record| record.acked[1]));
        self.inform("refused with a reason", sum(|record| record.refused));
        self.require("unacknowledged at the end", sum(|record| record.unacknowledged));
    }

    fn add_subscribers(&mut self, records: &[SubscriberRecord], published: &[Published]) {
        let sum = |of: fn(&SubscriberRecord) -> u64| records.iter().map(of).sum();
        self.another_kind();
        let (mut due, mut lost, mut subscriptions_lost, mut unsubscribed) = (0, 0, 0, 0);
        for record in records {
            let Some(since) = &record.since else {
                unsubscribed += 1;
                continue;
            };
            let missing = record.receipts.missing(since, published);
            due += record.receipts.due(since, published);
            lost += missing.iter().map(Sequences::len).sum::<u64>();
            if record.session_present && lacks_last_round(record, &missing, published) {
                subscriptions_lost += 1;
            }
            for text in examples(record, &missing) {
                self.example(|| text);
            }
        }
        self.inform("deliveries due", due);
        self.inform("delivered", sum(|record| record.receipts.delivered));
        self.require("lost", lost);
        self.require("duplicated at QoS 2", sum(|record| record.receipts.duplicated_at_qos2));
        self.inform("duplicated at QoS 1", sum(|record| record.receipts.duplicated_at_qos1));
        self.require("out of order", sum(|record| record.receipts.out_of_order));
        self.require("subscriptions lost", subscriptions_lost);
        self.require("never subscribed", unsubscribed);
        self.require("runs without a delivery to audit", u64::from(due == 0));
    }

    fn add_retained(&mut self, looks: &[Findings]) {
        self.another_kind();
        for text in looks.iter().flat_map(|look| &look.wrong) {
            self.example(|| format!("retained: {text}"));
        }
        self.inform("retained checked", looks.iter().map(|look| look.checked).sum());
        self.require("retained wrong", looks.iter().map(|look| look.wrong.len() as u64).sum());
    }

    fn add_queue_publishers(&mut self, records: &[PublisherRecord]) {
        let sum = |of: fn(&PublisherRecord) -> u64| records.iter().map(of).sum();
        self.inform("queue: acknowledged at QoS 1", sum(|record| record.acked[0]));
        self.inform("queue: acknowledged at QoS 2", sum(|record| record.acked[1]));
        self.inform("queue: refused with a reason", sum(|record| record.refused));
        self.require("queue: unacknowledged", sum(|record| record.unacknowledged));
    }

    /// What all groups together got.
    fn add_queue(&mut self, audit: &Audit, published: &[Published]) {
        self.another_kind();
        let delivered = audit.sum(|group| group.delivered);
        self.inform("queue: delivered", delivered);
        self.inform("queue: redelivered", audit.sum(|group| group.redelivered));
        self.inform("queue: settled for good", audit.sum(|group| group.settled));
        let [at_qos1, at_qos2] = audit.duplicated;
        let misplaced = audit.misplaced();
        self.require("queue: lost", audit.lost(published));
        self.require("queue: duplicated at QoS 2", at_qos2);
        self.inform("queue: duplicated at QoS 1", at_qos1);
        self.require("queue: two at one message-id", audit.mixed_up);
        self.require("queue: settled, but came again", audit.sum(|group| group.came_again));
        self.require("queue: enqueued out of order", misplaced.len() as u64);
        self.require("queue: out of order", audit.sum(|group| group.out_of_order));
        self.require("runs without a queue's delivery", u64::from(delivered == 0));
        for text in audit.lost_examples(published).iter().chain(&misplaced).chain(&audit.examples) {
            self.example(|| text.clone());
        }
    }

    fn add_faults<'a>(&mut self, faults: impl Iterator<Item = &'a Faults>) {
        self.another_kind();
        let mut sum = Faults::default();
        for faults in faults {
            sum.sessions_lost += faults.sessions_lost;
            sum.mangled += faults.mangled;
            sum.other += faults.other;
            for text in &faults.texts {
                self.example(|| text.clone());
            }
        }
        self.require("sessions lost", sum.sessions_lost);
        self.require("mangled deliveries", sum.mangled);
        self.require("other faults of the broker", sum.other);
    }

    /// Names of the figures that are not as they have to be.
    pub(super) fn failed(&self) -> Vec<&'static str> {
        let failed = self.figures.iter().filter(|figure| figure.has_to_be_0 && figure.value > 0);
        failed.map(|figure| figure.name).collect()
    }

    /// The table, and a few examples of what is wrong.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Figure { name, value, has_to_be_0 } in &self.figures {
            let verdict = match (has_to_be_0, value) {
                (false, _) => "",
                (true, 0) => "  as it has to be",
                (true, _) => "  HAS TO BE 0",
            };
            let _ = writeln!(text, "{name:<32} {value:>10}{verdict}");
        }
        if let (Some(min), Some(max)) = (self.starts_ms.first(), self.starts_ms.last()) {
            let median = self.starts_ms[self.starts_ms.len() / 2];
            let times = format!("{min} / {median} / {max}");
            let _ = writeln!(text, "{:<32} {times:>10}", "start, min/median/max ms");
        }
        for example in &self.examples {
            let _ = writeln!(text, "  {example}");
        }
        text
    }
}

/// Whether nothing came of what every publisher sent after the last start, although the session
/// is there: then the subscription is not.
fn lacks_last_round(
    record: &SubscriberRecord,
    missing: &[Sequences],
    published: &[Published],
) -> bool {
    let each = published.iter().zip(missing).enumerate();
    let mut last = each
        .filter(|(source, _)| record.receipts.interest.covers(*source as u16))
        .flat_map(|(_, (published, missing))| {
            let first = published.count.saturating_sub(ROUND);
            let acked = (first..published.count).filter(|&last| published.acked.contains(last));
            acked.map(|last| missing.contains(last))
        })
        .peekable();
    last.peek().is_some() && last.all(|is_missing| is_missing)
}

/// The first losses of a subscriber, and what else was wrong with its deliveries, in words.
fn examples(record: &SubscriberRecord, missing: &[Sequences]) -> Vec<String> {
    let client = &record.client_id;
    let each = missing.iter().enumerate();
    let lost =
        each.flat_map(|(source, missing)| missing.iter().map(move |sequence| (source, sequence)));
    let lost = lost.take(LOST_EXAMPLES_MAX).map(|(source, sequence)| {
        format!("lost: publisher {source}, sequence {sequence}, subscriber {client}")
    });
    let wrong = record.receipts.examples.iter().map(|(wrong, publication)| {
        let Publication { source, sequence } = publication;
        format!("{wrong:?}: publisher {source}, sequence {sequence}, subscriber {client}")
    });
    lost.chain(wrong).collect()
}
