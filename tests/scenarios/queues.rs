//! Partitioned queues from plain MQTT: publishing, consuming, settling.

use dunlin::config::{Config, Sources};
use dunlin::worker::Settings;
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback};

/// Settings with these options.
pub(crate) fn with_options(options: &[(&str, &str)]) -> Settings {
    let flags = options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let sources = Sources { flags: flags.collect(), ..Sources::default() };
    Config::load(&sources).expect("good options").settings
}

/// Settings with one queue declared.
pub(crate) fn with_queue(declaration: &str) -> Settings {
    with_options(&[("queues.declare", declaration)])
}

/// A consumer with these user properties at its SUBSCRIBE; nothing waits for it.
pub(crate) fn consumer(sim: &mut Sim, name: &str, filter: &str, asked: &[(&str, &str)]) -> Client {
    let (client, came) = consumer_of(sim, name, filter, asked);
    assert!(came.is_empty(), "{came:?}");
    client
}

/// A consumer, and what waited for it.
pub(crate) fn consumer_of(
    sim: &mut Sim,
    name: &str,
    filter: &str,
    asked: &[(&str, &str)],
) -> (Client, Vec<String>) {
    let client = Client::online(sim, &Connecting::v5(name));
    subscribe(sim, &client, filter, asked);
    let mut came = client.take();
    // Deliveries may come before it [MQTT-3.8.4].
    let suback = came.iter().position(|text| text == "SUBACK 1 [01]");
    came.remove(suback.expect("a SUBACK"));
    (client, came)
}

pub(crate) fn subscribe(sim: &mut Sim, client: &Client, filter: &str, asked: &[(&str, &str)]) {
    let mut subscribing = Subscribing::to(filter, 1);
    for (name, value) in asked {
        subscribing = subscribing.with(Property::UserProperty(name, value));
    }
    client.send(sim, subscribing.v5());
}

pub(crate) fn publish(sim: &mut Sim, client: &Client, topic: &str, payload: &str, id: u16) {
    client.send(sim, Publishing::q1(topic, payload, id).v5());
}

/// A verb about a message.
pub(crate) fn verb(
    sim: &mut Sim,
    client: &Client,
    topic: &str,
    properties: &[(&str, &str)],
) -> String {
    let mut publishing = Publishing::q1(topic, "", 9);
    for (name, value) in properties {
        publishing = publishing.with(Property::UserProperty(name, value));
    }
    client.send(sim, publishing.v5());
    client.take().into_iter().find(|text| text.starts_with("PUBACK 9")).unwrap_or_default()
}

/// `PUBLISH topic "payload"` of what came, without the rest.
pub(crate) fn heads(client: &Client) -> Vec<String> {
    let texts = client.take().into_iter();
    texts.map(|text| text.split(" q").next().unwrap_or_default().to_owned()).collect()
}

/// A property of a delivery as text.
pub(crate) fn user_property(delivery: &str, name: &str) -> String {
    let start = format!("UserProperty({name:?}, \"");
    let Some((_, rest)) = delivery.split_once(&start) else { return String::new() };
    rest.split('"').next().unwrap_or_default().to_owned()
}

fn acks(from: u16, to: u16) -> Vec<String> {
    (from..=to).map(|id| format!("PUBACK {id}")).collect()
}

#[test]
fn what_is_published_to_a_queue_reaches_one_consumer_of_each_group() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, Settings::default());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for id in 1..=20 {
            publish(&mut sim, &publisher, &format!("$queue/jobs/{id}"), "x", id);
        }
        assert_eq!(publisher.take(), acks(1, 20));
        let (_one, came) = consumer_of(&mut sim, "one", "$queue/jobs", &[("consumer-group", "g")]);
        assert_eq!(came.len(), 20);
        let asked = [("consumer-group", "h"), ("settle", "auto")];
        let (two, came) = consumer_of(&mut sim, "two", "$queue/jobs", &asked);
        assert_eq!(came.len(), 20);
        (1..=20).for_each(|id| two.send(&mut sim, puback(id)));
        let three = consumer(&mut sim, "three", "$queue/jobs", &asked);
        for id in 21..=60 {
            publish(&mut sim, &publisher, &format!("$queue/jobs/{id}"), "x", id);
        }
        let (of_two, of_three) = (two.take().len(), three.take().len());
        assert_eq!(of_two + of_three, 40);
        assert!(of_two > 0 && of_three > 0, "{of_two}");
    }
}

