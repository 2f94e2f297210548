//! What the log has of partitioned queues.

use dunlin_packets::SubscriptionOptions;
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Change, Commit, DeadReason, GroupId, MessageId, Mode};

use super::decode::Reader;
use super::encode::{put_bytes, put_numbers, put_varint};
use super::{CHECKSUM_BYTES, Record, Unreadable};

pub(super) const QUEUE: u8 = 15;
const QUEUE_END: u8 = 16;
const QUEUE_GROUP: u8 = 17;
const QUEUE_MESSAGE: u8 = 18;
const QUEUE_CHUNK: u8 = 19;
const QUEUE_SETTLED: u8 = 20;
const QUEUE_CURSOR: u8 = 21;
const QUEUE_ATTEMPTS: u8 = 22;
const QUEUE_DEAD: u8 = 23;
const QUEUE_GROUP_CREATED: u8 = 24;
const QUEUE_GROUP_REMOVED: u8 = 25;
const QUEUE_GROUPS_NUMBERED: u8 = 26;
const QUEUE_GROWN: u8 = 27;
const CONSUMER: u8 = 28;

const IS_STREAM: u8 = 1;
const IS_TEMPORARY: u8 = 1;
const IS_EXPLICIT: u8 = 1;
const IS_REJECTED: u8 = 1;
const HAS_EXPIRY: u8 = 1 << 4;
const IS_DELAYED: u8 = 1 << 5;
const IS_CAPTURED: u8 = 1;
const EXPIRES: u8 = 1 << 1;

/// A queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRecord<'a> {
    /// Its number, of those of sessions.
    pub qid: u64,
    /// Its name; with `$dlq/` before it, the dead letters of a queue.
    pub name: &'a str,
    /// Partitions it began with.
    pub partitions: u16,
    /// Work queue or stream.
    pub mode: Mode,
}

/// A message of a queue. Its content, with a checksum before it, can be read on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueMessageRecord<'a> {
    /// Which queue.
    pub qid: u64,
    /// Its place there.
    pub id: MessageId,
    /// When it came.
    pub at: Time,
    /// Of its key.
    pub key_hash: u64,
    /// 0 to 9.
    pub priority: u8,
    /// Seconds after `at`.
    pub expiry_s: Option<u32>,
    /// Not to be delivered before.
    pub deliver_at: Option<Time>,
    /// [`QueueContent`], encoded.
    pub content: &'a [u8],
    /// Where checksum and content begin, counted from the beginning of the frame's records.
    pub position: usize,
}

impl QueueMessageRecord<'_> {
    /// As the queue said it.
    #[must_use]
    pub fn change(&self) -> Change {
        let Self { id, at, key_hash, priority, expiry_s, deliver_at, .. } = *self;
        let bytes = self.content.len() as u32;
        let original = None;
        Change::Enqueued { id, at, key_hash, bytes, priority, expiry_s, deliver_at, original }
    }
}

/// A piece of a queue's index that need not be in memory. It means nothing at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueChunkRecord<'a> {
    /// Which queue.
    pub qid: u64,
    /// Which partition.
    pub partition: u16,
    /// Which piece of that.
    pub chunk: u64,
    /// The piece.
    pub bytes: &'a [u8],
    /// Where its checksum and bytes begin, counted from the beginning of the frame's records.
    pub position: usize,
}

/// A session consumes a queue. `Unsubscribed` takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerRecord<'a> {
    /// Which session.
    pub sid: u64,
    /// As it subscribed.
    pub filter: &'a str,
    /// For which group.
    pub group: &'a str,
    /// What it asked for, at the QoS that was granted.
    pub options: SubscriptionOptions,
    /// The subscription identifier; 0 for none.
    pub identifier: u32,
    /// How it settles, and how its cursor moves.
    pub flags: u8,
    /// Messages it may have unanswered; 0 for what the queue says.
    pub prefetch: u32,
}

/// A message of a queue, as it stands in the log: read without anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueContent<'a> {
    /// When it came.
    pub at: Time,
    /// When it is not to be delivered any more.
    pub expires_at: Time,
    /// It was published to `topic`; otherwise that is the routing key.
    pub is_captured: bool,
    /// Topic or routing key.
    pub topic: &'a str,
    /// Properties, encoded.
    pub properties: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> QueueContent<'a> {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        let expires = if self.expires_at == Time::NEVER { 0 } else { EXPIRES };
        out.push(expires | if self.is_captured { IS_CAPTURED } else { 0 });
        put_varint(self.at.as_millis(), out);
        if self.expires_at != Time::NEVER {
            put_varint(self.expires_at.as_millis(), out);
        }
        put_bytes(self.topic.as_bytes(), out);
        put_bytes(self.properties, out);
        out.extend_from_slice(self.payload);
    }

    /// Reads what [`Self::put`] has written.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes);
        let flags = reader.byte()?;
        let at = Time::from_millis(reader.varint()?);
        let expires_at = match flags & EXPIRES {
            0 => Time::NEVER,
            _ => Time::from_millis(reader.varint()?),
        };
        let (topic, properties) = (reader.text()?, reader.bytes()?);
        let is_captured = flags & IS_CAPTURED != 0;
        let payload = reader.rest();
        Ok(Self { at, expires_at, is_captured, topic, properties, payload })
    }
}

