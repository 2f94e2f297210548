//! `dunlin storage` as a user runs it, on data directories that brokers have written.

mod queues;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dunlin::store::record::{MessageRecord, Refs};
use dunlin::store::{Deliveries, NewLog, StoredRef, StoredRetained, StoredSession, StoredWill};
use dunlin_packets::{
    Frame, Packet, PacketId, PropertiesBuf, Property, QoS, SubscriptionOptions, VARINT_MAX, Version,
};
use dunlin_queue::Time;
use dunlin_router::Subscription;
use dunlin_storage::{Damage, DiskBackend, Log, LogOptions, set_address};
use dunlin_tests::program::{Running, dunlin};
use dunlin_tests::{Connecting, Publishing, Subscribing, describe, puback, pubrec, pubrel};
use serde_json::{Value, json};

/// How long a broker on a busy machine may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The smallest there is, so that a few messages fill some of them.
const SEGMENT_BYTES: &str = "storage.segment_bytes=65536";

/// A data directory that is not there yet.
fn fresh(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("storage_command").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    path
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path of UTF-8")
}

fn storage(args: &[&str], data: &Path) -> Output {
    let mut command = Command::new(dunlin());
    command.arg("storage").args(args).arg("--data-dir").arg(data);
    command.output().expect("dunlin runs")
}

/// The standard output of a command that has to succeed.
fn done(args: &[&str], data: &Path) -> String {
    let output = storage(args, data);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Both outputs of a command that has to fail.
fn refused(args: &[&str], data: &Path) -> String {
    let output = storage(args, data);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    text
}

fn start(data: &Path) -> Running {
    Running::start(&["--data-dir", text_of(data), "--workers", "2", "--set", SEGMENT_BYTES])
}

fn stop(broker: Running) {
    assert!(broker.terminate().success());
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("log")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some()).collect();
    paths.sort();
    paths
}

fn bytes(data: &Path) -> u64 {
    segments(data).iter().map(|path| path.metadata().expect("a file").len()).sum()
}

/// A client of 5.0 over a socket, which only does what it is told.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    fn connect(broker: &Running, connecting: &Connecting<'_>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        let mut client = Self { stream, input: Vec::new() };
        client.send(connecting.bytes());
        let connack = client.next();
        assert!(connack.starts_with("CONNACK Success"), "{connack}");
        client
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the broker takes it");
    }

    /// The next packet, as text.
    fn next(&mut self) -> String {
        self.receive(describe)
    }

    /// What `look` makes of the next packet.
    fn receive<R>(&mut self, look: impl FnOnce(&Packet<'_>) -> R) -> R {
        loop {
            let split = Frame::split(&self.input, VARINT_MAX as usize, Version::V5);
            if let Some((frame, len)) = split.expect("a frame") {
                let packet = Packet::decode(&frame, Version::V5).expect("a packet");
                let result = look(&packet);
                self.input.drain(..len);
                return result;
            }
            let mut buffer = [0; 16 << 10];
            let len = match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the broker answers"),
            };
            assert!(len > 0, "the broker has closed the connection");
            self.input.extend_from_slice(&buffer[..len]);
        }
    }

    /// Sends, and waits for an answer that begins like this.
    fn ask(&mut self, bytes: impl AsRef<[u8]>, answer: &str) {
        self.send(bytes);
        let found = self.next();
        assert!(found.starts_with(answer), "{found}");
    }

    /// Says that it goes, and waits until the broker has ended the connection.
    fn leave(mut self) {
        self.send([0xe0, 0]);
        self.vanish();
    }

    /// Goes without a word, so that its will is to be published.
    fn vanish(mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connection");
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
    }
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(3600)
}

/// A session that waits for everything below `b`.
fn offline_subscriber(broker: &Running, client_id: &str) {
    let mut client = Client::connect(broker, &persistent(client_id));
    client.ask(Subscribing::to("b/#", 1).v5(), "SUBACK");
    client.leave();
}

/// Publishes so many messages of 1,000 bytes, which begin with their number.
fn publish(broker: &Running, from: u16, count: u16) {
    publish_large(broker, from, count, 1000);
}

fn publish_large(broker: &Running, from: u16, count: u16, len: usize) {
    let mut client = Client::connect(broker, &Connecting::v5("publisher"));
    for number in from..from + count {
        let payload = format!("{number:<5}{}", " ".repeat(len - 5));
        client.ask(Publishing::q1("b/x", &payload, number).v5(), "PUBACK");
    }
    client.leave();
}