#[test]
fn a_delivery_says_what_settles_it_and_keeps_what_the_publisher_said() {
    let mut sim = Sim::new(2, Settings::default());
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let publishing = Publishing::q1("$queue/jobs/eu/1", "job", 1)
        .with(Property::ContentType("text"))
        .with(Property::ResponseTopic("answers"))
        .with(Property::CorrelationData(b"7"))
        .with(Property::UserProperty("a", "2"))
        .with(Property::UserProperty("message-id", "forged"))
        .with(Property::UserProperty("a", "1"))
        .with(Property::UserProperty("group-id", "forged"));
    publisher.send(&mut sim, publishing.v5());
    let delivery = worker.take().remove(0);
    assert!(delivery.starts_with("PUBLISH $queue/jobs/eu/1 \"job\" q1 id=1"), "{delivery}");
    let as_sent = "ContentType(\"text\"), ResponseTopic(\"answers\"), CorrelationData([55]), \
                   UserProperty(\"a\", \"2\"), UserProperty(\"a\", \"1\")";
    assert!(delivery.contains(as_sent), "{delivery}");
    assert!(!delivery.contains("forged"), "{delivery}");
    assert_eq!(user_property(&delivery, "group-id"), "g");
    assert_eq!(user_property(&delivery, "attempt"), "1");
    let id = user_property(&delivery, "message-id");
    assert!(id.starts_with("jobs:") && id.ends_with(":0"), "{id}");
}

#[test]
fn what_is_acknowledged_by_a_verb_does_not_come_again_and_what_is_not_does() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    publish(&mut sim, &publisher, "$queue/jobs/k", "one", 1);
    publish(&mut sim, &publisher, "$queue/jobs/k", "two", 2);
    let deliveries = worker.take();
    worker.send(&mut sim, puback(1));
    worker.send(&mut sim, puback(2));
    let id = user_property(&deliveries[0], "message-id");
    let answer =
        verb(&mut sim, &worker, "$queue/jobs/$ack", &[("message-id", &id), ("group-id", "g")]);
    assert_eq!(answer, "PUBACK 9");
    sim.advance_s(31);
    sim.advance_s(5);
    let again = worker.take();
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0].starts_with("PUBLISH $queue/jobs/k \"two\""), "{again:?}");
    assert_eq!(user_property(&again[0], "attempt"), "2");
}

