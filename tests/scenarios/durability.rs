//! What a crash leaves, and what is acknowledged when.

use dunlin::worker::{RetainedLimits, Settings};
use dunlin_packets::Property;
use dunlin_tests::{
    Client, Connecting, Publishing, Sim, SimDisk, Subscribing, puback, pubcomp, pubrec, pubrel,
    unsubscribe,
};

fn durable(workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), SimDisk::default(), 7)
}

/// The power goes, and the broker starts again on what is certain to be on the disk.
fn power_cut(sim: Sim, workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), sim.crash(1), 7)
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(3600)
}

/// What has come, the properties of a CONNACK left out.
fn taken(client: &Client) -> Vec<String> {
    let mut texts = client.take();
    if let Some(first) = texts.first_mut().filter(|first| first.starts_with("CONNACK")) {
        first.truncate(first.find(" [").unwrap_or(first.len()));
    }
    texts
}

/// A subscriber with a session that outlives its connection, which has just ended.
fn offline_subscriber(sim: &mut Sim, client_id: &str, qos: u8) {
    let subscriber = Client::online(sim, &persistent(client_id));
    subscriber.send(sim, Subscribing::to("t/#", qos).v5());
    subscriber.drop_connection(sim);
}

#[test]
fn an_offline_session_gets_what_was_acknowledged_before_the_power_went() {
    for workers in [1, 2, 4] {
        let mut sim = durable(workers);
        for name in ["s1", "s2", "s3"] {
            offline_subscriber(&mut sim, name, 1);
        }
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for id in 1..=3 {
            publisher.send(&mut sim, Publishing::q1("t/x", &format!("m{id}"), id).v5());
        }
        assert_eq!(publisher.take(), ["PUBACK 1", "PUBACK 2", "PUBACK 3"]);
        let mut sim = power_cut(sim, 3);
        for name in ["s1", "s2", "s3"] {
            let subscriber = Client::connect(&mut sim, &persistent(name));
            assert_eq!(
                taken(&subscriber),
                [
                    "CONNACK Success present",
                    "PUBLISH t/x \"m1\" q1 id=1",
                    "PUBLISH t/x \"m2\" q1 id=2",
                    "PUBLISH t/x \"m3\" q1 id=3"
                ],
                "{workers} workers, {name}"
            );
        }
    }
}

#[test]
fn an_acknowledgement_waits_for_the_sync() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s", 1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q1("t/x", "m", 1).v5());
    sim.run_workers();
    assert!(publisher.take().is_empty());
    sim.run();
    assert_eq!(publisher.take(), ["PUBACK 1"]);
}

