//! Lines of queues to what the log has, each checked.

use dunlin_packets::is_valid_filter;
use dunlin_queue::Time;
use dunlin_queue::partitioned::limits::{MESSAGE_BYTES_MAX, PARTITIONS_MAX, PRIORITIES};
use dunlin_queue::partitioned::{Change, Commit, GroupId, MessageId, Mode};

use super::line::{GroupLine, ModeLine, QueueLine, QueueMessageLine};
use super::validate::{
    Checked, NUMBER_MAX, STRING_BYTES_MAX, all_differ, check_text, check_topic, content,
    hexadecimal, number, shown, time,
};
use crate::store::StoredGroup;
use crate::store::record::QueueContent;

/// Offsets from the first message of a partition to its last: what a broker can have in memory.
const SPAN_MAX: u64 = 1 << 32;
/// The latest time of a message, in milliseconds: in the year 10889.
const MILLIS_MAX: u64 = (1 << 48) - 1;

/// A queue, but for its messages.
#[derive(Debug)]
pub(super) struct CheckedQueue {
    pub(super) number: u64,
    pub(super) name: Box<str>,
    /// It began with.
    pub(super) partitions: u16,
    pub(super) mode: Mode,
    pub(super) groups: Vec<StoredGroup>,
    /// What is to be known beside messages and where partitions end.
    pub(super) changes: Vec<Change>,
    /// Of each partition.
    pub(super) ends: Vec<u64>,
}

/// A message of a queue.
#[derive(Debug)]
pub(super) struct CheckedQueueMessage {
    pub(super) id: MessageId,
    pub(super) at: Time,
    pub(super) key_hash: u64,
    pub(super) priority: u8,
    pub(super) expiry_s: Option<u32>,
    pub(super) deliver_at: Option<Time>,
    pub(super) content: Vec<u8>,
}

pub(super) fn queue(line: &QueueLine) -> Checked<CheckedQueue> {
    check_topic(&line.name)?;
    let mode = match line.mode {
        ModeLine::Work => Mode::Work,
        ModeLine::Stream => Mode::Stream,
    };
    let mut changes = vec![Change::GroupsNumbered { next: line.next_group }];
    let partitions = growths(line, &mut changes)?;
    if line.ends.len() != usize::from(partitions) {
        return Err(format!("there are {partitions} partitions, and {} ends", line.ends.len()));
    }
    if line.ends.iter().any(|&end| end > NUMBER_MAX) {
        return Err(format!("a partition ends behind {NUMBER_MAX}"));
    }
    all_differ(line.groups.iter().map(|group| group.number), "a group")?;
    all_differ(line.groups.iter().map(|group| (&group.name, &group.filter)), "a group's name")?;
    let mut groups = Vec::with_capacity(line.groups.len());
    for one in &line.groups {
        groups.push(group(one, line, &mut changes)?);
    }
    groups.sort_unstable_by_key(|group: &StoredGroup| group.group);
    Ok(CheckedQueue {
        number: number(line.number)?,
        name: line.name.as_str().into(),
        partitions: line.partitions,
        mode,
        groups,
        changes,
        ends: line.ends.clone(),
    })
}

/// Says how many partitions there are now.
fn growths(line: &QueueLine, changes: &mut Vec<Change>) -> Checked<u16> {
    let mut from = line.partitions;
    if !(1..=PARTITIONS_MAX).contains(&from) {
        return Err(format!("the number of partitions is not between 1 and {PARTITIONS_MAX}"));
    }
    for growth in &line.growths {
        let to = growth.to;
        if to <= from || to > PARTITIONS_MAX || growth.before.len() != usize::from(from) {
            return Err(format!("a queue of {from} partitions has not grown like that"));
        }
        for (partition, &before) in (0..).zip(&growth.before) {
            if line.ends.get(usize::from(partition)).is_none_or(|&end| before > end) {
                return Err(format!("partition {partition} ended behind its end"));
            }
            changes.push(Change::Grown { from, to, partition, before });
        }
        from = to;
    }
    Ok(from)
}

