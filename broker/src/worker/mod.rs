//! The data plane: one worker per core, each the only owner of its sessions.
//!
//! A worker is a value that is driven from outside: [`Worker::accept`], [`Worker::on_readable`]
//! and [`Worker::on_writable`] tell it what happened, [`Worker::turn`] does the work, and
//! [`Worker::next_deadline`] says how long it may sleep. It reads and writes only through a
//! [`Transport`], so the same code runs over sockets and in a test with a virtual clock.
//!
//! A turn: mail from other workers, then a bite from every readable connection, then timers, then
//! one batch of mail to each other worker, then the flush of every session that has something to
//! send. Reading everything before flushing is what lets frames share a write.
//!
//! Where a PUBLISH goes: [`input`](self) cuts it off the bytes, the session checks it and makes a
//! message, `publish` routes it into the queues of local sessions and the outboxes of other
//! workers, `flush` pulls it into the socket.

mod acknowledge;
mod attach;
mod backlog;
mod broker;
mod clean;
mod conn;
mod deliver;
mod durable;
mod flush;
mod input;
mod interest;
mod journal;
mod mail;
mod open_acks;
mod post;
mod pressure;
mod progress;
mod publish;
mod queues;
mod recording;
mod replay;
mod restore;
mod retained;
mod run;
mod sessions;
mod set;
mod settings;
mod shared;
mod shutdown;
mod stats;
mod subscribe;
mod sys;
mod then;
mod timers;
mod transport;
mod trouble;

use std::collections::VecDeque;
use std::sync::Arc;

use dunlin_packets::PacketId;
use dunlin_queue::mailbox::{Batch, Inbox, Outbox};
use dunlin_queue::{MessagePool, QueueLimits, Time};
use dunlin_router::{Match, ShareGroups, Subscriptions};
use dunlin_session::{Alike, Change};

pub use broker::Shared;
pub use conn::{ConnId, Peer};
pub use interest::Interest;
pub use journal::ReadRequests;
pub use mail::Mail;
pub(crate) use set::workers_in;
pub use settings::{Durability, Level, OverlapPolicy, RetainedLimits, Settings};
pub use stats::{Stats, StatsTotal};
pub use transport::Transport;

use conn::{BufferPool, Conns};
use interest::InterestView;
use journal::Journal;
use open_acks::OpenAcks;
use queues::Queues;
use replay::Replays;
use retained::RetainedShard;
use run::Run;
use sessions::{SessionKey, Sessions};
use shutdown::Shutdown;
use stats::Counters;
use subscribe::PendingSubAcks;
use timers::{Timer, Timers};

use crate::store::LogPort;

/// Bytes under way from one worker to another before the sender stops reading.
const MAIL_CREDIT_BYTES: usize = 4 << 20;
/// With more connections to flush than these, others that have mail are woken first, to work beside
/// this worker and not behind it.
const FLUSHES_ALONE: usize = 8;
/// See [`Worker::mail_item_bytes`]: all others together may have a quarter of a queue under way.
fn mail_item_bytes(settings: &Settings, workers: usize) -> usize {
    let items = settings.limits.queue.messages_max / (4 * workers);
    MAIL_CREDIT_BYTES / items.clamp(1, MAIL_CREDIT_BYTES)
}

/// Four times the messages, twice the bytes: each publisher has a bite of messages on its way
/// before it learns that it has to wait.
fn elastic(limits: &QueueLimits) -> QueueLimits {
    QueueLimits {
        messages_max: limits.messages_max.saturating_mul(4),
        bytes_max: limits.bytes_max.saturating_mul(2),
        policy: limits.policy,
    }
}

/// Free messages keep buffers of this many bytes together.
const SPARE_BYTES_MAX: usize = 32 << 20;

/// One worker: its connections, its sessions, its part of the topic space.
pub struct Worker<T: Transport> {
    index: usize,
    shared: Arc<Shared>,
    transport: T,
    now: Time,

    conns: Conns<T::Link>,
    buffers: BufferPool,
    /// Connections that may have bytes to read.
    readable: VecDeque<ConnId>,
    /// Connections that have something to send.
    dirty: VecDeque<ConnId>,
    /// How many of them, from the front, have not been flushed since the last input.
    unflushed: usize,
    /// Connections or other workers had more than a bite for this turn.
    has_more_input: bool,
    /// Connections to be ended because their queue was full.
    doomed: Vec<ConnId>,
    /// Connections that may go on with what they had sent before they were held back.
    resumed: Vec<ConnId>,

