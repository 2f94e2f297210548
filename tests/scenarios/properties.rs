//! Properties of messages and answers.

use dunlin::worker::Settings;
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, pubrel, unsubscribe};

const PASSED_ON: &str = "[PayloadFormatIndicator(true), UserProperty(\"b\", \"1\"), \
    ResponseTopic(\"reply/1\"), UserProperty(\"a\", \"2\"), CorrelationData([1, 0, 2]), \
    ContentType(\"text/plain\"), UserProperty(\"b\", \"1\")]";

fn with_everything<'a>(publishing: Publishing<'a>) -> Publishing<'a> {
    publishing
        .with(Property::PayloadFormatIndicator(true))
        .with(Property::UserProperty("b", "1"))
        .with(Property::ResponseTopic("reply/1"))
        .with(Property::UserProperty("a", "2"))
        .with(Property::CorrelationData(&[1, 0, 2]))
        .with(Property::ContentType("text/plain"))
        .with(Property::UserProperty("b", "1"))
}

#[test]
fn mqtt5_3_3_2_18_properties_pass_unaltered_and_in_order_live_and_across_workers() {
    let mut sim = Sim::new(4, Settings::default());
    let subscribers: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| {
            let client = Client::online(&mut sim, &Connecting::v5(name));
            client.send(&mut sim, Subscribing::to("t", 0).v5());
            client
        })
        .collect();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, with_everything(Publishing::q0("t", "x")).v5());
    for subscriber in &subscribers {
        assert_eq!(subscriber.take()[1..], [format!("PUBLISH t \"x\" {PASSED_ON}")]);
    }
}

#[test]
fn mqtt5_3_3_2_17_properties_pass_unaltered_when_retained_and_when_queued() {
    let mut sim = Sim::new(2, Settings::default());
    let offline = Client::online(&mut sim, &Connecting::v5("offline").expiry(100));
    offline.send(&mut sim, Subscribing::to("t", 1).v5());
    offline.drop_connection(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, with_everything(Publishing::q1("t", "x", 1)).retain().v5());
    let offline = Client::connect(&mut sim, &Connecting::v5("offline").resume());
    assert_eq!(offline.take()[1..], [format!("PUBLISH t \"x\" q1 id=1 {PASSED_ON}")]);
    let late = Client::online(&mut sim, &Connecting::v5("late"));
    late.send(&mut sim, Subscribing::to("t", 0).v5());
    assert_eq!(late.take()[1..], [format!("PUBLISH t \"x\" retain {PASSED_ON}")]);
}

#[test]
fn mqtt5_3_1_2_29_without_problem_information_answers_carry_no_properties() {
    let mut sim = Sim::default();
    let connecting = Connecting::v5("c").with(Property::RequestProblemInformation(false));
    let client = Client::online(&mut sim, &connecting);
    client.send(&mut sim, Publishing::q1("nobody", "x", 1).v5());
    client.send(&mut sim, Publishing::q2("nobody", "x", 2).v5());
    client.send(&mut sim, pubrel(9));
    client.send(&mut sim, Subscribing::to("t", 0).v5());
    client.send(&mut sim, unsubscribe(2, &["none"]));
    assert_eq!(
        client.take(),
        [
            "PUBACK 1 NoMatchingSubscribers",
            "PUBREC 2 NoMatchingSubscribers",
            "PUBCOMP 9 PacketIdentifierNotFound",
            "SUBACK 1 [00]",
            "UNSUBACK 2 [11]",
        ]
    );
}

#[test]
fn mqtt5_3_3_4_6_a_subscription_identifier_from_a_client_is_an_error_and_goes_nowhere() {
    let mut sim = Sim::default();
    let watcher = Client::online(&mut sim, &Connecting::v5("w"));
    watcher.send(&mut sim, Subscribing::to("t", 0).v5());
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    let publish = Publishing::q0("t", "x").with(Property::SubscriptionIdentifier(1));
    client.send(&mut sim, publish.v5());
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
    assert_eq!(watcher.take(), ["SUBACK 1 [00]"]);
}

#[test]
fn section_2_2_2_2_a_single_use_property_twice_is_a_protocol_error() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    let twice = Publishing::q0("t", "x")
        .with(Property::MessageExpiryInterval(1))
        .with(Property::MessageExpiryInterval(1));
    client.send(&mut sim, twice.v5());
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
    let twice =
        Connecting::v5("c").with(Property::ReceiveMaximum(1)).with(Property::ReceiveMaximum(1));
    let client = Client::connect(&mut sim, &twice);
    assert_eq!(client.take(), ["CONNACK ProtocolError", "CLOSED"]);
}

#[test]
fn section_2_2_2_2_a_property_in_the_wrong_packet_is_malformed() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    let wrong = Publishing::q0("t", "x").with(Property::ReceiveMaximum(1));
    client.send(&mut sim, wrong.v5());
    assert_eq!(client.take(), ["DISCONNECT MalformedPacket", "CLOSED"]);
}
