//! One worker's loop: wait for events, tell the worker, let it have its turn.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use dunlin_queue::Time;
use dunlin_queue::mailbox::Wake;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::{Seats, TcpTransport};
use crate::clock::Clock;
use crate::worker::{ConnId, Peer, Shared, Worker};

/// Tokens below 2^32 are not those of connections, whose generation is never 0.
const WAKE: Token = Token(0);
const FIRST_LISTENER: usize = 1;
const EVENTS_PER_POLL: usize = 1024;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Pause before accepting again when the process has no file descriptor left.
const OUT_OF_FILES_PAUSE_MS: u64 = 100;

struct Listener {
    socket: TcpListener,
    /// Its number in the configuration.
    number: u16,
    connections_max: usize,
    /// There may be connections to accept.
    is_ready: bool,
}

/// The event queue of one worker and its listening sockets.
pub struct EventLoop {
    poll: Poll,
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    clock: Clock,
    /// No accepting before this time.
    accept_again_at: Time,
}

impl EventLoop {
    /// A loop without listeners.
    ///
    /// # Errors
    /// When the system has no event queue to give.
    pub fn new(shared: Arc<Shared>, clock: Clock) -> io::Result<Self> {
        let accept_again_at = Time::default();
        Ok(Self { poll: Poll::new()?, listeners: Vec::new(), shared, clock, accept_again_at })
    }

    /// What ends the loop's sleep, from any thread.
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

    /// Listens on `socket`, which is that of the configured listener `number`.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn listen(
        &mut self,
        socket: std::net::TcpListener,
        number: u16,
        connections_max: usize,
    ) -> io::Result<()> {
        let mut socket = TcpListener::from_std(socket);
        let token = Token(FIRST_LISTENER + self.listeners.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        self.listeners.push(Listener { socket, number, connections_max, is_ready: true });
        Ok(())
    }

    /// Runs worker `index` until it is finished.
    ///
    /// # Errors
    /// When the event queue fails.
    pub fn run(mut self, index: usize, seats: &Seats) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut seat = seats.sit_down(index);
        let mut is_busy = true;
        while !seat.worker.is_finished() {
            if is_busy || !seat.worker.fall_asleep() {
                self.poll(&mut events, Some(Duration::ZERO))?;
            } else {
                seat.sleeps_until = self.wakes_at(&seat.worker);
                let timeout = self.until(seat.sleeps_until);
                drop(seat);
                let polled = self.poll(&mut events, timeout);
                seat = seats.sit_down(index);
                seat.worker.wake_up();
                polled?;
            }
            let worker = &mut seat.worker;
            for event in &events {
                self.on_event(worker, event);
            }
            let now = self.clock.now();
            self.accept(worker, now);
            // Sleepers are heard before the own flush: of the two ends of a message, it is the
            // subscriber that waits for it, and not the publisher for its acknowledgement.
            is_busy = worker.begin_turn(now);
            seats.hear(worker, is_busy, self.clock);
            is_busy = worker.end_turn();
            seats.hear(worker, is_busy, self.clock);
        }
        seat.worker.close_inbox();
        Ok(())
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn wakes_at(&self, worker: &Worker<TcpTransport>) -> Time {
        let waits_to_accept = self.listeners.iter().any(|listener| listener.is_ready);
        let accept_at = if waits_to_accept { self.accept_again_at } else { Time::NEVER };
        worker.next_deadline().min(accept_at)
    }

    fn until(&self, time: Time) -> Option<Duration> {
        match time {
            Time::NEVER => None,
            time => Some(Duration::from_millis(time.millis_since(self.clock.now()))),
        }
    }

    fn on_event(&mut self, worker: &mut Worker<TcpTransport>, event: &Event) {
        let token = event.token().0;
        if token == WAKE.0 {
            return;
        }
        if let Some(listener) = self.listeners.get_mut(token - FIRST_LISTENER) {
            listener.is_ready = true;
            return;
        }
        let id = ConnId::from_token(token);
        if event.is_readable() || event.is_error() {
            worker.on_readable(id, event.is_read_closed() || event.is_error());
        }
        if event.is_writable() {
            worker.on_writable(id);
        }
    }

    fn accept(&mut self, worker: &mut Worker<TcpTransport>, now: Time) {
        if worker.is_shutting_down() {
            // Closes the sockets: who comes now is told at once that nobody listens.
            self.listeners.clear();
        }
        if now < self.accept_again_at {
            return;
        }
        for listener in self.listeners.iter_mut().filter(|listener| listener.is_ready) {
            for _ in 0..ACCEPTS_PER_TURN {
                match listener.socket.accept() {
                    Ok((stream, address)) => {
                        let max = self.shared.settings.connections_max;
                        let number = listener.number;
                        let counts = &self.shared.connections;
                        if !counts.try_add(number, max, listener.connections_max) {
                            tracing::warn!(peer = %address, "refused: too many connections");
                            continue;
                        }
                        // Without it small packets wait for each other's acknowledgements.
                        let _ = stream.set_nodelay(true);
                        worker.accept(stream, Peer { address, listener: number }, now);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        listener.is_ready = false;
                        break;
                    }
                    // The peer was gone before we came to it.
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::error!(%error, "cannot accept");
                        self.accept_again_at = now.plus_millis(OUT_OF_FILES_PAUSE_MS);
                        return;
                    }
                }
            }
            if listener.is_ready {
                self.accept_again_at = now;
            }
        }
    }
}
