//! The log over time: its space, its limits, its failures, and what is read back from it.

use dunlin::worker::{Durability, Level, Settings};
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, Subscribing, puback};

fn with(workers: usize, durability: Durability) -> Sim {
    let settings = Settings { durability, ..Settings::default() };
    Sim::with_disk(workers, settings, SimDisk::default(), 7)
}

fn durable(workers: usize) -> Sim {
    with(workers, Durability::default())
}

fn restarted(sim: Sim, workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), sim.crash(1), 7)
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(100_000)
}

fn offline_subscriber(sim: &mut Sim, client_id: &str, filter: &str) {
    let subscriber = Client::online(sim, &persistent(client_id));
    subscriber.send(sim, Subscribing::to(filter, 1).v5());
    subscriber.drop_connection(sim);
}

/// Publishes so many messages of 64 bytes, numbered from `first` on.
fn publish_many(sim: &mut Sim, publisher: &Client, topic: &str, first: usize, count: usize) {
    for number in first..first + count {
        let id = (number % 60_000) as u16 + 1;
        publisher.send(sim, Publishing::q1(topic, &format!("{number:064}"), id).v5());
    }
    assert_eq!(publisher.take().len(), count);
}

/// Connects, acknowledges everything that comes, and says which numbers that were.
fn drain(sim: &mut Sim, client_id: &str) -> Vec<usize> {
    let subscriber = Client::connect(sim, &persistent(client_id));
    let mut numbers = Vec::new();
    let mut is_first = true;
    loop {
        let mut texts = subscriber.take();
        if std::mem::take(&mut is_first) {
            assert!(texts.remove(0).starts_with("CONNACK Success present"));
        }
        if texts.is_empty() {
            subscriber.drop_connection(sim);
            return numbers;
        }
        for text in texts {
            let payload = text.split('"').nth(1).expect("a payload");
            numbers.push(payload.parse().expect("a number"));
            let id = text.split("id=").nth(1).expect("an identifier");
            let id = id.split(' ').next().and_then(|id| id.parse().ok()).expect("a number");
            subscriber.write(puback(id));
        }
        sim.run();
    }
}

#[test]
fn a_backlog_that_memory_has_no_room_for_is_on_disk_and_comes_back_in_order() {
    for workers in [1, 2] {
        let mut sim = with(workers, Durability { memory_bytes: 2_000, ..Durability::default() });
        offline_subscriber(&mut sim, "s1", "t/#");
        offline_subscriber(&mut sim, "s2", "t/#");
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publish_many(&mut sim, &publisher, "t/x", 0, 500);
        assert!(sim.stats().message_bytes_held < 20_000, "{}", sim.stats().message_bytes_held);
        assert_eq!(drain(&mut sim, "s1"), (0..500).collect::<Vec<_>>());
        assert_eq!(drain(&mut sim, "s2"), (0..500).collect::<Vec<_>>());
        assert_eq!(sim.messages_held(), 0);
    }
}

#[test]
fn expired_messages_are_dropped_without_being_read_back() {
    let mut sim = with(1, Durability { memory_bytes: 0, ..Durability::default() });
    offline_subscriber(&mut sim, "s", "t/#");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=100 {
        let expiring = Publishing::q1("t/x", "1", id).with(Property::MessageExpiryInterval(10));
        publisher.send(&mut sim, expiring.v5());
    }
    assert_eq!(publisher.take().len(), 100);
    publish_many(&mut sim, &publisher, "t/x", 7, 1);
    sim.advance_s(11);
    // Everything before the last is damaged: whoever reads it back finds that out.
    sim.disk().damage_all();
    let subscriber = Client::connect(&mut sim, &persistent("s"));
    assert_eq!(subscriber.take().len(), 1, "the CONNACK");
    let dropped = sim.stats().dropped;
    assert_eq!(dropped[dunlin_queue::DropReason::Expired as usize], 100);
    assert_eq!(dropped[dunlin_queue::DropReason::Unreadable as usize], 1);
}

#[test]
fn space_is_given_back_while_one_session_is_away_for_a_week() {
    for workers in [1, 3] {
        let mut sim = durable(workers);
        offline_subscriber(&mut sim, "away", "t/rare");
        offline_subscriber(&mut sim, "busy", "t/#");
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publisher.send(&mut sim, Publishing::q1("r/1", "kept", 1).retain().v5());
        let _ = publisher.take();
        let mut largest = 0;
        for round in 0..40 {
            publish_many(&mut sim, &publisher, "t/rare", 1000 * round, 1);
            publish_many(&mut sim, &publisher, "t/often", 1000 * round + 1, 99);
            assert_eq!(drain(&mut sim, "busy").len(), 100);
            sim.advance_s(10);
            largest = largest.max(sim.disk().bytes());
        }
        // A megabyte has been written.
        assert!(largest < 250_000, "{largest}");
        let mut sim = restarted(sim, workers);
        let numbers: Vec<usize> = (0..40).map(|round| 1000 * round).collect();
        assert_eq!(drain(&mut sim, "away"), numbers);
        assert!(drain(&mut sim, "busy").is_empty());
        let reader = Client::online(&mut sim, &Connecting::v5("x"));
        reader.send(&mut sim, Subscribing::to("r/#", 0).v5());
        assert_eq!(reader.take()[1..], ["PUBLISH r/1 \"kept\" retain"]);
    }
}

