//! A look at the retained messages, through the eyes of a client that has just come.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dunlin_packets::{
    Ack, AckKind, FilterRequest, Packet, PacketId, Properties, Publish, QoS, Subscribe,
    SubscriptionOptions, Version,
};

use super::publication::Publication;
use super::shared::{Address, Phase, Shared};
use super::wire::{Broken, Identity, Link, Output};

/// How long the broker may take to send them all.
const LIMIT_MS: u64 = 60_000;
const READ_MS: u64 = 20;

/// What was seen of the retained messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Topics that had to have a value and were looked at.
    pub(super) checked: u64,
    /// What is wrong, in words.
    pub(super) wrong: Vec<String>,
}

/// Looks at all topics. `number` is different each time.
pub(super) fn check(shared: &Shared, address: Address, number: u32) -> Result<Findings, Broken> {
    let identity = Identity {
        client_id: format!("torture-{}-look-{number}", std::process::id()),
        version: Version::V5,
        receive_maximum: 0,
        is_persistent: false,
    };
    // Whatever was acknowledged before the SUBSCRIBE has to be there, or something later.
    let mut look = Look::new(shared);
    let (mut link, _) = Link::open(address.port, &identity)?;
    look.subscribe(&mut link.output);
    let end = shared.now().plus_millis(LIMIT_MS);
    while !look.is_complete() && shared.now() < end && shared.phase() != Phase::Over {
        link.flush()?;
        link.read(Duration::from_millis(READ_MS))?;
        while let Some(packet) = link.input.next()? {
            look.on_packet(&packet, &mut link.output);
        }
    }
    link.leave()?;
    Ok(look.findings())
}

struct Look<'a> {
    shared: &'a Shared,
    /// By topic: what was acknowledged before; one more than the sequence number.
    floor: Vec<u32>,
    /// By topic: what came, in the same way.
    found: Vec<Option<u32>>,
    is_subscribed: bool,
    wrong: Vec<String>,
}

fn load(counters: &[AtomicU32]) -> Vec<u32> {
    counters.iter().map(|counter| counter.load(Ordering::SeqCst)).collect()
}

impl<'a> Look<'a> {
    fn new(shared: &'a Shared) -> Self {
        let floor = load(&shared.retained_acked);
        let found = vec![None; floor.len()];
        Self { shared, floor, found, is_subscribed: false, wrong: Vec::new() }
    }

    fn subscribe(&self, out: &mut Output) {
        let options =
            SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let requests = [FilterRequest { filter: "r/#", options }];
        let properties = Properties::default();
        Subscribe::encode(Version::V5, PacketId::MIN, properties, &requests, &mut out.bytes);
    }

    fn is_complete(&self) -> bool {
        let mut each = self.floor.iter().zip(&self.found);
        self.is_subscribed && each.all(|(&floor, found)| floor == 0 || found.is_some())
    }

    fn on_packet(&mut self, packet: &Packet<'_>, out: &mut Output) {
        match packet {
            Packet::SubAck(_) => self.is_subscribed = true,
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    out.push(&Packet::Ack(Ack::new(AckKind::PubAck, id)));
                }
                self.on_value(publish);
            }
            _ => self.wrong.push(format!("{packet:?} came")),
        }
    }

    /// A stored value, or a live one, which a broker may send in place of a stored one that it has
    /// made obsolete.
    fn on_value(&mut self, publish: &Publish<'_>) {
        let publication = Publication::read(self.shared.seed, publish.payload, &mut Vec::new());
        let publication = publication.filter(|publication| {
            publication.is_retained() && publication.topic() == publish.topic
        });
        let Some(publication) = publication else {
            return self.wrong.push(format!("{}: not a value of this run", publish.topic));
        };
        let topic = publication.retained_topic() as usize;
        let (value, floor) = (publication.sequence + 1, self.floor[topic]);
        let ceiling = self.shared.retained_sent[topic].load(Ordering::SeqCst);
        // A live one may be a repetition, of which a later one was acknowledged since.
        if (publish.retain && value < floor) || value > ceiling {
            self.wrong.push(format!(
                "{}: {value} is not from {floor} (acknowledged) to {ceiling} (sent)",
                publish.topic
            ));
        }
        self.found[topic] = Some(value);
    }

    fn findings(mut self) -> Findings {
        for (topic, (&floor, found)) in self.floor.iter().zip(&self.found).enumerate() {
            if floor > 0 && found.is_none() {
                self.wrong.push(format!("r/{topic}: nothing, after {floor} was acknowledged"));
            }
        }
        let checked = self.floor.iter().filter(|&&floor| floor > 0).count() as u64;
        Findings { checked, wrong: self.wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::torture::publication::RETAINED_SOURCE;
    use crate::clock::Clock;

    fn see(look: &mut Look<'_>, sequence: u32, topic: &str) {
        let mut payload = Vec::new();
        let publication = Publication { source: RETAINED_SOURCE, sequence };
        publication.write_payload(look.shared.seed, &mut payload);
        look.on_value(&Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic,
            packet_id: None,
            properties: Properties::default(),
            payload: &payload,
        });
    }

    #[test]
    fn a_value_is_right_from_the_last_acknowledged_to_the_last_sent() {
        let shared = Shared::new(Clock::start(), 1, 0);
        let at = |sequence| Publication { source: RETAINED_SOURCE, sequence };
        // The first values of one topic.
        let topic = at(0).topic();
        let values: Vec<u32> = (0..400).filter(|&value| at(value).topic() == topic).collect();
        let index = at(0).retained_topic() as usize;
        shared.retained_acked[index].store(values[1] + 1, Ordering::SeqCst);
        shared.retained_sent[index].store(values[2] + 1, Ordering::SeqCst);
        for (value, wrong) in [(values[0], 1), (values[1], 0), (values[2], 0), (values[3], 1)] {
            let mut look = Look::new(&shared);
            see(&mut look, value, &topic);
            assert_eq!((look.findings().wrong.len(), value), (wrong, value));
        }
        assert_eq!(Look::new(&shared).findings().wrong.len(), 1, "nothing is wrong as well");
        let mut look = Look::new(&shared);
        see(&mut look, values[1], "r/elsewhere");
        assert!(!look.findings().wrong.is_empty());
    }
}
