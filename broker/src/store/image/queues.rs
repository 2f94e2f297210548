//! Record by record to the partitioned queues there are.

use std::collections::HashMap;

use ahash::RandomState;
use dunlin_queue::partitioned::{GroupId, Mode, Restoring};

use super::{StoredConsumer, StoredGroup, StoredQueue};
use crate::store::record::{ConsumerRecord, QueueRecord, Record};

impl From<&ConsumerRecord<'_>> for StoredConsumer {
    fn from(record: &ConsumerRecord<'_>) -> Self {
        Self {
            filter: record.filter.into(),
            group: record.group.into(),
            options: record.options,
            identifier: record.identifier,
            flags: record.flags,
            prefetch: record.prefetch,
        }
    }
}

/// A queue while the log is being read.
#[derive(Debug, Default)]
struct QueueDraft {
    row: Option<(Box<str>, u16, Mode)>,
    groups: HashMap<GroupId, StoredGroup, RandomState>,
    restoring: Restoring,
}

/// What has been read of queues so far. Numbers are not used again, so an end holds for whatever
/// comes behind it too.
#[derive(Debug, Default)]
pub(super) struct ReadingQueues {
    drafts: HashMap<u64, Option<Box<QueueDraft>>, RandomState>,
}

impl ReadingQueues {
    /// Takes a record in whose frame's records begin at `records_at`. Says the number of its queue,
    /// if it is of one.
    pub(super) fn record(&mut self, record: &Record<'_>, records_at: u64) -> Option<u64> {
        let qid = match *record {
            Record::Queue(QueueRecord { qid, .. })
            | Record::QueueEnd { qid }
            | Record::QueueGroup { qid, .. }
            | Record::QueueChange { qid, .. } => qid,
            Record::QueueMessage(ref message) => message.qid,
            Record::QueueChunk(ref chunk) => return Some(chunk.qid),
            _ => return None,
        };
        if matches!(record, Record::QueueEnd { .. }) {
            self.drafts.insert(qid, None);
            return Some(qid);
        }
        let draft = self.drafts.entry(qid).or_insert_with(|| Some(Box::default()));
        let Some(draft) = draft else { return Some(qid) };
        match *record {
            Record::Queue(QueueRecord { name, partitions, mode, .. }) => {
                draft.row = Some((name.into(), partitions, mode));
            }
            Record::QueueGroup { group, name, filter, is_temporary, .. } => {
                let (name, filter) = (name.into(), filter.into());
                let stored = StoredGroup { group, name, filter, is_temporary };
                draft.groups.insert(group, stored);
            }
            Record::QueueMessage(ref message) => {
                let position = records_at + message.position as u64;
                draft.restoring.apply(&message.change(), position);
            }
            Record::QueueChange { ref change, .. } => draft.restoring.apply(change, 0),
            _ => {}
        }
        Some(qid)
    }

    /// The queues there are.
    pub(super) fn finish(self) -> Vec<StoredQueue> {
        let there = self.drafts.into_iter().filter_map(|(qid, draft)| {
            let draft = draft?;
            let (name, partitions, mode) = draft.row?;
            let mut groups: Vec<StoredGroup> = draft.groups.into_values().collect();
            groups.sort_unstable_by_key(|group| group.group);
            let restoring = draft.restoring;
            Some(StoredQueue { qid, name, partitions, mode, groups, restoring })
        });
        let mut queues: Vec<StoredQueue> = there.collect();
        queues.sort_unstable_by_key(|queue| queue.qid);
        queues
    }
}