    sessions: Sessions,
    pool: MessagePool,
    subscriptions: Subscriptions,
    interest: Option<InterestView>,
    groups: ShareGroups<SessionKey>,
    retained: RetainedShard,
    replays: Replays,
    pending_subacks: PendingSubAcks,

    inbox: Inbox<Mail<T::Link>>,
    /// To each other worker; `None` at the own index.
    outboxes: Vec<Option<Outbox<Mail<T::Link>>>>,
    /// Workers that sleep and have been posted to, a bit each.
    unheard: u64,
    timers: Timers,
    counters: Counters,
    shutdown: Shutdown,
    /// Some other worker has as much on its way as it may have: publishers have to wait.
    is_out_of_credit: bool,
    /// What one item counts at least, so that the mail under way to a worker fits into the rest of
    /// a queue whose publishers are being held back.
    mail_item_bytes: usize,
    /// Messages to be retained by other workers, to be mailed behind everything else.
    retains: Vec<(usize, Mail<T::Link>)>,
    /// Publications that other workers have not answered, where there is no log.
    open_acks: OpenAcks,
    /// Limits of a queue while the publishers of what still arrives are being told to wait.
    elastic_queue: QueueLimits,
    /// Batches that have been worked off in this turn.
    received: Vec<Batch<Mail<T::Link>>>,

    /// Where packets are composed and bytes are read into: one for all connections.
    out_scratch: Vec<u8>,
    /// Packets that were composed for one connection and may serve the next.
    alike: Alike,
    /// Connections that get it, in this flush, and from which packet identifier on.
    alike_conns: Vec<(ConnId, Option<PacketId>)>,
    in_scratch: Box<[u8]>,
    /// The matches of the message being routed.
    matched: Vec<Match>,
    /// Messages that have been routed and are not in anybody's queue yet.
    run: Run,
    identifiers: Vec<u32>,
    /// What a session has to have written down, until it is.
    changes: Vec<Change>,
    /// The way to the log, if there is one.
    journal: Option<Box<Journal>>,
    queues: Queues,
}

