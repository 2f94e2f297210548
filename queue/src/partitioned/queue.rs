//! The queue: how messages come in, and how they go when there is no room.

use std::sync::Arc;

use crate::Time;

use super::alarms::Alarms;
use super::change::push_settled;
use super::chunk::{IndexPool, Meta};
use super::group::Group;
use super::limits::{CHUNK_LEN, DELAY_MS_MAX, MESSAGE_BYTES_MAX, PARTITIONS_MAX, PRIORITIES};
use super::partition::Partition;
use super::{Action, BadConfig, Change, Config, FullPolicy, GroupId, MessageId, Mode, Refused};

/// What a call needs beside its queue, and what comes out of it.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time; it does not go back.
    pub now: Time,
    /// Appended to: what has to survive a crash. Those of one call belong in one frame.
    pub changes: &'a mut Vec<Change>,
    /// Appended to: what is to be done.
    pub actions: &'a mut Vec<Action>,
    /// The worker's memory for indexes.
    pub index: &'a mut IndexPool,
}

/// A message to be enqueued.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewMessage {
    /// Of its key, with a hash that is the same after a restart.
    pub key_hash: u64,
    /// Its size, as limits count it: at most [`MESSAGE_BYTES_MAX`].
    pub bytes: u32,
    /// 0 to 9, the highest first. A stream goes by offsets only.
    pub priority: u8,
    /// Seconds from now until it is not delivered any more.
    pub expiry_s: Option<u32>,
    /// Not to be delivered before; work queues only, at most [`DELAY_MS_MAX`] from now, and before
    /// it is too old to be kept.
    pub deliver_at: Option<Time>,
    /// Of a dead letter that comes back: what it was. It is passed on to the [`Change`].
    pub original: Option<MessageId>,
}

/// Partitions that were added: the new ones wait for what was in the old ones.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    pub(crate) to: u16,
    /// Of each old partition, where it ended.
    pub(crate) before: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) enqueued: u64,
    pub(crate) dropped: u64,
    pub(crate) compacted: u64,
    pub(crate) expired: u64,
}

/// A durable partitioned queue.
#[derive(Debug)]
pub struct Queue {
    /// Shared by all queues that behave the same.
    pub(crate) config: Arc<Config>,
    pub(crate) partitions: Vec<Partition>,
    /// By number.
    pub(crate) groups: Vec<Group>,
    pub(crate) next_group: u32,
    pub(crate) growths: Vec<Growth>,
    pub(crate) live: u64,
    pub(crate) bytes: u64,
    pub(crate) delayed: u32,
    pub(crate) counts: Counts,
    /// When a partition has something to do, or a group in one.
    pub(crate) alarms: Alarms,
    /// When the first member has been silent for too long, or earlier.
    pub(crate) members_at: Time,
}

