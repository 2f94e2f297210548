//! Consumers that fall behind, and the publishers that feed them.

use dunlin::worker::Settings;
use dunlin_queue::{DropReason, OverflowPolicy};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn small_queue(policy: OverflowPolicy, backpressure_ms: u64) -> Settings {
    let mut settings = Settings { backpressure_ms, ..Settings::default() };
    settings.limits.queue.messages_max = 100;
    settings.limits.queue.policy = policy;
    settings
}

/// A subscriber that reads nothing and a publisher that sends 1000 messages.
fn flood(sim: &mut Sim, version_qos: u8) -> (Client, Client) {
    let subscriber = Client::online(sim, &Connecting::v5("s"));
    subscriber.send(sim, Subscribing::to("t", version_qos).v5());
    let _ = subscriber.take();
    subscriber.limit_room(0);
    let publisher = Client::online(sim, &Connecting::v5("p"));
    for number in 0..1000u32 {
        publisher.write(Publishing::q0("t", &number.to_string()).v5());
    }
    sim.run();
    (subscriber, publisher)
}

#[test]
fn a_publisher_waits_for_a_consumer_that_catches_up_and_nothing_is_lost() {
    for workers in [1, 2, 3] {
        let mut sim = Sim::new(workers, small_queue(OverflowPolicy::DropNewest, 1000));
        let (subscriber, publisher) = flood(&mut sim, 0);
        assert!(sim.messages_held() <= 120, "{} are held", sim.messages_held());
        sim.advance_ms(500);
        subscriber.unlimited(&mut sim);
        assert_eq!(subscriber.take().len(), 1000, "{workers} workers");
        assert_eq!(sim.stats().dropped, [0; DropReason::ALL.len()]);
        publisher.send(&mut sim, [0xc0, 0]);
        assert_eq!(publisher.take(), ["PINGRESP"]);
    }
}

#[test]
fn reading_does_not_outrun_the_flush_of_a_large_fan_out() {
    let mut sim = Sim::default();
    let subscribers: Vec<_> = (0..1000)
        .map(|number| {
            let client = Client::online(&mut sim, &Connecting::v5(&format!("s{number}")));
            client.send(&mut sim, Subscribing::to("t", 0).v5());
            client.discard();
            client
        })
        .collect();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let publish = Publishing::q0("t", "a payload of a usual size, for a sensor").v5();
    for _ in 0..10_000 {
        publisher.write(&publish);
    }
    sim.run();
    // One bite of 64 KiB at a time, whatever the publisher has sent.
    let held = sim.messages_held_max();
    assert!(held <= (64 << 10) / publish.len() + 1, "{held} messages at a time");
    assert_eq!(subscribers[999].take().len(), 10_000);
}

#[test]
fn a_consumer_that_does_not_catch_up_holds_nobody_back_any_longer() {
    let mut sim = Sim::new(1, small_queue(OverflowPolicy::DropNewest, 1000));
    let neighbour = Client::online(&mut sim, &Connecting::v5("neighbour"));
    neighbour.send(&mut sim, Subscribing::to("t", 0).v5());
    let (subscriber, publisher) = flood(&mut sim, 0);
    publisher.send(&mut sim, [0xc0, 0]);
    assert!(publisher.take().is_empty(), "it is held back");
    sim.advance_ms(1100);
    assert_eq!(publisher.take(), ["PINGRESP"]);
    assert_eq!(neighbour.take().len(), 1001);
    let dropped = sim.stats().dropped[DropReason::QueueFullNewest as usize];
    assert!(dropped >= 800, "{dropped} are counted");
    subscriber.unlimited(&mut sim);
    let texts = subscriber.take();
    assert_eq!(texts[0], "PUBLISH t \"0\"", "what is older was kept");
    assert_eq!(texts.len() as u64 + dropped, 1000);
}

#[test]
fn a_slow_consumer_that_drains_its_queue_loses_nothing() {
    for workers in [1, 3] {
        let mut settings = small_queue(OverflowPolicy::DropNewest, 1000);
        settings.limits.queue.messages_max = 8000;
        let mut sim = Sim::new(workers, settings);
        let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
        subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
        let _ = subscriber.take();
        subscriber.limit_room(0);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let publish = Publishing::q0("t", &[b'x'; 60]).v5();
        publisher.write(publish.repeat(20_000));
        let mut received = 0;
        for _ in 0..40 {
            // More than half of a queue that is half full; part of it is with the connection already.
            subscriber.limit_room(publish.len() * 2500);
            sim.advance_ms(900);
            received += subscriber.take().len();
        }
        assert_eq!(received, 20_000, "{workers} workers");
        assert_eq!(sim.stats().dropped, [0; DropReason::ALL.len()]);
        publisher.send(&mut sim, [0xc0, 0]);
        assert_eq!(publisher.take(), ["PINGRESP"]);
    }
}

#[test]
fn the_policy_can_keep_what_is_newer() {
    let mut sim = Sim::new(1, small_queue(OverflowPolicy::DropOldest, 0));
    let (subscriber, _publisher) = flood(&mut sim, 0);
    subscriber.unlimited(&mut sim);
    let texts = subscriber.take();
    assert_eq!(texts.last().map(String::as_str), Some("PUBLISH t \"999\""));
    let dropped = sim.stats().dropped[DropReason::QueueFullOldest as usize];
    assert_eq!(texts.len() as u64 + dropped, 1000);
}

#[test]
fn the_policy_can_disconnect() {
    let mut sim = Sim::new(1, small_queue(OverflowPolicy::Disconnect, 0));
    let (subscriber, _publisher) = flood(&mut sim, 0);
    subscriber.unlimited(&mut sim);
    let texts = subscriber.take();
    assert_eq!(texts[texts.len() - 2..], ["DISCONNECT QuotaExceeded", "CLOSED"]);
    assert_eq!(sim.stats().sessions, 1, "only the publisher's");
}

#[test]
fn an_offline_queue_is_bounded_and_what_does_not_fit_is_counted() {
    let mut sim = Sim::new(1, small_queue(OverflowPolicy::DropNewest, 1000));
    let subscriber = Client::online(&mut sim, &Connecting::v5("s").expiry(100));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    subscriber.drop_connection(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=150 {
        publisher.send(&mut sim, Publishing::q1("t", "x", id).v5());
    }
    publisher.send(&mut sim, Publishing::q0("t", "x").v5());
    assert_eq!(publisher.take().len(), 150, "an offline consumer holds nobody back");
    let stats = sim.stats();
    assert_eq!(stats.dropped[DropReason::QueueFullNewest as usize], 50);
    assert_eq!(stats.dropped[DropReason::OfflineQos0 as usize], 1);
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert_eq!(subscriber.take().len(), 101);
}

#[test]
fn a_publisher_that_is_its_own_slow_consumer_comes_free() {
    let mut sim = Sim::new(1, small_queue(OverflowPolicy::DropNewest, 1000));
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 0).v5());
    client.limit_room(0);
    for number in 0..1000u32 {
        client.write(Publishing::q0("t", &number.to_string()).v5());
    }
    sim.advance_s(3);
    client.unlimited(&mut sim);
    client.send(&mut sim, [0xc0, 0]);
    assert!(client.take().contains(&"PINGRESP".to_owned()));
}
