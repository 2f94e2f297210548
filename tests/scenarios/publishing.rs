//! QoS of publication and delivery.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

#[test]
fn mqtt5_3_8_4_8_the_delivery_qos_is_the_lower_of_published_and_granted() {
    for upgrade in [false, true] {
        let settings = Settings { upgrade_qos: upgrade, ..Settings::default() };
        let mut sim = Sim::new(1, settings);
        for granted in 0..=2u8 {
            let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
            subscriber.send(&mut sim, Subscribing::to("t", granted).v5());
            let _ = subscriber.take();
            let publisher = Client::online(&mut sim, &Connecting::v5("p"));
            publisher.send(&mut sim, Publishing::q0("t", "x").v5());
            publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
            publisher.send(&mut sim, Publishing::q2("t", "x", 2).v5());
            for (published, text) in (0u8..).zip(subscriber.take()) {
                let expected = if upgrade { granted } else { published.min(granted) };
                let found =
                    if text.contains(" q1 ") { 1 } else { 2 * u8::from(text.contains(" q2 ")) };
                assert_eq!(found, expected, "{text}");
            }
        }
    }
}

#[test]
fn mqtt5_3_3_1_3_the_publishers_dup_is_not_passed_on() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 1).v5());
    client.send(&mut sim, Publishing::q1("t", "x", 1).dup().v5());
    assert!(client.take().contains(&"PUBLISH t \"x\" q1 id=1".to_owned()));
}

#[test]
fn mqtt5_4_3_2_5_a_used_identifier_is_a_new_message_after_its_puback() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 0).v5());
    for _ in 0..2 {
        client.send(&mut sim, Publishing::q1("t", "x", 1).dup().v5());
    }
    let texts = client.take();
    assert_eq!(texts.iter().filter(|text| text.starts_with("PUBLISH")).count(), 2);
}

#[test]
fn messages_of_every_version_reach_every_version() {
    let mut sim = Sim::new(2, Settings::default());
    let clients = [Connecting::v3("3"), Connecting::v4("4"), Connecting::v5("5")]
        .map(|connecting| Client::online(&mut sim, &connecting));
    clients[0].send(&mut sim, Subscribing::to("t", 1).v4());
    clients[1].send(&mut sim, Subscribing::to("t", 1).v4());
    clients[2].send(&mut sim, Subscribing::to("t", 1).v5());
    for client in &clients {
        let _ = client.take();
    }
    clients[0].send(&mut sim, Publishing::q1("t", "from 3.1", 1).v4());
    clients[2].send(&mut sim, Publishing::q1("t", "from 5.0", 1).v5());
    for client in &clients {
        let texts = client.take();
        assert!(texts.contains(&"PUBLISH t \"from 3.1\" q1 id=1".to_owned()), "{texts:?}");
        assert!(texts.contains(&"PUBLISH t \"from 5.0\" q1 id=2".to_owned()), "{texts:?}");
    }
}
