//! What queues may take, over all workers.

use dunlin_tests::{Client, Connecting, Sim, SimDisk};

use crate::queues::{publish, with_options};

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
