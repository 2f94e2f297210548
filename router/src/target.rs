//! Who receives what matches a filter.

use crate::group::GroupId;

/// A session of this worker, by its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u32);

/// Who receives what matches a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One session.
    Session(SubscriberId),
    /// One member of a share group.
    Group(GroupId),
    /// A partitioned queue that captures what is published.
    Queue(QueueId),
}

/// A partitioned queue, by the number its worker knows it by: up to 2^30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

impl Target {
    const GROUP: u32 = 1 << 31;
    const QUEUE: u32 = Self::GROUP | 1 << 30;

    pub(crate) fn pack(self) -> u32 {
        match self {
            Self::Session(SubscriberId(id)) => id,
            Self::Group(GroupId(id)) => id | Self::GROUP,
            Self::Queue(QueueId(id)) => id | Self::QUEUE,
        }
    }

    #[inline]
    pub(crate) fn unpack(bits: u32) -> Self {
        if bits & Self::GROUP == 0 {
            Self::Session(SubscriberId(bits))
        } else if bits & Self::QUEUE == Self::QUEUE {
            Self::Queue(QueueId(bits & !Self::QUEUE))
        } else {
            Self::Group(GroupId(bits & !Self::GROUP))
        }
    }
}
