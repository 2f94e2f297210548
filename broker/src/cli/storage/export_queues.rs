//! The part of an export with the queues: each, and its messages behind it.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dunlin_queue::partitioned::{Change, Commit, GroupId, Mode, REJECTED, RestoredMessage};

use super::directory::Kept;
use super::export::{described, millis, put};
use super::line::{
    CursorLine, FailedLine, GroupLine, GrowthLine, Line, ModeLine, QueueLine, QueueMessageLine,
};
use super::{Outcome, message};
use crate::store::record::QueueContent;
use crate::store::{StoredGroup, StoredQueue};

pub(super) fn write(kept: &Kept, out: &mut impl Write) -> Outcome<()> {
    for queue in &kept.image.queues {
        put(&Line::Queue(queue_line(queue)), out)?;
        message::for_each_in_queue(kept, queue, |message, content| {
            put(&Line::QueueMessage(message_line(queue, message, content)?), out)
        })?;
    }
    Ok(())
}

fn queue_line(queue: &StoredQueue) -> QueueLine {
    let mut line = QueueLine {
        number: queue.qid,
        name: queue.name.to_string(),
        mode: match queue.mode {
            Mode::Work => ModeLine::Work,
            Mode::Stream => ModeLine::Stream,
        },
        partitions: queue.partitions,
        growths: Vec::new(),
        ends: Vec::new(),
        next_group: 0,
        groups: queue.groups.iter().map(group_line).collect(),
    };
    let mut changes = Vec::new();
    queue.restoring.changes(queue.mode, &mut changes);
    for change in &changes {
        add(change, &mut line);
    }
    let partitions = line.growths.last().map_or(queue.partitions, |growth| growth.to);
    line.ends = (0..partitions).map(|partition| queue.restoring.end(partition)).collect();
    line
}

fn group_line(group: &StoredGroup) -> GroupLine {
    GroupLine {
        number: group.group.0,
        name: group.name.to_string(),
        filter: group.filter.to_string(),
        temporary: group.is_temporary,
        explicit_commit: false,
        cursors: Vec::new(),
    }
}

/// Takes in what does not stand with the messages.
fn add(change: &Change, line: &mut QueueLine) {
    match *change {
        Change::GroupsNumbered { next } => line.next_group = next,
        Change::GroupCreated { group, commit } => {
            if let Some(group) = group_of(line, group) {
                group.explicit_commit = commit == Commit::Explicit;
            }
        }
        Change::Cursor { group, partition, offset, seeks } => {
            if let Some(group) = group_of(line, group) {
                group.cursors.push(CursorLine { partition, offset, seeks });
            }
        }
        Change::Grown { from, to, partition, before } => {
            if line.growths.last().is_none_or(|growth| growth.to != to) {
                line.growths.push(GrowthLine { to, before: vec![0; usize::from(from)] });
            }
            let growth = line.growths.last_mut();
            if let Some(at) =
                growth.and_then(|growth| growth.before.get_mut(usize::from(partition)))
            {
                *at = before;
            }
        }
        _ => {}
    }
}

fn group_of(line: &mut QueueLine, group: GroupId) -> Option<&mut GroupLine> {
    line.groups.iter_mut().find(|one| one.number == group.0)
}

fn message_line(
    queue: &StoredQueue,
    message: &RestoredMessage,
    content: &[u8],
) -> Outcome<QueueMessageLine> {
    let content = QueueContent::read(content).map_err(|_| message::damaged(queue, message))?;
    let (restoring, id) = (&queue.restoring, message.id);
    let groups = || queue.groups.iter().map(|group| group.group);
    let (settled, others): (Vec<GroupId>, Vec<GroupId>) =
        groups().partition(|&group| restoring.is_settled(group, id));
    let failed = others.into_iter().map(|group| {
        let attempts = restoring.attempts(group, id);
        let rejected = attempts & REJECTED != 0;
        FailedLine { group: group.0, attempts: attempts & !REJECTED, rejected }
    });
    Ok(QueueMessageLine {
        queue: queue.qid,
        partition: id.partition,
        offset: id.offset,
        enqueued_at_ms: message.at.as_millis(),
        expiry_s: message.expiry_s,
        deliver_at_ms: message.deliver_at.and_then(millis),
        key_hash: format!("{:016x}", message.key_hash),
        priority: message.priority,
        settled_by: settled.iter().map(|group| group.0).collect(),
        failed: failed.filter(|failed| failed.attempts > 0).collect(),
        captured: content.is_captured,
        topic: content.topic.into(),
        published_at_ms: content.at.as_millis(),
        expires_at_ms: millis(content.expires_at),
        properties: Some(described(content.properties)?),
        properties_base64: BASE64_STANDARD.encode(content.properties),
        payload_base64: BASE64_STANDARD.encode(content.payload),
    })
}
