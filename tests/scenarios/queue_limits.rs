//! What queues may take, over all workers.

use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, puback};

use crate::queues::{consumer, publish, subscribe, user_property, verb, with_options, with_queue};

/// How many of twenty queues take a message.
fn queues_of_twenty(sim: &mut Sim, publisher: &Client) -> usize {
    for id in 1..=20 {
        publish(sim, publisher, &format!("$queue/q{id}"), "x", id);
    }
    publisher.take().iter().filter(|text| !text.contains("QuotaExceeded")).count()
}

#[test]
fn all_workers_together_have_no_more_queues_than_there_may_be() {
    let options =
        [("queues.max", "5"), ("queues.declare", "declared"), ("queues.default", "age=1m")];
    let mut sim = Sim::new(4, with_options(&options));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    assert_eq!(queues_of_twenty(&mut sim, &publisher), 4);
    publish(&mut sim, &publisher, "$queue/declared", "x", 30);
    assert_eq!(publisher.take(), ["PUBACK 30"], "its place is kept");
    publish(&mut sim, &publisher, "$queue/other", "x", 30);
    assert!(publisher.take()[0].starts_with("PUBACK 30 QuotaExceeded"));
    sim.advance_s(600);
    publish(&mut sim, &publisher, "$queue/other", "x", 30);
    assert_eq!(publisher.take(), ["PUBACK 30"], "those that nobody used are gone");
    assert_eq!(queues_of_twenty(&mut sim, &publisher), 3);
}

#[test]
fn queues_count_after_a_restart_as_before() {
    let settings = || with_options(&[("queues.max", "5"), ("queues.declare", "declared")]);
    let mut sim = Sim::with_disk(3, settings(), SimDisk::default(), 7);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    assert_eq!(queues_of_twenty(&mut sim, &publisher), 4);
    for _ in 0..2 {
        sim = Sim::with_disk(3, settings(), sim.crash(1), 7);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        assert_eq!(queues_of_twenty(&mut sim, &publisher), 4);
    }
}

#[test]
fn a_delay_that_cannot_be_kept_is_refused_and_costs_nobody_anything() {
    let mut sim = Sim::new(2, with_queue("long age=0"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let mut answer = |topic: &str, name: &str, value: &str| {
        let publishing = Publishing::q1(topic, "x", 1).with(Property::UserProperty(name, value));
        publisher.send(&mut sim, publishing.v5());
        publisher.take().remove(0)
    };
    let refused = "PUBACK 1 ImplementationSpecificError [ReasonString(\"a delay of more than";
    let too_late = (1_000_000_000_000_u64 + 31 * 24 * 3_600_000).to_string();
    assert!(answer("$queue/long/k", "delay", "31d").starts_with(refused));
    assert!(answer("$queue/long/k", "deliver-at", &too_late).starts_with(refused));
    assert_eq!(answer("$queue/long/k", "delay", "30d"), "PUBACK 1");
    assert!(answer("$queue/jobs/k", "delay", "8d").starts_with(refused), "age is 7 days");
    assert_eq!(answer("$queue/jobs/k", "delay", "0"), "PUBACK 1");
    let id = user_property(&worker.take()[0], "message-id");
    let about = [("message-id", &id[..]), ("group-id", "g"), ("delay", "31d")];
    let answer = verb(&mut sim, &worker, "$queue/jobs/$nack", &about);
    assert!(answer.contains("a delay of more than 30 days"), "{answer}");
    assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$ack", &about[..2]), "PUBACK 9");
}

#[test]
fn a_consumer_is_given_no_more_than_its_client_can_be_sent() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, with_queue("jobs partitions=1 lease=10s"));
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let narrow = Connecting::v5("n").with(Property::ReceiveMaximum(1));
        let consumer = Client::online(&mut sim, &narrow);
        let asked = [("consumer-group", "g"), ("settle", "auto")];
        subscribe(&mut sim, &consumer, "$queue/jobs", &asked);
        for id in 1..=3 {
            publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
        }
        let mut came = consumer.take().split_off(1);
        for id in 1..=3 {
            assert_eq!(came.len(), 1, "{came:?}");
            assert!(came[0].contains(&format!("\"{id}\"")), "{came:?}");
            assert_eq!(user_property(&came[0], "attempt"), "1");
            sim.advance_s(8);
            consumer.send(&mut sim, puback(id));
            came = consumer.take();
        }
        assert!(came.is_empty(), "{came:?}");
    }
}