impl<T: Transport> Worker<T> {
    /// Worker `index`, with its inbox and the way to all workers' inboxes.
    #[must_use]
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        transport: T,
        inbox: Inbox<Mail<T::Link>>,
        outboxes: Vec<Option<Outbox<Mail<T::Link>>>>,
        now: Time,
    ) -> Self {
        let settings = &shared.settings;
        let interest = (outboxes.len() > 1).then(|| InterestView::new(Arc::clone(&shared), index));
        let mut worker = Self {
            index,
            transport,
            now,
            conns: Conns::default(),
            buffers: BufferPool::default(),
            readable: VecDeque::new(),
            dirty: VecDeque::new(),
            unflushed: 0,
            has_more_input: false,
            doomed: Vec::new(),
            resumed: Vec::new(),
            sessions: Sessions::default(),
            pool: MessagePool::new(SPARE_BYTES_MAX),
            subscriptions: Subscriptions::default(),
            interest,
            groups: ShareGroups::new(settings.share_strategy, shared.hasher.hash_one(index)),
            retained: RetainedShard::default(),
            replays: Replays::default(),
            pending_subacks: PendingSubAcks::default(),
            inbox,
            timers: Timers::default(),
            counters: Counters::default(),
            shutdown: Shutdown::default(),
            is_out_of_credit: false,
            mail_item_bytes: mail_item_bytes(settings, outboxes.len()),
            retains: Vec::new(),
            open_acks: OpenAcks::default(),
            elastic_queue: elastic(&settings.limits.queue),
            received: Vec::new(),
            out_scratch: Vec::new(),
            alike: Alike::default(),
            alike_conns: Vec::new(),
            in_scratch: vec![0; input::READ_BYTES].into_boxed_slice(),
            matched: Vec::new(),
            run: Run::default(),
            identifiers: Vec::new(),
            changes: Vec::new(),
            journal: None,
            queues: Queues::new(settings, outboxes.len()),
            outboxes,
            unheard: 0,
            shared,
        };
        worker.timers.add(now, Timer::RetainedSweep);
        worker.timers.add(now, Timer::QueueSys);
        if index == 0 {
            worker.timers.add(now, Timer::Sys);
        }
        worker
    }

    /// Has what outlives a crash written to a log.
    pub fn use_log(&mut self, port: Arc<LogPort>, requests: ReadRequests) {
        self.journal = Some(Box::new(Journal::new(port, requests)));
        self.queues.use_log(&self.shared.settings);
    }

    /// An outbox for worker `from` to `inbox`, with the usual credit.
    #[must_use]
    pub fn outbox(from: usize, inbox: &Inbox<Mail<T::Link>>) -> Outbox<Mail<T::Link>> {
        Outbox::new(from, inbox.address(), MAIL_CREDIT_BYTES)
    }

    /// Does everything there is to do at `now`, in bounded bites. Returns whether there is more to
    /// do at once.
    pub fn turn(&mut self, now: Time) -> bool {
        self.begin_turn(now);
        self.end_turn()
    }

    /// The first half of a turn: takes what has come in, and posts to other workers what is theirs.
    /// Returns whether there is so much to do that they have to be woken for it.
    pub fn begin_turn(&mut self, now: Time) -> bool {
        self.now = now;
        self.collect_mail_that_came_home();
        self.has_more_input = if self.unflushed == 0 { self.take_input() } else { true };
        self.run_timers();
        if self.queues.is_busy {
            self.run_queues();
        }
        self.run_replays();
        self.run_shutdown();
        self.disconnect_doomed();
        if self.journal.is_some() {
            self.submit_journal();
        }
        // Before the flush, as other workers can begin with it.
        self.post_mail();
        self.dirty.len() > FLUSHES_ALONE || self.has_more_to_do()
    }

    /// The second half: sends what there is to send. Returns whether there is more to do at once.
    pub fn end_turn(&mut self) -> bool {
        self.flush_dirty();
        self.run_shutdown();
        if self.journal.is_some() {
            self.finish_log_turn();
        }
        // Once more, for what the flush caused.
        let all_posted = self.post_mail();
        // Not before the answers are on their way: a sender that is to be held back learns it
        // before it gets its credit.
        self.send_batches_home();
        self.shared.stats[self.index].publish(&mut self.counters, &self.pool);
        !all_posted && !self.shutdown.is_begun() || !self.dirty.is_empty() || self.has_more_to_do()
    }

    /// But for the connections that are to be flushed.
    fn has_more_to_do(&self) -> bool {
        self.has_more_input
            || !self.doomed.is_empty()
            || !self.is_out_of_credit && !self.resumed.is_empty()
            || self.replays.are_ready()
            || self.queues.is_busy
    }

    /// Mail and bytes. Not while connections that earlier input made dirty have still to be
    /// flushed for the first time: a fan-out would grow faster than it is sent.
    fn take_input(&mut self) -> bool {
        let more_mail = self.receive_mail();
        // Workers that have ended return no credit, and nothing of weight is mailed any more.
        let is_log_slow = self.journal.as_ref().is_some_and(|journal| journal.is_backed_up());
        self.is_out_of_credit =
            !self.shutdown.is_begun() && (is_log_slow || self.any_outbox_exhausted());
        let more_resumed = self.go_on_with_resumed();
        let more_to_read = self.read_readable();
        self.unflushed = self.dirty.len();
        more_mail || more_resumed || more_to_read
    }

    /// When [`Self::turn`] has to be called if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.timers.next()
    }

    /// How the worker's messages have done.
    #[must_use]
    pub fn pool_stats(&self) -> dunlin_queue::PoolStats {
        self.pool.stats()
    }

    /// Timers are never taken back, so clients that come and go would leave a heap of them behind.
    fn prune_timers(&mut self) {
        let live = self.conns.len() + self.sessions.len() + self.queues.len();
        if self.timers.len() < 2 * live + 4096 {
            return;
        }
        let (conns, sessions, queues) = (&self.conns, &self.sessions, &self.queues);
        self.timers.retain(|at, timer| match timer {
            Timer::Conn(id) => conns.get(id).is_some(),
            Timer::Session(key) => {
                sessions.resolve(key).is_some_and(|session| sessions.get(session).timer_at == at)
            }
            Timer::Pressure(key) => sessions.resolve(key).is_some(),
            Timer::Queue(key) => queues.waits_until(key, at),
            Timer::QueueLook
            | Timer::QueueSys
            | Timer::RetainedSweep
            | Timer::Sys
            | Timer::Shutdown => true,
        });
    }

    fn limits(&self) -> &dunlin_session::Limits {
        &self.shared.settings.limits
    }

    fn run_timers(&mut self) {
        self.prune_timers();
        while let Some((at, timer)) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Conn(id) => self.on_conn_timer(id),
                Timer::Session(key) => self.on_session_timer(key, at),
                Timer::Pressure(key) => self.on_pressure_timer(key),
                Timer::RetainedSweep => self.sweep_retained(),
                Timer::Sys => self.publish_sys(),
                Timer::QueueSys => self.publish_queue_stats(),
                Timer::Queue(key) => self.on_queue_timer(key, at),
                Timer::QueueLook => self.look_for_idle_queues(),
                Timer::Shutdown => self.shutdown.is_overdue = true,
            }
        }
    }
}
