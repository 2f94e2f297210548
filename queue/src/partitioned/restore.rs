//! A queue from what was written down of it, and what to write down of one.

use std::collections::BTreeMap;
use std::collections::HashMap;

use ahash::RandomState;

use crate::Time;

use super::change::push_settled;
use super::chunk::Meta;
use super::group::{Group, Lane};
use super::index::Look;
use super::queue::{Context, Queue};
use super::{BadConfig, Change, Commit, Config, GroupId, MessageId, Mode};

#[derive(Debug)]
struct Message {
    offset: u64,
    key_hash: u64,
    meta: Meta,
    deliver_at: Option<Time>,
}

/// Ranges, unordered until [`Self::merge`].
#[derive(Debug, Default)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn merge(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|next, last| {
            let adjoins = next.0 <= last.1;
            if adjoins {
                last.1 = last.1.max(next.1);
            }
            adjoins
        });
    }

    fn contains(&self, offset: u64) -> bool {
        let behind = self.0.partition_point(|range| range.0 <= offset);
        behind > 0 && offset < self.0[behind - 1].1
    }

    /// Where the range from 0 on ends.
    fn floor(&self) -> u64 {
        self.0.first().filter(|range| range.0 == 0).map_or(0, |range| range.1)
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.1)
    }
}

#[derive(Debug, Default)]
struct RestoredPartition {
    messages: Vec<Message>,
    end: u64,
    gone: Ranges,
}

#[derive(Debug, Default)]
struct RestoredGroup {
    commit: Option<Commit>,
    is_removed: bool,
    settled: HashMap<u16, Ranges, RandomState>,
    cursors: HashMap<u16, (u32, u64), RandomState>,
    attempts: HashMap<MessageId, u32, RandomState>,
}

/// Takes the changes of a queue in any order, also those that mean nothing any more, and some of
/// them twice. Needs some 80 bytes for each message meanwhile.
#[derive(Debug, Default)]
pub struct Restoring {
    partitions: BTreeMap<u16, RestoredPartition>,
    groups: BTreeMap<GroupId, RestoredGroup>,
    growths: BTreeMap<(u16, u16), BTreeMap<u16, u64>>,
    next_group: u32,
}

impl Restoring {
    /// Takes one change; `position` is where its record is in the log, of a message that was
    /// written again the last one.
    pub fn apply(&mut self, change: &Change, position: u64) {
        match *change {
            Change::Enqueued {
                id,
                at,
                key_hash,
                bytes,
                priority,
                expiry_s,
                deliver_at,
                original: _,
            } => {
                let key = key_hash as u32;
                let is_delayed = deliver_at.is_some();
                let meta = Meta { position, at, expiry_s, bytes, key, priority, is_delayed };
                let home = self.partition(id.partition, id.offset + 1);
                home.messages.push(Message { offset: id.offset, key_hash, meta, deliver_at });
            }
            Change::Settled { group: GroupId::EVERYBODY, partition, from, to } => {
                self.partition(partition, to).gone.0.push((from, to));
            }
            Change::Settled { group, partition, from, to } => {
                self.partition(partition, to);
                self.group(group).settled.entry(partition).or_default().0.push((from, to));
            }
            Change::Cursor { group, partition, offset, seeks } => {
                self.partition(partition, offset);
                let cursor = self.group(group).cursors.entry(partition).or_default();
                *cursor = (*cursor).max((seeks, offset));
            }
            Change::Attempts { group, id, attempts } => {
                let known = self.group(group).attempts.entry(id).or_default();
                *known = (*known).max(attempts);
            }
            // Settled says the same for the group; the dead letter is a message of another queue.
            Change::Dead { .. } => (),
            Change::GroupCreated { group, commit } => self.group(group).commit = Some(commit),
            Change::GroupRemoved { group } => self.group(group).is_removed = true,
            Change::GroupsNumbered { next } => self.next_group = self.next_group.max(next),
            Change::Grown { from, to, partition, before } => {
                self.partition(partition, before);
                self.growths.entry((from, to)).or_default().insert(partition, before);
            }
        }
    }

    fn partition(&mut self, partition: u16, end: u64) -> &mut RestoredPartition {
        let home = self.partitions.entry(partition).or_default();
        home.end = home.end.max(end);
        home
    }

    fn group(&mut self, id: GroupId) -> &mut RestoredGroup {
        self.next_group = self.next_group.max(id.0 + 1);
        self.groups.entry(id).or_default()
    }

