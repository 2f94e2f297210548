//! A session and its client under any sequence of operations.
//!
//! Both ends run here: the session as it is, and a client that remembers what it saw. After every
//! step the rules that must never break are checked: QoS 2 exactly once, order per topic, no
//! packet identifier used twice at a time, no more in flight than the client allows, and nothing
//! held that nobody waits for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_packets::{
    Ack, AckKind, Connect, Frame, Packet, PacketId, Properties, PropertiesBuf, Property, QoS,
    VARINT_MAX, Version,
};
use dunlin_queue::{Entry, Identifiers, MessageFields, MessagePool, MessageRef, Time};
use dunlin_session::{Action, Alike, Context, Level, Limits, Offer, Outcome, Polled, Session};
use proptest::collection::vec;
use proptest::prelude::*;

/// Messages that others have too, at a time.
const SHARED: usize = 4;

#[derive(Clone, Debug)]
enum Operation {
    /// The broker routes a message to the session.
    Enqueue { qos: u8, topic: u8 },
    /// The socket takes so many packets.
    Poll { packets: usize },
    /// The flush of a fan-out: all that waits, if it may be what others have too.
    PollAlike,
    /// The client answers one of the deliveries it has not answered.
    Acknowledge { which: usize },
    /// The client answers all deliveries at QoS 1 that it has not answered.
    AcknowledgeAll,
    /// The client publishes under one of a few identifiers, perhaps again.
    Publish { id: u16 },
    /// The client releases a QoS 2 publication.
    Release { id: u16 },
    /// The connection breaks, and comes back with this receive maximum.
    Reconnect { receive_maximum: u16 },
    /// Time passes.
    Wait { millis: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..3u8, 0..3u8).prop_map(|(qos, topic)| Operation::Enqueue { qos, topic }),
        4 => (1..6usize).prop_map(|packets| Operation::Poll { packets }),
        3 => Just(Operation::PollAlike),
        4 => any::<usize>().prop_map(|which| Operation::Acknowledge { which }),
        1 => Just(Operation::AcknowledgeAll),
        2 => (1..4u16).prop_map(|id| Operation::Publish { id }),
        2 => (1..4u16).prop_map(|id| Operation::Release { id }),
        1 => (1..8u16).prop_map(|receive_maximum| Operation::Reconnect { receive_maximum }),
        1 => (0..5000u64).prop_map(|millis| Operation::Wait { millis }),
    ]
}

/// What the client is to answer next under an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Acknowledge,
    Receive,
    Complete,
}

