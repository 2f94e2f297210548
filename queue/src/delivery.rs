//! What a session has still to receive.

use std::collections::VecDeque;

use dunlin_packets::QoS;

use crate::{Identifiers, MessagePool, MessageRef};

/// Why a message did not reach somebody it was for. Each is counted under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The session's queue was full, and the policy is to keep what is older.
    QueueFullNewest,
    /// The session's queue was full, and the policy is to keep what is newer.
    QueueFullOldest,
    /// The session was ended because its queue was full.
    QueueFullDisconnect,
    /// Its expiry interval was over.
    Expired,
    /// It is larger than the client's maximum packet size.
    PacketTooLarge,
    /// QoS 0 for a session without a connection.
    OfflineQos0,
    /// The session ended with the message still in its queue.
    SessionEnded,
    /// A share group had nobody left to take it.
    GroupGone,
    /// The retained store was full.
    RetainedLimit,
    /// The client refused it: PUBACK or PUBREC with an error.
    RefusedByClient,
    /// It was in the log and could not be read back.
    Unreadable,
    /// It had waited for longer than a queue keeps messages.
    TooOld,
    /// It would have had to be kept, and the log took nothing: its publisher was told so.
    StorageRefused,
    /// A partitioned queue did not take it: full, unknown, or not addressed as it should be.
    QueueRefused,
    /// A partitioned queue was to capture it and could not.
    CaptureRefused,
    /// A partitioned queue let it go unread: too old, or to make room.
    QueueRetention,
    /// Its publisher may not publish to that topic.
    NotAuthorized,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::QueueFullNewest,
        Self::QueueFullOldest,
        Self::QueueFullDisconnect,
        Self::Expired,
        Self::PacketTooLarge,
        Self::OfflineQos0,
        Self::SessionEnded,
        Self::GroupGone,
        Self::RetainedLimit,
        Self::RefusedByClient,
        Self::Unreadable,
        Self::TooOld,
        Self::StorageRefused,
        Self::QueueRefused,
        Self::CaptureRefused,
        Self::QueueRetention,
        Self::NotAuthorized,
    ];

    /// The name it is counted under.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFullNewest => "queue-full-newest",
            Self::QueueFullOldest => "queue-full-oldest",
            Self::QueueFullDisconnect => "queue-full-disconnect",
            Self::Expired => "expired",
            Self::PacketTooLarge => "packet-too-large",
            Self::OfflineQos0 => "offline-qos0",
            Self::SessionEnded => "session-ended",
            Self::GroupGone => "group-gone",
            Self::RetainedLimit => "retained-limit",
            Self::RefusedByClient => "refused-by-client",
            Self::Unreadable => "unreadable",
            Self::TooOld => "too-old",
            Self::StorageRefused => "storage-refused",
            Self::QueueRefused => "queue-refused",
            Self::CaptureRefused => "capture-refused",
            Self::QueueRetention => "queue-retention",
            Self::NotAuthorized => "not-authorized",
        }
    }
}

/// What happens to a message for a session whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverflowPolicy {
    /// The new message is dropped.
    #[default]
    DropNewest,
    /// The oldest messages make room.
    DropOldest,
    /// The connection is closed and the queue with it kept as it is; the new message is dropped.
    Disconnect,
}

/// Limits of one session's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of topics, properties and payloads.
    pub bytes_max: usize,
    /// What happens above.
    pub policy: OverflowPolicy,
}

/// See [`Entry::likeness`]. It means something within one edition of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Likeness(u64);

/// One message for one session: 16 bytes.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an entry has to be released"]
pub struct Entry {
    /// The message.
    pub message: MessageRef,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: Identifiers,
    /// The share group it came through, so that another member can get it; 0 for none.
    pub group: u32,
    /// QoS to deliver at.
    pub qos: QoS,
    /// RETAIN flag to deliver with.
    pub retain: bool,
}

impl Entry {
    /// In [`Self::group`]: a delivery from a partitioned queue. Its message, made for this delivery
    /// alone, has in [`Message::publisher`](crate::Message::publisher) the number under which the
    /// worker knows it.
    pub const FROM_QUEUE: u32 = u32::MAX;

    /// Whether a partitioned queue wants to know what becomes of it.
    #[inline]
    #[must_use]
    pub fn is_from_queue(&self) -> bool {
        self.group == Self::FROM_QUEUE
    }

    /// Bytes it counts against a limit: those of the message, and of its identifiers.
    #[inline]
    #[must_use]
    pub fn len(&self, pool: &MessagePool) -> usize {
        pool.get(&self.message).len() + pool.identifier_bytes(&self.identifiers)
    }

    /// What two deliveries have in common when they look the same on the wire, to clients of one
    /// version and but for the packet identifier: the message, its flags and its identifier. `None`
    /// for what never looks like another.
    #[inline]
    #[must_use]
    pub fn likeness(&self) -> Option<Likeness> {
        // An identifier has 28 bits.
        let identifier = u64::from(self.identifiers.single()?);
        let flags = (self.qos as u64) << 1 | u64::from(self.retain);
        Some(Likeness(u64::from(self.message.place()) | identifier << 32 | flags << 61))
    }

