//! What queues have written down, and what follows when it is safe.

use dunlin_packets::PacketId;
use dunlin_queue::DropReason;
use dunlin_queue::partitioned::{Change, Context, GroupId, MessageId, Queue};

use super::contents::Contents;
use super::{GroupSlot, QueueKey, QueueSlot, Queues, Refusal};
use crate::store::LogState;
use crate::store::record::{QueueRecord, Record};
use crate::worker::journal::Journal;
use crate::worker::settings::Level;
use crate::worker::timers::{Timer, Timers};
use crate::worker::{Transport, Worker};

/// What a piece of an index takes in the log, about.
const CHUNK_BYTES: u64 = 6200;

/// Something of a queue whose place in the log is to be known when its frame is written.
#[derive(Clone, Copy, Debug)]
pub(in crate::worker) struct QueuedCargo {
    pub(super) key: QueueKey,
    pub(super) what: Written,
    /// Where it is in the frame.
    pub(super) offset: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// A message for the first time.
    Message(MessageId),
    /// A message that was moved.
    Moved(MessageId),
    /// A piece of the index: which of which partition.
    Chunk(u16, u64),
    /// A piece that was moved, and from where.
    ChunkMoved(u16, u64, u64),
}

impl<T: Transport> Worker<T> {
    /// Whether what happens to a queue is written down.
    pub(super) fn is_durable_queue(&self, key: QueueKey) -> bool {
        let has_log = self.journal.as_ref().is_some_and(|it| it.state != LogState::Failed);
        has_log && self.queues.get(key).is_some_and(|slot| slot.level != Level::Memory)
    }

    /// Why nothing can be kept of a queue that outlives a crash, if that is so.
    pub(super) fn refusal_of_log_for(&self, key: QueueKey) -> Option<Refusal> {
        let slot = self.queues.get(key).filter(|slot| slot.level != Level::Memory);
        slot.and(self.log_refusal()).map(Refusal::of_storage)
    }

    /// Has the reader read what was asked for in this turn, all at once.
    pub(in crate::worker) fn ask_for_queues(&mut self) {
        if let Some(journal) = self.journal.as_ref().filter(|_| !self.queues.wanted.is_empty()) {
            journal.requests.ask(self.index, std::mem::take(&mut self.queues.wanted));
        }
    }

