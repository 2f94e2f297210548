//! The two threads of a store: one writes, one reads.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use dunlin_queue::Time;
use dunlin_queue::mailbox::{Inbox, Outbox, Wake};
use dunlin_storage::{DiskBackend, Log, LogError};

use super::reserve::Reserve;
use super::{LogPort, Numbers, ReadRequest, Reader, Unread, Writer, WriterOptions};
use crate::clock::Clock;
use crate::serve::EndsWithThread;
use crate::worker::{Mail, ReadRequests};

/// Between two looks at the free space of the device, and for the request to compact.
const LOOK_INTERVAL_MS: u64 = 1_000;
/// After a read that failed.
const READ_AGAIN_MS: u64 = 50;
/// Credit of a store thread, in bytes: news is small, and messages are asked for in bounded bites.
const CREDIT_BYTES: usize = usize::MAX;
/// Whoever makes a file of this name in the data directory has the log compacted; it is removed
/// when that is done.
pub const COMPACT_REQUEST: &str = "compact.request";

/// What a store's threads are made of, before they run.
pub struct StoreThreads {
    port: Arc<LogPort>,
    writer: Writer<DiskBackend>,
    writer_thread: Arc<OnceLock<Thread>>,
    reader: Reader<DiskBackend>,
    asked: Receiver<ReadRequest>,
    requests: ReadRequests,
    directory: PathBuf,
    reserve: Reserve,
}

impl StoreThreads {
    /// Around an open log.
    #[must_use]
    pub fn new(
        log: Log<DiskBackend>,
        reader: DiskBackend,
        workers: usize,
        numbers: Numbers,
        options: WriterOptions,
        directory: PathBuf,
    ) -> Self {
        let writer_thread = Arc::new(OnceLock::<Thread>::new());
        let thread = Arc::clone(&writer_thread);
        let wake: Wake = Box::new(move || {
            if let Some(thread) = thread.get() {
                thread.unpark();
            }
        });
        let port = Arc::new(LogPort::new(workers, log.end(), numbers, wake));
        let (requests, asked) = channel();
        Self {
            writer: Writer::new(log, Arc::clone(&port), options),
            reader: Reader::new(reader),
            requests: ReadRequests::new(requests),
            port,
            writer_thread,
            asked,
            reserve: Reserve::new(&directory, options.free_min),
            directory,
        }
    }

    /// What workers submit to.
    #[must_use]
    pub fn port(&self) -> &Arc<LogPort> {
        &self.port
    }

    /// Where workers ask for messages.
    #[must_use]
    pub fn requests(&self) -> ReadRequests {
        self.requests.clone()
    }

    /// Starts the threads; they post to the workers' inboxes as the senders `first_sender` and the
    /// one behind it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<L: Send + 'static>(
        self,
        inboxes: &[Inbox<Mail<L>>],
        first_sender: usize,
        clock: Clock,
    ) -> io::Result<RunningStore> {
        let outboxes = |sender: usize| -> Vec<Outbox<Mail<L>>> {
            inboxes.iter().map(|inbox| Outbox::new(sender, inbox.address(), CREDIT_BYTES)).collect()
        };
        let is_ending = Arc::new(AtomicBool::new(false));
        let writing = WriterThread {
            writer: self.writer,
            outboxes: outboxes(first_sender),
            clock,
            is_ending: Arc::clone(&is_ending),
            reserve: self.reserve,
            inode: inode_of(&self.directory),
            requests: self.requests.clone(),
            directory: self.directory,
            look_at: Time::default(),
        };
        let (handle, mut reader, asked) = (self.writer_thread, self.reader, self.asked);
        let writer = std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            let _guard = EndsWithThread;
            let _ = handle.set(std::thread::current());
            writing.run()
        })?;
        let mut reading = outboxes(first_sender + 1);
        let reader = std::thread::Builder::new().name("log-reader".into()).spawn(move || {
            let _guard = EndsWithThread;
            while let Ok(request) = asked.recv() {
                let (worker, wanted) = match request {
                    ReadRequest::Read { worker, wanted } => (worker, wanted),
                    ReadRequest::ForgetBefore(address) => {
                        reader.forget_before(address);
                        continue;
                    }
                };
                let loaded = reader.read(wanted);
                if loaded.iter().any(|loaded| loaded.content == Err(Unread::Failed)) {
                    // It is asked for again.
                    std::thread::park_timeout(Duration::from_millis(READ_AGAIN_MS));
                }
                reading[worker].push(Mail::Loaded(loaded), 0);
                post(&mut reading[worker]);
            }
        })?;
        Ok(RunningStore { writer, reader, requests: self.requests, is_ending })
    }
}

