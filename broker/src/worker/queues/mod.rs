//! Partitioned queues: what the workers do for them.
//!
//! A queue is at home on the worker its name hashes to, with all its partitions, its groups and its
//! dead letters; `dunlin_queue::partitioned` decides there which message goes to which member. Its
//! consumers are subscriptions of sessions on any worker.
//!
//! ```text
//! PUBLISH $queue/… ─ publish.rs ─▶ home: enqueue.rs ─▶ record ─▶ safe: Queue::keep, PUBACK
//!                                                                   │ Action::Ready
//! SUBSCRIBE ─ consume.rs ─▶ home: members.rs                        ▼
//! session's worker ◀── mail ── home: deliver.rs ◀── Queue::poll ── run.rs
//!    │ PUBACK, PUBREC ─ answers ─▶ home: members.rs ─▶ Queue::ack, nack
//!    └ PUBLISH $queue/…/$ack ────▶ home: verbs.rs    └▶ dead.rs: the last attempt has failed
//! ```
//!
//! What has to outlive a crash comes out of the queue as changes and goes into this turn's frame
//! (`record.rs`); docs/design/queues.md has the rules.

mod clean;
mod consume;
mod consumer_record;
mod contents;
mod dead;
mod deliver;
mod directory;
mod enqueue;
mod join;
mod load;
mod members;
mod memberships;
mod publish;
mod record;
mod refusal;
mod registry;
mod restore;
mod run;
mod sparse;
mod stats;
mod unconfirmed;
mod verbs;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;
use dunlin_packets::{PropertiesBuf, QoS};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{
    Action, Change, Config, Delivery, GroupId, IndexPool, MemberId, Queue,
};
use slab::Slab;

pub(super) use deliver::{QueueAnswer, QueueDeliver};
pub(super) use join::{QueueJoin, QueueJoined, QueueLeave, QueueLeft};
pub(super) use publish::QueuePublish;

pub(super) use consume::Consumer;
use contents::Contents;
use dead::{Burials, Undertaking};
use deliver::{Outgoing, Waiting};
use directory::Directory;
use load::Load;
use memberships::Memberships;
pub(super) use record::QueuedCargo;
pub(super) use refusal::Refusal;
use registry::core_config;
use sparse::SparseMap;
use unconfirmed::ConsumerChange;

use super::sessions::{SessionId, SessionKey};
use super::settings::{Level, Settings};
use crate::queues::{QueueConfig, QueueName};
use crate::store::Wanted;

/// A queue of this worker, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct QueueKey {
    pub(super) slot: u32,
    /// Its number in the log, never used again.
    pub(super) qid: u64,
}

/// A consumer group at its queue's home.
#[derive(Debug)]
pub(super) struct GroupSlot {
    id: GroupId,
    /// As clients know it: with `@<filter>` behind it if it has one.
    name: Box<str>,
    /// Of the routing key; empty for all.
    filter: Box<str>,
    /// It is that of a session that a crash ends: it does not outlive one either.
    is_temporary: bool,
    /// Since when it has no member; [`Time::NEVER`] as long as it has.
    idle_since: Time,
}

/// A member at its queue's home.
#[derive(Debug)]
pub(super) struct Member {
    session: SessionKey,
    /// What the session's worker knows it by.
    membership: u32,
    client_id: Box<str>,
    terms: MemberTerms,
    /// Deliveries that its session has not answered, and their bytes.
    unanswered: u32,
    unanswered_bytes: u32,
    /// What it was given and is not on its way yet, as it is being read.
    waiting: VecDeque<Waiting>,
    /// It is in the list of those that are asked whether they can get something.
    is_listed: bool,
}

/// What a consumer has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberTerms {
    pub(super) qos: QoS,
    pub(super) identifier: u32,
    /// PUBACK and PUBREC settle.
    pub(super) is_auto_settled: bool,
    /// Deliveries unsettled at a time: leases.
    pub(super) prefetch: u32,
    /// Deliveries unanswered at a time, as its client can be sent no more.
    pub(super) in_flight_max: u16,
    /// Its client knows properties.
    pub(super) has_properties: bool,
}

/// A queue at home.
#[derive(Debug)]
pub(super) struct QueueSlot {
    key: QueueKey,
    /// As [`QueueName`] displays it.
    name: Box<str>,
    config: Arc<QueueConfig>,
    level: Level,
    queue: Queue,
    groups: Vec<GroupSlot>,
    members: SparseMap<(GroupId, MemberId), Member>,
    /// Members that had messages and said nothing for too long. They are members again when they
    /// say something.
    lapsed: SparseMap<(GroupId, MemberId), Member>,
    /// Which member a session is, or was when it lapsed.
    by_session: SparseMap<(SessionKey, GroupId), MemberId>,
    /// Messages in memory, by partition.
    contents: Vec<Contents>,
    /// The earliest timer that is set for it.
    timer_at: Time,
    /// Bytes it has been counted with.
    counted_bytes: u64,
    /// Drops it has been counted with.
    counted_drops: u64,
    /// And expired messages.
    counted_expired: u64,
    /// Where all of it but its messages was last written down together.
    state_at: u64,
    /// Looks in a row at which nobody used it.
    idle_looks: u8,
    burials: Burials,
    /// What `$SYS` said of it last.
    said: u64,
}

