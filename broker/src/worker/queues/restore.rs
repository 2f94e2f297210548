//! Queues as the log has them, made again at the start.

use dunlin_queue::partitioned::GroupId;

use super::registry::core_config;
use super::{GroupSlot, QueueKey};
use crate::store::StoredQueue;
use crate::worker::{Transport, Worker};

impl<T: Transport> Worker<T> {
    /// Makes a queue again.
    pub(in crate::worker) fn restore_queue(&mut self, stored: StoredQueue) {
        let StoredQueue { qid, name, partitions, mode, groups, restoring } = stored;
        let config = self.queue_config(&name);
        let mut core = core_config(&config);
        // What is in it was put there under these.
        (core.partitions, core.mode) = (partitions, mode);
        if mode == dunlin_queue::partitioned::Mode::Work {
            core.is_compacted = false;
        } else {
            core.is_serial = false;
        }
        let core = self.queues.share(core);
        let now = self.now;
        let queues = &mut self.queues;
        let (changes, actions) = (&mut queues.changes, &mut queues.actions);
        let index = &mut queues.index;
        let mut cx = dunlin_queue::partitioned::Context { now, changes, actions, index };
        let queue = match restoring.finish(core, &mut cx) {
            Ok(queue) => queue,
            Err(bad) => {
                tracing::error!(queue = %name, ?bad, "a queue in the log cannot be made again");
                return;
            }
        };
        let key: QueueKey = self.insert_queue(qid, &name, &config, queue);
        if self.is_counted(&name) {
            self.shared.add_restored_queue();
        }
        if let Some(slot) = self.queues.get_mut(key) {
            let known: Vec<_> = slot.queue.group_ids().collect();
            slot.groups = groups
                .into_iter()
                .filter(|group| known.contains(&group.group))
                .map(|group| GroupSlot {
                    id: group.group,
                    name: group.name,
                    filter: group.filter,
                    is_temporary: group.is_temporary,
                    idle_since: now,
                })
                .collect();
        }
        self.absorb(key);
        self.remove_orphans(key);
    }

    /// Ends the groups of sessions that the end of the broker has ended.
    fn remove_orphans(&mut self, key: QueueKey) {
        let Some(slot) = self.queues.get(key) else { return };
        let orphans = slot.groups.iter().filter(|group| group.is_temporary);
        let orphans: Vec<GroupId> = orphans.map(|group| group.id).collect();
        for group in orphans {
            self.remove_group_if_idle(key, group);
        }
    }
}
