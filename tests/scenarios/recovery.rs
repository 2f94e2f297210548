//! What the simulator has found about the log, made small.

use std::sync::atomic::Ordering;

use dunlin::worker::{OverlapPolicy, Settings};
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, Subscribing, puback, pubrec};

fn durable(workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), SimDisk::default(), 7)
}

fn power_cut(sim: Sim, settings: Settings) -> Sim {
    Sim::with_disk(2, settings, sim.crash(1), 7)
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(3600)
}

/// What a client gets behind its CONNACK.
fn what_came_back(sim: &mut Sim, client_id: &str) -> Vec<String> {
    Client::connect(sim, &persistent(client_id)).take().split_off(1)
}

#[test]
fn what_a_group_elsewhere_sends_back_to_its_publishers_worker_is_delivered() {
    for group in 0..8 {
        let mut sim = durable(2);
        let client = Client::online(&mut sim, &persistent("c"));
        client.send(&mut sim, Subscribing::to(&format!("$share/{group}/t"), 1).v5());
        let _ = client.take();
        client.send(&mut sim, Publishing::q1("t", "m", 1).v5());
        let mut taken = client.take();
        taken.sort();
        assert_eq!(taken, ["PUBACK 1", "PUBLISH t \"m\" q1 id=1"]);
    }
}

#[test]
fn mqtt5_3_14_4_1_no_answer_that_waits_follows_a_disconnect() {
    let mut sim = durable(1);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.write(Publishing::q1("t", "m", 1).v5());
    sim.run_workers();
    let _second = Client::online(&mut sim, &persistent("p"));
    assert_eq!(publisher.take(), ["DISCONNECT SessionTakenOver", "CLOSED"]);
}

#[test]
fn what_goes_back_to_the_only_member_of_its_group_outlives_a_crash() {
    let mut sim = durable(2);
    let narrow = persistent("s").with(Property::ReceiveMaximum(1));
    let subscriber = Client::online(&mut sim, &narrow);
    subscriber.send(&mut sim, Subscribing::to("$share/g/t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t", "1", 1).v5());
    publisher.send(&mut sim, Publishing::q1("t", "2", 2).v5());
    assert_eq!(subscriber.take(), ["SUBACK 1 [01]", "PUBLISH t \"1\" q1 id=1"]);
    // The second message was never sent, so it goes round.
    subscriber.drop_connection(&mut sim);
    let mut sim = power_cut(sim, Settings::default());
    let mut taken = what_came_back(&mut sim, "s");
    taken.sort();
    assert_eq!(taken, ["PUBLISH t \"1\" q1 id=1 dup", "PUBLISH t \"2\" q1 id=2"]);
}

#[test]
fn packet_identifiers_that_the_client_may_know_are_not_given_away_after_a_crash() {
    let settings = Settings { overlap: OverlapPolicy::Separate, ..Settings::default() };
    let mut sim = Sim::with_disk(1, settings.clone(), SimDisk::default(), 7);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 2).and("+", 2).v5());
    let _ = subscriber.take();
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.send(&mut sim, Publishing::q2("t", "m", 1).v5());
    assert_eq!(subscriber.take(), ["PUBLISH t \"m\" q2 id=1", "PUBLISH t \"m\" q2 id=2"]);
    subscriber.send(&mut sim, pubrec(1));
    let mut sim = power_cut(sim, settings);
    let expected = ["PUBREL 1", "PUBLISH t \"m\" q2 id=2 dup"];
    assert_eq!(what_came_back(&mut sim, "s"), expected);
}

#[test]
fn what_was_published_at_qos_0_and_is_upgraded_keeps_its_place() {
    let settings = Settings { upgrade_qos: true, ..Settings::default() };
    let mut sim = Sim::with_disk(1, settings, SimDisk::default(), 7);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 2).v5());
    let _ = subscriber.take();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q0("t", "retained").retain().v5());
    publisher.write(Publishing::q0("t", "not").v5());
    sim.run();
    assert_eq!(subscriber.take(), ["PUBLISH t \"retained\" q2 id=1", "PUBLISH t \"not\" q2 id=2"]);
}

#[test]
fn mqtt5_3_3_2_5_what_expires_while_its_packet_identifier_is_written_down_is_not_sent() {
    let mut sim = durable(1);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 2).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let brief = Publishing::q2("t", "m", 1).with(Property::MessageExpiryInterval(1));
    publisher.write(brief.v5());
    sim.run_workers();
    sim.run_storage_step();
    // It is in flight, its identifier on the way to the log.
    sim.run_workers();
    subscriber.drop_connection(&mut sim);
    sim.advance_s(2);
    assert_eq!(what_came_back(&mut sim, "s"), [""; 0]);
}

#[test]
fn a_message_that_came_to_a_session_on_two_ways_is_not_taken_for_one() {
    let mut sim = durable(1);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 1).and("$share/g/t", 2).v5());
    let _ = subscriber.take();
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.send(&mut sim, Publishing::q2("t", "m", 1).v5());
    assert_eq!(subscriber.take(), ["PUBLISH t \"m\" q1 id=1", "PUBLISH t \"m\" q2 id=2"]);
    subscriber.send(&mut sim, pubrec(2));
    let mut sim = power_cut(sim, Settings::default());
    assert_eq!(what_came_back(&mut sim, "s"), ["PUBLISH t \"m\" q1 id=1 dup", "PUBREL 2"]);
}

