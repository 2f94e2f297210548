//! What an acknowledgement says.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback, pubcomp};

#[test]
fn section_3_4_2_1_no_matching_subscribers_is_only_said_when_it_is_true_broker_wide() {
    let mut sim = Sim::new(4, Settings::default());
    let publishers: Vec<_> = ["a", "b", "c", "d", "e"]
        .iter()
        .map(|name| Client::online(&mut sim, &Connecting::v5(name)))
        .collect();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    for publisher in &publishers {
        publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
        publisher.send(&mut sim, Publishing::q2("t", "x", 2).v5());
        let expected = ["PUBACK 1 NoMatchingSubscribers", "PUBREC 2 NoMatchingSubscribers"];
        assert_eq!(publisher.take(), expected);
    }
    subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
    for publisher in &publishers {
        publisher.send(&mut sim, Publishing::q1("t", "x", 3).v5());
        assert_eq!(publisher.take(), ["PUBACK 3"]);
    }
}

#[test]
fn the_brokers_own_topics_cannot_be_published_to() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("$SYS/#", 0).v5());
    client.send(&mut sim, Publishing::q1("$SYS/broker/uptime", "0", 1).retain().v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]", "PUBACK 1 NotAuthorized"]);
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    old.send(&mut sim, Publishing::q1("$SYS/broker/uptime", "0", 1).v4());
    assert_eq!(old.take(), ["PUBACK 1"], "before 5.0 there is no way to say no");
}

#[test]
fn acknowledgements_for_nothing_do_no_harm() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, puback(5));
    client.send(&mut sim, pubcomp(5));
    client.send(&mut sim, [0xc0, 0]);
    assert_eq!(client.take(), ["PINGRESP"]);
}

#[test]
fn an_acknowledgement_of_another_qos_is_a_protocol_error() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 2).v5());
    client.send(&mut sim, Publishing::q2("t", "x", 1).v5());
    let _ = client.take();
    client.send(&mut sim, puback(1));
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
}
