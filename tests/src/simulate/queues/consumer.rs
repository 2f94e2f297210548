//! Those who consume work queues.

use std::collections::{BTreeMap, VecDeque};

use dunlin_packets::Property;
use dunlin_queue::Time;

use super::audit::{Audit, Place};
use super::connected::Connected;
use super::delivery::{Delivery, answer};
use super::scene::QueueSpec;
use super::{LEASE_MS, LONER};
use crate::simulate::random::Random;
use crate::{
    Client, Connecting, Publishing, Sim, Subscribing, puback, pubcomp, pubrec, unsubscribe,
};

/// The packet identifier of UNSUBSCRIBE.
const LEAVING_ID: u16 = 60_001;

/// How a consumer says that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// By verbs.
    Verbs,
    /// By PUBACK.
    Auto,
    /// By PUBREC.
    AutoTwice,
    /// By PUBACK, before 5.0.
    Old,
}

/// What a verb is to have brought about when it is confirmed.
#[derive(Debug)]
enum Asked {
    Done(Place),
    Rejected(Place),
    PutOff(Place, Time),
    Extended(Place, Time),
}

/// An acknowledgement of a delivery.
#[derive(Debug)]
struct Acknowledged {
    place: Place,
    at: Time,
    /// It certainly settles: safe as soon as the broker is at rest.
    is_sure: bool,
}

/// What a client that is connected has to do with its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Consuming,
    /// It has sent UNSUBSCRIBE: what comes until UNSUBACK is others' soon.
    Leaving,
    Left,
}

/// A client that consumes one queue at a time.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) number: usize,
    pub(super) group: &'static str,
    client: Option<Client>,
    queue: String,
    manner: Manner,
    stage: Stage,
    /// What it has not settled.
    has: VecDeque<Delivery>,
    /// Verbs that wait for PUBACK.
    asked: BTreeMap<u16, Asked>,
    /// What an acknowledgement was sent for since the broker was at rest.
    acknowledged: Vec<Acknowledged>,
    next_id: u16,
}

impl Connected for Consumer {
    fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    fn end(&mut self, audit: &mut Audit) -> Result<(), String> {
        if let Some(client) = self.client.take() {
            audit.dropped(self.group);
            for text in client.take() {
                self.on_answer(&text, audit);
                // Sent, and so an attempt, whether the client has read it or not.
                if let Some(delivery) = Delivery::parse(&text) {
                    audit.work.lose(self.group, &delivery)?;
                }
            }
        }
        for delivery in std::mem::take(&mut self.has) {
            audit.work.give_up(self.number, &self.place(&delivery));
        }
        self.asked.clear();
        self.acknowledged.clear();
        Ok(())
    }
}

impl Consumer {
    pub(super) fn new(number: usize, group: &'static str) -> Self {
        Self {
            number,
            group,
            client: None,
            queue: String::new(),
            manner: Manner::Auto,
            stage: Stage::Consuming,
            has: VecDeque::new(),
            asked: BTreeMap::new(),
            acknowledged: Vec::new(),
            next_id: 0,
        }
    }

    /// Whether the broker has ended its connection.
    pub(super) fn is_closed(&self) -> bool {
        self.client.as_ref().is_some_and(Client::is_closed)
    }

    fn place(&self, delivery: &Delivery) -> Place {
        (self.group, delivery.id().to_owned())
    }

