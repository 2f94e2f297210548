//! Topic aliases: two tables, one for each direction.

use dunlin::worker::Settings;
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn watcher(sim: &mut Sim) -> Client {
    let watcher = Client::online(sim, &Connecting::v5("w"));
    watcher.send(sim, Subscribing::to("#", 0).v5());
    let _ = watcher.take();
    watcher
}

#[test]
fn mqtt5_3_3_2_12_every_alias_up_to_our_maximum_is_accepted() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    for alias in 1..=32u16 {
        let topic = format!("topic/{alias}");
        let set = Publishing::q0(&topic, "set").with(Property::TopicAlias(alias));
        client.send(&mut sim, set.v5());
    }
    for alias in [1u16, 32] {
        let used = Publishing::q0("", "used").with(Property::TopicAlias(alias));
        client.send(&mut sim, used.v5());
    }
    let texts = watcher.take();
    assert_eq!(texts[32..], ["PUBLISH topic/1 \"used\"", "PUBLISH topic/32 \"used\""]);
}

#[test]
fn mqtt5_3_2_2_17_an_alias_above_our_maximum_is_0x94() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Publishing::q0("t", "x").with(Property::TopicAlias(33)).v5());
    assert_eq!(client.take(), ["DISCONNECT TopicAliasInvalid", "CLOSED"]);
}

#[test]
fn mqtt5_3_3_2_8_alias_0_is_0x94() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Publishing::q0("t", "x").with(Property::TopicAlias(0)).v5());
    assert_eq!(client.take(), ["DISCONNECT TopicAliasInvalid", "CLOSED"]);
}

#[test]
fn mqtt5_3_2_2_18_without_a_maximum_no_alias_is_accepted_whatever_the_client_allows() {
    let mut settings = Settings::default();
    settings.limits.topic_alias_maximum = 0;
    let mut sim = Sim::new(1, settings);
    let allows = Connecting::v5("c").with(Property::TopicAliasMaximum(10));
    let client = Client::connect(&mut sim, &allows);
    assert!(!client.take()[0].contains("TopicAliasMaximum"));
    client.send(&mut sim, Publishing::q0("t", "x").with(Property::TopicAlias(1)).v5());
    assert_eq!(client.take(), ["DISCONNECT TopicAliasInvalid", "CLOSED"]);
}

#[test]
fn mqtt5_3_3_2_7_an_alias_dies_with_its_connection() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    client.send(&mut sim, Publishing::q0("t", "x").with(Property::TopicAlias(1)).v5());
    client.drop_connection(&mut sim);
    let client = Client::online(&mut sim, &Connecting::v5("c").resume());
    client.send(&mut sim, Publishing::q0("", "x").with(Property::TopicAlias(1)).v5());
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
}

#[test]
fn mqtt5_3_1_2_26_our_aliases_stay_within_the_clients_maximum() {
    let mut sim = Sim::default();
    let connecting = Connecting::v5("s").with(Property::TopicAliasMaximum(1));
    let subscriber = Client::online(&mut sim, &connecting);
    subscriber.send(&mut sim, Subscribing::to("#", 0).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for topic in ["a", "b", "a", "b"] {
        publisher.send(&mut sim, Publishing::q0(topic, "x").v5());
    }
    assert_eq!(
        subscriber.take()[1..],
        [
            "PUBLISH a \"x\" [TopicAlias(1)]",
            "PUBLISH b \"x\"",
            "PUBLISH  \"x\" [TopicAlias(1)]",
            "PUBLISH b \"x\"",
        ]
    );
}

#[test]
fn mqtt5_3_1_2_27_a_client_without_a_maximum_gets_no_aliases() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for _ in 0..2 {
        publisher.send(&mut sim, Publishing::q0("a", "x").v5());
    }
    assert_eq!(watcher.take(), ["PUBLISH a \"x\"", "PUBLISH a \"x\""]);
}
