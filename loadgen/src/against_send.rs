//! One message to many: the broker against a process that does nothing but `send()`, and at QoS 1
//! reads as many acknowledgements.
//!
//! Both are fed a burst, all subscribers read it, and the next is fed; the two are taken in turn.
//! CPU is that of the process, user and system; on loopback it includes the receiver's half of TCP
//! in both. The sender has the first core, those who read the second.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_packets::{
    Connect, FilterRequest, PacketId, Properties, Publish, QoS, Subscribe, SubscriptionOptions,
    Version,
};

use rustix::thread::{CpuSet, sched_setaffinity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::AgainstSendArgs;
use crate::limits;
use crate::outcome::median;
use crate::process::Process;
use crate::receivers::{FrameShape, PUBACK_LEN, Receivers};

const VERSION: Version = Version::V4;
const PAYLOAD: [u8; 64] = [b'x'; 64];
const TOPIC: &str = "bench/fan-out";
const PATIENCE: Duration = Duration::from_secs(10);

/// A child process that says `listening on ADDRESS` first. It ends with this value.
#[derive(Debug)]
struct Sender {
    child: Child,
    process: Process,
    port: u16,
}

impl Sender {
    /// Starts a program that lies beside this one.
    fn start<'a>(name: &str, args: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let path = std::env::current_exe()?.with_file_name(name);
        // A child begins where its parent is.
        pin(0);
        let mut child = Command::new(&path)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        pin(1);
        let mut line = String::new();
        let stdout = child.stdout.as_mut().ok_or_else(|| io::Error::other("no pipe"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| io::Error::other(format!("{name} said {line:?}")))?;
        let process = Process::open(child.id())?;
        Ok(Self { child, process, port })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps this thread on one core, where there are two: the sender and those who read have one each,
/// or the figures say who was moved where.
fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // With one core, or where it is not allowed, the figures are less steady.
    let _ = sched_setaffinity(None, &set);
}

/// CPU microseconds per delivery of a process while `round` is repeated for some time.
fn measure(
    process: &Process,
    args: &AgainstSendArgs,
    is_over: &AtomicBool,
    mut round: impl FnMut() -> io::Result<()>,
) -> io::Result<f64> {
    for _ in 0..50 {
        round()?;
    }
    let before = process.usage()?.cpu_s;
    let (mut deliveries, mut used) = (0, 0.0);
    // The process's own CPU time is the clock: what else the machine does matters little.
    while used < args.seconds {
        if is_over.load(Ordering::SeqCst) {
            return Err(io::Error::new(ErrorKind::Interrupted, "told to end"));
        }
        for _ in 0..20 {
            round()?;
            deliveries += args.subscribers * args.burst;
        }
        used = process.usage()?.cpu_s - before;
    }
    Ok(used / deliveries as f64 * 1e6)
}

fn expect(stream: &mut TcpStream, len: usize) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut vec![0; len])
}

fn connect(client_id: &str, stream: &mut TcpStream) -> io::Result<()> {
    let mut out = Vec::new();
    Connect {
        version: VERSION,
        clean_start: true,
        keep_alive_s: 0,
        client_id,
        properties: Properties::default(),
        will: None,
        user_name: None,
        password: None,
    }
    .encode(&mut out);
    stream.write_all(&out)?;
    expect(stream, 4)
}

fn subscribe(stream: &mut TcpStream, qos: QoS) -> io::Result<()> {
    let mut out = Vec::new();
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let requests = [FilterRequest { filter: TOPIC, options }];
    Subscribe::encode(VERSION, PacketId::MIN, Properties::default(), &requests, &mut out);
    stream.write_all(&out)?;
    expect(stream, 5)
}

/// What a subscriber says before it receives, and what it is answered. The bare sender's say the
/// same: on a connection whose receiver has never spoken, the kernel has it acknowledge each read,
/// which keeps it so busy that the sender seldom has to wake it.
fn open(number: usize, stream: &mut TcpStream, qos: QoS) -> io::Result<()> {
    connect(&format!("subscriber-{number}"), stream)?;
    subscribe(stream, qos)
}

/// Messages of a burst, at QoS 1 with packet identifiers from 1 on.
pub(crate) fn publish(burst: usize, qos: QoS) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 1..=burst as u16 {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic: TOPIC,
            packet_id: PacketId::new(number).filter(|_| qos == QoS::AtLeastOnce),
            properties: Properties::default(),
            payload: &PAYLOAD,
        }
        .encode(VERSION, &mut out);
    }
    out
}

