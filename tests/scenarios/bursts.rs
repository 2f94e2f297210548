//! Bursts to many: one publisher's messages behind each other, to subscribers of every kind. What
//! is composed once for many must be right for each.

use dunlin::worker::Settings;
use dunlin_packets::{Property, Version};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback, unsubscribe};

fn online(sim: &mut Sim, connecting: &Connecting<'_>, subscribing: &[u8]) -> Client {
    let client = Client::online(sim, connecting);
    client.send(sim, subscribing);
    let _ = client.take();
    client
}

/// One of each kind, twice, so that those of a kind are not only neighbours.
fn everybody(sim: &mut Sim) -> Vec<(&'static str, Client)> {
    let mut all = Vec::new();
    for round in 0..2 {
        let name = |kind: &str| format!("{kind}{round}");
        let plain = Subscribing::to("t", 0);
        let v4 = online(sim, &Connecting::v4(&name("v4")), &plain.v4());
        let v5 = online(sim, &Connecting::v5(&name("v5")), &plain.v5());
        let identified = Subscribing::to("t", 0).identifier(9).v5();
        let identified = online(sim, &Connecting::v5(&name("id")), &identified);
        let alias = name("alias");
        let alias = Connecting::v5(&alias).with(Property::TopicAliasMaximum(1));
        let alias = online(sim, &alias, &plain.v5());
        let small = name("small");
        let small = Connecting::v5(&small).with(Property::MaximumPacketSize(30));
        let small = online(sim, &small, &plain.v5());
        all.extend([
            ("v4", v4),
            ("v5", v5),
            ("identified", identified),
            ("alias", alias),
            ("small", small),
        ]);
    }
    all
}

#[test]
fn everybody_gets_a_burst_in_the_form_that_was_agreed_with_them() {
    let mut sim = Sim::new(2, Settings::default());
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let long = "a payload that makes more than thirty bytes";
    for payload in ["one", "two", long, "four"] {
        publisher.write(Publishing::q0("t", payload).v5());
    }
    sim.run();
    for (kind, subscriber) in &subscribers {
        let mut expected: Vec<String> =
            ["one", "two", long, "four"].map(|payload| format!("PUBLISH t {payload:?}")).into();
        match *kind {
            "identified" => {
                expected.iter_mut().for_each(|text| text.push_str(" [SubscriptionIdentifier(9)]"));
            }
            "alias" => {
                expected.iter_mut().for_each(|text| text.push_str(" [TopicAlias(1)]"));
                let known = expected.iter_mut().skip(1);
                known.for_each(|text| *text = text.replace("PUBLISH t", "PUBLISH "));
            }
            "small" => drop(expected.remove(2)),
            _ => {}
        }
        assert_eq!(subscriber.take(), expected, "{kind}");
    }
}

#[test]
fn a_later_burst_in_the_same_places_of_the_pool_is_not_taken_for_the_earlier_one() {
    let mut sim = Sim::default();
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for round in 0..5 {
        for number in 0..3 {
            publisher.write(Publishing::q0("t", &format!("{round}.{number}")).v5());
        }
        sim.run();
        for (kind, subscriber) in &subscribers {
            let texts = subscriber.take();
            let payloads: Vec<_> = texts.iter().filter_map(|text| text.split('"').nth(1)).collect();
            let expected = [0, 1, 2].map(|number| format!("{round}.{number}"));
            assert_eq!(payloads, expected, "{kind}");
        }
    }
}

#[test]
fn what_differs_from_message_to_message_stays_with_its_message() {
    let mut sim = Sim::default();
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let expiry = Property::MessageExpiryInterval(60);
    publisher.write(Publishing::q0("t", "a").with(Property::ContentType("x")).v5());
    publisher.write(Publishing::q0("t", "b").with(expiry).v5());
    publisher.write(Publishing::q1("t", "c", 1).v5());
    publisher.write(Publishing::q0("t", "d").retain().v5());
    publisher.write(Publishing::q0("t", "e").v5());
    sim.run();
    let v5 = &subscribers[1].1;
    assert_eq!(
        v5.take(),
        [
            "PUBLISH t \"a\" [ContentType(\"x\")]",
            "PUBLISH t \"b\" [MessageExpiryInterval(60)]",
            "PUBLISH t \"c\"",
            "PUBLISH t \"d\"",
            "PUBLISH t \"e\"",
        ]
    );
    let v4 = &subscribers[5].1;
    assert_eq!(v4.take(), ["a", "b", "c", "d", "e"].map(|text| format!("PUBLISH t {text:?}")));
}

