//! What comes between a message and the log: short memory, cleaning, groups, repetitions, wills.

use dunlin::worker::{Durability, OverlapPolicy, Settings};
use dunlin_packets::Property;
use dunlin_tests::{
    Client, Connecting, Publishing, Sim, SimDisk, Subscribing, puback, pubcomp, pubrec, pubrel,
};

fn durable(workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), SimDisk::default(), 7)
}
fn short(workers: usize) -> Settings {
    let _ = workers;
    Settings {
        durability: Durability { memory_bytes: 0, ..Durability::default() },
        ..Settings::default()
    }
}
fn power_cut(sim: Sim, workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), sim.crash(1), 7)
}
fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(100_000)
}
fn offline_subscriber(sim: &mut Sim, client_id: &str, filter: &str, qos: u8) {
    let subscriber = Client::online(sim, &persistent(client_id));
    subscriber.send(sim, Subscribing::to(filter, qos).v5());
    subscriber.drop_connection(sim);
}

#[test]
fn the_only_member_of_a_group_keeps_its_backlog_over_a_crash() {
    for workers in [1, 2, 3] {
        let mut sim = durable(workers);
        let member = Client::online(&mut sim, &persistent("m").with(Property::ReceiveMaximum(1)));
        member.send(&mut sim, Subscribing::to("$share/g/t/#", 1).v5());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for id in 1..=3 {
            publisher.send(&mut sim, Publishing::q1("t/x", &format!("m{id}"), id).v5());
        }
        assert_eq!(publisher.take(), ["PUBACK 1", "PUBACK 2", "PUBACK 3"]);
        member.drop_connection(&mut sim);
        sim.advance_s(1);
        let mut sim = power_cut(sim, workers);
        let member = Client::connect(&mut sim, &persistent("m"));
        assert_eq!(member.take().len(), 4, "{workers}");
    }
}

#[test]
fn a_member_on_the_publishers_worker_gets_what_a_group_elsewhere_picked_it_for() {
    let mut stuck = Vec::new();
    for member_name in 0..4 {
        for group in 0..4 {
            for publisher_name in 0..3 {
                let mut sim = durable(2);
                let member = Client::online(&mut sim, &persistent(&format!("m{member_name}")));
                member.send(&mut sim, Subscribing::to(&format!("$share/g{group}/t/#"), 1).v5());
                let _ = member.take();
                let publisher =
                    Client::online(&mut sim, &Connecting::v5(&format!("p{publisher_name}")));
                publisher.send(&mut sim, Publishing::q1("t/x", "m", 1).v5());
                sim.advance_s(1);
                if publisher.take() != ["PUBACK 1"] {
                    stuck.push(format!("noack {member_name} {group} {publisher_name}"));
                }
                if member.take().len() != 1 {
                    stuck.push(format!("{member_name} {group} {publisher_name}"));
                }
            }
        }
    }
    assert!(stuck.is_empty(), "{stuck:?}");
}

