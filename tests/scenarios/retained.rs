//! Retained messages.

use dunlin::worker::{Durability, Level, RetainedLimits, Settings};
use dunlin_packets::RetainHandling;
use dunlin_queue::DropReason;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, Subscribing};

const NOT_RETAINED: &str = "QuotaExceeded [ReasonString(\"delivered, but not retained: \
                            too many retained messages or bytes\")]";

/// Brokers of these settings without a log, with one, and with one that has nothing of clients.
fn each_durability(settings: &Settings) -> Vec<(String, Sim)> {
    let mut sims = Vec::new();
    for workers in [1, 3] {
        sims.push((format!("{workers} workers"), Sim::new(workers, settings.clone())));
        for level in [Level::Fsync, Level::Memory] {
            let durability = Durability { level, ..Durability::default() };
            let settings = Settings { durability, ..settings.clone() };
            let sim = Sim::with_disk(workers, settings, SimDisk::default(), 7);
            sims.push((format!("{workers} workers, {level:?}"), sim));
        }
    }
    sims
}

fn store(sim: &mut Sim, topic: &str, payload: &str) {
    let publisher = Client::online(sim, &Connecting::v5("store"));
    publisher.send(sim, Publishing::q1(topic, payload, 1).retain().v5());
    publisher.drop_connection(sim);
}

#[test]
fn mqtt5_3_3_1_9_retain_handling_0_sends_at_every_subscribe() {
    let mut sim = Sim::new(2, Settings::default());
    store(&mut sim, "t", "x");
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    for _ in 0..2 {
        client.send(&mut sim, Subscribing::to("t", 0).v5());
        assert_eq!(client.take(), ["SUBACK 1 [00]", "PUBLISH t \"x\" retain"]);
    }
}

#[test]
fn mqtt5_3_3_1_10_retain_handling_1_sends_for_new_subscriptions_also_after_a_resume() {
    let mut sim = Sim::default();
    store(&mut sim, "t", "x");
    let bytes = Subscribing::to("t", 0).handling(RetainHandling::IfNew).v5();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    client.send(&mut sim, &bytes);
    assert_eq!(client.take().len(), 2);
    client.send(&mut sim, &bytes);
    assert_eq!(client.take(), ["SUBACK 1 [00]"]);
    client.drop_connection(&mut sim);
    let client = Client::online(&mut sim, &Connecting::v5("c").resume());
    client.send(&mut sim, &bytes);
    assert_eq!(client.take(), ["SUBACK 1 [00]"]);
}

#[test]
fn mqtt5_3_3_1_11_retain_handling_2_sends_nothing() {
    let mut sim = Sim::default();
    store(&mut sim, "t", "x");
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 0).handling(RetainHandling::Never).v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]"]);
}

#[test]
fn section_4_8_2_a_shared_subscription_gets_no_retained_messages() {
    let mut sim = Sim::default();
    store(&mut sim, "t", "x");
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("$share/g/t", 0).v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]"]);
}

#[test]
fn mqtt5_3_3_1_6_an_empty_payload_is_delivered_and_deletes() {
    let mut sim = Sim::new(2, Settings::default());
    store(&mut sim, "t", "x");
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 0).v5());
    let _ = client.take();
    store(&mut sim, "t", "");
    assert_eq!(client.take(), ["PUBLISH t \"\""]);
    client.send(&mut sim, Subscribing::to("t", 0).v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]"]);
    assert_eq!(sim.messages_held(), 0);
}

#[test]
fn mqtt5_3_3_1_13_retain_as_published_passes_the_flag_on() {
    let mut sim = Sim::default();
    let plain = Client::online(&mut sim, &Connecting::v5("plain"));
    plain.send(&mut sim, Subscribing::to("t", 0).v5());
    let faithful = Client::online(&mut sim, &Connecting::v5("faithful"));
    faithful.send(&mut sim, Subscribing::to("t", 0).as_published().v5());
    store(&mut sim, "t", "x");
    assert_eq!(plain.take()[1..], ["PUBLISH t \"x\""]);
    assert_eq!(faithful.take()[1..], ["PUBLISH t \"x\" retain"]);
}