impl QueueSlot {
    fn name(&self) -> QueueName<'_> {
        QueueName::parse(&self.name).unwrap_or(QueueName { name: &self.name, is_dead: false })
    }

    /// Gives back what it does not need while it is idle.
    fn shrink(&mut self, index: &mut IndexPool) {
        self.queue.shrink(index);
        if self.queue.depth() == 0 {
            self.contents = Vec::new();
        }
        self.groups.shrink_to_fit();
    }

    fn group(&self, id: GroupId) -> Option<&GroupSlot> {
        self.groups.iter().find(|group| group.id == id)
    }

    fn find_group(&self, name: &str) -> Option<&GroupSlot> {
        self.groups.iter().find(|group| &*group.name == name)
    }
}

/// A piece of an index: which queue, partition, chunk.
type Piece = (QueueKey, u16, u64);
/// A message that was written again: its offset, and where it is now.
type Moved = (u64, u64);

/// A member that may be able to get something.
#[derive(Clone, Copy, Debug)]
struct Ready {
    key: QueueKey,
    group: GroupId,
    member: MemberId,
}

/// What a worker has of partitioned queues.
#[derive(Debug)]
pub(super) struct Queues {
    /// Boxed, as a table of thousands is moved as a whole when it grows.
    slots: Slab<Box<QueueSlot>>,
    directory: Directory,
    index: IndexPool,
    defaults: Arc<QueueConfig>,
    /// What the core of a queue goes by that has the defaults.
    usual: Arc<Config>,
    /// Where `$SYS` goes on with them.
    sys_from: usize,
    /// Numbers of queues where there is no log to draw them from.
    last_qid: u64,
    /// There is something to do in this turn.
    pub(super) is_busy: bool,
    /// Those of the configuration have been made.
    is_open: bool,
    /// Bytes of contents that are in memory although they are in the log, and how many may be.
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// Bytes of messages that are in memory only.
    only_bytes: usize,
    /// What the log has for queues that is still needed, about.
    log_bytes: u64,

    /// Subscriptions to queues, by the session that has them.
    consumers: BTreeMap<SessionId, Vec<Consumer>>,
    /// Those that their homes have not confirmed.
    unconfirmed: BTreeMap<SessionId, Vec<ConsumerChange>>,
    memberships: Memberships,
    /// Deliveries that sessions of this worker have.
    outgoing: Slab<Outgoing>,
    /// What clients have answered in this turn, by the home of the queue.
    answers: Vec<Vec<QueueAnswer>>,

    ready: VecDeque<Ready>,
    todo: VecDeque<(QueueKey, Action)>,
    loads: Slab<Load>,
    /// Pieces of indexes that are being read, and messages in them that are elsewhere now.
    unmoved: HashMap<Piece, Vec<Moved>, RandomState>,
    /// What is to be asked for at the end of the turn.
    wanted: Vec<Wanted>,

    undertaking: Undertaking,

    changes: Vec<Change>,
    actions: Vec<Action>,
    deliveries: Vec<Delivery>,
    text: String,
    scratch: Vec<u8>,
    properties: PropertiesBuf,
}

impl Queues {
    pub(super) fn new(settings: &Settings, workers: usize) -> Self {
        let memory_bytes = settings.durability.memory_bytes;
        Self {
            slots: Slab::new(),
            directory: Directory::default(),
            // Without a log there is nowhere else.
            index: IndexPool::new(usize::MAX),
            defaults: Arc::new(settings.queues.defaults.clone()),
            usual: Arc::new(core_config(&settings.queues.defaults)),
            sys_from: 0,
            last_qid: 0,
            is_busy: true,
            is_open: false,
            cached_bytes: 0,
            cached_bytes_max: memory_bytes / 4,
            only_bytes: 0,
            log_bytes: 0,
            consumers: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            memberships: Memberships::default(),
            outgoing: Slab::new(),
            answers: (0..workers).map(|_| Vec::new()).collect(),
            ready: VecDeque::new(),
            todo: VecDeque::new(),
            loads: Slab::new(),
            unmoved: HashMap::default(),
            wanted: Vec::new(),
            undertaking: Undertaking::default(),
            changes: Vec::new(),
            actions: Vec::new(),
            deliveries: Vec::new(),
            text: String::new(),
            scratch: Vec::new(),
            properties: PropertiesBuf::new(),
        }
    }

    /// There is a log: what is too much for memory goes there.
    pub(super) fn use_log(&mut self, settings: &Settings) {
        self.index = IndexPool::new(settings.queues.index_bytes);
    }

    /// Bytes of the log that queues still need, about.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Queues at home here.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether a queue waits for a timer at this time.
    pub(super) fn waits_until(&self, key: QueueKey, at: Time) -> bool {
        self.get(key).is_some_and(|slot| slot.timer_at == at)
    }

    fn get(&self, key: QueueKey) -> Option<&QueueSlot> {
        self.slots.get(key.slot as usize).map(Box::as_ref).filter(|slot| slot.key == key)
    }

    fn get_mut(&mut self, key: QueueKey) -> Option<&mut QueueSlot> {
        self.slots.get_mut(key.slot as usize).map(Box::as_mut).filter(|slot| slot.key == key)
    }

    fn find(&self, name: &str) -> Option<QueueKey> {
        let slot = self.directory.find(name, &self.slots)?;
        Some(self.slots.get(slot as usize)?.key)
    }

    /// A configuration of the core, shared with all queues that have the usual one.
    fn share(&self, config: Config) -> Arc<Config> {
        if config == *self.usual { Arc::clone(&self.usual) } else { Arc::new(config) }
    }

    /// Notes that a member may be able to get something.
    fn list(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        let Some(slot) = self.get_mut(key) else { return };
        let Some(known) = slot.members.get_mut(&(group, member)) else { return };
        if !std::mem::replace(&mut known.is_listed, true) {
            self.ready.push_back(Ready { key, group, member });
            self.is_busy = true;
        }
    }
}
