//! A worker's listening sockets.

use std::io::ErrorKind;
use std::sync::Arc;

use dunlin_queue::Time;
use mio::net::TcpListener;

use super::TcpTransport;
use crate::worker::{Peer, Shared, Worker};

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

/// Where connections come in.
pub struct Entrance {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    /// No accepting before this time.
    accept_again_at: Time,
}

impl Entrance {
    /// Without listeners.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { listeners: Vec::new(), shared, accept_again_at: Time::default() }
    }

    /// How many listeners there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.listeners.len()
    }

    /// One more: `socket`, which is that of the configured listener `number`.
    pub fn add(&mut self, socket: TcpListener, number: u16, connections_max: usize) {
        self.listeners.push(Listener { socket, number, connections_max, is_ready: true });
    }

    /// Somebody is at the listener that was added as number `index`.
    pub fn on_event(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.is_ready = true;
        }
    }

    /// When there may be somebody to let in, if nobody comes before.
    #[must_use]
    pub fn wakes_at(&self) -> Time {
        let is_waiting = self.listeners.iter().any(|listener| listener.is_ready);
        if is_waiting { self.accept_again_at } else { Time::NEVER }
    }

    /// Lets those in who wait, in one bite.
    pub fn accept(&mut self, worker: &mut Worker<TcpTransport>, now: Time) {
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
                            worker.count_refused();
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
