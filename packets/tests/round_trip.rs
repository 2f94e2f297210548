//! What is written is what is read: every packet, every property, every version; and whatever
//! bytes come, reading them neither panics nor reads what is not there.

use dunlin_packets::{
    Ack, AckKind, Auth, ConnAck, Connect, Disconnect, FilterRequest, Frame, Packet, PacketId,
    PropertiesBuf, Property, Publish, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscriptionOptions, UnsubAck, Unsubscribe, VARINT_MAX, Version, Will,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMIT: usize = VARINT_MAX as usize + 5;

/// Decodes, and checks that nothing of it is lost when it is encoded again.
fn assert_round_trip(version: Version, bytes: &[u8]) {
    let (frame, len) = Frame::split(bytes, LIMIT, version).expect("well formed").expect("complete");
    assert_eq!(len, bytes.len());
    for end in 0..bytes.len().min(64) {
        let cut = Frame::split(&bytes[..end], LIMIT, version).expect("well formed so far");
        assert_eq!(cut, None, "a part is not a packet");
    }
    let packet = Packet::decode(&frame, version).expect("valid");
    let mut again = Vec::new();
    packet.encode(version, &mut again);
    assert_eq!(again, bytes, "{packet:?}");
}

fn encoded(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3), Just(Version::V4), Just(Version::V5)]
}

fn any_qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn any_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0"))
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>().prop_filter("no U+0000", |c| *c != '\0'), 0..12)
        .prop_map(|chars| chars.into_iter().collect())
}

fn topic() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("t{}", text.replace(['+', '#'], "/")))
}

fn filter() -> impl Strategy<Value = String> {
    (topic(), prop_oneof![Just(""), Just("/#"), Just("/+"), Just("/+/x/#")])
        .prop_map(|(topic, end)| format!("{topic}{end}"))
}

/// User properties and, in the places that have them, the properties of messages.
fn message_properties() -> impl Strategy<Value = PropertiesBuf> {
    let parts = (
        any::<Option<bool>>(),
        any::<Option<u32>>(),
        proptest::option::of(text()),
        proptest::option::of(topic()),
        proptest::option::of(vec(any::<u8>(), 0..20)),
        vec((text(), text()), 0..4),
    );
    parts.prop_map(|(format, expiry, content, response, correlation, users)| {
        let mut properties = PropertiesBuf::new();
        for (key, value) in &users {
            properties.push(Property::UserProperty(key, value));
        }
        if let Some(format) = format {
            properties.push(Property::PayloadFormatIndicator(format));
        }
        if let Some(expiry) = expiry {
            properties.push(Property::MessageExpiryInterval(expiry));
        }
        if let Some(content) = &content {
            properties.push(Property::ContentType(content));
        }
        if let Some(response) = &response {
            properties.push(Property::ResponseTopic(response));
        }
        if let Some(correlation) = &correlation {
            properties.push(Property::CorrelationData(correlation));
        }
        properties
    })
}

fn answer_properties() -> impl Strategy<Value = PropertiesBuf> {
    (proptest::option::of(text()), vec((text(), text()), 0..3)).prop_map(|(reason, users)| {
        let mut properties = PropertiesBuf::new();
        if let Some(reason) = &reason {
            properties.push(Property::ReasonString(reason));
        }
        for (key, value) in &users {
            properties.push(Property::UserProperty(key, value));
        }
        properties
    })
}

/// Only 5.0 has properties.
fn for_version(version: Version, properties: &PropertiesBuf) -> PropertiesBuf {
    if version == Version::V5 { properties.clone() } else { PropertiesBuf::new() }
}

