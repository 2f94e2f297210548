//! Logs with anything in them.

use std::collections::BTreeSet;
use std::path::Path;

use dunlin::store::record::{MessageRecord, Refs};
use dunlin::store::{Deliveries, NewLog, StoredRef, StoredRetained, StoredSession, StoredWill};
use dunlin_packets::{PacketId, PropertiesBuf, Property, QoS, SubscriptionOptions};
use dunlin_queue::Time;
use dunlin_router::Subscription;
use dunlin_storage::{DiskBackend, LogOptions};

use super::{done, fresh, text_of};

/// Numbers that are the same in every run (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn time(&mut self) -> Time {
        if self.one_in(2) { Time::NEVER } else { Time::from_millis(self.below(1 << 42)) }
    }

    pub(super) fn qos(&mut self, from: u8) -> QoS {
        QoS::from_bits(from + self.below(u64::from(3 - from)) as u8).expect("a QoS")
    }

    pub(super) fn text(&mut self) -> Box<str> {
        let len = 1 + self.below(12);
        (0..len)
            .map(|_| ['a', 'ß', '"', '\\', '/', '漢', '😀', ' '][self.below(8) as usize])
            .collect()
    }

    pub(super) fn bytes(&mut self) -> Box<[u8]> {
        let len = self.below(40);
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    pub(super) fn properties(&mut self) -> Box<[u8]> {
        let mut properties = PropertiesBuf::new();
        for _ in 0..self.below(3) {
            let (name, value) = (self.text(), self.text());
            properties.push(Property::UserProperty(&name, &value));
        }
        if self.one_in(2) {
            let bytes = self.bytes();
            properties.push(Property::CorrelationData(&bytes));
        }
        properties.as_properties().as_bytes().into()
    }

    pub(super) fn packet_ids(&mut self) -> Vec<PacketId> {
        let ids: BTreeSet<u16> =
            (0..self.below(6)).map(|_| 1 + self.below(65_535) as u16).collect();
        ids.into_iter().map(|id| PacketId::new(id).expect("it is not 0")).collect()
    }

    /// Topic, properties and payload, with the lengths of the first two.
    pub(super) fn content(&mut self, topic: &str) -> (u32, u32, Box<[u8]>) {
        let (properties, payload) = (self.properties(), self.bytes());
        let content = [topic.as_bytes(), &properties, &payload].concat();
        (topic.len() as u32, properties.len() as u32, content.into())
    }

    pub(super) fn session(&mut self, sid: u64, messages: u64) -> StoredSession {
        let mut deliveries: Vec<StoredRef> = Vec::new();
        for id in 1..=messages {
            if self.one_in(3) {
                let identifiers = (0..self.below(3)).map(|_| 1 + self.below(1 << 28) as u32 / 2);
                let identifiers: Vec<u32> = identifiers.collect();
                let (qos, retain) = (self.qos(1), self.one_in(2));
                deliveries.push(StoredRef { id, qos, retain, identifiers: identifiers.into() });
            }
        }
        let mut in_flight = Vec::new();
        for packet_id in self.packet_ids() {
            let delivery = if deliveries.is_empty() || self.one_in(3) {
                None
            } else {
                Some(deliveries.remove(self.below(deliveries.len() as u64) as usize))
            };
            in_flight.push((packet_id, delivery));
        }
        let filters: BTreeSet<Box<str>> = (0..self.below(4)).map(|_| self.text()).collect();
        let subscriptions = filters.into_iter().map(|filter| {
            let options = SubscriptionOptions {
                qos: self.qos(0),
                no_local: self.one_in(2),
                retain_as_published: self.one_in(2),
                ..SubscriptionOptions::default()
            };
            (filter, Subscription { options, identifier: self.below(3) as u32 })
        });
        let subscriptions = subscriptions.collect();
        let will = self.one_in(2).then(|| StoredWill {
            topic: self.text(),
            properties: self.properties(),
            payload: self.bytes(),
            qos: self.qos(0),
            retain: self.one_in(2),
            delay_s: self.below(1 << 32) as u32,
        });
        StoredSession {
            consumers: Vec::new(),
            sid,
            client_id: format!("{sid}{}", self.text()).into(),
            expiry_s: self.below(1 << 32) as u32,
            was_online: self.one_in(2),
            expires_at: self.time(),
            will_at: if will.is_some() { self.time() } else { Time::NEVER },
            will: will.map(Box::new),
            subscriptions,
            received: self.packet_ids(),
            in_flight,
            queue: deliveries,
        }
    }
}

/// A log with anything that may be kept in it.
fn random_log(data: &Path, random: &mut Random) {
    let directory = data.join("log");
    std::fs::create_dir_all(&directory).expect("a directory");
    let backend = DiskBackend::open(&directory).expect("a directory");
    let mut log = NewLog::begin(backend, LogOptions::default()).expect("an empty log");
    if random.one_in(2) {
        log.keys([random.0, !random.0, 0, u64::MAX]).expect("there is room");
    }
    let (messages, mut deliveries) = (random.below(20), Deliveries::default());
    for sid in 1..=random.below(6) {
        let session = random.session(sid, messages);
        deliveries.add(&session);
        log.session(&session).expect("there is room");
    }
    // Any order will do.
    for id in (1..=messages).rev() {
        let Some(refs) = deliveries.take(id) else { continue };
        let topic = random.text();
        let (topic_len, properties_len, content) = random.content(&topic);
        let record = MessageRecord {
            id,
            qos: random.qos(0),
            retain: random.one_in(2),
            is_retained: false,
            expires_at: random.time(),
            received: random.below(1 << 32) as u32,
            publisher: 0,
            topic_len,
            properties_len,
            content: &content,
            refs: Refs::new(&refs),
            position: 0,
        };
        log.message(&record).expect("there is room");
    }
    for number in 0..random.below(6) {
        let topic = format!("{number}{}", random.text());
        let (topic_len, properties_len, content) = random.content(&topic);
        let retained = StoredRetained {
            id: 1 + random.below(1 << 50),
            publisher: random.0,
            expires_at: random.time(),
            qos: random.qos(0),
            topic_len,
            properties_len,
            content,
        };
        log.retained(&retained).expect("there is room");
    }
    log.finish().expect("it syncs");
}

#[test]
fn any_log_is_the_same_after_export_and_import_and_after_compacting() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..25 {
        let (data, copy) = (fresh("random"), fresh("random-copy"));
        random_log(&data, &mut random);
        let file = fresh("random.jsonl");
        done(&["export", "-o", text_of(&file)], &data);
        let export = std::fs::read_to_string(&file).expect("a file");
        done(&["import", text_of(&file)], &copy);
        assert_eq!(done(&["export"], &copy), export);
        done(&["compact"], &copy);
        assert_eq!(done(&["export"], &copy), export);
    }
}
