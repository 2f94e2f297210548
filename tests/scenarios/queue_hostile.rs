//! Partitioned queues and clients that ask for strange things.

use dunlin::worker::Settings;
use dunlin_tests::{
    Client, Connecting, Publishing, Sim, SimDisk, Subscribing, puback, unsubscribe,
};

use crate::queues::{
    consumer, consumer_of, heads, publish, subscribe, user_property, verb, with_options, with_queue,
};

const GROUP: &[(&str, &str)] = &[("consumer-group", "g")];

#[test]
fn a_session_that_is_in_a_group_by_two_subscriptions_stays_with_the_one_that_is_left() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, Settings::default());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
        worker.send(&mut sim, Subscribing::to("$share/g/$queue/jobs", 1).id(2).v5());
        worker.send(&mut sim, unsubscribe(3, &["$share/g/$queue/jobs"]));
        assert_eq!(worker.take(), ["SUBACK 2 [01]", "UNSUBACK 3 [00]"]);
        publish(&mut sim, &publisher, "$queue/jobs/k", "one", 1);
        assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/k \"one\""]);
        worker.send(&mut sim, unsubscribe(4, &["$queue/jobs"]));
        assert_eq!(worker.take(), ["UNSUBACK 4 [00]"]);
        publish(&mut sim, &publisher, "$queue/jobs/k", "two", 2);
        assert!(worker.take().is_empty());
    }
}

#[test]
fn a_subscription_that_cannot_be_changed_stays_as_it_was() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, with_queue("log mode=stream"));
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let asked = [("consumer-group", "g"), ("stream-offset", "earliest")];
        let reader = consumer(&mut sim, "r", "$queue/log", &asked);
        let _other = consumer(&mut sim, "o", "$queue/log", &[("consumer-group", "h")]);
        let elsewhere =
            [("consumer-group", "h"), ("stream-offset", "earliest"), ("stream-replay", "true")];
        for asked in [&elsewhere[..], &[("consumer-group", "g"), ("settle", "perhaps")]] {
            subscribe(&mut sim, &reader, "$queue/log", asked);
            let refused = reader.take().remove(0);
            assert!(refused.starts_with("SUBACK 1 [83]"), "{refused}");
        }
        publish(&mut sim, &publisher, "$queue/log/k", "one", 1);
        let delivery = reader.take().remove(0);
        assert_eq!(user_property(&delivery, "group-id"), "g");
        reader.send(&mut sim, puback(1));
        reader.send(&mut sim, unsubscribe(2, &["$queue/log"]));
        assert_eq!(reader.take(), ["UNSUBACK 2 [00]"]);
        publish(&mut sim, &publisher, "$queue/log/k", "two", 2);
        assert!(reader.take().is_empty());
    }
}

#[test]
fn a_group_is_not_mistaken_for_that_of_another_filter() {
    let mut sim = Sim::new(2, Settings::default());
    let _filtered = consumer(&mut sim, "f", "$queue/jobs/eu", &[("consumer-group", "a")]);
    let other = Client::online(&mut sim, &Connecting::v5("o"));
    subscribe(&mut sim, &other, "$queue/jobs", &[("consumer-group", "a@eu")]);
    let refused = other.take().remove(0);
    assert!(refused.starts_with("SUBACK 1 [83]"), "{refused}");
}

#[test]
fn a_dead_letter_is_put_back_once_however_often_that_is_asked_for() {
    let options = [("durability.memory_per_worker", "0"), ("queues.default", "attempts=1")];
    let mut sim = Sim::with_disk(1, with_options(&options), SimDisk::default(), 7);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let asked = [("consumer-group", "g"), ("settle", "auto")];
    let worker = consumer(&mut sim, "w", "$queue/jobs", &asked);
    publish(&mut sim, &publisher, "$queue/jobs/k", "one", 1);
    let id = user_property(&worker.take()[0], "message-id");
    let properties = [("message-id", &id[..]), ("group-id", "g")];
    assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$reject", &properties), "PUBACK 9");
    for id in 1..=5 {
        publisher.write(Publishing::q1("$dlq/jobs/$redrive", "", id).v5());
    }
    sim.run();
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/k \"one\""]);
    let (_doctor, left) = consumer_of(&mut sim, "d", "$dlq/jobs", &[]);
    assert!(left.is_empty(), "{left:?}");
}

/// Publishes messages of one key, and has all of them rejected.
fn reject_all(sim: &mut Sim, publisher: &Client, worker: &Client, count: u16) {
    for id in 1..=count {
        publish(sim, publisher, "$queue/jobs/k", &id.to_string(), id);
        let id = user_property(&worker.take()[0], "message-id");
        let properties = [("message-id", &id[..]), ("group-id", "g")];
        assert_eq!(verb(sim, worker, "$queue/jobs/$reject", &properties), "PUBACK 9");
    }
}

#[test]
fn dead_letters_of_a_queue_that_is_serial_are_put_back_once() {
    let mut sim = Sim::new(2, with_queue("jobs serial=true"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
    reject_all(&mut sim, &publisher, &worker, 1);
    assert_eq!(verb(&mut sim, &publisher, "$dlq/jobs/$redrive", &[]), "PUBACK 9");
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/k \"1\""]);
    let (_doctor, left) = consumer_of(&mut sim, "d", "$dlq/jobs", &[]);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn dead_letters_whose_index_is_on_disk_are_all_put_back_by_one_request() {
    let options = [
        ("durability.memory_per_worker", "0"),
        ("queues.index_per_worker", "0"),
        ("queues.default", "partitions=1 prefetch=1000"),
    ];
    let mut sim = Sim::with_disk(1, with_options(&options), SimDisk::default(), 7);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
    reject_all(&mut sim, &publisher, &worker, 600);
    assert_eq!(verb(&mut sim, &publisher, "$dlq/jobs/$redrive", &[]), "PUBACK 9");
    assert_eq!(verb(&mut sim, &publisher, "$dlq/jobs/$redrive", &[]), "PUBACK 9");
    sim.run();
    // It has so many at a time, as it has a Receive Maximum of its own.
    let mut came = heads(&worker).len();
    for id in 1..=600 {
        worker.send(&mut sim, puback(id));
        came += heads(&worker).len();
    }
    assert_eq!(came, 600);
}

#[test]
fn a_consumer_that_asks_for_many_large_messages_is_not_given_all_at_once() {
    let options = [("durability.memory_per_worker", "0")];
    for has_disk in [false, true] {
        let mut sim = match has_disk {
            false => Sim::new(1, Settings::default()),
            true => Sim::with_disk(1, with_options(&options), SimDisk::default(), 7),
        };
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let large = "x".repeat(1 << 20);
        for id in 1..=20 {
            publish(&mut sim, &publisher, "$queue/jobs/k", &large, id);
        }
        let asked = [("consumer-group", "g"), ("settle", "auto"), ("prefetch", "1000")];
        let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", &asked);
        assert_eq!(came.len(), 8, "8 MiB, and what they have beside the payload");
        for id in 1..=8 {
            worker.send(&mut sim, puback(id));
        }
        assert_eq!(worker.take().len(), 8);
    }
}