proptest! {
    #[test]
    fn publish(
        version in any_version(), qos in any_qos(), dup in any::<bool>(), retain in any::<bool>(),
        topic in topic(), id in any_id(), properties in message_properties(),
        payload in vec(any::<u8>(), 0..300), alias in any::<Option<u16>>(),
    ) {
        let mut properties = for_version(version, &properties);
        if let Some(alias) = alias.filter(|alias| *alias > 0 && version == Version::V5) {
            properties.push(Property::TopicAlias(alias));
            properties.push(Property::SubscriptionIdentifier(1));
            properties.push(Property::SubscriptionIdentifier(VARINT_MAX));
        }
        let packet = Packet::Publish(Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: &topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            properties: properties.as_properties(),
            payload: &payload,
        });
        assert_round_trip(version, &encoded(version, &packet));
    }

    #[test]
    fn connect(
        version in any_version(), clean_start in any::<bool>(), keep_alive_s in any::<u16>(),
        client_id in text(), has_will in any::<bool>(), will_properties in message_properties(),
        topic in topic(), payload in vec(any::<u8>(), 0..50), qos in any_qos(),
        user_name in proptest::option::of(text()), password in vec(any::<u8>(), 0..20),
        expiry in any::<u32>(), maximum in 1..=u16::MAX,
    ) {
        let mut properties = PropertiesBuf::new();
        if version == Version::V5 {
            properties
                .push(Property::SessionExpiryInterval(expiry))
                .push(Property::ReceiveMaximum(maximum))
                .push(Property::MaximumPacketSize(expiry.max(1)))
                .push(Property::TopicAliasMaximum(maximum))
                .push(Property::RequestResponseInformation(clean_start))
                .push(Property::RequestProblemInformation(has_will))
                .push(Property::AuthenticationMethod("method"))
                .push(Property::AuthenticationData(&password));
        }
        let will_properties = for_version(version, &will_properties);
        let packet = Packet::Connect(Connect {
            version, clean_start, keep_alive_s,
            client_id: &client_id,
            properties: properties.as_properties(),
            will: has_will.then(|| Will {
                qos, retain: clean_start, topic: &topic, payload: &payload,
                properties: will_properties.as_properties(),
            }),
            user_name: user_name.as_deref(),
            password: user_name.is_some().then_some(&password[..]),
        });
        assert_round_trip(version, &encoded(version, &packet));
    }

    #[test]
    fn subscribe_and_unsubscribe(
        version in any_version(), id in any_id(), filters in vec((filter(), any_qos()), 1..5),
        identifier in 1..=VARINT_MAX, no_local in any::<bool>(),
    ) {
        let mut properties = PropertiesBuf::new();
        if version == Version::V5 {
            properties.push(Property::SubscriptionIdentifier(identifier));
        }
        let v5 = version == Version::V5;
        let requests: Vec<_> = filters.iter().map(|(filter, qos)| FilterRequest {
            filter,
            options: SubscriptionOptions {
                qos: *qos,
                no_local: no_local && v5,
                retain_as_published: v5,
                retain_handling: if v5 { RetainHandling::IfNew } else { RetainHandling::Always },
            },
        }).collect();
        let mut out = Vec::new();
        Subscribe::encode(version, id, properties.as_properties(), &requests, &mut out);
        assert_round_trip(version, &out);
        let names: Vec<_> = filters.iter().map(|(filter, _)| filter.as_str()).collect();
        let mut out = Vec::new();
        Unsubscribe::encode(version, id, PropertiesBuf::new().as_properties(), &names, &mut out);
        assert_round_trip(version, &out);
    }

    #[test]
    fn answers(version in any_version(), id in any_id(), properties in answer_properties()) {
        let properties = for_version(version, &properties);
        let properties = properties.as_properties();
        let v5 = version == Version::V5;
        for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
            let failed = match kind {
                AckKind::PubAck | AckKind::PubRec => ReasonCode::QuotaExceeded,
                AckKind::PubRel | AckKind::PubComp => ReasonCode::PacketIdentifierNotFound,
            };
            let code = if v5 { failed } else { ReasonCode::Success };
            let ack = Packet::Ack(Ack { kind, packet_id: id, code, properties });
            assert_round_trip(version, &encoded(version, &ack));
            assert_round_trip(version, &encoded(version, &Packet::Ack(Ack::new(kind, id))));
        }
        let suback = SubAck { packet_id: id, properties, codes: &[0, 1, 2, 0x80] };
        assert_round_trip(version, &encoded(version, &Packet::SubAck(suback)));
        let codes: &[u8] = if v5 { &[0, 0x11] } else { &[] };
        let unsuback = UnsubAck { packet_id: id, properties, codes };
        assert_round_trip(version, &encoded(version, &Packet::UnsubAck(unsuback)));
        for code in [ReasonCode::Success, ReasonCode::NotAuthorized] {
            let connack = ConnAck { session_present: false, code, properties };
            assert_round_trip(version, &encoded(version, &Packet::ConnAck(connack)));
        }
        let code = if v5 { ReasonCode::SessionTakenOver } else { ReasonCode::Success };
        let disconnect = Disconnect { code, properties };
        assert_round_trip(version, &encoded(version, &Packet::Disconnect(disconnect)));
        if v5 {
            let auth = Auth { code: ReasonCode::ContinueAuthentication, properties };
            assert_round_trip(version, &encoded(version, &Packet::Auth(auth)));
        }
        assert_round_trip(version, &encoded(version, &Packet::PingReq));
        assert_round_trip(version, &encoded(version, &Packet::PingResp));
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(
        version in any_version(), first in any::<u8>(), body in vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(&body);
        if let Ok(Some((frame, _))) = Frame::split(&bytes, LIMIT, version)
            && let Ok(packet) = Packet::decode(&frame, version)
        {
            let mut out = Vec::new();
            packet.encode(version, &mut out);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_without_a_panic(
        version in any_version(), topic in topic(), properties in message_properties(),
        at in any::<proptest::sample::Index>(), value in any::<u8>(),
    ) {
        let properties = for_version(version, &properties);
        let mut bytes = encoded(version, &Packet::Publish(Publish {
            dup: false, qos: QoS::AtLeastOnce, retain: false, topic: &topic,
            packet_id: PacketId::new(1), properties: properties.as_properties(), payload: b"x",
        }));
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(Some((frame, _))) = Frame::split(&bytes, LIMIT, version) {
            let _ = Packet::decode(&frame, version);
        }
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_are_there() {
    let huge = [0x30, 0xff, 0xff, 0xff, 0x7f];
    let error = Frame::split(&huge, 1 << 20, Version::V5).expect_err("too large");
    assert_eq!(error.code, ReasonCode::PacketTooLarge);
}

#[test]
fn a_property_is_written_the_same_in_every_way() {
    let mut pushed = PropertiesBuf::new();
    pushed.push(Property::UserProperty("offset", "1234")).push(Property::TopicAlias(7));
    let mut written = PropertiesBuf::new();
    written.push_user("left over", "").clear();
    written.push_user("offset", 1234).push(Property::TopicAlias(7));
    assert_eq!(written, pushed);
    let mut copied = PropertiesBuf::new();
    for (_, raw) in pushed.as_properties().iter_raw() {
        copied.push_raw(raw);
    }
    assert_eq!(copied, pushed);
    assert_eq!(
        PropertiesBuf::new().push_user("k", "v".repeat(65_535)).as_properties().iter().count(),
        1
    );
}
