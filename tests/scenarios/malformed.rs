//! Packets that break the standard end their connection, with the right code, and nothing else.

use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

const CASES: &[(&str, &[u8], &str)] = &[
    ("1.5.5-1 an overlong remaining length", &[0xc0, 0x80, 0x00], "MalformedPacket"),
    ("1.5.5 a length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 1], "MalformedPacket"),
    ("1.5.4-1 a surrogate", &[0x30, 6, 0, 3, 0xed, 0xa0, 0x80, 0], "MalformedPacket"),
    ("1.5.4-2 U+0000", &[0x30, 5, 0, 2, b'a', 0, 0], "MalformedPacket"),
    ("2.1.2 type 0", &[0x00, 0], "MalformedPacket"),
    ("2.1.3-1 flags of PINGREQ", &[0xc1, 0], "MalformedPacket"),
    ("2.2.1-3 packet identifier 0", &[0x32, 6, 0, 1, b't', 0, 0, 0], "ProtocolError"),
    ("3.3.1-2 DUP at QoS 0", &[0x38, 4, 0, 1, b't', 0], "MalformedPacket"),
    ("3.3.1-4 QoS 3", &[0x36, 6, 0, 1, b't', 0, 1, 0], "MalformedPacket"),
    ("3.3.2-2 a wildcard in the topic", &[0x30, 4, 0, 1, b'+', 0], "TopicNameInvalid"),
    ("4.7.3-1 an empty topic without alias", &[0x30, 3, 0, 0, 0], "ProtocolError"),
    ("3.6.1-1 flags of PUBREL", &[0x60, 2, 0, 1], "MalformedPacket"),
    ("3.8.1-1 flags of SUBSCRIBE", &[0x80, 7, 0, 1, 0, 0, 1, b't', 0], "MalformedPacket"),
    ("3.8.3-2 SUBSCRIBE without filter", &[0x82, 3, 0, 1, 0], "ProtocolError"),
    ("3.8.3-5 reserved options", &[0x82, 7, 0, 1, 0, 0, 1, b't', 0x40], "MalformedPacket"),
    ("3.8.3-5 QoS 3 in options", &[0x82, 7, 0, 1, 0, 0, 1, b't', 3], "MalformedPacket"),
    ("4.7.3-1 an empty filter", &[0x82, 6, 0, 1, 0, 0, 0, 0], "MalformedPacket"),
    ("3.10.1-1 flags of UNSUBSCRIBE", &[0xa0, 6, 0, 1, 0, 0, 1, b't'], "MalformedPacket"),
    ("3.10.3-2 UNSUBSCRIBE without filter", &[0xa2, 3, 0, 1, 0], "ProtocolError"),
    ("3.14.1-1 flags of DISCONNECT", &[0xe1, 0], "MalformedPacket"),
    ("3.14.2-1 a code DISCONNECT does not have", &[0xe0, 1, 0x01], "ProtocolError"),
    ("3.15.1-1 flags of AUTH", &[0xf1, 0], "MalformedPacket"),
    ("a packet only servers send", &[0xd0, 0], "ProtocolError"),
    ("a topic longer than its packet", &[0x30, 3, 0xff, 0xff, b't'], "MalformedPacket"),
    ("bytes behind a PUBACK", &[0x40, 5, 0, 1, 0, 0, 0], "MalformedPacket"),
];

#[test]
fn mqtt5_4_13_1_1_each_error_is_answered_with_its_code_and_the_connection_closed() {
    let mut sim = Sim::default();
    let neighbour = Client::online(&mut sim, &Connecting::v5("neighbour"));
    for (case, bytes, code) in CASES {
        let client = Client::online(&mut sim, &Connecting::v5("c"));
        client.send(&mut sim, bytes);
        assert_eq!(client.take(), [format!("DISCONNECT {code}"), "CLOSED".into()], "{case}");
    }
    neighbour.send(&mut sim, [0xc0, 0]);
    assert_eq!(neighbour.take(), ["PINGRESP"]);
}

#[test]
fn mqtt5_4_13_1_1_an_error_publishes_the_will_and_what_follows_is_not_read() {
    let mut sim = Sim::default();
    let watcher = Client::online(&mut sim, &Connecting::v5("w"));
    watcher.send(&mut sim, Subscribing::to("#", 0).v5());
    let connecting = Connecting::v5("c").will("will", "gone", 0, false);
    let client = Client::online(&mut sim, &connecting);
    let mut bytes = vec![0x36, 2, 0, 0];
    bytes.extend(Publishing::q0("t", "too late").v5());
    client.send(&mut sim, bytes);
    assert_eq!(watcher.take(), ["SUBACK 1 [00]", "PUBLISH will \"gone\""]);
}

#[test]
fn mqtt311_4_8_0_1_an_error_of_3_1_1_closes_without_a_word() {
    let mut sim = Sim::default();
    for bytes in [&[0xc1, 0][..], &[0x36, 5, 0, 1, b't', 0, 1], &[0xf0, 0], &[0x82, 2, 0, 1]] {
        let client = Client::online(&mut sim, &Connecting::v4("c"));
        client.send(&mut sim, bytes);
        assert_eq!(client.take(), ["CLOSED"], "{bytes:02x?}");
    }
}

#[test]
fn a_remaining_length_of_3_1_1_may_be_longer_than_it_needs_to_be() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v4("c"));
    client.send(&mut sim, [0xc0, 0x80, 0x00]);
    assert_eq!(client.take(), ["PINGRESP"]);
}

#[test]
fn mqtt5_3_14_0_1_no_disconnect_comes_before_a_connack() {
    let mut sim = Sim::default();
    let client = sim.client();
    let mut connect = Connecting::v5("c").bytes();
    connect[9] |= 1;
    client.send(&mut sim, connect);
    assert_eq!(client.take(), ["CONNACK MalformedPacket", "CLOSED"]);
}