fn group(line: &GroupLine, queue: &QueueLine, changes: &mut Vec<Change>) -> Checked<StoredGroup> {
    let group = GroupId(line.number);
    if group == GroupId::EVERYBODY || group.0 >= queue.next_group {
        return Err(format!("the group {} is not between 1 and next_group", group.0));
    }
    check_text(&line.name, "the name of a group")?;
    let filter = &line.filter;
    if filter.len() > STRING_BYTES_MAX || !(filter.is_empty() || is_valid_filter(filter)) {
        return Err(format!("\"{}\" is not a topic filter", shown(filter)));
    }
    let commit = if line.explicit_commit { Commit::Explicit } else { Commit::Auto };
    changes.push(Change::GroupCreated { group, commit });
    all_differ(line.cursors.iter().map(|cursor| cursor.partition), "a cursor")?;
    for cursor in &line.cursors {
        let (partition, offset, seeks) = (cursor.partition, cursor.offset, cursor.seeks);
        let end = queue.ends.get(usize::from(partition));
        if queue.mode == ModeLine::Work || end.is_none_or(|&end| offset > end) {
            return Err(format!("the group {} has no cursor there", group.0));
        }
        changes.push(Change::Cursor { group, partition, offset, seeks });
    }
    Ok(StoredGroup {
        group,
        name: line.name.as_str().into(),
        filter: filter.as_str().into(),
        is_temporary: line.temporary,
    })
}

/// A message of the queue, of which `first` and `last` are the first message of the same partition
/// and the last of all that have come.
pub(super) fn message(
    line: &QueueMessageLine,
    queue: &CheckedQueue,
    first: Option<MessageId>,
    last: Option<MessageId>,
) -> Checked<CheckedQueueMessage> {
    let id = MessageId { partition: line.partition, offset: line.offset };
    let end = queue.ends.get(usize::from(id.partition));
    if line.queue != queue.number || end.is_none_or(|&end| id.offset >= end) {
        return Err("the message is in none of the partitions of the queue before it".into());
    }
    if last.is_some_and(|last| last >= id) {
        return Err("the messages of a queue come by partition and offset".into());
    }
    let first = first.filter(|first| first.partition == id.partition).unwrap_or(id);
    if id.offset - first.offset >= SPAN_MAX {
        return Err(format!("the message is more than {SPAN_MAX} behind the partition's first"));
    }
    if usize::from(line.priority) >= PRIORITIES {
        return Err(format!("the priority is {}", line.priority));
    }
    if queue.mode == Mode::Stream && line.deliver_at_ms.is_some() {
        return Err("a stream has no messages that are delayed".into());
    }
    if line.enqueued_at_ms > MILLIS_MAX {
        return Err(format!("enqueued_at_ms is above {MILLIS_MAX}"));
    }
    groups_of(line, queue)?;
    Ok(CheckedQueueMessage {
        id,
        at: Time::from_millis(line.enqueued_at_ms),
        key_hash: hexadecimal(&line.key_hash).map_err(|error| format!("key_hash: {error}"))?,
        priority: line.priority,
        expiry_s: line.expiry_s,
        deliver_at: line.deliver_at_ms.map(Time::from_millis),
        content: queue_content(line)?,
    })
}

/// What the groups have to do with the message.
fn groups_of(line: &QueueMessageLine, queue: &CheckedQueue) -> Checked<()> {
    let settled = line.settled_by.iter().copied();
    let failed = line.failed.iter().map(|failed| failed.group);
    let all: Vec<u32> = settled.chain(failed).collect();
    all_differ(&all, "a group of the message")?;
    let is_known = |number: &u32| queue.groups.iter().any(|group| group.group.0 == *number);
    if let Some(unknown) = all.iter().find(|number| !is_known(number)) {
        return Err(format!("the queue has no group {unknown}"));
    }
    if queue.mode == Mode::Stream && !all.is_empty() {
        return Err("in a stream a group has nothing but cursors".into());
    }
    if !queue.groups.is_empty() && line.settled_by.len() == queue.groups.len() {
        return Err("a message that all groups have settled is gone".into());
    }
    if line.failed.iter().any(|failed| failed.attempts == 0) {
        return Err("no delivery has failed".into());
    }
    Ok(())
}

fn queue_content(line: &QueueMessageLine) -> Checked<Vec<u8>> {
    let properties = line.properties.as_deref();
    let parts = content(&line.topic, &line.properties_base64, properties, &line.payload_base64)?;
    let rest = parts.bytes.get(parts.topic_len as usize..).unwrap_or_default();
    let (properties, payload) = rest.split_at(parts.properties_len as usize);
    let mut bytes = Vec::new();
    QueueContent {
        at: Time::from_millis(line.published_at_ms),
        expires_at: time(line.expires_at_ms),
        is_captured: line.captured,
        topic: &line.topic,
        properties,
        payload,
    }
    .put(&mut bytes);
    if bytes.len() > MESSAGE_BYTES_MAX as usize {
        return Err(format!("a message of {} bytes does not fit into a queue", bytes.len()));
    }
    Ok(bytes)
}