/// Takes and acknowledges so many messages at QoS 1, and says how they begin.
fn consume(broker: &Running, client_id: &str, count: u16) -> Vec<u16> {
    let mut client = Client::connect(broker, &persistent(client_id));
    let mut numbers = Vec::new();
    for _ in 0..count {
        let packet_id = client.receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("it is a PUBLISH") };
            let number = String::from_utf8_lossy(&publish.payload[..5]);
            numbers.push(number.trim().parse().expect("a number"));
            publish.packet_id.expect("a packet identifier").get()
        });
        client.send(puback(packet_id));
    }
    // Answered behind the acknowledgements, which are taken in order.
    client.send([0xc0, 0]);
    while client.next() != "PINGRESP" {}
    client.leave();
    wait_until_written(broker);
    numbers
}

/// Waits until the log has what clients have been answered to. An acknowledgement to the broker is
/// on its way to the log when the broker answers to what follows it, and the log keeps the order.
fn wait_until_written(broker: &Running) {
    let mut client = Client::connect(broker, &Connecting::v5("publisher"));
    for (packet_id, payload) in [(1, "1"), (2, "")] {
        client.ask(Publishing::q1("written", payload, packet_id).retain().v5(), "PUBACK");
    }
    client.leave();
}

fn lines(export: &str) -> Vec<Value> {
    export.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// An export without what may change while a broker runs and no client does anything: nobody waits
/// until it is written down that one has gone.
fn settled(export: &str) -> Vec<Value> {
    let mut all = lines(export);
    for session in all.iter_mut().filter(|line| line["type"] == "session") {
        for name in ["online", "expires_at_ms", "will_at_ms"] {
            session[name] = Value::Null;
        }
    }
    all
}

fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).collect()
}

#[test]
fn a_log_is_intact_while_its_broker_runs_and_after_it_has_ended() {
    let data = fresh("intact");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 200);
    let found = done(&["check"], &data);
    assert!(found.contains("\nintact: "), "{found}");
    stop(broker);
    let found = done(&["check"], &data);
    let rows: Vec<Vec<&str>> = found.lines().map(|row| row.split_whitespace().collect()).collect();
    let paths = segments(&data);
    assert!(paths.len() > 2, "{found}");
    for (row, path) in rows[1..].iter().zip(&paths) {
        assert_eq!(row[0], path.file_name().expect("a name"));
        assert_eq!(row[1], path.metadata().expect("a file").len().to_string());
        assert_ne!(row[3], "0");
    }
    assert!(rows[paths.len() + 1].starts_with(&["intact:"]), "{found}");
}

#[test]
fn a_flipped_byte_is_found_with_its_file_and_what_follows_is_kept() {
    let data = fresh("flipped");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 100);
    stop(broker);
    let path = &segments(&data)[0];
    let mut content = std::fs::read(path).expect("a segment");
    content[20_000] ^= 1;
    std::fs::write(path, content).expect("a segment");
    let found = refused(&["check"], &data);
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(found.contains(&format!("damaged: {name}: ")), "{found}");
    assert!(found.contains("good frames follow"), "{found}");
    assert!(found.contains("the log is damaged: 1 part missing"), "{found}");
    let found = refused(&["export"], &data);
    assert!(found.contains("storage.skip_damage"), "{found}");
    refused(&["compact"], &data);
    let found = done(&["export", "--set", "storage.skip_damage=true"], &data);
    assert_eq!(of_type(&lines(&found), "message").len(), 99, "one frame had one message");
    let stats = done(&["stats", "--json"], &data);
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!((&stats["missing_parts"], &stats["messages"]), (&json!(1), &json!(99)));
}

#[test]
fn a_tail_that_was_not_written_to_the_end_is_no_damage() {
    let data = fresh("torn");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 3);
    stop(broker);
    let path = segments(&data).pop().expect("a segment");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("a segment");
    file.write_all(b"half a frame").expect("there is room");
    let found = done(&["check"], &data);
    assert!(found.contains("torn: 12 bytes"), "{found}");
    assert!(found.contains("intact: "), "{found}");
    assert_eq!(of_type(&lines(&done(&["export"], &data)), "message").len(), 3);
    assert!(done(&["stats"], &data).contains("messages         3 of 3009 bytes"));
}

