//! SUBSCRIBE, UNSUBSCRIBE and what is granted.

use dunlin::worker::Settings;
use dunlin_packets::{RetainHandling, Version};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback, unsubscribe};

#[test]
fn mqtt5_3_8_4_6_each_filter_gets_its_code_in_order() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("a", 2).and("b/#", 0).and("$share/g/c", 1).v5());
    assert_eq!(client.take(), ["SUBACK 1 [02, 00, 01]"]);
    client.send(&mut sim, unsubscribe(7, &["b/#", "nothing", "$share/g/c", "$share/g/d"]));
    assert_eq!(client.take(), ["UNSUBACK 7 [00, 11, 00, 11]"]);
}

#[test]
fn mqtt5_3_9_3_2_what_is_switched_off_is_refused_with_its_code() {
    let mut settings = Settings::default();
    settings.limits.wildcards_available = false;
    settings.limits.shared_available = false;
    settings.limits.identifiers_available = false;
    let mut sim = Sim::new(1, settings);
    let client = Client::connect(&mut sim, &Connecting::v5("c"));
    let connack = client.take().remove(0);
    for property in ["Wildcard", "SubscriptionIdentifier", "Shared"] {
        assert!(connack.contains(property), "{connack}");
    }
    client.send(&mut sim, Subscribing::to("a/+", 0).and("$share/g/a", 0).and("a", 0).v5());
    client.send(&mut sim, Subscribing::to("a", 0).identifier(1).id(2).v5());
    assert_eq!(client.take(), ["SUBACK 1 [a2, 9e, 00]", "SUBACK 2 [a1]"]);
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    old.send(&mut sim, Subscribing::to("a/+", 0).v4());
    assert_eq!(old.take(), ["SUBACK 1 [80]"]);
}

#[test]
fn mqtt5_3_8_4_3_subscribing_again_replaces_without_a_gap() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 0).identifier(1).v5());
    client.send(&mut sim, Subscribing::to("t", 1).identifier(2).id(2).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
    assert_eq!(client.take()[2..], ["PUBLISH t \"x\" q1 id=1 [SubscriptionIdentifier(2)]"]);
    assert_eq!(sim.stats().subscriptions, 1);
}

#[test]
fn mqtt5_3_8_4_4_a_subscription_is_effective_on_every_worker_when_the_suback_comes() {
    let mut sim = Sim::new(4, Settings::default());
    let publishers: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .map(|name| Client::online(&mut sim, &Connecting::v5(name)))
        .collect();
    let client = Client::online(&mut sim, &Connecting::v5("s"));
    for (round, filter) in ["t/1", "t/+", "#", "$share/g/t/1"].iter().enumerate() {
        client.send(&mut sim, Subscribing::to(filter, 0).v5());
        assert_eq!(client.take(), ["SUBACK 1 [00]"]);
        for publisher in &publishers {
            publisher.send(&mut sim, Publishing::q0("t/1", "x").v5());
        }
        assert_eq!(client.take().len(), publishers.len(), "round {round}");
        client.send(&mut sim, unsubscribe(1, &[filter]));
        let _ = client.take();
        publishers[0].send(&mut sim, Publishing::q0("t/1", "x").v5());
        assert!(client.take().is_empty());
    }
}

#[test]
fn mqtt5_3_10_4_3_after_unsubscribe_begun_deliveries_are_finished() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c").expiry(100));
    client.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
    client.send(&mut sim, unsubscribe(2, &["t"]));
    publisher.send(&mut sim, Publishing::q1("t", "y", 2).v5());
    assert_eq!(client.take(), ["SUBACK 1 [01]", "PUBLISH t \"x\" q1 id=1", "UNSUBACK 2 [00]"]);
    client.drop_connection(&mut sim);
    let client = Client::connect(&mut sim, &Connecting::v5("c").resume());
    assert_eq!(client.take()[1..], ["PUBLISH t \"x\" q1 id=1 dup"]);
    client.send(&mut sim, puback(1));
    assert_eq!(sim.messages_held(), 0);
}

#[test]
fn mqtt5_3_8_3_3_no_local_keeps_a_clients_own_messages_from_it() {
    let mut sim = Sim::new(2, Settings::default());
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("t", 0).no_local().v5());
    client.send(&mut sim, Publishing::q0("t", "own").retain().v5());
    let other = Client::online(&mut sim, &Connecting::v5("other"));
    other.send(&mut sim, Publishing::q0("t", "foreign").v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]", "PUBLISH t \"foreign\""]);
    client.send(&mut sim, Subscribing::to("t", 0).no_local().v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]"], "nor the retained one");
}

#[test]
fn mqtt5_4_7_2_1_wildcards_do_not_match_topics_of_the_server() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    let filters = Subscribing::to("#", 0).and("+/x", 0).and("$share/g/#", 0).id(2);
    client.send(&mut sim, filters.v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q0("$own/x", "x").v5());
    assert_eq!(client.take(), ["SUBACK 2 [00, 00, 00]"]);
    client.send(&mut sim, Subscribing::to("$own/#", 0).v5());
    publisher.send(&mut sim, Publishing::q0("$own/x", "y").v5());
    assert_eq!(client.take(), ["SUBACK 1 [00]", "PUBLISH $own/x \"y\""]);
}

#[test]
fn mqtt5_4_8_2_1_malformed_share_filters_end_the_connection() {
    let mut sim = Sim::default();
    for filter in ["$share/", "$share/g", "$share//t", "$share/g/", "$share/a+/t", "$share/#/t"] {
        let client = Client::online(&mut sim, &Connecting::v5("c"));
        let mut bytes = vec![0x82, (filter.len() + 6) as u8, 0, 1, 0, 0, filter.len() as u8];
        bytes.extend(filter.as_bytes());
        bytes.push(0);
        client.send(&mut sim, bytes);
        assert_eq!(client.take(), ["DISCONNECT MalformedPacket", "CLOSED"], "{filter}");
    }
}

#[test]
fn mqtt311_4_7_1_2_malformed_filters_end_the_connection_of_3_1_1() {
    let mut sim = Sim::default();
    for filter in ["a/#/b", "a#", "+a", "a/+b"] {
        let client = Client::online(&mut sim, &Connecting::v4("c"));
        let mut bytes = vec![0x82, (filter.len() + 5) as u8, 0, 1, 0, filter.len() as u8];
        bytes.extend(filter.as_bytes());
        bytes.push(0);
        client.send(&mut sim, bytes);
        assert_eq!(client.take(), ["CLOSED"], "{filter}");
    }
}

#[test]
fn mqtt5_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("$share/g/t", 0).no_local().v5());
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
}

#[test]
fn a_client_has_a_limited_number_of_subscriptions() {
    let settings = Settings { subscriptions_max: 2, ..Settings::default() };
    let mut sim = Sim::new(1, settings);
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to("a", 0).and("$share/g/b", 0).and("c", 0).v5());
    assert_eq!(client.take(), ["SUBACK 1 [00, 00, 97]"]);
    client.send(&mut sim, Subscribing::to("a", 1).v5());
    assert_eq!(client.take(), ["SUBACK 1 [01]"], "what it has may be changed");
}

#[test]
fn options_of_5_0_do_not_exist_before() {
    let mut sim = Sim::default();
    let mut client = Client::online(&mut sim, &Connecting::v4("c"));
    client.speak(Version::V4);
    let bytes = Subscribing::to("t", 0).handling(RetainHandling::Never).v4();
    client.send(&mut sim, bytes);
    assert_eq!(client.take(), ["CLOSED"]);
}
