//! What the queue has written down, and what a crash leaves of it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_queue::partitioned::{
    Change, Context, GroupId, IndexPool, Located, MessageId, Mode, NewMessage, REJECTED,
    RestoredMessage, Restoring,
};

use super::{Group, Message, Rig, Seen, State};
use crate::call;

impl Rig {
    /// The oldest records go: what is needed is written again.
    pub(crate) fn clean(&mut self) {
        let mut batch = Vec::new();
        let ids: Vec<_> = self.messages.keys().copied().collect();
        for id in ids {
            let message = self.messages[&id];
            assert_eq!(self.queue.is_needed(id), !message.is_gone, "{id:?}");
            if message.is_gone {
                continue;
            }
            let position = if message.is_kept { self.position() } else { 0 };
            batch.push((enqueued(id, &message), position));
            if !message.is_kept {
                continue;
            }
            self.messages.get_mut(&id).unwrap().position = position;
            let mut located = call!(self, moved, id, position);
            self.absorb();
            while located == Located::Away {
                self.load();
                located = call!(self, moved, id, position);
            }
            assert_eq!(located, Located::At { position, bytes: message.new.bytes });
        }
        let mut snapshot = Vec::new();
        self.queue.snapshot(&mut snapshot);
        batch.extend(snapshot.into_iter().map(|change| (change, 0)));
        self.log = vec![batch];
        self.durable = 1;
        self.unkept.iter_mut().for_each(|(_, durable)| *durable = 1);
        self.absorb();
    }

    /// The last `lost` calls are not in the log, as far as they may be missing.
    pub(crate) fn crash(&mut self, lost: usize, seed: u64) {
        let end = self.log.len().saturating_sub(lost).max(self.durable);
        self.log.truncate(end);
        self.durable = end;
        let mut changes: Vec<_> = self.log.iter().flatten().copied().collect();
        shuffle(&mut changes, seed);
        let mut restoring = Restoring::default();
        for (change, position) in &changes {
            restoring.apply(change, *position);
            if seed.is_multiple_of(3) {
                restoring.apply(change, *position);
            }
        }
        let restoring = written_again(&restoring, self.config.mode);
        self.index = IndexPool::new(self.index.resident_bytes_max());
        self.stored.clear();
        self.wanted.clear();
        self.asleep.clear();
        self.changes.clear();
        self.actions.clear();
        let mut cx = Context {
            now: self.now,
            changes: &mut self.changes,
            actions: &mut self.actions,
            index: &mut self.index,
        };
        self.queue = restoring.finish(self.config, &mut cx).unwrap();
        self.rebuild(&changes);
        self.absorb();
        self.check_needed();
    }

    /// The reference begins anew with what was written down.
    pub(super) fn rebuild(&mut self, changes: &[(Change, u64)]) {
        self.messages.clear();
        self.unkept.clear();
        self.growths.clear();
        self.dead.clear();
        let facts = Facts::of(changes);
        for (change, position) in changes {
            match *change {
                Change::Enqueued {
                    id,
                    at,
                    key_hash,
                    bytes,
                    priority,
                    expiry_s,
                    deliver_at,
                    ..
                } => {
                    let new = NewMessage {
                        key_hash,
                        bytes,
                        priority,
                        expiry_s,
                        deliver_at,
                        original: None,
                    };
                    let (is_kept, is_gone) = (true, false);
                    let message = Message { at, new, is_kept, is_gone, position: *position };
                    self.messages.insert(id, message);
                }
                Change::Dead { group, id, .. } => {
                    assert!(self.dead.insert((group, id)), "dead twice");
                }
                Change::Grown { from, to, partition, before } => {
                    let known = self.growths.iter().position(|one| (one.0, one.1) == (from, to));
                    let at = known.unwrap_or_else(|| {
                        self.growths.push((from, to, BTreeMap::new()));
                        self.growths.len() - 1
                    });
                    self.growths[at].2.insert(partition, before);
                }
                _ => (),
            }
        }
        self.growths.sort_by_key(|growth| growth.0);
        self.groups = facts.groups.iter().map(|&id| (id, Group::default())).collect();
        let by_all = |id: MessageId| {
            let mut groups = facts.groups.iter();
            !facts.groups.is_empty() && groups.all(|&group| facts.settled.contains(&(group, id)))
        };
        for (&id, message) in &mut self.messages {
            message.is_gone = facts.settled.contains(&(GroupId::EVERYBODY, id)) || by_all(id);
            for (&group_id, group) in &mut self.groups {
                let is_settled = facts.settled.contains(&(group_id, id));
                let attempts = facts.attempts.get(&(group_id, id)).copied().unwrap_or(0);
                let is_delayed = message.new.deliver_at.is_some_and(|at| at > self.now);
                let due = message.new.deliver_at.unwrap_or_default();
                let waiting = State::Waiting { is_ready: !is_delayed, due };
                let state = if is_settled || message.is_gone { State::Settled } else { waiting };
                let is_rejected = attempts & REJECTED != 0;
                let attempts = attempts & !REJECTED;
                group.seen.insert(id, Seen { state, attempts, is_rejected });
            }
        }
    }