#[test]
fn a_newer_format_and_records_of_another_version_are_said_clearly() {
    let data = fresh("newer");
    stop(start(&data));
    let path = &segments(&data)[0];
    let mut content = std::fs::read(path).expect("a segment");
    content[8..12].copy_from_slice(&77_u32.to_le_bytes());
    let crc = crc32c::crc32c(&content[..24]).to_le_bytes();
    content[24..28].copy_from_slice(&crc);
    std::fs::write(path, content).expect("a segment");
    for command in ["check", "stats", "export", "compact"] {
        let found = refused(&[command], &data);
        assert!(found.contains("has format version 77, supported is"), "{found}");
    }

    let data = fresh("record");
    let log = data.join("log");
    std::fs::create_dir_all(&log).expect("a directory");
    let backend = DiskBackend::open(&log).expect("a directory");
    let (mut log, _) =
        Log::open(backend, LogOptions::default(), Damage::Refuse).expect("an empty log");
    let mut frame = vec![0; dunlin_storage::FRAME_HEADER_BYTES];
    frame.extend_from_slice(&[200, 1, 2, 3]);
    set_address(&mut frame, log.end());
    log.append(&mut [frame]).expect("there is room");
    log.sync().expect("it syncs");
    let found = refused(&["check"], &data);
    assert!(found.contains("offset 32"), "{found}");
    assert!(found.contains("1 frame not readable"), "{found}");
    assert!(refused(&["stats"], &data).contains("does not know"));
}

#[test]
fn a_directory_without_a_log_is_said_to_be_one() {
    let data = fresh("nothing");
    for command in ["check", "stats", "export", "compact"] {
        assert!(refused(&[command], &data).contains("there is no log in the data directory"));
    }
    assert!(!data.exists());
    assert!(refused(&["check"], Path::new("")).contains("data_dir is empty"));
}