#[test]
fn puback_settles_for_3_1_1_and_where_settle_is_auto() {
    let mut sim = Sim::new(3, Settings::default());
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    old.send(&mut sim, Subscribing::to("$share/g/$queue/jobs", 1).v4());
    let new =
        consumer(&mut sim, "new", "$queue/jobs", &[("consumer-group", "h"), ("settle", "auto")]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publish(&mut sim, &publisher, "$queue/jobs/k", "one", 1);
    assert_eq!(old.take(), ["SUBACK 1 [01]", "PUBLISH $queue/jobs/k \"one\" q1 id=1"]);
    assert_eq!(heads(&new), ["PUBLISH $queue/jobs/k \"one\""]);
    old.send(&mut sim, puback(1));
    new.send(&mut sim, puback(1));
    sim.advance_s(120);
    assert!(old.take().is_empty() && new.take().is_empty());
    assert_eq!(sim.messages_held(), 0, "nobody needs it any more");
}

#[test]
fn a_message_that_fails_for_ever_becomes_a_dead_letter_that_can_be_put_back() {
    let settings = with_queue("jobs attempts=3 backoff=1s backoff_max=4s");
    let mut sim = Sim::new(2, settings);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    let publishing =
        Publishing::q1("$queue/jobs/k", "bad", 1).with(Property::UserProperty("a", "b"));
    publisher.send(&mut sim, publishing.v5());
    for attempt in 1..=3 {
        let delivery = worker.take().remove(0);
        assert_eq!(user_property(&delivery, "attempt"), attempt.to_string());
        worker.send(&mut sim, puback(attempt));
        let id = user_property(&delivery, "message-id");
        let properties = [("message-id", &id[..]), ("group-id", "g")];
        let answer = verb(&mut sim, &worker, "$queue/jobs/$nack", &properties);
        assert_eq!(answer, "PUBACK 9");
        sim.advance_s(5);
    }
    assert!(worker.take().is_empty());
    let (doctor, mut came) = consumer_of(&mut sim, "d", "$dlq/jobs", &[("consumer-group", "d")]);
    let letter = came.remove(0);
    assert!(letter.starts_with("PUBLISH $dlq/jobs/k \"bad\""), "{letter}");
    assert!(letter.contains("UserProperty(\"a\", \"b\")"), "{letter}");
    for (name, value) in [
        ("x-dead-reason", "exhausted"),
        ("x-dead-attempts", "3"),
        ("x-dead-group", "g"),
        ("x-dead-queue", "jobs"),
    ] {
        assert_eq!(user_property(&letter, name), value, "{letter}");
    }
    let answer = verb(&mut sim, &doctor, "$dlq/jobs/$redrive", &[]);
    assert_eq!(answer, "PUBACK 9");
    let back = worker.take().remove(0);
    assert!(back.starts_with("PUBLISH $queue/jobs/k \"bad\""), "{back}");
    assert!(!back.contains("x-dead"), "{back}");
    assert_eq!(user_property(&back, "attempt"), "1");
}

#[test]
fn a_rejected_message_is_a_dead_letter_at_once_with_the_reason() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    publish(&mut sim, &publisher, "$queue/jobs/k", "bad", 1);
    let id = user_property(&worker.take()[0], "message-id");
    let properties = [("message-id", &id[..]), ("group-id", "g"), ("reason", "no such customer")];
    assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$reject", &properties), "PUBACK 9");
    let (_doctor, mut came) = consumer_of(&mut sim, "d", "$dlq/jobs", &[]);
    let letter = came.remove(0);
    assert_eq!(user_property(&letter, "x-dead-reason"), "rejected");
    assert_eq!(user_property(&letter, "x-dead-detail"), "no such customer");
}

#[test]
fn only_the_member_that_has_a_message_settles_it() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    let thief = consumer(&mut sim, "t", "$queue/jobs", &[("consumer-group", "h")]);
    publish(&mut sim, &publisher, "$queue/jobs/k", "one", 1);
    let id = user_property(&worker.take()[0], "message-id");
    let _ = thief.take();
    for name in ["$ack", "$nack", "$reject", "$extend"] {
        let topic = format!("$queue/jobs/{name}");
        for group in ["g", "nobody"] {
            let properties = [("message-id", &id[..]), ("group-id", group)];
            let answer = verb(&mut sim, &thief, &topic, &properties);
            assert!(answer.starts_with("PUBACK 9 NotAuthorized [ReasonString("), "{answer}");
        }
        let answer = verb(&mut sim, &thief, &topic, &[("group-id", "g")]);
        assert!(answer.starts_with("PUBACK 9 ImplementationSpecificError"), "{answer}");
    }
    let properties = [("message-id", &id[..]), ("group-id", "g")];
    assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$extend", &properties), "PUBACK 9");
    assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$ack", &properties), "PUBACK 9");
    let answer = verb(&mut sim, &worker, "$queue/jobs/$ack", &properties);
    assert!(answer.starts_with("PUBACK 9 NotAuthorized"), "twice: {answer}");
}

