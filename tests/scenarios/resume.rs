//! What a resumed session sends again, and when.

use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback};

/// A persistent subscriber with three deliveries in flight, whose connection has just broken.
fn three_in_flight(sim: &mut Sim) {
    let subscriber = Client::online(sim, &Connecting::v5("s").expiry(600));
    subscriber.send(sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(sim, &Connecting::v5("p"));
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
        publisher.send(sim, Publishing::q1("t", payload, id).v5());
    }
    assert_eq!(subscriber.take().len(), 4);
    subscriber.drop_connection(sim);
}

#[test]
fn mqtt5_4_4_0_1_unacknowledged_publishes_come_again_with_dup_and_their_identifiers() {
    let mut sim = Sim::default();
    three_in_flight(&mut sim);
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume().expiry(600));
    assert_eq!(
        subscriber.take()[1..],
        [
            "PUBLISH t \"a\" q1 id=1 dup",
            "PUBLISH t \"b\" q1 id=2 dup",
            "PUBLISH t \"c\" q1 id=3 dup"
        ]
    );
}

#[test]
fn mqtt5_4_4_0_1_nothing_is_sent_again_while_the_connection_lasts() {
    let mut sim = Sim::default();
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
    assert_eq!(subscriber.take().len(), 2);
    sim.advance_s(3600);
    assert!(subscriber.take().is_empty());
}

#[test]
fn mqtt5_4_9_0_1_the_quota_begins_again_with_the_new_receive_maximum() {
    let mut sim = Sim::default();
    three_in_flight(&mut sim);
    let resumed = Connecting::v5("s").resume().expiry(600).with(Property::ReceiveMaximum(1));
    let subscriber = Client::connect(&mut sim, &resumed);
    assert_eq!(subscriber.take()[1..], ["PUBLISH t \"a\" q1 id=1 dup"]);
    subscriber.send(&mut sim, puback(1));
    assert_eq!(subscriber.take(), ["PUBLISH t \"b\" q1 id=2 dup"]);
    subscriber.send(&mut sim, puback(2));
    assert_eq!(subscriber.take(), ["PUBLISH t \"c\" q1 id=3 dup"]);
}

#[test]
fn mqtt5_4_6_0_5_what_came_offline_follows_what_is_sent_again() {
    let mut sim = Sim::default();
    three_in_flight(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "d", 4).v5());
    let subscriber = Client::connect(&mut sim, &Connecting::v5("s").resume().expiry(600));
    let texts = subscriber.take();
    assert_eq!(texts[4], "PUBLISH t \"d\" q1 id=4");
    assert_eq!(texts.len(), 5);
}

#[test]
fn mqtt311_4_4_0_1_a_persistent_session_of_3_1_1_resends_as_well() {
    let mut sim = Sim::default();
    let mut subscriber = Client::online(&mut sim, &Connecting::v4("s").resume());
    subscriber.send(&mut sim, Subscribing::to("t", 1).v4());
    let publisher = Client::online(&mut sim, &Connecting::v4("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v4());
    subscriber.drop_connection(&mut sim);
    subscriber = Client::connect(&mut sim, &Connecting::v4("s").resume());
    assert_eq!(subscriber.take(), ["CONNACK Success present", "PUBLISH t \"x\" q1 id=1 dup"]);
}

#[test]
fn mqtt5_3_3_1_1_a_publication_is_sent_again_without_a_topic_alias_of_the_old_connection() {
    let mut sim = Sim::default();
    let with_aliases =
        || Connecting::v5("s").resume().expiry(600).with(Property::TopicAliasMaximum(5));
    let subscriber = Client::online(&mut sim, &with_aliases());
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "a", 1).v5());
    publisher.send(&mut sim, Publishing::q1("t", "b", 2).v5());
    assert_eq!(subscriber.take()[2], "PUBLISH  \"b\" q1 id=2 [TopicAlias(1)]");
    subscriber.drop_connection(&mut sim);
    let subscriber = Client::connect(&mut sim, &with_aliases());
    assert_eq!(subscriber.take()[1], "PUBLISH t \"a\" q1 id=1 dup [TopicAlias(1)]");
}