#[test]
fn a_members_message_can_be_given_to_another_when_memory_is_short() {
    let mut sim = Sim::with_disk(1, short(1), SimDisk::default(), 7);
    offline_subscriber(&mut sim, "d", "t/#", 1);
    let member = Client::online(&mut sim, &Connecting::v5("c"));
    member.send(&mut sim, Subscribing::to("$share/g/t/#", 1).v5());
    let other = Client::online(&mut sim, &Connecting::v5("c2"));
    other.send(&mut sim, Subscribing::to("$share/g/t/#", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t/x", "hello", 1).v5());
    publisher.send(&mut sim, Publishing::q1("t/x", "hello", 2).v5());
    sim.advance_s(1);
    member.drop_connection(&mut sim);
    sim.advance_s(1);
}

#[test]
fn a_retained_message_stays_when_memory_is_short_after_a_restart() {
    let mut sim = durable(1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("r/x", "hello", 1).retain().v5());
    let mut sim = Sim::with_disk(1, short(1), sim.crash(1), 7);
    let s = Client::online(&mut sim, &persistent("s"));
    s.send(&mut sim, Subscribing::to("r/#", 1).v5());
    assert_eq!(s.take().len(), 2);
    let s2 = Client::online(&mut sim, &Connecting::v5("s2"));
    s2.send(&mut sim, Subscribing::to("r/#", 1).v5());
    assert_eq!(s2.take().len(), 2);
}

#[test]
fn a_retained_message_is_moved_whole_when_memory_is_short() {
    let mut sim = durable(1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("r/x", "hello", 1).retain().v5());
    let mut sim = Sim::with_disk(1, short(1), sim.crash(1), 7);
    let s = Client::online(&mut sim, &persistent("s"));
    s.send(&mut sim, Subscribing::to("r/#", 1).v5());
    assert_eq!(s.take().len(), 2);
    // keep the clock and the log going
    offline_subscriber(&mut sim, "busy", "t/#", 1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for round in 0..20 {
        for id in 1..=100u16 {
            publisher.send(&mut sim, Publishing::q1("t/x", &format!("{round:064}"), id).v5());
        }
        let _ = publisher.take();
        let busy = Client::online(&mut sim, &Connecting::v5("busy"));
        busy.drop_connection(&mut sim);
        offline_subscriber(&mut sim, "busy", "t/#", 1);
        sim.advance_s(10);
    }
    assert!(sim.log().figures.removed.load(std::sync::atomic::Ordering::Relaxed) > 3);
    let mut sim = power_cut(sim, 1);
    let s2 = Client::online(&mut sim, &Connecting::v5("s2"));
    s2.send(&mut sim, Subscribing::to("r/#", 1).v5());
    assert_eq!(s2.take().len(), 2);
}

#[test]
fn a_repeated_publication_of_a_clean_publisher_is_acknowledged_when_it_is_safe() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s", "t/#", 2);
    let publisher = Client::online(&mut sim, &Connecting::v4("p"));
    publisher.write(Publishing::q2("t/x", "m", 1).v4());
    sim.run_workers();
    assert!(publisher.take().is_empty());
    publisher.write(Publishing::q2("t/x", "m", 1).dup().v4());
    sim.run_workers();
    assert!(publisher.take().is_empty());
}

fn churn(sim: &mut Sim) {
    use std::sync::atomic::Ordering::Relaxed;
    let before = sim.log().figures.removed.load(Relaxed);
    let publisher = Client::online(sim, &Connecting::v5("churn-p"));
    for round in 0..30 {
        offline_subscriber(sim, "busy", "churn/#", 1);
        for id in 1..=100u16 {
            publisher.send(sim, Publishing::q1("churn/x", &format!("{round:064}"), id).v5());
        }
        let _ = publisher.take();
        let busy = Client::online(sim, &Connecting::v5("busy"));
        busy.drop_connection(sim);
        sim.advance_s(10);
        if sim.log().figures.removed.load(Relaxed) > before + 2 {
            break;
        }
    }
    assert!(sim.log().figures.removed.load(Relaxed) > before);
    publisher.drop_connection(sim);
}

#[test]
fn a_retained_message_that_was_delivered_once_can_be_delivered_again_after_a_crash() {
    for fill in [10u16, 20, 30, 40, 50, 60, 80] {
        let mut sim = durable(1);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publisher.send(&mut sim, Publishing::q1("r/x", "hello", 1).retain().v5());
        let s = Client::online(&mut sim, &persistent("s"));
        s.send(&mut sim, Subscribing::to("r/#", 1).v5());
        assert_eq!(s.take().len(), 2);
        offline_subscriber(&mut sim, "busy2", "fill/#", 1);
        // So that the acknowledgement is in a later segment.
        for id in 1..=fill * 3 {
            publisher.send(&mut sim, Publishing::q1("fill/x", &"y".repeat(200), id).v5());
        }
        s.send(&mut sim, puback(1));
        for id in 1..=60u16 {
            publisher.send(&mut sim, Publishing::q1("fill/x", &"y".repeat(200), id).v5());
        }
        let busy = Client::online(&mut sim, &Connecting::v5("busy2"));
        busy.drop_connection(&mut sim);
        sim.advance_s(1);
        use std::sync::atomic::Ordering::Relaxed;
        let removed = sim.log().figures.removed.load(Relaxed);
        s.send(&mut sim, Subscribing::to("r/#", 1).v5());
        let texts = s.take();
        assert_eq!(texts.len(), 2, "{texts:?}");
        let mut sim = power_cut(sim, 1);
        let again = Client::connect(&mut sim, &persistent("s"));
        let texts = again.take();
        assert_eq!(texts.len(), 2, "fill {fill} removed {removed} {texts:?}");
    }
}

#[test]
fn copies_for_overlapping_subscriptions_keep_their_own_packet_identifiers() {
    let settings = Settings { overlap: OverlapPolicy::Separate, ..Settings::default() };
    let mut sim = Sim::with_disk(1, settings.clone(), SimDisk::default(), 7);
    let s = Client::online(&mut sim, &persistent("s"));
    s.send(&mut sim, Subscribing::to("t/#", 2).and("t/x", 2).v5());
    let _ = s.take();
    let p = Client::online(&mut sim, &Connecting::v5("p"));
    p.send(&mut sim, Publishing::q2("t/x", "m", 1).v5());
    assert_eq!(s.take().len(), 2);
    let mut sim = Sim::with_disk(1, settings, sim.crash(1), 7);
    let s = Client::connect(&mut sim, &persistent("s"));
    let texts = s.take();
    assert_eq!(texts.len(), 3, "{texts:?}");
    let _ = (pubrec(1), pubcomp(1), pubrel(1));
}

#[test]
fn a_retained_message_survives_cleaning_beside_its_deliveries() {
    for variant in 0..4 {
        let mut sim = durable(1);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publisher.send(&mut sim, Publishing::q1("r/x", "hello", 1).retain().v5());
        if variant & 1 == 1 {
            sim = Sim::with_disk(1, short(1), sim.crash(1), 7);
        }
        if variant & 2 == 2 {
            let s = Client::online(&mut sim, &persistent("s"));
            s.send(&mut sim, Subscribing::to("r/#", 1).v5());
            assert_eq!(s.take().len(), 2);
        }
        churn(&mut sim);
        let s1 = Client::online(&mut sim, &Connecting::v5("s1"));
        s1.send(&mut sim, Subscribing::to("r/#", 1).v5());
        let before = s1.take();
        let dropped = sim.stats().dropped;
        eprintln!("{dropped:?}");
        let mut sim = power_cut(sim, 1);
        let s2 = Client::online(&mut sim, &Connecting::v5("s2"));
        s2.send(&mut sim, Subscribing::to("r/#", 1).v5());
        eprintln!("variant {variant}: before {before:?} after {}", s2.take().len());
    }
}

#[test]
fn a_retained_message_that_waited_for_a_session_does_not_keep_the_broker_from_starting() {
    use std::sync::atomic::Ordering::Relaxed;
    let mut sim = durable(1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("r/x", "hello", 1).retain().v5());
    let mut sim = Sim::with_disk(1, short(1), sim.crash(1), 7);
    let s = Client::online(&mut sim, &persistent("s"));
    s.send(&mut sim, Subscribing::to("r/#", 1).v5());
    let before = sim.log().figures.removed.load(Relaxed);
    let publisher = Client::online(&mut sim, &Connecting::v5("churn-p"));
    while sim.log().figures.removed.load(Relaxed) == before {
        offline_subscriber(&mut sim, "busy", "churn/#", 1);
        for id in 1..=100u16 {
            publisher.send(&mut sim, Publishing::q1("churn/x", &"y".repeat(64), id).v5());
        }
        Client::online(&mut sim, &Connecting::v5("busy")).drop_connection(&mut sim);
    }
    let _ = power_cut(sim, 1);
}

#[test]
fn a_retained_message_for_sessions_on_several_workers_is_read_back_for_each() {
    for topic in 0..4 {
        let topic = format!("r/{topic}");
        let mut sim = Sim::with_disk(2, short(1), SimDisk::default(), 7);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publisher.send(&mut sim, Publishing::q1(&topic, "hello", 1).retain().v5());
        for name in ["s1", "s2", "s3", "s4", "s5", "s6"] {
            let s = Client::online(&mut sim, &persistent(name));
            s.send(&mut sim, Subscribing::to("r/#", 1).v5());
            assert_eq!(s.take().len(), 2, "{name}");
        }
    }
}

#[test]
fn a_retained_replay_leaves_the_backlog_where_it_is() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s", "t/#", 1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t/x", "hello", 1).retain().v5());
    publisher.send(&mut sim, Publishing::q1("t/y", "behind", 2).v5());
    let mut sim = power_cut(sim, 1);
    let s2 = Client::online(&mut sim, &persistent("s2"));
    s2.send(&mut sim, Subscribing::to("t/#", 1).v5());
    assert_eq!(s2.take().len(), 2);
    let s = Client::connect(&mut sim, &persistent("s"));
    sim.advance_s(10);
    let texts = s.take();
    assert_eq!(texts.len(), 3, "{texts:?}");
}

#[test]
fn cleaning_leaves_what_a_clean_session_still_waits_for() {
    use std::sync::atomic::Ordering::Relaxed;
    let mut sim = Sim::with_disk(1, short(1), SimDisk::default(), 7);
    let slow = Client::online(&mut sim, &Connecting::v5("slow").with(Property::ReceiveMaximum(1)));
    slow.send(&mut sim, Subscribing::to("t/#", 1).v5());
    let fast = Client::online(&mut sim, &persistent("fast"));
    fast.send(&mut sim, Subscribing::to("t/#", 1).v5());
    let _ = fast.take();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=5 {
        publisher.send(&mut sim, Publishing::q1("t/x", &format!("m{id}"), id).v5());
        fast.send(&mut sim, puback(id));
    }
    let _ = fast.take();
    let before = sim.log().figures.removed.load(Relaxed);
    let churner = Client::online(&mut sim, &Connecting::v5("churn-p"));
    while sim.log().figures.removed.load(Relaxed) == before {
        offline_subscriber(&mut sim, "busy", "churn/#", 1);
        for id in 1..=100u16 {
            churner.send(&mut sim, Publishing::q1("churn/x", &"y".repeat(64), id).v5());
        }
        Client::online(&mut sim, &Connecting::v5("busy")).drop_connection(&mut sim);
    }
    let mut count = slow.take().len() - 1;
    for id in 1..=5 {
        slow.send(&mut sim, puback(id));
        count += slow.take().len();
    }
    assert_eq!(count, 5, "{:?}", sim.stats().dropped);
}

#[test]
fn a_payload_that_is_half_written_is_not_let_go() {
    let mut sim = Sim::with_disk(1, short(1), SimDisk::default(), 7);
    offline_subscriber(&mut sim, "d", "t/#", 1);
    let slow = Client::online(&mut sim, &Connecting::v5("slow"));
    slow.send(&mut sim, Subscribing::to("t/#", 1).v5());
    let _ = slow.take();
    slow.limit_room(1000);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t/x", &"x".repeat(40_000), 1).v5());
    sim.advance_s(1);
    slow.unlimited(&mut sim);
    sim.advance_s(1);
    assert_eq!(slow.take().len(), 1);
}

#[test]
fn messages_that_are_on_disk_are_not_composed_for_several_at_once() {
    let mut sim = Sim::with_disk(1, short(1), SimDisk::default(), 7);
    offline_subscriber(&mut sim, "d", "t/#", 1);
    let slow = Client::online(&mut sim, &Connecting::v5("slow"));
    slow.send(&mut sim, Subscribing::to("t/#", 0).v5());
    let _ = slow.take();
    slow.limit_room(10);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q0("r/x", "something in memory").retain().v5());
    for id in 1..=60 {
        publisher.send(&mut sim, Publishing::q1("t/x", "one", id).v5());
    }
    sim.advance_s(1);
    slow.unlimited(&mut sim);
    sim.advance_s(1);
    assert_eq!(slow.take().len(), 60);
}

