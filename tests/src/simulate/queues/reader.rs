//! Those who read the stream.

use std::collections::{BTreeMap, VecDeque};

use dunlin_packets::Property;
use dunlin_queue::Time;

use super::audit::Audit;
use super::connected::Connected;
use super::delivery::{Delivery, answer};
use super::scene::QueueSpec;
use crate::simulate::random::Random;
use crate::{Client, Connecting, Publishing, Sim, Subscribing, puback};

/// A client that reads the stream. The first group commits by acknowledging, the second by verbs.
#[derive(Debug)]
pub(super) struct Reader {
    number: usize,
    pub(super) group: &'static str,
    is_explicit: bool,
    client: Option<Client>,
    /// SUBACK will say that its group begins anew.
    replays: bool,
    has: VecDeque<Delivery>,
    /// When it has last said something.
    heard: Time,
    /// The last that was answered of a partition, to be committed.
    answered: BTreeMap<u64, Delivery>,
    /// `$commit`s that wait for PUBACK: partition, and the offset behind.
    asked: BTreeMap<u16, (u64, u64)>,
    next_id: u16,
}

impl Connected for Reader {
    fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    fn end(&mut self, audit: &mut Audit) -> Result<(), String> {
        if let Some(client) = self.client.take() {
            for text in client.take() {
                self.on_answer(&text, audit);
                if let Some(delivery) = Delivery::parse(&text) {
                    audit.streams.lose(self.group, &delivery)?;
                }
            }
        }
        for delivery in std::mem::take(&mut self.has) {
            self.give_up(&delivery, audit);
        }
        self.answered.clear();
        self.asked.clear();
        Ok(())
    }
}

impl Reader {
    pub(super) fn new(number: usize, group: &'static str, is_explicit: bool) -> Self {
        Self {
            number,
            group,
            is_explicit,
            client: None,
            replays: false,
            has: VecDeque::new(),
            heard: Time::from_millis(0),
            answered: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_id: 0,
        }
    }

    pub(super) fn join(
        &mut self,
        sim: &mut Sim,
        spec: &QueueSpec,
        replays: bool,
        audit: &mut Audit,
    ) -> Result<(), String> {
        self.drop_connection(sim, audit)?;
        self.heard = sim.now();
        let client = Client::connect(sim, &Connecting::v5(&format!("r{}", self.number)));
        let filter = spec.filter();
        let commit = if self.is_explicit { "explicit" } else { "auto" };
        let mut subscribing = Subscribing::to(&filter, 1)
            .with(Property::UserProperty("consumer-group", self.group))
            .with(Property::UserProperty("commit", commit))
            .with(Property::UserProperty("stream-offset", "earliest"));
        if replays {
            subscribing = subscribing.with(Property::UserProperty("stream-replay", "true"));
            audit.streams.replay(self.group);
        }
        client.write(subscribing.v5());
        (self.client, self.replays) = (Some(client), replays);
        Ok(())
    }

    fn give_up(&self, delivery: &Delivery, audit: &mut Audit) {
        let (partition, offset) = (delivery.number("partition"), delivery.number("offset"));
        audit.streams.give_up(self.group, partition, offset);
    }

    fn on_answer(&mut self, text: &str, audit: &mut Audit) {
        if audit.is_verbose {
            audit.note(&format!("r{}", self.number), text);
        }
        if text.starts_with("SUBACK 1 [01") && std::mem::take(&mut self.replays) {
            audit.streams.replayed(self.group);
        }
        let Some((id, is_success)) = answer(text, "PUBACK") else { return };
        let asked = self.asked.remove(&id).filter(|_| is_success);
        if let Some((partition, end)) = asked {
            audit.streams.commit(self.group, partition, end);
        }
    }

    pub(super) fn look(&mut self, now: Time, audit: &mut Audit) -> Result<(), String> {
        let texts = self.take();
        for text in &texts {
            self.on_answer(text, audit);
            let Some(delivery) = Delivery::parse(text) else { continue };
            let Audit { streams, sent, .. } = audit;
            streams.receive(self.number, self.group, &delivery, sent, (now, self.heard))?;
            self.has.push_back(delivery);
        }
        self.note_end(&texts, audit)
    }

    /// Acknowledges up to `count` messages, and commits now and then.
    pub(super) fn go_on(
        &mut self,
        now: Time,
        count: usize,
        random: &mut Random,
        audit: &mut Audit,
    ) {
        if count > 0 && !self.has.is_empty() {
            self.heard = now;
        }
        for _ in 0..count.min(self.has.len()) {
            let Some(delivery) = self.has.pop_front() else { break };
            if let Some(client) = &self.client {
                client.write(puback(delivery.packet_id));
            }
            self.give_up(&delivery, audit);
            self.answered.insert(delivery.number("partition"), delivery);
        }
        if self.is_explicit && random.percent(60) {
            self.commit();
        }
    }

    fn commit(&mut self) {
        for (partition, delivery) in std::mem::take(&mut self.answered) {
            let Some(client) = &self.client else { return };
            self.next_id = self.next_id % 60_000 + 1;
            let topic = format!("$queue/{}/$commit", delivery.user("queue"));
            let publishing = Publishing::q1(&topic, "", self.next_id)
                .with(Property::UserProperty("message-id", delivery.id()))
                .with(Property::UserProperty("group-id", self.group));
            client.write(publishing.v5());
            self.asked.insert(self.next_id, (partition, delivery.number("offset") + 1));
        }
    }
}
