//! Plain TCP as a worker's transport.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::worker::{ConnId, Transport};

/// TCP streams, registered with one event queue.
#[derive(Debug)]
pub struct TcpTransport {
    registry: Registry,
}

impl TcpTransport {
    /// Streams will be registered with `registry`.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }
}

impl Transport for TcpTransport {
    type Link = TcpStream;

    fn attach(&mut self, link: &mut TcpStream, id: ConnId) -> io::Result<()> {
        // A new socket is writable, and would say so: a wake-up for nothing with each connection.
        self.registry.register(link, Token(id.to_token()), Interest::READABLE)
    }

    fn watch_room(&mut self, link: &mut TcpStream, id: ConnId) -> io::Result<()> {
        // Edge-triggered: from here on only when a write was refused, so it can stay.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.reregister(link, Token(id.to_token()), interest)
    }

    fn detach(&mut self, link: &mut TcpStream) {
        // A stream that was never registered has nothing to take back.
        let _ = self.registry.deregister(link);
    }

    #[inline]
    fn read(&mut self, link: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        link.read(buffer)
    }

    /// By system call: the C library's `send()` is a place where a thread could be cancelled, which
    /// costs it more than a hundredth of a small write.
    #[inline]
    fn write(&mut self, link: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<usize> {
        loop {
            let written = if body.is_empty() {
                send(&*link, head, SendFlags::NOSIGNAL)
            } else {
                let parts = [IoSlice::new(head), IoSlice::new(body)];
                let mut none = SendAncillaryBuffer::default();
                sendmsg(&*link, &parts, &mut none, SendFlags::NOSIGNAL)
            };
            match written {
                Err(Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    fn shutdown(&mut self, link: &mut TcpStream) {
        // The peer may have gone already.
        let _ = link.shutdown(Shutdown::Write);
    }
}
