//! What of the index is in memory, and what the log's cleaning asks.

use super::alarms::Place;
use super::chunk::IndexPool;
use super::group::Lane;
use super::index::Look;
use super::limits::CHUNK_LEN;
use super::queue::{Context, Queue};
use super::{Action, GroupId, MessageId};

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located {
    /// In the log.
    At {
        /// The position that was said last.
        position: u64,
        /// Its size.
        bytes: u32,
    },
    /// The chunk it is in is not in memory, and has been asked for ([`Action::Want`]): ask again
    /// when it is.
    Away,
    /// Nowhere: settled, dropped, replaced, or never there.
    Gone,
}

impl Lane {
    fn is_near(&self, chunk: u64) -> bool {
        let at = self.floor / CHUNK_LEN;
        match &self.claims {
            Some(claims) => claims.is_near(chunk),
            None => chunk == at || chunk == at + 1,
        }
    }
}

impl Queue {
    fn is_near(&self, partition: u16, chunk: u64) -> bool {
        self.groups.iter().any(|group| group.lanes[usize::from(partition)].is_near(chunk))
    }

    /// Has a full chunk written down if memory is short and no group is there.
    #[inline]
    pub(crate) fn store_if_short(&mut self, partition: u16, chunk: u64, cx: &mut Context<'_>) {
        let Some(waiting) = &self.partitions[usize::from(partition)].waiting else { return };
        if !waiting.index.should_store(chunk, cx.index) || self.is_near(partition, chunk) {
            return;
        }
        if let Some(waiting) = &mut self.partitions[usize::from(partition)].waiting {
            waiting.index.begin_storing(chunk);
            cx.actions.push(Action::Store { partition, chunk });
        }
    }

    /// After a restart everything is in memory: the youngest chunks go first, as they are needed
    /// last.
    pub(crate) fn store_what_is_too_much(&mut self, cx: &mut Context<'_>) {
        let mut left = cx.index.excess();
        for partition in 0..self.partitions() {
            let Some(waiting) = &self.partitions[usize::from(partition)].waiting else { continue };
            let mut chunks: Vec<u64> = waiting.index.chunks().map(|(number, _)| number).collect();
            while left > 0
                && let Some(chunk) = chunks.pop()
            {
                let before = cx.actions.len();
                self.store_if_short(partition, chunk, cx);
                left -= cx.actions.len() - before;
            }
        }
    }

    /// For [`Action::Store`]: appends what is to be written down, 6 KiB. `false` if that is not
    /// necessary any more.
    pub fn encode_chunk(&self, partition: u16, chunk: u64, out: &mut Vec<u8>) -> bool {
        let home = self.partitions.get(usize::from(partition));
        let waiting = home.and_then(|home| home.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.index.encode(chunk, out))
    }

    /// The chunk can be read at `position`: it is forgotten. Without it, as when the write failed,
    /// it just stays.
    pub fn stored(&mut self, partition: u16, chunk: u64, position: u64, index: &mut IndexPool) {
        let home = self.partitions.get_mut(usize::from(partition));
        if let Some(waiting) = home.and_then(|home| home.waiting.as_mut()) {
            waiting.index.stored(chunk, position, index);
        }
    }

    /// For [`Action::Want`]: what was written down. `false` if nobody waits for it, or it is not of
    /// the length of a chunk.
    pub fn load(
        &mut self,
        partition: u16,
        chunk: u64,
        stored: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let at = usize::from(partition);
        let Some(home) = self.partitions.get_mut(at) else { return false };
        let Some(waiting) = &mut home.waiting else { return false };
        if !waiting.index.load(chunk, stored, cx.index) {
            return false;
        }
        let groups = &self.groups;
        let is_needed =
            |number| number == chunk || groups.iter().any(|group| group.lanes[at].is_near(number));
        waiting.index.relieve(is_needed, cx.index, |chunk| {
            cx.actions.push(Action::Store { partition, chunk });
        });
        for group in &mut self.groups {
            group.wake(partition, cx.actions);
        }
        // The age of what was in there was not known.
        self.set_home_alarm(partition);
        true
    }

    /// A chunk cannot be read: what is in it is gone, until a restart makes the index anew. Nothing
    /// of that is written down.
    pub fn lose_chunk(&mut self, partition: u16, chunk: u64, cx: &mut Context<'_>) {
        let from = chunk * CHUNK_LEN;
        for offset in from..from + CHUNK_LEN {
            if self.remove(partition, offset, None, cx.index) {
                self.counts.dropped += 1;
            }
        }
        let at = usize::from(partition);
        let Some(home) = self.partitions.get(at) else { return };
        for group in &mut self.groups {
            let lane = &mut group.lanes[at];
            let owner = lane.owner.member();
            let claims = lane.claims.as_mut();
            let ended = claims.map_or(0, |claims| claims.forget(from, from + CHUNK_LEN));
            lane.advance(home);
            if let Some(owner) = owner
                && let Ok(member) = group.member(owner)
            {
                member.leases -= ended;
            }
            group.wake(partition, cx.actions);
        }
    }

