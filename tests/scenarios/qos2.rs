//! Exactly once, in both directions.

use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, pubcomp, pubrec, pubrel};

#[test]
fn mqtt5_4_3_3_10_a_repeated_publish_before_pubrel_is_answered_and_delivered_once() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q2("t", "x", 7).v5());
    publisher.send(&mut sim, Publishing::q2("t", "x", 7).dup().v5());
    assert_eq!(publisher.take(), ["PUBREC 7", "PUBREC 7"]);
    assert_eq!(subscriber.take(), ["SUBACK 1 [00]", "PUBLISH t \"x\""]);
}

#[test]
fn mqtt5_4_3_3_10_a_repetition_after_a_reconnect_is_still_recognised() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p").expiry(60));
    publisher.send(&mut sim, Publishing::q2("t", "x", 7).v5());
    publisher.drop_connection(&mut sim);
    let publisher = Client::connect(&mut sim, &Connecting::v5("p").resume().expiry(60));
    publisher.send(&mut sim, Publishing::q2("t", "x", 7).dup().v5());
    publisher.send(&mut sim, pubrel(7));
    let answers = publisher.take();
    assert!(answers[0].starts_with("CONNACK Success present"), "{answers:?}");
    assert_eq!(answers[1..], ["PUBREC 7", "PUBCOMP 7"]);
    assert_eq!(subscriber.take(), ["SUBACK 1 [00]", "PUBLISH t \"x\""]);
}

#[test]
fn mqtt5_4_3_3_12_after_pubcomp_the_identifier_begins_a_new_message() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for payload in ["one", "two"] {
        publisher.send(&mut sim, Publishing::q2("t", payload, 7).v5());
        publisher.send(&mut sim, pubrel(7));
    }
    assert_eq!(publisher.take(), ["PUBREC 7", "PUBCOMP 7", "PUBREC 7", "PUBCOMP 7"]);
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"one\"", "PUBLISH t \"two\""]);
}

#[test]
fn mqtt5_3_6_2_1_a_pubrel_nobody_knows_gets_packet_identifier_not_found() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, pubrel(9));
    assert_eq!(client.take(), ["PUBCOMP 9 PacketIdentifierNotFound"]);
}

#[test]
fn mqtt5_4_3_3_4_the_broker_releases_what_was_received_and_never_publishes_again() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s").expiry(60));
    subscriber.send(&mut sim, Subscribing::to("t", 2).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q2("t", "x", 1).v5());
    publisher.send(&mut sim, pubrel(1));
    assert_eq!(subscriber.take(), ["SUBACK 1 [02]", "PUBLISH t \"x\" q2 id=1"]);
    subscriber.send(&mut sim, pubrec(1));
    assert_eq!(subscriber.take(), ["PUBREL 1"]);
    subscriber.drop_connection(&mut sim);
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume().expiry(60));
    assert_eq!(subscriber.take()[1..], ["PUBREL 1"]);
    subscriber.send(&mut sim, pubcomp(1));
    subscriber.drop_connection(&mut sim);
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert_eq!(subscriber.take().len(), 1, "nothing is left to finish");
    assert_eq!(sim.messages_held(), 0);
}