#[test]
fn bad_addresses_and_requests_are_refused_and_cost_nobody_the_connection() {
    let mut sim = Sim::new(2, with_options(&[("queues.auto_create", "false")]));
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    for (topic, code) in [
        ("$queue/unknown/k", "TopicNameInvalid"),
        ("$queue/", "TopicNameInvalid"),
        ("$queue//k", "TopicNameInvalid"),
        ("$queue/a/$ack/b", "TopicNameInvalid"),
        ("$queue/a/$shout", "TopicNameInvalid"),
        ("$dlq/a/k", "TopicNameInvalid"),
        ("$queue/a/$ack", "ImplementationSpecificError"),
    ] {
        let answer = verb(&mut sim, &client, topic, &[]);
        assert!(
            answer.starts_with(&format!("PUBACK 9 {code} [ReasonString(")),
            "{topic}: {answer}"
        );
    }
    for (filter, qos) in [("$queue/unknown", 1), ("$queue/+", 1), ("$queue/#", 1), ("$queue/a", 0)]
    {
        client.send(&mut sim, Subscribing::to(filter, qos).v5());
        let answer = client.take().remove(0);
        assert!(answer.contains("ReasonString") && !answer.contains("[01]"), "{answer}");
    }
    client.send(&mut sim, [0xc0, 0]);
    assert_eq!(client.take(), ["PINGRESP"]);
    assert_eq!(sim.stats().dropped[dunlin_queue::DropReason::QueueRefused as usize], 7);
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let mut sim = Sim::new(2, with_queue("jobs messages=2 partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        publish(&mut sim, &publisher, "$queue/jobs/k", "x", id);
    }
    let answers = publisher.take();
    assert_eq!(answers[..2], acks(1, 2));
    assert!(answers[2].starts_with("PUBACK 3 QuotaExceeded [ReasonString"), "{answers:?}");
    // Before 5.0 there is no way to say so but the end of the connection.
    let old = Client::online(&mut sim, &Connecting::v4("old"));
    old.send(&mut sim, Publishing::q1("$queue/jobs/k", "x", 1).v4());
    assert_eq!(old.take(), ["CLOSED"]);
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", &[("settle", "auto")]);
    assert_eq!(came.len(), 2);
    worker.send(&mut sim, puback(1));
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 4);
    assert_eq!(publisher.take(), ["PUBACK 4"]);
}

#[test]
fn messages_of_one_key_come_in_order_whatever_the_number_of_consumers() {
    let mut sim = Sim::new(3, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let names = ["a", "b", "c"];
    let asked = [("consumer-group", "g"), ("settle", "auto")];
    let workers: Vec<_> =
        names.iter().map(|name| consumer(&mut sim, name, "$queue/jobs", &asked)).collect();
    for id in 1..=60_u16 {
        let payload = format!("{}:{id}", id % 5);
        let key = (id % 5).to_string();
        let publishing = Publishing::q1("$queue/jobs", &payload, id)
            .with(Property::UserProperty("partition-key", &key));
        publisher.send(&mut sim, publishing.v5());
    }
    let mut count = 0;
    for worker in &workers {
        let mut last = [0_u16; 5];
        for head in heads(worker) {
            let payload = head.split('"').nth(1).unwrap_or_default();
            let (key, id) = payload.split_once(':').unwrap();
            let (key, id): (usize, u16) = (key.parse().unwrap(), id.parse().unwrap());
            assert!(last[key] < id);
            last[key] = id;
            count += 1;
        }
    }
    assert_eq!(count, 60);
}

#[test]
fn what_a_consumer_had_goes_to_another_when_it_leaves() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let asked = [("consumer-group", "g"), ("prefetch", "5")];
    let first = consumer(&mut sim, "first", "$queue/jobs", &asked);
    for id in 1..=10 {
        publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
    }
    assert_eq!(first.take().len(), 5, "no more than it may have");
    let second = consumer(&mut sim, "second", "$queue/jobs", &asked);
    assert!(second.take().is_empty(), "the partition of that key is owned");
    first.drop_connection(&mut sim);
    let came = second.take();
    assert_eq!(came.len(), 5);
    assert_eq!(user_property(&came[0], "attempt"), "2");
    assert!(came[0].contains("\"1\""), "{came:?}");
}

#[test]
fn what_was_never_sent_to_a_consumer_was_no_attempt() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let narrow = Connecting::v5("n").with(Property::ReceiveMaximum(1));
    let first = Client::online(&mut sim, &narrow);
    let asked = [("consumer-group", "g")];
    subscribe(&mut sim, &first, "$queue/jobs", &asked);
    for id in 1..=3 {
        publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
    }
    assert_eq!(first.take().len(), 2, "SUBACK and one delivery");
    first.drop_connection(&mut sim);
    let (_second, came) = consumer_of(&mut sim, "second", "$queue/jobs", &asked);
    let attempts: Vec<_> = came.iter().map(|text| user_property(text, "attempt")).collect();
    assert_eq!(attempts, ["2", "1", "1"]);
}

