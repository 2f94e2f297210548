//! A device that has no space left, or soon will not have.

use dunlin::store::LogState;
use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, Subscribing};

fn durable(workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), SimDisk::default(), 7)
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(100_000)
}

fn offline_subscriber(sim: &mut Sim, client_id: &str) {
    let subscriber = Client::online(sim, &persistent(client_id));
    subscriber.send(sim, Subscribing::to("t/#", 1).v5());
    subscriber.drop_connection(sim);
}

/// A broker whose disk is full, and a publisher that waits for what found no room there.
fn without_room(workers: usize) -> (Sim, Client) {
    let mut sim = durable(workers);
    offline_subscriber(&mut sim, "s");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let bytes = sim.disk().bytes() as usize;
    sim.disk().limit_capacity(bytes + 100);
    publisher.send(&mut sim, Publishing::q1("t/x", &"x".repeat(200), 1).v5());
    assert!(publisher.take().is_empty(), "it is not safe");
    (sim, publisher)
}

#[test]
fn what_is_on_its_way_to_the_disk_counts_against_the_space_that_is_free() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    // Nobody looks at the device again while this goes on.
    sim.set_free_space(10_000);
    sim.run();
    for id in 1..=30 {
        publisher.write(Publishing::q1("t/x", &"x".repeat(1000), id).v5());
        sim.run_workers();
    }
    assert_eq!(sim.log().state(), LogState::Full);
    sim.run();
    let texts = publisher.take();
    assert_eq!(texts.len(), 30);
    let (kept, refused) = texts.split_at(10);
    assert!(kept.iter().enumerate().all(|(at, text)| *text == format!("PUBACK {}", at + 1)));
    assert!(refused.iter().all(|text| text.ends_with(" QuotaExceeded")), "{refused:?}");
    sim.set_free_space(100_000);
    sim.run();
    publisher.send(&mut sim, Publishing::q1("t/x", "x", 31).v5());
    assert_eq!(publisher.take(), ["PUBACK 31"]);
}

#[test]
fn who_waits_for_room_on_the_disk_is_told_in_time_and_who_comes_back_does_not_wait() {
    for workers in [1, 2] {
        let (mut sim, publisher) = without_room(workers);
        let back = Client::connect(&mut sim, &persistent("s"));
        let new = Client::connect(&mut sim, &persistent("new"));
        sim.advance_ms(2_500);
        assert_eq!(publisher.take(), ["DISCONNECT QuotaExceeded", "CLOSED"]);
        assert_eq!(new.take().last().expect("an answer"), "CLOSED", "it would be forgotten");
        assert!(back.take()[0].starts_with("CONNACK Success present"));
        let clean = Client::online(&mut sim, &Connecting::v5("clean"));
        clean.send(&mut sim, Subscribing::to("clean", 1).v5());
        clean.send(&mut sim, Publishing::q1("clean", "goes on", 1).v5());
        assert_eq!(clean.take()[1..], ["PUBACK 1", "PUBLISH clean \"goes on\" q1 id=1"]);
        // What found no room is not lost, and comes when there is some.
        sim.disk().unlimited();
        sim.advance_s(1);
        assert!(back.take()[0].starts_with("PUBLISH t/x"));
    }
}

#[test]
fn a_broker_whose_disk_is_full_ends_in_time_and_keeps_what_it_had() {
    for patience_ms in [0, 2_500] {
        let (mut sim, publisher) = without_room(2);
        sim.advance_ms(patience_ms);
        let disk = sim.shut_down();
        assert!(publisher.is_closed());
        let mut sim = Sim::with_disk(1, Settings::default(), disk, 7);
        let back = Client::connect(&mut sim, &persistent("s"));
        assert!(back.take()[0].starts_with("CONNACK Success present"));
    }
}