impl Queue {
    /// An empty queue. That it exists, and its configuration, is for the owner to write down.
    /// Queues that share one configuration take less memory.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn new(config: impl Into<Arc<Config>>) -> Result<Self, BadConfig> {
        let config = config.into();
        config.check()?;
        let partitions = std::iter::repeat_with(Partition::default);
        Ok(Self {
            partitions: partitions.take(usize::from(config.partitions)).collect(),
            config,
            groups: Vec::new(),
            next_group: 1,
            growths: Vec::new(),
            live: 0,
            bytes: 0,
            delayed: 0,
            counts: Counts::default(),
            alarms: Alarms::default(),
            members_at: Time::NEVER,
        })
    }

    /// How it behaves.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Partitions it has now.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions.len() as u16
    }

    /// Where messages of this key go. With more partitions a key stays or goes to a new one.
    #[inline]
    #[must_use]
    pub fn partition_of(&self, key_hash: u64) -> u16 {
        jump(key_hash, self.partitions())
    }

    /// Gives a message its place. It is not delivered before [`Self::keep`].
    ///
    /// # Errors
    /// When the queue is full and its policy is to refuse, or it does not take such a message.
    #[inline]
    pub fn enqueue(
        &mut self,
        new: &NewMessage,
        cx: &mut Context<'_>,
    ) -> Result<MessageId, Refused> {
        let deliver_at = new.deliver_at.filter(|&at| at > cx.now);
        self.check(new, deliver_at, cx.now)?;
        let retention = &self.config.retention;
        let is_full = self.live >= retention.messages_max
            || self.bytes + u64::from(new.bytes) > retention.bytes_max;
        if is_full {
            self.make_room(new.bytes, cx)?;
        }
        let partition = self.partition_of(new.key_hash);
        let meta = Meta {
            position: 0,
            at: cx.now,
            expiry_s: new.expiry_s,
            bytes: new.bytes,
            key: new.key_hash as u32,
            priority: new.priority,
            is_delayed: deliver_at.is_some(),
        };
        let home = &mut self.partitions[usize::from(partition)];
        let offset = home.push(&meta, deliver_at, cx.index);
        if self.config.is_compacted {
            home.note_key(new.key_hash, new.bytes);
        }
        self.live += 1;
        self.bytes += u64::from(new.bytes);
        self.counts.enqueued += 1;
        let id = MessageId { partition, offset };
        cx.changes.push(Change::Enqueued {
            id,
            at: cx.now,
            key_hash: new.key_hash,
            bytes: new.bytes,
            priority: new.priority,
            expiry_s: new.expiry_s,
            deliver_at,
            original: new.original,
        });
        if let Some(due) = deliver_at {
            self.delayed += 1;
            self.look_at_home_by(partition, due);
        }
        if self.config.retention.age_ms_max != 0 {
            // As a rule there is an alarm for an older message.
            let at = cx.now.plus_millis(self.config.retention.age_ms_max);
            self.look_at_home_by(partition, at);
        }
        Ok(id)
    }

    fn check(&self, new: &NewMessage, deliver_at: Option<Time>, now: Time) -> Result<(), Refused> {
        if usize::from(new.priority) >= PRIORITIES {
            return Err(Refused::BadPriority);
        }
        let bytes_max = self.config.retention.bytes_max;
        if new.bytes > MESSAGE_BYTES_MAX || u64::from(new.bytes) > bytes_max {
            return Err(Refused::TooLarge);
        }
        if let Some(deliver_at) = deliver_at {
            if self.config.mode == Mode::Stream {
                return Err(Refused::WrongMode);
            }
            let delay_ms = deliver_at.millis_since(now);
            let age_ms_max = self.config.retention.age_ms_max;
            if delay_ms > DELAY_MS_MAX || age_ms_max != 0 && delay_ms >= age_ms_max {
                return Err(Refused::DelayTooLong);
            }
            if self.delayed >= self.config.limits.delayed_max {
                return Err(Refused::TooManyDelayed);
            }
        }
        Ok(())
    }

    /// Drops what is oldest until there is room for a message of `bytes`.
    #[cold]
    fn make_room(&mut self, bytes: u32, cx: &mut Context<'_>) -> Result<(), Refused> {
        let retention = self.config.retention;
        loop {
            let refused = if self.live >= retention.messages_max {
                Refused::TooManyMessages
            } else if self.bytes + u64::from(bytes) > retention.bytes_max {
                Refused::TooManyBytes
            } else {
                return Ok(());
            };
            let oldest = (0..self.partitions())
                .filter_map(|at| Some((self.partitions[usize::from(at)].oldest()?, at)))
                .min();
            match (retention.policy, oldest) {
                (FullPolicy::DropOldest, Some((_, partition))) => self.drop_front(partition, cx),
                _ => return Err(refused),
            }
        }
    }

    /// Drops the oldest message of a partition, or the oldest chunk.
    pub(crate) fn drop_front(&mut self, partition: u16, cx: &mut Context<'_>) {
        let home = &self.partitions[usize::from(partition)];
        let start = home.start();
        debug_assert!(!home.is_hole(start), "nothing goes, and whoever needs room tries for ever");
        let chunk = home.waiting.as_ref().and_then(|it| it.index.chunk(start / CHUNK_LEN));
        let is_whole = chunk.is_some_and(|chunk| {
            chunk.is_away() || (self.config.mode == Mode::Stream && chunk.is_full())
        });
        let to = if is_whole { (start / CHUNK_LEN + 1) * CHUNK_LEN } else { start + 1 };
        self.trim(partition, to, cx);
    }

    /// Drops all messages of a partition before `to`, whoever has them.
    pub(crate) fn trim(&mut self, partition: u16, to: u64, cx: &mut Context<'_>) {
        let from = self.partitions[usize::from(partition)].start();
        for offset in from..to {
            if self.remove(partition, offset, None, cx.index) {
                self.counts.dropped += 1;
            }
        }
        let home = &mut self.partitions[usize::from(partition)];
        let start = home.start();
        home.keep_before(start);
        push_settled(cx.changes, (GroupId::EVERYBODY, partition), from, start);
        let mode = self.config.mode;
        let mut is_freed = false;
        for group in &mut self.groups {
            let lane = &mut group.lanes[usize::from(partition)];
            let floor = lane.floor;
            let ended = match &mut lane.claims {
                Some(claims) if floor < start => claims.forget(floor.max(from), start),
                _ => 0,
            };
            lane.advance(&self.partitions[usize::from(partition)]);
            if let Some(member) = lane.owner.member()
                && let Ok(member) = group.member(member)
            {
                member.leases -= ended;
            }
            is_freed |= group.is_drained(partition, mode);
            group.wake(partition, cx.actions);
        }
        if is_freed {
            self.end_drains(cx);
        }
        self.lift_bars(cx);
    }

    /// The message is gone for everybody. Says whether it was not before.
    #[inline]
    pub(crate) fn remove(
        &mut self,
        partition: u16,
        offset: u64,
        bytes: Option<u32>,
        index: &mut IndexPool,
    ) -> bool {
        let home = &mut self.partitions[usize::from(partition)];
        if self.delayed > 0 && home.is_delayed(offset) {
            self.delayed -= 1;
        }
        let Some(freed) = home.remove(offset, bytes, index) else { return false };
        self.live -= 1;
        self.bytes -= freed;
        true
    }

    /// The message's record is in the log, at `position`, and so are those of all messages before
    /// it in its partition: it may be delivered.
    #[inline]
    pub fn keep(&mut self, id: MessageId, position: u64, cx: &mut Context<'_>) {
        let Some(home) = self.partitions.get_mut(usize::from(id.partition)) else { return };
        if id.offset >= home.end() {
            return;
        }
        home.keep_before(id.offset + 1);
        if let Some(waiting) = &mut home.waiting {
            waiting.index.set_position(id.offset, position);
        }
        let is_delayed = self.delayed > 0 && home.is_delayed(id.offset);
        if self.config.is_compacted
            && let Some((old, bytes)) = home.replace(id.offset)
            && self.remove(id.partition, old, Some(bytes), cx.index)
        {
            self.counts.compacted += 1;
        }
        if (id.offset + 1).is_multiple_of(CHUNK_LEN) {
            self.store_if_short(id.partition, id.offset / CHUNK_LEN, cx);
        }
        if !is_delayed {
            for group in &mut self.groups {
                group.wake(id.partition, cx.actions);
            }
        }
    }

    /// Makes more partitions. Messages of a key that goes to a new one are not delivered from there
    /// before the group has settled what was in the old ones, but for delayed messages.
    ///
    /// # Errors
    /// When these are not more, or too many.
    pub fn grow(&mut self, partitions: u16, cx: &mut Context<'_>) -> Result<(), Refused> {
        let from = self.partitions();
        if partitions <= from || partitions > PARTITIONS_MAX {
            return Err(Refused::BadPartitions);
        }
        let before: Vec<u64> = self.partitions.iter().map(Partition::end).collect();
        for (partition, &before) in (0..).zip(&before) {
            cx.changes.push(Change::Grown { from, to: partitions, partition, before });
        }
        self.add_partitions(partitions, before);
        self.lift_bars(cx);
        for at in 0..self.groups.len() {
            self.rebalance(at, cx);
        }
        Ok(())
    }
}

/// Jump consistent hash (Lamping and Veach, 2014): of `n` buckets the one a key is in; with `n + 1`
/// one key in `n + 1` goes to the new bucket, and none anywhere else.
#[inline]
pub(crate) fn jump(mut key: u64, buckets: u16) -> u16 {
    let (mut bucket, mut next) = (0_u64, 0_u64);
    while next < u64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let scale = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * scale) as u64;
    }
    bucket as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_to_new_partitions_only_and_spread_evenly() {
        let mut counts = [0; 12];
        for key in 0..60_000_u64 {
            let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (before, after) = (jump(key, 8), jump(key, 12));
            assert!(after == before || after >= 8);
            counts[usize::from(after)] += 1;
        }
        assert!(counts.iter().all(|&count| (4_500..5_500).contains(&count)), "{counts:?}");
    }
}