#[test]
fn space_is_given_back_as_fast_as_clients_write() {
    for (workers, size) in [(1, 2000), (1, 4000), (1, 12_000), (2, 3000), (2, 8000)] {
        let mut sim = durable(workers);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let mut largest = 0;
        for _ in 0..300 {
            // Each is dead with the next one, and the log is never left in peace.
            for id in 1..=3 {
                publisher.write(Publishing::q1("r", &"x".repeat(size), id).retain().v5());
            }
            sim.run_workers();
            sim.run_storage_step();
            publisher.discard();
            largest = largest.max(sim.disk().bytes());
        }
        // Some megabytes have been written. Cleaning begins at 48 KiB, and is a few steps behind.
        let limit = (80_000 + 12 * size) as u64;
        assert!(largest < limit, "{largest}, {size} with {workers} workers");
    }
}

#[test]
fn subscriptions_and_packets_in_flight_are_carried_over_when_their_records_are_old() {
    let mut sim = durable(2);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("mine", 1).and("other", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publish_many(&mut sim, &publisher, "mine", 1, 2);
    // Never acknowledged.
    assert_eq!(subscriber.take().len(), 3);
    offline_subscriber(&mut sim, "busy", "t/#");
    for round in 0..20 {
        publish_many(&mut sim, &publisher, "t/often", 1000 * round, 100);
        assert_eq!(drain(&mut sim, "busy").len(), 100);
        sim.advance_s(10);
    }
    assert!(sim.log().figures.removed.load(std::sync::atomic::Ordering::Relaxed) > 10);
    let mut sim = restarted(sim, 1);
    let subscriber = Client::connect(&mut sim, &persistent("s"));
    let texts = subscriber.take();
    assert!(texts[1].ends_with("q1 id=1 dup") && texts[2].ends_with("q1 id=2 dup"), "{texts:?}");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publish_many(&mut sim, &publisher, "other", 1, 1);
    assert_eq!(subscriber.take().len(), 1);
}

#[test]
fn a_full_disk_refuses_new_messages_with_a_reason_and_takes_them_again_when_there_is_room() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s", "t/#");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publish_many(&mut sim, &publisher, "t/x", 0, 10);
    let bytes = sim.disk().bytes() as usize;
    sim.disk().limit_capacity(bytes + 100);
    publisher.send(&mut sim, Publishing::q1("t/x", &format!("{:064}", 10), 11).v5());
    assert!(publisher.take().is_empty(), "it is not safe, so it is not acknowledged");
    let other = Client::online(&mut sim, &Connecting::v5("p2"));
    other.send(&mut sim, Publishing::q1("t/x", "refused", 1).v5());
    // What only clean sessions get needs no disk.
    other.send(&mut sim, Publishing::q1("elsewhere", "x", 2).v5());
    assert_eq!(other.take(), ["PUBACK 1 QuotaExceeded", "PUBACK 2 NoMatchingSubscribers"]);
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    old.send(&mut sim, Publishing::q1("t/x", "refused", 1).v4());
    assert_eq!(old.take(), ["CLOSED"], "before 5.0 there is no other way to say it");
    sim.disk().unlimited();
    sim.advance_s(1);
    assert_eq!(publisher.take(), ["PUBACK 11"]);
    publish_many(&mut sim, &publisher, "t/x", 11, 2);
    let mut sim = restarted(sim, 1);
    assert_eq!(drain(&mut sim, "s"), (0..13).collect::<Vec<_>>());
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_that_has_to_be_kept() {
    let mut sim = durable(1);
    offline_subscriber(&mut sim, "s", "t/#");
    let clean = Client::online(&mut sim, &Connecting::v5("clean"));
    clean.send(&mut sim, Subscribing::to("clean/#", 1).v5());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publish_many(&mut sim, &publisher, "t/x", 0, 3);
    sim.disk().fail_syncs_after(0);
    publisher.send(&mut sim, Publishing::q1("t/x", "3", 9).v5());
    assert_eq!(publisher.take(), ["DISCONNECT ImplementationSpecificError", "CLOSED"]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q1("t/x", "refused", 1).v5());
    assert_eq!(publisher.take(), ["PUBACK 1 ImplementationSpecificError"]);
    publisher.send(&mut sim, Publishing::q1("clean/x", "goes on", 2).v5());
    assert_eq!(publisher.take(), ["PUBACK 2"]);
    assert_eq!(clean.take()[1..], ["PUBLISH clean/x \"goes on\" q1 id=1"]);
    let mut sim = restarted(sim, 1);
    // The last was not acknowledged: it may be there or not.
    assert_eq!(drain(&mut sim, "s")[..3], [0, 1, 2]);
}

#[test]
fn levels_go_by_topic_and_a_client_that_asks_is_told() {
    let topics = vec![("fast/#".to_owned(), Level::Memory), ("soon/#".to_owned(), Level::Interval)];
    let mut sim = with(1, Durability { topics, ..Durability::default() });
    offline_subscriber(&mut sim, "s", "#");
    let asking = Connecting::v5("p").with(Property::UserProperty("durability", "report"));
    let publisher = Client::online(&mut sim, &asking);
    for (id, topic) in (1..).zip(["fast/x", "soon/x", "safe/x"]) {
        publisher.send(&mut sim, Publishing::q1(topic, &format!("{id}"), id).v5());
    }
    assert_eq!(
        publisher.take(),
        [
            "PUBACK 1 [UserProperty(\"durability\", \"memory\")]",
            "PUBACK 2 [UserProperty(\"durability\", \"interval\")]",
            "PUBACK 3 [UserProperty(\"durability\", \"fsync\")]"
        ]
    );
    let stats = sim.stats();
    assert_eq!(
        (stats.acknowledged_memory, stats.acknowledged_interval, stats.acknowledged_fsync),
        (1, 1, 1)
    );
    // What was written survives the end of the broker, if not that of the power.
    let mut sim = Sim::with_disk(1, Settings::default(), sim.kill(), 7);
    assert_eq!(drain(&mut sim, "s"), [2, 3]);
}

#[test]
fn a_message_at_level_interval_is_acknowledged_before_the_sync() {
    let mut sim = with(1, Durability { level: Level::Interval, ..Durability::default() });
    offline_subscriber(&mut sim, "s", "#");
    sim.advance_s(1);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let syncs = |sim: &Sim| sim.log().figures.syncs.load(std::sync::atomic::Ordering::Relaxed);
    let before = syncs(&sim);
    publish_many(&mut sim, &publisher, "t", 0, 1);
    assert_eq!(syncs(&sim), before);
    sim.advance_ms(250);
    assert_eq!(syncs(&sim), before + 1);
}

#[test]
fn a_payload_is_stored_once_however_many_sessions_wait_for_it() {
    let mut sim = durable(3);
    for number in 0..50 {
        offline_subscriber(&mut sim, &format!("s{number}"), "t/#");
    }
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let before = sim.disk().bytes();
    publisher.send(&mut sim, Publishing::q1("t/x", &"x".repeat(3000), 1).v5());
    assert_eq!(publisher.take(), ["PUBACK 1"]);
    let written = sim.disk().bytes() - before;
    assert!(written < 3000 + 50 * 8 + 200, "{written}");
}

#[test]
fn what_a_share_group_has_not_delivered_survives_wherever_its_members_are() {
    for workers in [1, 2, 4] {
        let mut sim = durable(workers);
        for number in 0..5 {
            offline_subscriber(&mut sim, &format!("m{number}"), "$share/g/t/#");
        }
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publish_many(&mut sim, &publisher, "t/x", 0, 20);
        let mut sim = restarted(sim, 2);
        let mut numbers: Vec<usize> =
            (0..5).flat_map(|number| drain(&mut sim, &format!("m{number}"))).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{workers} workers");
    }
}

#[test]
fn what_has_waited_for_too_long_is_dropped_and_counted_over_a_restart_as_well() {
    let mut settings = Settings::default();
    settings.limits.queue_age_max_s = 100;
    let mut sim = Sim::with_disk(1, settings.clone(), SimDisk::default(), 7);
    offline_subscriber(&mut sim, "s", "t/#");
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publish_many(&mut sim, &publisher, "t/x", 0, 1);
    sim.advance_s(60);
    publish_many(&mut sim, &publisher, "t/x", 1, 1);
    let mut sim = Sim::with_disk(1, settings, sim.crash(1), 7);
    sim.advance_s(50);
    assert_eq!(drain(&mut sim, "s"), [1]);
    assert_eq!(sim.stats().dropped[dunlin_queue::DropReason::TooOld as usize], 1);
}
