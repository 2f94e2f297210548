//! Records to bytes.

use dunlin_packets::{PacketId, QoS};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Commit, DeadReason, MessageId, Mode};

use super::*;

impl Record<'_> {
    /// Appends the record. For a message or a piece of an index, returns where its checksum and
    /// content begin in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        match *self {
            Self::Message(ref message) => return message.encode(out),
            Self::Session(ref session) => session.encode(out),
            Self::SessionEnd { sid } => put_numbers(SESSION_END, &[sid], out),
            Self::Subscribed { sid, filter, options, identifier } => {
                put_numbers(SUBSCRIBED, &[sid, u64::from(identifier)], out);
                out.push(options.to_bits());
                put_bytes(filter.as_bytes(), out);
            }
            Self::Unsubscribed { sid, filter } => {
                put_numbers(UNSUBSCRIBED, &[sid], out);
                put_bytes(filter.as_bytes(), out);
            }
            Self::Sent { sid, packet_id, id, is_exactly_once } => {
                let kind = if is_exactly_once { SENT_EXACTLY_ONCE } else { SENT };
                put_numbers(kind, &[sid, of(packet_id), id], out);
            }
            Self::Released { sid, packet_id, id } => {
                put_numbers(RELEASED, &[sid, of(packet_id), id], out);
            }
            Self::Completed { sid, packet_id } => {
                put_numbers(COMPLETED, &[sid, of(packet_id)], out);
            }
            Self::Done { sid, id } => put_numbers(DONE, &[sid, id], out),
            Self::Received { sid, packet_id } => put_numbers(RECEIVED, &[sid, of(packet_id)], out),
            Self::Freed { sid, packet_id } => put_numbers(FREED, &[sid, of(packet_id)], out),
            Self::RetainedGone { topic } => {
                out.push(RETAINED_GONE);
                put_bytes(topic.as_bytes(), out);
            }
            Self::Keys(keys) => {
                out.push(KEYS);
                keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
            }
            Self::Queue(ref queue) => queue.encode(out),
            Self::QueueEnd { qid } => put_numbers(QUEUE_END, &[qid], out),
            Self::QueueGroup { qid, group, name, filter, is_temporary } => {
                put_numbers(QUEUE_GROUP, &[qid, u64::from(group.0)], out);
                out.push(u8::from(is_temporary));
                put_bytes(name.as_bytes(), out);
                put_bytes(filter.as_bytes(), out);
            }
            Self::QueueMessage(ref message) => return message.encode(out),
            Self::QueueChange { qid, change } => put_change(qid, &change, out),
            Self::QueueChunk { qid, partition, chunk, bytes, .. } => {
                put_numbers(QUEUE_CHUNK, &[qid, u64::from(partition), chunk], out);
                put_varint(bytes.len() as u64, out);
                return put_checked(bytes, out);
            }
            Self::Consumer(ref consumer) => consumer.encode(out),
        }
        out.len()
    }
}

fn of(packet_id: PacketId) -> u64 {
    u64::from(packet_id.get())
}

impl MessageRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> usize {
        out.push(MESSAGE);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            self.qos as u8
                | flag(self.retain, RETAIN)
                | flag(self.is_retained, IS_RETAINED)
                | flag(self.expires_at != Time::NEVER, HAS_EXPIRY),
        );
        put_varint(self.id, out);
        if self.expires_at != Time::NEVER {
            put_varint(self.expires_at.as_millis(), out);
        }
        put_varint(u64::from(self.received), out);
        if self.is_retained {
            out.extend_from_slice(&self.publisher.to_le_bytes());
        }
        put_varint(u64::from(self.topic_len), out);
        put_varint(u64::from(self.properties_len), out);
        put_varint(self.content.len() as u64, out);
        put_varint(self.refs.bytes.len() as u64, out);
        let position = put_checked(self.content, out);
        out.extend_from_slice(self.refs.bytes);
        position
    }
}

impl SessionRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_numbers(SESSION, &[self.sid, u64::from(self.expiry_s)], out);
        let will_bit = if self.will.is_some() { HAS_WILL } else { 0 };
        out.push(if self.is_online { IS_ONLINE } else { 0 } | will_bit);
        out.extend_from_slice(&self.expires_at.as_millis().to_le_bytes());
        put_bytes(self.client_id.as_bytes(), out);
        if let Some(will) = &self.will {
            out.push(will.qos as u8 | if will.retain { RETAIN } else { 0 });
            put_varint(u64::from(will.delay_s), out);
            out.extend_from_slice(&self.will_at.as_millis().to_le_bytes());
            put_bytes(will.topic.as_bytes(), out);
            put_bytes(will.properties, out);
            put_bytes(will.payload, out);
        }
    }
}