#[test]
fn stats_count_what_is_there() {
    let data = fresh("stats");
    let broker = start(&data);
    offline_subscriber(&broker, "few");
    publish(&broker, 1, 3);
    offline_subscriber(&broker, "none");
    let mut online = Client::connect(&broker, &persistent("on\nline").will("w", "gone", 1, false));
    online.ask(Subscribing::to("b/#", 1).and("u/+", 0).v5(), "SUBACK");
    let mut publisher = Client::connect(&broker, &Connecting::v5("p"));
    publisher.ask(Publishing::q1("b/y", "12345", 1).retain().v5(), "PUBACK");
    publisher.ask(Publishing::q1("other", "1234567890", 2).retain().v5(), "PUBACK");
    assert!(online.next().starts_with("PUBLISH b/y"));
    let stats: Value = serde_json::from_str(&done(&["stats", "--json"], &data)).expect("JSON");
    for (name, expected) in [
        ("sessions", 3),
        ("sessions_online", 1),
        ("sessions_offline", 2),
        ("subscriptions", 4),
        ("wills", 1),
        ("messages", 4),
        ("message_bytes", 3 * 1003 + 8),
        ("retained", 2),
        ("retained_bytes", 8 + 15),
        ("missing_parts", 0),
    ] {
        assert_eq!(stats[name], json!(expected), "{name} of {stats}");
    }
    // What was sent at QoS 1 need not be written down as such.
    let of = |name: &str| stats[name].as_u64().expect("a number");
    assert_eq!(of("queued") + of("in_flight"), 6);
    let backlogs: Vec<_> = stats["largest_backlogs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|backlog| (backlog["client_id"].as_str(), backlog["bytes"].as_u64()))
        .collect();
    let (few, one) = (Some(3 * 1003 + 8), Some(8));
    assert_eq!(backlogs, [(Some("few"), few), (Some("none"), one), (Some("on\nline"), one)]);
    assert_eq!(stats["bytes"], json!(bytes(&data)));
    let text = done(&["stats"], &data);
    assert!(text.contains("sessions         3 (1 online, 2 offline)"), "{text}");
    assert!(text.contains("on\\nline"), "{text}");
    drop((online, publisher));
    stop(broker);
}

/// A broker with something of everything that is kept.
fn something_of_everything(broker: &Running) {
    let will = Connecting::v5("will")
        .resume()
        .expiry(u32::MAX)
        .will("wills/w", "gone", 1, true)
        .will_with(Property::WillDelayInterval(600))
        .will_with(Property::UserProperty("why", "not"));
    Client::connect(broker, &will).vanish();
    let mut subscriber =
        Client::connect(broker, &persistent("sub").with(Property::ReceiveMaximum(2)));
    subscriber.ask(Subscribing::to("t/#", 2).identifier(7).as_published().v5(), "SUBACK");
    subscriber.ask(Subscribing::to("t/+", 1).identifier(9).v5(), "SUBACK");
    subscriber.ask(Subscribing::to("$share/group/other/#", 1).v5(), "SUBACK");
    let mut publisher = Client::connect(broker, &persistent("pub"));
    for id in 1..=6_u16 {
        let payload = [id as u8, 0, 255];
        let publishing = Publishing::q2("t/ä", &payload, id)
            .with(Property::ContentType("bytes"))
            .with(Property::UserProperty("n", "1"))
            .with(Property::UserProperty("n", "2"))
            .with(Property::CorrelationData(&[0, 1, 2]))
            .with(Property::PayloadFormatIndicator(false))
            .with(Property::MessageExpiryInterval(100_000));
        publisher.ask(publishing.v5(), "PUBREC");
    }
    publisher.ask(pubrel(2), "PUBCOMP");
    publisher.ask(Publishing::q1("kept/a", "1", 20).retain().v5(), "PUBACK");
    publisher.ask(
        Publishing::q1("kept/b", "2", 21).retain().with(Property::ResponseTopic("r")).v5(),
        "PUBACK",
    );
    publisher.leave();
    // One is released, one is in flight, the others wait.
    assert!(subscriber.next().starts_with("PUBLISH t/ä \"\\u{1}"));
    assert!(subscriber.next().starts_with("PUBLISH t/ä \"\\u{2}"));
    subscriber.ask(pubrec(1), "PUBREL 1");
    subscriber.leave();
    wait_until_written(broker);
}

#[test]
fn export_and_import_and_export_give_the_same_and_the_queues_are_delivered() {
    let (data, copy) = (fresh("original"), fresh("copy"));
    let broker = start(&data);
    something_of_everything(&broker);
    let running = done(&["export"], &data);
    stop(broker);
    let file = data.join("export.jsonl");
    done(&["export", "-o", text_of(&file)], &data);
    let export = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(settled(&running), settled(&export));
    assert_eq!(std::fs::read_dir(&data).expect("a directory").count(), 3, "nothing is left over");

    let all = lines(&export);
    let header = json!({
        "type": "header", "format": "dunlin-export", "version": 2, "sessions": 3, "messages": 5,
        "retained": 2, "queues": 0, "queue_messages": 0, "hash_keys": all[0]["hash_keys"],
    });
    assert_eq!(all[0], header);
    let sessions = of_type(&all, "session");
    let of_client = |id: &str| -> &Value {
        sessions.iter().find(|session| session["client_id"] == id).expect("a session")
    };
    assert_eq!(of_client("pub")["received"], json!([1, 3, 4, 5, 6]));
    assert_eq!(
        of_client("will")["will"]["properties"],
        json!([
            {"will_delay_interval": 600}, {"user_property": ["why", "not"]},
        ])
    );
    let subscriber = of_client("sub");
    assert_eq!(subscriber["subscriptions"].as_array().map(Vec::len), Some(3));
    assert_eq!(subscriber["in_flight"][0]["delivery"], Value::Null);
    assert_eq!(subscriber["in_flight"][1]["packet_id"], 2);
    assert_eq!(subscriber["queue"].as_array().map(Vec::len), Some(4));
    assert_eq!(subscriber["queue"][0]["identifiers"], json!([7, 9]));
    let message = of_type(&all, "message")[1];
    assert_eq!(message["payload_base64"], "AwD/");
    assert_eq!(message["properties"][0], json!({"content_type": "bytes"}));
    assert_eq!(of_type(&all, "retained")[1]["properties"], json!([{"response_topic": "r"}]));

    let said = done(&["import", text_of(&file)], &copy);
    assert_eq!(
        said,
        "imported 3 sessions, 5 messages, 2 retained messages, 0 queues, 0 queue messages\n"
    );
    assert_eq!(done(&["export"], &copy), export);
    assert!(done(&["check"], &copy).contains("intact"));

    let broker = start(&copy);
    let mut subscriber = Client::connect(&broker, &persistent("sub"));
    let mut got: Vec<String> = (0..6).map(|_| subscriber.next()).collect();
    got.sort_by_key(|text| !text.starts_with("PUBREL"));
    assert_eq!(got[0], "PUBREL 1");
    assert!(got[1].starts_with("PUBLISH t/ä \"\\u{2}\\0\u{fffd}\" q2 id=2 dup ["), "{got:?}");
    for (number, text) in got.iter().enumerate().skip(2) {
        assert!(text.starts_with(&format!("PUBLISH t/ä \"\\u{{{}}}", number + 1)), "{got:?}");
        assert!(text.contains("UserProperty(\"n\", \"1\"), UserProperty(\"n\", \"2\")"), "{text}");
        assert!(text.contains("SubscriptionIdentifier(7), SubscriptionIdentifier(9)"), "{text}");
    }
    subscriber.send(Subscribing::to("kept/#", 1).v5());
    let retained: BTreeSet<String> = (0..3)
        .map(|_| subscriber.next())
        .filter(|text| text.starts_with("PUBLISH"))
        .map(|text| text[.."PUBLISH kept/a".len()].to_owned())
        .collect();
    assert_eq!(retained.into_iter().collect::<Vec<_>>(), ["PUBLISH kept/a", "PUBLISH kept/b"]);
    subscriber.leave();
    stop(broker);
}

/// An export of one session that waits for one message.
fn small_export() -> Vec<Value> {
    vec![
        json!({
            "type": "header", "format": "dunlin-export", "version": 1,
            "sessions": 1, "messages": 1, "retained": 1, "hash_keys": null,
        }),
        json!({
            "type": "session", "number": 1, "client_id": "c", "expiry_s": 60, "online": false,
            "expires_at_ms": null, "will_at_ms": null,
            "will": {
                "topic": "w", "qos": 0, "retain": false, "delay_s": 0,
                "properties": null, "properties_base64": "", "payload_base64": "",
            },
            "subscriptions": [{
                "filter": "a/#", "qos": 1, "no_local": false, "retain_as_published": false,
                "retain_handling": 0, "identifier": null,
            }],
            "received": [], "in_flight": [{"packet_id": 5, "delivery": null}],
            "queue": [{"message": 4, "qos": 1, "retain": false, "identifiers": []}],
        }),
        json!({
            "type": "message", "number": 4, "topic": "a/b", "qos": 1, "retain": false,
            "received_at_ms": 1_700_000_000_000_u64, "expires_at_ms": null, "properties": null,
            "properties_base64": "", "payload_base64": "aGVsbG8=",
        }),
        json!({
            "type": "retained", "number": 5, "topic": "kept", "qos": 1,
            "publisher": "0000000000000001", "expires_at_ms": null, "properties": [],
            "properties_base64": "", "payload_base64": "",
        }),
    ]
}

fn written(name: &str, lines: &[Value]) -> PathBuf {
    let path = fresh(name);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).expect("a file");
    path
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_left_of_the_import() {
    type Change = fn(&mut Vec<Value>);
    let cases: &[(&str, u32, Change, &str)] = &[
        ("version", 1, |all| all[0]["version"] = json!(3), "has version 3, supported is 2"),
        ("format", 1, |all| all[0]["format"] = json!("tar"), "not what dunlin storage export"),
        ("header", 1, |all| drop(all.remove(0)), "not what dunlin storage export"),
        ("keys", 1, |all| all[0]["hash_keys"] = json!(["1", "2", "3", "4"]), "hexadecimal"),
        ("unknown", 2, |all| all[1]["colour"] = json!("red"), "unknown field `colour`"),
        ("kind", 2, |all| all[1]["type"] = json!("sesion"), "unknown variant `sesion`"),
        ("type", 2, |all| all[1]["number"] = json!("1"), "invalid type"),
        ("zero", 2, |all| all[1]["number"] = json!(0), "the number 0 is not between"),
        ("client", 2, |all| all[1]["client_id"] = json!(""), "client identifier"),
        ("nul", 2, |all| all[1]["client_id"] = json!("a\0b"), "U+0000"),
        ("filter", 2, |all| all[1]["subscriptions"][0]["filter"] = json!("a/#/b"), "topic filter"),
        ("qos", 2, |all| all[1]["subscriptions"][0]["qos"] = json!(3), "above 2"),
        ("handling", 2, |all| all[1]["subscriptions"][0]["retain_handling"] = json!(16), "above 2"),
        ("identifier", 2, |all| all[1]["subscriptions"][0]["identifier"] = json!(0), "between 1"),
        ("will", 2, |all| all[1]["will"]["topic"] = json!("+"), "will: \"+\" is not a topic"),
        ("packet", 2, |all| all[1]["received"] = json!([0]), "packet identifier is 0"),
        ("twice", 2, |all| all[1]["received"] = json!([3, 3]), "there twice"),
        (
            "order",
            2,
            |all| {
                let mut first = all[1]["queue"][0].clone();
                first["message"] = json!(9);
                all[1]["queue"].as_array_mut().expect("a list").insert(0, first);
            },
            "not in the order",
        ),
        ("q0", 2, |all| all[1]["queue"][0]["qos"] = json!(0), "QoS 0"),
        ("missing", 2, |all| all[1]["queue"][0]["message"] = json!(3), "no session waits"),
        (
            "lost",
            2,
            |all| {
                all.remove(2);
                all[0]["messages"] = json!(0);
            },
            "message 4 is in no line",
        ),
        ("topic", 3, |all| all[2]["topic"] = json!("a/+"), "\"a/+\" is not a topic name"),
        ("long", 3, |all| all[2]["topic"] = json!("x".repeat(65_536)), "is not a topic name"),
        ("base64", 3, |all| all[2]["payload_base64"] = json!("%"), "payload_base64"),
        ("properties", 3, |all| all[2]["properties_base64"] = json!("/w=="), "properties_base64: "),
        ("expiry", 3, |all| all[2]["properties_base64"] = json!("AgAAAAE="), "expires_at_ms"),
        ("alias", 3, |all| all[2]["properties_base64"] = json!("IwAB"), "cannot have"),
        (
            "described",
            3,
            |all| {
                all[2]["properties"] = json!([{"content_type": "x"}]);
            },
            "not what properties_base64 is",
        ),
        ("again", 4, |all| all.insert(3, all[2].clone()), "another message with the number 4"),
        ("late", 5, |all| all.push(json!(all[1])), "sessions come before messages"),
        ("topics", 5, |all| all.push(json!(all[3])), "has had its retained message"),
        ("publisher", 4, |all| all[3]["publisher"] = json!("x"), "publisher: "),
        (
            "clients",
            3,
            |all| {
                let mut other = all[1].clone();
                other["number"] = json!(2);
                all.insert(2, other);
            },
            "another session of this client",
        ),
        ("short", 4, |all| drop(all.pop()), "the header says 1 retained message, and there are 0"),
    ];
    for (name, line, change, expected) in cases {
        let mut all = small_export();
        change(&mut all);
        let (data, file) = (fresh("refused"), written("refused.jsonl", &all));
        let found = refused(&["import", text_of(&file)], &data);
        assert!(found.contains(expected), "{name}: {found}");
        // Who waits for what is only known at the end, or where it does not come.
        let line = if *name == "missing" { 3 } else { *line };
        assert!(found.contains(&format!("refused.jsonl:{line}: ")), "{name}: {found}");
        assert!(!data.exists(), "{name}: something is left");
    }
    let data = fresh("refused");
    std::fs::create_dir_all(&data).expect("a directory");
    let file = fresh("json.jsonl");
    std::fs::write(&file, "{\"type\":\n").expect("a file");
    let found = refused(&["import", text_of(&file)], &data);
    assert!(found.contains("json.jsonl:1: EOF while parsing"), "{found}");
    std::fs::write(&file, b"\xff\n").expect("a file");
    assert!(refused(&["import", text_of(&file)], &data).contains("json.jsonl:1: "));
    std::fs::write(&file, "").expect("a file");
    assert!(refused(&["import", text_of(&file)], &data).contains("the file is empty"));
    assert!(!data.join("log").exists() && !data.join("log.new").exists());
    assert!(refused(&["import", "/no/such/file"], &data).contains("/no/such/file"));
}

#[test]
fn import_takes_a_pipe_and_a_directory_in_which_nothing_is_kept_and_no_other() {
    let data = fresh("used");
    let file = written("used.jsonl", &small_export());
    let broker = start(&data);
    let found = refused(&["import", text_of(&file)], &data);
    assert!(found.contains("a broker uses the data directory"), "{found}");
    stop(broker);
    // A broker was there, and kept nothing.
    let mut import = Command::new(dunlin())
        .args(["storage", "import", "-", "--data-dir"])
        .arg(&data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("dunlin runs");
    let content = std::fs::read(&file).expect("a file");
    import.stdin.take().expect("a pipe").write_all(&content).expect("it reads");
    assert!(import.wait().expect("it ends").success());
    let export = done(&["export"], &data);
    assert_eq!(lines(&export).len(), 4);
    let found = refused(&["import", text_of(&file)], &data);
    assert!(found.contains("has data"), "{found}");
    assert_eq!(done(&["export"], &data), export);
}

#[test]
fn compacting_without_a_broker_leaves_what_is_alive_and_nothing_else() {
    let data = fresh("compact");
    let broker = start(&data);
    something_of_everything(&broker);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 300);
    assert_eq!(consume(&broker, "s", 290), (1..=290).collect::<Vec<_>>());
    stop(broker);
    // What an attempt that was cut short has left.
    std::fs::create_dir_all(data.join("log.new")).expect("a directory");
    std::fs::write(data.join("log.new/0000000000001000.log"), "half").expect("a file");
    let (before, export) = (bytes(&data), done(&["export"], &data));
    let said = done(&["compact"], &data);
    let after = bytes(&data);
    assert_eq!(said, format!("{before} bytes before, {after} bytes after\n"));
    assert!(after < before / 2, "{said}");
    assert!(!data.join("log.new").exists());
    assert_eq!(done(&["export"], &data), export);
    assert!(done(&["check"], &data).contains("intact"));
    done(&["compact"], &data);
    assert_eq!(bytes(&data), after, "there is nothing more to win");
    let broker = start(&data);
    assert_eq!(consume(&broker, "s", 10), (291..=300).collect::<Vec<_>>());
    stop(broker);
}

#[test]
fn a_broker_that_runs_is_asked_to_compact_and_loses_nothing() {
    let data = fresh("running");
    let broker = start(&data);
    something_of_everything(&broker);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 300);
    assert_eq!(consume(&broker, "s", 290), (1..=290).collect::<Vec<_>>());
    let (before, export) = (bytes(&data), done(&["export"], &data));
    done(&["compact"], &data);
    assert!(bytes(&data) < before / 2, "{} of {before}", bytes(&data));
    assert_eq!(settled(&done(&["export"], &data)), settled(&export));
    assert!(refused(&["compact", "--timeout", "0"], &data).contains("after 0 s"));
    publish(&broker, 301, 5);
    assert_eq!(consume(&broker, "s", 15), (291..=305).collect::<Vec<_>>());
    stop(broker);
}

