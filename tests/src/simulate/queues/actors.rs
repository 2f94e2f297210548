//! Publishers and consumers of queues.

use std::collections::{BTreeMap, VecDeque};

use dunlin_packets::Property;
use dunlin_queue::Time;

use super::audit::{Audit, Got};
use crate::simulate::random::Random;
use crate::{Client, Connecting, Publishing, Sim, Subscribing, puback, pubrel};

/// How far a QoS 2 publication is.
#[derive(Clone, Debug)]
struct Handshake {
    id: u16,
    topic: String,
    payload: String,
    is_received: bool,
}

/// A client that publishes, with keys of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    name: String,
    is_exactly_once: bool,
    client: Option<Client>,
    next_id: u16,
    number: u64,
    /// QoS 1: what waits for PUBACK.
    waiting: BTreeMap<u16, String>,
    /// QoS 2: one at a time.
    handshake: Option<Handshake>,
}

fn number_behind(text: &str, name: &str) -> Option<u16> {
    let rest = text.strip_prefix(name)?.strip_prefix(' ')?;
    rest.split(' ').next()?.parse().ok()
}

impl Publisher {
    pub(super) fn new(number: usize, is_exactly_once: bool) -> Self {
        Self {
            name: format!("p{number}"),
            is_exactly_once,
            client: None,
            next_id: 0,
            number: 0,
            waiting: BTreeMap::new(),
            handshake: None,
        }
    }

    pub(super) fn come_back(&mut self, sim: &mut Sim) {
        self.waiting.clear();
        let connecting = Connecting::v5(&self.name).resume().expiry(100_000);
        let client = Client::connect(sim, &connecting);
        if let Some(open) = &self.handshake {
            // The same again, as far as it was.
            let bytes = match open.is_received {
                true => pubrel(open.id),
                false => Publishing::q2(&open.topic, &open.payload, open.id).dup().v5(),
            };
            client.write(bytes);
        }
        self.client = Some(client);
    }

    pub(super) fn publish(
        &mut self,
        sim: &mut Sim,
        queue: usize,
        random: &mut Random,
        audit: &mut Audit,
    ) {
        if self.client.is_none() {
            self.come_back(sim);
        }
        if self.handshake.is_some() {
            return;
        }
        let key = random.below(3);
        self.number += 1;
        let topic = format!("$queue/q{queue}/{}-{key}", self.name);
        let payload = format!("q{queue}/{}-{key}/{}", self.name, self.number);
        self.next_id = self.next_id % 60_000 + 1;
        let id = self.next_id;
        audit.send(&payload);
        let bytes = match self.is_exactly_once {
            true => Publishing::q2(&topic, &payload, id).v5(),
            false => Publishing::q1(&topic, &payload, id).v5(),
        };
        if let Some(client) = &self.client {
            client.write(bytes);
        }
        if self.is_exactly_once {
            self.handshake = Some(Handshake { id, topic, payload, is_received: false });
        } else {
            self.waiting.insert(id, payload);
        }
    }

    /// Takes in what has come, and says whether it has answered.
    pub(super) fn look(&mut self, audit: &mut Audit) -> bool {
        let Some(client) = &self.client else { return false };
        let mut has_answered = false;
        for text in client.take() {
            if let Some(id) = number_behind(&text, "PUBACK")
                && let Some(payload) = self.waiting.remove(&id)
            {
                audit.acknowledge(&payload);
            }
            if let Some(id) = number_behind(&text, "PUBREC")
                && let Some(open) = self.handshake.as_mut().filter(|open| open.id == id)
            {
                audit.acknowledge(&open.payload);
                open.is_received = true;
                client.write(pubrel(id));
                has_answered = true;
            }
            if let Some(id) = number_behind(&text, "PUBCOMP")
                && self.handshake.as_ref().is_some_and(|open| open.id == id)
            {
                self.handshake = None;
            }
        }
        has_answered
    }
}

/// A client that consumes one queue at a time.
#[derive(Debug)]
pub(super) struct Consumer {
    number: usize,
    group: &'static str,
    client: Option<Client>,
    queue: usize,
    is_auto: bool,
    /// What it has not settled, and the packet identifier where PUBACK does that.
    has: VecDeque<(u16, Got)>,
    /// Verbs that wait for PUBACK, and what is settled then.
    asked: BTreeMap<u16, Option<String>>,
    next_id: u16,
}

fn user_property(delivery: &str, name: &str) -> String {
    let start = format!("UserProperty({name:?}, \"");
    let rest = delivery.split_once(&start).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
}

