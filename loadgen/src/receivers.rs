//! Many connections that only count what they receive.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Longest wait for a sender that has stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections in one event queue.
#[derive(Debug)]
pub(crate) struct Receivers {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Receivers {
    /// Connects so many times; `greet` does the first exchange on each, still blocking.
    pub(crate) fn connect(
        port: u16,
        count: usize,
        mut greet: impl FnMut(usize, &mut StdStream) -> io::Result<()>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut streams = Vec::with_capacity(count);
        for number in 0..count {
            let mut stream = StdStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            greet(number, &mut stream)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            streams.push(stream);
        }
        let events = Events::with_capacity(1024);
        Ok(Self { poll, events, streams, buffer: vec![0; 256 << 10] })
    }

    /// Reads until so many bytes have come on all connections together.
    pub(crate) fn receive(&mut self, bytes: usize) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            match self.poll.poll(&mut self.events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            if self.events.is_empty() {
                return Err(io::Error::other(format!("{left} bytes have not come in 10 s")));
            }
            for event in &self.events {
                let stream = &mut self.streams[event.token().0];
                loop {
                    match stream.read(&mut self.buffer) {
                        Ok(0) => return Err(io::Error::other("the sender closed")),
                        Ok(len) => left = left.saturating_sub(len),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }
}
