//! Input that is meant to hurt.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

#[test]
fn a_topic_of_32_767_empty_levels_is_an_ordinary_topic() {
    let mut sim = Sim::default();
    let topic = "/".repeat(65_535);
    let filter = format!("{}#", "+/".repeat(32_767));
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.send(&mut sim, Subscribing::to(&filter, 0).v5());
    client.send(&mut sim, Subscribing::to(&topic, 0).id(2).v5());
    client.send(&mut sim, Publishing::q0(&topic, "x").v5());
    let texts = client.take();
    assert_eq!(texts[..2], ["SUBACK 1 [00]", "SUBACK 2 [00]"]);
    assert_eq!(texts.len(), 3);
}

#[test]
fn a_connect_of_many_megabytes_is_not_waited_for() {
    let mut sim = Sim::default();
    let client = sim.client();
    client.send(&mut sim, [0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, b'M', b'Q', b'T', b'T', 5]);
    assert_eq!(client.take(), ["CLOSED"]);
}

#[test]
fn a_client_that_only_asks_and_then_vanishes_is_gone() {
    let mut sim = Sim::default();
    let watcher = Client::online(&mut sim, &Connecting::v5("w"));
    watcher.send(&mut sim, Subscribing::to("will", 0).v5());
    let client = Client::online(&mut sim, &Connecting::v5("c").will("will", "gone", 0, false));
    client.limit_room(100);
    for _ in 0..200 {
        client.write([0xc0, 0].repeat(1000));
    }
    sim.run();
    client.drop_connection(&mut sim);
    assert_eq!(watcher.take(), ["SUBACK 1 [00]", "PUBLISH will \"gone\""]);
    assert_eq!(sim.stats().online, 1);
}

#[test]
fn a_packet_may_come_byte_by_byte_or_with_many_others() {
    let mut sim = Sim::new(2, Settings::default());
    let mut bytes = Connecting::v5("c").bytes();
    bytes.extend(Subscribing::to("t", 0).v5());
    for _ in 0..3 {
        bytes.extend(Publishing::q0("t", "x").v5());
    }
    let whole = sim.client();
    whole.send(&mut sim, &bytes);
    let expected = whole.take();
    assert_eq!(expected.len(), 5);
    whole.drop_connection(&mut sim);
    let piecemeal = sim.client();
    for byte in &bytes {
        piecemeal.send(&mut sim, [*byte]);
    }
    assert_eq!(piecemeal.take(), expected);
}

#[test]
fn a_large_message_passes_through_a_small_hole() {
    let mut sim = Sim::new(2, Settings::default());
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let _ = subscriber.take();
    subscriber.limit_room(10);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let payload = vec![b'x'; 1_000_000];
    publisher.send(&mut sim, Publishing::q1("t", &payload, 1).v5());
    publisher.send(&mut sim, Publishing::q1("t", "behind", 2).v5());
    for _ in 0..20 {
        subscriber.limit_room(70_000);
        sim.run();
    }
    subscriber.unlimited(&mut sim);
    assert_eq!(
        subscriber.take(),
        ["PUBLISH t 1000000 bytes q1 id=1", "PUBLISH t \"behind\" q1 id=2"]
    );
}

#[test]
fn a_client_that_asks_and_does_not_read_is_left_waiting() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    client.limit_room(0);
    for _ in 0..200 {
        client.send(&mut sim, [0xc0, 0].repeat(1000));
    }
    client.unlimited(&mut sim);
    sim.run();
    assert_eq!(client.take().len(), 200_000, "none is lost, and they were not all kept at once");
}

#[test]
fn nothing_is_left_of_clients_that_have_gone() {
    let mut sim = Sim::new(3, Settings::default());
    for round in 0..200 {
        let name = format!("client-{}", round % 40);
        let expiry = if round % 3 == 0 { 5 } else { 0 };
        let connecting = Connecting::v5(&name).expiry(expiry).will("w", "gone", 1, false);
        let client = Client::online(&mut sim, &connecting);
        let filter = format!("t/{}/#", round % 7);
        client.send(&mut sim, Subscribing::to(&filter, 2).and("w", 1).and("$share/g/t/#", 1).v5());
        client.send(&mut sim, Publishing::q1(&format!("t/{}/x", round % 5), "x", 1).v5());
        if round % 2 == 0 {
            client.drop_connection(&mut sim);
        }
    }
    sim.advance_s(60);
    for round in 0..40 {
        let client = Client::online(&mut sim, &Connecting::v5(&format!("client-{round}")));
        client.send(&mut sim, [0xe0, 0]);
    }
    sim.advance_s(60);
    let stats = sim.stats();
    assert_eq!((stats.online, stats.sessions, stats.subscriptions), (0, 0, 0));
    assert_eq!((sim.messages_held(), sim.connections()), (0, 0));
}
