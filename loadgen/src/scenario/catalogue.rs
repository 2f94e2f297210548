//! Every scenario with its name and its figures. Names with figures in them are those of the Open
//! MQTT Benchmark Suite.

use super::{Kind, Params, Scenario};
use crate::audit::Audience::{Everybody, OneOf, Partner};

const NONE: Params = Params {
    publishers: 0,
    subscribers: 0,
    connections: 0,
    rate: 0.0,
    payload: 64,
    qos: 0,
    seconds: 10.0,
    window: 64,
    messages: 0,
};

/// At a rate, with the suite's small payload and QoS 1.
const fn suite(publishers: usize, subscribers: usize, rate: f64) -> Params {
    Params { publishers, subscribers, rate, payload: 16, qos: 1, seconds: 30.0, ..NONE }
}

/// As fast as it goes.
const fn flood(publishers: usize, subscribers: usize, qos: u8) -> Params {
    Params { publishers, subscribers, qos, ..NONE }
}

const fn scenario(name: &'static str, about: &'static str, kind: Kind, params: Params) -> Scenario {
    Scenario { name, about, kind, params }
}

const EVERYBODY: Kind = Kind::Load(Everybody);
const PARTNER: Kind = Kind::Load(Partner);
const ONE_OF: Kind = Kind::Load(OneOf);

/// All of them.
pub(crate) const CATALOGUE: &[Scenario] = &[
    scenario(
        "conn-tcp-10k-100",
        "10,000 connections, 100 new ones per second",
        Kind::Connect,
        Params { connections: 10_000, rate: 100.0, ..NONE },
    ),
    scenario(
        "p2p-1K-1K-1K-1K",
        "1000 publishers, each to a subscriber of its own, 1000 messages per second in all",
        PARTNER,
        suite(1000, 1000, 1000.0),
    ),
    scenario(
        "fanout-1-1k-1-1K",
        "1 message per second to 1000 subscribers",
        EVERYBODY,
        suite(1, 1000, 1.0),
    ),
    scenario(
        "sharedsub-1K-5-1K-1K",
        "1000 publishers to one share group of 5, 1000 messages per second",
        ONE_OF,
        suite(1000, 5, 1000.0),
    ),
    scenario(
        "conn-tcp-50k-1k",
        "50,000 connections, 1000 new ones per second",
        Kind::Connect,
        Params { connections: 50_000, rate: 1000.0, ..NONE },
    ),
    scenario(
        "p2p-50K-50K-50K-50K",
        "50,000 publishers, each to a subscriber of its own, 50,000 messages per second in all",
        PARTNER,
        suite(50_000, 50_000, 50_000.0),
    ),
    scenario(
        "fanout-5-1k-5-250K",
        "5 publishers to 1000 subscribers, 250,000 deliveries per second",
        EVERYBODY,
        suite(5, 1000, 250.0),
    ),
    scenario(
        "sharedsub-50K-500-50K-50K",
        "50,000 publishers to one share group of 500, 50,000 messages per second",
        ONE_OF,
        suite(50_000, 500, 50_000.0),
    ),
    scenario("flood-fan-out", "1 -> 1000, QoS 0", EVERYBODY, flood(1, 1000, 0)),
    scenario("flood-fan-out-q1", "1 -> 1000, QoS 1", EVERYBODY, flood(1, 1000, 1)),
    scenario("flood-pairs", "100 pairs, QoS 0", PARTNER, flood(100, 100, 0)),
    scenario("flood-pairs-q1", "100 pairs, QoS 1", PARTNER, flood(100, 100, 1)),
    scenario("flood-pairs-q2", "100 pairs, QoS 2", PARTNER, flood(100, 100, 2)),
    scenario("fan-in", "100 -> 1, QoS 1, flood", EVERYBODY, flood(100, 1, 1)),
    scenario("flood-shared", "100 -> a group of 4, QoS 1", ONE_OF, flood(100, 4, 1)),
    scenario(
        "latency-fan-out",
        "50 messages per second to 1000 subscribers, QoS 0, open loop",
        EVERYBODY,
        Params { publishers: 1, subscribers: 1000, rate: 50.0, ..NONE },
    ),
    scenario(
        "latency-pairs",
        "2000 messages per second over 100 pairs, QoS 1, open loop",
        PARTNER,
        Params { publishers: 100, subscribers: 100, rate: 2000.0, qos: 1, ..NONE },
    ),
    scenario(
        "idle",
        "5000 connections with one subscription each: memory",
        Kind::Connect,
        Params { connections: 5000, messages: 1, ..NONE },
    ),
    scenario(
        "churn",
        "1000 connections per second come and go beside 30,000 that stay",
        Kind::Churn,
        Params { connections: 30_000, rate: 1000.0, ..NONE },
    ),
    scenario(
        "churn-500",
        "500 connections per second come and go beside 1000 that stay",
        Kind::Churn,
        Params { connections: 1000, rate: 500.0, ..NONE },
    ),
    scenario(
        "burst",
        "200 connections per second for 60 s beside 100 pairs with 1000 messages per second",
        Kind::Burst,
        Params {
            publishers: 100,
            subscribers: 100,
            connections: 12_000,
            rate: 1000.0,
            qos: 1,
            ..NONE
        },
    ),
    scenario(
        "offline",
        "100 sessions that are away get 500 messages each, and then come for them",
        Kind::Offline(Partner),
        Params { publishers: 1, subscribers: 100, messages: 50_000, qos: 1, ..NONE },
    ),
    scenario(
        "durable-offline",
        "100 publishers to 100 sessions that are away and then come, 10,000 messages each",
        Kind::Offline(Partner),
        Params {
            publishers: 100,
            subscribers: 100,
            messages: 1_000_000,
            payload: 100,
            qos: 1,
            window: 100,
            ..NONE
        },
    ),
    scenario(
        "durable-fan-out",
        "1 -> 1000 sessions that are away and then come, 5000 messages each",
        Kind::Offline(Everybody),
        Params {
            publishers: 1,
            subscribers: 1000,
            messages: 5000,
            payload: 100,
            qos: 1,
            window: 100,
            ..NONE
        },
    ),
    scenario(
        "durable-steady",
        "20,000 messages per second over 100 pairs with stored sessions, for ten minutes",
        Kind::Steady,
        Params {
            publishers: 100,
            subscribers: 100,
            rate: 20_000.0,
            payload: 100,
            qos: 1,
            seconds: 600.0,
            ..NONE
        },
    ),
    scenario(
        "queue",
        "100 publishers to a partitioned queue, then 8 consumers of one group",
        Kind::Queue,
        Params {
            publishers: 100,
            subscribers: 8,
            messages: 1_000_000,
            payload: 100,
            qos: 1,
            window: 100,
            ..NONE
        },
    ),
    scenario(
        "retained",
        "20,000 retained messages are stored, and fetched by one subscription",
        Kind::Retained,
        Params { messages: 20_000, qos: 1, ..NONE },
    ),
    scenario(
        "filters",
        "50,000 filters with a `+` each: subscribe, then one message for each",
        Kind::Filters,
        Params { messages: 50_000, ..NONE },
    ),
];

/// The scenario of that name.
pub(crate) fn find(name: &str) -> Option<Scenario> {
    CATALOGUE.iter().copied().find(|scenario| scenario.name == name)
}