    /// Gives everything back to the pool.
    #[inline]
    pub fn release(self, pool: &mut MessagePool) {
        pool.release(self.message);
        pool.release_identifiers(self.identifiers);
    }
}

/// What has to be delivered to one session, in order.
#[derive(Debug, Default)]
pub struct DeliveryQueue {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl DeliveryQueue {
    /// Messages that wait.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the queue is half full: time to slow its publishers down.
    #[inline]
    #[must_use]
    pub fn is_high(&self, limits: &QueueLimits) -> bool {
        self.would_be_high(0, 0, limits)
    }

    /// Whether it would be with so many messages more, of so many bytes together.
    #[inline]
    #[must_use]
    pub fn would_be_high(&self, count: usize, bytes: usize, limits: &QueueLimits) -> bool {
        (self.entries.len() + count) * 2 >= limits.messages_max
            || (self.bytes + bytes) * 2 >= limits.bytes_max
    }

    /// Whether the queue is at an eighth or less: time to let them go on.
    #[must_use]
    pub fn is_low(&self, limits: &QueueLimits) -> bool {
        self.entries.len() * 8 <= limits.messages_max && self.bytes * 8 <= limits.bytes_max
    }

    /// Appends, within the limits. `dropped` gets what had to go and why, before it is released.
    /// Says whether the entry is in the queue.
    #[inline]
    pub fn push(
        &mut self,
        entry: Entry,
        limits: &QueueLimits,
        pool: &mut MessagePool,
        mut dropped: impl FnMut(DropReason, &Entry, &MessagePool),
    ) -> bool {
        let len = entry.len(pool);
        if len > limits.bytes_max && !self.entries.is_empty() {
            // Emptying the queue would not make room for it either. An empty one takes it.
            dropped(DropReason::QueueFullNewest, &entry, pool);
            entry.release(pool);
            return false;
        }
        while !self.has_room(len, limits) {
            match limits.policy {
                OverflowPolicy::DropOldest if !self.entries.is_empty() => {
                    if let Some(oldest) = self.pop(pool) {
                        dropped(DropReason::QueueFullOldest, &oldest, pool);
                        oldest.release(pool);
                    }
                }
                OverflowPolicy::Disconnect => {
                    dropped(DropReason::QueueFullDisconnect, &entry, pool);
                    entry.release(pool);
                    return false;
                }
                _ => {
                    dropped(DropReason::QueueFullNewest, &entry, pool);
                    entry.release(pool);
                    return false;
                }
            }
        }
        self.bytes += len;
        self.entries.push_back(entry);
        true
    }

    /// Appends messages of `bytes` bytes together, without identifiers of several subscriptions,
    /// for which there is room.
    #[inline]
    pub fn append(&mut self, mut entries: impl ExactSizeIterator<Item = Entry>, bytes: usize) {
        self.bytes += bytes;
        if entries.len() > 1 {
            self.entries.extend(entries);
        } else if let Some(entry) = entries.next() {
            self.entries.push_back(entry);
        }
    }

    #[inline]
    fn has_room(&self, len: usize, limits: &QueueLimits) -> bool {
        self.entries.is_empty()
            || self.entries.len() < limits.messages_max && self.bytes + len <= limits.bytes_max
    }

    /// The next one, left in the queue.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Takes the next one.
    #[inline]
    pub fn pop(&mut self, pool: &MessagePool) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.len(pool);
        Some(entry)
    }

    /// All that wait, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Whether just these wait, in this order.
    #[inline]
    #[must_use]
    pub fn holds(&self, all: &[Likeness]) -> bool {
        // By slices: it is asked for every session of a fan-out.
        let (head, tail) = self.entries.as_slices();
        let Some((first, rest)) = all.split_at_checked(head.len()) else { return false };
        let are_alike =
            |(entry, likeness): (&Entry, &Likeness)| entry.likeness() == Some(*likeness);
        rest.len() == tail.len()
            && head.iter().zip(first).all(are_alike)
            && tail.iter().zip(rest).all(are_alike)
    }

    /// Takes all that `wanted` says, in order.
    pub fn extract(
        &mut self,
        pool: &MessagePool,
        mut wanted: impl FnMut(&Entry) -> bool,
    ) -> Vec<Entry> {
        let mut taken = Vec::new();
        for _ in 0..self.entries.len() {
            let Some(entry) = self.pop(pool) else { break };
            if wanted(&entry) {
                taken.push(entry);
            } else {
                self.bytes += entry.len(pool);
                self.entries.push_back(entry);
            }
        }
        taken
    }

    /// Takes everything, and says how many bytes that are.
    pub fn take_all(&mut self) -> (impl ExactSizeIterator<Item = Entry> + '_, usize) {
        (self.entries.drain(..), std::mem::take(&mut self.bytes))
    }

    /// Releases everything and says how many messages that were.
    pub fn clear(&mut self, pool: &mut MessagePool) -> usize {
        let count = self.entries.len();
        for entry in self.entries.drain(..) {
            entry.release(pool);
        }
        self.bytes = 0;
        count
    }

    /// Gives memory back that an earlier burst needed.
    pub fn shrink(&mut self) {
        if self.entries.capacity() > 4 * self.entries.len() {
            self.entries.shrink_to(self.entries.len());
        }
    }
}
