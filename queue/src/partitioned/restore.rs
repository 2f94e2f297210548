//! A queue from what was written down of it, and what to write down of one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;

use super::change::push_settled;
use super::chunk::Meta;
use super::group::{Group, Lane};
use super::index::Look;
use super::queue::{Context, Queue};
use super::rows::{Done, Read, Rows};
use super::{BadConfig, Change, Commit, Config, DeadReason, GroupId, MessageId, Mode, REJECTED};

#[derive(Debug, Default)]
pub(crate) struct RestoredPartition {
    pub(crate) messages: Rows,
    pub(crate) end: u64,
    gone: Done,
}

#[derive(Debug, Default)]
pub(crate) struct RestoredGroup {
    pub(crate) commit: Option<Commit>,
    is_removed: bool,
    settled: BTreeMap<u16, Done>,
    pub(crate) cursors: BTreeMap<u16, (u32, u64)>,
    pub(crate) attempts: HashMap<MessageId, u32, RandomState>,
}

impl RestoredGroup {
    pub(crate) fn is_there(&self) -> bool {
        self.commit.is_some() && !self.is_removed
    }

    pub(crate) fn has_settled(&self, id: MessageId) -> bool {
        self.settled.get(&id.partition).is_some_and(|settled| settled.contains(id.offset))
    }
}

/// Takes the changes of a queue in any order, also those that mean nothing any more, and some of
/// them twice. Needs 32 bytes for each message meanwhile, and those that are gone for everybody
/// only until that is said.
#[derive(Debug)]
pub struct Restoring {
    pub(crate) partitions: BTreeMap<u16, RestoredPartition>,
    pub(crate) groups: BTreeMap<GroupId, RestoredGroup>,
    pub(crate) growths: BTreeMap<(u16, u16), BTreeMap<u16, u64>>,
    pub(crate) next_group: u32,
}

impl Default for Restoring {
    fn default() -> Self {
        Self {
            partitions: BTreeMap::new(),
            groups: BTreeMap::new(),
            growths: BTreeMap::new(),
            next_group: 1,
        }
    }
}

