//! How long a session lives, and what it says of that.

use dunlin::worker::Settings;
use dunlin_packets::{Disconnect, PropertiesBuf, Property, ReasonCode, Version};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn disconnect_with_expiry(seconds: u32) -> Vec<u8> {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::SessionExpiryInterval(seconds));
    let mut out = Vec::new();
    let properties = properties.as_properties();
    Disconnect { code: ReasonCode::Success, properties }.encode(Version::V5, &mut out);
    out
}

#[test]
fn mqtt5_3_2_2_3_session_present_tells_whether_state_existed() {
    let mut sim = Sim::default();
    for (connecting, expected) in [
        (Connecting::v5("c").resume().expiry(10), "CONNACK Success ["),
        (Connecting::v5("c").resume().expiry(10), "CONNACK Success present"),
        (Connecting::v5("c").expiry(10), "CONNACK Success ["),
        (Connecting::v5("c").resume().expiry(0), "CONNACK Success present"),
        (Connecting::v5("c").resume(), "CONNACK Success ["),
    ] {
        let client = Client::connect(&mut sim, &connecting);
        let answer = client.take();
        assert!(answer[0].starts_with(expected), "{answer:?}, not {expected}");
        client.drop_connection(&mut sim);
    }
}

#[test]
fn mqtt5_4_1_0_2_a_session_ends_when_its_expiry_has_passed() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(10));
    client.send(&mut sim, Subscribing::to("t", 1).v5());
    client.drop_connection(&mut sim);
    sim.advance_s(9);
    assert_eq!(sim.stats().sessions, 1);
    sim.advance_s(2);
    assert_eq!((sim.stats().sessions, sim.stats().subscriptions), (0, 0));
    let client = Client::connect(&mut sim, &Connecting::v5("c").resume());
    assert!(client.take()[0].starts_with("CONNACK Success ["));
}

#[test]
fn section_3_2_2_3_2_a_shortened_session_expiry_is_said_in_connack() {
    let mut settings = Settings::default();
    settings.limits.session_expiry_max_s = 100;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5("c").expiry(1000));
    assert!(client.take()[0].contains("SessionExpiryInterval(100)"));
    client.drop_connection(&mut sim);
    sim.advance_s(101);
    assert_eq!(sim.stats().sessions, 0);
    let client = Client::connect(&mut sim, &Connecting::v5("c").expiry(99));
    assert!(!client.take()[0].contains("SessionExpiry"));
}

#[test]
fn section_3_14_2_2_2_an_expiry_cannot_come_to_life_in_disconnect() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, disconnect_with_expiry(10));
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
}

#[test]
fn section_3_14_2_2_2_an_expiry_can_be_changed_in_disconnect() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(10));
    client.send(&mut sim, disconnect_with_expiry(100));
    sim.advance_s(50);
    assert_eq!(sim.stats().sessions, 1);
    let client = Client::online(&mut sim, &Connecting::v5("c").resume().expiry(10));
    client.send(&mut sim, disconnect_with_expiry(0));
    assert_eq!(sim.stats().sessions, 0);
}

#[test]
fn mqtt5_3_1_2_4_a_clean_start_throws_the_old_session_away() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    client.send(&mut sim, Subscribing::to("t", 1).v5());
    client.drop_connection(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    publisher.send(&mut sim, Publishing::q1("t", "y", 2).v5());
    assert!(client.take().is_empty());
    assert_eq!(publisher.take(), ["PUBACK 1", "PUBACK 2 NoMatchingSubscribers"]);
    assert_eq!(sim.messages_held(), 0);
}

#[test]
fn mqtt311_3_1_2_5_a_session_of_3_1_1_keeps_qos_1_messages_while_offline() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v4("c").resume());
    client.send(&mut sim, Subscribing::to("t", 1).v4());
    client.send(&mut sim, [0xe0, 0]);
    sim.advance_s(86_400 * 30);
    let publisher = Client::online(&mut sim, &Connecting::v4("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v4());
    publisher.send(&mut sim, Publishing::q0("t", "not kept").v4());
    let client = Client::connect(&mut sim, &Connecting::v4("c").resume());
    assert_eq!(client.take(), ["CONNACK Success present", "PUBLISH t \"x\" q1 id=1"]);
}

#[test]
fn mqtt5_3_1_2_5_a_session_goes_on_in_another_version() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    client.send(&mut sim, Subscribing::to("t", 1).identifier(5).v5());
    client.drop_connection(&mut sim);
    let client = Client::connect(&mut sim, &Connecting::v4("c").resume());
    assert_eq!(client.take(), ["CONNACK Success present"]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
    assert_eq!(client.take(), ["PUBLISH t \"x\" q1 id=1"]);
}