#[test]
fn a_change_of_subscriptions_inside_a_burst_takes_effect_at_its_place() {
    let mut sim = Sim::default();
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q0("t", "before").v5());
    publisher.write(Subscribing::to("t", 0).v5());
    publisher.write(Publishing::q0("t", "with").v5());
    publisher.write(unsubscribe(2, &["t"]));
    publisher.write(Publishing::q0("t", "after").v5());
    sim.run();
    let own: Vec<_> =
        publisher.take().into_iter().filter(|text| text.starts_with("PUBLISH")).collect();
    assert_eq!(own, ["PUBLISH t \"with\""]);
    assert_eq!(subscribers[0].1.take().len(), 3);
}

#[test]
fn no_local_holds_for_each_message_of_a_burst() {
    let mut sim = Sim::default();
    let subscribers = everybody(&mut sim);
    let own = online(&mut sim, &Connecting::v5("own"), &Subscribing::to("t", 0).no_local().v5());
    own.write(Publishing::q0("t", "one").v5());
    own.write(Publishing::q0("t", "two").v5());
    sim.run();
    assert!(own.take().is_empty());
    assert_eq!(subscribers[1].1.take(), ["PUBLISH t \"one\"", "PUBLISH t \"two\""]);
}

#[test]
fn a_protocol_error_behind_a_burst_does_not_take_it_back() {
    let mut sim = Sim::default();
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Subscribing::to("t", 0).v5());
    publisher.write(Publishing::q0("t", "one").bytes_for(Version::V5));
    publisher.write([0x30, 0x00]);
    sim.run();
    assert!(publisher.is_closed());
    assert_eq!(subscribers[1].1.take(), ["PUBLISH t \"one\""]);
}

#[test]
fn a_burst_to_sessions_that_are_away_and_to_slow_ones_waits_for_each() {
    let mut sim = Sim::default();
    let away = Connecting::v5("away").resume().expiry(60);
    let client = online(&mut sim, &away, &Subscribing::to("t", 1).v5());
    client.drop_connection(&mut sim);
    let slow = online(&mut sim, &Connecting::v5("slow"), &Subscribing::to("t", 0).v5());
    slow.limit_room(7);
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for (id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        publisher.write(Publishing::q1("t", payload, id).v5());
    }
    sim.run();
    assert_eq!(subscribers[1].1.take().len(), 3);
    slow.unlimited(&mut sim);
    let texts = ["one", "two", "three"].map(|text| format!("PUBLISH t {text:?}"));
    assert_eq!(slow.take(), texts);
    let client = Client::connect(&mut sim, &away);
    assert_eq!(client.take().len(), 4, "CONNACK and three messages");
}

#[test]
fn a_burst_that_expires_while_its_subscriber_does_not_read_is_not_sent() {
    let mut sim = Sim::default();
    let slow = online(&mut sim, &Connecting::v5("slow"), &Subscribing::to("t", 0).v5());
    let subscribers = everybody(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    slow.limit_room(0);
    publisher.write(Publishing::q0("t", "in the socket").v5());
    sim.run();
    let expiry = Property::MessageExpiryInterval(60);
    for payload in ["one", "two"] {
        publisher.write(Publishing::q0("t", payload).with(expiry).v5());
    }
    sim.run();
    assert_eq!(subscribers[1].1.take().len(), 3);
    sim.advance_s(61);
    slow.unlimited(&mut sim);
    assert_eq!(slow.take(), ["PUBLISH t \"in the socket\""]);
}

#[test]
fn a_retained_message_inside_a_burst_keeps_its_flag_where_that_was_asked_for() {
    let mut sim = Sim::default();
    let subscribers = everybody(&mut sim);
    let as_published = Subscribing::to("t", 0).as_published().v5();
    let as_published = online(&mut sim, &Connecting::v5("rap"), &as_published);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q0("t", "one").v5());
    publisher.write(Publishing::q0("t", "two").retain().v5());
    publisher.write(Publishing::q0("t", "three").v5());
    sim.run();
    let texts = ["PUBLISH t \"one\"", "PUBLISH t \"two\" retain", "PUBLISH t \"three\""];
    assert_eq!(as_published.take(), texts);
    assert_eq!(subscribers[1].1.take().len(), 3);
}