    /// Calls a queue; [`Self::absorb`] has to follow.
    pub(super) fn with_queue<R>(
        &mut self,
        key: QueueKey,
        call: impl FnOnce(&mut Queue, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let now = self.now;
        let Queues { slots, index, changes, actions, .. } = &mut self.queues;
        let slot = slots.get_mut(key.slot as usize).filter(|slot| slot.key == key)?;
        Some(call(&mut slot.queue, &mut Context { now, changes, actions, index }))
    }

    /// Takes in what a call to a queue has brought about: writes it down, lets go of messages that
    /// nobody needs any more, and notes what is to be done.
    pub(super) fn absorb(&mut self, key: QueueKey) {
        let changes = std::mem::take(&mut self.queues.changes);
        let is_durable = !changes.is_empty() && self.is_durable_queue(key);
        for &change in &changes {
            match change {
                // With its message.
                Change::Enqueued { .. } => continue,
                Change::Settled { partition, from, to, .. } => {
                    self.let_go_contents(key, partition, from, to);
                }
                Change::GroupRemoved { .. } => self.sweep_contents(key),
                _ => {}
            }
            if let Some(journal) = self.journal.as_mut().filter(|_| is_durable) {
                journal.write(&Record::QueueChange { qid: key.qid, change });
            }
        }
        self.queues.changes = changes;
        self.queues.changes.clear();
        let Queues { actions, todo, is_busy, .. } = &mut self.queues;
        *is_busy |= !actions.is_empty();
        todo.extend(actions.drain(..).map(|action| (key, action)));
        self.count_queue(key);
    }

    /// Keeps figures and the timer up with a queue.
    fn count_queue(&mut self, key: QueueKey) {
        let now = self.now;
        let Queues { slots, log_bytes, .. } = &mut self.queues;
        let Some(slot) = slots.get_mut(key.slot as usize).filter(|slot| slot.key == key) else {
            return;
        };
        if slot.level != Level::Memory {
            let bytes = slot.queue.bytes() + slot.queue.stored_chunks() as u64 * CHUNK_BYTES;
            *log_bytes = (*log_bytes + bytes).saturating_sub(slot.counted_bytes);
            slot.counted_bytes = bytes;
        }
        for (reason, count, counted) in [
            (DropReason::QueueRetention, slot.queue.drops(), &mut slot.counted_drops),
            (DropReason::Expired, slot.queue.expired(), &mut slot.counted_expired),
        ] {
            if count > *counted {
                self.counters.drop_many(reason, (count - *counted) as usize);
                *counted = count;
            }
        }
        if let Some(deadline) = slot.queue.deadline()
            && Timers::round(deadline.max(now)) < slot.timer_at
        {
            let deadline = deadline.max(now);
            slot.timer_at = self.timers.add(deadline, Timer::Queue(key));
        }
    }

    /// Lets go of the messages of a range that nobody needs any more.
    fn let_go_contents(&mut self, key: QueueKey, partition: u16, from: u64, to: u64) {
        let Self { queues, pool, .. } = self;
        let Queues { slots, cached_bytes, only_bytes, .. } = queues;
        let Some(slot) = slots.get_mut(key.slot as usize) else { return };
        let QueueSlot { contents, queue, .. } = &mut **slot;
        let Some(contents) = contents.get_mut(usize::from(partition)) else { return };
        for offset in contents.clip(from, to) {
            if contents.get(offset).is_none() || queue.is_needed(MessageId { partition, offset }) {
                continue;
            }
            if let Some(content) = contents.take(offset) {
                let counted = if content.is_only { &mut *only_bytes } else { &mut *cached_bytes };
                *counted = counted.saturating_sub(pool.get(&content.message).len());
                pool.release(content.message);
            }
        }
    }

    /// Lets go of all messages that nobody needs any more.
    pub(super) fn sweep_contents(&mut self, key: QueueKey) {
        let Some(slot) = self.queues.get(key) else { return };
        let in_memory: Vec<_> = (0..).zip(slot.contents.iter().map(Contents::offsets)).collect();
        for (partition, offsets) in in_memory {
            for offset in offsets {
                self.let_go_contents(key, partition, offset, offset + 1);
            }
        }
    }

    /// In the frame of what a session that outlives a crash has published at QoS 2: that it has.
    pub(super) fn record_received(&mut self, received: Option<(u64, PacketId)>) {
        if let (Some(journal), Some((sid, packet_id))) = (&mut self.journal, received) {
            journal.write(&Record::Received { sid, packet_id });
        }
    }

    /// Writes down that a queue exists.
    pub(super) fn record_queue(&mut self, key: QueueKey) {
        if !self.is_durable_queue(key) {
            return;
        }
        let Self { queues, journal, .. } = self;
        if let (Some(journal), Some(slot)) = (journal, queues.get(key)) {
            write_queue(journal, slot);
        }
    }

    /// Writes down what a group is called.
    pub(super) fn record_group(&mut self, key: QueueKey, group: GroupId) {
        if !self.is_durable_queue(key) {
            return;
        }
        let Self { queues, journal, .. } = self;
        if let (Some(journal), Some(slot)) = (journal, queues.get(key))
            && let Some(group) = slot.group(group)
        {
            write_group(journal, key.qid, group);
        }
    }

    /// Something of a queue is in the log, in the frame at `address`; 0 when that has failed.
    pub(in crate::worker) fn on_queue_written(&mut self, written: QueuedCargo, address: u64) {
        let QueuedCargo { key, what, offset } = written;
        let position = if address == 0 { 0 } else { address + offset };
        match what {
            Written::Message(id) => {
                self.with_queue(key, |queue, cx| queue.keep(id, position, cx));
            }
            Written::Moved(id) => self.on_message_moved(key, id, position),
            Written::Chunk(partition, chunk) => {
                let Queues { slots, index, .. } = &mut self.queues;
                if position != 0
                    && let Some(slot) = slots.get_mut(key.slot as usize)
                    && slot.key == key
                {
                    slot.queue.stored(partition, chunk, position, index);
                }
            }
            Written::ChunkMoved(partition, chunk, from) => {
                if let Some(slot) = self.queues.get_mut(key) {
                    slot.queue.chunk_moved(partition, chunk, from, position);
                }
            }
        }
        self.absorb(key);
    }
}

/// Writes a queue down, without what is in it.
pub(super) fn write_queue(journal: &mut Journal, slot: &QueueSlot) {
    journal.write(&Record::Queue(QueueRecord {
        qid: slot.key.qid,
        name: &slot.name,
        partitions: slot.queue.config().partitions,
        mode: slot.queue.config().mode,
    }));
}

pub(super) fn write_group(journal: &mut Journal, qid: u64, group: &GroupSlot) {
    journal.write(&Record::QueueGroup {
        qid,
        group: group.id,
        name: &group.name,
        filter: &group.filter,
        is_temporary: group.is_temporary,
    });
}
