//! Overlapping subscriptions and their identifiers.

use dunlin::worker::{OverlapPolicy, Settings};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn overlapping(sim: &mut Sim) -> (Client, Client) {
    let subscriber = Client::online(sim, &Connecting::v5("s"));
    subscriber.send(sim, Subscribing::to("t/#", 2).identifier(10).v5());
    subscriber.send(sim, Subscribing::to("t/+", 1).identifier(20).v5());
    subscriber.send(sim, Subscribing::to("t/a", 0).v5());
    let _ = subscriber.take();
    let publisher = Client::online(sim, &Connecting::v5("p"));
    publisher.send(sim, Publishing::q2("t/a", "x", 1).v5());
    (subscriber, publisher)
}

#[test]
fn mqtt5_3_3_4_4_one_copy_at_the_highest_qos_carries_every_identifier() {
    let mut sim = Sim::default();
    let (subscriber, _publisher) = overlapping(&mut sim);
    let texts = subscriber.take();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].starts_with("PUBLISH t/a \"x\" q2 id=1 ["), "{texts:?}");
    for identifier in ["SubscriptionIdentifier(10)", "SubscriptionIdentifier(20)"] {
        assert!(texts[0].contains(identifier), "{texts:?}");
    }
}

#[test]
fn mqtt5_3_3_4_5_separate_copies_each_carry_their_own_identifier() {
    let settings = Settings { overlap: OverlapPolicy::Separate, ..Settings::default() };
    let mut sim = Sim::new(1, settings);
    let (subscriber, _publisher) = overlapping(&mut sim);
    let mut texts = subscriber.take();
    texts.sort();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[0], "PUBLISH t/a \"x\"");
    assert!(texts.iter().any(|t| t.ends_with("[SubscriptionIdentifier(10)]") && t.contains("q2")));
    assert!(texts.iter().any(|t| t.ends_with("[SubscriptionIdentifier(20)]") && t.contains("q1")));
}

#[test]
fn mqtt5_3_3_4_3_a_retained_message_carries_the_identifier_too() {
    let mut sim = Sim::default();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q0("t", "x").retain().v5());
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 0).identifier(268_435_455).v5());
    assert_eq!(
        subscriber.take()[1..],
        ["PUBLISH t \"x\" retain [SubscriptionIdentifier(268435455)]"]
    );
}

#[test]
fn mqtt5_3_3_4_3_a_clients_identifiers_are_its_own() {
    let mut sim = Sim::default();
    let (_subscriber, publisher) = overlapping(&mut sim);
    let other = Client::online(&mut sim, &Connecting::v5("other"));
    other.send(&mut sim, Subscribing::to("t/a", 0).identifier(99).v5());
    publisher.send(&mut sim, Publishing::q0("t/a", "y").v5());
    assert_eq!(other.take()[1..], ["PUBLISH t/a \"y\" [SubscriptionIdentifier(99)]"]);
}

#[test]
fn mqtt5_3_8_3_3_no_local_of_one_subscription_leaves_the_other_in_force() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t/#", 2).no_local().identifier(1).v5());
    client.send(&mut sim, Subscribing::to("t/a", 0).identifier(2).v5());
    let _ = client.take();
    client.send(&mut sim, Publishing::q0("t/a", "x").v5());
    client.send(&mut sim, Publishing::q0("t/b", "x").v5());
    assert_eq!(client.take(), ["PUBLISH t/a \"x\" [SubscriptionIdentifier(2)]"]);
}