#[test]
fn a_burst_that_fills_a_queue_finds_the_room_that_is_for_publishers_who_have_to_wait() {
    let mut settings = Settings::default();
    settings.limits.queue.messages_max = 16;
    let mut sim = Sim::new(1, settings);
    let subscribers = everybody(&mut sim);
    let slow = online(&mut sim, &Connecting::v5("slow"), &Subscribing::to("t", 0).v5());
    slow.limit_room(0);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for number in 0..60 {
        publisher.write(Publishing::q0("t", &number.to_string()).v5());
    }
    sim.run();
    slow.unlimited(&mut sim);
    assert_eq!(slow.take().len(), 60);
    assert_eq!(subscribers[1].1.take().len(), 60);
}

#[test]
fn a_share_group_beside_many_subscribers_gets_each_message_of_a_burst_once() {
    let mut sim = Sim::new(2, Settings::default());
    let subscribers = everybody(&mut sim);
    let members: Vec<_> = (0..3)
        .map(|number| {
            let name = format!("m{number}");
            online(&mut sim, &Connecting::v5(&name), &Subscribing::to("$share/g/t", 0).v5())
        })
        .collect();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for number in 0..9 {
        publisher.write(Publishing::q0("t", &number.to_string()).v5());
    }
    sim.run();
    let shared: usize = members.iter().map(|member| member.take().len()).sum();
    assert_eq!(shared, 9);
    assert_eq!(subscribers[0].1.take().len(), 9);
}

/// What a client has got, without the topic.
fn deliveries(client: &Client) -> Vec<String> {
    let texts = client.take().into_iter().filter(|text| text.starts_with("PUBLISH"));
    texts.map(|text| text.replace("PUBLISH t ", "").replace('"', "")).collect()
}

#[test]
fn at_qos_1_each_subscriber_gets_a_burst_under_packet_identifiers_of_its_own() {
    let mut sim = Sim::default();
    let plain = |sim: &mut Sim, name: &str| {
        online(sim, &Connecting::v5(name), &Subscribing::to("t", 1).v5())
    };
    let ahead = plain(&mut sim, "ahead");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q1("t", "zero", 1).v5());
    sim.run();
    assert_eq!(deliveries(&ahead), ["zero q1 id=1"]);
    let [one, two] = ["one", "two"].map(|name| plain(&mut sim, name));
    let narrow = Connecting::v5("narrow").with(Property::ReceiveMaximum(2));
    let narrow = online(&mut sim, &narrow, &Subscribing::to("t", 1).v5());
    let three = plain(&mut sim, "three");
    for (id, payload) in [(2, "a"), (3, "b"), (4, "c")] {
        publisher.write(Publishing::q1("t", payload, id).v5());
    }
    sim.run();
    assert_eq!(deliveries(&ahead), ["a q1 id=2", "b q1 id=3", "c q1 id=4"]);
    for client in [&one, &two, &three] {
        assert_eq!(deliveries(client), ["a q1 id=1", "b q1 id=2", "c q1 id=3"]);
    }
    assert_eq!(deliveries(&narrow), ["a q1 id=1", "b q1 id=2"]);
    narrow.send(&mut sim, [puback(1), puback(2)].concat());
    assert_eq!(deliveries(&narrow), ["c q1 id=3"]);
}

#[test]
fn what_of_a_burst_at_qos_1_was_not_acknowledged_comes_again_and_nothing_else() {
    let mut sim = Sim::new(1, Settings::default());
    let lasting = |name| Connecting::v5(name).resume().expiry(60);
    let subscribers: Vec<(&str, Client)> = ["one", "two", "three"]
        .map(|name| (name, online(&mut sim, &lasting(name), &Subscribing::to("t", 1).v5())))
        .into();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        publisher.write(Publishing::q1("t", payload, id).v5());
    }
    sim.run();
    for (name, client) in subscribers {
        assert_eq!(deliveries(&client).len(), 4, "{name}");
        // One with a reason code, and one of nobody, between plain ones.
        let answers = [puback(1), vec![0x40, 3, 0, 2, 0x10], puback(9), puback(4)].concat();
        client.send(&mut sim, answers);
        client.drop_connection(&mut sim);
        let client = Client::connect(&mut sim, &lasting(name));
        assert_eq!(deliveries(&client), ["c q1 id=3 dup"], "{name}");
    }
}
