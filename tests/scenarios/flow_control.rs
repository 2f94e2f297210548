//! Receive Maximum, both ways.

use dunlin::worker::Settings;
use dunlin_packets::{Ack, AckKind, Property, ReasonCode, Version};
use dunlin_tests::{
    Client, Connecting, Publishing, Sim, Subscribing, puback, pubcomp, pubrec, unsubscribe,
};

fn small_window(sim: &mut Sim, qos: u8) -> (Client, Client) {
    let connecting = Connecting::v5("s").with(Property::ReceiveMaximum(1));
    let subscriber = Client::online(sim, &connecting);
    subscriber.send(sim, Subscribing::to("t", qos).v5());
    let publisher = Client::online(sim, &Connecting::v5("p"));
    for (id, payload) in [(1, "a"), (2, "b")] {
        publisher.send(sim, Publishing::q2("t", payload, id).v5());
    }
    (subscriber, publisher)
}

#[test]
fn mqtt5_3_3_4_9_deliveries_in_flight_never_exceed_the_clients_maximum() {
    let mut sim = Sim::default();
    let (subscriber, _publisher) = small_window(&mut sim, 1);
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"a\" q1 id=1"]);
    subscriber.send(&mut sim, puback(1));
    assert_eq!(subscriber.take(), ["PUBLISH t \"b\" q1 id=2"]);
}

#[test]
fn mqtt5_4_9_0_3_at_quota_0_everything_but_publish_still_flows() {
    let mut sim = Sim::default();
    let (subscriber, _publisher) = small_window(&mut sim, 1);
    let _ = subscriber.take();
    subscriber.send(&mut sim, [0xc0, 0]);
    subscriber.send(&mut sim, Subscribing::to("u", 0).id(2).v5());
    subscriber.send(&mut sim, unsubscribe(3, &["u"]));
    assert_eq!(subscriber.take(), ["PINGRESP", "SUBACK 2 [00]", "UNSUBACK 3 [00]"]);
}

#[test]
fn mqtt5_4_9_0_2_a_pubrec_with_an_error_frees_its_place() {
    let mut sim = Sim::default();
    let (subscriber, _publisher) = small_window(&mut sim, 2);
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"a\" q2 id=1"]);
    let mut refusal = Vec::new();
    let id = 1.try_into().expect("not 0");
    Ack { code: ReasonCode::QuotaExceeded, ..Ack::new(AckKind::PubRec, id) }
        .encode(Version::V5, &mut refusal);
    subscriber.send(&mut sim, refusal);
    assert_eq!(subscriber.take(), ["PUBLISH t \"b\" q2 id=2"]);
    assert_eq!(sim.stats().dropped.iter().sum::<u64>(), 1, "counted as refused");
}

#[test]
fn mqtt5_4_9_0_2_a_qos_2_delivery_keeps_its_place_until_pubcomp() {
    let mut sim = Sim::default();
    let (subscriber, _publisher) = small_window(&mut sim, 2);
    subscriber.send(&mut sim, pubrec(1));
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"a\" q2 id=1", "PUBREL 1"]);
    subscriber.send(&mut sim, pubcomp(1));
    assert_eq!(subscriber.take(), ["PUBLISH t \"b\" q2 id=2"]);
}

#[test]
fn mqtt5_3_3_4_7_a_client_above_our_maximum_is_disconnected_with_0x93() {
    let mut settings = Settings::default();
    settings.limits.receive_maximum = 2;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5("c"));
    assert!(client.take()[0].contains("ReceiveMaximum(2)"));
    for id in 1..=3 {
        client.send(&mut sim, Publishing::q2("t", "x", id).v5());
    }
    let texts = client.take();
    assert_eq!(texts[2..], ["DISCONNECT ReceiveMaximumExceeded", "CLOSED"]);
    assert!(texts[..2].iter().all(|text| text.starts_with("PUBREC")), "{texts:?}");
}

#[test]
fn mqtt5_3_3_4_7_a_repetition_does_not_count_against_our_maximum() {
    let mut settings = Settings::default();
    settings.limits.receive_maximum = 1;
    let mut sim = Sim::new(1, settings);
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    for _ in 0..3 {
        client.send(&mut sim, Publishing::q2("t", "x", 1).dup().v5());
    }
    assert_eq!(client.take().len(), 3);
    assert!(!client.is_closed());
}
