//! What the broker owes the clients of queues.

pub(super) mod letters;
pub(super) mod sent;
pub(super) mod streams;
pub(super) mod work;

use dunlin_queue::Time;

use self::letters::Letters;
use self::sent::{Publications, Stage};
use self::streams::Streams;
use self::work::Work;
use super::delivery::Delivery;
use super::scene::{Kind, QueueSpec, Scene};

/// A message of a queue, for a group of it.
pub(super) type Place = (&'static str, String);

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) sent: Publications,
    pub(super) work: Work,
    pub(super) letters: Letters,
    pub(super) streams: Streams,
    /// The disk fails: what is refused may be there after a crash.
    pub(super) is_failing: bool,
    /// The disk fails or is full, so connections may be given up, and what is safe is not known.
    pub(super) may_close: bool,
    pub(super) is_verbose: bool,
}

impl Audit {
    /// Something has come for a client.
    pub(super) fn note(&self, client: &str, text: &str) {
        if self.is_verbose {
            println!("    {client} < {text}");
        }
    }

    /// A connection of a group has ended. What was written to it meanwhile is an attempt that nobody
    /// sees.
    pub(super) fn dropped(&mut self, group: &'static str) {
        self.work.dropped(group);
    }

    /// A QoS 2 publication is sent again after a crash.
    pub(super) fn send_again(&mut self, payload: &str, now: Time) {
        self.sent.send_again(payload, now);
        if payload.starts_with("m/") {
            // Where a queue captures, its frame and that of the packet identifier are two.
            self.letters.ask_redrive(payload);
        }
    }

    /// A publication was acknowledged, or refused.
    pub(super) fn on_answer(&mut self, payload: &str, is_success: bool, text: &str) {
        if is_success {
            self.sent.set_stage(payload, Stage::Acknowledged);
        } else if text.contains(" QuotaExceeded") && !self.is_failing {
            self.sent.set_stage(payload, Stage::Refused);
        }
    }

    /// A consumer of a work queue has got a message.
    pub(super) fn receive(
        &mut self,
        consumer: usize,
        group: &'static str,
        delivery: &Delivery,
        now: Time,
    ) -> Result<(), String> {
        self.sent.check(delivery, now)?;
        let copies = self.letters.copies(&delivery.payload);
        // A dead letter has no expiry any more, and neither has it when it is put back.
        if copies == 1 {
            self.sent.check_expiry(delivery, now)?;
        }
        let place = (group, delivery.id().to_owned());
        if self.letters.has(&place) {
            return Err(format!("{} comes again to {group}, though it is dead", delivery.payload));
        }
        self.work.receive(consumer, place, delivery, copies, now)
    }

    /// An undertaker has got a dead letter.
    pub(super) fn bury(&mut self, queue: &str, delivery: &Delivery) -> Result<(), String> {
        self.letters.receive(queue, delivery, &self.work)
    }

    /// All connections are gone, and the broker begins again.
    pub(super) fn restarted(&mut self, is_cut: bool) {
        self.work.restarted(is_cut);
        self.letters.restarted(is_cut);
        self.streams.restarted();
        (self.is_failing, self.may_close) = (false, false);
    }

    /// How much has happened.
    pub(super) fn progress(&self) -> usize {
        self.work.received() + self.letters.received() + self.streams.received()
    }

    /// Whether everything is as it has to be in the end.
    pub(super) fn check_end(&self, scene: &Scene) -> Result<(), String> {
        for spec in &scene.queues {
            self.check_queue(spec)?;
        }
        self.letters.check_end(&self.work)
    }

    fn check_queue(&self, spec: &QueueSpec) -> Result<(), String> {
        for group in spec.groups() {
            let owed = self.sent.owed(spec.name);
            let missing: Vec<_> = match spec.kind {
                Kind::Stream { is_compacted: true } => {
                    owed.filter(|it| self.streams.is_missing_behind(group, it)).collect()
                }
                Kind::Stream { .. } => owed.filter(|it| !self.streams.has(group, it)).collect(),
                _ => owed.filter(|it| !self.work.has(group, it)).collect(),
            };
            let is_owed = spec.keeps_all() || matches!(spec.kind, Kind::Stream { .. });
            if is_owed && !missing.is_empty() {
                return Err(format!("{group} of {} never got {missing:?}", spec.name));
            }
        }
        Ok(())
    }
}

/// Key and number of a payload.
fn key_of(payload: &str) -> (&str, u64) {
    let (key, number) = payload.rsplit_once('/').unwrap_or_default();
    (key, number.parse().unwrap_or_default())
}