struct Model {
    session: Session,
    pool: MessagePool,
    limits: Limits,
    alike: Alike,
    /// Messages that others have too.
    shared: VecDeque<MessageRef>,
    now: Time,
    receive_maximum: u16,
    /// Messages handed to the session so far.
    enqueued: u32,
    /// Deliveries the client has not answered on this connection.
    owed: BTreeMap<PacketId, Owed>,
    /// QoS 2 deliveries the client has taken and the broker has not released.
    taken: BTreeSet<PacketId>,
    /// By topic and QoS, the last new message the client was given.
    last_seen: BTreeMap<(String, u8), u32>,
    /// QoS 2 payloads given to the application.
    delivered_twice: BTreeSet<u32>,
    /// Identifiers of the client's own QoS 2 publications that it has not released.
    unreleased: BTreeSet<u16>,
    routed: u32,
    expected_routed: u32,
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            session: Session::new("c".into()),
            pool: MessagePool::new(1 << 20),
            limits: Limits { receive_maximum: 10, in_flight_max: 6, ..Limits::default() },
            alike: Alike::default(),
            shared: VecDeque::new(),
            now: Time::from_millis(1_000_000),
            receive_maximum: 4,
            enqueued: 0,
            owed: BTreeMap::new(),
            taken: BTreeSet::new(),
            last_seen: BTreeMap::new(),
            delivered_twice: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            routed: 0,
            expected_routed: 0,
        };
        model.attach(false);
        model
    }

    fn attach(&mut self, resumed: bool) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SessionExpiryInterval(1000));
        properties.push(Property::ReceiveMaximum(self.receive_maximum));
        let connect = Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive_s: 0,
            client_id: "c",
            properties: properties.as_properties(),
            will: None,
            user_name: None,
            password: None,
        };
        let offer = Offer::new(&connect, &self.limits, String::new).expect("acceptable");
        let Self { session, pool, limits, now, .. } = self;
        let mut out = Vec::new();
        session.attach(
            offer,
            resumed,
            &Context { limits, pool, changes: &mut Vec::new(), now: *now },
            &mut out,
        );
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Enqueue { qos, topic } => self.enqueue(qos, topic),
            Operation::Poll { packets } => self.poll(packets),
            Operation::PollAlike => self.poll_alike(),
            Operation::Acknowledge { which } => self.acknowledge(which),
            Operation::AcknowledgeAll => self.acknowledge_all(),
            Operation::Publish { id } => self.publish(id),
            Operation::Release { id } => self.release(id),
            Operation::Reconnect { receive_maximum } => {
                self.session.detach(false, self.now);
                self.receive_maximum = receive_maximum;
                self.owed.clear();
                self.attach(true);
            }
            Operation::Wait { millis } => self.now = self.now.plus_millis(millis),
        }
        let waiting = self.session.queue().len() + self.session.window().len();
        let waiting = waiting + self.shared.len();
        assert!(self.pool.stats().live <= waiting, "a message is held that nobody waits for");
    }

    fn enqueue(&mut self, qos: u8, topic: u8) {
        let payload = self.enqueued.to_string();
        self.enqueued += 1;
        let qos = QoS::from_bits(qos).expect("below 3");
        let fields = MessageFields {
            topic: &format!("t/{topic}"),
            payload: payload.as_bytes(),
            properties: Properties::default(),
            qos,
            retain: false,
            publisher: 0,
        };
        let Self { session, pool, limits, now, .. } = self;
        let message = pool.insert(&fields, *now);
        self.shared.push_back(pool.share(&message));
        if self.shared.len() > SHARED {
            self.shared.pop_front().into_iter().for_each(|message| pool.release(message));
        }
        let entry = Entry { message, identifiers: Identifiers::NONE, group: 0, qos, retain: false };
        let mut cx = Context { limits, pool, changes: &mut Vec::new(), now: *now };
        let queue = limits.queue;
        session
            .enqueue(entry, &queue, &mut cx, |reason, _| panic!("nothing is dropped: {reason:?}"));
    }

    fn poll(&mut self, packets: usize) {
        let mut out = Vec::new();
        for _ in 0..packets {
            let Self { session, pool, limits, now, .. } = self;
            let mut cx = Context { limits, pool, changes: &mut Vec::new(), now: *now };
            match session.poll_publish(&mut cx, &mut out) {
                Polled::Sent => {}
                Polled::Idle => break,
                other => panic!("{other:?}"),
            }
        }
        self.receive(&out);
    }

    fn poll_alike(&mut self) {
        let Self { session, pool, limits, now, alike, .. } = self;
        let mut cx = Context { limits, pool, changes: &mut Vec::new(), now: *now };
        if !session.may_be_alike(limits) {
            return;
        }
        let waits = session.queue().len();
        let share = session.take_alike(&mut cx, alike);
        if let Some(share) = share.or_else(|| session.compose_alike(&mut cx, alike)) {
            assert_eq!((share.count, session.queue().len()), (waits, 0), "all or nothing");
            let bytes = alike.bytes_for(share.first_id).to_vec();
            self.receive(&bytes);
        }
    }

    /// The client reads what came.
    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some((frame, len)) =
            Frame::split(bytes, VARINT_MAX as usize + 5, Version::V5).expect("well formed")
        {
            match Packet::decode(&frame, Version::V5).expect("valid") {
                Packet::Publish(publish) => {
                    let text = std::str::from_utf8(publish.payload).expect("a number");
                    let number = text.parse().expect("a number");
                    self.on_delivery(
                        publish.topic,
                        publish.qos,
                        publish.packet_id,
                        number,
                        publish.dup,
                    );
                }
                Packet::Ack(ack) if ack.kind == AckKind::PubRel => {
                    self.taken.remove(&ack.packet_id);
                    self.owed.insert(ack.packet_id, Owed::Complete);
                }
                Packet::Ack(_) => {}
                other => panic!("{other:?}"),
            }
            bytes = &bytes[len..];
        }
    }

    fn on_delivery(&mut self, topic: &str, qos: QoS, id: Option<PacketId>, number: u32, dup: bool) {
        if let Some(id) = id {
            let owed = if qos == QoS::AtLeastOnce { Owed::Acknowledge } else { Owed::Receive };
            // Resent PUBRELs may be more than the maximum; then there is no PUBLISH beside them.
            let open = self.owed.len();
            assert!(open < usize::from(self.receive_maximum), "{open} are open already");
            let before = self.owed.insert(id, owed);
            assert_eq!(before, None, "identifier {id} is in use");
            if qos == QoS::ExactlyOnce {
                if !self.taken.insert(id) {
                    assert!(dup, "a new message under an identifier that is not released");
                    return;
                }
                assert!(self.delivered_twice.insert(number), "{number} came twice at QoS 2");
            }
        }
        let last = self.last_seen.insert((topic.to_owned(), qos as u8), number);
        assert!(dup || last.is_none_or(|last| last < number), "{number} after {last:?}");
        if let Some(last) = last.filter(|last| *last > number) {
            self.last_seen.insert((topic.to_owned(), qos as u8), last);
        }
    }

    fn acknowledge(&mut self, which: usize) {
        if self.owed.is_empty() {
            return;
        }
        let (&id, &owed) = self.owed.iter().nth(which % self.owed.len()).expect("in range");
        self.owed.remove(&id);
        let kind = match owed {
            Owed::Acknowledge => AckKind::PubAck,
            Owed::Receive => AckKind::PubRec,
            Owed::Complete => AckKind::PubComp,
        };
        let out = self.packet(&Packet::Ack(Ack::new(kind, id)));
        self.receive(&out);
        if owed == Owed::Receive {
            assert_eq!(self.owed.get(&id), Some(&Owed::Complete), "PUBREL follows PUBREC");
        }
    }

    fn acknowledge_all(&mut self) {
        let is_plain = |owed: &mut Owed| *owed == Owed::Acknowledge;
        let ids: Vec<PacketId> =
            self.owed.extract_if(.., |_, owed| is_plain(owed)).map(|(id, _)| id).collect();
        let mut bytes = Vec::new();
        ids.iter().for_each(|&id| Ack::new(AckKind::PubAck, id).encode(Version::V5, &mut bytes));
        let all = bytes.len();
        // One that nothing is in flight for, and one that says more.
        let end: &[u8] =
            if ids.len().is_multiple_of(2) { &[0x40, 2, 0xff, 0xff] } else { &[0x40, 3, 0, 1] };
        bytes.extend_from_slice(end);
        let Self { session, pool, limits, now, .. } = self;
        let mut cx = Context { limits, pool, changes: &mut Vec::new(), now: *now };
        assert_eq!(session.take_pubacks(&bytes, &mut cx), all);
    }

    /// The session handles a packet; what it answers comes back.
    fn packet(&mut self, packet: &Packet<'_>) -> Vec<u8> {
        let Self { session, pool, limits, now, .. } = self;
        let mut out = Vec::new();
        let mut cx = Context { limits, pool, changes: &mut Vec::new(), now: *now };
        let action = session.on_packet(packet, 0, &mut cx, &mut out).expect("allowed");
        let id = match action {
            Action::Publish { message, packet_id } => {
                pool.release(message);
                self.routed += 1;
                packet_id.expect("not QoS 0")
            }
            Action::Repeated { packet_id } => packet_id,
            _ => return out,
        };
        let (qos, code) = (QoS::ExactlyOnce, dunlin_packets::ReasonCode::Success);
        self.session.acknowledge(
            id,
            Outcome { qos, code, level: Level::Memory, reason: "" },
            &mut out,
        );
        out
    }

    fn publish(&mut self, number: u16) {
        // The same identifier before PUBREL is the same message.
        self.expected_routed += u32::from(self.unreleased.insert(number));
        let publish = dunlin_packets::Publish {
            dup: false,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: "in",
            packet_id: Some(id(number)),
            properties: Properties::default(),
            payload: b"x",
        };
        let out = self.packet(&Packet::Publish(publish));
        assert_eq!(out, [0x50, 2, 0, number as u8]);
        assert_eq!(self.routed, self.expected_routed, "exactly once");
    }

    fn release(&mut self, number: u16) {
        let known = self.unreleased.remove(&number);
        let out = self.packet(&Packet::Ack(Ack::new(AckKind::PubRel, id(number))));
        let expected: &[u8] =
            if known { &[0x70, 2, 0, number as u8] } else { &[0x70, 3, 0, number as u8, 0x92] };
        assert_eq!(out, expected);
    }

    /// The client reads and answers everything: all must have arrived, and nothing be left.
    fn finish(mut self) {
        for _ in 0..10_000 {
            self.poll(100);
            if self.owed.is_empty() {
                break;
            }
            self.acknowledge(0);
        }
        assert!(self.session.queue().is_empty() && self.session.window().is_empty());
        self.shared.drain(..).for_each(|message| self.pool.release(message));
        assert_eq!(self.pool.stats().live, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_session_keeps_its_promises(operations in vec(operation(), 1..200)) {
        let mut model = Model::new();
        for operation in &operations {
            model.apply(operation);
        }
        model.finish();
    }
}
