//! A disk that has failed: from there on the broker takes nothing that it would have to keep, and
//! says so.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, Subscribing};

use crate::queues::{consumer, consumer_of, publish, subscribe, user_property, verb, with_options};

const GROUP: &[(&str, &str)] = &[("consumer-group", "g")];

fn durable(workers: usize, settings: Settings) -> Sim {
    Sim::with_disk(workers, settings, SimDisk::default(), 7)
}

/// The log fails by a publication that nobody gets an answer to.
fn fail(sim: &mut Sim) {
    sim.disk().fail_syncs_after(0);
    let publisher = Client::online(sim, &Connecting::v5("last"));
    publish(sim, &publisher, "$queue/other/k", "x", 1);
    assert_eq!(publisher.take(), ["DISCONNECT ImplementationSpecificError", "CLOSED"]);
}

#[test]
fn a_publisher_to_a_queue_is_told_and_one_before_5_0_by_the_end_of_its_connection() {
    for workers in [1, 3] {
        let mut sim = durable(workers, Settings::default());
        let (new, old) = (Connecting::v5("new"), Connecting::v4("old"));
        let (new, old) = (Client::online(&mut sim, &new), Client::online(&mut sim, &old));
        publish(&mut sim, &new, "$queue/jobs/k", "x", 1);
        assert_eq!(new.take(), ["PUBACK 1"]);
        fail(&mut sim);
        publish(&mut sim, &new, "$queue/jobs/k", "x", 2);
        let told = new.take();
        assert!(told[0].starts_with("PUBACK 2 ImplementationSpecificError"), "{told:?}");
        old.send(&mut sim, Publishing::q1("$queue/jobs/k", "x", 3).v4());
        assert_eq!(old.take(), ["CLOSED"], "it sends it again, later");
    }
}

#[test]
fn a_qos_2_publication_that_comes_again_is_not_taken_for_one_that_was_kept() {
    for topic in ["$queue/jobs/k", "t/x"] {
        for version in [Connecting::v5("p").expiry(1000), Connecting::v4("p")] {
            let connecting = version.resume();
            let mut sim = durable(1, Settings::default());
            let subscriber = Client::online(&mut sim, &Connecting::v5("s").resume().expiry(1000));
            subscriber.send(&mut sim, Subscribing::to("t/#", 1).v5());
            subscriber.drop_connection(&mut sim);
            let publisher = Client::online(&mut sim, &connecting);
            sim.disk().fail_syncs_after(0);
            let publishing = Publishing::q2(topic, "x", 1);
            publisher.send(&mut sim, publishing.v5());
            let _ = publisher.take();
            assert!(publisher.is_closed(), "nobody knows whether it is safe");
            let publisher = Client::connect(&mut sim, &connecting);
            publisher.send(&mut sim, publishing.clone().dup().v5());
            let answers = publisher.take();
            let is_success = answers.iter().any(|text| text == "PUBREC 1");
            assert!(!is_success, "{topic}: {answers:?}");
        }
    }
}

#[test]
fn what_cannot_be_kept_of_a_queue_is_refused_and_changes_nothing() {
    let mut sim = durable(1, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", GROUP);
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    let came = worker.take();
    let id = user_property(&came[0], "message-id");
    fail(&mut sim);
    for name in ["$ack", "$nack", "$reject", "$extend"] {
        let topic = format!("$queue/jobs/{name}");
        let answer = verb(&mut sim, &worker, &topic, &[("message-id", &id), ("group-id", "g")]);
        assert!(answer.starts_with("PUBACK 9 ImplementationSpecificError"), "{name}: {answer}");
    }
    let late = Client::online(&mut sim, &Connecting::v5("late"));
    subscribe(&mut sim, &late, "$queue/jobs", &[("consumer-group", "new")]);
    assert!(late.take()[0].starts_with("SUBACK 1 [83]"), "a group that a crash would end");
    let mut sim = Sim::with_disk(1, Settings::default(), sim.crash(1), 7);
    let (_worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", GROUP);
    assert_eq!(came.len(), 1);
}

#[test]
fn a_queue_at_level_memory_goes_on() {
    let mut sim = durable(1, with_options(&[("queues.declare", "fast level=memory")]));
    let publisher = Client::online(&mut sim, &Connecting::v4("p"));
    let worker = consumer(&mut sim, "w", "$queue/fast", GROUP);
    fail(&mut sim);
    publisher.send(&mut sim, Publishing::q1("$queue/fast/k", "x", 1).v4());
    assert_eq!(publisher.take(), ["PUBACK 1"]);
    let came = worker.take();
    let id = user_property(&came[0], "message-id");
    let answer =
        verb(&mut sim, &worker, "$queue/fast/$ack", &[("message-id", &id), ("group-id", "g")]);
    assert_eq!(answer, "PUBACK 9");
}

#[test]
fn what_was_to_be_synced_some_time_is_not_waited_for_any_more() {
    let mut sim = durable(1, with_options(&[("durability.level", "interval")]));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    sim.disk().fail_syncs_after(0);
    // More than a segment of the log, which is synced when the next one begins.
    for id in 1..20 {
        publish(&mut sim, &publisher, "$queue/jobs/k", &"x".repeat(1000), id);
    }
    assert!(publisher.is_closed(), "it has failed");
    // Nothing stays due.
    sim.advance_ms(5000);
}
