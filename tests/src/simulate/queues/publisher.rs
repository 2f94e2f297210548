//! Those who publish to queues.

use std::collections::BTreeMap;

use dunlin_packets::{Property, Version};

use super::audit::Audit;
use super::audit::sent::Sent;
use super::delivery::answer;
use super::scene::{Kind, QueueSpec};
use crate::simulate::random::Random;
use crate::{Client, Connecting, Publishing, Sim, pubrel};

/// A publication, as often as it is sent.
#[derive(Clone, Debug)]
struct Message {
    topic: String,
    payload: String,
    users: Vec<(&'static str, String)>,
    expiry_s: Option<u32>,
}

impl Message {
    fn compose(&self, id: u16, qos: u8, is_dup: bool, version: Version) -> Vec<u8> {
        let mut publishing = match qos {
            2 => Publishing::q2(&self.topic, &self.payload, id),
            _ => Publishing::q1(&self.topic, &self.payload, id),
        };
        for (name, value) in &self.users {
            publishing = publishing.with(Property::UserProperty(name, value));
        }
        if let Some(seconds) = self.expiry_s {
            publishing = publishing.with(Property::MessageExpiryInterval(seconds));
        }
        if is_dup {
            publishing = publishing.dup();
        }
        publishing.bytes_for(version)
    }
}

/// How far a QoS 2 publication is.
#[derive(Clone, Debug)]
struct Handshake {
    id: u16,
    message: Message,
    is_received: bool,
}

/// A client that publishes, with keys of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    name: String,
    version: Version,
    is_exactly_once: bool,
    has_partition_keys: bool,
    client: Option<Client>,
    next_id: u16,
    number: u64,
    /// QoS 1: what waits for PUBACK.
    waiting: BTreeMap<u16, String>,
    /// QoS 2: one at a time.
    handshake: Option<Handshake>,
}

impl Publisher {
    pub(super) fn new(number: usize) -> Self {
        Self {
            name: format!("p{number}"),
            version: if number == 4 { Version::V4 } else { Version::V5 },
            is_exactly_once: number % 2 == 1 || number == 4,
            has_partition_keys: matches!(number, 2 | 3),
            client: None,
            next_id: 0,
            number: 0,
            waiting: BTreeMap::new(),
            handshake: None,
        }
    }

    pub(super) fn come_back(&mut self, sim: &mut Sim, audit: &mut Audit) {
        self.waiting.clear();
        let connecting = match self.version {
            Version::V5 => Connecting::v5(&self.name).expiry(100_000),
            _ => Connecting::v4(&self.name),
        };
        let client = Client::connect(sim, &connecting.resume());
        if let Some(open) = &self.handshake {
            // The same again, as far as it was.
            let bytes = match open.is_received {
                true => pubrel(open.id),
                false => {
                    audit.send_again(&open.message.payload, sim.now());
                    open.message.compose(open.id, 2, true, self.version)
                }
            };
            client.write(bytes);
        }
        self.client = Some(client);
    }

    fn draw(&mut self, sim: &Sim, spec: &QueueSpec, random: &mut Random) -> (Message, Sent) {
        self.number += 1;
        let key = format!("{}-{}", self.name, random.below(3));
        let payload = format!("{}/{key}/{}", spec.name, self.number);
        let mut sent = Sent::new(sim.now());
        let mut message =
            Message { topic: String::new(), payload, users: Vec::new(), expiry_s: None };
        message.topic = if self.has_partition_keys && !matches!(spec.kind, Kind::Captured { .. }) {
            message.users.push(("partition-key", key));
            spec.topic(&format!("r{}", random.below(5)))
        } else {
            spec.topic(&key)
        };
        sent.topic.clone_from(&message.topic);
        if spec.kind == Kind::Timed && self.version == Version::V5 {
            if random.percent(40) {
                message.users.push(("priority", random.below(10).to_string()));
            }
            if random.percent(40) {
                let millis = random.pick(&[500, 2000, 15_000]);
                sent.not_before = sim.now().plus_millis(millis);
                message.users.push(match random.percent(50) {
                    true => ("delay", format!("{millis}ms")),
                    false => ("deliver-at", sent.not_before.as_millis().to_string()),
                });
            }
            if random.percent(20) {
                message.expiry_s = Some(5);
                sent.expire_after(sim.now(), 5);
            }
        }
        (message, sent)
    }

    pub(super) fn publish(
        &mut self,
        sim: &mut Sim,
        spec: &QueueSpec,
        random: &mut Random,
        audit: &mut Audit,
    ) {
        if self.client.is_none() {
            self.come_back(sim, audit);
        }
        if self.handshake.is_some() {
            return;
        }
        let (message, sent) = self.draw(sim, spec, random);
        audit.sent.send(&message.payload, sent);
        self.next_id = self.next_id % 60_000 + 1;
        let (id, qos) = (self.next_id, if self.is_exactly_once { 2 } else { 1 });
        if let Some(client) = &self.client {
            client.write(message.compose(id, qos, false, self.version));
        }
        if self.is_exactly_once {
            self.handshake = Some(Handshake { id, message, is_received: false });
        } else {
            self.waiting.insert(id, message.payload);
        }
    }

    /// Takes in what has come, and says whether it has answered.
    pub(super) fn look(&mut self, audit: &mut Audit) -> Result<bool, String> {
        let Some(client) = &self.client else { return Ok(false) };
        let mut has_answered = false;
        let mut is_closed = false;
        for text in client.take() {
            audit.note(&self.name, &text);
            if let Some((id, is_success)) = answer(&text, "PUBACK")
                && let Some(payload) = self.waiting.remove(&id)
            {
                audit.on_answer(&payload, is_success, &text);
            }
            if let Some((id, is_success)) = answer(&text, "PUBREC")
                && let Some(open) = self.handshake.as_mut().filter(|open| open.id == id)
            {
                audit.on_answer(&open.message.payload, is_success, &text);
                if is_success {
                    open.is_received = true;
                    client.write(pubrel(id));
                    has_answered = true;
                } else {
                    self.handshake = None;
                }
            }
            if let Some((id, _)) = answer(&text, "PUBCOMP")
                && self.handshake.as_ref().is_some_and(|open| open.id == id)
            {
                self.handshake = None;
            }
            is_closed |= text == "CLOSED";
        }
        if is_closed {
            self.client = None;
            // Before 5.0 there is no other way to refuse a publication.
            if self.version == Version::V5 && !audit.may_close {
                return Err(format!("{} was closed", self.name));
            }
        }
        Ok(has_answered)
    }
}
