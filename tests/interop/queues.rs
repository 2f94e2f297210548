//! Partitioned queues, with clients that nobody here wrote, and with brokers that are killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use dunlin_tests::program::Running;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Packet, PubAck, PubAckReason, Publish, PublishProperties, SubscribeProperties,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

const WAIT: Duration = Duration::from_secs(20);
const KEYS: usize = 8;
const MESSAGES: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A data directory that is not there yet.
fn fresh(name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("queues").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    path.to_str().expect("a path of UTF-8").to_owned()
}

fn start(data: &str, port: u16, workers: &str) -> Running {
    let address = format!("127.0.0.1:{port}");
    Running::start_with(&["--listen", &address, "--data-dir", data, "--workers", workers])
}

fn paho(port: u16, what: &str) -> Command {
    let mut command = Command::new(root().join(".tools/python/bin/python"));
    command.arg(root().join("tests/interop/paho_queues.py")).args([&port.to_string(), what]);
    command
}

struct Client {
    client: AsyncClient,
    events: EventLoop,
    inbox: Vec<Publish>,
}

impl Client {
    async fn online(port: u16, name: &str) -> Self {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, events) = AsyncClient::new(options, 1000);
        let mut made = Self { client, events, inbox: Vec::new() };
        assert!(matches!(made.next().await, Some(Packet::ConnAck(_))));
        made
    }

    /// What comes next; `None` when the connection is gone.
    async fn next(&mut self) -> Option<Packet> {
        loop {
            let event = tokio::time::timeout(WAIT, self.events.poll()).await.expect("in time");
            match event {
                Ok(Event::Incoming(packet)) => return Some(packet),
                Ok(Event::Outgoing(_)) => {}
                Err(_) => return None,
            }
        }
    }

    async fn consume(&mut self, filter: &str, group: &str) {
        let properties = SubscribeProperties {
            id: None,
            user_properties: vec![("consumer-group".into(), group.into())],
        };
        let asked = self.client.subscribe_with_properties(filter, QoS::AtLeastOnce, properties);
        asked.await.expect("queued");
        loop {
            match self.next().await.expect("connected") {
                Packet::SubAck(_) => return,
                Packet::Publish(publish) => self.inbox.push(publish),
                _ => {}
            }
        }
    }

    async fn publish(&mut self, topic: &str, payload: &str, about: &[(&str, &str)]) {
        let pairs = about.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let properties =
            PublishProperties { user_properties: pairs.collect(), ..PublishProperties::default() };
        let (topic, payload) = (topic.to_owned(), payload.to_owned());
        let publishing = self.client.publish_with_properties(
            topic,
            QoS::AtLeastOnce,
            false,
            payload,
            properties,
        );
        publishing.await.expect("queued");
    }

    async fn answer(&mut self) -> PubAck {
        loop {
            match self.next().await.expect("connected") {
                Packet::PubAck(answer) => return answer,
                Packet::Publish(publish) => self.inbox.push(publish),
                _ => {}
            }
        }
    }

    async fn delivery(&mut self) -> Publish {
        while self.inbox.is_empty() {
            if let Packet::Publish(publish) = self.next().await.expect("connected") {
                self.inbox.push(publish);
            }
        }
        self.inbox.remove(0)
    }

    /// Says what becomes of a message, without waiting for the answer.
    async fn say(&mut self, verb: &str, delivery: &Publish, more: &[(&str, &str)]) {
        let (id, group) = (user(delivery, "message-id"), user(delivery, "group-id"));
        let topic = text(&delivery.topic);
        let address: Vec<&str> = topic.split('/').take(2).collect();
        let mut about = vec![("message-id", &id[..]), ("group-id", &group[..])];
        about.extend(more);
        self.publish(&format!("{}/{verb}", address.join("/")), "", &about).await;
    }

    async fn settle(&mut self, verb: &str, delivery: &Publish, more: &[(&str, &str)]) {
        self.say(verb, delivery, more).await;
        assert_eq!(self.answer().await.reason, PubAckReason::Success, "{verb}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn user(delivery: &Publish, name: &str) -> String {
    let properties = delivery.properties.as_ref().expect("properties");
    let found = properties.user_properties.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

#[tokio::test]
async fn rumqttc_settles_fails_and_rejects() {
    let broker = Running::start(&["--workers", "2"]);
    let mut publisher = Client::online(broker.port(), "publisher").await;
    let mut worker = Client::online(broker.port(), "worker").await;
    worker.consume("$queue/jobs", "g").await;
    for number in ["0", "1", "2"] {
        let about = [("partition-key", "one"), ("colour", "blue")];
        publisher.publish(&format!("$queue/jobs/{number}"), number, &about).await;
        assert_eq!(publisher.answer().await.reason, PubAckReason::Success);
    }
    let mut jobs = Vec::new();
    for number in ["0", "1", "2"] {
        let job = worker.delivery().await;
        assert_eq!(
            (text(&job.topic), text(&job.payload)),
            (format!("$queue/jobs/{number}"), number.into())
        );
        assert_eq!((user(&job, "colour"), user(&job, "attempt")), ("blue".into(), "1".into()));
        jobs.push(job);
    }
    worker.settle("$ack", &jobs[0], &[]).await;
    worker.say("$ack", &jobs[0], &[]).await;
    assert_eq!(worker.answer().await.reason, PubAckReason::NotAuthorized);
    worker.settle("$nack", &jobs[1], &[("delay", "1")]).await;
    let again = worker.delivery().await;
    assert_eq!((text(&again.payload), user(&again, "attempt")), ("1".into(), "2".into()));
    worker.settle("$ack", &again, &[]).await;
    worker.settle("$reject", &jobs[2], &[("reason", "too old")]).await;
    let mut doctor = Client::online(broker.port(), "doctor").await;
    doctor.consume("$dlq/jobs", "doctors").await;
    let letter = doctor.delivery().await;
    assert_eq!((text(&letter.topic), text(&letter.payload)), ("$dlq/jobs/2".into(), "2".into()));
    assert_eq!(user(&letter, "x-dead-reason"), "rejected");
    assert_eq!(user(&letter, "x-dead-detail"), "too old");
    assert_eq!(user(&letter, "colour"), "blue");
    doctor.publish("$dlq/jobs/$redrive", "", &[]).await;
    assert_eq!(doctor.answer().await.reason, PubAckReason::Success);
    assert_eq!(text(&worker.delivery().await.payload), "2");
}

#[tokio::test]
async fn what_rumqttc_of_3_1_1_has_not_acknowledged_comes_again() {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let broker = Running::start(&["--workers", "2"]);
    let mut publisher = Client::online(broker.port(), "publisher").await;
    for number in 0..20 {
        publisher.publish(&format!("$queue/jobs/{number}"), &number.to_string(), &[]).await;
        assert_eq!(publisher.answer().await.reason, PubAckReason::Success);
    }
    let mut missing: BTreeSet<String> = (0..20).map(|number: u32| number.to_string()).collect();
    let mut settled = BTreeSet::new();
    for name in ["first", "second"] {
        let mut options = MqttOptions::new(name, "127.0.0.1", broker.port());
        options.set_keep_alive(Duration::from_secs(30)).set_manual_acks(true);
        let (client, mut events) = AsyncClient::new(options, 100);
        client.subscribe("$share/g/$queue/jobs", QoS::AtLeastOnce).await.expect("queued");
        let wanted = missing.len();
        let mut came = Vec::new();
        while came.len() < wanted {
            let event = tokio::time::timeout(WAIT, events.poll()).await.expect("in time");
            if let Event::Incoming(Packet::Publish(publish)) = event.expect("connected") {
                came.push(publish);
            }
        }
        for publish in &came {
            let payload = text(&publish.payload);
            assert!(missing.contains(&payload) && !settled.contains(&payload), "{payload}");
        }
        for publish in came.iter().take(12) {
            client.ack(publish).await.expect("queued");
            missing.remove(&text(&publish.payload));
            settled.insert(text(&publish.payload));
        }
        // Answered behind the acknowledgements.
        client.publish("other", QoS::AtLeastOnce, false, "x").await.expect("queued");
        loop {
            let event = tokio::time::timeout(WAIT, events.poll()).await.expect("in time");
            if matches!(event.expect("connected"), Event::Incoming(Packet::PubAck(_))) {
                break;
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn paho_uses_queues_in_both_versions() {
    let broker = Running::start(&["--workers", "2", "--set", "queues.declare=log mode=stream"]);
    let output = paho(broker.port(), "all").output().expect("scripts/test.sh installs it");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// Messages of each key.
async fn fill(port: u16) {
    let mut publisher = Client::online(port, "publisher").await;
    for number in 0..MESSAGES {
        let topic = format!("$queue/jobs/{}", number % KEYS);
        publisher.publish(&topic, &number.to_string(), &[]).await;
    }
    for _ in 0..MESSAGES {
        assert_eq!(publisher.answer().await.reason, PubAckReason::Success);
    }
}

/// The end of each key: who has got it has got all that was before it.
async fn finish(port: u16) {
    let mut publisher = Client::online(port, "publisher").await;
    for key in 0..KEYS {
        publisher.publish(&format!("$queue/jobs/{key}"), "end", &[]).await;
        assert_eq!(publisher.answer().await.reason, PubAckReason::Success);
    }
}

fn audit(confirmed: &BTreeSet<String>, asked: &BTreeSet<String>, rest: &BTreeSet<String>) {
    let again: Vec<_> = confirmed.intersection(rest).collect();
    assert!(again.is_empty(), "confirmed, and came again: {again:?}");
    for number in (0..MESSAGES).map(|number| number.to_string()) {
        assert!(asked.contains(&number) || rest.contains(&number), "{number} is lost");
    }
}

#[tokio::test]
async fn what_was_confirmed_to_rumqttc_does_not_come_again_after_a_kill_and_nothing_is_lost() {
    for (round, workers) in ["1", "2", "4"].into_iter().enumerate() {
        let data = fresh(&format!("rumqttc-{workers}"));
        let broker = start(&data, 0, workers);
        let port = broker.port();
        fill(port).await;
        let mut worker = Client::online(port, "worker").await;
        worker.consume("$queue/jobs", "g").await;
        // Answers come in the order of what they answer.
        let mut asked = Vec::new();
        let mut confirmed = 0;
        while confirmed < 40 + 25 * round {
            for delivery in std::mem::take(&mut worker.inbox) {
                worker.say("$ack", &delivery, &[]).await;
                asked.push(text(&delivery.payload));
            }
            match worker.next().await.expect("connected") {
                Packet::Publish(publish) => worker.inbox.push(publish),
                Packet::PubAck(_) => confirmed += 1,
                _ => {}
            }
        }
        // SIGKILL, while the rest is under way.
        drop(broker);
        while let Some(packet) = worker.next().await {
            confirmed += usize::from(matches!(packet, Packet::PubAck(_)));
        }
        let broker = start(&data, port, workers);
        finish(port).await;
        let mut successor = Client::online(port, "successor").await;
        successor.consume("$queue/jobs", "g").await;
        let (mut rest, mut ends) = (BTreeSet::new(), 0);
        while ends < KEYS {
            let delivery = successor.delivery().await;
            successor.settle("$ack", &delivery, &[]).await;
            ends += usize::from(text(&delivery.payload) == "end");
            rest.insert(text(&delivery.payload));
        }
        rest.remove("end");
        let confirmed = asked.iter().take(confirmed).cloned();
        audit(&confirmed.collect(), &asked.iter().cloned().collect(), &rest);
        drop(broker);
    }
}

#[tokio::test]
async fn what_was_confirmed_to_paho_does_not_come_again_after_a_kill() {
    let data = fresh("paho");
    let broker = start(&data, 0, "2");
    let port = broker.port();
    fill(port).await;
    let mut settling = paho(port, "settle").stdout(Stdio::piped()).spawn().expect("it starts");
    let stdout = settling.stdout.take().expect("a pipe");
    let mut lines: Lines<BufReader<ChildStdout>> = BufReader::new(stdout).lines();
    let mut confirmed = BTreeSet::new();
    while confirmed.len() < 60 {
        confirmed.insert(lines.next().expect("it goes on").expect("UTF-8"));
    }
    drop(broker);
    confirmed.extend(lines.map_while(Result::ok));
    assert!(settling.wait().expect("it ends").success());
    let _broker = start(&data, port, "2");
    finish(port).await;
    let output = paho(port, "rest").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rest: BTreeSet<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    let again: Vec<_> = confirmed.intersection(&rest).collect();
    assert!(again.is_empty(), "confirmed, and came again: {again:?}");
    assert!(rest.len() + confirmed.len() > MESSAGES / 2, "{} and {}", rest.len(), confirmed.len());
}