impl Restoring {
    /// Takes one change; `position` is where a message is in the log, of one that was written again
    /// the last one. Of other changes it means nothing.
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
                let (key, is_delayed) = (key_hash as u32, deliver_at.is_some());
                let meta = Meta { position, at, expiry_s, bytes, key, priority, is_delayed };
                let home = self.partition(id.partition, id.offset + 1);
                if !home.gone.contains(id.offset) {
                    let offset = id.offset;
                    home.messages.insert(&Read { offset, meta, key_hash, deliver_at });
                }
            }
            Change::Settled { group: GroupId::EVERYBODY, partition, from, to } => {
                let home = self.partition(partition, to);
                home.messages.remove(from, to);
                home.gone.add(from, to);
            }
            Change::Settled { group, partition, from, to } => {
                self.partition(partition, to);
                self.group(group).settled.entry(partition).or_default().add(from, to);
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
            Change::GroupCreated { group, commit } => {
                let group = self.group(group);
                if !group.is_removed {
                    group.commit = Some(commit);
                }
            }
            Change::GroupRemoved { group } => {
                *self.group(group) = RestoredGroup { is_removed: true, ..Default::default() };
            }
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
        self.next_group = self.next_group.max(id.0.saturating_add(1));
        self.groups.entry(id).or_default()
    }

    /// The queue, if it began with this configuration, its partitions in particular; the rest may
    /// be as it is now. All it has may be delivered; its members have to join again.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn finish(
        mut self,
        config: impl Into<Arc<Config>>,
        cx: &mut Context<'_>,
    ) -> Result<Queue, BadConfig> {
        let mut queue = Queue::new(config)?;
        let to = self.growths.keys().map(|&(_, to)| to).max().unwrap_or(0);
        queue.next_group = self.next_group;
        for ((from, to), before) in &self.growths {
            let before = (0..*from).map(|at| before.get(&at).copied().unwrap_or(0)).collect();
            queue.add_partitions(*to, before);
        }
        debug_assert_eq!(queue.partitions(), to.max(queue.config.partitions));
        self.groups.retain(|_, group| group.is_there());
        let partitions = std::mem::take(&mut self.partitions);
        for (partition, restored) in partitions {
            if partition < queue.partitions() {
                self.fill(&mut queue, partition, restored, cx);
            }
        }
        self.make_groups(&mut queue);
        queue.lift_bars(cx);
        queue.set_alarms();
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
        let (mode, is_compacted) = (queue.config.mode, queue.config.is_compacted);
        let home = &mut queue.partitions[usize::from(partition)];
        let mut replaced = Vec::new();
        restored.messages.drain(|Read { offset, meta, key_hash, deliver_at }| {
            if self.is_settled_by_all(MessageId { partition, offset }, mode) {
                return;
            }
            let deliver_at = deliver_at.filter(|&at| at > cx.now);
            home.skip_to(offset);
            home.push(&meta, deliver_at, cx.index);
            queue.live += 1;
            queue.bytes += u64::from(meta.bytes);
            queue.delayed += u32::from(deliver_at.is_some());
            if is_compacted {
                home.note_key(key_hash, meta.bytes);
                replaced.extend(home.replace(offset));
            }
        });
        home.skip_to(restored.end);
        home.keep_before(restored.end);
        for (offset, bytes) in replaced {
            queue.remove(partition, offset, Some(bytes), cx.index);
        }
    }

    /// Whether a work queue's message is gone because all groups there are have settled it; the
    /// groups that are gone must have been taken out.
    fn is_settled_by_all(&self, id: MessageId, mode: Mode) -> bool {
        mode == Mode::Work
            && !self.groups.is_empty()
            && self.groups.values().all(|group| group.has_settled(id))
    }

    fn make_groups(&self, queue: &mut Queue) {
        let none = Done::default();
        for (&id, restored) in &self.groups {
            let mut group = Group::new(id, restored.commit.unwrap_or_default());
            for (partition, home) in (0..).zip(&queue.partitions) {
                let settled = restored.settled.get(&partition).unwrap_or(&none);
                let (seeks, cursor) = restored.cursors.get(&partition).copied().unwrap_or_default();
                let floor = settled.floor().max(cursor).max(home.start());
                let mut lane = Lane::new(floor);
                if seeks > 0 {
                    group.seeks.insert(partition, seeks);
                }
                for offset in settled.above().filter(|&offset| offset >= floor) {
                    debug_assert!(offset < home.end());
                    lane.claims().settled.mark(offset);
                }
                lane.advance(home);
                group.lanes.push(lane);
            }
            note_attempts(restored, &mut group, queue);
            queue.groups.push(group);
            queue.bar_lanes(queue.groups.len() - 1, 0);
        }
    }
}

fn note_attempts(restored: &RestoredGroup, group: &mut Group, queue: &Queue) {
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
        push_settled(changes, everybody, 0, home.start());
        if is_work {
            home.hole_ranges(|from, to| push_settled(changes, everybody, from, to));
        }
    }
    for group in &queue.groups {
        let (id, commit) = (group.id, group.commit);
        changes.push(Change::GroupCreated { group: id, commit });
        for (partition, lane) in (0..).zip(&group.lanes) {
            let end = queue.partitions[usize::from(partition)].end();
            if is_work {
                snapshot_work(id, partition, lane, end, changes);
            } else {
                let (offset, seeks) = (lane.floor, group.seeks(partition));
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
    let dying = claims.dying.iter().map(|(&offset, dying)| {
        let flag = if dying.reason == DeadReason::Rejected { REJECTED } else { 0 };
        (offset, dying.attempts | flag)
    });
    for (offset, attempts) in failed.chain(leased).chain(dying).filter(|&(_, tries)| tries > 0) {
        let id = MessageId { partition, offset };
        changes.push(Change::Attempts { group, id, attempts });
    }
}
