//! Figures.

use crate::Time;

use super::group::Group;
use super::queue::Queue;
use super::{GroupId, MemberId, MessageId, Refused};

/// Of a queue, now; the last three since it was made or restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Messages in it.
    pub depth: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that are not due yet.
    pub delayed: u32,
    /// Milliseconds the oldest has been in it; in a chunk that is away, that chunk's oldest.
    pub oldest_age_ms: u64,
    /// Messages enqueued.
    pub enqueued: u64,
    /// Messages dropped by retention.
    pub dropped: u64,
    /// Messages a newer one of their key took the place of.
    pub compacted: u64,
}

/// Of a group, now; the last three since it was made or restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Members.
    pub members: usize,
    /// Messages it has not settled, those that it has out included; also those that compaction took
    /// before it came to them.
    pub lag: u64,
    /// Messages its members have.
    pub leased: usize,
    /// Messages to be tried again that are not due.
    pub retrying: usize,
    /// Messages on their way to the dead letters.
    pub dying: usize,
    /// Milliseconds the oldest that is not settled has been in the queue.
    pub oldest_age_ms: u64,
    /// Deliveries that were not the first.
    pub redelivered: u64,
    /// Dead letters.
    pub dead: u64,
    /// Messages that were too old to be delivered.
    pub expired: u64,
}

impl Queue {
    /// How the queue does.
    #[must_use]
    pub fn stats(&self, now: Time) -> QueueStats {
        let oldest = self.partitions.iter().filter_map(super::partition::Partition::oldest).min();
        QueueStats {
            depth: self.live,
            bytes: self.bytes,
            delayed: self.delayed,
            oldest_age_ms: oldest.map_or(0, |came| now.millis_since(came)),
            enqueued: self.counts.enqueued,
            dropped: self.counts.dropped,
            compacted: self.counts.compacted,
        }
    }

    /// How a group does.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn group_stats(&self, group: GroupId, now: Time) -> Result<GroupStats, Refused> {
        let group = &self.groups[self.group_at(group)?];
        let mut stats = GroupStats {
            members: group.members.len(),
            redelivered: group.counts.redelivered,
            dead: group.counts.dead,
            expired: group.counts.expired,
            ..GroupStats::default()
        };
        for (lane, home) in group.lanes.iter().zip(&self.partitions) {
            stats.lag += lane.lag(home);
            if lane.floor < home.end()
                && let Some(came) = home.came(lane.floor)
            {
                stats.oldest_age_ms = stats.oldest_age_ms.max(now.millis_since(came));
            }
            if let Some(claims) = &lane.claims {
                stats.leased += claims.leases.len();
                stats.retrying += claims.later.len();
                stats.dying += claims.dying.len();
            }
        }
        Ok(stats)
    }

    /// Messages of a partition: how many are in it, and how many of them `group` has not settled.
    ///
    /// # Errors
    /// When there is no such group or partition.
    pub fn partition_stats(&self, group: GroupId, partition: u16) -> Result<(u64, u64), Refused> {
        let group = &self.groups[self.group_at(group)?];
        let home = self.partitions.get(usize::from(partition)).ok_or(Refused::UnknownPartition)?;
        Ok((home.live(), group.lanes[usize::from(partition)].lag(home)))
    }

    /// Messages that a member has.
    ///
    /// # Errors
    /// When there is no such group or member.
    pub fn leased_to(&self, group: GroupId, member: MemberId) -> Result<u32, Refused> {
        self.groups[self.group_at(group)?].leases_of(member).ok_or(Refused::UnknownMember)
    }

    /// Bytes of the messages in it.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pieces of its index that are stored and may be read again.
    #[must_use]
    pub fn stored_chunks(&self) -> usize {
        let waiting = self.partitions.iter().filter_map(|home| home.waiting.as_ref());
        waiting.map(|waiting| waiting.index.stored).sum()
    }

    /// Messages that retention has dropped since the queue was made or restored.
    #[inline]
    #[must_use]
    pub fn drops(&self) -> u64 {
        self.counts.dropped
    }

    /// Messages that were too old when a group came to them, for each group, since then.
    #[inline]
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.counts.expired
    }

    /// Messages a newer one of their key took the place of, since then.
    #[inline]
    #[must_use]
    pub fn compacted(&self) -> u64 {
        self.counts.compacted
    }

    /// The first messages that are in the log and not gone, up to `max`, partition by partition.
    #[must_use]
    pub fn first_ids(&self, max: usize) -> Vec<MessageId> {
        let mut ids = Vec::new();
        for (partition, home) in (0..).zip(&self.partitions) {
            let waiting = (home.start()..home.kept()).filter(|&offset| !home.is_hole(offset));
            let left = max - ids.len();
            ids.extend(waiting.take(left).map(|offset| MessageId { partition, offset }));
        }
        ids
    }

    /// Messages in it.
    #[inline]
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.live
    }

    /// Whose a partition is, also if it is to give it up, and the generation of that ownership.
    ///
    /// # Errors
    /// When there is no such group or partition.
    pub fn owner(
        &self,
        group: GroupId,
        partition: u16,
    ) -> Result<(Option<MemberId>, u32), Refused> {
        let group = &self.groups[self.group_at(group)?];
        let lane = group.lanes.get(usize::from(partition)).ok_or(Refused::UnknownPartition)?;
        Ok((lane.owner.member(), lane.generation))
    }
}

impl Group {
    pub(crate) fn heap_bytes(&self) -> usize {
        let claims = self.lanes.iter().filter_map(|lane| lane.claims.as_ref());
        self.lanes.capacity() * size_of::<super::group::Lane>()
            + self.members.capacity() * (size_of::<super::group::Member>() + 8)
            + claims.map(|claims| claims.heap_bytes()).sum::<usize>()
    }
}
