//! Many connections that only count what they receive, or acknowledge it as well.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Bytes of a PUBACK before 5.0.
pub(crate) const PUBACK_LEN: usize = 4;

/// The shape of frames to acknowledge: all alike but for their packet identifiers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameShape {
    /// Bytes of one.
    pub(crate) len: usize,
    /// Where its packet identifier is.
    pub(crate) id_at: usize,
}

/// Longest wait for a sender that has stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections in one event queue.
#[derive(Debug)]
pub(crate) struct Receivers {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
    /// The beginning of a frame whose rest has not come, for each stream.
    partial: Vec<Vec<u8>>,
    answers: Vec<u8>,
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
        let partial = vec![Vec::new(); count];
        let buffer = vec![0; 256 << 10];
        Ok(Self { poll, events, streams, buffer, partial, answers: Vec::new() })
    }

    /// Reads until so many bytes have come on all connections together, and acknowledges each frame
    /// if they have a shape.
    pub(crate) fn receive(&mut self, bytes: usize, shape: Option<FrameShape>) -> io::Result<()> {
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
                let number = event.token().0;
                let stream = &mut self.streams[number];
                loop {
                    match stream.read(&mut self.buffer) {
                        Ok(0) => return Err(io::Error::other("the sender closed")),
                        Ok(len) => {
                            left = left.saturating_sub(len);
                            let Some(shape) = shape else { continue };
                            let partial = &mut self.partial[number];
                            partial.extend_from_slice(&self.buffer[..len]);
                            acknowledge(partial, shape, &mut self.answers);
                            stream.write_all(&self.answers)?;
                        }
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes a PUBACK for each whole frame to `answers`, and leaves what comes behind.
fn acknowledge(frames: &mut Vec<u8>, shape: FrameShape, answers: &mut Vec<u8>) {
    answers.clear();
    let mut whole = frames.chunks_exact(shape.len);
    for frame in &mut whole {
        answers.extend_from_slice(&[0x40, 2, frame[shape.id_at], frame[shape.id_at + 1]]);
    }
    let rest = whole.remainder().len();
    frames.drain(..frames.len() - rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_acknowledged_and_the_beginning_of_another_waits() {
        let shape = FrameShape { len: 3, id_at: 1 };
        let (mut frames, mut answers) = (vec![9, 0, 1, 9, 0, 2, 9, 0], Vec::new());
        acknowledge(&mut frames, shape, &mut answers);
        assert_eq!((frames, answers), (vec![9, 0], vec![0x40, 2, 0, 1, 0x40, 2, 0, 2]));
    }
}
