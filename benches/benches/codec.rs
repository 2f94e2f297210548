//! The codec: each type of packet, decoded and encoded, in 3.1.1 and 5.0, there also with properties.
//!
//! The Go broker's report has no figure for it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dunlin_packets::{
    Ack, AckKind, Auth, ConnAck, Delivery, Disconnect, Frame, Packet, PacketId, Properties,
    PropertiesBuf, Property, Publish, QoS, ReasonCode, SubAck, UnsubAck, Unsubscribe, VARINT_MAX,
    Version,
};
use dunlin_tests::{Connecting, Publishing, Subscribing};

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

/// A packet of each type, as bytes.
fn packets(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let id = PacketId::MIN;
    let payload = [b'x'; 100];
    let is_v5 = version == Version::V5;
    let connecting = if is_v5 { Connecting::v5("device-42") } else { Connecting::v4("device-42") };
    let connecting = connecting.login(Some("user"), Some(b"password"));
    let connecting = connecting.will("device/42/status", "offline", 1, true);
    let connecting = if is_v5 { connecting.expiry(3600) } else { connecting };
    let publishing = Publishing::q1("site/7/device/42", &payload, 7);
    let plain = publishing.bytes_for(version);
    let properties = Properties::default();
    let connack = ConnAck { session_present: false, code: ReasonCode::Success, properties };
    let suback = SubAck { packet_id: id, properties, codes: &[0, 1, 2] };
    let unsuback = UnsubAck { packet_id: id, properties, codes: if is_v5 { &[0] } else { &[] } };
    let subscribing = Subscribing::to("site/+/device/#", 1).and("a/b", 0).and("c", 2);
    let mut unsubscribe = Vec::new();
    Unsubscribe::encode(version, id, properties, &["site/+/device/#"], &mut unsubscribe);
    let disconnect = Disconnect { code: ReasonCode::Success, properties };
    let mut all = vec![
        ("CONNECT", connecting.bytes()),
        ("CONNACK", encoded(&Packet::ConnAck(connack), version)),
        ("PUBLISH", plain),
        ("PUBACK", encoded(&Packet::Ack(Ack::new(AckKind::PubAck, id)), version)),
        ("PUBREC", encoded(&Packet::Ack(Ack::new(AckKind::PubRec, id)), version)),
        ("PUBREL", encoded(&Packet::Ack(Ack::new(AckKind::PubRel, id)), version)),
        ("PUBCOMP", encoded(&Packet::Ack(Ack::new(AckKind::PubComp, id)), version)),
        ("SUBSCRIBE", subscribing.bytes_for(version)),
        ("SUBACK", encoded(&Packet::SubAck(suback), version)),
        ("UNSUBSCRIBE", unsubscribe),
        ("UNSUBACK", encoded(&Packet::UnsubAck(unsuback), version)),
        ("PINGREQ", encoded(&Packet::PingReq, version)),
        ("PINGRESP", encoded(&Packet::PingResp, version)),
        ("DISCONNECT", encoded(&Packet::Disconnect(disconnect), version)),
    ];
    if is_v5 {
        let with_properties = publishing
            .with(Property::ContentType("application/json"))
            .with(Property::ResponseTopic("answers/42"))
            .with(Property::UserProperty("unit", "K"))
            .with(Property::UserProperty("site", "7"));
        all.push(("PUBLISH with 4 properties", with_properties.v5()));
        all.extend(answers_with_properties());
    }
    all
}

/// What says more than that all is well.
fn answers_with_properties() -> Vec<(&'static str, Vec<u8>)> {
    let id = PacketId::MIN;
    let mut reason = PropertiesBuf::new();
    reason.push(Property::ReasonString("no room: 100,000 messages wait"));
    let mut granted = PropertiesBuf::new();
    granted.push(Property::ReceiveMaximum(1000));
    granted.push(Property::TopicAliasMaximum(16));
    granted.push(Property::AssignedClientIdentifier("auto-7f3a"));
    let mut method = PropertiesBuf::new();
    method.push(Property::AuthenticationMethod("SCRAM-SHA-256"));
    method.push(Property::AuthenticationData(&[7; 64]));
    let (reason, granted, method) =
        (reason.as_properties(), granted.as_properties(), method.as_properties());
    let (code, properties) = (ReasonCode::QuotaExceeded, reason);
    let ack = Ack { kind: AckKind::PubAck, packet_id: id, code, properties };
    let connack = ConnAck { session_present: true, code: ReasonCode::Success, properties: granted };
    let suback = SubAck { packet_id: id, properties: reason, codes: &[0, 1, 0x97] };
    let auth = Auth { code: ReasonCode::ContinueAuthentication, properties: method };
    let packets = [
        ("CONNACK with 3 properties", Packet::ConnAck(connack)),
        ("PUBACK with a reason", Packet::Ack(ack)),
        ("SUBACK with a reason", Packet::SubAck(suback)),
        ("DISCONNECT with a reason", Packet::Disconnect(Disconnect { code, properties })),
        ("AUTH", Packet::Auth(auth)),
    ];
    packets.map(|(name, packet)| (name, encoded(&packet, Version::V5))).into()
}

fn codec(criterion: &mut Criterion) {
    for version in [Version::V4, Version::V5] {
        let mut group = criterion.benchmark_group(format!("codec/{}", version.name()));
        for (name, bytes) in packets(version) {
            group.bench_function(BenchmarkId::new("decode", name), |bencher| {
                bencher.iter(|| {
                    let split = Frame::split(black_box(&bytes), VARINT_MAX as usize, version);
                    let (frame, _) = split.expect("a frame").expect("all of it");
                    black_box(Packet::decode(&frame, version).expect("a packet"));
                });
            });
            let split = Frame::split(&bytes, VARINT_MAX as usize, version);
            let (frame, _) = split.expect("a frame").expect("all of it");
            let packet = Packet::decode(&frame, version).expect("a packet");
            let mut out = Vec::with_capacity(1024);
            group.bench_function(BenchmarkId::new("encode", name), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    black_box(&packet).encode(version, &mut out);
                    black_box(out.len())
                });
            });
        }
        group.finish();
    }
}

/// A PUBLISH as the broker composes it for a subscriber, from the bytes of a stored message.
fn delivery(criterion: &mut Criterion) {
    let delivery = Delivery {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: b"site/7/device/42",
        packet_id: Some(PacketId::MIN),
        topic_alias: None,
        message_expiry_s: Some(60),
        identifiers: &[7],
        forwarded: &[],
    };
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "site/7/device/42",
        packet_id: None,
        properties: Properties::default(),
        payload: &[b'x'; 100],
    };
    let mut out = Vec::with_capacity(1024);
    criterion.bench_function("codec/delivery, 5.0 with expiry and identifier", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&delivery).encode(Version::V5, 100, &mut out);
            black_box(out.len())
        });
    });
    criterion.bench_function("codec/publish, 3.1.1 QoS 0 with 100 bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&publish).encode(Version::V4, &mut out);
            black_box(out.len())
        });
    });
}

criterion_group!(benches, codec, delivery);
criterion_main!(benches);