/// Appends the record of a queue. Where checksum and content begin, for those that have one.
pub(super) fn encode(record: &Record<'_>, out: &mut Vec<u8>) -> usize {
    match *record {
        Record::Queue(QueueRecord { qid, name, partitions, mode }) => {
            put_numbers(QUEUE, &[qid, u64::from(partitions)], out);
            out.push(if mode == Mode::Stream { IS_STREAM } else { 0 });
            put_bytes(name.as_bytes(), out);
        }
        Record::QueueEnd { qid } => put_numbers(QUEUE_END, &[qid], out),
        Record::QueueGroup { qid, group, name, filter, is_temporary } => {
            put_numbers(QUEUE_GROUP, &[qid, u64::from(group.0)], out);
            out.push(if is_temporary { IS_TEMPORARY } else { 0 });
            put_bytes(name.as_bytes(), out);
            put_bytes(filter.as_bytes(), out);
        }
        Record::QueueMessage(ref message) => return encode_message(message, out),
        Record::QueueChunk(QueueChunkRecord { qid, partition, chunk, bytes, .. }) => {
            put_numbers(QUEUE_CHUNK, &[qid, u64::from(partition), chunk], out);
            return put_checked(bytes, out);
        }
        Record::QueueChange { qid, change } => encode_change(qid, &change, out),
        Record::Consumer(ref consumer) => {
            let ConsumerRecord { sid, filter, group, options, identifier, flags, prefetch } =
                *consumer;
            put_numbers(CONSUMER, &[sid, u64::from(identifier), u64::from(prefetch)], out);
            out.extend_from_slice(&[options.to_bits(), flags]);
            put_bytes(filter.as_bytes(), out);
            put_bytes(group.as_bytes(), out);
        }
        _ => {}
    }
    out.len()
}

fn encode_message(message: &QueueMessageRecord<'_>, out: &mut Vec<u8>) -> usize {
    let QueueMessageRecord {
        qid, id, at, key_hash, priority, expiry_s, deliver_at, content, ..
    } = *message;
    let expiry = if expiry_s.is_some() { HAS_EXPIRY } else { 0 };
    let numbers = [qid, u64::from(id.partition), id.offset, at.as_millis()];
    put_numbers(QUEUE_MESSAGE, &numbers, out);
    out.push(priority | expiry | if deliver_at.is_some() { IS_DELAYED } else { 0 });
    out.extend_from_slice(&key_hash.to_le_bytes());
    if let Some(seconds) = expiry_s {
        put_varint(u64::from(seconds), out);
    }
    if let Some(deliver_at) = deliver_at {
        put_varint(deliver_at.as_millis(), out);
    }
    put_checked(content, out)
}

fn put_checked(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    put_varint(bytes.len() as u64, out);
    let position = out.len();
    out.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
    position
}

fn encode_change(qid: u64, change: &Change, out: &mut Vec<u8>) {
    match *change {
        // With its content, as a record of its own.
        Change::Enqueued { .. } => {}
        Change::Settled { group, partition, from, to } => {
            let numbers = [qid, u64::from(group.0), u64::from(partition), from, to - from];
            put_numbers(QUEUE_SETTLED, &numbers, out);
        }
        Change::Cursor { group, partition, offset, seeks } => {
            let place = [u64::from(group.0), u64::from(partition)];
            let numbers = [qid, place[0], place[1], offset, u64::from(seeks)];
            put_numbers(QUEUE_CURSOR, &numbers, out);
        }
        Change::Attempts { group, id, attempts } => {
            put_numbers(QUEUE_ATTEMPTS, &attempt(qid, group, id, attempts), out);
        }
        Change::Dead { group, id, reason, attempts } => {
            put_numbers(QUEUE_DEAD, &attempt(qid, group, id, attempts), out);
            out.push(if reason == DeadReason::Rejected { IS_REJECTED } else { 0 });
        }
        Change::GroupCreated { group, commit } => {
            put_numbers(QUEUE_GROUP_CREATED, &[qid, u64::from(group.0)], out);
            out.push(if commit == Commit::Explicit { IS_EXPLICIT } else { 0 });
        }
        Change::GroupRemoved { group } => {
            put_numbers(QUEUE_GROUP_REMOVED, &[qid, u64::from(group.0)], out);
        }
        Change::GroupsNumbered { next } => {
            put_numbers(QUEUE_GROUPS_NUMBERED, &[qid, u64::from(next)], out);
        }
        Change::Grown { from, to, partition, before } => {
            let sizes = [u64::from(from), u64::from(to), u64::from(partition)];
            put_numbers(QUEUE_GROWN, &[qid, sizes[0], sizes[1], sizes[2], before], out);
        }
    }
}

fn attempt(qid: u64, group: GroupId, id: MessageId, attempts: u32) -> [u64; 5] {
    let MessageId { partition, offset } = id;
    [qid, u64::from(group.0), u64::from(partition), offset, u64::from(attempts)]
}

