//! Those who look after dead letters.

use std::collections::{BTreeMap, VecDeque};

use dunlin_packets::Property;
use dunlin_queue::Time;

use super::audit::Audit;
use super::connected::Connected;
use super::delivery::{Delivery, answer};
use super::leased_until;
use crate::simulate::random::Random;
use crate::{Client, Connecting, Publishing, Sim, Subscribing, puback};

/// Of those of one queue.
#[derive(Debug)]
pub(super) struct Undertaker {
    queue: &'static str,
    client: Option<Client>,
    /// Letters, and until when they are certainly its own.
    has: VecDeque<(Delivery, Time)>,
    /// What was put back: letter and payload, when PUBACK comes.
    asked: BTreeMap<u16, (String, String)>,
    /// What was acknowledged, and when.
    acknowledged: Vec<(String, Time)>,
    /// When it has last said something.
    heard: Time,
    next_id: u16,
}

impl Connected for Undertaker {
    fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    fn end(&mut self, audit: &mut Audit) -> Result<(), String> {
        if let Some(client) = self.client.take() {
            for text in client.take() {
                self.on_text(&text, Time::from_millis(0), audit)?;
            }
        }
        self.has.clear();
        self.asked.clear();
        self.acknowledged.clear();
        Ok(())
    }
}

impl Undertaker {
    pub(super) fn new(queue: &'static str) -> Self {
        Self {
            queue,
            client: None,
            has: VecDeque::new(),
            asked: BTreeMap::new(),
            acknowledged: Vec::new(),
            heard: Time::from_millis(0),
            next_id: 0,
        }
    }

    pub(super) fn join(&mut self, sim: &mut Sim, audit: &mut Audit) -> Result<(), String> {
        self.drop_connection(sim, audit)?;
        self.heard = sim.now();
        let client = Client::connect(sim, &Connecting::v5(&format!("u-{}", self.queue)));
        let filter = format!("$dlq/{}", self.queue);
        let subscribing = Subscribing::to(&filter, 1)
            .with(Property::UserProperty("consumer-group", "u"))
            .with(Property::UserProperty("settle", "auto"));
        client.write(subscribing.v5());
        self.client = Some(client);
        Ok(())
    }

    fn on_text(&mut self, text: &str, now: Time, audit: &mut Audit) -> Result<(), String> {
        audit.note(self.queue, text);
        if let Some((id, is_success)) = answer(text, "PUBACK")
            && let Some((letter, payload)) = self.asked.remove(&id).filter(|_| is_success)
        {
            audit.letters.confirm_redrive(letter, &payload);
        }
        if let Some(delivery) = Delivery::parse(text) {
            audit.bury(self.queue, &delivery)?;
            self.has.push_back((delivery, leased_until(now, self.heard)));
        }
        Ok(())
    }

    pub(super) fn look(&mut self, now: Time, audit: &mut Audit) -> Result<(), String> {
        let texts = self.take();
        for text in &texts {
            self.on_text(text, now, audit)?;
        }
        self.note_end(&texts, audit)
    }

    /// Settles some letters, puts others back.
    pub(super) fn work(&mut self, now: Time, random: &mut Random, audit: &mut Audit) {
        while let Some((letter, until)) = self.has.pop_front() {
            if random.percent(25) {
                self.redrive(Some(&letter), audit);
            } else {
                self.acknowledge(&letter, until > now, now);
            }
        }
    }

    fn acknowledge(&mut self, letter: &Delivery, is_leased: bool, now: Time) {
        let Some(client) = &self.client else { return };
        client.write(puback(letter.packet_id));
        self.heard = now;
        if is_leased {
            self.acknowledged.push((letter.id().to_owned(), now));
        }
    }

    /// Puts one back, or all of the queue.
    pub(super) fn redrive(&mut self, letter: Option<&Delivery>, audit: &mut Audit) {
        let Some(client) = &self.client else { return };
        self.next_id = self.next_id % 60_000 + 1;
        audit.note(&format!("{} redrives", self.queue), letter.map_or("all", Delivery::id));
        let topic = format!("$dlq/{}/$redrive", self.queue);
        let mut publishing = Publishing::q1(&topic, "", self.next_id);
        if let Some(letter) = letter {
            publishing = publishing.with(Property::UserProperty("message-id", letter.id()));
            audit.letters.ask_redrive(&letter.payload);
            let asked = (letter.id().to_owned(), letter.payload.clone());
            self.asked.insert(self.next_id, asked);
        } else {
            audit.letters.all_were_redriven = true;
        }
        client.write(publishing.v5());
    }

    pub(super) fn acknowledge_all(&mut self, now: Time) {
        while let Some((letter, until)) = self.has.pop_front() {
            self.acknowledge(&letter, until > now, now);
        }
    }

    /// The broker is at rest: what was acknowledged at this moment is safe.
    pub(super) fn rest(&mut self, now: Time, audit: &mut Audit) {
        for (letter, at) in self.acknowledged.drain(..) {
            if at == now && !audit.may_close {
                audit.letters.acknowledge(letter);
            }
        }
    }
}