#[test]
fn what_only_clean_sessions_get_never_touches_the_disk() {
    let mut sim = durable(2);
    let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
    subscriber.send(&mut sim, Subscribing::to("t/#", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let before = sim.disk().bytes();
    publisher.write(Publishing::q1("t/x", "m", 1).v5());
    sim.run_workers();
    assert_eq!(publisher.take(), ["PUBACK 1"]);
    sim.advance_s(1);
    assert_eq!(sim.disk().bytes(), before);
}

#[test]
fn acknowledgements_keep_their_order_whether_they_wait_or_not() {
    let mut sim = durable(2);
    offline_subscriber(&mut sim, "s", 1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.write(Publishing::q1("t/x", "kept", 1).v5());
    publisher.write(Publishing::q1("nobody", "not kept", 2).v5());
    sim.run_workers();
    assert!(publisher.take().is_empty());
    sim.run();
    assert_eq!(publisher.take(), ["PUBACK 1", "PUBACK 2 NoMatchingSubscribers"]);
}

#[test]
fn nobody_gets_what_a_crash_could_take_back() {
    let mut sim = durable(2);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t/#", 2).v5());
    let _ = subscriber.take();
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.write(Publishing::q2("t/x", "m", 1).v5());
    sim.run_workers();
    assert!(subscriber.take().is_empty());
    sim.run();
    assert_eq!(subscriber.take(), ["PUBLISH t/x \"m\" q2 id=1"]);
}

#[test]
fn a_qos_2_delivery_goes_on_where_it_was_when_the_power_went() {
    let mut sim = durable(2);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t/#", 2).v5());
    let publisher = Client::online(&mut sim, &persistent("p"));
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
        publisher.send(&mut sim, Publishing::q2("t/x", payload, id).v5());
    }
    assert_eq!(subscriber.take().len(), 4);
    // The first is over, the second released, the third not.
    subscriber.send(&mut sim, pubrec(1));
    subscriber.send(&mut sim, pubcomp(1));
    subscriber.send(&mut sim, pubrec(2));
    assert_eq!(subscriber.take(), ["PUBREL 1", "PUBREL 2"]);
    sim.advance_s(1);
    let mut sim = power_cut(sim, 1);
    let subscriber = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(
        taken(&subscriber),
        ["CONNACK Success present", "PUBREL 2", "PUBLISH t/x \"c\" q2 id=3 dup"]
    );
    subscriber.send(&mut sim, pubcomp(2));
    subscriber.send(&mut sim, pubrec(3));
    assert_eq!(subscriber.take(), ["PUBREL 3"]);
}

#[test]
fn a_qos_2_publication_that_comes_again_after_the_crash_is_not_published_again() {
    for workers in [1, 2, 3] {
        let mut sim = durable(workers);
        offline_subscriber(&mut sim, "s", 2);
        offline_subscriber(&mut sim, "s2", 2);
        let publisher = Client::online(&mut sim, &persistent("p"));
        publisher.send(&mut sim, Publishing::q2("t/x", "m", 9).v5());
        assert_eq!(publisher.take(), ["PUBREC 9"]);
        let mut sim = power_cut(sim, workers);
        let publisher = Client::online(&mut sim, &persistent("p"));
        publisher.send(&mut sim, Publishing::q2("t/x", "m", 9).dup().v5());
        assert_eq!(publisher.take(), ["PUBREC 9"]);
        publisher.send(&mut sim, pubrel(9));
        assert_eq!(publisher.take(), ["PUBCOMP 9"]);
        let mut sim = power_cut(sim, workers);
        for name in ["s", "s2"] {
            let subscriber = Client::connect(&mut sim, &persistent(name));
            assert_eq!(subscriber.take().len(), 2, "once");
            subscriber.drop_connection(&mut sim);
        }
        // The identifier is free: the next one under it is another.
        let publisher = Client::online(&mut sim, &persistent("p"));
        publisher.send(&mut sim, Publishing::q2("t/y", "n", 9).v5());
        let subscriber = Client::connect(&mut sim, &persistent("s"));
        assert_eq!(
            subscriber.take()[1..],
            ["PUBLISH t/x \"m\" q2 id=1 dup", "PUBLISH t/y \"n\" q2 id=2"]
        );
    }
}

#[test]
fn a_qos_1_delivery_that_may_have_been_made_before_the_crash_is_marked_as_a_repetition() {
    let mut sim = durable(1);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t/#", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let publish = |sim: &mut Sim, id: u16| {
        publisher.write(Publishing::q1("t/x", &format!("m{id}"), id).v5());
        sim.run_workers();
        // The message is safe, and goes out. That it has is on its way to the log.
        sim.run_storage_step();
        sim.run_workers();
    };
    publish(&mut sim, 1);
    assert_eq!(subscriber.take().last().expect("a packet"), "PUBLISH t/x \"m1\" q1 id=1");
    let mut sim = power_cut(sim, 1);
    let subscriber = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(taken(&subscriber)[1..], ["PUBLISH t/x \"m1\" q1 id=1 dup"]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t/x", "new", 1).v5());
    assert_eq!(subscriber.take(), ["PUBLISH t/x \"new\" q1 id=2"]);
}

#[test]
fn a_qos_2_publication_that_nobody_has_to_get_is_remembered_for_its_publisher_all_the_same() {
    for topic in ["nobody/x", "clean/x"] {
        let mut sim = durable(2);
        let publisher = Client::online(&mut sim, &persistent("p"));
        let clean = Client::online(&mut sim, &Connecting::v5("c"));
        clean.send(&mut sim, Subscribing::to("clean/#", 2).v5());
        let publish = Publishing::q2(topic, "once", 5);
        publisher.write(publish.clone().v5());
        sim.run_workers();
        assert!(publisher.take().is_empty(), "its packet identifier is not safe yet");
        sim.run();
        assert!(publisher.take()[0].starts_with("PUBREC 5"));
        let mut sim = power_cut(sim, 1);
        let publisher = Client::connect(&mut sim, &persistent("p"));
        let clean = Client::online(&mut sim, &Connecting::v5("c"));
        clean.send(&mut sim, Subscribing::to("clean/#", 2).v5());
        publisher.send(&mut sim, publish.dup().v5());
        publisher.send(&mut sim, pubrel(5));
        let expected = ["CONNACK Success present", "PUBREC 5", "PUBCOMP 5"];
        assert_eq!(taken(&publisher), expected);
        assert_eq!(clean.take().len(), 1, "the SUBACK");
    }
}

/// Lets the workers and the log take so many steps in turn.
fn take_steps(sim: &mut Sim, workers: usize, steps: usize) {
    for step in 0..steps {
        match step % (workers + 1) {
            worker if worker < workers => sim.turn(worker),
            _ => {
                sim.run_storage_step();
            }
        }
    }
}

#[test]
fn a_qos_2_publication_that_could_not_be_retained_is_delivered_once_wherever_a_crash_comes() {
    let settings = Settings {
        retained: RetainedLimits { messages_max: 1, bytes_max: 1000 },
        ..Settings::default()
    };
    let first = || Publishing::q2("t/new", "first", 5).retain();
    let cases = |workers| (0..24).flat_map(move |steps| [(workers, steps, 0), (workers, steps, 1)]);
    for (workers, steps, is_power_cut) in [1, 2].into_iter().flat_map(cases) {
        let case = format!("{workers} workers, {steps} steps, power cut {is_power_cut}");
        let mut sim = Sim::with_disk(workers, settings.clone(), SimDisk::default(), 7);
        offline_subscriber(&mut sim, "s", 2);
        let publisher = Client::online(&mut sim, &persistent("p"));
        publisher.send(&mut sim, Publishing::q1("known", "x", 1).retain().v5());
        assert_eq!(publisher.take().len(), 1);
        publisher.write(first().v5());
        take_steps(&mut sim, workers, steps);
        let answers = publisher.take();
        let disk = if is_power_cut == 1 { sim.crash(steps as u64) } else { sim.kill() };
        let mut sim = Sim::with_disk(workers, settings.clone(), disk, 8);
        let publisher = Client::connect(&mut sim, &persistent("p"));
        if answers.is_empty() {
            publisher.send(&mut sim, first().dup().v5());
        } else {
            assert!(
                answers[0].starts_with("PUBREC 5 [ReasonString(\"deliv"),
                "{case}: {answers:?}"
            );
        }
        publisher.send(&mut sim, pubrel(5));
        publisher.send(&mut sim, Publishing::q2("t/x", "second", 5).v5());
        let _ = publisher.take();
        let subscriber = Client::connect(&mut sim, &persistent("s"));
        let texts = subscriber.take();
        for payload in ["first", "second"] {
            let count = texts.iter().filter(|text| text.contains(payload)).count();
            assert_eq!(count, 1, "{case}: {payload}: {texts:?}");
        }
    }
}

#[test]
fn a_qos_2_publication_of_a_session_that_ends_with_its_connection_costs_the_disk_nothing() {
    let mut sim = durable(2);
    offline_subscriber(&mut sim, "s", 2);
    sim.advance_s(1);
    let before = sim.disk().bytes();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q2("nobody/x", "once", 5).v5());
    publisher.send(&mut sim, pubrel(5));
    assert_eq!(publisher.take(), ["PUBREC 5 NoMatchingSubscribers", "PUBCOMP 5"]);
    assert_eq!(sim.disk().bytes(), before);
}

#[test]
fn subscriptions_survive_with_all_their_options() {
    let mut sim = durable(2);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("a/#", 2).no_local().identifier(5).v5());
    subscriber.send(&mut sim, Subscribing::to("b/#", 1).as_published().v5());
    subscriber.send(&mut sim, Subscribing::to("c/#", 1).v5());
    subscriber.send(&mut sim, unsubscribe(9, &["c/#"]));
    let mut sim = power_cut(sim, 3);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Publishing::q1("a/x", "own", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("a/x", "other", 1).v5());
    publisher.send(&mut sim, Publishing::q1("b/x", "kept", 2).retain().v5());
    publisher.send(&mut sim, Publishing::q1("c/x", "gone", 3).v5());
    let texts = subscriber.take();
    assert!(texts[0].starts_with("PUBACK 1"), "{texts:?}");
    assert_eq!(
        texts[1..],
        [
            "PUBLISH a/x \"other\" q1 id=1 [SubscriptionIdentifier(5)]",
            "PUBLISH b/x \"kept\" q1 id=2 retain"
        ]
    );
}