impl QueueRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_numbers(QUEUE, &[self.qid, u64::from(self.partitions)], out);
        out.push(match self.mode {
            Mode::Work => 0,
            Mode::Stream => 1,
        });
        put_bytes(self.name.as_bytes(), out);
    }
}

impl QueueMessageRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> usize {
        let expiry_bit = if self.expiry_s.is_some() { HAS_EXPIRY } else { 0 };
        let deliver_bit = if self.deliver_at.is_some() { HAS_DELIVER_AT } else { 0 };
        out.extend([QUEUE_MESSAGE, self.priority & PRIORITY_BITS | expiry_bit | deliver_bit]);
        put_varint(self.qid, out);
        put_id(self.id, out);
        put_varint(self.at.as_millis(), out);
        out.extend_from_slice(&self.key_hash.to_le_bytes());
        if let Some(seconds) = self.expiry_s {
            put_varint(u64::from(seconds), out);
        }
        if let Some(due) = self.deliver_at {
            put_varint(due.as_millis(), out);
        }
        put_varint(self.content.len() as u64, out);
        put_checked(self.content, out)
    }
}

impl ConsumerRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_numbers(CONSUMER, &[self.sid, u64::from(self.identifier)], out);
        out.extend([self.options.to_bits(), self.flags]);
        put_varint(u64::from(self.prefetch), out);
        put_bytes(self.filter.as_bytes(), out);
        put_bytes(self.group.as_bytes(), out);
    }
}

fn put_change(qid: u64, change: &Change, out: &mut Vec<u8>) {
    match *change {
        // There would be no content to it.
        Change::Enqueued { .. } => debug_assert!(false, "that is a record of another kind"),
        Change::Settled { group, partition, from, to } => {
            let len = to.saturating_sub(from);
            let (group, partition) = (u64::from(group.0), u64::from(partition));
            put_numbers(SETTLED, &[qid, group, partition, from, len], out);
        }
        Change::Cursor { group, partition, offset, seeks } => {
            let (group, partition) = (u64::from(group.0), u64::from(partition));
            put_numbers(CURSOR, &[qid, group, partition, offset, u64::from(seeks)], out);
        }
        Change::Attempts { group, id, attempts } => {
            put_numbers(ATTEMPTS, &[qid, u64::from(group.0)], out);
            put_id(id, out);
            put_varint(u64::from(attempts), out);
        }
        Change::Dead { group, id, reason, attempts } => {
            put_numbers(DEAD, &[qid, u64::from(group.0)], out);
            put_id(id, out);
            put_varint(u64::from(attempts), out);
            out.push(match reason {
                DeadReason::Exhausted => 0,
                DeadReason::Rejected => 1,
            });
        }
        Change::GroupCreated { group, commit } => {
            put_numbers(GROUP_CREATED, &[qid, u64::from(group.0)], out);
            out.push(match commit {
                Commit::Auto => 0,
                Commit::Explicit => 1,
            });
        }
        Change::GroupRemoved { group } => {
            put_numbers(GROUP_REMOVED, &[qid, u64::from(group.0)], out);
        }
        Change::GroupsNumbered { next } => {
            put_numbers(GROUPS_NUMBERED, &[qid, u64::from(next)], out);
        }
        Change::Grown { from, to, partition, before } => {
            let numbers = [from, to, partition].map(u64::from);
            put_numbers(GROWN, &[qid, numbers[0], numbers[1], numbers[2], before], out);
        }
    }
}

fn put_id(id: MessageId, out: &mut Vec<u8>) {
    put_varint(u64::from(id.partition), out);
    put_varint(id.offset, out);
}

/// Appends bytes behind their checksum, and says where that begins.
fn put_checked(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let position = out.len();
    out.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    position
}

/// Appends one delivery to what [`Refs::new`] takes.
pub fn put_ref(sid: u64, qos: QoS, retain: bool, identifiers: &[u32], out: &mut Vec<u8>) {
    put_varint(sid, out);
    let identifiers_bit = if identifiers.is_empty() { 0 } else { HAS_IDENTIFIERS };
    out.push(qos as u8 | if retain { RETAIN } else { 0 } | identifiers_bit);
    if !identifiers.is_empty() {
        put_varint(identifiers.len() as u64, out);
        identifiers.iter().for_each(|&identifier| put_varint(u64::from(identifier), out));
    }
}

fn put_numbers(kind: u8, numbers: &[u64], out: &mut Vec<u8>) {
    out.push(kind);
    numbers.iter().for_each(|&number| put_varint(number, out));
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
