//! Clients that answer each other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dunlin_tests::program::Running;
use dunlin_tests::{Connecting, Publishing, Subscribing};

const PAIRS: usize = 12;
/// Much longer than any machine takes for all of it. A worker that nobody wakes is woken in the end,
/// by a timer of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// One of two clients that answer each other.
pub(crate) struct Player {
    stream: TcpStream,
    deadline: Instant,
    /// What it sends, and what it is sent.
    call: Vec<u8>,
    answer: Vec<u8>,
}

impl Player {
    pub(crate) fn new(broker: &Running, pair: usize, own: &str, other: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let [own, other] = [own, other].map(|name| format!("pair/{pair}/{name}"));
        stream.write_all(&Connecting::v4(&own).bytes()).expect("it reads");
        stream.read_exact(&mut [0; 4]).expect("CONNACK");
        stream.write_all(&Subscribing::to(&own, 0).v4()).expect("it reads");
        stream.read_exact(&mut [0; 5]).expect("SUBACK");
        let [answer, call] = [own, other].map(|topic| Publishing::q0(&topic, "x").v4());
        Self { stream, deadline: Instant::now() + PATIENCE, call, answer }
    }

    pub(crate) fn call(&mut self) {
        self.stream.write_all(&self.call).expect("it reads");
    }

    pub(crate) fn hear(&mut self) {
        let mut got = vec![0; self.answer.len()];
        self.stream.read_exact(&mut got).expect("the message of the other");
        assert_eq!(got, self.answer);
        assert!(Instant::now() < self.deadline, "messages arrive late, one after the other");
    }
}

pub(crate) fn play(pair: &mut [Player; 2], rounds: usize) {
    let [one, other] = pair;
    for _ in 0..rounds {
        one.call();
        other.hear();
        other.call();
        one.hear();
    }
}

/// Clients on whichever workers their names say.
pub(crate) fn pairs(broker: &Running) -> Vec<[Player; 2]> {
    (0..PAIRS)
        .map(|pair| [Player::new(broker, pair, "a", "b"), Player::new(broker, pair, "b", "a")])
        .collect()
}

pub(crate) fn start() -> Running {
    Running::start(&["--workers", "4", "--data-dir", "", "--set", "mqtt.sys_interval_ms=0"])
}
