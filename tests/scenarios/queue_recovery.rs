//! Partitioned queues over crashes, and on disk.

use std::collections::BTreeSet;

use dunlin::worker::{Level, Settings};
use dunlin_packets::Property;
use dunlin_tests::{
    Client, Connecting, Publishing, Sim, SimDisk, Subscribing, puback, unsubscribe,
};

use crate::queues::{
    consumer, consumer_of, heads, publish, user_property, verb, with_options, with_queue,
};

fn durable(workers: usize, settings: Settings) -> Sim {
    Sim::with_disk(workers, settings, SimDisk::default(), 7)
}

fn after_power_cut(sim: Sim, workers: usize, settings: Settings) -> Sim {
    Sim::with_disk(workers, settings, sim.crash(1), 7)
}

const GROUP: &[(&str, &str)] = &[("consumer-group", "g")];
const AUTO: &[(&str, &str)] = &[("consumer-group", "g"), ("settle", "auto")];

/// Acknowledges whatever has come, again and again, and says which payloads that were.
fn drain(sim: &mut Sim, consumer: &Client, mut came: Vec<String>) -> Vec<String> {
    let mut payloads = Vec::new();
    while !came.is_empty() {
        for text in came {
            payloads.push(text.split('"').nth(1).unwrap_or_default().to_owned());
            let id = text.split("id=").nth(1).and_then(|rest| rest.split(' ').next());
            consumer.write(puback(id.and_then(|id| id.parse().ok()).expect("an identifier")));
        }
        sim.run();
        came = consumer.take();
    }
    payloads
}