#[test]
fn a_session_that_comes_back_consumes_again() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let connecting = Connecting::v5("w").resume().expiry(100);
    let worker = Client::online(&mut sim, &connecting);
    subscribe(&mut sim, &worker, "$queue/jobs", &[]);
    let _ = worker.take();
    worker.drop_connection(&mut sim);
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    let worker = Client::connect(&mut sim, &connecting);
    let came = worker.take();
    assert!(came[1].starts_with("PUBLISH $queue/jobs/k \"x\""), "{came:?}");
    worker.send(&mut sim, dunlin_tests::unsubscribe(2, &["$queue/jobs"]));
    assert_eq!(worker.take(), ["UNSUBACK 2 [00]"]);
    publish(&mut sim, &publisher, "$queue/jobs/k", "y", 2);
    assert!(worker.take().is_empty());
}

#[test]
fn a_group_without_a_name_ends_with_its_subscription() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[]);
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    assert_eq!(worker.take().len(), 1);
    worker.drop_connection(&mut sim);
    assert_eq!(sim.messages_held(), 1, "it waits for other groups");
    let (other, came) = consumer_of(&mut sim, "o", "$queue/jobs", &[("settle", "auto")]);
    assert_eq!(came.len(), 1);
    other.send(&mut sim, puback(1));
    assert_eq!(sim.messages_held(), 0, "the other group is gone");
}

#[test]
fn a_filter_makes_a_group_of_its_own_that_gets_only_what_matches() {
    let mut sim = Sim::new(2, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let asked = [("consumer-group", "g"), ("settle", "auto")];
    let europe = consumer(&mut sim, "e", "$queue/jobs/eu/#", &asked);
    let all = consumer(&mut sim, "a", "$queue/jobs", &asked);
    for (id, key) in [(1, "eu/1"), (2, "us/1"), (3, "eu/2")] {
        publish(&mut sim, &publisher, &format!("$queue/jobs/{key}"), "x", id);
    }
    let mut came = heads(&europe);
    came.sort();
    assert_eq!(came, ["PUBLISH $queue/jobs/eu/1 \"x\"", "PUBLISH $queue/jobs/eu/2 \"x\""]);
    assert_eq!(all.take().len(), 3);
}

#[test]
fn delayed_messages_and_priorities_come_when_they_should() {
    let mut sim = Sim::new(2, with_queue("jobs partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for (id, name, value) in [(1, "delay", "10s"), (2, "priority", "0"), (3, "priority", "9")] {
        let publishing =
            Publishing::q1("$queue/jobs", name, id).with(Property::UserProperty(name, value));
        publisher.send(&mut sim, publishing.v5());
    }
    assert_eq!(publisher.take(), acks(1, 3));
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", &[]);
    let values: Vec<_> = came.iter().map(|text| user_property(text, "priority")).collect();
    assert_eq!(values, ["9", "0"]);
    sim.advance_s(9);
    assert!(worker.take().is_empty());
    sim.advance_s(2);
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs \"delay\""]);
}

