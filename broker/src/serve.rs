//! Starting and ending a broker.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;

use dunlin_queue::mailbox::{Inbox, Outbox};
use dunlin_storage::{Damage, DiskBackend, Log, LogOptions, OpenError};
use mio::net::TcpStream;

use crate::clock::Clock;
use crate::config::{Config, ListenerConfig};
use crate::net::{Bound, Entrance, EventQueue, Seat, Seats, TcpTransport, bind, run};
use crate::store::{Image, ImageShare, LogPort, RunningStore, StoreThreads, WriterOptions};
use crate::worker::{Mail, ReadRequests, Shared, StatsTotal, Worker};

type TcpMail = Mail<TcpStream>;

/// Where the log is in the data directory.
pub const LOG_DIRECTORY: &str = "log";
/// Credit of the control thread, which mails little.
const CONTROL_CREDIT_BYTES: usize = 1 << 20;

/// A broker that serves, on threads of its own.
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    to_workers: Vec<Outbox<TcpMail>>,
    store: Option<RunningStore>,
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
        let opened = if config.keeps() { Some(open_store(config, workers)?) } else { None };
        let kept_keys = opened.as_ref().and_then(|(_, image)| image.keys);
        let keys = kept_keys.unwrap_or_else(Shared::random_keys);
        let settings = config.settings.clone();
        let shared = Arc::new(Shared::new(settings, workers, bound.len(), started, keys));
        let queues = (0..workers).map(|_| EventQueue::new()).collect::<io::Result<Vec<_>>>()?;
        let inboxes = queues
            .iter()
            // The control thread sends as well, and the two of the store.
            .map(|queue| Ok(Inbox::new(workers + 3, queue.waker()?)))
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
        let (store, mut kept) = match opened {
            Some((threads, image)) => {
                if kept_keys.is_none() {
                    threads.port().submit_keys(keys);
                }
                let kept = split_image(&threads, image, &shared, workers);
                (Some(threads.start(&inboxes, workers + 1, clock)?), kept)
            }
            None => (None, Vec::new()),
        };
        let mut threads = Vec::new();
        let restored = Arc::new(Barrier::new(workers));
        let parts = queues.into_iter().zip(inboxes).zip(outboxes).enumerate();
        let places = parts.map(|(index, ((queue, inbox), outboxes))| {
            let entrance = entrance(&queue, &mut bound, &shared)?;
            let transport = queue.transport()?;
            let shared = Arc::clone(&shared);
            let worker = Worker::new(index, shared, transport, inbox, outboxes, started);
            Ok((queue, Seat { worker, entrance }))
        });
        let seats = Arc::new(Seats::new(places.collect::<io::Result<Vec<_>>>()?, clock)?);
        for index in 0..workers {
            let seats = Arc::clone(&seats);
            let kept = kept.get_mut(index).and_then(Option::take);
            let restored = Arc::clone(&restored);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || {
                let _guard = EndsWithThread;
                if let Some(kept) = kept {
                    kept.restore(&mut seats.sit_down(index).worker, &restored);
                }
                run_worker(&seats, index)
            })?);
        }
        Ok(Self { shared, addresses, to_workers, store, threads })
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
        self.store.map_or(Ok(()), RunningStore::finish)
    }
}

/// The entrance of one more worker: a socket of each listener.
fn entrance(
    queue: &EventQueue,
    bound: &mut [(ListenerConfig, Bound)],
    shared: &Arc<Shared>,
) -> io::Result<Entrance> {
    let mut entrance = Entrance::new(Arc::clone(shared));
    for (number, (listener, bound)) in bound.iter_mut().enumerate() {
        let socket = bound.sockets.pop().expect("one socket for each worker");
        queue.listen(&mut entrance, socket, (number as u16, listener.connections_max))?;
    }
    Ok(entrance)
}

/// Runs a worker to its end, which is that of the process if it is one by failure: the others would
/// go on without it, and nobody would notice.
fn run_worker(seats: &Seats, index: usize) -> io::Result<()> {
    let ended = run(seats, index);
    if let Err(error) = &ended {
        tracing::error!(%error, worker = index, "A WORKER HAS FAILED");
        std::process::abort();
    }
    ended
}

/// Ends the process when its thread panics, also where a panic is not the end anyway: a broker
/// without one of its threads would only look as if it served.
pub(crate) struct EndsWithThread;

impl Drop for EndsWithThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// What a worker begins with if there is a log.
struct Kept {
    port: Arc<LogPort>,
    requests: ReadRequests,
    share: ImageShare,
}

impl Kept {
    /// Gives it to the worker. Nobody serves before everybody has what there was.
    fn restore(self, worker: &mut Worker<TcpTransport>, all: &Barrier) {
        worker.use_log(self.port, self.requests);
        worker.restore(self.share);
        all.wait();
        worker.finish_restore();
        all.wait();
    }
}

fn split_image(
    threads: &StoreThreads,
    image: Image,
    shared: &Shared,
    workers: usize,
) -> Vec<Option<Kept>> {
    let shares = image.split(workers, |name| shared.worker_of(name, workers));
    let kept = shares.into_iter().map(|share| {
        Some(Kept { port: Arc::clone(threads.port()), requests: threads.requests(), share })
    });
    kept.collect()
}

/// How the log is written, by the broker and by those who make one for it.
pub(crate) fn log_options(config: &Config) -> LogOptions {
    LogOptions {
        segment_bytes: config.storage.segment_bytes,
        bytes_max: 0,
        secret: Shared::random_keys()[0] as u32,
    }
}

/// Opens the log and reads all of it.
fn open_store(config: &Config, workers: usize) -> io::Result<(StoreThreads, Image)> {
    let directory = Path::new(&config.data_dir).join(LOG_DIRECTORY);
    let failed = |problem: &dyn std::fmt::Display| {
        io::Error::other(format!("{}: {problem}", directory.display()))
    };
    let backend = || DiskBackend::open(&directory).map_err(|error| failed(&error));
    let damage = if config.storage.skip_damage { Damage::Skip } else { Damage::Refuse };
    std::fs::create_dir_all(&directory).map_err(|error| failed(&error))?;
    let (log, opened) = Log::open(backend()?, log_options(config), damage).map_err(|error| {
        let way_out = "with --set storage.skip_damage=true it starts without that part; \
                       `dunlin storage compact` with the same option mends it for good";
        match &error {
            OpenError::Corrupt(_) => failed(&format!("{error}; {way_out}")),
            _ => failed(&error),
        }
    })?;
    for missing in &opened.missing {
        tracing::error!(%missing, "a part of what was kept is damaged, and left out");
    }
    if opened.torn_bytes > 0 {
        tracing::warn!(bytes = opened.torn_bytes, "what was being written at the crash is cut off");
    }
    let image = Image::read(&log).map_err(|error| failed(&error))?;
    tracing::info!(
        sessions = image.sessions.len(),
        messages = image.messages.len(),
        retained = image.retained.len(),
        records = image.records,
        bytes = log.bytes(),
        "recovered"
    );
    let writer = WriterOptions {
        interval_ms: config.settings.durability.interval_ms,
        bytes_max: config.storage.bytes_max,
        free_min: config.storage.free_min,
        clean_min: config.storage.clean_min,
    };
    let numbers = image.numbers;
    let threads = StoreThreads::new(log, backend()?, workers, numbers, writer, directory.clone());
    Ok((threads, image))
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
