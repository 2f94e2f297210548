//! The end of the broker.

use dunlin::worker::Settings;
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback};

#[test]
fn clients_are_told_and_closed() {
    let mut sim = Sim::new(2, Settings::default());
    let new = Client::online(&mut sim, &Connecting::v5("new"));
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    let lobby = sim.client();
    sim.begin_shutdown();
    assert_eq!(new.take(), ["DISCONNECT ServerShuttingDown", "CLOSED"]);
    assert_eq!(old.take(), ["CLOSED"]);
    assert_eq!(lobby.take(), ["CLOSED"]);
    sim.advance_s(3);
    assert!(sim.is_finished());
}

#[test]
fn what_was_accepted_is_delivered_first() {
    let mut sim = Sim::new(3, Settings::default());
    let subscribers: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| {
            let client = Client::online(&mut sim, &Connecting::v5(name));
            client.send(&mut sim, Subscribing::to("t", 1).v5());
            let _ = client.take();
            client.limit_room(100);
            client
        })
        .collect();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=500 {
        publisher.send(&mut sim, Publishing::q1("t", "x", id).v5());
    }
    assert_eq!(publisher.take().len(), 500);
    sim.begin_shutdown();
    assert_eq!(publisher.take(), ["DISCONNECT ServerShuttingDown", "CLOSED"]);
    for subscriber in &subscribers {
        assert!(!subscriber.is_closed());
        subscriber.unlimited(&mut sim);
        let texts = subscriber.take();
        assert_eq!(texts.len(), 502);
        assert_eq!(texts[500..], ["DISCONNECT ServerShuttingDown", "CLOSED"]);
    }
}

#[test]
fn acknowledgements_behind_a_publication_are_still_read() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").with(Property::ReceiveMaximum(1)));
    client.send(&mut sim, Subscribing::to("t", 1).v5());
    for id in 1..=3 {
        client.send(&mut sim, Publishing::q1("t", "x", id).v5());
    }
    let _ = client.take();
    sim.begin_shutdown();
    for id in 1..=3u16 {
        client.write(Publishing::q1("t", "too late", 10 + id).v5());
        client.send(&mut sim, puback(id));
    }
    let texts = client.take();
    assert_eq!(texts[..2], ["PUBLISH t \"x\" q1 id=2", "PUBLISH t \"x\" q1 id=3"]);
    assert_eq!(texts[2..], ["DISCONNECT ServerShuttingDown", "CLOSED"]);
}

#[test]
fn a_client_that_does_not_read_cannot_hold_the_end_up() {
    let mut sim = Sim::new(2, Settings::default());
    let stuck = Client::online(&mut sim, &Connecting::v5("stuck"));
    stuck.send(&mut sim, Subscribing::to("t", 0).v5());
    stuck.limit_room(0);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q0("t", "x").v5());
    sim.begin_shutdown();
    assert!(!sim.is_finished());
    sim.advance_s(10);
    assert!(sim.is_finished());
}