    /// Consumes a queue, and nothing else any more.
    pub(super) fn join(
        &mut self,
        sim: &mut Sim,
        spec: &QueueSpec,
        manner: Manner,
        audit: &mut Audit,
    ) -> Result<(), String> {
        let goes_on = self.stage == Stage::Left
            && manner != Manner::Old
            && self.client.as_ref().is_some_and(|client| !client.is_closed());
        if !goes_on {
            self.drop_connection(sim, audit)?;
        }
        self.stage = Stage::Consuming;
        audit.work.hear(self.number, sim.now());
        let name = format!("c{}", self.number);
        let filter = spec.filter();
        (self.queue, self.manner) = (spec.name.to_owned(), manner);
        if self.group == LONER {
            // A session that goes on, and a group of its own.
            let client = Client::connect(sim, &Connecting::v5(LONER).resume().expiry(100_000));
            let subscribing = Subscribing::to(&filter, 1);
            client.write(subscribing.with(Property::UserProperty("settle", "auto")).v5());
            (self.client, self.manner) = (Some(client), Manner::Auto);
            return Ok(());
        }
        if manner == Manner::Old {
            let client = Client::connect(sim, &Connecting::v4(&name));
            let filter = format!("$share/{}/{filter}", self.group);
            client.write(Subscribing::to(&filter, 1).v4());
            self.client = Some(client);
            return Ok(());
        }
        let known = self.client.take();
        let client = known.unwrap_or_else(|| Client::connect(sim, &Connecting::v5(&name)));
        let settle = if manner == Manner::Verbs { "manual" } else { "auto" };
        let qos = if manner == Manner::AutoTwice { 2 } else { 1 };
        let subscribing = Subscribing::to(&filter, qos)
            .with(Property::UserProperty("consumer-group", self.group))
            .with(Property::UserProperty("settle", settle));
        client.write(subscribing.v5());
        self.client = Some(client);
        Ok(())
    }

    /// Consumes no longer, and stays connected; what it has is others'.
    pub(super) fn leave(&mut self, queues: &[QueueSpec], is_late: bool, audit: &mut Audit) {
        let Some(client) = &self.client else { return };
        // A session that goes on would end its group.
        if self.manner == Manner::Old || self.group == LONER || self.stage != Stage::Consuming {
            return;
        }
        let queue = queues.iter().find(|spec| spec.name == self.queue);
        let filter = queue.expect("a queue").filter();
        client.write(unsubscribe(LEAVING_ID, &[&filter]));
        // What the broker has on the way to it may count as an attempt.
        audit.dropped(self.group);
        self.stage = Stage::Leaving;
        for delivery in std::mem::take(&mut self.has) {
            audit.work.give_up(self.number, &self.place(&delivery));
            if is_late && self.manner != Manner::Verbs {
                self.answer(delivery.packet_id);
            }
        }
    }

    fn answer(&self, id: u16) {
        if let Some(client) = &self.client {
            client.write(if self.manner == Manner::AutoTwice { pubrec(id) } else { puback(id) });
        }
    }

    /// Whether something is under way about a message, which may be meant for this delivery too.
    fn has_asked(&self, place: &Place) -> bool {
        let mut acknowledged = self.acknowledged.iter().map(|acknowledged| &acknowledged.place);
        acknowledged.any(|of| of == place)
            || self.asked.values().any(|asked| match asked {
                Asked::Done(of) | Asked::Rejected(of) | Asked::PutOff(of, _) => of == place,
                Asked::Extended(..) => false,
            })
    }

    fn on_answer(&mut self, text: &str, audit: &mut Audit) {
        if audit.is_verbose {
            audit.note(&format!("c{}", self.number), text);
        }
        let Some((id, is_success)) = answer(text, "PUBACK") else { return };
        let Some(asked) = self.asked.remove(&id).filter(|_| is_success) else { return };
        if let Asked::Done(place) | Asked::Rejected(place) | Asked::PutOff(place, _) = &asked {
            // It was said of a delivery that was still on its way.
            audit.work.give_up(self.number, place);
        }
        match asked {
            Asked::Done(place) => audit.work.confirm(place),
            Asked::Rejected(place) => audit.letters.confirm_reject(place),
            Asked::PutOff(place, until) => audit.work.put_off(place, until),
            Asked::Extended(place, until) => audit.work.extend(self.number, &place, until),
        }
    }

