//! What stands in a queue's records, for those who look at them or write them again without making
//! the queue.

use crate::Time;

use super::change::push_settled;
use super::restore::{RestoredGroup, RestoredPartition};
use super::{Change, GroupId, MessageId, Mode, Restoring};

/// A message as it was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredMessage {
    /// Its place.
    pub id: MessageId,
    /// When it came.
    pub at: Time,
    /// Of its key.
    pub key_hash: u64,
    /// Its size.
    pub bytes: u32,
    /// 0 to 9.
    pub priority: u8,
    /// Seconds after `at`.
    pub expiry_s: Option<u32>,
    /// Not to be delivered before.
    pub deliver_at: Option<Time>,
    /// Where it is in the log.
    pub position: u64,
}

impl Restoring {
    /// Whether a group exists.
    #[must_use]
    pub fn has_group(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(RestoredGroup::is_there)
    }

    /// The groups that exist.
    pub fn group_ids(&self) -> impl Iterator<Item = GroupId> {
        self.groups.iter().filter(|(_, group)| group.is_there()).map(|(&id, _)| id)
    }

    /// Where a partition ends: the offset of its next message.
    #[must_use]
    pub fn end(&self, partition: u16) -> u64 {
        self.partitions.get(&partition).map_or(0, |home| home.end)
    }

    /// Whether a group has settled a message.
    #[must_use]
    pub fn is_settled(&self, group: GroupId, id: MessageId) -> bool {
        self.groups.get(&group).is_some_and(|group| group.has_settled(id))
    }

    /// Deliveries of a message to a group that have failed, with [`REJECTED`](super::REJECTED) if
    /// it was rejected.
    #[must_use]
    pub fn attempts(&self, group: GroupId, id: MessageId) -> u32 {
        let attempts = self.groups.get(&group).and_then(|group| group.attempts.get(&id));
        attempts.copied().unwrap_or(0)
    }

    /// The messages that are left, by partition and offset. In a compacted stream the replaced ones
    /// are among them.
    pub fn messages(&self, mode: Mode) -> impl Iterator<Item = RestoredMessage> {
        let partitions = self.partitions.iter();
        partitions.flat_map(move |(&partition, home)| self.messages_of(partition, home, mode))
    }

    fn messages_of(
        &self,
        partition: u16,
        home: &RestoredPartition,
        mode: Mode,
    ) -> impl Iterator<Item = RestoredMessage> {
        let groups: Vec<&RestoredGroup> =
            self.groups.values().filter(|group| group.is_there()).collect();
        let is_left = move |id: MessageId| {
            mode == Mode::Stream
                || groups.is_empty()
                || !groups.iter().all(|group| group.has_settled(id))
        };
        let messages = home.messages.iter().map(move |read| RestoredMessage {
            id: MessageId { partition, offset: read.offset },
            at: read.meta.at,
            key_hash: read.key_hash,
            bytes: read.meta.bytes,
            priority: read.meta.priority,
            expiry_s: read.meta.expiry_s,
            deliver_at: read.deliver_at,
            position: read.meta.position,
        });
        messages.filter(move |message| is_left(message.id))
    }

    /// Appends what makes the same queue together with [`Self::messages`], as changes: no more of
    /// them than are needed, and the same ones for the same queue.
    pub fn changes(&self, mode: Mode, changes: &mut Vec<Change>) {
        changes.push(Change::GroupsNumbered { next: self.next_group });
        for (&(from, to), before) in &self.growths {
            for (&partition, &before) in before {
                changes.push(Change::Grown { from, to, partition, before });
            }
        }
        for (&partition, home) in &self.partitions {
            let everybody = (GroupId::EVERYBODY, partition);
            let mut offsets = self.messages_of(partition, home, mode).map(|read| read.id.offset);
            let first = offsets.next();
            let last = offsets.last().or(first);
            push_settled(changes, everybody, 0, first.unwrap_or(home.end));
            // Messages that are nowhere are gone; only the end has to be known.
            push_settled(changes, everybody, last.map_or(home.end, |last| last + 1), home.end);
        }
        for id in self.group_ids() {
            let Some(group) = self.groups.get(&id) else { continue };
            let commit = group.commit.unwrap_or_default();
            changes.push(Change::GroupCreated { group: id, commit });
            for (&partition, &(seeks, offset)) in &group.cursors {
                changes.push(Change::Cursor { group: id, partition, offset, seeks });
            }
            for (&partition, home) in &self.partitions {
                self.changes_of_messages((id, group), (partition, home), mode, changes);
            }
        }
    }

    /// What a group has to do with the messages of a partition that are left.
    fn changes_of_messages(
        &self,
        (id, group): (GroupId, &RestoredGroup),
        (partition, home): (u16, &RestoredPartition),
        mode: Mode,
        changes: &mut Vec<Change>,
    ) {
        // The range of settled messages that may go on; what is between them is gone.
        let mut range: Option<(u64, u64)> = None;
        let mut attempts = Vec::new();
        for message in self.messages_of(partition, home, mode) {
            let MessageId { offset, .. } = message.id;
            if group.has_settled(message.id) {
                let from = range.map_or(offset, |range| range.0);
                range = Some((from, offset + 1));
                continue;
            }
            if let Some((from, to)) = range.take() {
                changes.push(Change::Settled { group: id, partition, from, to });
            }
            if let Some(&tries) = group.attempts.get(&message.id) {
                attempts.push(Change::Attempts { group: id, id: message.id, attempts: tries });
            }
        }
        if let Some((from, to)) = range {
            changes.push(Change::Settled { group: id, partition, from, to });
        }
        changes.append(&mut attempts);
    }
}