/// What there is to acknowledge. The identifier is behind the header of two bytes and the topic.
fn shape(qos: QoS) -> Option<FrameShape> {
    let shape = FrameShape { len: publish(1, qos).len(), id_at: 4 + TOPIC.len() };
    (qos == QoS::AtLeastOnce).then_some(shape)
}

fn through_broker(args: &AgainstSendArgs, is_over: &AtomicBool, qos: QoS) -> io::Result<f64> {
    let broker =
        Sender::start("dunlin", ["--listen", "127.0.0.1:0", "--workers", "1", "--data-dir", ""])?;
    let mut receivers = Receivers::connect(broker.port, args.subscribers, |number, stream| {
        open(number, stream, qos)
    })?;
    let mut publisher = TcpStream::connect(("127.0.0.1", broker.port))?;
    publisher.set_nodelay(true)?;
    connect("publisher", &mut publisher)?;
    let (burst, shape) = (publish(args.burst, qos), shape(qos));
    measure(&broker.process, args, is_over, || {
        publisher.write_all(&burst)?;
        receivers.receive(args.subscribers * burst.len(), shape)?;
        match shape {
            Some(_) => expect(&mut publisher, args.burst * PUBACK_LEN),
            None => Ok(()),
        }
    })
}

fn through_bare_sender(args: &AgainstSendArgs, is_over: &AtomicBool, qos: QoS) -> io::Result<f64> {
    let (subscribers, burst) = (args.subscribers.to_string(), args.burst.to_string());
    let bits = (qos as u8).to_string();
    let options = ["bare-sender", "--subscribers", &subscribers, "--burst", &burst, "--qos", &bits];
    let silent = args.silent.then_some("--silent");
    let mut sender = Sender::start("dunlin-bench", options.into_iter().chain(silent))?;
    let mut receivers = Receivers::connect(sender.port, args.subscribers, |number, stream| {
        if args.silent {
            return Ok(());
        }
        open(number, stream, qos)
    })?;
    let mut trigger =
        sender.child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the sender"))?;
    let bytes = args.subscribers * publish(args.burst, qos).len();
    measure(&sender.process, args, is_over, || {
        trigger.write_all(b"x")?;
        receivers.receive(bytes, shape(qos))
    })
}

/// Measures both in turn and prints each round and the median of the ratios.
pub(crate) fn run(args: &AgainstSendArgs) -> io::Result<()> {
    let connections_max = limits::connections_max(1);
    if args.subscribers >= connections_max {
        return Err(io::Error::other(format!(
            "{} subscribers: {connections_max} connections can be had here",
            args.subscribers
        )));
    }
    // So that the processes it has started end with it.
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    let (subscribers, burst) = (args.subscribers, args.burst);
    println!("fan-out 1 -> {subscribers}, QoS {}, {burst} frames per write", args.qos);
    let ratios = match args.qos {
        0 => against_send(args, &is_over)?,
        _ => against_qos_0(args, &is_over)?,
    };
    println!("median ratio {:.3}", median(&ratios).unwrap_or(f64::NAN));
    Ok(())
}

fn against_send(args: &AgainstSendArgs, is_over: &AtomicBool) -> io::Result<Vec<f64>> {
    println!("{:>12} {:>12} {:>8}", "broker us", "send() us", "ratio");
    let mut ratios = Vec::new();
    for _ in 0..args.rounds {
        let broker = through_broker(args, is_over, QoS::AtMostOnce)?;
        let bare = through_bare_sender(args, is_over, QoS::AtMostOnce)?;
        println!("{broker:>12.3} {bare:>12.3} {:>8.3}", broker / bare);
        ratios.push(broker / bare);
    }
    Ok(ratios)
}

/// What a delivery at QoS 1 costs, less the system calls of its acknowledgement, to one at QoS 0.
fn against_qos_0(args: &AgainstSendArgs, is_over: &AtomicBool) -> io::Result<Vec<f64>> {
    println!("{:>12} {:>12} {:>12} {:>8}", "QoS 1 us", "QoS 0 us", "ack us", "ratio");
    let mut ratios = Vec::new();
    for _ in 0..args.rounds {
        let [zero, one] = [QoS::AtMostOnce, QoS::AtLeastOnce];
        let (broker_0, broker_1) =
            (through_broker(args, is_over, zero)?, through_broker(args, is_over, one)?);
        let bare_1 = through_bare_sender(args, is_over, one)?;
        let ack = bare_1 - through_bare_sender(args, is_over, zero)?;
        let ratio = (broker_1 - ack) / broker_0;
        println!("{broker_1:>12.3} {broker_0:>12.3} {ack:>12.3} {ratio:>8.3}");
        ratios.push(ratio);
    }
    Ok(ratios)
}