impl Consumer {
    pub(super) fn new(number: usize, group: &'static str) -> Self {
        Self {
            number,
            group,
            client: None,
            queue: 0,
            is_auto: false,
            has: VecDeque::new(),
            asked: BTreeMap::new(),
            next_id: 0,
        }
    }

    pub(super) fn join(
        &mut self,
        sim: &mut Sim,
        queue: usize,
        is_auto: bool,
        audit: &mut Audit,
    ) -> Result<(), String> {
        self.drop_connection(sim, audit);
        let name = format!("c{}", self.number);
        let client = Client::connect(sim, &Connecting::v5(&name));
        let settle = if is_auto { "auto" } else { "manual" };
        let filter = format!("$queue/q{queue}");
        let subscribing = Subscribing::to(&filter, 1)
            .with(Property::UserProperty("consumer-group", self.group))
            .with(Property::UserProperty("settle", settle));
        client.write(subscribing.v5());
        (self.client, self.queue, self.is_auto) = (Some(client), queue, is_auto);
        Ok(())
    }

    pub(super) fn drop_connection(&mut self, sim: &mut Sim, audit: &mut Audit) {
        if let Some(client) = &self.client {
            client.drop_connection(sim);
        }
        self.end(audit);
    }

    /// The connection is gone, and what was on its way with it.
    pub(super) fn end(&mut self, audit: &mut Audit) {
        if let Some(client) = self.client.take() {
            for text in client.take() {
                self.on_answer(&text, audit);
                // Sent, and so an attempt, whether the client has read it or not.
                if text.starts_with("PUBLISH ") {
                    audit.lose(self.group, text.split('"').nth(1).unwrap_or_default());
                }
            }
        }
        for (_, got) in self.has.drain(..) {
            audit.give_up(self.number, self.group, &got.payload);
        }
        self.asked.clear();
    }

    fn on_answer(&mut self, text: &str, audit: &mut Audit) {
        let Some(id) = number_behind(text, "PUBACK") else { return };
        let is_done = text == format!("PUBACK {id}");
        if let Some(Some(payload)) = self.asked.remove(&id)
            && is_done
        {
            audit.confirm(self.group, &payload);
        }
    }

    pub(super) fn look(&mut self, now: Time, audit: &mut Audit) -> Result<bool, String> {
        let mut has_answered = false;
        let texts = self.client.as_ref().map(Client::take).unwrap_or_default();
        for text in texts {
            self.on_answer(&text, audit);
            if !text.starts_with("PUBLISH ") {
                continue;
            }
            let id = text.split(" id=").nth(1).and_then(|rest| rest.split(' ').next());
            let id: u16 = id.and_then(|id| id.parse().ok()).ok_or("no packet identifier")?;
            let got = Got {
                payload: text.split('"').nth(1).unwrap_or_default().to_owned(),
                message_id: user_property(&text, "message-id"),
                attempt: user_property(&text, "attempt").parse().unwrap_or_default(),
            };
            audit.receive(self.number, self.group, &got, now)?;
            if !self.is_auto
                && let Some(client) = &self.client
            {
                client.write(puback(id));
                has_answered = true;
            }
            self.has.push_back((id, got));
        }
        Ok(has_answered)
    }

    /// Says what becomes of up to `count` messages.
    pub(super) fn settle(
        &mut self,
        _sim: &mut Sim,
        count: usize,
        random: &mut Random,
        audit: &mut Audit,
    ) {
        for _ in 0..count.min(self.has.len()) {
            let Some((id, got)) = self.has.pop_front() else { return };
            let Some(client) = &self.client else { return };
            audit.give_up(self.number, self.group, &got.payload);
            if self.is_auto {
                client.write(puback(id));
                continue;
            }
            let (verb, settles) = match random.below(10) {
                0 => ("$nack", false),
                1 => ("$reject", true),
                _ => ("$ack", true),
            };
            self.next_id = self.next_id % 60_000 + 1;
            let topic = format!("$queue/q{}/{verb}", self.queue);
            let publishing = Publishing::q1(&topic, "", self.next_id)
                .with(Property::UserProperty("message-id", &got.message_id))
                .with(Property::UserProperty("group-id", self.group))
                .with(Property::UserProperty("delay", random.pick(&["0", "2s"])));
            client.write(publishing.v5());
            self.asked.insert(self.next_id, settles.then_some(got.payload));
        }
    }

    /// Acknowledges whatever it has.
    pub(super) fn acknowledge_all(&mut self, _sim: &mut Sim, audit: &mut Audit) {
        while let Some((id, got)) = self.has.pop_front() {
            audit.give_up(self.number, self.group, &got.payload);
            if let Some(client) = &self.client {
                client.write(puback(id));
            }
        }
    }
}