    /// Takes in what the queue has said, and looks whether it is the reference's opinion too.
    pub(crate) fn absorb(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            self.check_change(change);
        }
        if !changes.is_empty() {
            self.log.push(changes.iter().map(|change| (*change, 0)).collect());
            if self.log.len() == 1 {
                self.durable = self.durable.min(1);
            }
        }
        for action in std::mem::take(&mut self.actions) {
            self.act(action);
        }
        let groups = &self.groups;
        let is_any = changes
            .iter()
            .any(|change| matches!(change, Change::Settled { .. } | Change::GroupRemoved { .. }));
        for (id, message) in self.messages.iter_mut().filter(|_| is_any) {
            let by_all = groups.values().all(|group| group.seen[id].state == State::Settled);
            message.is_gone |= !groups.is_empty() && by_all;
        }
        self.lift();
        self.absorbed += 1;
        if self.messages.len() < 40 || self.absorbed.is_multiple_of(32) {
            self.check_figures();
        }
    }
}

/// What is made of what [`Restoring`] says is in it: the same, so that all else that is found is
/// found of it.
pub(crate) fn written_again(restoring: &Restoring, mode: Mode) -> Restoring {
    let (mut changes, mut same) = (Vec::new(), Vec::new());
    restoring.changes(mode, &mut changes);
    let messages: Vec<_> = restoring.messages(mode).collect();
    let mut again = Restoring::default();
    changes.iter().for_each(|change| again.apply(change, 0));
    for message in &messages {
        let RestoredMessage { id, at, key_hash, bytes, priority, expiry_s, deliver_at, .. } =
            *message;
        let original = None;
        let change =
            Change::Enqueued { id, at, key_hash, bytes, priority, expiry_s, deliver_at, original };
        again.apply(&change, message.position);
    }
    again.changes(mode, &mut same);
    assert_eq!(same, changes);
    assert!(again.messages(mode).eq(messages));
    assert!(again.group_ids().eq(restoring.group_ids()));
    again
}

pub(super) fn enqueued(id: MessageId, message: &Message) -> Change {
    let NewMessage { key_hash, bytes, priority, expiry_s, deliver_at, original } = message.new;
    let at = message.at;
    Change::Enqueued { id, at, key_hash, bytes, priority, expiry_s, deliver_at, original }
}

pub(crate) fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for at in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(at, (seed >> 33) as usize % (at + 1));
    }
}

/// Changes, read in the plainest way.
pub(super) struct Facts {
    pub(super) groups: BTreeSet<GroupId>,
    pub(super) settled: BTreeSet<(GroupId, MessageId)>,
    pub(super) attempts: BTreeMap<(GroupId, MessageId), u32>,
}

impl Facts {
    pub(super) fn of(changes: &[(Change, u64)]) -> Self {
        let mut facts =
            Self { groups: BTreeSet::new(), settled: BTreeSet::new(), attempts: BTreeMap::new() };
        for (change, _) in changes {
            match *change {
                Change::Settled { group, partition, from, to } => {
                    let ids = (from..to).map(|offset| (group, MessageId { partition, offset }));
                    facts.settled.extend(ids);
                }
                Change::GroupCreated { group, .. } => _ = facts.groups.insert(group),
                Change::Attempts { group, id, attempts } => {
                    let known = facts.attempts.entry((group, id)).or_default();
                    *known = (*known).max(attempts);
                }
                _ => (),
            }
        }
        for (change, _) in changes {
            if let Change::GroupRemoved { group } = change {
                facts.groups.remove(group);
            }
        }
        facts
    }
}
