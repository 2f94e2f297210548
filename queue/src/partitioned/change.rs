//! What a queue says to its owner: what must survive a crash, what is to be done, what is refused.

use crate::Time;

use super::Commit;

/// A message of a queue, for good: offsets are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Its partition.
    pub partition: u16,
    /// Its place there: dense, from 0.
    pub offset: u64,
}

/// A consumer group of a queue. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// In [`Change::Settled`]: gone, whatever groups there are or will be.
    pub const EVERYBODY: Self = Self(0);
}

/// A member of a group, from one join to the end of its membership: whoever joins again is another
/// member, so that what is still on its way from the former one is known for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// The last attempt allowed has failed.
    Exhausted,
    /// A consumer rejected it.
    Rejected,
}

/// A bit in [`Change::Attempts`]: a consumer has rejected the message, which is not a dead letter
/// yet.
pub const REJECTED: u32 = 1 << 31;

/// One fact that has to survive a crash. All that one call makes belong in one frame of the log: a
/// crash must leave all of them or none. [`Restoring`](super::Restoring) takes them in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message has its place.
    Enqueued {
        /// Where.
        id: MessageId,
        /// When.
        at: Time,
        /// Of its key: order, serial processing and compaction go by it.
        key_hash: u64,
        /// Its size.
        bytes: u32,
        /// 0 to 9.
        priority: u8,
        /// Seconds after `at`.
        expiry_s: Option<u32>,
        /// Not to be delivered before.
        deliver_at: Option<Time>,
        /// Of a dead letter that comes back: what it was.
        original: Option<MessageId>,
    },
    /// A group has done with the messages of a partition from `from` to before `to`.
    Settled {
        /// Which group; [`GroupId::EVERYBODY`] when they are gone from the queue.
        group: GroupId,
        /// In which partition.
        partition: u16,
        /// The first.
        from: u64,
        /// The one behind the last.
        to: u64,
    },
    /// A stream's group continues here. Of several the one with the most `seeks` holds, and of
    /// those the highest offset.
    Cursor {
        /// Which group.
        group: GroupId,
        /// In which partition.
        partition: u16,
        /// The first message that is not done.
        offset: u64,
        /// How often the cursor had been set by hand.
        seeks: u32,
    },
    /// So many deliveries to the group have failed; the highest number holds. With [`REJECTED`] in
    /// it a consumer has rejected the message: it is not delivered again, also after a crash.
    Attempts {
        /// Which group.
        group: GroupId,
        /// Which message.
        id: MessageId,
        /// Deliveries.
        attempts: u32,
    },
    /// The message is where dead letters are, and the group has done with it. Belongs in one frame
    /// with the dead letter.
    Dead {
        /// Which group.
        group: GroupId,
        /// Which message.
        id: MessageId,
        /// Why.
        reason: DeadReason,
        /// Deliveries to the group.
        attempts: u32,
    },
    /// A group exists.
    GroupCreated {
        /// Its number.
        group: GroupId,
        /// How its cursors move.
        commit: Commit,
    },
    /// A group is gone, with all that was said of it.
    GroupRemoved {
        /// Its number.
        group: GroupId,
    },
    /// Groups have had the numbers before this.
    GroupsNumbered {
        /// The next one's.
        next: u32,
    },
    /// The queue has `to` partitions. One for each of the `from` old ones: the new ones are not
    /// read before a group has done with the old one's messages before `before`.
    Grown {
        /// Partitions before.
        from: u16,
        /// Partitions from here on.
        to: u16,
        /// One of the old ones.
        partition: u16,
        /// Where it ended.
        before: u64,
    },
}

/// Appends to `changes` that a group has done with `from..to`, as part of what was said there
/// lately if that adjoins.
pub(crate) fn push_settled(
    changes: &mut Vec<Change>,
    (in_group, in_partition): (GroupId, u16),
    first: u64,
    end: u64,
) {
    if first >= end {
        return;
    }
    for change in changes.iter_mut().rev().take(8) {
        if let Change::Settled { group, partition, to, .. } = change
            && (*group, *partition, *to) == (in_group, in_partition, first)
        {
            *to = end;
            return;
        }
    }
    let (group, partition) = (in_group, in_partition);
    changes.push(Change::Settled { group, partition, from: first, to: end });
}