/// Reads the rest of a record of this kind.
pub(super) fn decode<'a>(
    kind: u8,
    reader: &mut Reader<'a>,
    frame_len: usize,
) -> Result<Record<'a>, Unreadable> {
    if kind == CONSUMER {
        return consumer(reader).map(Record::Consumer);
    }
    let qid = reader.varint()?;
    Ok(match kind {
        QUEUE => {
            let partitions = reader.short()?;
            let mode = if reader.byte()? & IS_STREAM == 0 { Mode::Work } else { Mode::Stream };
            Record::Queue(QueueRecord { qid, name: reader.text()?, partitions, mode })
        }
        QUEUE_END => Record::QueueEnd { qid },
        QUEUE_GROUP => {
            let group = GroupId(reader.number()?);
            let is_temporary = reader.byte()? & IS_TEMPORARY != 0;
            let (name, filter) = (reader.text()?, reader.text()?);
            Record::QueueGroup { qid, group, name, filter, is_temporary }
        }
        QUEUE_MESSAGE => Record::QueueMessage(message(qid, reader, frame_len)?),
        QUEUE_CHUNK => {
            let (partition, chunk) = (reader.short()?, reader.varint()?);
            let (position, bytes) = checked(reader, frame_len)?;
            Record::QueueChunk(QueueChunkRecord { qid, partition, chunk, bytes, position })
        }
        _ => Record::QueueChange { qid, change: change(kind, reader)? },
    })
}

fn consumer<'a>(reader: &mut Reader<'a>) -> Result<ConsumerRecord<'a>, Unreadable> {
    let sid = reader.varint()?;
    let (identifier, prefetch) = (reader.number()?, reader.number()?);
    let options = SubscriptionOptions::from_bits(reader.byte()?).ok_or(Unreadable)?;
    let flags = reader.byte()?;
    let (filter, group) = (reader.text()?, reader.text()?);
    Ok(ConsumerRecord { sid, filter, group, options, identifier, flags, prefetch })
}

fn message<'a>(
    qid: u64,
    reader: &mut Reader<'a>,
    frame_len: usize,
) -> Result<QueueMessageRecord<'a>, Unreadable> {
    let id = MessageId { partition: reader.short()?, offset: reader.varint()? };
    let at = Time::from_millis(reader.varint()?);
    let flags = reader.byte()?;
    let key_hash = reader.u64()?;
    let expiry_s = if flags & HAS_EXPIRY == 0 { None } else { Some(reader.number()?) };
    let deliver_at = match flags & IS_DELAYED {
        0 => None,
        _ => Some(Time::from_millis(reader.varint()?)),
    };
    let priority = flags & 0x0f;
    let (position, content) = checked(reader, frame_len)?;
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

fn checked<'a>(reader: &mut Reader<'a>, frame_len: usize) -> Result<(usize, &'a [u8]), Unreadable> {
    let len = reader.number()?;
    let position = frame_len - reader.rest().len();
    // The frame has its own checksum; this one is for those who read the content alone.
    reader.take(CHECKSUM_BYTES)?;
    Ok((position, reader.take(len as usize)?))
}

fn change(kind: u8, reader: &mut Reader<'_>) -> Result<Change, Unreadable> {
    Ok(match kind {
        QUEUE_SETTLED => {
            let (group, partition) = (GroupId(reader.number()?), reader.short()?);
            let from = reader.varint()?;
            let to = from.checked_add(reader.varint()?).ok_or(Unreadable)?;
            Change::Settled { group, partition, from, to }
        }
        QUEUE_CURSOR => {
            let (group, partition) = (GroupId(reader.number()?), reader.short()?);
            let (offset, seeks) = (reader.varint()?, reader.number()?);
            Change::Cursor { group, partition, offset, seeks }
        }
        QUEUE_ATTEMPTS | QUEUE_DEAD => {
            let group = GroupId(reader.number()?);
            let id = MessageId { partition: reader.short()?, offset: reader.varint()? };
            let attempts = reader.number()?;
            if kind == QUEUE_ATTEMPTS {
                return Ok(Change::Attempts { group, id, attempts });
            }
            let is_rejected = reader.byte()? & IS_REJECTED != 0;
            let reason = if is_rejected { DeadReason::Rejected } else { DeadReason::Exhausted };
            Change::Dead { group, id, reason, attempts }
        }
        QUEUE_GROUP_CREATED => {
            let group = GroupId(reader.number()?);
            let is_explicit = reader.byte()? & IS_EXPLICIT != 0;
            let commit = if is_explicit { Commit::Explicit } else { Commit::Auto };
            Change::GroupCreated { group, commit }
        }
        QUEUE_GROUP_REMOVED => Change::GroupRemoved { group: GroupId(reader.number()?) },
        QUEUE_GROUPS_NUMBERED => Change::GroupsNumbered { next: reader.number()? },
        QUEUE_GROWN => {
            let (from, to, partition) = (reader.short()?, reader.short()?, reader.short()?);
            Change::Grown { from, to, partition, before: reader.varint()? }
        }
        _ => return Err(Unreadable),
    })
}
