//! Message expiry.

use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, pubrec, pubrel};

fn expiring(topic: &'static str, payload: &'static str, seconds: u32) -> Publishing<'static> {
    Publishing::q1(topic, payload, 1).with(Property::MessageExpiryInterval(seconds))
}

#[test]
fn mqtt5_3_3_2_5_what_expires_in_the_queue_is_not_delivered() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s").expiry(600));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    subscriber.drop_connection(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, expiring("t", "short", 5).v5());
    publisher.send(&mut sim, expiring("t", "long", 50).v5());
    sim.advance_s(10);
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"long\" q1 id=1 [MessageExpiryInterval(40)]"]);
}

#[test]
fn mqtt5_3_3_2_6_the_interval_is_passed_on_less_the_time_waited() {
    let mut sim = Sim::default();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, expiring("t", "x", 100).retain().v5());
    sim.advance_s(30);
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"x\" retain [MessageExpiryInterval(70)]"]);
    sim.advance_s(75);
    subscriber.send(&mut sim, Subscribing::to("t", 0).v5());
    assert_eq!(subscriber.take(), ["SUBACK 1 [00]"]);
    assert_eq!(sim.messages_held(), 0, "the sweep has deleted it");
}

#[test]
fn mqtt5_4_3_3_7_what_was_sent_once_no_longer_expires() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s").expiry(600));
    subscriber.send(&mut sim, Subscribing::to("t", 2).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let publish = Publishing::q2("t", "x", 1).with(Property::MessageExpiryInterval(5));
    publisher.send(&mut sim, publish.v5());
    assert_eq!(subscriber.take().len(), 2);
    subscriber.drop_connection(&mut sim);
    sim.advance_s(10);
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"x\" q2 id=1 dup [MessageExpiryInterval(0)]"]);
    subscriber.send(&mut sim, pubrec(1));
    assert_eq!(subscriber.take(), ["PUBREL 1"]);
}

#[test]
fn mqtt5_4_3_3_13_the_handshake_with_the_publisher_ends_though_the_message_expired() {
    let mut sim = Sim::default();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let publish = Publishing::q2("t", "x", 1).with(Property::MessageExpiryInterval(1));
    publisher.send(&mut sim, publish.v5());
    sim.advance_s(5);
    publisher.send(&mut sim, pubrel(1));
    assert_eq!(publisher.take(), ["PUBREC 1 NoMatchingSubscribers", "PUBCOMP 1"]);
}