/// Something for the owner to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A poll of this member would give something; said once, after a poll that gave less than it
    /// might.
    Ready {
        /// Its group.
        group: GroupId,
        /// Who.
        member: MemberId,
    },
    /// The partition is this member's from here on.
    Assigned {
        /// Its group.
        group: GroupId,
        /// Who.
        member: MemberId,
        /// What.
        partition: u16,
        /// Of the ownership: higher than that of any before.
        generation: u32,
    },
    /// The member gets nothing more from this partition. It goes on to another when what the member
    /// has of it is settled, when its leases end, or at once by
    /// [`Queue::release`](super::Queue::release).
    Revoking {
        /// Its group.
        group: GroupId,
        /// Who.
        member: MemberId,
        /// What.
        partition: u16,
    },
    /// The member has not been heard of for too long and is none any more.
    TimedOut {
        /// Its group.
        group: GroupId,
        /// Who.
        member: MemberId,
    },
    /// Put the message where dead letters go, and say [`Queue::bury`](super::Queue::bury) in the
    /// same frame, or [`Queue::bury_failed`](super::Queue::bury_failed). Until then it is neither
    /// delivered nor settled.
    DeadLetter {
        /// For which group.
        group: GroupId,
        /// Which message; [`Queue::locate`](super::Queue::locate) says where it is.
        id: MessageId,
        /// Why.
        reason: DeadReason,
        /// Deliveries to the group.
        attempts: u32,
    },
    /// Memory is short: write down what [`Queue::encode_chunk`](super::Queue::encode_chunk) gives
    /// and say where ([`Queue::stored`](super::Queue::stored)).
    Store {
        /// Of which partition.
        partition: u16,
        /// Which chunk: its first offset by [`CHUNK_LEN`](super::limits::CHUNK_LEN).
        chunk: u64,
    },
    /// A chunk is needed again: read it and give it back ([`Queue::load`](super::Queue::load)).
    Want {
        /// Of which partition.
        partition: u16,
        /// Which chunk.
        chunk: u64,
        /// Where it was stored.
        position: u64,
    },
}

/// Why a call was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// As many messages as the queue may hold.
    TooManyMessages,
    /// As many bytes as the queue may hold.
    TooManyBytes,
    /// The message is larger than any may be, or than the queue.
    TooLarge,
    /// As many delayed messages as the queue may hold.
    TooManyDelayed,
    /// A delay longer than any may be, or than the queue keeps messages.
    DelayTooLong,
    /// A priority above 9.
    BadPriority,
    /// As many groups as there may be.
    TooManyGroups,
    /// As many members as the group may have.
    TooManyMembers,
    /// No more partitions than there are, or more than there may be.
    BadPartitions,
    /// There is no such group.
    UnknownGroup,
    /// Not, or not any more, a member of the group.
    UnknownMember,
    /// There is no such partition.
    UnknownPartition,
    /// The message is not leased: never delivered, settled, or its lease has ended.
    NotLeased,
    /// The message is leased to another member.
    LeasedToAnother,
    /// The partition is not this member's.
    NotTheOwner,
    /// A stream does not do this, or a work queue does not.
    WrongMode,
    /// The cursor is there already, or beyond.
    Backwards,
    /// Nothing behind the end was delivered.
    NotDelivered,
    /// The message is not on its way to the dead letters.
    NotDying,
}

impl Refused {
    /// The name it is counted and reported under.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooManyMessages => "queue-messages",
            Self::TooManyBytes => "queue-bytes",
            Self::TooLarge => "message-too-large",
            Self::TooManyDelayed => "queue-delayed",
            Self::DelayTooLong => "delay-too-long",
            Self::BadPriority => "bad-priority",
            Self::TooManyGroups => "queue-groups",
            Self::TooManyMembers => "group-members",
            Self::BadPartitions => "bad-partitions",
            Self::UnknownGroup => "unknown-group",
            Self::UnknownMember => "unknown-member",
            Self::UnknownPartition => "unknown-partition",
            Self::NotLeased => "not-leased",
            Self::LeasedToAnother => "leased-to-another",
            Self::NotTheOwner => "not-the-owner",
            Self::WrongMode => "wrong-mode",
            Self::Backwards => "cursor-backwards",
            Self::NotDelivered => "not-delivered",
            Self::NotDying => "not-dying",
        }
    }
}