/// Threads that run.
pub struct RunningStore {
    writer: JoinHandle<Result<(), LogError>>,
    reader: JoinHandle<()>,
    requests: ReadRequests,
    is_ending: Arc<AtomicBool>,
}

impl RunningStore {
    /// Writes what has been submitted, and ends. The workers have ended before.
    ///
    /// # Errors
    /// When something was not written.
    pub fn finish(self) -> io::Result<()> {
        self.is_ending.store(true, Ordering::SeqCst);
        self.writer.thread().unpark();
        let panicked = |_| io::Error::other("a thread of the store has panicked");
        let written = self.writer.join().map_err(panicked)?;
        // The last sender: without it the reader ends.
        drop(self.requests);
        self.reader.join().map_err(panicked)?;
        written.map_err(io::Error::other)
    }
}

struct WriterThread<L> {
    writer: Writer<DiskBackend>,
    outboxes: Vec<Outbox<Mail<L>>>,
    clock: Clock,
    is_ending: Arc<AtomicBool>,
    requests: ReadRequests,
    directory: PathBuf,
    /// Which one it was at the start.
    inode: Option<u64>,
    reserve: Reserve,
    look_at: Time,
}

impl<L> WriterThread<L> {
    fn run(mut self) -> Result<(), LogError> {
        while !self.is_ending.load(Ordering::SeqCst) {
            let now = self.clock.now();
            let has_gone = self.look_around(now);
            let mut step = self.writer.step(now);
            if step.is_out_of_room && self.reserve.give_up() {
                tracing::error!("the device has no space left: what was reserved is used up now");
                self.writer.retry();
                step.more = true;
            }
            for outbox in &mut self.outboxes {
                if step.is_news || has_gone {
                    outbox.push(Mail::LogProgress, 0);
                }
                if let Some(chunk) = &step.chunk {
                    outbox.push(Mail::Clean(Arc::clone(chunk)), 0);
                }
                post(outbox);
            }
            if let Some(address) = step.removed_before {
                self.requests.forget_before(address);
            }
            if step.more {
                continue;
            }
            let deadline = self.writer.next_deadline().min(self.look_at);
            let pause_ms = deadline.millis_since(self.clock.now());
            std::thread::park_timeout(Duration::from_millis(pause_ms.max(1)));
        }
        self.writer.finish(self.clock.now())
    }

    /// Once in a while, and when much was written for what is left: how much space there is. And
    /// whether somebody wants the log compacted. Says whether the directory has gone, and the log
    /// with it.
    fn look_around(&mut self, now: Time) -> bool {
        if now < self.look_at && !self.writer.should_look() {
            return false;
        }
        if inode_of(&self.directory) != self.inode {
            let is_news = self.writer.fail();
            if is_news {
                let directory = self.directory.display();
                tracing::error!(%directory, "THE LOG HAS GONE: nothing is safe from here on");
            }
            self.look_at = now.plus_millis(LOOK_INTERVAL_MS);
            return is_news;
        }
        if let Ok(device) = rustix::fs::statvfs(&self.directory) {
            let free = device.f_bavail.saturating_mul(device.f_frsize);
            self.writer.set_free_bytes(free);
            self.reserve.refill(free.saturating_sub(self.writer.free_min()));
        }
        if now < self.look_at {
            return false;
        }
        self.look_at = now.plus_millis(LOOK_INTERVAL_MS);
        let request = self.directory.join(COMPACT_REQUEST);
        if request.exists() {
            let is_new = std::fs::read(&request).is_ok_and(|text| text.is_empty());
            if is_new && std::fs::write(&request, "begun\n").is_ok() {
                tracing::info!("compacting the log, as asked");
                self.writer.compact();
            } else if self.writer.is_compact() {
                let _ = std::fs::remove_file(&request);
            }
        }
        false
    }
}

fn inode_of(directory: &Path) -> Option<u64> {
    std::fs::metadata(directory).ok().map(|metadata| metadata.ino())
}

/// Posts, however full the inbox is: its owner never waits for this thread.
fn post<L>(outbox: &mut Outbox<Mail<L>>) {
    outbox.collect(drop);
    while !outbox.post() {
        std::thread::yield_now();
    }
}
