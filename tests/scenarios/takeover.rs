//! Two connections with one client identifier.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

#[test]
fn mqtt5_3_1_4_3_the_old_connection_is_told_and_closed() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, Settings::default());
        let old = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
        let new = Client::connect(&mut sim, &Connecting::v5("c").resume().expiry(100));
        assert_eq!(old.take(), ["DISCONNECT SessionTakenOver", "CLOSED"]);
        assert!(new.take()[0].starts_with("CONNACK Success present"));
        assert!(!new.is_closed());
    }
}

#[test]
fn mqtt311_3_1_4_2_an_old_connection_of_3_1_1_is_closed_without_a_word() {
    let mut sim = Sim::default();
    let old = Client::online(&mut sim, &Connecting::v4("c"));
    let _new = Client::online(&mut sim, &Connecting::v5("c"));
    assert_eq!(old.take(), ["CLOSED"]);
}

#[test]
fn mqtt5_3_1_4_4_clean_start_is_carried_out_after_the_takeover() {
    let mut sim = Sim::default();
    let old = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    old.send(&mut sim, Subscribing::to("t", 1).v5());
    let new = Client::connect(&mut sim, &Connecting::v5("c"));
    assert!(new.take()[0].starts_with("CONNACK Success ["));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q0("t", "x").v5());
    assert!(new.take().is_empty());
}

#[test]
fn a_storm_of_takeovers_leaves_one_connection() {
    let mut sim = Sim::new(2, Settings::default());
    let clients: Vec<_> =
        (0..50).map(|_| Client::connect(&mut sim, &Connecting::v5("c").resume())).collect();
    assert_eq!(clients.iter().filter(|client| !client.is_closed()).count(), 1);
    assert!(!clients[49].is_closed());
    sim.advance_s(10);
    assert_eq!((sim.stats().online, sim.stats().sessions), (1, 1));
    assert_eq!(sim.connections(), 1);
}
