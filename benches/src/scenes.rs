//! The scenes that are measured more than once: as a benchmark, as a gate, by instructions.

use std::collections::VecDeque;

use dunlin::worker::Settings;
use dunlin_packets::{Property, Version};
use dunlin_tests::{Connecting, Publishing, Subscribing};

use crate::{ClientNo, Rig};

/// One publisher and many subscribers of its topic.
#[derive(Debug)]
pub struct FanOut {
    /// The worker.
    pub rig: Rig,
    publisher: ClientNo,
    subscribers: Vec<ClientNo>,
    frames: Vec<u8>,
}

const TOPIC: &str = "site/7/device/42";

impl FanOut {
    /// So many subscribers of one version at one QoS, which acknowledge what they get.
    #[must_use]
    pub fn new(subscribers: usize, version: Version, qos: u8, payload: usize) -> Self {
        Self::in_runs(1, subscribers, version, qos, payload)
    }

    /// The same with so many messages at a time, right behind each other.
    #[must_use]
    pub fn in_runs(
        messages: u16,
        subscribers: usize,
        version: Version,
        qos: u8,
        payload: usize,
    ) -> Self {
        let mut rig = Rig::new(Settings::default());
        let subscribing = Subscribing::to(TOPIC, qos);
        let subscribers: Vec<_> = (0..subscribers)
            .map(|number| rig.subscriber(&format!("s{number}"), version, &subscribing, qos > 0))
            .collect();
        let connecting = match version {
            Version::V5 => Connecting::v5("p"),
            Version::V3 | Version::V4 => Connecting::v4("p"),
        };
        let publisher = rig.connect(&connecting);
        if qos == 2 {
            rig.answer(publisher, version);
        }
        let payload = vec![b'x'; payload];
        let frame = |packet_id| {
            let publishing = match qos {
                0 => Publishing::q0(TOPIC, &payload),
                1 => Publishing::q1(TOPIC, &payload, packet_id),
                _ => Publishing::q2(TOPIC, &payload, packet_id),
            };
            let publishing = match version {
                Version::V5 => publishing
                    .with(Property::ContentType("text/plain"))
                    .with(Property::UserProperty("unit", "K")),
                Version::V3 | Version::V4 => publishing,
            };
            publishing.bytes_for(version)
        };
        let frames = (1..=messages).flat_map(frame).collect();
        let mut scene = Self { rig, publisher, subscribers, frames };
        // Until every buffer has the size it needs.
        for _ in 0..50 {
            scene.publish();
        }
        scene
    }

    /// One message, or a run: read, routed, queued, composed and sent to everybody, and acknowledged
    /// where that is due.
    #[inline]
    pub fn publish(&mut self) {
        self.rig.send(self.publisher, &self.frames);
        self.rig.settle();
    }

    /// Has the subscribers' sockets full, so that [`Self::enqueue`] only queues.
    pub fn stop_reading(&mut self) {
        self.rig.block(&self.subscribers, true);
        // What makes the broker notice.
        self.publish();
    }

    /// Lets the subscribers read what has gathered.
    pub fn catch_up(&mut self) {
        self.rig.block(&self.subscribers, false);
        self.rig.settle();
    }

    /// One message, read, routed and put into everybody's queue.
    #[inline]
    pub fn enqueue(&mut self) {
        self.rig.send(self.publisher, &self.frames);
        self.rig.turn();
    }
}

/// The least that a fan-out in memory can be: a handle is pushed into each queue.
#[derive(Debug)]
pub struct HandlePush {
    queues: Vec<VecDeque<u32>>,
}

impl HandlePush {
    /// For so many queues.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        Self { queues: vec![VecDeque::with_capacity(64); queues] }
    }

    /// Pushes one.
    #[inline]
    pub fn push(&mut self, handle: u32) {
        for queue in &mut self.queues {
            queue.push_back(handle);
        }
    }

    /// Empties the queues.
    pub fn clear(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::clear);
    }
}

/// One publisher to a partitioned queue, and one consumer that settles by PUBACK.
#[derive(Debug)]
pub struct QueueLine {
    rig: Rig,
    publisher: ClientNo,
    frame: Vec<u8>,
}

impl QueueLine {
    /// With a consumer of this version; messages are in memory.
    #[must_use]
    pub fn new(version: Version) -> Self {
        let mut rig = Rig::new(Settings::default());
        let subscribing = Subscribing::to("$share/workers/$queue/jobs", 1);
        let subscribing = match version {
            Version::V5 => subscribing.with(Property::UserProperty("settle", "auto")),
            Version::V3 | Version::V4 => subscribing,
        };
        rig.subscriber("consumer", version, &subscribing, true);
        let publisher = rig.connect(&Connecting::v4("p"));
        let payload = vec![b'x'; 100];
        let frame = Publishing::q1("$queue/jobs/eu/7", &payload, 1).v4();
        let mut scene = Self { rig, publisher, frame };
        // Until every buffer has the size it needs.
        for _ in 0..2000 {
            scene.pass();
        }
        scene
    }

    /// One message: read, enqueued, acknowledged, leased, composed, sent, and settled.
    #[inline]
    pub fn pass(&mut self) {
        self.rig.send(self.publisher, &self.frame);
        self.rig.settle();
    }
}

/// Queues that somebody has used once, and that are empty: each with eight partitions.
#[derive(Debug)]
pub struct IdleQueues {
    rig: Rig,
}

impl IdleQueues {
    /// So many. With `has_group`, each has a group of consumers, which are away.
    #[must_use]
    pub fn new(count: usize, has_group: bool) -> Self {
        let mut settings = Settings::default();
        settings.queues.max = count;
        let mut rig = Rig::new(settings);
        let publisher = rig.connect(&Connecting::v4("p"));
        let numbers: Vec<usize> = (0..count).collect();
        for some in numbers.chunks(200) {
            let consumer = rig.connect(&Connecting::v4("c"));
            rig.answer(consumer, Version::V4);
            for number in some {
                let topic = format!("$queue/q{number}/k");
                rig.send(publisher, &Publishing::q1(&topic, b"x", 1).v4());
                rig.settle();
                let filter = match has_group {
                    true => format!("$share/g/$queue/q{number}"),
                    false => format!("$queue/q{number}"),
                };
                rig.send(consumer, &Subscribing::to(&filter, 1).v4());
                rig.settle();
            }
            rig.drop_connection(consumer);
        }
        // Until what is idle has given back what it does not need.
        rig.advance_ms(61_000);
        Self { rig }
    }

    /// Messages that are held, for nobody.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.rig.pool_stats().live
    }
}
