//! The broker: workers, mailboxes and links, driven turn by turn.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin::store::LogPort;
use dunlin::worker::{ConnId, Mail, Peer, Settings, Shared, StatsTotal, Transport, Worker};
use dunlin_queue::Time;
use dunlin_queue::mailbox::Inbox;
use parking_lot::Mutex;

use crate::disk::{OpenedDisk, SimStore};
use crate::{Client, SimDisk};

/// How often the same point in time may be a deadline.
const DUE_MAX: usize = 100;

/// One connection's two directions.
#[derive(Debug, Default)]
pub struct Pipe {
    pub(crate) to_broker: VecDeque<u8>,
    pub(crate) from_broker: Vec<u8>,
    pub(crate) client_closed: bool,
    pub(crate) broker_closed: bool,
    /// Bytes the client's side takes before writes are refused.
    pub(crate) room: usize,
    /// Where the broker has it.
    owner: Option<(usize, ConnId)>,
    /// A write was refused.
    write_refused: bool,
    /// The broker wants to know when there is room.
    is_watched: bool,
}

/// The broker's end of a [`Pipe`]. Dropping it closes the connection.
#[derive(Debug)]
pub struct SimLink(Arc<Mutex<Pipe>>);

impl Drop for SimLink {
    fn drop(&mut self) {
        self.0.lock().broker_closed = true;
    }
}

/// Memory as a transport.
#[derive(Debug)]
pub struct SimTransport {
    pub(crate) worker: usize,
}

impl Transport for SimTransport {
    type Link = SimLink;

    fn attach(&mut self, link: &mut SimLink, id: ConnId) -> io::Result<()> {
        let mut pipe = link.0.lock();
        (pipe.owner, pipe.is_watched) = (Some((self.worker, id)), false);
        Ok(())
    }

    fn watch_room(&mut self, link: &mut SimLink, _id: ConnId) -> io::Result<()> {
        link.0.lock().is_watched = true;
        Ok(())
    }

    fn detach(&mut self, link: &mut SimLink) {
        link.0.lock().owner = None;
    }

