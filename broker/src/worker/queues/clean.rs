//! The log's oldest segment goes: what queues still need of it is written down again.

use dunlin_queue::partitioned::limits::CHUNK_LEN;
use dunlin_queue::partitioned::{Located, MessageId};

use super::QueueKey;
use super::record::{QueuedCargo, Written, write_group, write_queue};
use crate::store::record::{QueueMessageRecord, Record};
use crate::worker::{Transport, Worker};

impl<T: Transport> Worker<T> {
    /// Looks at an old record of a queue at home here, which stood at `position`.
    pub(in crate::worker) fn clean_queue_record(&mut self, record: &Record<'_>, records_at: u64) {
        match *record {
            Record::Queue(queue) => self.move_queue_state(queue.qid, records_at),
            Record::QueueGroup { qid, .. } | Record::QueueChange { qid, .. } => {
                self.move_queue_state(qid, records_at);
            }
            Record::QueueMessage(message) => self.move_queue_message(&message),
            Record::QueueChunk { position, .. } => {
                self.move_queue_chunk(record, records_at + position as u64);
            }
            _ => {}
        }
    }

    fn key_of(&self, qid: u64) -> Option<QueueKey> {
        let slot = self.queues.directory.find_qid(qid, &self.queues.slots)?;
        Some(QueueKey { slot, qid })
    }

    /// Writes all of a queue but its messages down again, unless that was done after this record.
    fn move_queue_state(&mut self, qid: u64, records_at: u64) {
        let Some(key) = self.key_of(qid) else { return };
        if !self.is_durable_queue(key) {
            return;
        }
        let Self { queues, journal, .. } = self;
        let (Some(journal), Some(slot)) = (journal, queues.get_mut(key)) else { return };
        if records_at < slot.state_at {
            return;
        }
        // The frame will be behind everything that has been submitted by now.
        slot.state_at = journal.port.reserved();
        let mut changes = Vec::new();
        slot.queue.snapshot(&mut changes);
        write_queue(journal, slot);
        for group in &slot.groups {
            write_group(journal, qid, group);
        }
        for change in changes {
            journal.write(&Record::QueueChange { qid, change });
        }
    }

    fn move_queue_message(&mut self, message: &QueueMessageRecord<'_>) {
        let Some(key) = self.key_of(message.qid) else { return };
        let id = message.id;
        if !self.is_durable_queue(key)
            || !self.queues.get(key).is_some_and(|slot| slot.queue.is_needed(id))
        {
            return;
        }
        if let Some(journal) = &mut self.journal {
            let offset = journal.write(&Record::QueueMessage(*message));
            journal.cargo.queued.push(QueuedCargo { key, what: Written::Moved(id), offset });
        }
    }

    fn move_queue_chunk(&mut self, record: &Record<'_>, position: u64) {
        let Record::QueueChunk { qid, partition, chunk, .. } = *record else { return };
        let Some(key) = self.key_of(qid) else { return };
        let slot = self.queues.get(key);
        let is_needed =
            slot.is_some_and(|slot| slot.queue.is_chunk_needed(partition, chunk, position));
        if let Some(journal) = self.journal.as_mut().filter(|_| is_needed) {
            let offset = journal.write(record);
            let what = Written::ChunkMoved(partition, chunk, position);
            journal.cargo.queued.push(QueuedCargo { key, what, offset });
        }
    }

    /// A message has been written again. If its piece of the index is not in memory it cannot be
    /// told yet: that has been asked for, and nobody can read the message before it is there.
    pub(super) fn on_message_moved(&mut self, key: QueueKey, id: MessageId, position: u64) {
        let located = self.with_queue(key, |queue, cx| queue.moved(id, position, cx));
        if located == Some(Located::Away) {
            let piece = (key, id.partition, id.offset / CHUNK_LEN);
            self.queues.unmoved.entry(piece).or_default().push((id.offset, position));
        }
    }

    /// A piece of an index is there: what was moved meanwhile.
    pub(super) fn note_moved(&mut self, key: QueueKey, partition: u16, chunk: u64) {
        let moved = self.queues.unmoved.remove(&(key, partition, chunk));
        for (offset, position) in moved.unwrap_or_default() {
            self.on_message_moved(key, MessageId { partition, offset }, position);
        }
    }
}