#[test]
fn what_is_read_while_a_broker_compacts_is_all_that_is_kept() {
    let data = fresh("meanwhile");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 200);
    let kept = settled(&done(&["export"], &data));
    for _ in 0..2 {
        let mut compact = Command::new(dunlin())
            .args(["storage", "compact", "--data-dir", text_of(&data)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dunlin runs");
        let mut is_done = false;
        while !is_done {
            is_done = compact.try_wait().expect("a child").is_some();
            assert!(settled(&done(&["export"], &data)) == kept);
            assert!(done(&["check"], &data).contains("intact"));
        }
        assert!(compact.wait().expect("it ends").success());
    }
    stop(broker);
}

#[test]
fn numbers_of_messages_that_are_done_with_are_not_used_again_after_compacting() {
    let data = fresh("numbers");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    // It fills a segment, so that what is done with it goes into the next.
    publish_large(&broker, 1, 1, 70_000);
    assert_eq!(consume(&broker, "s", 1), [1]);
    // The message goes, and that it is done with stays.
    done(&["compact"], &data);
    stop(broker);
    let broker = start(&data);
    publish(&broker, 2, 3);
    stop(broker);
    let broker = start(&data);
    assert_eq!(consume(&broker, "s", 3), [2, 3, 4]);
    stop(broker);
}

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn time(&mut self) -> Time {
        if self.one_in(2) { Time::NEVER } else { Time::from_millis(self.below(1 << 42)) }
    }

    fn qos(&mut self, from: u8) -> QoS {
        QoS::from_bits(from + self.below(u64::from(3 - from)) as u8).expect("a QoS")
    }

    fn text(&mut self) -> Box<str> {
        let len = 1 + self.below(12);
        (0..len)
            .map(|_| ['a', 'ß', '"', '\\', '/', '漢', '😀', ' '][self.below(8) as usize])
            .collect()
    }

    fn bytes(&mut self) -> Box<[u8]> {
        let len = self.below(40);
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    fn properties(&mut self) -> Box<[u8]> {
        let mut properties = PropertiesBuf::new();
        for _ in 0..self.below(3) {
            let (name, value) = (self.text(), self.text());
            properties.push(Property::UserProperty(&name, &value));
        }
        if self.one_in(2) {
            let bytes = self.bytes();
            properties.push(Property::CorrelationData(&bytes));
        }
        properties.as_properties().as_bytes().into()
    }

    fn packet_ids(&mut self) -> Vec<PacketId> {
        let ids: BTreeSet<u16> =
            (0..self.below(6)).map(|_| 1 + self.below(65_535) as u16).collect();
        ids.into_iter().map(|id| PacketId::new(id).expect("it is not 0")).collect()
    }

    /// Topic, properties and payload, with the lengths of the first two.
    fn content(&mut self, topic: &str) -> (u32, u32, Box<[u8]>) {
        let (properties, payload) = (self.properties(), self.bytes());
        let content = [topic.as_bytes(), &properties, &payload].concat();
        (topic.len() as u32, properties.len() as u32, content.into())
    }

    fn session(&mut self, sid: u64, messages: u64) -> StoredSession {
        let mut deliveries: Vec<StoredRef> = Vec::new();
        for id in 1..=messages {
            if self.one_in(3) {
                let identifiers = (0..self.below(3)).map(|_| 1 + self.below(1 << 28) as u32 / 2);
                let identifiers: Vec<u32> = identifiers.collect();
                let (qos, retain) = (self.qos(1), self.one_in(2));
                deliveries.push(StoredRef { id, qos, retain, identifiers: identifiers.into() });
            }
        }
        let mut in_flight = Vec::new();
        for packet_id in self.packet_ids() {
            let delivery = if deliveries.is_empty() || self.one_in(3) {
                None
            } else {
                Some(deliveries.remove(self.below(deliveries.len() as u64) as usize))
            };
            in_flight.push((packet_id, delivery));
        }
        let filters: BTreeSet<Box<str>> = (0..self.below(4)).map(|_| self.text()).collect();
        let subscriptions = filters.into_iter().map(|filter| {
            let options = SubscriptionOptions {
                qos: self.qos(0),
                no_local: self.one_in(2),
                retain_as_published: self.one_in(2),
                ..SubscriptionOptions::default()
            };
            (filter, Subscription { options, identifier: self.below(3) as u32 })
        });
        let subscriptions = subscriptions.collect();
        let will = self.one_in(2).then(|| StoredWill {
            topic: self.text(),
            properties: self.properties(),
            payload: self.bytes(),
            qos: self.qos(0),
            retain: self.one_in(2),
            delay_s: self.below(1 << 32) as u32,
        });
        StoredSession {
            consumers: Vec::new(),
            sid,
            client_id: format!("{sid}{}", self.text()).into(),
            expiry_s: self.below(1 << 32) as u32,
            was_online: self.one_in(2),
            expires_at: self.time(),
            will_at: if will.is_some() { self.time() } else { Time::NEVER },
            will: will.map(Box::new),
            subscriptions,
            received: self.packet_ids(),
            in_flight,
            queue: deliveries,
        }
    }
}

/// A log with anything that may be kept in it.
fn random_log(data: &Path, random: &mut Random) {
    let directory = data.join("log");
    std::fs::create_dir_all(&directory).expect("a directory");
    let backend = DiskBackend::open(&directory).expect("a directory");
    let mut log = NewLog::begin(backend, LogOptions::default()).expect("an empty log");
    if random.one_in(2) {
        log.keys([random.0, !random.0, 0, u64::MAX]).expect("there is room");
    }
    let (messages, mut deliveries) = (random.below(20), Deliveries::default());
    for sid in 1..=random.below(6) {
        let session = random.session(sid, messages);
        deliveries.add(&session);
        log.session(&session).expect("there is room");
    }
    // Any order will do.
    for id in (1..=messages).rev() {
        let Some(refs) = deliveries.take(id) else { continue };
        let topic = random.text();
        let (topic_len, properties_len, content) = random.content(&topic);
        let record = MessageRecord {
            id,
            qos: random.qos(0),
            retain: random.one_in(2),
            is_retained: false,
            expires_at: random.time(),
            received: random.below(1 << 32) as u32,
            publisher: 0,
            topic_len,
            properties_len,
            content: &content,
            refs: Refs::new(&refs),
            position: 0,
        };
        log.message(&record).expect("there is room");
    }
    for number in 0..random.below(6) {
        let topic = format!("{number}{}", random.text());
        let (topic_len, properties_len, content) = random.content(&topic);
        let retained = StoredRetained {
            id: 1 + random.below(1 << 50),
            publisher: random.0,
            expires_at: random.time(),
            qos: random.qos(0),
            topic_len,
            properties_len,
            content,
        };
        log.retained(&retained).expect("there is room");
    }
    log.finish().expect("it syncs");
}

#[test]
fn any_log_is_the_same_after_export_and_import_and_after_compacting() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..25 {
        let (data, copy) = (fresh("random"), fresh("random-copy"));
        random_log(&data, &mut random);
        let file = fresh("random.jsonl");
        done(&["export", "-o", text_of(&file)], &data);
        let export = std::fs::read_to_string(&file).expect("a file");
        done(&["import", text_of(&file)], &copy);
        assert_eq!(done(&["export"], &copy), export);
        done(&["compact"], &copy);
        assert_eq!(done(&["export"], &copy), export);
    }
}
