//! One message to many: the broker against a bare `send()` loop.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use dunlin_packets::{
    Connect, FilterRequest, PacketId, Properties, Publish, QoS, Subscribe, SubscriptionOptions,
    Version,
};

use crate::Args;
use crate::broker::Process;
use crate::receivers::Receivers;

const VERSION: Version = Version::V4;
const PAYLOAD: [u8; 64] = [b'x'; 64];

/// CPU microseconds per delivery of a process while `round` is repeated for some time.
fn measure(
    process: &Process,
    args: &Args,
    mut round: impl FnMut() -> io::Result<()>,
) -> io::Result<f64> {
    for _ in 0..50 {
        round()?;
    }
    let before = process.cpu_s()?;
    let (mut deliveries, mut used) = (0, 0.0);
    // The broker's own CPU time is the clock: what else the machine does matters little.
    while used < args.seconds {
        for _ in 0..20 {
            round()?;
            deliveries += args.subscribers * args.burst;
        }
        used = process.cpu_s()? - before;
    }
    Ok(used / deliveries as f64 * 1e6)
}

fn expect(stream: &mut TcpStream, len: usize) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.read_exact(&mut vec![0; len])
}

pub(crate) fn connect(client_id: &str, stream: &mut TcpStream) -> io::Result<()> {
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

pub(crate) fn subscribe(filter: &str, qos: QoS, stream: &mut TcpStream) -> io::Result<()> {
    let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let mut out = Vec::new();
    let requests = [FilterRequest { filter, options }];
    Subscribe::encode(VERSION, PacketId::MIN, Properties::default(), &requests, &mut out);
    stream.write_all(&out)?;
    expect(stream, 5)
}

fn publish() -> Vec<u8> {
    let mut out = Vec::new();
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "bench/fan-out",
        packet_id: None,
        properties: Properties::default(),
        payload: &PAYLOAD,
    }
    .encode(VERSION, &mut out);
    out
}

fn through_broker(args: &Args) -> io::Result<f64> {
    let broker = Process::broker()?;
    let mut receivers = Receivers::connect(broker.port, args.subscribers, |number, stream| {
        connect(&format!("subscriber-{number}"), stream)?;
        subscribe("bench/fan-out", QoS::AtMostOnce, stream)
    })?;
    let mut publisher = TcpStream::connect(("127.0.0.1", broker.port))?;
    publisher.set_nodelay(true)?;
    connect("publisher", &mut publisher)?;
    let frame = publish();
    let burst = frame.repeat(args.burst);
    measure(&broker, args, || {
        publisher.write_all(&burst)?;
        receivers.receive(args.subscribers * burst.len())
    })
}

fn through_bare_sender(args: &Args) -> io::Result<f64> {
    let (subscribers, burst) = (args.subscribers.to_string(), args.burst.to_string());
    let mut sender = Process::start(
        "dunlin-cost",
        &["bare-sender", "--subscribers", &subscribers, "--burst", &burst],
    )?;
    let mut receivers = Receivers::connect(sender.port, args.subscribers, |_, _| Ok(()))?;
    let mut trigger =
        sender.child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the sender"))?;
    let frame = publish();
    measure(&sender, args, || {
        trigger.write_all(b"x")?;
        receivers.receive(args.subscribers * args.burst * frame.len())
    })
}

/// The yardstick: for each byte on standard input, one `send()` to each connection.
pub(crate) fn bare_sender(args: &Args) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let mut streams = Vec::new();
    for _ in 0..args.subscribers {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let burst = publish().repeat(args.burst);
    for byte in io::stdin().lock().bytes() {
        byte?;
        for stream in &mut streams {
            stream.write_all(&burst)?;
        }
    }
    Ok(())
}

/// Measures both in turn and prints each round and the median of the ratios.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    println!("fan-out 1 -> {}, QoS 0, {} frames per write", args.subscribers, args.burst);
    println!("{:>12} {:>12} {:>8}", "broker us", "send() us", "ratio");
    let mut ratios = Vec::new();
    for _ in 0..args.rounds {
        let broker = through_broker(args)?;
        let bare = through_bare_sender(args)?;
        println!("{broker:>12.3} {bare:>12.3} {:>8.3}", broker / bare);
        ratios.push(broker / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.3}", ratios[ratios.len() / 2]);
    Ok(())
}
