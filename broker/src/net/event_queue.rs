//! What a worker's thread waits for: the worker's sockets, and whoever wakes it.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::time::Duration;

use dunlin_queue::mailbox::Wake;
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::TcpTransport;
use super::entrance::Entrance;
use crate::worker::{ConnId, Worker};

/// Tokens.
const WAKE: Token = Token(0);
const FIRST_LISTENER: usize = 1;
/// Those of event queues within this one.
const FIRST_GUEST: usize = 1 << 16;
/// Those of connections, whose generation is never 0.
const FIRST_CONN: usize = 1 << 32;
const EVENTS_PER_POLL: usize = 1024;

/// The event queue of one worker.
pub struct EventQueue {
    poll: Poll,
}

/// What has happened, from one look.
pub struct Happened(Events);

impl Happened {
    /// Room for what happens.
    #[must_use]
    pub fn room() -> Self {
        Self(Events::with_capacity(EVENTS_PER_POLL))
    }

    /// Which event queues within this one have something, and whether anything else has happened.
    #[must_use]
    pub fn guests(&self) -> (u64, bool) {
        let (mut guests, mut has_own) = (0, false);
        for event in &self.0 {
            match event.token().0 {
                token @ FIRST_GUEST..FIRST_CONN => guests |= 1 << (token - FIRST_GUEST),
                _ => has_own = true,
            }
        }
        (guests, has_own)
    }

    /// How much has happened.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().count()
    }

    /// Tells the worker.
    pub fn tell(&self, worker: &mut Worker<TcpTransport>, entrance: &mut Entrance) {
        for event in &self.0 {
            let token = event.token().0;
            if token >= FIRST_CONN {
                let id = ConnId::from_token(token);
                if event.is_readable() || event.is_error() {
                    worker.on_readable(id, event.is_read_closed() || event.is_error());
                }
                if event.is_writable() {
                    worker.on_writable(id);
                }
            } else if (FIRST_LISTENER..FIRST_GUEST).contains(&token) {
                entrance.on_event(token - FIRST_LISTENER);
            }
        }
    }
}

impl EventQueue {
    /// A queue in which nothing happens yet.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()? })
    }

    /// What ends the wait, from any thread.
    ///
    /// # Errors
    /// When the system has no descriptor to give.
    pub fn waker(&self) -> io::Result<Wake> {
        let waker = Waker::new(self.poll.registry(), WAKE)?;
        Ok(Box::new(move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "cannot wake a worker");
            }
        }))
    }

    /// What its worker reads and writes through.
    ///
    /// # Errors
    /// When the system has no descriptor to give.
    pub fn transport(&self) -> io::Result<TcpTransport> {
        Ok(TcpTransport::new(self.poll.registry().try_clone()?))
    }

    /// Has it happen here that somebody comes to `socket`, which is that of the configured listener
    /// `number`.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn listen(
        &self,
        entrance: &mut Entrance,
        socket: std::net::TcpListener,
        (number, connections_max): (u16, usize),
    ) -> io::Result<()> {
        let mut socket = TcpListener::from_std(socket);
        let token = Token(FIRST_LISTENER + entrance.count());
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        entrance.add(socket, number, connections_max);
        Ok(())
    }

    /// Where event queues can be put into this one, from any thread.
    ///
    /// # Errors
    /// When the system has no descriptor to give.
    pub fn guest_book(&self) -> io::Result<GuestBook> {
        Ok(GuestBook { registry: self.poll.registry().try_clone()? })
    }

    /// Waits until something happens, or the time is over; not at all if that is zero.
    ///
    /// # Errors
    /// When the system's event queue fails.
    pub fn wait(&mut self, happened: &mut Happened, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut happened.0, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

/// Event queues that are watched within another: when something happens in one, that happens in
/// the other, too.
#[derive(Debug)]
pub struct GuestBook {
    registry: Registry,
}

impl GuestBook {
    /// Watches `queue` as number `guest`, below 64.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn enter(&self, queue: &EventQueue, guest: usize) -> io::Result<()> {
        let descriptor = queue.poll.as_raw_fd();
        let token = Token(FIRST_GUEST + guest);
        self.registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)
    }

    /// Watches it no longer.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn leave(&self, queue: &EventQueue) -> io::Result<()> {
        self.registry.deregister(&mut SourceFd(&queue.poll.as_raw_fd()))
    }
}