    fn read(&mut self, link: &mut SimLink, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pipe = link.0.lock();
        if pipe.to_broker.is_empty() {
            return if pipe.client_closed { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let len = buffer.len().min(pipe.to_broker.len());
        for (place, byte) in buffer.iter_mut().zip(pipe.to_broker.drain(..len)) {
            *place = byte;
        }
        Ok(len)
    }

    fn write(&mut self, link: &mut SimLink, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let mut pipe = link.0.lock();
        if pipe.client_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let len = pipe.room.min(head.len() + body.len());
        if len < head.len() + body.len() {
            pipe.write_refused = true;
        }
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let all = head.iter().chain(body).take(len);
        pipe.from_broker.extend(all);
        pipe.room -= len;
        Ok(len)
    }

    fn shutdown(&mut self, link: &mut SimLink) {
        link.0.lock().broker_closed = true;
    }
}

/// The broker, its clients' ends, and the time.
pub struct Sim {
    shared: Arc<Shared>,
    workers: Vec<Worker<SimTransport>>,
    woken: Vec<Arc<AtomicBool>>,
    pipes: Vec<Arc<Mutex<Pipe>>>,
    now: Time,
    /// The log, if there is a disk.
    store: Option<SimStore>,
    /// The worker that accepts next.
    accepts_next: usize,
    /// The most messages that were held after any round of turns.
    held_max: usize,
}

impl Default for Sim {
    fn default() -> Self {
        Self::new(1, Settings::default())
    }
}

impl Sim {
    /// A broker with so many workers. `$SYS` is off: its figures would be in everybody's way.
    #[must_use]
    pub fn new(count: usize, settings: Settings) -> Self {
        Self::start(count, settings, Shared::random_keys(), None)
    }

    /// The same, and the same again whenever the seed is the same.
    #[must_use]
    pub fn with_hash_seed(count: usize, settings: Settings, seed: u64) -> Self {
        Self::start(count, settings, [seed, 1, 2, 3], None)
    }

    /// A broker that keeps what it has to on a disk, and begins with what is there.
    #[must_use]
    pub fn with_disk(count: usize, settings: Settings, disk: SimDisk, seed: u64) -> Self {
        Self::start(count, settings, [seed, 1, 2, 3], Some(OpenedDisk::open(disk)))
    }

    fn start(count: usize, settings: Settings, keys: [u64; 4], opened: Option<OpenedDisk>) -> Self {
        let settings = Settings { sys_interval_ms: 0, ..settings };
        let first = Time::from_millis(1_000_000_000_000);
        let now = opened.as_ref().map_or(first, OpenedDisk::now);
        let keys = opened.as_ref().and_then(OpenedDisk::keys).unwrap_or(keys);
        let shared = Arc::new(Shared::new(settings.clone(), count, 1, now, keys));
        let woken: Vec<_> = (0..count).map(|_| Arc::new(AtomicBool::new(false))).collect();
        let inboxes: Vec<Inbox<Mail<SimLink>>> = woken
            .iter()
            .map(|flag| {
                let flag = Arc::clone(flag);
                // The two threads of a store send as well.
                Inbox::new(count + 2, Box::new(move || flag.store(true, Ordering::SeqCst)))
            })
            .collect();
        let outboxes: Vec<Vec<_>> = (0..count)
            .map(|from| {
                let to = inboxes.iter().enumerate();
                to.map(|(to, inbox)| {
                    (to != from).then(|| Worker::<SimTransport>::outbox(from, inbox))
                })
                .collect()
            })
            .collect();
        let started = opened.map(|disk| disk.start(&shared, keys, &inboxes, &settings));
        let (store, shares) = started.unzip();
        let mut workers: Vec<_> = inboxes
            .into_iter()
            .zip(outboxes)
            .enumerate()
            .map(|(index, (inbox, outboxes))| {
                let transport = SimTransport { worker: index };
                Worker::new(index, Arc::clone(&shared), transport, inbox, outboxes, now)
            })
            .collect();
        if let Some(store) = &store {
            for (worker, share) in workers.iter_mut().zip(shares.unwrap_or_default()) {
                SimStore::attach(store, worker);
                worker.restore(share);
            }
            workers.iter_mut().for_each(Worker::finish_restore);
        }
        let (pipes, accepts_next, held_max) = (Vec::new(), 0, 0);
        Self { shared, workers, woken, pipes, now, store, accepts_next, held_max }
    }

    /// The broker ends in the middle of whatever it does, and so does the disk: what had not been
    /// synced is there afterwards in parts, or not, as `seed` has it.
    ///
    /// # Panics
    /// When there is no disk.
    #[must_use]
    pub fn crash(self, seed: u64) -> SimDisk {
        let disk = self.kill();
        disk.backend.crash(seed);
        disk
    }

    /// The broker ends in the middle of whatever it does; what it has written is there.
    ///
    /// # Panics
    /// When there is no disk.
    #[must_use]
    pub fn kill(self) -> SimDisk {
        for pipe in &self.pipes {
            pipe.lock().broker_closed = true;
        }
        let mut disk = self.store.expect("a disk").disk;
        disk.now = self.now;
        disk
    }

    /// The broker ends as it should, within the time it has for that.
    ///
    /// # Panics
    /// When there is no disk, or it does not come to its end.
    #[must_use]
    pub fn shut_down(mut self) -> SimDisk {
        self.begin_shutdown();
        let timeout_ms = self.shared.settings.shutdown_timeout_ms;
        for _ in 0..2 {
            if !self.is_finished() {
                self.advance_ms(timeout_ms);
            }
        }
        assert!(self.is_finished(), "it does not come to its end");
        self.store.as_mut().expect("a disk").finish(self.now);
        self.kill()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The disk.
    ///
    /// # Panics
    /// When there is none.
    pub fn disk(&mut self) -> &mut SimDisk {
        &mut self.store.as_mut().expect("a disk").disk
    }

    /// What the workers and the log share.
    ///
    /// # Panics
    /// When there is no disk.
    #[must_use]
    pub fn log(&self) -> &LogPort {
        self.store.as_ref().expect("a disk").port()
    }

    /// The log finds the device with so many bytes more than have to be free.
    ///
    /// # Panics
    /// When there is no disk.
    pub fn set_free_space(&mut self, bytes: u64) {
        self.store.as_mut().expect("a disk").set_free_space(bytes);
    }

    /// Lets the log write one batch, and read what was asked for. Says whether anything moved.
    pub fn run_storage_step(&mut self) -> bool {
        let now = self.now;
        self.store.as_mut().is_some_and(|store| store.step(now))
    }

    /// Lets one worker have one turn, so that a test decides who comes when. [`Self::run`] does
    /// what is left.
    pub fn turn(&mut self, worker: usize) {
        self.report_events();
        self.woken[worker].store(false, Ordering::SeqCst);
        let worker = &mut self.workers[worker];
        worker.turn(self.now);
        worker.wake_unheard();
    }

    /// Lets the workers work until nothing moves, and the log do nothing.
    ///
    /// # Panics
    /// When they never come to rest.
    pub fn run_workers(&mut self) {
        for _ in 0..100_000 {
            if !self.run_round() {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    /// A new connection, nothing sent yet. Workers accept in turn.
    pub fn client(&mut self) -> Client {
        let worker = self.accepts_next % self.workers.len();
        self.accepts_next += 1;
        self.client_at(worker)
    }

    /// A new connection that this worker accepts, nothing sent yet.
    pub fn client_at(&mut self, worker: usize) -> Client {
        let pipe = Arc::new(Mutex::new(Pipe { room: usize::MAX, ..Pipe::default() }));
        self.pipes.push(Arc::clone(&pipe));
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
        if self.shared.connections.try_add(0, usize::MAX, usize::MAX) {
            let peer = Peer { address, listener: 0 };
            self.workers[worker].accept(SimLink(Arc::clone(&pipe)), peer, self.now);
        }
        Client::new(pipe)
    }

    /// Lets the workers and the log work until nothing moves.
    ///
    /// # Panics
    /// When they never come to rest.
    pub fn run(&mut self) {
        for _ in 0..100_000 {
            if !self.run_round() && !self.run_storage_step() {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    /// One turn of each worker. Says whether anything moved.
    fn run_round(&mut self) -> bool {
        let mut moved = self.report_events();
        for (worker, woken) in self.workers.iter_mut().zip(&self.woken) {
            moved |= woken.swap(false, Ordering::SeqCst);
            moved |= worker.turn(self.now);
            worker.wake_unheard();
            moved |= !worker.fall_asleep();
        }
        self.held_max = self.held_max.max(self.messages_held());
        // Mail for a worker that had its turn before the sender.
        moved | self.woken.iter().any(|woken| woken.load(Ordering::SeqCst))
    }

    fn report_events(&mut self) -> bool {
        let mut any = false;
        self.pipes.retain(|pipe| !(pipe.lock().broker_closed && Arc::strong_count(pipe) == 1));
        for pipe in &self.pipes {
            let mut pipe = pipe.lock();
            let Some((worker, id)) = pipe.owner.filter(|_| !pipe.broker_closed) else { continue };
            let (has_bytes, hung_up) = (!pipe.to_broker.is_empty(), pipe.client_closed);
            // A socket that has failed is writable too: the next write finds it out.
            let has_room = pipe.is_watched && pipe.write_refused && (pipe.room > 0 || hung_up);
            if has_room {
                pipe.write_refused = false;
            }
            drop(pipe);
            if has_bytes || hung_up {
                self.workers[worker].on_readable(id, hung_up);
            }
            if has_room {
                self.workers[worker].on_writable(id);
            }
            any |= has_room;
        }
        any
    }

    /// Moves the clock, stopping at every deadline on the way.
    ///
    /// # Panics
    /// When something stays due: threads would wake up for it again and again.
    pub fn advance_ms(&mut self, millis: u64) {
        let target = self.now.plus_millis(millis);
        self.run();
        let mut stops = 0;
        loop {
            let next = self.workers.iter().map(Worker::next_deadline);
            let next = next.chain(self.store.as_ref().map(SimStore::next_deadline)).min();
            let Some(next) = next.filter(|next| *next <= target) else { break };
            stops = if next > self.now { 0 } else { stops + 1 };
            assert!(stops < DUE_MAX, "something stays due, whatever is done");
            self.now = self.now.max(next);
            self.run();
        }
        self.now = target;
        self.run();
    }

    /// Moves the clock by seconds.
    pub fn advance_s(&mut self, seconds: u64) {
        self.advance_ms(seconds * 1000);
    }

    /// What the broker has counted.
    #[must_use]
    pub fn stats(&self) -> StatsTotal {
        StatsTotal::of(&self.shared.stats)
    }

    /// Messages that anybody holds, over all workers.
    #[must_use]
    pub fn messages_held(&self) -> usize {
        self.workers.iter().map(|worker| worker.pool_stats().live).sum()
    }

    /// Bytes of the log that somebody still needs, about.
    #[must_use]
    pub fn live_log_bytes(&self) -> u64 {
        self.workers.iter().map(|worker| worker.pool_stats().live_bytes as u64).sum()
    }

    /// The most messages that were ever held at the end of a turn.
    #[must_use]
    pub fn messages_held_max(&self) -> usize {
        self.held_max
    }

    /// Connections the broker counts.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.total()
    }

    /// Begins the graceful end on every worker.
    pub fn begin_shutdown(&mut self) {
        for worker in &mut self.workers {
            worker.begin_shutdown();
        }
        self.run();
    }

    /// Whether every worker has come to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.workers.iter().all(Worker::is_finished)
    }
}