#[test]
fn a_delivery_that_a_full_queue_did_not_take_holds_nobody_back() {
    let mut settings = Settings::default();
    settings.limits.queue.messages_max = 4;
    settings.backpressure_ms = 0;
    let mut sim = Sim::with_disk(1, settings, SimDisk::default(), 7);
    offline_subscriber(&mut sim, "s1", "t/#", 1);
    let m1 = Client::online(&mut sim, &persistent("m1").with(Property::ReceiveMaximum(1)));
    m1.send(&mut sim, Subscribing::to("$share/g/t/#", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        publisher.send(&mut sim, Publishing::q1("t/x", &format!("m{id}"), id).v5());
    }
    let m2 = Client::online(&mut sim, &persistent("m2"));
    m2.send(&mut sim, Subscribing::to("$share/g/t/#", 1).and("fill/#", 1).v5());
    m2.drop_connection(&mut sim);
    for id in 1..=4 {
        publisher.send(&mut sim, Publishing::q1("fill/x", "f", id).v5());
    }
    m1.drop_connection(&mut sim);
    let s1 = Client::connect(&mut sim, &persistent("s1"));
    sim.advance_s(10);
    let texts = s1.take();
    assert_eq!(texts.len(), 4, "{texts:?}");
}

#[test]
fn a_will_is_with_its_session_or_published_whenever_the_power_goes() {
    // Two workers: the will's message waits for the other one, the session's record does not.
    let mut lost = 0;
    for name in ["w", "w1", "w2", "w3", "w4", "x", "y", "z"] {
        for first in [0, 1] {
            let mut sim = durable(2);
            offline_subscriber(&mut sim, "d", "will/#", 1);
            let client =
                Client::online(&mut sim, &persistent(name).will("will/x", "gone", 1, false));
            sim.advance_s(1);
            let _ = client.take();
            client.write([0xE0, 0x01, 0x04]); // DISCONNECT with will
            sim.turn(first);
            sim.run_storage_step();
            sim.run_storage_step();
            let mut sim = Sim::with_disk(2, Settings::default(), sim.kill(), 7);
            sim.advance_s(1);
            let d = Client::connect(&mut sim, &persistent("d"));
            sim.advance_s(1);
            let texts = d.take();
            eprintln!("{name} {first} {}", texts.len());
            if texts.len() != 2 {
                lost += 1;
            }
        }
    }
    assert_eq!(lost, 0);
}

#[test]
fn a_client_is_not_told_that_its_session_is_gone_before_that_is_safe() {
    let mut sim = durable(1);
    let c = Client::online(&mut sim, &persistent("c"));
    c.send(&mut sim, Subscribing::to("t/#", 1).v5());
    // DISCONNECT with a session expiry of 0.
    c.write([0xE0, 0x07, 0x00, 0x05, 0x11, 0, 0, 0, 0]);
    sim.run_workers();
    let c2 = sim.client();
    c2.write(Connecting::v5("c").resume().bytes());
    sim.run_workers();
    assert!(c2.take().is_empty());
    sim.run();
    assert!(c2.take()[0].starts_with("CONNACK Success ["));
    let mut sim = power_cut(sim, 1);
    let c3 = Client::connect(&mut sim, &Connecting::v5("c").resume());
    let t = c3.take();
    assert!(!t[0].contains("present"), "{t:?}");
}

#[test]
fn what_a_clean_member_leaves_to_a_durable_one_is_kept() {
    let mut sim = durable(1);
    let clean =
        Client::online(&mut sim, &Connecting::v5("clean").with(Property::ReceiveMaximum(1)));
    clean.send(&mut sim, Subscribing::to("$share/g/t/#", 1).v5());
    offline_subscriber(&mut sim, "m", "$share/g/t/#", 1);
    let p = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        p.send(&mut sim, Publishing::q1("t/x", &format!("m{id}"), id).v5());
    }
    assert_eq!(p.take().len(), 3);
    clean.drop_connection(&mut sim);
    sim.advance_s(10);
    let mut sim = power_cut(sim, 1);
    let m = Client::connect(&mut sim, &persistent("m"));
    let texts = m.take();
    assert_eq!(texts.len(), 4, "{texts:?}");
}

#[test]
fn a_session_in_a_group_and_beside_it_gets_both_copies_after_a_crash() {
    let mut sim = durable(1);
    let s = Client::online(&mut sim, &persistent("s"));
    s.send(&mut sim, Subscribing::to("t/#", 2).and("$share/g/t/#", 2).v5());
    let _ = s.take();
    let p = Client::online(&mut sim, &Connecting::v5("p"));
    p.send(&mut sim, Publishing::q2("t/x", "m", 1).v5());
    assert_eq!(s.take().len(), 2);
    let mut sim = power_cut(sim, 1);
    let s = Client::connect(&mut sim, &persistent("s"));
    let texts = s.take();
    assert_eq!(texts.len(), 3, "{texts:?}");
    // The client has #2 from before the crash: another message under it is taken for that one.
    let p = Client::online(&mut sim, &Connecting::v5("p"));
    p.send(&mut sim, Publishing::q2("u/x", "n", 1).v5());
}