#[test]
fn a_wildcard_subscription_gets_all_matching_messages_from_all_workers() {
    for workers in [1, 4] {
        let mut sim = Sim::new(workers, Settings::default());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for number in 0..3000 {
            let topic = format!("t/{}/{number}", number % 2);
            publisher.write(Publishing::q0(&topic, "x").retain().v5());
        }
        sim.run();
        let client = Client::online(&mut sim, &Connecting::v5("c"));
        client.send(&mut sim, Subscribing::to("t/1/+", 0).v5());
        let mut texts = client.take();
        assert_eq!(texts.remove(0), "SUBACK 1 [00]");
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 1500);
    }
}

#[test]
fn a_subscriber_and_a_publisher_at_the_same_moment_make_one_copy() {
    for workers in [1, 2, 3, 4] {
        for round in 0..60 {
            let mut sim = Sim::new(workers, Settings::default());
            let (s, p) = (format!("s{round}"), format!("p{}", round / 4));
            let subscriber = Client::online(&mut sim, &Connecting::v5(&s));
            let publisher = Client::online(&mut sim, &Connecting::v5(&p));
            let topic = format!("t/{}", round % 8);
            let filter = if round % 2 == 0 { "t/#" } else { &topic };
            publisher.write(Publishing::q1(&topic, "old", 1).retain().v5());
            if round % 3 == 0 {
                sim.run();
            }
            subscriber.write(Subscribing::to(filter, 2).v5());
            publisher.write(Publishing::q2(&topic, "new", 2).retain().v5());
            sim.run();
            let texts = subscriber.take();
            let of = |payload: &str| texts.iter().filter(|text| text.contains(payload)).count();
            assert_eq!(of("new"), 1, "{workers} workers, round {round}: {texts:?}");
            assert!(of("old") <= 1, "{texts:?}");
            assert!(texts.last().is_some_and(|last| last.contains("new")), "{texts:?}");
        }
    }
}

#[test]
fn a_replay_waits_for_a_client_that_does_not_read_and_goes_on_after() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for number in 0..5000 {
        publisher.write(Publishing::q0(&format!("t/{number}"), "x").retain().v5());
    }
    sim.run();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.limit_room(1000);
    client.send(&mut sim, Subscribing::to("t/#", 0).v5());
    let first = client.take().len();
    assert!(first < 200);
    client.unlimited(&mut sim);
    assert_eq!(first + client.take().len(), 5001);
}

#[test]
fn the_store_takes_no_more_than_its_limits_and_counts_the_rest() {
    let settings = Settings {
        retained: RetainedLimits { messages_max: 2, bytes_max: 100 },
        ..Settings::default()
    };
    let mut sim = Sim::new(1, settings);
    for topic in ["a", "b", "c"] {
        store(&mut sim, topic, "x");
    }
    assert_eq!(sim.stats().retained, 2);
    store(&mut sim, "a", &"y".repeat(200));
    store(&mut sim, "a", "z");
    assert_eq!(sim.stats().dropped.iter().sum::<u64>(), 2);
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("#", 0).v5());
    assert_eq!(client.take()[1..], ["PUBLISH a \"z\" retain", "PUBLISH b \"x\" retain"]);
}

