//! `dunlin storage` as a user runs it, on data directories that brokers have written.

mod check;
mod compact;
mod import;
mod queues;
mod random;
mod stats;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use dunlin_packets::{Frame, Packet, Property, VARINT_MAX, Version};
use dunlin_tests::program::{Running, dunlin};
use dunlin_tests::{Connecting, Publishing, Subscribing, describe, puback, pubrec, pubrel};
use serde_json::Value;

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

fn written(name: &str, lines: &[Value]) -> PathBuf {
    let path = fresh(name);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).expect("a file");
    path
}
