//! Bytes to records. Everything is checked: a frame whose checksum is right may still be another
//! version's.

use dunlin_packets::{PacketId, QoS, SubscriptionOptions};
use dunlin_queue::Time;
use dunlin_queue::partitioned::limits::{MESSAGE_BYTES_MAX, PARTITIONS_MAX, PRIORITIES};
use dunlin_queue::partitioned::{Commit, DeadReason, MessageId, Mode};

use super::*;

/// The records of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    frame: &'a [u8],
    reader: Reader<'a>,
}

impl<'a> Records<'a> {
    /// Of a frame's payload.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        Self { frame, reader: Reader::new(frame) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.rest.is_empty() {
            return None;
        }
        let record = self.reader.record(self.frame.len());
        if record.is_err() {
            self.reader.rest = &[];
        }
        Some(record)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn record(&mut self, frame_len: usize) -> Result<Record<'a>, Unreadable> {
        let kind = self.byte()?;
        Ok(match kind {
            MESSAGE => Record::Message(self.message(frame_len)?),
            SESSION => Record::Session(self.session()?),
            RETAINED_GONE => Record::RetainedGone { topic: self.text()? },
            KEYS => Record::Keys([self.u64()?, self.u64()?, self.u64()?, self.u64()?]),
            QUEUE..=QUEUE_CHUNK => self.queue(kind, frame_len)?,
            SETTLED..=GROWN => {
                Record::QueueChange { qid: self.varint()?, change: self.queue_change(kind)? }
            }
            _ => self.session_change(kind)?,
        })
    }

    fn queue(&mut self, kind: u8, frame_len: usize) -> Result<Record<'a>, Unreadable> {
        if kind == QUEUE_MESSAGE {
            return Ok(Record::QueueMessage(self.queue_message(frame_len)?));
        }
        let qid = self.varint()?;
        Ok(match kind {
            QUEUE => {
                let partitions = self.count_of_partitions()?;
                let mode = self.one_of([Mode::Work, Mode::Stream])?;
                Record::Queue(QueueRecord { qid, partitions, mode, name: self.text()? })
            }
            QUEUE_END => Record::QueueEnd { qid },
            QUEUE_GROUP => {
                let (group, is_temporary) = (self.group()?, self.one_of([false, true])?);
                let (name, filter) = (self.text()?, self.text()?);
                Record::QueueGroup { qid, group, name, filter, is_temporary }
            }
            QUEUE_CHUNK => {
                let (partition, chunk) = (self.partition()?, self.offset()?);
                let len = self.number()?;
                let position = frame_len - self.rest.len();
                self.take(CHECKSUM_BYTES)?;
                let bytes = self.take(len as usize)?;
                Record::QueueChunk { qid, partition, chunk, bytes, position }
            }
            _ => return Err(Unreadable),
        })
    }

    fn queue_message(&mut self, frame_len: usize) -> Result<QueueMessageRecord<'a>, Unreadable> {
        let flags = self.byte()?;
        let priority = flags & PRIORITY_BITS;
        let (qid, id) = (self.varint()?, self.message_id()?);
        let (at, key_hash) = (Time::from_millis(self.varint()?), self.u64()?);
        let expiry_s = if flags & HAS_EXPIRY == 0 { None } else { Some(self.number()?) };
        let deliver_at = if flags & HAS_DELIVER_AT == 0 { None } else { Some(self.varint()?) };
        let len = self.number()?;
        let is_known = flags & !(PRIORITY_BITS | HAS_EXPIRY | HAS_DELIVER_AT) == 0;
        if !is_known || usize::from(priority) >= PRIORITIES || len > MESSAGE_BYTES_MAX {
            return Err(Unreadable);
        }
        let deliver_at = deliver_at.map(Time::from_millis);
        let position = frame_len - self.rest.len();
        self.take(CHECKSUM_BYTES)?;
        let content = self.take(len as usize)?;
        Ok(QueueMessageRecord {
            qid,
            id,
            at,
            key_hash,
            priority,
            expiry_s,
            deliver_at,
            content,
            position,
        })
    }

    fn queue_change(&mut self, kind: u8) -> Result<Change, Unreadable> {
        Ok(match kind {
            SETTLED => {
                let (group, partition) = (self.group()?, self.partition()?);
                let (from, len) = (self.offset()?, self.offset()?);
                Change::Settled { group, partition, from, to: from + len }
            }
            CURSOR => {
                let (group, partition) = (self.group()?, self.partition()?);
                let (offset, seeks) = (self.offset()?, self.number()?);
                Change::Cursor { group, partition, offset, seeks }
            }
            ATTEMPTS => {
                let (group, id, attempts) = (self.group()?, self.message_id()?, self.number()?);
                Change::Attempts { group, id, attempts }
            }
            DEAD => {
                let (group, id, attempts) = (self.group()?, self.message_id()?, self.number()?);
                let reason = self.one_of([DeadReason::Exhausted, DeadReason::Rejected])?;
                Change::Dead { group, id, reason, attempts }
            }
            GROUP_CREATED => {
                let (group, commit) = (self.group()?, [Commit::Auto, Commit::Explicit]);
                Change::GroupCreated { group, commit: self.one_of(commit)? }
            }
            GROUP_REMOVED => Change::GroupRemoved { group: self.group()? },
            GROUPS_NUMBERED => Change::GroupsNumbered { next: self.number()? },
            GROWN => {
                let (from, to) = (self.count_of_partitions()?, self.count_of_partitions()?);
                let (partition, before) = (self.partition()?, self.offset()?);
                if from >= to || partition >= from {
                    return Err(Unreadable);
                }
                Change::Grown { from, to, partition, before }
            }
            _ => return Err(Unreadable),
        })
    }

    fn session_change(&mut self, kind: u8) -> Result<Record<'a>, Unreadable> {
        let sid = self.varint()?;
        Ok(match kind {
            SESSION_END => Record::SessionEnd { sid },
            CONSUMER => {
                let identifier = self.number()?;
                let options = SubscriptionOptions::from_bits(self.byte()?).ok_or(Unreadable)?;
                let (flags, prefetch) = (self.byte()?, self.number()?);
                let (filter, group) = (self.text()?, self.text()?);
                Record::Consumer(ConsumerRecord {
                    sid,
                    filter,
                    group,
                    options,
                    identifier,
                    flags,
                    prefetch,
                })
            }
            SUBSCRIBED => {
                let identifier = self.number()?;
                let options = SubscriptionOptions::from_bits(self.byte()?).ok_or(Unreadable)?;
                Record::Subscribed { sid, filter: self.text()?, options, identifier }
            }
            UNSUBSCRIBED => Record::Unsubscribed { sid, filter: self.text()? },
            SENT | SENT_EXACTLY_ONCE => {
                let (packet_id, id) = (self.packet_id()?, self.varint()?);
                Record::Sent { sid, packet_id, id, is_exactly_once: kind == SENT_EXACTLY_ONCE }
            }
            RELEASED => Record::Released { sid, packet_id: self.packet_id()?, id: self.varint()? },
            COMPLETED => Record::Completed { sid, packet_id: self.packet_id()? },
            DONE => Record::Done { sid, id: self.varint()? },
            RECEIVED => Record::Received { sid, packet_id: self.packet_id()? },
            FREED => Record::Freed { sid, packet_id: self.packet_id()? },
            _ => return Err(Unreadable),
        })
    }

    fn message(&mut self, frame_len: usize) -> Result<MessageRecord<'a>, Unreadable> {
        let flags = self.byte()?;
        let id = self.varint()?;
        let expires_at =
            if flags & HAS_EXPIRY == 0 { Time::NEVER } else { Time::from_millis(self.varint()?) };
        let received = self.number()?;
        let is_retained = flags & IS_RETAINED != 0;
        let publisher = if is_retained { self.u64()? } else { 0 };
        let (topic_len, properties_len) = (self.number()?, self.number()?);
        let (content_len, refs_len) = (self.number()?, self.number()?);
        let position = frame_len - self.rest.len();
        // The frame has its own checksum; this one is for those who read the content alone.
        self.take(CHECKSUM_BYTES)?;
        let content = self.take(content_len as usize)?;
        let refs = Refs { bytes: self.take(refs_len as usize)? };
        Ok(MessageRecord {
            id,
            qos: qos(flags)?,
            retain: flags & RETAIN != 0,
            is_retained,
            expires_at,
            received,
            publisher,
            topic_len,
            properties_len,
            content,
            refs,
            position,
        })
    }

    fn session(&mut self) -> Result<SessionRecord<'a>, Unreadable> {
        let (sid, expiry_s) = (self.varint()?, self.number()?);
        let flags = self.byte()?;
        let expires_at = Time::from_millis(self.u64()?);
        let client_id = self.text()?;
        let (mut will, mut will_at) = (None, Time::NEVER);
        if flags & HAS_WILL != 0 {
            let bits = self.byte()?;
            let delay_s = self.number()?;
            will_at = Time::from_millis(self.u64()?);
            let (topic, properties, payload) = (self.text()?, self.bytes()?, self.bytes()?);
            let (qos, retain) = (qos(bits)?, bits & RETAIN != 0);
            will = Some(WillRecord { topic, properties, payload, qos, retain, delay_s });
        }
        let is_online = flags & IS_ONLINE != 0;
        Ok(SessionRecord { sid, client_id, expiry_s, expires_at, is_online, will_at, will })
    }

    pub(super) fn next_ref(&mut self) -> Result<Ref, Unreadable> {
        let sid = self.varint()?;
        let flags = self.byte()?;
        let mut identifiers = Vec::new();
        if flags & HAS_IDENTIFIERS != 0 {
            for _ in 0..self.varint()? {
                identifiers.push(self.number()?);
            }
        }
        Ok(Ref { sid, qos: qos(flags)?, retain: flags & RETAIN != 0, identifiers })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Unreadable)?;
        self.rest = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable)?))
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn number(&mut self) -> Result<u32, Unreadable> {
        u32::try_from(self.varint()?).map_err(|_| Unreadable)
    }

    fn count_of_partitions(&mut self) -> Result<u16, Unreadable> {
        let count = u16::try_from(self.varint()?).map_err(|_| Unreadable)?;
        if (1..=PARTITIONS_MAX).contains(&count) { Ok(count) } else { Err(Unreadable) }
    }

    fn partition(&mut self) -> Result<u16, Unreadable> {
        let partition = u16::try_from(self.varint()?).map_err(|_| Unreadable)?;
        if partition < PARTITIONS_MAX { Ok(partition) } else { Err(Unreadable) }
    }

    fn offset(&mut self) -> Result<u64, Unreadable> {
        let offset = self.varint()?;
        if offset < OFFSET_END { Ok(offset) } else { Err(Unreadable) }
    }

    fn message_id(&mut self) -> Result<MessageId, Unreadable> {
        Ok(MessageId { partition: self.partition()?, offset: self.offset()? })
    }

    fn group(&mut self) -> Result<GroupId, Unreadable> {
        self.number().map(GroupId)
    }

    /// What a byte means that counts them.
    fn one_of<T: Copy, const COUNT: usize>(&mut self, all: [T; COUNT]) -> Result<T, Unreadable> {
        let at = usize::from(self.byte()?);
        all.get(at).copied().ok_or(Unreadable)
    }

    fn packet_id(&mut self) -> Result<PacketId, Unreadable> {
        let number = u16::try_from(self.varint()?).map_err(|_| Unreadable)?;
        PacketId::new(number).ok_or(Unreadable)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = self.number()?;
        self.take(len as usize)
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Unreadable)
    }
}

fn qos(bits: u8) -> Result<QoS, Unreadable> {
    QoS::from_bits(bits & QOS_BITS).ok_or(Unreadable)
}
