//! What is counted of queues.

use dunlin::worker::Settings;
use dunlin_packets::Property;
use dunlin_queue::DropReason;
use dunlin_tests::{Client, Connecting, Publishing, Sim, puback};

use crate::queues::{consumer, subscribe};

fn expired(sim: &Sim) -> u64 {
    sim.stats().dropped[DropReason::Expired as usize]
}

#[test]
fn an_expired_message_of_a_queue_is_counted_once_for_each_group() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let readers = ["g", "h"].map(|group| {
        let asked = [("consumer-group", group), ("prefetch", "1"), ("settle", "auto")];
        consumer(&mut sim, group, "$queue/jobs", &asked)
    });
    for id in 1..=2 {
        let publishing = Publishing::q1("$queue/jobs/k", "x", id);
        let publishing = publishing.with(Property::MessageExpiryInterval(5));
        publisher.send(&mut sim, publishing.v5());
    }
    sim.advance_s(6);
    assert_eq!(expired(&sim), 0, "nobody has come to it");
    for (reader, count) in readers.iter().zip(1..) {
        reader.send(&mut sim, puback(1));
        assert_eq!((reader.take().len(), expired(&sim)), (1, count));
    }
}

#[test]
fn a_message_that_expires_on_its_way_to_a_consumer_is_counted_once() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let connecting = Connecting::v5("r").with(Property::ReceiveMaximum(1));
    let reader = Client::online(&mut sim, &connecting);
    subscribe(&mut sim, &reader, "$queue/jobs", &[("settle", "auto")]);
    for id in 1..=2 {
        let publishing = Publishing::q1("$queue/jobs/k", "x", id);
        let publishing = publishing.with(Property::MessageExpiryInterval(5));
        publisher.send(&mut sim, publishing.v5());
    }
    assert_eq!(reader.take().len(), 2, "SUBACK and the first: the second waits in the session");
    sim.advance_s(6);
    reader.send(&mut sim, puback(1));
    assert!(reader.take().is_empty());
    assert_eq!(expired(&sim), 1);
}