    /// The queue. All it has may be delivered; its members have to join again. It began with the
    /// partitions of this configuration; the rest may be as it is now.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn finish(mut self, config: Config, cx: &mut Context<'_>) -> Result<Queue, BadConfig> {
        let to = self.growths.keys().map(|&(_, to)| to).max().unwrap_or(0);
        let mut queue = Queue::new(config)?;
        queue.next_group = self.next_group.max(1);
        for ((from, to), before) in &self.growths {
            let before = (0..*from).map(|at| before.get(&at).copied().unwrap_or(0)).collect();
            queue.add_partitions(*to, before);
        }
        debug_assert_eq!(queue.partitions(), to.max(config.partitions));
        self.groups.retain(|_, group| !group.is_removed && group.commit.is_some());
        for group in self.groups.values_mut() {
            group.settled.values_mut().for_each(Ranges::merge);
        }
        let partitions = std::mem::take(&mut self.partitions);
        for (partition, restored) in partitions {
            if partition < queue.partitions() {
                self.fill(&mut queue, partition, restored, cx);
            }
        }
        self.make_groups(&mut queue);
        queue.lift_bars(cx);
        queue.wake_at = queue.next_deadline();
        queue.store_what_is_too_much(cx);
        Ok(queue)
    }

    fn fill(
        &self,
        queue: &mut Queue,
        partition: u16,
        mut restored: RestoredPartition,
        cx: &mut Context<'_>,
    ) {
        restored.gone.merge();
        let is_work = queue.config.mode == Mode::Work;
        let is_gone = |offset| {
            let by_all = |group: &RestoredGroup| {
                group.settled.get(&partition).is_some_and(|settled| settled.contains(offset))
            };
            restored.gone.contains(offset)
                || (is_work && !self.groups.is_empty() && self.groups.values().all(by_all))
        };
        let messages = &mut restored.messages;
        messages.sort_by_key(|message| (message.offset, message.meta.position));
        // Of a message that was written again the last record.
        messages.reverse();
        messages.dedup_by_key(|message| message.offset);
        messages.reverse();
        messages.retain(|message| !is_gone(message.offset));
        let start = messages.first().map_or(restored.end, |message| message.offset);
        let home = &mut queue.partitions[usize::from(partition)];
        (home.start, home.end) = (start, start);
        let mut replaced = Vec::new();
        for message in messages {
            let deliver_at = message.deliver_at.filter(|&at| at > cx.now);
            home.end = message.offset;
            home.push(&message.meta, deliver_at, cx.index);
            queue.live += 1;
            queue.bytes += u64::from(message.meta.bytes);
            queue.delayed += u32::from(deliver_at.is_some());
            if queue.config.is_compacted {
                home.note_key(message.key_hash, message.meta.bytes);
                replaced.extend(home.replace(message.offset));
            }
        }
        home.end = restored.end;
        home.kept = restored.end;
        for (offset, bytes) in replaced {
            queue.remove(partition, offset, Some(bytes), cx.index);
        }
    }

    fn make_groups(&self, queue: &mut Queue) {
        let none = Ranges::default();
        for (&id, restored) in &self.groups {
            let mut group = Group::new(id, restored.commit.unwrap_or_default());
            for (partition, home) in (0..).zip(&queue.partitions) {
                let settled = restored.settled.get(&partition).unwrap_or(&none);
                let (seeks, cursor) = restored.cursors.get(&partition).copied().unwrap_or_default();
                let floor = settled.floor().max(cursor).max(home.start);
                let mut lane = Lane::new(floor);
                lane.seeks = seeks;
                for &(from, to) in &settled.0 {
                    for offset in from.max(floor)..to.min(home.end) {
                        lane.claims().settled.mark(offset);
                    }
                }
                debug_assert!(settled.end() <= home.end);
                lane.advance(home);
                group.lanes.push(lane);
            }
            self.note_attempts(restored, &mut group, queue);
            queue.groups.push(group);
            queue.bar_lanes(queue.groups.len() - 1, 0);
        }
    }

    fn note_attempts(&self, restored: &RestoredGroup, group: &mut Group, queue: &Queue) {
        let mut attempts: Vec<_> = restored.attempts.iter().collect();
        attempts.sort_unstable();
        for (id, &attempts) in attempts {
            let Some(lane) = group.lanes.get_mut(usize::from(id.partition)) else { continue };
            let home = &queue.partitions[usize::from(id.partition)];
            let Look::Here(meta) = home.look(id.offset) else { continue };
            if lane.is_settled(id.offset) {
                continue;
            }
            lane.claims().failed.insert(id.offset, attempts);
            if queue.config.is_serial {
                // It had its key, and keeps it until it is settled.
                lane.claims().keys.hold(meta.key, id.offset);
            }
        }
    }
}

/// See [`Queue::snapshot`].
pub(crate) fn snapshot(queue: &Queue, changes: &mut Vec<Change>) {
    changes.push(Change::GroupsNumbered { next: queue.next_group });
    for growth in &queue.growths {
        let (from, to) = (growth.before.len() as u16, growth.to);
        for (partition, &before) in (0..).zip(&growth.before) {
            changes.push(Change::Grown { from, to, partition, before });
        }
    }
    let is_work = queue.config.mode == Mode::Work;
    for (partition, home) in (0..).zip(&queue.partitions) {
        let everybody = (GroupId::EVERYBODY, partition);
        push_settled(changes, everybody, 0, home.start);
        if is_work {
            home.hole_ranges(|from, to| push_settled(changes, everybody, from, to));
        }
    }
    for group in &queue.groups {
        let (id, commit) = (group.id, group.commit);
        changes.push(Change::GroupCreated { group: id, commit });
        for (partition, lane) in (0..).zip(&group.lanes) {
            let end = queue.partitions[usize::from(partition)].end;
            if is_work {
                snapshot_work(id, partition, lane, end, changes);
            } else {
                let (offset, seeks) = (lane.floor, lane.seeks);
                changes.push(Change::Cursor { group: id, partition, offset, seeks });
            }
        }
    }
}

fn snapshot_work(group: GroupId, partition: u16, lane: &Lane, end: u64, changes: &mut Vec<Change>) {
    push_settled(changes, (group, partition), 0, lane.floor);
    let Some(claims) = &lane.claims else { return };
    if claims.settled.count() > 0 {
        for offset in (lane.floor..end).filter(|&offset| claims.settled.get(offset)) {
            push_settled(changes, (group, partition), offset, offset + 1);
        }
    }
    let failed = claims.failed.iter().map(|(&offset, &attempts)| (offset, attempts));
    let leased = claims.leases.iter().map(|lease| (lease.offset, lease.attempt - 1));
    let dying = claims.dying.iter().map(|(&offset, dying)| (offset, dying.attempts));
    for (offset, attempts) in failed.chain(leased).chain(dying).filter(|&(_, tries)| tries > 0) {
        let id = MessageId { partition, offset };
        changes.push(Change::Attempts { group, id, attempts });
    }
}
