//! A disk in memory, and the log of a simulated broker on it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use dunlin::store::{Image, LogPort, ReadRequest, Reader, Writer, WriterOptions};
use dunlin::worker::{Mail, ReadRequests, Settings, Shared, Worker};
use dunlin_queue::Time;
use dunlin_queue::mailbox::{Inbox, Outbox};
use dunlin_storage::{Damage, Log, LogOptions, MemoryBackend};

use crate::sim::{SimLink, SimTransport};

/// Small, so that they are cleaned up often.
const SEGMENT_BYTES: u64 = 16 << 10;
const CLEAN_MIN: u64 = 48 << 10;
/// Of no meaning before [`Sim::set_free_space`](crate::Sim::set_free_space).
const FREE_MIN: u64 = 1 << 20;

/// What a simulated broker keeps its log on. It outlives the broker.
#[derive(Debug)]
pub struct SimDisk {
    pub(crate) backend: MemoryBackend,
    /// When it was last used.
    pub(crate) now: Time,
}

impl Default for SimDisk {
    fn default() -> Self {
        let now = Time::from_millis(1_000_000_000_000);
        Self { backend: MemoryBackend::new(), now }
    }
}

impl SimDisk {
    /// Takes no more than so many bytes in all.
    pub fn limit_capacity(&mut self, bytes: usize) {
        self.backend.limit_capacity(Some(bytes));
    }

    /// Takes everything again.
    pub fn unlimited(&mut self) {
        self.backend.limit_capacity(None);
    }

    /// The sync behind so many good ones fails.
    pub fn fail_syncs_after(&mut self, count: usize) {
        self.backend.fail_sync_after(count);
    }

    /// Nothing fails any more that was to fail.
    pub fn heal(&mut self) {
        self.unlimited();
        self.fail_syncs_after(usize::MAX);
    }

    /// A bit of every message that is long enough is not what it was.
    ///
    /// # Panics
    /// When the disk has failed.
    pub fn damage_all(&mut self) {
        use dunlin_storage::Backend;
        for name in self.backend.names().expect("a disk") {
            let bytes = self.backend.content(&name).map_or(0, |content| content.len());
            // Behind each header of a frame, somewhere in what follows.
            for offset in (100..bytes).step_by(64) {
                self.backend.flip(&name, offset, 1).expect("a byte");
            }
        }
    }

    /// Bytes of all files.
    ///
    /// # Panics
    /// When the disk has failed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        use dunlin_storage::{Backend, ReadFile};
        let names = self.backend.names().expect("a disk");
        let bytes = |name: &String| self.backend.open(name).and_then(|file| file.bytes());
        names.iter().map(|name| bytes(name).expect("a file")).sum()
    }
}

/// The log's threads, step by step.
pub(crate) struct SimStore {
    pub(crate) disk: SimDisk,
    port: Arc<LogPort>,
    writer: Writer<MemoryBackend>,
    reader: Reader<MemoryBackend>,
    asked: Receiver<ReadRequest>,
    requests: ReadRequests,
    outboxes: Vec<Outbox<Mail<SimLink>>>,
    reader_outboxes: Vec<Outbox<Mail<SimLink>>>,
}

/// A log that was opened, before there is a broker.
pub(crate) struct OpenedDisk {
    disk: SimDisk,
    log: Log<MemoryBackend>,
    image: Image,
}

impl OpenedDisk {
    pub(crate) fn open(disk: SimDisk) -> Self {
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
        let opened = Log::open(disk.backend.clone(), options, Damage::Refuse);
        let (log, _) = opened.expect("a crash damages nothing");
        let image = Image::read(&log).expect("an image");
        Self { disk, log, image }
    }

    pub(crate) fn keys(&self) -> Option<[u64; 4]> {
        self.image.keys
    }

    pub(crate) fn now(&self) -> Time {
        self.disk.now
    }

    /// Gives the workers what there was, and the way to the log.
    pub(crate) fn start(
        self,
        shared: &Shared,
        keys: [u64; 4],
        inboxes: &[Inbox<Mail<SimLink>>],
        settings: &Settings,
    ) -> (SimStore, Vec<dunlin::store::ImageShare>) {
        let Self { disk, log, image } = self;
        let count = inboxes.len();
        let is_new = image.keys.is_none();
        let port = LogPort::new(count, log.end(), image.numbers, Box::new(|| ()));
        let port = Arc::new(port);
        if is_new {
            port.submit_keys(keys);
        }
        let options = WriterOptions {
            interval_ms: settings.durability.interval_ms,
            bytes_max: 0,
            free_min: FREE_MIN,
            clean_min: CLEAN_MIN,
        };
        let outboxes = |sender: usize| -> Vec<Outbox<Mail<SimLink>>> {
            inboxes.iter().map(|inbox| Outbox::new(sender, inbox.address(), usize::MAX)).collect()
        };
        let (sender, asked) = channel();
        let store = SimStore {
            reader: Reader::new(disk.backend.clone()),
            writer: Writer::new(log, Arc::clone(&port), options),
            disk,
            port,
            asked,
            requests: ReadRequests::new(sender),
            outboxes: outboxes(count),
            reader_outboxes: outboxes(count + 1),
        };
        (store, image.split(count, |name| shared.worker_of(name, count)))
    }
}

impl SimStore {
    pub(crate) fn attach(&self, worker: &mut Worker<SimTransport>) {
        worker.use_log(Arc::clone(&self.port), self.requests.clone());
    }

    /// One batch written, and everything read that was asked for. Says whether anything moved.
    pub(crate) fn step(&mut self, now: Time) -> bool {
        let step = self.writer.step(now);
        let mut moved = step.more;
        for outbox in &mut self.outboxes {
            outbox.collect(drop);
            if step.is_news {
                outbox.push(Mail::LogProgress, 0);
            }
            if let Some(chunk) = &step.chunk {
                outbox.push(Mail::Clean(Arc::clone(chunk)), 0);
            }
            moved |= step.is_news || step.chunk.is_some();
            assert!(outbox.post(), "an inbox has room");
        }
        if let Some(address) = step.removed_before {
            self.reader.forget_before(address);
        }
        while let Ok(request) = self.asked.try_recv() {
            let ReadRequest::Read { worker, wanted } = request else { continue };
            let outbox = &mut self.reader_outboxes[worker];
            outbox.collect(drop);
            outbox.push(Mail::Loaded(self.reader.read(wanted)), 0);
            assert!(outbox.post(), "an inbox has room");
            moved = true;
        }
        moved
    }

    pub(crate) fn set_free_space(&mut self, bytes: u64) {
        self.writer.set_free_bytes(FREE_MIN + bytes);
    }

    /// Writes what was submitted, and syncs.
    pub(crate) fn finish(&mut self, now: Time) {
        self.writer.finish(now).expect("a disk without faults");
    }

    pub(crate) fn next_deadline(&self) -> Time {
        self.writer.next_deadline()
    }

    pub(crate) fn port(&self) -> &Arc<LogPort> {
        &self.port
    }
}