    /// Where a message is.
    pub fn locate(&mut self, id: MessageId, cx: &mut Context<'_>) -> Located {
        let Some(home) = self.partitions.get(usize::from(id.partition)) else {
            return Located::Gone;
        };
        match home.look(id.offset) {
            Look::Nothing => Located::Gone,
            Look::Here(meta) => Located::At { position: meta.position, bytes: meta.bytes },
            Look::Away => {
                self.want(id.partition, id.offset / CHUNK_LEN, cx);
                Located::Away
            }
        }
    }

    /// Whether cleaning the log must write a message's record again: someone may still get it.
    #[must_use]
    pub fn is_needed(&self, id: MessageId) -> bool {
        let home = self.partitions.get(usize::from(id.partition));
        home.is_some_and(|home| {
            (home.start()..home.end()).contains(&id.offset) && !home.is_hole(id.offset)
        })
    }

    /// Cleaning has written a message's record again at `position`. [`Located::Away`]: this can
    /// only be noted when its chunk is in memory, so ask again; until then the old record stays.
    pub fn moved(&mut self, id: MessageId, position: u64, cx: &mut Context<'_>) -> Located {
        let located = self.locate(id, cx);
        if let Located::At { bytes, .. } = located
            && let Some(waiting) = &mut self.partitions[usize::from(id.partition)].waiting
        {
            waiting.index.set_position(id.offset, position);
            return Located::At { position, bytes };
        }
        located
    }

    /// Whether the record of a chunk at `position` may be read again.
    #[must_use]
    pub fn is_chunk_needed(&self, partition: u16, chunk: u64, position: u64) -> bool {
        let home = self.partitions.get(usize::from(partition));
        let waiting = home.and_then(|home| home.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.index.is_stored_at(chunk, position))
    }

    /// Where a chunk is to be read from, if it was asked for and has not come.
    #[must_use]
    pub fn wanted_at(&self, partition: u16, chunk: u64) -> Option<u64> {
        let home = self.partitions.get(usize::from(partition))?;
        home.waiting.as_ref()?.index.wanted_at(chunk)
    }

    /// Cleaning has written the record of a chunk at `from` again at `to`.
    pub fn chunk_moved(&mut self, partition: u16, chunk: u64, from: u64, to: u64) {
        let home = self.partitions.get_mut(usize::from(partition));
        if let Some(waiting) = home.and_then(|home| home.waiting.as_mut()) {
            waiting.index.set_stored(chunk, from, to);
        }
    }

    /// Gives back what idle partitions hold on to. A group has to be drained for its part of it.
    pub fn shrink(&mut self, index: &mut IndexPool) {
        self.groups.shrink_to_fit();
        for group in &mut self.groups {
            group.members.shrink_to_fit();
        }
        for (partition, home) in (0..).zip(&mut self.partitions) {
            if home.kept() < home.end() {
                continue;
            }
            if let Some(mut waiting) = home.shrink(index) {
                self.alarms.unset(&mut waiting.alarm_at, Place::of_queue(partition));
            }
            for group in &mut self.groups {
                let place = Place { group: group.id, partition };
                let lane = &mut group.lanes[usize::from(partition)];
                if lane.floor == home.end()
                    && let Some(mut claims) = lane.claims.take_if(|claims| claims.is_idle())
                {
                    self.alarms.unset(&mut claims.alarm_at, place);
                }
            }
        }
        self.alarms.shrink();
    }

    /// Bytes it takes, without what allocators add.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let partitions: usize =
            self.partitions.iter().map(super::partition::Partition::heap_bytes).sum();
        let groups: usize = self.groups.iter().map(super::group::Group::heap_bytes).sum();
        size_of::<Self>()
            + self.partitions.capacity() * size_of::<super::partition::Partition>()
            + partitions
            + self.alarms.heap_bytes()
            + self.groups.capacity() * size_of::<super::group::Group>()
            + groups
    }

    /// Appends what has to be known of the queue beside its messages, as changes: after they are
    /// safe, all earlier changes but [`Change::Enqueued`](super::Change::Enqueued) mean nothing.
    pub fn snapshot(&self, changes: &mut Vec<super::Change>) {
        super::restore::snapshot(self, changes);
    }

    /// The groups there are.
    pub fn group_ids(&self) -> impl Iterator<Item = GroupId> {
        self.groups.iter().map(|group| group.id)
    }
}
