//! `$SYS/broker/queues/…`: how each queue does, as JSON.

use std::hash::{BuildHasher, Hasher};

use serde_json::{Value, json};

use super::{QueueKey, QueueSlot};
use crate::worker::timers::Timer;
use crate::worker::{Transport, Worker};

/// Queues looked at in one turn, and the pause before the next ones: there may be thousands.
const QUEUES_AT_ONCE: usize = 64;
const SLICE_MS: u64 = 16;

impl<T: Transport> Worker<T> {
    /// Publishes the figures of the queues at home here that have changed.
    pub(in crate::worker) fn publish_queue_stats(&mut self) {
        let interval_ms = self.shared.settings.sys_interval_ms;
        if interval_ms == 0 {
            return;
        }
        let from = self.queues.sys_from;
        let slots = self.queues.slots.iter().skip_while(|(at, _)| *at < from);
        let keys: Vec<QueueKey> = slots.take(QUEUES_AT_ONCE).map(|(_, slot)| slot.key).collect();
        let last = keys.last().filter(|_| keys.len() == QUEUES_AT_ONCE);
        self.queues.sys_from = last.map_or(0, |key| key.slot as usize + 1);
        let is_more = last.is_some();
        for key in keys {
            let Some(slot) = self.queues.get(key) else { continue };
            let text = self.queue_stats(slot).to_string();
            let mut hasher = self.shared.hasher.build_hasher();
            hasher.write(text.as_bytes());
            let said = hasher.finish();
            let name = format!("queues/{}", slot.name);
            let Some(slot) = self.queues.get_mut(key) else { continue };
            if std::mem::replace(&mut slot.said, said) != said {
                self.publish_text(&name, &text);
            }
        }
        let pause_ms = if is_more { SLICE_MS } else { interval_ms };
        self.timers.add(self.now.plus_millis(pause_ms), Timer::QueueSys);
    }

    fn queue_stats(&self, slot: &QueueSlot) -> Value {
        let queue = &slot.queue;
        let stats = queue.stats(self.now);
        let groups: Vec<Value> = slot
            .groups
            .iter()
            .filter_map(|group| {
                let stats = queue.group_stats(group.id, self.now).ok()?;
                let partitions: Vec<Value> = (0..queue.partitions())
                    .filter_map(|partition| {
                        let (depth, lag) = queue.partition_stats(group.id, partition).ok()?;
                        let (owner, _) = queue.owner(group.id, partition).ok()?;
                        let owner = owner.and_then(|owner| self.client_of(slot, group.id, owner));
                        Some(json!({ "depth": depth, "lag": lag, "owner": owner }))
                    })
                    .collect();
                Some(json!({
                    "name": group.name, "filter": group.filter, "members": stats.members,
                    "lag": stats.lag, "leased": stats.leased, "retrying": stats.retrying,
                    "dying": stats.dying, "oldest_age_ms": stats.oldest_age_ms,
                    "redelivered": stats.redelivered, "dead": stats.dead,
                    "expired": stats.expired, "partitions": partitions,
                }))
            })
            .collect();
        let mode = match queue.config().mode {
            dunlin_queue::partitioned::Mode::Work => "work",
            dunlin_queue::partitioned::Mode::Stream => "stream",
        };
        json!({
            "mode": mode, "durability": slot.level.name(), "partitions": queue.partitions(),
            "depth": stats.depth, "bytes": stats.bytes, "delayed": stats.delayed,
            "oldest_age_ms": stats.oldest_age_ms, "enqueued": stats.enqueued,
            "dropped": stats.dropped, "compacted": stats.compacted,
            "dead_refused": slot.burials.failures, "groups": groups,
        })
    }

    /// The client that owns a partition.
    fn client_of(
        &self,
        slot: &QueueSlot,
        group: dunlin_queue::partitioned::GroupId,
        member: dunlin_queue::partitioned::MemberId,
    ) -> Option<String> {
        Some(slot.members.get(&(group, member))?.client_id.to_string())
    }
}
