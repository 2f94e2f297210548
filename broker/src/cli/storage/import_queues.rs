//! The part of an import with the queues: each is written with its messages, one line at a time.

use std::collections::BTreeSet;

use dunlin_queue::partitioned::{Change, GroupId, MessageId, REJECTED};
use dunlin_storage::{DiskBackend, LogError};

use super::line::{QueueLine, QueueMessageLine};
use super::validate::Checked;
use super::validate_queues::{self, CheckedQueue, CheckedQueueMessage};
use crate::store::NewLog;
use crate::store::record::{QueueMessageRecord, QueueRecord};

/// The queues of a file that is being read.
#[derive(Debug, Default)]
pub(super) struct QueuesImport {
    names: BTreeSet<Box<str>>,
    /// The one whose messages come.
    current: Option<Current>,
    /// Messages of all queues.
    pub(super) messages: u64,
}

#[derive(Debug)]
struct Current {
    queue: CheckedQueue,
    /// The first message of the partition that is being read, and the last of all.
    first: Option<MessageId>,
    last: Option<MessageId>,
    /// Of each partition where the last message ends.
    ends: Vec<u64>,
}

impl QueuesImport {
    /// Queues that have come.
    pub(super) fn queues(&self) -> u64 {
        self.names.len() as u64
    }

    /// Writes a queue, and what is left to say of the one before.
    pub(super) fn queue(&mut self, line: &QueueLine, log: &mut NewLog<DiskBackend>) -> Checked<()> {
        self.end(log).map_err(|error| error.to_string())?;
        let queue = validate_queues::queue(line)?;
        if !self.names.insert(queue.name.clone()) {
            return Err("there is another queue of this name".into());
        }
        write(&queue, log).map_err(|error| error.to_string())?;
        let ends = vec![0; queue.ends.len()];
        self.current = Some(Current { queue, first: None, last: None, ends });
        Ok(())
    }

    /// Writes a message of the queue that has come last.
    pub(super) fn message(
        &mut self,
        line: &QueueMessageLine,
        log: &mut NewLog<DiskBackend>,
    ) -> Checked<()> {
        let current = self.current.as_mut().ok_or("a message of a queue comes behind it")?;
        let Current { queue, first, last, ends } = current;
        let message = validate_queues::message(line, queue, *first, *last)?;
        let id = message.id;
        if last.is_none_or(|last| last.partition != id.partition) {
            *first = Some(id);
        }
        *last = Some(id);
        ends[usize::from(id.partition)] = id.offset + 1;
        self.messages += 1;
        write_message(queue.number, &message, line, log).map_err(|error| error.to_string())
    }

    /// Writes where the partitions of the last queue end.
    pub(super) fn end(&mut self, log: &mut NewLog<DiskBackend>) -> Result<(), LogError> {
        let Some(Current { queue, ends, .. }) = self.current.take() else { return Ok(()) };
        for (partition, (from, &to)) in (0..).zip(ends.into_iter().zip(&queue.ends)) {
            if from < to {
                let group = GroupId::EVERYBODY;
                let gone = Change::Settled { group, partition, from, to };
                log.queue_change(queue.number, &gone)?;
            }
        }
        Ok(())
    }
}

fn write(queue: &CheckedQueue, log: &mut NewLog<DiskBackend>) -> Result<(), LogError> {
    let (qid, partitions, mode) = (queue.number, queue.partitions, queue.mode);
    log.queue(&QueueRecord { qid, name: &queue.name, partitions, mode }, &queue.groups)?;
    queue.changes.iter().try_for_each(|change| log.queue_change(qid, change))
}

fn write_message(
    qid: u64,
    message: &CheckedQueueMessage,
    line: &QueueMessageLine,
    log: &mut NewLog<DiskBackend>,
) -> Result<(), LogError> {
    let &CheckedQueueMessage { id, at, key_hash, priority, expiry_s, deliver_at, ref content } =
        message;
    let position = 0;
    log.queue_message(&QueueMessageRecord {
        qid,
        id,
        at,
        key_hash,
        priority,
        expiry_s,
        deliver_at,
        content,
        position,
    })?;
    let (partition, from, to) = (id.partition, id.offset, id.offset + 1);
    for &group in &line.settled_by {
        let group = GroupId(group);
        log.queue_change(qid, &Change::Settled { group, partition, from, to })?;
    }
    for failed in &line.failed {
        let group = GroupId(failed.group);
        let attempts = failed.attempts | if failed.rejected { REJECTED } else { 0 };
        log.queue_change(qid, &Change::Attempts { group, id, attempts })?;
    }
    Ok(())
}
