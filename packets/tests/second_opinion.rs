//! The same bytes, read by `mqttbytes`, which nobody here wrote.
//!
//! Where the two differ and the standard is on our side, the case is listed in
//! [`mqttbytes_is_wrong_here`] instead of compared.

use bytes::BytesMut;
use dunlin_packets::{
    Frame, Packet, PacketId, Properties, PropertiesBuf, Property, Publish, QoS, Version,
};
use mqttbytes::{v4, v5};
use proptest::collection::vec;
use proptest::prelude::*;

fn decode(bytes: &[u8], version: Version) -> Option<Packet<'_>> {
    let (frame, _) = Frame::split(bytes, 1 << 20, version).ok()??;
    Packet::decode(&frame, version).ok()
}

proptest! {
    #[test]
    fn both_read_the_same_publish_of_3_1_1(
        topic in "[a-z/]{1,20}", payload in vec(any::<u8>(), 0..100), qos in 0..3u8,
        retain in any::<bool>(), id in 1..u16::MAX,
    ) {
        let qos = QoS::from_bits(qos).expect("below 3");
        let publish = Publish {
            dup: false, qos, retain, topic: &topic, properties: Properties::default(),
            packet_id: PacketId::new(id).filter(|_| qos != QoS::AtMostOnce), payload: &payload,
        };
        let mut out = Vec::new();
        publish.encode(Version::V4, &mut out);
        let read = v4::read(&mut BytesMut::from(&out[..]), 1 << 20).expect("readable");
        let v4::Packet::Publish(theirs) = read else { panic!("not a PUBLISH") };
        prop_assert_eq!(&theirs.topic, &topic);
        prop_assert_eq!(&theirs.payload[..], &payload[..]);
        prop_assert_eq!((theirs.qos as u8, theirs.retain), (qos as u8, retain));
        prop_assert_eq!(theirs.pkid, publish.packet_id.map_or(0, PacketId::get));
        let mut again = BytesMut::new();
        theirs.write(&mut again).expect("writable");
        prop_assert_eq!(&again[..], &out[..]);
    }

    #[test]
    fn both_read_the_same_publish_of_5_0(
        topic in "[a-z/]{1,20}", payload in vec(any::<u8>(), 0..100), id in 1..u16::MAX,
        expiry in any::<u32>(), content in "[a-z]{0,10}", users in vec("[a-z]{0,5}", 0..4),
    ) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::MessageExpiryInterval(expiry));
        properties.push(Property::ContentType(&content));
        properties.push(Property::SubscriptionIdentifier(300));
        for user in &users {
            properties.push(Property::UserProperty(user, "value"));
        }
        let publish = Publish {
            dup: false, qos: QoS::AtLeastOnce, retain: false, topic: &topic,
            packet_id: PacketId::new(id), properties: properties.as_properties(),
            payload: &payload,
        };
        let mut out = Vec::new();
        publish.encode(Version::V5, &mut out);
        let read = v5::read(&mut BytesMut::from(&out[..]), 1 << 20).expect("readable");
        let v5::Packet::Publish(theirs) = read else { panic!("not a PUBLISH") };
        prop_assert_eq!(&theirs.topic, &topic);
        prop_assert_eq!(&theirs.payload[..], &payload[..]);
        let read = theirs.properties.expect("properties");
        prop_assert_eq!(read.message_expiry_interval, Some(expiry));
        prop_assert_eq!(read.content_type, Some(content));
        prop_assert_eq!(read.subscription_identifiers, vec![300]);
        prop_assert_eq!(read.user_properties.len(), users.len());
    }

    #[test]
    fn what_we_accept_of_3_1_1_they_accept_too(
        first in prop_oneof![
            Just(0x30u8), Just(0x32), Just(0x34), Just(0x40), Just(0x50), Just(0x62), Just(0x70),
            Just(0x90), Just(0xb0), Just(0x20),
        ],
        body in vec(any::<u8>(), 0..24),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(&body);
        if decode(&bytes, Version::V4).is_some() {
            let theirs = v4::read(&mut BytesMut::from(&bytes[..]), 1 << 20);
            prop_assert!(theirs.is_ok(), "{bytes:02x?}: {theirs:?}");
        }
    }
}

/// Bytes that `mqttbytes` 0.6.0 accepts although the standard says otherwise.
#[test]
fn mqttbytes_is_wrong_here() {
    let cases: &[(&str, &[u8])] = &[
        ("MQTT-2.2.2-1: flags of a PUBACK", &[0x4f, 2, 0, 1]),
        ("MQTT-1.5.3-2: U+0000 in a topic", &[0x30, 4, 0, 2, b'a', 0]),
        ("MQTT-3.3.1-2: DUP at QoS 0", &[0x38, 4, 0, 1, b't', b'x']),
        ("MQTT-3.3.2-2: a wildcard in a topic name", &[0x30, 4, 0, 1, b'#', b'x']),
        ("MQTT-3.8.1-1: flags of a SUBSCRIBE", &[0x80, 6, 0, 1, 0, 1, b't', 0]),
        ("MQTT-4.7.1-2: # inside a filter", &[0x82, 9, 0, 1, 0, 4, b'a', b'/', b'#', b'b', 0]),
    ];
    for (case, bytes) in cases {
        assert_eq!(decode(bytes, Version::V4), None, "{case}");
        let theirs = v4::read(&mut BytesMut::from(*bytes), 1 << 20);
        assert!(theirs.is_ok(), "{case}: {theirs:?}: take it off the list");
    }
}
