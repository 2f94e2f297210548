//! Starting and ending a broker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use dunlin_queue::mailbox::{Inbox, Outbox};
use mio::net::TcpStream;

use crate::clock::Clock;
use crate::config::{Config, ListenerConfig};
use crate::net::{Bound, EventLoop, TcpTransport, bind};
use crate::worker::{Mail, Shared, StatsTotal, Worker};

type TcpMail = Mail<TcpStream>;

/// Credit of the control thread, which mails little.
const CONTROL_CREDIT_BYTES: usize = 1 << 20;

/// A broker that serves, on threads of its own.
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    to_workers: Vec<Outbox<TcpMail>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Broker {
    /// Binds the listeners and starts the workers.
    ///
    /// # Errors
    /// When an address cannot be bound or a thread not be started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let workers = config.worker_count();
        let clock = Clock::start();
        let mut bound = Vec::new();
        for listener in &config.listeners {
            bound.extend(bind_listener(listener, workers)?);
        }
        let addresses = bound.iter().map(|(_, bound)| bound.address).collect();
        let started = clock.now();
        let shared = Arc::new(Shared::new(config.settings.clone(), workers, bound.len(), started));
        let loops = (0..workers)
            .map(|_| EventLoop::new(Arc::clone(&shared), clock))
            .collect::<io::Result<Vec<_>>>()?;
        let inboxes = loops
            .iter()
            // The control thread sends as well.
            .map(|event_loop| Ok(Inbox::new(workers + 1, event_loop.waker()?)))
            .collect::<io::Result<Vec<Inbox<TcpMail>>>>()?;
        let outbox_to =
            |from: usize, inbox: &Inbox<TcpMail>| Worker::<TcpTransport>::outbox(from, inbox);
        let outboxes: Vec<Vec<_>> = (0..workers)
            .map(|from| {
                let to = inboxes.iter().enumerate();
                to.map(|(to, inbox)| (to != from).then(|| outbox_to(from, inbox))).collect()
            })
            .collect();
        let to_workers = inboxes
            .iter()
            .map(|inbox| Outbox::new(workers, inbox.address(), CONTROL_CREDIT_BYTES))
            .collect();
        let mut threads = Vec::new();
        let parts = loops.into_iter().zip(inboxes).zip(outboxes).enumerate();
        for (index, ((mut event_loop, inbox), outboxes)) in parts {
            for (number, (listener, bound)) in bound.iter_mut().enumerate() {
                let socket = bound.sockets.pop().expect("one socket for each worker");
                event_loop.listen(socket, number as u16, listener.connections_max)?;
            }
            let transport = event_loop.transport()?;
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let mut worker = Worker::new(index, shared, transport, inbox, outboxes, started);
                event_loop.run(&mut worker)
            })?);
        }
        Ok(Self { shared, addresses, to_workers, threads })
    }

    /// Where it listens, with the ports the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> StatsTotal {
        StatsTotal::of(&self.shared.stats)
    }

    /// Disconnects all clients, after what was accepted for them has been sent, and ends.
    ///
    /// # Errors
    /// When a worker had failed.
    pub fn stop(mut self) -> io::Result<()> {
        for outbox in &mut self.to_workers {
            outbox.push(Mail::Shutdown, 0);
            while !outbox.post() {
                // Its inbox is full, so it is at work.
                std::thread::yield_now();
            }
        }
        self.wait()
    }

    fn wait(self) -> io::Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a worker has panicked"))??;
        }
        Ok(())
    }
}

/// `None` for a default address that the machine does not have.
fn bind_listener(
    listener: &ListenerConfig,
    workers: usize,
) -> io::Result<Option<(ListenerConfig, Bound)>> {
    match bind(listener.address, workers) {
        Ok(bound) => Ok(Some((*listener, bound))),
        Err(error) if listener.is_optional && error.kind() != io::ErrorKind::AddrInUse => {
            tracing::info!(address = %listener.address, %error, "not listening");
            Ok(None)
        }
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", listener.address),
        )),
    }
}