#[test]
fn a_session_expires_over_a_restart_and_its_will_goes_out() {
    let mut sim = durable(1);
    let watcher_of = |sim: &mut Sim| {
        let watcher = Client::online(sim, &Connecting::v5("w"));
        watcher.send(sim, Subscribing::to("will/#", 1).v5());
        let _ = watcher.take();
        watcher
    };
    let with_will = Connecting::v5("s")
        .resume()
        .expiry(100)
        .will("will/s", "gone", 1, false)
        .will_with(Property::WillDelayInterval(50));
    let client = Client::online(&mut sim, &with_will);
    client.drop_connection(&mut sim);
    sim.advance_s(10);
    let mut sim = power_cut(sim, 1);
    let watcher = watcher_of(&mut sim);
    sim.advance_s(39);
    assert!(watcher.take().is_empty());
    sim.advance_s(2);
    assert_eq!(watcher.take(), ["PUBLISH will/s \"gone\" q1 id=1"]);
    sim.advance_s(40);
    let again = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(taken(&again), ["CONNACK Success present"]);
    again.drop_connection(&mut sim);
    sim.advance_s(3601);
    let mut sim = power_cut(sim, 2);
    let again = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(taken(&again), ["CONNACK Success"]);
}

#[test]
fn retained_messages_survive_and_their_deletion_too() {
    for workers in [1, 3] {
        let mut sim = durable(workers);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for (id, topic) in (1..).zip(["r/1", "r/2", "r/3", "r/4"]) {
            publisher.send(&mut sim, Publishing::q1(topic, "old", id).retain().v5());
        }
        publisher.send(&mut sim, Publishing::q1("r/2", "new", 5).retain().v5());
        publisher.send(&mut sim, Publishing::q1("r/3", "", 6).retain().v5());
        assert_eq!(publisher.take().len(), 6);
        let mut sim = power_cut(sim, workers);
        let reader = Client::online(&mut sim, &Connecting::v5("x"));
        reader.send(&mut sim, Subscribing::to("r/#", 0).v5());
        let mut texts = reader.take()[1..].to_vec();
        texts.sort();
        assert_eq!(
            texts,
            [
                "PUBLISH r/1 \"old\" retain",
                "PUBLISH r/2 \"new\" retain",
                "PUBLISH r/4 \"old\" retain"
            ]
        );
    }
}

#[test]
fn a_session_that_was_discarded_does_not_come_back() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s", 1);
    let clean = Client::connect(&mut sim, &Connecting::v5("s"));
    assert_eq!(taken(&clean), ["CONNACK Success"]);
    let mut sim = power_cut(sim, 1);
    let again = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(taken(&again), ["CONNACK Success"]);
}

#[test]
fn what_was_acknowledged_by_the_client_does_not_come_again_after_a_clean_end() {
    let mut sim = durable(2);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t/#", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t/x", "m", 1).v5());
    subscriber.send(&mut sim, puback(1));
    let _ = subscriber.take();
    sim.begin_shutdown();
    sim.advance_s(10);
    assert!(sim.is_finished());
    let mut sim = Sim::with_disk(2, Settings::default(), sim.kill(), 7);
    let subscriber = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(taken(&subscriber), ["CONNACK Success present"]);
}
