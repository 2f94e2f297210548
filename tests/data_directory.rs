//! The program and the directory it keeps its log in.

#![allow(clippy::disallowed_methods)] // a program has its own clock

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dunlin_packets::{Ack, AckKind, Frame, Packet, Version};
use dunlin_tests::program::{Running, dunlin};
use dunlin_tests::{Connecting, Publishing, Subscribing};

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is not there yet.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn serve(data: &Path, sets: &[&str]) -> Running {
    let mut args = vec!["--workers", "2", "--data-dir", data.to_str().expect("a path of UTF-8")];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    Running::start(&args)
}

/// A 5.0 client on a socket.
struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Socket {
    fn connect(broker: &Running, connecting: &Connecting<'_>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut socket = Self { stream, received: Vec::new() };
        socket.send(connecting.bytes());
        assert!(socket.answer().starts_with("CONNACK Success"));
        socket
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("it is read");
    }

    /// The next packet as text, acknowledged if it is a PUBLISH at QoS 1; empty when the broker
    /// has closed.
    fn answer(&mut self) -> String {
        loop {
            let found = Frame::split(&self.received, 1 << 20, Version::V5).expect("a packet");
            if let Some((frame, len)) = found {
                let packet = Packet::decode(&frame, Version::V5).expect("a valid packet");
                let text = dunlin_tests::describe(&packet);
                let mut ack = Vec::new();
                if let Packet::Publish(publish) = &packet
                    && let Some(id) = publish.packet_id
                {
                    Ack::new(AckKind::PubAck, id).encode(Version::V5, &mut ack);
                }
                self.received.drain(..len);
                self.send(ack);
                return text;
            }
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return String::new(),
                Ok(len) => self.received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return String::new(),
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(100_000)
}

/// Asks again until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn files_of_removed_segments_do_not_stay_open() {
    let data = directory("open-files");
    let sets = [
        "storage.segment_bytes=65536",
        "storage.clean_above_bytes=0",
        "storage.min_free_bytes=0",
        "durability.memory_per_worker=0",
    ];
    let broker = serve(&data, &sets);
    let mut subscriber = Socket::connect(&broker, &persistent("s"));
    subscriber.send(Subscribing::to("t/#", 1).v5());
    assert!(subscriber.answer().starts_with("SUBACK"));
    drop(subscriber);
    let mut publisher = Socket::connect(&broker, &Connecting::v5("p"));
    for id in 1..=400 {
        publisher.send(Publishing::q1("t/x", &"x".repeat(4000), id).v5());
        assert_eq!(publisher.answer(), format!("PUBACK {id}"));
    }
    // All of it is read back, so all segments are open.
    let mut subscriber = Socket::connect(&broker, &persistent("s"));
    for _ in 0..400 {
        assert!(subscriber.answer().starts_with("PUBLISH"));
    }
    let files = PathBuf::from(format!("/proc/{}/fd", broker.pid()));
    let count = |is_meant: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(&files).expect("a process has descriptors");
        let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_str().is_some_and(is_meant)).count()
    };
    let segments = || std::fs::read_dir(data.join("log")).expect("a log").count();
    eventually("the log shrinks", || segments() < 10);
    eventually("removed files are closed", || count(&|name| name.ends_with("(deleted)")) == 0);
}

#[test]
fn a_data_directory_that_is_gone_is_noticed_and_nothing_is_acknowledged_as_kept() {
    let data = directory("gone");
    let broker = serve(&data, &["mqtt.sys_interval_ms=100"]);
    let mut subscriber = Socket::connect(&broker, &persistent("s"));
    subscriber.send(Subscribing::to("t/#", 1).v5());
    assert!(subscriber.answer().starts_with("SUBACK"));
    std::fs::remove_dir_all(&data).expect("it was there");
    let log = broker.log_until("THE LOG HAS GONE", PATIENCE);
    assert!(log.contains("gone/log"), "{log}");
    let mut publisher = Socket::connect(&broker, &Connecting::v5("p"));
    publisher.send(Publishing::q1("t/x", "x", 1).v5());
    assert_eq!(publisher.answer(), "PUBACK 1 ImplementationSpecificError");
    assert!(!broker.terminate().success());
}

#[test]
fn a_log_that_is_no_directory_is_named() {
    let data = directory("file");
    std::fs::create_dir_all(&data).expect("a directory");
    std::fs::write(data.join("log"), "").expect("a file");
    let output = Command::new(dunlin())
        .args(["--listen", "127.0.0.1:0", "--data-dir", data.to_str().expect("a path of UTF-8")])
        .output()
        .expect("dunlin runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("file/log: "), "{text}");
}

#[test]
fn space_is_reserved_for_the_log() {
    let data = directory("reserve");
    let broker = serve(&data, &["storage.min_free_bytes=40000"]);
    let reserved = || data.join("log/reserve").metadata().map_or(0, |metadata| metadata.len());
    eventually("a quarter of what has to be free", || reserved() == 10_000);
    assert!(broker.terminate().success());
}