#[test]
fn who_can_be_told_is_told_that_a_message_was_not_retained() {
    let settings = Settings {
        retained: RetainedLimits { messages_max: 2, bytes_max: 1000 },
        ..Settings::default()
    };
    for (case, mut sim) in each_durability(&settings) {
        let reader = Client::online(&mut sim, &Connecting::v5("r"));
        reader.send(&mut sim, Subscribing::to("t/#", 0).v5());
        let _ = reader.take();
        let v5 = Client::online(&mut sim, &Connecting::v5("five"));
        let mut answers = Vec::new();
        for (id, topic) in (1..).zip(["t/a", "t/b", "t/c", "t/a"]) {
            v5.send(&mut sim, Publishing::q1(topic, "x", id).retain().v5());
            answers.extend(v5.take());
        }
        v5.send(&mut sim, Publishing::q2("t/d", "x", 5).retain().v5());
        answers.extend(v5.take());
        // One that replaces another has its place.
        let expected = [
            "PUBACK 1",
            "PUBACK 2",
            &format!("PUBACK 3 {NOT_RETAINED}"),
            "PUBACK 4",
            &format!("PUBREC 5 {}", NOT_RETAINED.replace("QuotaExceeded ", "")),
        ];
        assert_eq!(answers, expected, "{case}");
        // Nobody can be told by a PUBACK of 3.1.1, nor at QoS 0.
        let v4 = Client::online(&mut sim, &Connecting::v4("four"));
        v4.send(&mut sim, Publishing::q1("t/e", "x", 1).retain().v4());
        v5.send(&mut sim, Publishing::q0("t/f", "x").retain().v5());
        assert_eq!(v4.take(), ["PUBACK 1"]);
        assert_eq!(reader.take().len(), 7, "what is not retained is delivered");
        let dropped = &sim.stats().dropped;
        assert_eq!(dropped[DropReason::RetainedLimit as usize], 4);
        assert_eq!(sim.stats().retained, 2);
    }
}

#[test]
fn a_new_topic_is_told_from_a_known_one_among_many_and_answers_keep_their_order() {
    const KNOWN: usize = 40_000;
    let settings = Settings {
        retained: RetainedLimits { messages_max: KNOWN, bytes_max: usize::MAX >> 1 },
        ..Settings::default()
    };
    for (case, mut sim) in each_durability(&settings) {
        let client = Client::online(&mut sim, &Connecting::v5("c"));
        for number in 0..KNOWN {
            client.write(Publishing::q0(&format!("known/{number}"), "x").retain().v5());
        }
        sim.run();
        assert_eq!(sim.stats().retained, KNOWN as u64);
        for id in 1..=60 {
            let topic = if id % 3 == 0 { format!("known/{id}") } else { format!("new/{id}") };
            client.write(Publishing::q1(&topic, "y", id).retain().v5());
        }
        client.write(Publishing::q1("new/61", "y", 61).v5());
        sim.run();
        let expected: Vec<_> = (1..=61)
            .map(|id| match id {
                61 => format!("PUBACK {id} NoMatchingSubscribers"),
                _ if id % 3 == 0 => format!("PUBACK {id} NoMatchingSubscribers"),
                _ => format!("PUBACK {id} {NOT_RETAINED}"),
            })
            .collect();
        assert_eq!(client.take(), expected, "{case}");
        assert_eq!(sim.stats().dropped[DropReason::RetainedLimit as usize], 40);
    }
}

#[test]
fn what_is_published_to_the_brokers_own_topics_is_counted() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Publishing::q1("$SYS/x", "x", 1).v5());
    assert_eq!(client.take(), ["PUBACK 1 NotAuthorized"]);
    client.send(&mut sim, Publishing::q0("$SYS/x", "x").v5());
    assert_eq!(sim.stats().dropped[DropReason::NotAuthorized as usize], 2);
}

#[test]
fn mqtt311_3_3_1_6_every_new_subscription_of_3_1_1_gets_the_message() {
    let mut sim = Sim::default();
    store(&mut sim, "t", "x");
    let client = Client::online(&mut sim, &Connecting::v4("c"));
    for _ in 0..2 {
        client.send(&mut sim, Subscribing::to("t", 1).v4());
    }
    let expected = ["SUBACK 1 [01]", "PUBLISH t \"x\" q1 id=1 retain"];
    assert_eq!(client.take()[..2], expected);
}
