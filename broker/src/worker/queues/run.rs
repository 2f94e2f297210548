//! Each turn: what queues want done, and who can get something.

use dunlin_queue::Time;
use dunlin_queue::partitioned::Action;

use super::load::Dead;
use super::record::{QueuedCargo, Written};
use super::{QueueKey, Queues, Ready};
use crate::store::record::Record;
use crate::worker::timers::Timer;
use crate::worker::{Transport, Worker};

/// Members asked in one turn whether they can get something.
const POLLS_PER_TURN: usize = 256;
/// How often idle groups and queues are looked for, in milliseconds.
const LOOK_INTERVAL_MS: u64 = 60_000;
/// Looks at which an asked-for queue without messages, groups or members has to be idle before it
/// is removed.
const IDLE_LOOKS: u8 = 5;

impl<T: Transport> Worker<T> {
    /// Does what there is to do for queues, as much as belongs in one turn.
    #[inline(never)]
    pub(in crate::worker) fn run_queues(&mut self) {
        if !self.queues.is_open {
            self.open_queues();
            self.timers.add(self.now.plus_millis(LOOK_INTERVAL_MS), Timer::QueueLook);
        }
        self.send_queue_answers();
        self.run_queue_actions();
        let polls = if self.shutdown.is_begun() { 0 } else { POLLS_PER_TURN };
        for _ in 0..polls {
            let Some(Ready { key, group, member }) = self.queues.ready.pop_front() else { break };
            self.poll_member(key, group, member);
            self.run_queue_actions();
        }
        self.ask_for_queues();
        self.submit_if_large();
        let Queues { ready, todo, answers, .. } = &self.queues;
        let is_ready = !ready.is_empty() && !self.shutdown.is_begun();
        let has_answers = answers.iter().any(|answers| !answers.is_empty());
        self.queues.is_busy = is_ready || !todo.is_empty() || has_answers;
    }

    fn run_queue_actions(&mut self) {
        while let Some((key, action)) = self.queues.todo.pop_front() {
            match action {
                Action::Ready { group, member } => self.queues.list(key, group, member),
                Action::Assigned { group, member, .. } => self.queues.list(key, group, member),
                // It is given up as soon as what the member has of it is settled.
                Action::Revoking { .. } => {}
                Action::TimedOut { group, member } => self.lapse_member(key, group, member),
                Action::DeadLetter { group, id, reason, attempts } => {
                    self.bury(key, Dead { group, id, reason, attempts });
                }
                Action::Store { partition, chunk } => self.store_chunk(key, partition, chunk),
                Action::Want { partition, chunk, position } => {
                    self.load_chunk(key, partition, chunk, position);
                }
            }
        }
    }

    /// Writes a piece of an index down, so that it need not be in memory.
    fn store_chunk(&mut self, key: QueueKey, partition: u16, chunk: u64) {
        let mut bytes = std::mem::take(&mut self.queues.scratch);
        bytes.clear();
        let is_wanted = self
            .queues
            .get(key)
            .is_some_and(|slot| slot.queue.encode_chunk(partition, chunk, &mut bytes));
        if let Some(journal) = self.journal.as_mut().filter(|_| is_wanted) {
            let qid = key.qid;
            let record = Record::QueueChunk { qid, partition, chunk, bytes: &bytes, position: 0 };
            let offset = journal.write(&record);
            let what = Written::Chunk(partition, chunk);
            journal.cargo.queued.push(QueuedCargo { key, what, offset });
            // When messages are moved, so is what points to them, some time later.
            journal.note_moved(bytes.len() as u64);
        }
        self.queues.scratch = bytes;
    }

    /// A lease has ended, a message is due, something is too old.
    pub(in crate::worker) fn on_queue_timer(&mut self, key: QueueKey, at: Time) {
        let Some(slot) = self.queues.get_mut(key) else { return };
        if slot.timer_at != at {
            // An earlier one has been set since.
            return;
        }
        slot.timer_at = Time::NEVER;
        let members: Vec<_> = match slot.queue.config().member_timeout_ms {
            0 => Vec::new(),
            // Who has nothing owes no answer.
            _ => slot
                .members
                .iter()
                .filter(|(_, it)| it.unanswered == 0)
                .map(|(&id, _)| id)
                .collect(),
        };
        let now = self.now;
        self.with_queue(key, |queue, cx| {
            for (group, member) in members {
                if queue.leased_to(group, member) == Ok(0) {
                    let _ = queue.touch(group, member, now);
                }
            }
            queue.on_timer(cx);
        });
        self.absorb(key);
    }

    /// Looks for groups and queues that nobody uses.
    pub(in crate::worker) fn look_for_idle_queues(&mut self) {
        let keys: Vec<QueueKey> = self.queues.slots.iter().map(|(_, slot)| slot.key).collect();
        for key in keys {
            self.remove_idle_groups(key);
            let Some(slot) = self.queues.get_mut(key) else { continue };
            let is_declared = self.shared.settings.queues.is_declared(&slot.name);
            let is_used = is_declared || slot.queue.depth() > 0 || !slot.groups.is_empty();
            slot.idle_looks = if is_used { 0 } else { slot.idle_looks + 1 };
            if slot.idle_looks >= IDLE_LOOKS {
                self.remove_queue(key);
                continue;
            }
            let Self { queues, .. } = self;
            if let Some(slot) = queues.slots.get_mut(key.slot as usize) {
                slot.shrink(&mut queues.index);
            }
            if self.queues.get(key).is_some_and(|slot| slot.config.core.is_compacted) {
                self.sweep_contents(key);
            }
        }
        self.timers.add(self.now.plus_millis(LOOK_INTERVAL_MS), Timer::QueueLook);
    }
}