    pub(super) fn look(&mut self, now: Time, audit: &mut Audit) -> Result<bool, String> {
        let mut has_answered = false;
        let texts = self.take();
        for text in &texts {
            self.on_answer(text, audit);
            let Some(client) = &self.client else { continue };
            if let Some((id, _)) = answer(text, "PUBREL") {
                client.write(pubcomp(id));
                has_answered = true;
            }
            if text.starts_with("UNSUBACK") {
                self.stage = Stage::Left;
            }
            let Some(delivery) = Delivery::parse(text) else { continue };
            match self.stage {
                Stage::Consuming => {}
                Stage::Leaving => {
                    audit.work.lose(self.group, &delivery)?;
                    continue;
                }
                Stage::Left => return Err(format!("it consumes nothing, and gets {text}")),
            }
            audit.receive(self.number, self.group, &delivery, now)?;
            if self.manner == Manner::Verbs {
                client.write(puback(delivery.packet_id));
                has_answered = true;
            }
            if self.has_asked(&self.place(&delivery)) {
                audit.work.give_up(self.number, &self.place(&delivery));
            }
            self.has.push_back(delivery);
        }
        self.note_end(&texts, audit)?;
        Ok(has_answered)
    }

    /// Says what becomes of up to `count` messages.
    pub(super) fn settle(
        &mut self,
        now: Time,
        count: usize,
        random: &mut Random,
        audit: &mut Audit,
    ) {
        for _ in 0..count.min(self.has.len()) {
            audit.work.hear(self.number, now);
            let Some(delivery) = self.has.pop_front() else { return };
            if self.manner == Manner::Verbs {
                self.say(delivery, now, random, audit);
            } else {
                self.acknowledge(&delivery, now, audit);
            }
        }
    }

    fn acknowledge(&mut self, delivery: &Delivery, now: Time, audit: &mut Audit) {
        let id = delivery.packet_id;
        self.answer(id);
        let place = self.place(delivery);
        let is_sure = audit.work.is_leased(self.number, &place, id, now);
        // Late for its own lease it settles the next one, if that is this consumer's: what is done
        // is the message, by whichever delivery. So what others get from here on is no breach.
        audit.work.give_up(self.number, &place);
        self.acknowledged.push(Acknowledged { place, at: now, is_sure });
    }

    fn say(&mut self, delivery: Delivery, now: Time, random: &mut Random, audit: &mut Audit) {
        let place = self.place(&delivery);
        let (verb, delay, asked) = match random.below(12) {
            0 => ("$nack", "2s", Asked::PutOff(place.clone(), now.plus_millis(2000))),
            1 => ("$nack", "0", Asked::PutOff(place.clone(), now)),
            2 => ("$reject", "", Asked::Rejected(place.clone())),
            3 => ("$extend", "", Asked::Extended(place.clone(), now.plus_millis(LEASE_MS))),
            _ => ("$ack", "", Asked::Done(place.clone())),
        };
        match verb {
            "$reject" => audit.letters.ask_reject(place.clone()),
            "$extend" => {}
            _ => audit.work.give_up(self.number, &place),
        }
        self.next_id = self.next_id % 60_000 + 1;
        let topic = format!("$queue/{}/{verb}", self.queue);
        let mut publishing = Publishing::q1(&topic, "", self.next_id)
            .with(Property::UserProperty("message-id", delivery.id()))
            .with(Property::UserProperty("group-id", self.group));
        if verb == "$nack" {
            publishing = publishing.with(Property::UserProperty("delay", delay));
        }
        audit.note(&format!("c{} {verb}", self.number), delivery.id());
        if let Some(client) = &self.client {
            client.write(publishing.v5());
        }
        self.asked.insert(self.next_id, asked);
        match verb {
            "$extend" => self.has.push_back(delivery),
            "$reject" => audit.work.give_up(self.number, &place),
            _ => {}
        }
    }

    /// The broker is at rest: what was acknowledged at this moment is safe.
    pub(super) fn rest(&mut self, now: Time, audit: &mut Audit) {
        for Acknowledged { place, at, is_sure } in self.acknowledged.drain(..) {
            if is_sure && at == now && !audit.may_close && !place.1.is_empty() {
                audit.work.acknowledge(place);
            }
        }
    }

    /// Acknowledges whatever it has.
    pub(super) fn acknowledge_all(&mut self, now: Time, audit: &mut Audit) {
        while let Some(delivery) = self.has.pop_front() {
            self.acknowledge(&delivery, now, audit);
        }
    }
}
