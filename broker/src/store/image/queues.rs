//! Queues, from their records in any order.

use std::collections::{BTreeMap, HashMap, HashSet};

use ahash::RandomState;
use dunlin_queue::partitioned::{Change, GroupId, Mode, Restoring};

use crate::store::record::{QueueMessageRecord, QueueRecord, Record};

/// What the name of a queue begins with that has the dead letters of another.
const DEAD_LETTERS: &str = "$dlq/";

/// A queue. Positions in [`Self::restoring`] are those of checksum and content of messages.
#[derive(Debug)]
pub struct StoredQueue {
    /// Its number in the log.
    pub qid: u64,
    /// Its name.
    pub name: Box<str>,
    /// Partitions it began with.
    pub partitions: u16,
    /// Work queue or stream.
    pub mode: Mode,
    /// Its groups, by number.
    pub groups: Vec<StoredGroup>,
    /// All else.
    pub restoring: Restoring,
}

impl StoredQueue {
    /// Its name, or, if it has the dead letters of another queue, that one's.
    #[must_use]
    pub fn base_name(&self) -> &str {
        self.name.strip_prefix(DEAD_LETTERS).unwrap_or(&self.name)
    }

    /// As the log has it.
    #[must_use]
    pub fn record(&self) -> QueueRecord<'_> {
        let Self { qid, name, partitions, mode, .. } = self;
        QueueRecord { qid: *qid, name, partitions: *partitions, mode: *mode }
    }

    /// How many messages are left; looks at each.
    #[must_use]
    pub fn messages_left(&self) -> u64 {
        self.restoring.messages(self.mode).count() as u64
    }
}

/// What a group of a queue is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// Its number.
    pub group: GroupId,
    /// Its name.
    pub name: Box<str>,
    /// What it consumes of the queue.
    pub filter: Box<str>,
    /// It ends with its last member.
    pub is_temporary: bool,
}

/// A queue while the log is being read.
#[derive(Debug, Default)]
struct Draft {
    row: Option<(Box<str>, u16, Mode)>,
    groups: BTreeMap<GroupId, StoredGroup>,
    restoring: Restoring,
}

/// The queues that have been heard of.
#[derive(Debug, Default)]
pub(super) struct QueuesRead {
    /// By number; `None` of those that have ended.
    drafts: HashMap<u64, Option<Box<Draft>>, RandomState>,
}

impl QueuesRead {
    /// Takes a record in that stands in a frame whose records begin at `records_at`, if it is one
    /// of a queue. Says which.
    pub(super) fn take(&mut self, record: &Record<'_>, records_at: u64) -> Option<u64> {
        let (Record::Queue(QueueRecord { qid, .. })
        | Record::QueueEnd { qid }
        | Record::QueueGroup { qid, .. }
        | Record::QueueMessage(QueueMessageRecord { qid, .. })
        | Record::QueueChange { qid, .. }
        | Record::QueueChunk { qid, .. }) = *record
        else {
            return None;
        };
        let slot = self.drafts.entry(qid).or_insert_with(|| Some(Box::default()));
        let Some(draft) = slot else { return Some(qid) };
        match *record {
            Record::Queue(queue) => {
                draft.row = Some((queue.name.into(), queue.partitions, queue.mode));
            }
            Record::QueueEnd { .. } => *slot = None,
            Record::QueueGroup { group, name, filter, is_temporary, .. } => {
                let (name, filter) = (name.into(), filter.into());
                draft.groups.insert(group, StoredGroup { group, name, filter, is_temporary });
            }
            Record::QueueMessage(message) => {
                let position = records_at + message.position as u64;
                draft.restoring.apply(&message.change(), position);
            }
            Record::QueueChange { change, .. } => draft.restoring.apply(&change, 0),
            _ => {}
        }
        Some(qid)
    }

    /// Those that are there, by number.
    pub(super) fn finish(self) -> Vec<StoredQueue> {
        let drafts = self.drafts.into_iter();
        let mut queues: Vec<StoredQueue> =
            drafts.filter_map(|(qid, draft)| finish_queue(qid, *draft?)).collect();
        queues.sort_unstable_by_key(|queue| std::cmp::Reverse(queue.qid));
        // Of two with one name it is the newer one that holds: the end of the other is missing.
        let mut names: HashSet<Box<str>, RandomState> = HashSet::default();
        queues.retain(|queue| names.insert(queue.name.clone()));
        queues.reverse();
        queues
    }
}

fn finish_queue(qid: u64, draft: Draft) -> Option<StoredQueue> {
    let (name, partitions, mode) = draft.row?;
    let Draft { mut groups, mut restoring, .. } = draft;
    groups.retain(|&group, _| restoring.has_group(group));
    // One whose name is in a part of the log that is damaged: nobody can consume as it, and its
    // messages would wait for ever.
    let nameless = restoring.group_ids().filter(|group| !groups.contains_key(group));
    for group in nameless.collect::<Vec<_>>() {
        restoring.apply(&Change::GroupRemoved { group }, 0);
    }
    let groups = groups.into_values().collect();
    Some(StoredQueue { qid, name, partitions, mode, groups, restoring })
}