#[test]
fn what_a_queue_has_acknowledged_outlives_a_power_cut() {
    for workers in [1, 3] {
        let mut sim = durable(workers, Settings::default());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for id in 1..=20 {
            let publishing = Publishing::q1("$queue/jobs/k", "x", id)
                .with(Property::UserProperty("number", "7"))
                .with(Property::MessageExpiryInterval(500));
            publisher.send(&mut sim, publishing.v5());
        }
        assert_eq!(publisher.take().len(), 20);
        let mut sim = after_power_cut(sim, workers, Settings::default());
        let (_worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", GROUP);
        assert_eq!(came.len(), 20);
        assert!(came[0].contains("UserProperty(\"number\", \"7\")"), "{came:?}");
        assert!(came[0].contains("MessageExpiryInterval("), "{came:?}");
        let offsets: Vec<_> = came.iter().map(|text| user_property(text, "offset")).collect();
        assert_eq!(offsets, (0..20).map(|offset| offset.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn nobody_gets_from_a_queue_what_a_crash_could_take_back() {
    let mut sim = durable(1, Settings::default());
    let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q1("$queue/jobs/k", "x", 1).v5());
    sim.run_workers();
    assert!(worker.take().is_empty() && publisher.take().is_empty());
    sim.run();
    assert_eq!((worker.take().len(), publisher.take().len()), (1, 1));
}

#[test]
fn what_was_settled_and_confirmed_does_not_come_again_after_a_power_cut() {
    for workers in [1, 3] {
        let mut sim = durable(workers, Settings::default());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
        for id in 1..=4 {
            publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
        }
        let came = worker.take();
        let id_of = |at: usize| user_property(&came[at], "message-id");
        for (at, name) in [(1, "$ack"), (2, "$nack"), (3, "$reject")] {
            let id = id_of(at);
            let topic = format!("$queue/jobs/{name}");
            let properties = [("message-id", &id[..]), ("group-id", "g")];
            assert_eq!(verb(&mut sim, &worker, &topic, &properties), "PUBACK 9");
        }
        let mut sim = after_power_cut(sim, workers, Settings::default());
        let (_worker, mut came) = consumer_of(&mut sim, "w", "$queue/jobs", GROUP);
        came.sort();
        let came: Vec<_> = came
            .iter()
            .map(|text| {
                (text.split('"').nth(1).unwrap_or_default(), user_property(text, "attempt"))
            })
            .collect();
        let one = ("1", "1".to_owned());
        assert_eq!(came, [one, ("3", "2".to_owned())]);
        let (_doctor, letters) = consumer_of(&mut sim, "d", "$dlq/jobs", &[]);
        assert_eq!(letters.len(), 1);
        assert!(letters[0].starts_with("PUBLISH $dlq/jobs/k \"4\""), "{letters:?}");
    }
}

#[test]
fn a_qos_2_publication_is_in_the_queue_once_whenever_the_power_goes() {
    for steps in 0..6 {
        let mut sim = durable(3, Settings::default());
        let connecting = Connecting::v5("p").resume().expiry(1000);
        let publisher = Client::online(&mut sim, &connecting);
        publisher.write(Publishing::q2("$queue/jobs/k", "x", 1).v5());
        for _ in 0..steps {
            sim.run_workers();
            sim.run_storage_step();
        }
        let mut sim = after_power_cut(sim, 3, Settings::default());
        let publisher = Client::connect(&mut sim, &connecting);
        publisher.send(&mut sim, Publishing::q2("$queue/jobs/k", "x", 1).dup().v5());
        assert!(publisher.take().contains(&"PUBREC 1".to_owned()));
        let (_worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", GROUP);
        assert_eq!(came.len(), 1, "{steps} steps");
    }
}

#[test]
fn a_session_that_outlives_a_crash_goes_on_consuming() {
    let mut sim = durable(2, Settings::default());
    let connecting = Connecting::v5("w").resume().expiry(1000);
    let worker = Client::online(&mut sim, &connecting);
    let subscribing = Subscribing::to("$queue/jobs", 1)
        .identifier(5)
        .with(Property::UserProperty("consumer-group", "g"))
        .with(Property::UserProperty("prefetch", "2"));
    worker.send(&mut sim, subscribing.v5());
    assert_eq!(worker.take(), ["SUBACK 1 [01]"]);
    let mut sim = after_power_cut(sim, 2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        publish(&mut sim, &publisher, "$queue/jobs/k", "x", id);
    }
    let worker = Client::connect(&mut sim, &connecting);
    let came = worker.take();
    assert_eq!(came.len(), 1 + 2, "{came:?}");
    assert!(came[1].contains("SubscriptionIdentifier(5)"), "{came:?}");
    assert_eq!(user_property(&came[1], "group-id"), "g");
    worker.send(&mut sim, unsubscribe(2, &["$queue/jobs"]));
    assert_eq!(worker.take(), ["UNSUBACK 2 [00]"]);
    let mut sim = after_power_cut(sim, 2, Settings::default());
    let worker = Client::connect(&mut sim, &connecting);
    assert_eq!(worker.take().len(), 1, "it has unsubscribed");
}

#[test]
fn a_streams_cursor_outlives_a_power_cut() {
    let settings = with_queue("log mode=stream partitions=1");
    let mut sim = durable(2, settings.clone());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let reader = consumer(&mut sim, "r", "$queue/log", GROUP);
    for id in 1..=5 {
        publish(&mut sim, &publisher, "$queue/log/k", &id.to_string(), id);
    }
    assert_eq!(reader.take().len(), 5);
    (1..=3).for_each(|id| reader.send(&mut sim, puback(id)));
    let mut sim = after_power_cut(sim, 2, settings);
    let (_reader, came) = consumer_of(&mut sim, "r", "$queue/log", GROUP);
    assert_eq!(came.len(), 2);
    assert!(came[0].contains("\"4\""), "{came:?}");
}

#[test]
fn a_queue_that_memory_has_no_room_for_is_read_from_disk_in_order() {
    let options = [
        ("durability.memory_per_worker", "0"),
        ("queues.index_per_worker", "0"),
        ("queues.declare", "jobs partitions=2 prefetch=50"),
    ];
    let settings = with_options(&options);
    for crashes in [false, true] {
        let mut sim = durable(2, settings.clone());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for number in 0..3000_u32 {
            let id = (number % 60_000) as u16 + 1;
            publish(&mut sim, &publisher, "$queue/jobs/k", &number.to_string(), id);
        }
        assert_eq!(publisher.take().len(), 3000);
        if crashes {
            sim = after_power_cut(sim, 2, settings.clone());
        }
        let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
        let payloads = drain(&mut sim, &worker, came);
        assert_eq!(payloads, (0..3000).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn the_log_gives_space_back_while_a_queue_keeps_some_messages() {
    for index in ["64MiB", "0"] {
        let options = [
            ("queues.index_per_worker", index),
            ("durability.memory_per_worker", "0"),
            ("queues.declare", "jobs partitions=1 prefetch=10000"),
        ];
        let settings = with_options(&options);
        let mut sim = durable(2, settings.clone());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let keeper = consumer(&mut sim, "keeper", "$queue/jobs", GROUP);
        let mut kept = BTreeSet::new();
        for number in 0..6000_u32 {
            let id = (number % 60_000) as u16 + 1;
            publish(&mut sim, &publisher, "$queue/jobs/k", &format!("{number:0100}"), id);
            let came = keeper.take();
            for text in &came {
                let id = text.split("id=").nth(1).and_then(|rest| rest.split(' ').next());
                keeper.write(puback(id.and_then(|id| id.parse().ok()).expect("an identifier")));
                let payload = text.split('"').nth(1).unwrap_or_default().to_owned();
                if number % 100 == 0 {
                    kept.insert(payload);
                    continue;
                }
                let id = user_property(text, "message-id");
                let ack = Publishing::q0("$queue/jobs/$ack", "")
                    .with(Property::UserProperty("message-id", &id))
                    .with(Property::UserProperty("group-id", "g"));
                keeper.write(ack.v5());
            }
            sim.run();
        }
        let removed = sim.log().figures.removed.load(std::sync::atomic::Ordering::Relaxed);
        assert!(removed > 0, "nothing was given back");
        let mut sim = after_power_cut(sim, 2, settings);
        let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
        let payloads = drain(&mut sim, &worker, came);
        assert!(payloads.len() < 100, "{}", payloads.len());
        let payloads: BTreeSet<_> = payloads.into_iter().collect();
        assert!(payloads.is_superset(&kept), "{} of {}", payloads.len(), kept.len());
    }
}

#[test]
fn a_full_log_refuses_what_a_queue_would_have_to_keep() {
    let mut sim = durable(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", AUTO);
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    let _ = (publisher.take(), worker.take());
    worker.send(&mut sim, puback(1));
    let bytes = sim.disk().bytes() as usize;
    sim.disk().limit_capacity(bytes);
    publish(&mut sim, &publisher, "$queue/jobs/k", "y", 2);
    assert!(publisher.take().is_empty(), "it is not safe, so it is not acknowledged");
    let other = Client::online(&mut sim, &Connecting::v5("o"));
    publish(&mut sim, &other, "$queue/jobs/k", "refused", 1);
    let answer = other.take().pop().unwrap_or_default();
    assert!(answer.starts_with("PUBACK 1 QuotaExceeded [ReasonString"), "{answer}");
    sim.disk().unlimited();
    sim.advance_s(1);
    assert_eq!(publisher.take(), ["PUBACK 2"]);
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/k \"y\""]);
}

#[test]
fn a_queue_at_level_memory_leaves_nothing_in_the_log() {
    let settings = with_queue("jobs level=memory");
    let mut sim = durable(2, settings.clone());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let before = sim.log().reserved();
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    assert_eq!(publisher.take(), ["PUBACK 1"]);
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
    assert_eq!(came.len(), 1);
    worker.send(&mut sim, puback(1));
    let written = sim.log().reserved() - before;
    assert!(written < 200, "{written} bytes: frames for acknowledgements, and no message");
    assert_eq!(Level::Memory.name(), "memory");
}

#[test]
fn capture_is_part_of_the_publishers_acknowledgement_unless_it_is_not_to_be() {
    for (declaration, expected) in [
        ("m capture=m/#", "PUBACK 2 QuotaExceeded"),
        ("m capture=m/# capture_ack=false", "PUBACK 2"),
    ] {
        let declaration = format!("{declaration} messages=1");
        for workers in [1, 3] {
            let mut sim = durable(workers, with_queue(&declaration));
            let publisher = Client::online(&mut sim, &Connecting::v5("p"));
            publish(&mut sim, &publisher, "m/1", "x", 1);
            assert_eq!(publisher.take(), ["PUBACK 1"]);
            publish(&mut sim, &publisher, "m/1", "y", 2);
            let answer = publisher.take().pop().unwrap_or_default();
            assert!(answer.starts_with(expected), "{declaration}: {answer}");
            let mut sim = after_power_cut(sim, workers, with_queue(&declaration));
            let (_worker, came) = consumer_of(&mut sim, "w", "$queue/m", GROUP);
            assert_eq!(came.len(), 1);
        }
    }
}

#[test]
fn a_refused_publication_at_qos_2_leaves_its_packet_identifier_free_after_a_crash() {
    for workers in [1, 3] {
        let settings = with_queue("m capture=m/# messages=1");
        let mut sim = durable(workers, settings.clone());
        let persistent = || Connecting::v5("p").resume().expiry(1000);
        let subscriber = Client::online(&mut sim, &Connecting::v5("s").resume().expiry(1000));
        subscriber.send(&mut sim, Subscribing::to("#", 2).v5());
        subscriber.drop_connection(&mut sim);
        let publisher = Client::online(&mut sim, &persistent());
        publish(&mut sim, &publisher, "m/1", "fills the queue", 1);
        assert_eq!(publisher.take(), ["PUBACK 1"]);
        publisher.send(&mut sim, Publishing::q2("m/1", "refused", 5).v5());
        assert!(publisher.take()[0].starts_with("PUBREC 5 QuotaExceeded"));
        let mut sim = after_power_cut(sim, workers, settings);
        let publisher = Client::connect(&mut sim, &persistent());
        publisher.send(&mut sim, Publishing::q2("other", "new", 5).v5());
        let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume().expiry(1000));
        let texts = subscriber.take();
        assert!(texts.iter().any(|text| text.contains("\"new\"")), "{workers} workers: {texts:?}");
    }
}

#[test]
fn the_group_of_a_session_that_a_crash_ends_is_gone_and_that_of_one_that_lives_on_is_not() {
    for outlives in [false, true] {
        let mut sim = durable(2, Settings::default());
        let connecting = match outlives {
            true => Connecting::v5("w").resume().expiry(1000),
            false => Connecting::v5("w"),
        };
        let worker = Client::online(&mut sim, &connecting);
        crate::queues::subscribe(&mut sim, &worker, "$queue/jobs", &[("settle", "auto")]);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for id in 1..=2 {
            publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
        }
        worker.send(&mut sim, puback(1));
        assert_eq!(worker.take().len(), 3);
        let sim = after_power_cut(sim, 2, Settings::default());
        let mut sim = after_power_cut(sim, 2, Settings::default());
        // A group of its own gets what is left, and what the one that lives on has settled is gone
        // only when this one has settled it too.
        let (other, came) = consumer_of(&mut sim, "o", "$queue/jobs", &[("settle", "auto")]);
        assert_eq!(came.len(), 1, "{came:?}");
        assert!(came[0].contains("\"2\""), "{came:?}");
        other.send(&mut sim, puback(1));
        let again = Client::connect(&mut sim, &connecting);
        let came = again.take();
        assert_eq!(came.len(), if outlives { 2 } else { 1 }, "{came:?}");
    }
}

#[test]
fn a_queue_that_is_declared_with_more_partitions_grows_and_keeps_the_order_of_each_key() {
    let mut sim = durable(2, with_queue("jobs partitions=2"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=40_u16 {
        publish(&mut sim, &publisher, &format!("$queue/jobs/{}", id % 10), &id.to_string(), id);
    }
    let settings = with_queue("jobs partitions=8");
    let mut sim = after_power_cut(sim, 2, settings);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 41..=80_u16 {
        publish(&mut sim, &publisher, &format!("$queue/jobs/{}", id % 10), &id.to_string(), id);
    }
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
    let payloads = drain(&mut sim, &worker, came);
    assert_eq!(payloads.len(), 80);
    for key in 0..10_u16 {
        let numbers: Vec<u16> = payloads.iter().filter_map(|it| it.parse().ok()).collect();
        let of_key: Vec<u16> = numbers.into_iter().filter(|id| id % 10 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
}

/// A broker whose messages are only on disk, and so have to be read before anything can be done with
/// them.
fn on_disk_only() -> Settings {
    let nothing = "0";
    with_options(&[("durability.memory_per_worker", nothing), ("queues.index_per_worker", nothing)])
}

/// Such a broker, a consumer, and the identifier of the message that it has.
fn leased_on_disk() -> (Sim, Client, String) {
    let mut sim = durable(1, on_disk_only());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    let id = user_property(&worker.take()[0], "message-id");
    (sim, worker, id)
}

/// Sends something about a message, and cuts the power as soon as that is acknowledged.
fn cut_when_acknowledged(
    mut sim: Sim,
    client: &Client,
    topic: &str,
    asked: &[(&str, &str)],
) -> Sim {
    let mut publishing = Publishing::q1(topic, "", 9);
    for (name, value) in asked {
        publishing = publishing.with(Property::UserProperty(name, value));
    }
    client.write(publishing.v5());
    for _ in 0..100 {
        sim.turn(0);
        if client.take().iter().any(|text| text == "PUBACK 9") {
            return after_power_cut(sim, 1, on_disk_only());
        }
        sim.run_storage_step();
    }
    panic!("it is never acknowledged")
}

#[test]
fn a_rejected_message_is_a_dead_letter_when_that_is_acknowledged_though_it_is_still_to_be_read() {
    let (sim, worker, id) = leased_on_disk();
    let asked = [("message-id", &id[..]), ("group-id", "g")];
    let mut sim = cut_when_acknowledged(sim, &worker, "$queue/jobs/$reject", &asked);
    let (_worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", GROUP);
    assert_eq!(came, [""; 0]);
    let (_doctor, letters) = consumer_of(&mut sim, "d", "$dlq/jobs", GROUP);
    assert_eq!(letters.len(), 1);
    assert_eq!(user_property(&letters[0], "x-dead-reason"), "rejected");
    assert_eq!(user_property(&letters[0], "x-dead-attempts"), "1");
}

#[test]
fn a_dead_letter_is_back_in_its_queue_when_that_is_acknowledged_though_it_is_still_to_be_read() {
    let (mut sim, worker, id) = leased_on_disk();
    let asked = [("message-id", &id[..]), ("group-id", "g")];
    assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$reject", &asked), "PUBACK 9");
    let (doctor, letters) = consumer_of(&mut sim, "d", "$dlq/jobs", GROUP);
    let id = user_property(&letters[0], "message-id");
    worker.drop_connection(&mut sim);
    let asked = [("message-id", &id[..])];
    let mut sim = cut_when_acknowledged(sim, &doctor, "$dlq/jobs/$redrive", &asked);
    let (_worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", GROUP);
    assert_eq!(came.len(), 1, "it was acknowledged");
    let (_doctor, letters) = consumer_of(&mut sim, "d", "$dlq/jobs", GROUP);
    assert_eq!(letters, [""; 0]);
}

#[test]
fn a_message_that_was_settled_while_it_was_read_again_is_not_delivered() {
    let (mut sim, worker, id) = leased_on_disk();
    // Again at once, but it has to be read first.
    let asked = [("message-id", &id[..]), ("group-id", "g"), ("delay", "0")];
    let with = |topic, id| {
        let properties = asked.iter();
        properties.fold(Publishing::q1(topic, "", id), |publishing, (name, value)| {
            publishing.with(Property::UserProperty(name, value))
        })
    };
    worker.write(with("$queue/jobs/$nack", 1).v5());
    sim.turn(0);
    sim.turn(0);
    worker.write(with("$queue/jobs/$ack", 2).v5());
    sim.turn(0);
    sim.run();
    assert_eq!(worker.take(), ["PUBACK 1", "PUBACK 2"]);
}

#[test]
fn what_is_still_to_be_read_for_a_consumer_that_leaves_was_no_attempt() {
    let (mut sim, worker, id) = leased_on_disk();
    let nack = Publishing::q1("$queue/jobs/$nack", "", 1)
        .with(Property::UserProperty("message-id", &id))
        .with(Property::UserProperty("group-id", "g"))
        .with(Property::UserProperty("delay", "0"));
    worker.write(nack.v5());
    sim.turn(0);
    sim.turn(0);
    worker.write(unsubscribe(7, &["$queue/jobs"]));
    sim.turn(0);
    sim.run();
    assert_eq!(worker.take(), ["UNSUBACK 7 [00]", "PUBACK 1"]);
    let (_other, came) = consumer_of(&mut sim, "other", "$queue/jobs", GROUP);
    let attempts: Vec<_> = came.iter().map(|text| user_property(text, "attempt")).collect();
    assert_eq!(attempts, ["2"]);
}

/// A queue that has been started with its first message left, and the one behind settled before;
/// when the first is settled too, two more come.
fn settled_last_before_the_start(settings: &Settings) -> (Sim, Client) {
    let mut sim = durable(1, settings.clone());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", AUTO);
    (1..=2).for_each(|id| publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id));
    worker.send(&mut sim, puback(2));
    let mut sim = Sim::with_disk(1, settings.clone(), sim.shut_down(), 7);
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
    assert_eq!(drain(&mut sim, &worker, came), ["1"]);
    worker.drop_connection(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    (3..=4).for_each(|id| publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id));
    assert_eq!(publisher.take(), ["PUBACK 3", "PUBACK 4"]);
    (sim, publisher)
}

#[test]
fn what_is_oldest_goes_also_where_the_last_messages_before_a_start_were_settled() {
    let full = with_queue("jobs partitions=1 messages=2 full=drop-oldest");
    let (mut sim, publisher) = settled_last_before_the_start(&full);
    publish(&mut sim, &publisher, "$queue/jobs/k", "5", 5);
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
    assert_eq!(drain(&mut sim, &worker, came), ["4", "5"]);
    let old = with_queue("jobs partitions=1 age=1h");
    let (mut sim, _publisher) = settled_last_before_the_start(&old);
    sim.advance_s(3601);
    let (_worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", AUTO);
    assert!(came.is_empty(), "{came:?}");
}