#[test]
fn a_stream_is_read_by_several_groups_from_where_each_wants() {
    let mut sim = Sim::new(2, with_queue("log mode=stream partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=5 {
        publish(&mut sim, &publisher, "$queue/log/k", &id.to_string(), id);
    }
    for (name, start, count) in [("a", "earliest", 5), ("b", "latest", 0), ("c", "3", 2)] {
        let (_reader, came) =
            consumer_of(&mut sim, name, "$queue/log", &[("stream-offset", start)]);
        assert_eq!(came.len(), count, "{name}");
    }
    let (_again, came) =
        consumer_of(&mut sim, "again", "$queue/log", &[("stream-offset", "earliest")]);
    assert_eq!(user_property(&came[4], "offset"), "4");
    assert_ne!(user_property(&came[4], "x-stream-timestamp"), "");
}

#[test]
fn a_streams_group_goes_on_where_it_was_acknowledged() {
    let mut sim = Sim::new(2, with_queue("log mode=stream partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let asked = [("consumer-group", "g")];
    let reader = consumer(&mut sim, "r", "$queue/log", &asked);
    for id in 1..=5 {
        publish(&mut sim, &publisher, "$queue/log/k", &id.to_string(), id);
    }
    assert_eq!(reader.take().len(), 5);
    reader.send(&mut sim, puback(1));
    reader.send(&mut sim, puback(2));
    reader.drop_connection(&mut sim);
    let (_next, came) = consumer_of(&mut sim, "n", "$queue/log", &asked);
    assert_eq!(came.len(), 3);
    assert!(came[0].contains("\"3\""), "{came:?}");
}

#[test]
fn an_explicit_commit_moves_the_cursor_and_nothing_else_does() {
    let mut sim = Sim::new(2, with_queue("log mode=stream partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let asked = [("consumer-group", "g"), ("commit", "explicit")];
    let reader = consumer(&mut sim, "r", "$queue/log", &asked);
    for id in 1..=5 {
        publish(&mut sim, &publisher, "$queue/log/k", &id.to_string(), id);
    }
    let came = reader.take();
    (1..=5).for_each(|id| reader.send(&mut sim, puback(id)));
    let id = user_property(&came[1], "message-id");
    let properties = [("message-id", &id[..]), ("group-id", "g")];
    assert_eq!(verb(&mut sim, &reader, "$queue/log/$commit", &properties), "PUBACK 9");
    reader.drop_connection(&mut sim);
    let (_next, came) = consumer_of(&mut sim, "n", "$queue/log", &asked);
    assert_eq!(came.len(), 3);
}

#[test]
fn a_queue_captures_ordinary_publications_with_their_origin() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, with_queue("meters capture=m/# capture=m/+/x"));
        let subscriber = Client::online(&mut sim, &Connecting::v5("s"));
        subscriber.send(&mut sim, Subscribing::to("m/#", 1).v5());
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publish(&mut sim, &publisher, "m/1/x", "7", 1);
        assert_eq!(publisher.take(), ["PUBACK 1"]);
        assert_eq!(subscriber.take()[1..], ["PUBLISH m/1/x \"7\" q1 id=1"]);
        let (_worker, came) = consumer_of(&mut sim, "w", "$queue/meters", &[]);
        assert_eq!(came.len(), 1, "{came:?}");
        assert!(came[0].starts_with("PUBLISH $queue/meters/m/1/x \"7\""), "{came:?}");
        assert_eq!(user_property(&came[0], "x-source-topic"), "m/1/x");
    }
}

#[test]
fn a_will_can_go_to_a_queue() {
    let mut sim = Sim::new(3, Settings::default());
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[]);
    let client =
        Client::online(&mut sim, &Connecting::v5("c").will("$queue/jobs/c", "gone", 1, false));
    client.drop_connection(&mut sim);
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/c \"gone\""]);
}

#[test]
fn a_queue_takes_and_delivers_at_every_qos() {
    let mut sim = Sim::new(2, Settings::default());
    let worker = Client::online(&mut sim, &Connecting::v5("w"));
    let subscribing =
        Subscribing::to("$queue/jobs", 2).with(Property::UserProperty("settle", "auto"));
    worker.send(&mut sim, subscribing.v5());
    assert_eq!(worker.take(), ["SUBACK 1 [02]"]);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    publisher.send(&mut sim, Publishing::q0("$queue/jobs/k", "0").v5());
    publisher.send(&mut sim, Publishing::q2("$queue/jobs/k", "2", 1).v5());
    assert_eq!(publisher.take(), ["PUBREC 1"]);
    publisher.send(&mut sim, Publishing::q2("$queue/jobs/k", "2", 1).dup().v5());
    assert_eq!(publisher.take(), ["PUBREC 1"]);
    let came = worker.take();
    assert_eq!(came.len(), 2, "{came:?}");
    assert!(came[1].contains("\"2\" q2 id=2"), "{came:?}");
    worker.send(&mut sim, dunlin_tests::pubrec(1));
    worker.send(&mut sim, dunlin_tests::pubrec(2));
    assert_eq!(worker.take(), ["PUBREL 1", "PUBREL 2"]);
    sim.advance_s(40);
    assert!(worker.take().is_empty(), "settled");
    assert_eq!(sim.messages_held(), 0);
}

#[test]
fn one_key_is_worked_on_by_one_consumer_at_a_time_where_that_is_asked_for() {
    let mut sim = Sim::new(2, with_queue("jobs serial=true partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("settle", "auto")]);
    for (id, key) in [(1, "a"), (2, "a"), (3, "b")] {
        publish(&mut sim, &publisher, &format!("$queue/jobs/{key}"), &id.to_string(), id);
    }
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/a \"1\"", "PUBLISH $queue/jobs/b \"3\""]);
    worker.send(&mut sim, puback(1));
    assert_eq!(heads(&worker), ["PUBLISH $queue/jobs/a \"2\""]);
}

