//! CONNECT and CONNACK.

use dunlin::worker::Settings;
use dunlin_packets::{Property, QoS};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

#[test]
fn mqtt5_3_1_3_6_an_empty_client_id_gets_a_unique_one_also_without_clean_start() {
    let mut sim = Sim::new(3, Settings::default());
    let mut seen = Vec::new();
    for connecting in [Connecting::v5(""), Connecting::v5("").resume(), Connecting::v5("")] {
        let client = Client::connect(&mut sim, &connecting);
        let answer = client.take().remove(0);
        let (_, rest) = answer.split_once("AssignedClientIdentifier(\"").expect(&answer);
        seen.push(rest.split_once('"').expect("its end").0.to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
    assert_eq!(sim.stats().online, 3);
}

#[test]
fn mqtt311_3_1_3_8_an_empty_client_id_without_clean_session_is_refused() {
    let mut sim = Sim::default();
    let client = Client::connect(&mut sim, &Connecting::v4("").resume());
    assert_eq!(client.take(), ["CONNACK ClientIdentifierNotValid", "CLOSED"]);
    let client = Client::connect(&mut sim, &Connecting::v4(""));
    assert_eq!(client.take(), ["CONNACK Success"]);
    let client = Client::connect(&mut sim, &Connecting::v3(""));
    assert_eq!(client.take(), ["CONNACK ClientIdentifierNotValid", "CLOSED"]);
}

#[test]
fn mqtt5_3_1_3_8_empty_client_ids_can_be_switched_off() {
    let mut settings = Settings::default();
    settings.limits.allow_empty_client_id = false;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5(""));
    let texts = client.take();
    assert!(texts[0].starts_with("CONNACK ClientIdentifierNotValid"), "{texts:?}");
    assert_eq!(texts[1], "CLOSED");
}

#[test]
fn mqtt5_3_2_2_12_a_will_above_the_maximum_qos_is_refused() {
    let mut settings = Settings::default();
    settings.limits.qos_max = QoS::AtLeastOnce;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5("c").will("w", "x", 2, false));
    let texts = client.take();
    assert!(texts[0].starts_with("CONNACK QosNotSupported"), "{texts:?}");
    let client = Client::connect(&mut sim, &Connecting::v5("c"));
    assert!(client.take()[0].contains("MaximumQos(true)"));
    client.send(&mut sim, Publishing::q2("t", "x", 1).v5());
    assert_eq!(client.take(), ["DISCONNECT QosNotSupported", "CLOSED"]);
}

#[test]
fn mqtt5_3_2_2_13_a_retained_will_without_retain_is_refused() {
    let mut settings = Settings::default();
    settings.limits.retain_available = false;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5("c").will("w", "x", 0, true));
    let texts = client.take();
    assert!(texts[0].starts_with("CONNACK RetainNotSupported"), "{texts:?}");
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Publishing::q0("t", "x").retain().v5());
    assert_eq!(client.take(), ["DISCONNECT RetainNotSupported", "CLOSED"]);
}

#[test]
fn mqtt5_3_2_2_15_a_packet_above_our_maximum_is_refused_before_it_is_read() {
    let mut settings = Settings::default();
    settings.limits.packet_bytes_max = 1000;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5("c"));
    assert!(client.take()[0].contains("MaximumPacketSize(1000)"));
    client.send(&mut sim, Publishing::q0("t", &[b'x'; 990]).v5());
    assert!(!client.is_closed());
    client.send(&mut sim, [0x30, 0xff, 0xff, 0xff, 0x7f, 0]);
    assert_eq!(client.take(), ["DISCONNECT PacketTooLarge", "CLOSED"]);
}

#[test]
fn mqtt5_3_1_0_1_anything_but_connect_ends_the_connection() {
    let mut sim = Sim::default();
    for first in [&[0xc0, 0][..], &[0x30, 3, 0, 1, b't'], b"GET / HTTP/1.1\r\n", &[0x82, 0]] {
        let client = sim.client();
        client.send(&mut sim, first);
        assert_eq!(client.take(), ["CLOSED"]);
    }
}

#[test]
fn mqtt5_3_1_0_2_a_second_connect_is_a_protocol_error() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Connecting::v5("c").bytes());
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
}

#[test]
fn mqtt311_3_1_2_2_an_unknown_level_is_answered_and_closed() {
    let mut sim = Sim::default();
    let mut client = sim.client();
    client.speak(dunlin_packets::Version::V4);
    client.send(&mut sim, b"\x10\x0d\x00\x04MQTT\x63\x02\x00\x00\x00\x01c");
    assert_eq!(client.take(), ["CONNACK UnsupportedProtocolVersion", "CLOSED"]);
}

#[test]
fn mqtt5_3_1_2_2_versions_can_be_switched_off() {
    let mut settings = Settings::default();
    settings.limits.accept_versions = [false, true, false];
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v3("c"));
    assert_eq!(client.take(), ["CONNACK UnsupportedProtocolVersion", "CLOSED"]);
    let client = Client::connect(&mut sim, &Connecting::v5("c"));
    assert!(client.take()[0].starts_with("CONNACK UnsupportedProtocolVersion"));
    let client = Client::connect(&mut sim, &Connecting::v4("c"));
    assert_eq!(client.take(), ["CONNACK Success"]);
}

#[test]
fn mqtt5_3_1_4_6_what_follows_a_refused_connect_is_ignored() {
    let mut sim = Sim::default();
    let watcher = Client::online(&mut sim, &Connecting::v5("w"));
    watcher.send(&mut sim, Subscribing::to("#", 0).v5());
    let client = sim.client();
    let mut bytes = Connecting::v4("").resume().bytes();
    bytes.extend(Publishing::q0("t", "x").v4());
    client.send(&mut sim, bytes);
    assert_eq!(watcher.take(), ["SUBACK 1 [00]"]);
}

#[test]
fn packets_behind_connect_are_handled_wherever_the_session_lives() {
    let mut sim = Sim::new(4, Settings::default());
    for name in ["a", "b", "c", "d", "e", "f"] {
        let client = sim.client();
        let mut bytes = Connecting::v5(name).bytes();
        bytes.extend(Subscribing::to("t", 1).v5());
        bytes.extend(Publishing::q1("t", name, 9).v5());
        bytes.extend([0xc0]);
        client.send(&mut sim, bytes);
        client.send(&mut sim, [0]);
        let texts = client.take();
        assert_eq!(texts[1], "SUBACK 1 [01]");
        assert!(texts.iter().any(|text| text == "PUBACK 9"), "{texts:?}");
        assert!(texts.iter().any(|text| text == "PINGRESP"), "{texts:?}");
        client.drop_connection(&mut sim);
    }
}

#[test]
fn mqtt5_3_1_2_28_response_information_comes_only_when_asked_for() {
    let mut settings = Settings::default();
    settings.limits.response_topic_prefix = "reply/".into();
    let mut sim = Sim::new(1, settings);
    let asked = Connecting::v5("c").with(Property::RequestResponseInformation(true));
    let client = Client::connect(&mut sim, &asked);
    assert!(client.take()[0].contains("ResponseInformation(\"reply/c\")"));
    let client = Client::connect(&mut sim, &Connecting::v5("d"));
    assert!(!client.take()[0].contains("ResponseInformation"));
}

#[test]
fn mqtt5_3_1_4_2_without_anonymous_clients_nobody_gets_in() {
    let settings = Settings { allow_anonymous: false, ..Settings::default() };
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v4("c"));
    assert_eq!(client.take(), ["CONNACK NotAuthorized", "CLOSED"]);
}
