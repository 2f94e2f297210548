//! The yardstick of `against-send`: a process that does nothing but its system calls.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::time::Duration;

use dunlin_packets::QoS;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::against_send::publish;
use crate::args::AgainstSendArgs;
use crate::limits;
use crate::receivers::PUBACK_LEN;

const PATIENCE: Duration = Duration::from_secs(10);

/// For each byte on standard input, one `send()` to each connection, and at QoS 1 as many
/// acknowledgements read as there are messages. Ends with its standard input.
pub(crate) fn run(args: &AgainstSendArgs) -> io::Result<()> {
    limits::connections_max(1);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for number in 0..args.subscribers {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        if !args.silent {
            greet(&mut stream)?;
        }
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        if args.qos > 0 {
            // A watched socket costs its sender a little more.
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        }
        streams.push(stream);
    }
    let qos = QoS::from_bits(args.qos).unwrap_or_default();
    let burst = publish(args.burst, qos);
    let ack_bytes = if args.qos == 0 { 0 } else { args.subscribers * args.burst * PUBACK_LEN };
    let mut events = Events::with_capacity(1024);
    for byte in io::stdin().lock().bytes() {
        byte?;
        for stream in &mut streams {
            stream.write_all(&burst)?;
        }
        read_acks(ack_bytes, &mut poll, &mut events, &mut streams)?;
    }
    Ok(())
}

/// Answers a CONNECT and a SUBSCRIBE to one filter, both of less than 128 bytes.
fn greet(stream: &mut StdStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    for answer in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0]] {
        let mut header = [0; 2];
        stream.read_exact(&mut header)?;
        stream.read_exact(&mut vec![0; usize::from(header[1])])?;
        stream.write_all(answer)?;
    }
    Ok(())
}

fn read_acks(
    bytes: usize,
    poll: &mut Poll,
    events: &mut Events,
    streams: &mut [TcpStream],
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        poll.poll(events, Some(PATIENCE))?;
        if events.is_empty() {
            return Err(io::Error::other(format!("{left} bytes of PUBACKs have not come in 10 s")));
        }
        for event in &*events {
            // Less than there was room for: nothing more is there.
            match streams[event.token().0].read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("a receiver closed")),
                Ok(len) => left = left.saturating_sub(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