#[test]
fn a_consumer_that_answers_nothing_loses_its_partitions_until_it_says_something() {
    for workers in [1, 3] {
        let mut sim = Sim::new(workers, with_queue("jobs partitions=1 lease=10s attempts=0"));
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        let asked = [("consumer-group", "g"), ("prefetch", "2"), ("settle", "auto")];
        let hung = consumer(&mut sim, "hung", "$queue/jobs", &asked);
        let other = consumer(&mut sim, "other", "$queue/jobs", &asked);
        for id in 1..=3 {
            publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
        }
        assert_eq!(hung.take().len(), 2);
        let mut came = Vec::new();
        while came.is_empty() {
            assert!(sim.now().as_millis() < 1_000_000_200_000, "it is stuck");
            sim.advance_s(5);
            came = heads(&other);
        }
        assert_eq!(came, ["PUBLISH $queue/jobs/k \"1\"", "PUBLISH $queue/jobs/k \"2\""]);
        (1..=2).for_each(|id| other.send(&mut sim, puback(id)));
        assert_eq!(heads(&other), ["PUBLISH $queue/jobs/k \"3\""]);
        other.send(&mut sim, puback(3));
        other.drop_connection(&mut sim);
        publish(&mut sim, &publisher, "$queue/jobs/k", "4", 4);
        assert!(hung.take().is_empty());
        hung.send(&mut sim, puback(1));
        assert_eq!(heads(&hung), ["PUBLISH $queue/jobs/k \"4\""]);
    }
}

