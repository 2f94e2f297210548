//! Shared subscriptions.

use dunlin::worker::Settings;
use dunlin_packets::{Ack, AckKind, ReasonCode, Version};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, pubrec, unsubscribe};

fn member(sim: &mut Sim, name: &str, qos: u8) -> Client {
    let member = Client::online(sim, &Connecting::v5(name).expiry(100));
    member.send(sim, Subscribing::to("$share/g/t", qos).v5());
    assert_eq!(member.take(), [format!("SUBACK 1 [{qos:02x}]")]);
    member
}

fn publish(sim: &mut Sim, count: u16, qos: u8) {
    let publisher = Client::online(sim, &Connecting::v5("p"));
    for id in 1..=count {
        let payload = id.to_string();
        let bytes = match qos {
            0 => Publishing::q0("t", &payload).v5(),
            1 => Publishing::q1("t", &payload, id).v5(),
            _ => Publishing::q2("t", &payload, id).v5(),
        };
        publisher.send(sim, bytes);
    }
}

#[test]
fn each_message_goes_to_one_member_in_turn() {
    for workers in [1, 4] {
        let mut sim = Sim::new(workers, Settings::default());
        let members: Vec<_> =
            ["a", "b", "c"].iter().map(|name| member(&mut sim, name, 0)).collect();
        publish(&mut sim, 30, 0);
        for member in &members {
            assert_eq!(member.take().len(), 10);
        }
    }
}

#[test]
fn a_client_of_3_1_1_can_share_too() {
    let mut sim = Sim::new(2, Settings::default());
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    old.send(&mut sim, Subscribing::to("$share/g/t", 1).v4());
    let new = member(&mut sim, "new", 1);
    publish(&mut sim, 10, 1);
    assert_eq!(old.take().len(), 1 + 5);
    assert_eq!(new.take().len(), 5);
}

#[test]
fn an_offline_member_gets_nothing_while_another_is_online() {
    let mut sim = Sim::new(3, Settings::default());
    let (away, here) = (member(&mut sim, "away", 1), member(&mut sim, "here", 1));
    away.drop_connection(&mut sim);
    publish(&mut sim, 10, 1);
    assert_eq!(here.take().len(), 10);
    here.drop_connection(&mut sim);
    let away = Client::connect(&mut sim, &Connecting::v5("away").resume().expiry(100));
    assert_eq!(away.take().len(), 1, "nothing was kept for it");
}

#[test]
fn what_a_member_was_not_sent_goes_to_another_when_it_leaves() {
    let mut sim = Sim::new(2, Settings::default());
    let (stuck, here) = (member(&mut sim, "stuck", 1), member(&mut sim, "here", 0));
    stuck.limit_room(0);
    publish(&mut sim, 6000, 1);
    assert_eq!(here.take().len(), 3000);
    stuck.drop_connection(&mut sim);
    let rest = here.take().len();
    assert!(rest >= 1900, "{rest} of those that were never sent");
}

#[test]
fn mqtt5_4_8_2_3_each_member_receives_at_its_own_qos() {
    let mut sim = Sim::default();
    let (at_0, at_2) = (member(&mut sim, "zero", 0), member(&mut sim, "two", 2));
    publish(&mut sim, 4, 2);
    assert!(at_0.take().iter().all(|text| !text.contains(" q")));
    assert!(at_2.take().iter().all(|text| text.contains(" q2 ")));
}

#[test]
fn mqtt5_4_8_2_4_an_interrupted_qos_2_delivery_is_finished_with_its_member() {
    let mut sim = Sim::default();
    let (first, second) = (member(&mut sim, "first", 2), member(&mut sim, "second", 2));
    publish(&mut sim, 2, 2);
    assert_eq!(first.take().len(), 1);
    assert_eq!(second.take().len(), 1);
    first.drop_connection(&mut sim);
    assert!(second.take().is_empty());
    let first = Client::connect(&mut sim, &Connecting::v5("first").resume().expiry(100));
    let texts = first.take();
    assert!(texts[1].ends_with("q2 id=1 dup"), "{texts:?}");
    first.send(&mut sim, pubrec(1));
    assert_eq!(first.take(), ["PUBREL 1"]);
}

#[test]
fn mqtt5_4_8_2_5_if_the_members_session_ends_nobody_else_gets_its_qos_2_delivery() {
    let mut sim = Sim::default();
    let (first, second) = (member(&mut sim, "first", 2), member(&mut sim, "second", 2));
    publish(&mut sim, 2, 2);
    let _ = (first.take(), second.take());
    first.drop_connection(&mut sim);
    sim.advance_s(200);
    assert!(second.take().is_empty());
}

#[test]
fn mqtt5_4_8_2_6_a_refused_delivery_is_not_given_to_another_member() {
    let mut sim = Sim::default();
    let (first, second) = (member(&mut sim, "first", 1), member(&mut sim, "second", 1));
    publish(&mut sim, 2, 1);
    assert_eq!((first.take().len(), second.take().len()), (1, 1));
    let mut refusal = Vec::new();
    let id = 1.try_into().expect("not 0");
    Ack { code: ReasonCode::UnspecifiedError, ..Ack::new(AckKind::PubAck, id) }
        .encode(Version::V5, &mut refusal);
    first.send(&mut sim, refusal);
    assert!(second.take().is_empty());
    assert_eq!(sim.stats().dropped.iter().sum::<u64>(), 1);
}

#[test]
fn a_group_ends_with_its_last_member() {
    let mut sim = Sim::new(2, Settings::default());
    let (first, second) = (member(&mut sim, "first", 0), member(&mut sim, "second", 0));
    first.send(&mut sim, unsubscribe(1, &["$share/g/t"]));
    publish(&mut sim, 3, 0);
    assert_eq!(second.take().len(), 3);
    second.drop_connection(&mut sim);
    sim.advance_s(200);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "x", 1).v5());
    assert_eq!(publisher.take(), ["PUBACK 1 NoMatchingSubscribers"]);
}

#[test]
fn mqtt5_4_8_2_1_a_group_and_an_ordinary_subscription_each_get_their_copy() {
    let mut sim = Sim::new(2, Settings::default());
    let client = member(&mut sim, "c", 0);
    client.send(&mut sim, Subscribing::to("t", 0).v5());
    let _ = client.take();
    publish(&mut sim, 1, 0);
    assert_eq!(client.take(), ["PUBLISH t \"1\"", "PUBLISH t \"1\""]);
}
