//! The client's Maximum Packet Size.

use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback};

#[test]
fn mqtt5_3_1_2_25_a_message_too_large_for_a_client_counts_as_delivered() {
    let mut sim = Sim::default();
    let connecting =
        Connecting::v5("s").with(Property::MaximumPacketSize(60)).with(Property::ReceiveMaximum(1));
    let subscriber = Client::online(&mut sim, &connecting);
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", &"x".repeat(100), 1).v5());
    publisher.send(&mut sim, Publishing::q1("t", "small", 2).v5());
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"small\" q1 id=1"]);
    subscriber.send(&mut sim, puback(1));
    assert_eq!(sim.messages_held(), 0);
}

#[test]
fn mqtt5_3_1_2_24_a_resent_publication_is_measured_against_the_new_connection() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s").expiry(100));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", &"x".repeat(100), 1).v5());
    publisher.send(&mut sim, Publishing::q1("t", "small", 2).v5());
    subscriber.drop_connection(&mut sim);
    let smaller = Connecting::v5("s").resume().with(Property::MaximumPacketSize(60));
    let subscriber = Client::connect(&mut sim, &smaller);
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"small\" q1 id=2 dup"]);
    subscriber.send(&mut sim, puback(2));
    assert_eq!(sim.messages_held(), 0);
}

#[test]
fn mqtt5_3_1_2_25_in_a_share_group_another_member_gets_what_is_too_large_for_one() {
    let mut sim = Sim::default();
    let small = Connecting::v5("small").with(Property::MaximumPacketSize(60));
    let small = Client::online(&mut sim, &small);
    let large = Client::online(&mut sim, &Connecting::v5("large"));
    for member in [&small, &large] {
        member.send(&mut sim, Subscribing::to("$share/g/t", 0).v5());
        assert_eq!(member.take(), ["SUBACK 1 [00]"]);
    }
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for _ in 0..4 {
        publisher.send(&mut sim, Publishing::q0("t", &"x".repeat(100)).v5());
    }
    assert_eq!(large.take(), ["PUBLISH t 100 bytes"; 4]);
    assert!(small.take().is_empty());
}