#[test]
fn a_consumer_with_nothing_to_answer_is_not_taken_for_gone() {
    let mut sim = Sim::new(2, with_queue("jobs partitions=1 lease=10s"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let asked = [("consumer-group", "g"), ("settle", "auto")];
    let first = consumer(&mut sim, "first", "$queue/jobs", &asked);
    let second = consumer(&mut sim, "second", "$queue/jobs", &asked);
    (0..100).for_each(|_| sim.advance_s(10));
    publish(&mut sim, &publisher, "$queue/jobs/k", "x", 1);
    assert_eq!((first.take().len(), second.take().len()), (1, 0));
}

#[test]
fn queues_in_memory_take_no_more_memory_than_they_may() {
    let mut sim = Sim::new(2, with_options(&[("queues.memory_per_worker", "1000")]));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let payload = "x".repeat(400);
    for id in 1..=3 {
        publish(&mut sim, &publisher, "$queue/jobs/k", &payload, id);
    }
    let answers = publisher.take();
    assert_eq!(answers[..2], acks(1, 2));
    assert!(answers[2].starts_with("PUBACK 3 QuotaExceeded"), "{answers:?}");
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", &[("settle", "auto")]);
    assert_eq!(came.len(), 2);
    worker.send(&mut sim, puback(1));
    publish(&mut sim, &publisher, "$queue/jobs/k", &payload, 4);
    assert_eq!(publisher.take(), ["PUBACK 4"]);
}

#[test]
fn a_client_whose_identifier_can_be_no_group_has_to_name_one() {
    let mut sim = Sim::new(2, Settings::default());
    let long = "c".repeat(300);
    let client = Client::online(&mut sim, &Connecting::v5(&long));
    subscribe(&mut sim, &client, "$queue/jobs", &[]);
    let answer = client.take().remove(0);
    assert!(answer.starts_with("SUBACK 1 [83] [ReasonString("), "{answer}");
    subscribe(&mut sim, &client, "$queue/jobs", &[("consumer-group", "g")]);
    assert_eq!(client.take(), ["SUBACK 1 [01]"]);
}

#[test]
fn a_streams_group_begins_anew_only_if_its_only_consumer_wants_that() {
    let mut sim = Sim::new(2, with_queue("log mode=stream partitions=1"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        publish(&mut sim, &publisher, "$queue/log/k", &id.to_string(), id);
    }
    let plain = [("consumer-group", "g"), ("stream-offset", "earliest")];
    let (reader, came) = consumer_of(&mut sim, "r", "$queue/log", &plain);
    assert_eq!(came.len(), 3);
    (1..=3).for_each(|id| reader.send(&mut sim, puback(id)));
    subscribe(&mut sim, &reader, "$queue/log", &plain);
    assert_eq!(reader.take(), ["SUBACK 1 [01]"], "as every client does that comes back");
    let replay = [plain[0], plain[1], ("stream-replay", "true")];
    subscribe(&mut sim, &reader, "$queue/log", &replay);
    assert_eq!(reader.take().len(), 1 + 3);
    let other = Client::online(&mut sim, &Connecting::v5("o"));
    subscribe(&mut sim, &other, "$queue/log", &replay);
    assert!(other.take()[0].starts_with("SUBACK 1 [83]"));
    subscribe(&mut sim, &other, "$queue/log", &plain);
    assert_eq!(other.take(), ["SUBACK 1 [01]"]);
}

#[test]
fn a_compacted_stream_keeps_the_last_message_of_each_key() {
    let mut sim = Sim::new(2, with_queue("state mode=stream compact=true"));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for (id, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
        publish(&mut sim, &publisher, &format!("$queue/state/{key}"), &id.to_string(), id);
    }
    let (_reader, came) = consumer_of(&mut sim, "r", "$queue/state", &[]);
    let mut payloads: Vec<_> = came.iter().map(|text| text.split('"').nth(1)).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, [Some("2"), Some("4")]);
}

#[test]
fn the_oldest_make_room_where_that_is_the_policy_and_what_is_too_old_goes() {
    let declaration = "jobs partitions=1 messages=2 full=drop-oldest age=1h";
    let mut sim = Sim::new(2, with_queue(declaration));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for id in 1..=3 {
        publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id);
    }
    assert_eq!(publisher.take(), acks(1, 3));
    assert_eq!(sim.messages_held(), 2);
    let (worker, came) = consumer_of(&mut sim, "w", "$queue/jobs", &[]);
    assert_eq!(came.len(), 2);
    assert!(came[0].contains("\"2\""), "{came:?}");
    worker.drop_connection(&mut sim);
    sim.advance_s(3601);
    assert_eq!(sim.messages_held(), 0);
    let dropped = sim.stats().dropped[dunlin_queue::DropReason::QueueRetention as usize];
    assert_eq!(dropped, 3);
}

#[test]
fn acknowledgements_keep_their_order_whether_queues_are_at_home_elsewhere_or_not() {
    let mut sim = Sim::new(4, Settings::default());
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let mut bytes = Vec::new();
    for id in 1..=40_u16 {
        let topic = if id % 3 == 0 { "ordinary".into() } else { format!("$queue/q{}", id % 7) };
        bytes.extend(Publishing::q1(&topic, "x", id).v5());
    }
    publisher.send(&mut sim, bytes);
    let numbers: Vec<_> = publisher
        .take()
        .iter()
        .map(|text| text.split(' ').nth(1).and_then(|id| id.parse::<u16>().ok()))
        .collect();
    assert_eq!(numbers, (1..=40).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_dead_letter_that_has_to_wait_for_room_still_says_why_it_was_rejected() {
    let mut sim = Sim::new(1, with_options(&[("queues.default", "messages=1 partitions=1")]));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let worker = consumer(&mut sim, "w", "$queue/jobs", &[("consumer-group", "g")]);
    for (number, reason) in [(1, "too old"), (2, "too new")] {
        publish(&mut sim, &publisher, "$queue/jobs/k", "x", number);
        let id = user_property(&worker.take()[0], "message-id");
        let asked = [("message-id", &id[..]), ("group-id", "g"), ("reason", reason)];
        assert_eq!(verb(&mut sim, &worker, "$queue/jobs/$reject", &asked), "PUBACK 9");
    }
    let auto = [("consumer-group", "g"), ("settle", "auto")];
    let (doctor, first) = consumer_of(&mut sim, "d", "$dlq/jobs", &auto);
    assert_eq!(user_property(&first[0], "x-dead-detail"), "too old");
    doctor.send(&mut sim, puback(1));
    // The longest backoff, and no lease.
    sim.advance_s(70);
    let second = doctor.take();
    assert_eq!(second.len(), 1, "there is room now");
    assert_eq!(user_property(&second[0], "x-dead-detail"), "too new");
}
