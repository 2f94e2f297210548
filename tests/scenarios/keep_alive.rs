//! Silence, and who ends it.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Sim, Subscribing};

#[test]
fn mqtt5_3_1_2_22_a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    let mut sim = Sim::default();
    let watcher = Client::online(&mut sim, &Connecting::v5("w"));
    watcher.send(&mut sim, Subscribing::to("will", 0).v5());
    let connecting = Connecting::v5("c").keep_alive(10).will("will", "gone", 0, false);
    let client = Client::online(&mut sim, &connecting);
    sim.advance_ms(14_900);
    assert!(!client.is_closed());
    sim.advance_ms(200);
    assert_eq!(client.take(), ["DISCONNECT KeepAliveTimeout", "CLOSED"]);
    assert_eq!(watcher.take(), ["SUBACK 1 [00]", "PUBLISH will \"gone\""]);
}

#[test]
fn a_client_that_asks_and_never_reads_is_not_kept_alive_by_that() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").keep_alive(10));
    client.limit_room(0);
    for _ in 0..200 {
        client.write([0xc0, 0].repeat(1000));
    }
    sim.advance_s(20);
    assert_eq!(sim.stats().online, 0);
}

#[test]
fn mqtt5_3_12_4_1_pings_are_answered_and_keep_the_client_alive() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").keep_alive(10));
    for _ in 0..10 {
        sim.advance_s(9);
        client.send(&mut sim, [0xc0, 0]);
        assert_eq!(client.take(), ["PINGRESP"]);
    }
}

#[test]
fn mqtt5_3_2_2_22_the_servers_keep_alive_holds_when_it_is_announced() {
    let mut settings = Settings::default();
    settings.limits.keep_alive_max_s = 20;
    let mut sim = Sim::new(1, settings);
    for asked in [0, 60] {
        let client = Client::connect(&mut sim, &Connecting::v5("c").keep_alive(asked));
        assert!(client.take()[0].contains("ServerKeepAlive(20)"));
        sim.advance_s(31);
        assert_eq!(client.take(), ["DISCONNECT KeepAliveTimeout", "CLOSED"]);
    }
    let client = Client::connect(&mut sim, &Connecting::v5("c").keep_alive(10));
    assert!(!client.take()[0].contains("ServerKeepAlive"));
    let old = Client::online(&mut sim, &Connecting::v4("old").keep_alive(60));
    sim.advance_s(60);
    assert!(!old.is_closed(), "3.1.1 cannot be told, so its own value holds");
}

#[test]
fn without_keep_alive_silence_may_last() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    sim.advance_s(1_000_000);
    assert!(!client.is_closed());
}

#[test]
fn a_connection_that_never_sends_connect_is_closed() {
    let mut sim = Sim::default();
    let silent = sim.client();
    let slow = sim.client();
    slow.send(&mut sim, &Connecting::v5("c").bytes()[..5]);
    sim.advance_s(9);
    assert!(!silent.is_closed() && !slow.is_closed());
    sim.advance_s(2);
    assert!(silent.is_closed() && slow.is_closed());
    assert_eq!(sim.connections(), 0);
}

#[test]
fn half_a_packet_is_not_waited_for_for_ever_wherever_its_session_lives() {
    let mut sim = Sim::new(4, Settings::default());
    for name in ["a", "b", "c", "d", "e", "f"] {
        let client = Client::online(&mut sim, &Connecting::v5(name));
        client.send(&mut sim, [0x30, 10, 0]);
        sim.advance_s(29);
        client.send(&mut sim, [1]);
        sim.advance_s(29);
        assert!(!client.is_closed(), "it makes progress");
        sim.advance_s(2);
        assert_eq!(client.take(), ["DISCONNECT MalformedPacket", "CLOSED"]);
    }
}