#[test]
fn a_session_that_was_to_end_with_its_next_connection_does_not_come_back() {
    let mut sim = durable(1);
    let client = Client::online(&mut sim, &persistent("s"));
    client.drop_connection(&mut sim);
    let client = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert!(client.take()[0].starts_with("CONNACK Success present"));
    let mut sim = power_cut(sim, Settings::default());
    let client = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert!(!client.take()[0].contains("present"));
}

#[test]
fn what_a_member_left_to_one_that_is_kept_is_not_published_twice() {
    let mut sim = durable(2);
    let narrow = Connecting::v5("brief").with(Property::ReceiveMaximum(1));
    let brief = Client::online(&mut sim, &narrow);
    brief.send(&mut sim, Subscribing::to("$share/g/t", 1).v5());
    let kept = Client::online(&mut sim, &persistent("kept"));
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.send(&mut sim, Publishing::q2("t", "1", 1).v5());
    publisher.send(&mut sim, Publishing::q2("t", "2", 2).v5());
    assert_eq!(publisher.take(), ["PUBREC 1", "PUBREC 2"]);
    kept.send(&mut sim, Subscribing::to("$share/g/t", 2).v5());
    // Both go on to the one that is left.
    brief.drop_connection(&mut sim);
    let mut sim = power_cut(sim, Settings::default());
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.send(&mut sim, Publishing::q2("t", "2", 2).dup().v5());
    assert_eq!(publisher.take(), ["PUBREC 2"]);
    let mut taken = what_came_back(&mut sim, "kept");
    taken.retain(|text| text.contains("\"2\""));
    assert_eq!(taken.len(), 1, "{taken:?}");
}

#[test]
fn bytes_on_disk_are_there_for_sessions_that_are_not_kept() {
    let mut settings = Settings::default();
    settings.durability.memory_bytes = 0;
    let mut sim = Sim::with_disk(1, settings, SimDisk::default(), 7);
    let kept = Client::online(&mut sim, &persistent("kept"));
    kept.send(&mut sim, Subscribing::to("#", 1).v5());
    let brief = Client::online(&mut sim, &Connecting::v5("brief"));
    brief.send(&mut sim, Subscribing::to("t", 0).v5());
    let _ = (kept.take(), brief.take());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    brief.limit_room(10);
    let half_sent = "x".repeat(20_000);
    publisher.send(&mut sim, Publishing::q1("t", &half_sent, 1).v5());
    publisher.send(&mut sim, Publishing::q1("t", "m", 2).v5());
    kept.send(&mut sim, puback(1));
    kept.send(&mut sim, puback(2));
    // Nobody who outlives a crash needs them any more, so the log is cleaned of them.
    for id in 3..40 {
        publisher.send(&mut sim, Publishing::q1("other", &half_sent, id).v5());
        kept.send(&mut sim, puback(id));
    }
    assert!(sim.log().figures.removed.load(Ordering::Relaxed) > 0);
    brief.unlimited(&mut sim);
    assert_eq!(brief.take().len(), 2);
}

#[test]
fn a_groups_messages_can_go_round_while_memory_is_short() {
    let mut settings = Settings::default();
    settings.durability.memory_bytes = 0;
    let mut sim = Sim::with_disk(2, settings, SimDisk::default(), 7);
    let kept = Client::online(&mut sim, &persistent("kept"));
    kept.send(&mut sim, Subscribing::to("t", 1).v5());
    kept.drop_connection(&mut sim);
    let narrow = Connecting::v5("a").with(Property::ReceiveMaximum(1));
    let member = Client::online(&mut sim, &narrow);
    member.send(&mut sim, Subscribing::to("$share/g/t", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        publisher.send(&mut sim, Publishing::q1("t", "m", id).v5());
    }
    let other = Client::online(&mut sim, &Connecting::v5("b"));
    other.send(&mut sim, Subscribing::to("$share/g/t", 1).v5());
    member.drop_connection(&mut sim);
    assert_eq!(other.take().len(), 1 + 3);
}

#[test]
fn a_session_that_has_ended_does_not_come_back_behind_a_later_one() {
    let mut sim = durable(1);
    let client = Client::online(&mut sim, &persistent("s"));
    // DISCONNECT with Session Expiry Interval 0.
    client.write([0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    sim.run_workers();
    // For all the disk knows, the first session goes on. The next one has none to replace.
    let next = sim.client();
    next.write(Connecting::v5("s").bytes());
    sim.run_workers();
    assert!(next.take().is_empty());
    sim.run();
    assert_eq!(next.take().len(), 1);
    let mut sim = power_cut(sim, Settings::default());
    let client = Client::connect(&mut sim, &Connecting::v5("s").resume());
    assert!(!client.take()[0].contains("present"));
}

#[test]
fn what_a_full_disk_refused_is_taken_when_it_comes_again() {
    let mut sim = durable(1);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let _ = subscriber.take();
    let publisher = Client::online(&mut sim, &Connecting::v4("p").resume());
    let bytes = sim.disk().bytes() as usize;
    sim.disk().limit_capacity(bytes);
    publisher.send(&mut sim, Publishing::q2("t", "finds it full", 1).v4());
    sim.run();
    publisher.send(&mut sim, Publishing::q2("t", "refused", 2).v4());
    assert!(publisher.is_closed());
    sim.disk().unlimited();
    sim.advance_s(1);
    let publisher = Client::online(&mut sim, &Connecting::v4("p").resume());
    publisher.send(&mut sim, Publishing::q2("t", "refused", 2).dup().v4());
    assert_eq!(publisher.take(), ["PUBREC 2"]);
    let taken = subscriber.take();
    assert!(taken.iter().any(|text| text.contains("\"refused\"")), "{taken:?}");
}
