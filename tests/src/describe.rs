//! Packets as text, to compare with what a test expects.

use std::fmt::Write;

use dunlin_packets::{Ack, Packet, Properties, Publish, ReasonCode};

/// One line for a packet, such as `PUBLISH a/b "x" q1 id=1 dup [SubscriptionIdentifier(3)]`.
#[must_use]
pub fn describe(packet: &Packet<'_>) -> String {
    match packet {
        Packet::ConnAck(connack) => {
            let present = if connack.session_present { " present" } else { "" };
            with(format!("CONNACK {:?}{present}", connack.code), connack.properties)
        }
        Packet::Publish(publish) => describe_publish(publish),
        Packet::Ack(ack) => describe_ack(ack),
        Packet::SubAck(suback) => {
            with(format!("SUBACK {} {:02x?}", suback.packet_id, suback.codes), suback.properties)
        }
        Packet::UnsubAck(unsuback) => with(
            format!("UNSUBACK {} {:02x?}", unsuback.packet_id, unsuback.codes),
            unsuback.properties,
        ),
        Packet::PingResp => "PINGRESP".into(),
        // The reason string is for people: a test looks at the code.
        Packet::Disconnect(disconnect) => format!("DISCONNECT {:?}", disconnect.code),
        Packet::Auth(auth) => with(format!("AUTH {:?}", auth.code), auth.properties),
        other => format!("{other:?}"),
    }
}

fn describe_publish(publish: &Publish<'_>) -> String {
    let payload = String::from_utf8_lossy(publish.payload);
    let mut text = match payload.len() {
        0..=64 => format!("PUBLISH {} {payload:?}", publish.topic),
        len => format!("PUBLISH {} {len} bytes", publish.topic),
    };
    if let Some(id) = publish.packet_id {
        let _ = write!(text, " q{} id={id}", publish.qos as u8);
    }
    if publish.dup {
        text.push_str(" dup");
    }
    if publish.retain {
        text.push_str(" retain");
    }
    with(text, publish.properties)
}

fn describe_ack(ack: &Ack<'_>) -> String {
    let name = format!("{:?}", ack.kind).to_uppercase();
    let mut text = format!("{name} {}", ack.packet_id);
    if ack.code != ReasonCode::Success {
        let _ = write!(text, " {:?}", ack.code);
    }
    with(text, ack.properties)
}

fn with(mut text: String, properties: Properties<'_>) -> String {
    if properties.is_empty() {
        return text;
    }
    let properties: Vec<_> = properties.iter().map(|property| format!("{property:?}")).collect();
    let _ = write!(text, " [{}]", properties.join(", "));
    text
}
