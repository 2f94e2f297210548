//! Whether the queue did what the reference does.

use std::collections::BTreeMap;

use dunlin_queue::partitioned::limits::FAIR_EVERY;
use dunlin_queue::partitioned::{Change, DeadReason, Delivery, GroupId, MemberId, MessageId};

use super::{Group, Message, Rig, Seen, State, log::Facts};

impl Rig {
    pub(super) fn may_be_delivered(&self, group: &Group, id: MessageId) -> bool {
        let message = &self.messages[&id];
        let is_ready = matches!(group.seen[&id].state, State::Waiting { is_ready: true, .. });
        // One that was as good as dead before a crash is a dead letter when it is come to.
        let may_try = !group.seen[&id].is_spent(&self.config);
        message.is_kept && !message.is_gone && is_ready && may_try
    }

    pub(super) fn in_partition(
        &self,
        partition: u16,
    ) -> impl DoubleEndedIterator<Item = (&MessageId, &Message)> {
        let id = |offset| MessageId { partition, offset };
        self.messages.range(id(0)..=id(u64::MAX))
    }

    /// Whether another message of the key is under way.
    pub(super) fn is_key_taken(&self, group: &Group, id: MessageId) -> bool {
        let key = self.messages[&id].new.key_hash as u32;
        self.in_partition(id.partition).any(|(&other, message)| {
            let seen = &group.seen[&other];
            let is_out = matches!(seen.state, State::Leased { .. } | State::Dying { .. });
            // What is passed over in this very poll does not count.
            let is_ready = matches!(seen.state, State::Waiting { is_ready: true, .. });
            let is_over = (is_ready && message.is_expired(self.now))
                || (seen.is_spent(&self.config) && !self.config.has_dead_letters);
            let is_tried = seen.attempts > 0 && seen.state != State::Settled;
            let is_under_way = is_out || (is_tried && !is_over);
            other != id && !message.is_gone && message.new.key_hash as u32 == key && is_under_way
        })
    }

    pub(super) fn check_delivery(&mut self, group_id: GroupId, to: MemberId, delivery: &Delivery) {
        let id = delivery.id;
        let group = &self.groups[&group_id];
        let message = &self.messages[&id];
        assert!(self.may_be_delivered(group, id), "{:?} {message:?}", group.seen[&id]);
        assert!(!message.is_expired(self.now));
        assert_eq!((delivery.position, delivery.bytes), (message.position, message.new.bytes));
        let attempts = group.seen[&id].attempts;
        assert_eq!(delivery.attempt, attempts + 1);
        assert!(self.config.attempts_max == 0 || delivery.attempt <= self.config.attempts_max);
        assert_eq!(group.owners.get(&id.partition), Some(&(to, delivery.generation, None)));
        let others =
            self.in_partition(id.partition).filter_map(|(id, _)| match group.seen[id].state {
                State::Leased { member, .. } => Some(member),
                _ => None,
            });
        assert!(others.into_iter().all(|other| other == to), "one owner");
        for (at, (from, ..)) in self.growths.iter().enumerate() {
            let is_new = (*from..self.growths[at].1).contains(&id.partition);
            assert!(!is_new || group.lifted.contains(&at), "order over a growth");
        }
        let deliverable = |(&other, one): (&MessageId, &Message)| {
            let may = self.may_be_delivered(group, other) && !one.is_expired(self.now);
            may.then_some((other, one.new.priority))
        };
        let all: Vec<_> = self.in_partition(id.partition).filter_map(deliverable).collect();
        let oldest = all.first().unwrap().0;
        if self.config.is_serial {
            assert!(!self.is_key_taken(group, id), "one of a key at a time");
            let mine = (message.new.key_hash as u32, message.new.priority);
            let overtaken = all.iter().find(|(other, _)| {
                let new = &self.messages[other].new;
                other < &id
                    && (new.key_hash as u32, new.priority) == mine
                    && new.deliver_at.is_none()
                    && message.new.deliver_at.is_none()
            });
            assert_eq!(overtaken, None, "order of a key");
        } else {
            let highest = all.iter().map(|(_, priority)| *priority).max();
            let best = all.iter().find(|(_, priority)| Some(*priority) == highest).unwrap().0;
            assert!(id == best || id == oldest, "{id:?} rather than {best:?} or {oldest:?}");
        }
        let deadline = self.now.plus_millis(u64::from(self.config.lease_ms));
        assert_eq!(delivery.deadline, deadline);
        let is_serial = self.config.is_serial;
        let group = self.group(group_id);
        let overtaken = group.overtaken.entry(id.partition).or_default();
        *overtaken = if id == oldest { 0 } else { overtaken.saturating_add(1) };
        assert!(is_serial || *overtaken < FAIR_EVERY, "starving");
        group.seen.get_mut(&id).unwrap().state = State::Leased { member: to, deadline };
    }

    /// Nothing that might have been delivered was left.
    pub(super) fn check_complete(&self, group_id: GroupId, to: MemberId, with_expired: bool) {
        if !self.wanted.is_empty() {
            return;
        }
        let group = &self.groups[&group_id];
        for (&partition, owner) in &group.owners {
            let is_barred = self.growths.iter().enumerate().any(|(at, (from, to, _))| {
                (*from..*to).contains(&partition) && !group.lifted.contains(&at)
            });
            if owner.0 != to || owner.2.is_some() || is_barred {
                continue;
            }
            let left = self.in_partition(partition).find(|(id, _)| {
                self.may_be_delivered(group, **id)
                    && (with_expired || !self.messages[*id].is_expired(self.now))
                    && !(self.config.is_serial && self.is_key_taken(group, **id))
            });
            assert!(left.is_none(), "left: {left:?}");
        }
    }

    pub(crate) fn check_needed(&self) {
        for (&id, message) in &self.messages {
            assert_eq!(self.queue.is_needed(id), !message.is_gone, "{id:?} {message:?}");
        }
    }

    pub(super) fn check_change(&mut self, change: &Change) {
        match *change {
            Change::Settled { group: GroupId::EVERYBODY, partition, from, to } => {
                for offset in from..to {
                    let id = MessageId { partition, offset };
                    let Some(message) = self.messages.get_mut(&id) else { continue };
                    message.is_gone = true;
                    for group in self.groups.values_mut() {
                        group.seen.get_mut(&id).unwrap().state = State::Settled;
                        group.dying.remove(&id);
                        group.unburied.remove(&id);
                    }
                }
            }
            Change::Settled { group, partition, from, to } => {
                let now = self.now;
                for offset in from..to {
                    let id = MessageId { partition, offset };
                    let Some(message) = self.messages.get(&id) else { continue };
                    let Some(group) = self.groups.get_mut(&group) else { continue };
                    let seen = group.seen.get_mut(&id).unwrap();
                    let is_waiting = matches!(seen.state, State::Waiting { is_ready: true, .. });
                    let may_pass = is_waiting && message.is_expired(now);
                    // After a crash it may be as good as dead.
                    let is_dead = is_waiting && seen.is_spent(&self.config);
                    assert!(seen.state == State::Settled || may_pass || is_dead, "{id:?} {seen:?}");
                    seen.state = State::Settled;
                }
            }
            Change::Dead { group, id, reason, attempts } => {
                assert!(self.dead.insert((group, id)), "dead twice: {id:?}");
                let max = self.config.attempts_max;
                assert!(reason == DeadReason::Rejected || attempts == max);
            }
            Change::Attempts { group, id, attempts } => {
                assert_eq!(self.groups[&group].seen[&id].recorded(), attempts);
            }
            _ => (),
        }
    }

    pub(super) fn check_figures(&self) {
        let live: Vec<_> = self.messages.values().filter(|message| !message.is_gone).collect();
        let stats = self.queue.stats(self.now);
        assert_eq!(stats.depth, live.len() as u64);
        let is_exact = self.index.resident_bytes_max() > 0;
        let bytes = live.iter().map(|message| u64::from(message.new.bytes)).sum::<u64>();
        assert!(!is_exact || stats.bytes == bytes);
        for (&id, group) in &self.groups {
            let stats = self.queue.group_stats(id, self.now).unwrap();
            let seen =
                |(id, seen): (&MessageId, &Seen)| (!self.messages[id].is_gone).then_some(*seen);
            let states: Vec<Seen> = group.seen.iter().filter_map(seen).collect();
            let count =
                |is: fn(&State) -> bool| states.iter().filter(|seen| is(&seen.state)).count();
            assert_eq!(stats.leased, count(|state| matches!(state, State::Leased { .. })));
            assert_eq!(stats.dying, count(|state| matches!(state, State::Dying { .. })));
            let lag = states.iter().filter(|seen| seen.state != State::Settled).count() as u64;
            assert!(stats.lag >= lag, "{} < {lag}", stats.lag);
            assert_eq!(stats.members, group.members.len());
            assert_eq!(stats.dying, group.dying.len() + group.unburied.len());
            self.check_owners(id, group);
        }
        self.check_facts();
        for &(id, member) in &self.asleep {
            let Some(group) = self.groups.get(&id) else { continue };
            let leased = group.seen.values().filter(|seen| {
                matches!(seen.state, State::Leased { member: holder, .. } if holder == member)
            });
            let is_member = group.members.iter().any(|(other, _)| *other == member);
            if is_member && leased.count() < self.config.limits.leases_per_member_max as usize {
                self.check_complete(id, member, false);
            }
        }
    }

    pub(super) fn check_owners(&self, id: GroupId, group: &Group) {
        let mut owned: BTreeMap<MemberId, usize> =
            group.members.iter().map(|(member, _)| (*member, 0)).collect();
        let mut is_moving = false;
        for partition in 0..self.queue.partitions() {
            let (owner, generation) = self.queue.owner(id, partition).unwrap();
            if let Some((member, of, until)) = group.owners.get(&partition)
                && (until.is_none() || owner == Some(*member))
            {
                assert_eq!((owner, generation), (Some(*member), *of));
            }
            assert_eq!(owner.is_none(), group.members.is_empty());
            let Some(owner) = owner else { continue };
            is_moving |= group.owners[&partition].2.is_some();
            *owned.get_mut(&owner).expect("a member") += 1;
        }
        let (most, least) = (owned.values().max(), owned.values().min());
        if let (Some(most), Some(least), false) = (most, least, is_moving) {
            assert!(most - least <= 1, "{owned:?}");
        }
    }

    /// What was written down is what is so.
    pub(super) fn check_facts(&self) {
        let changes: Vec<_> = self.log.iter().flatten().copied().collect();
        let facts = Facts::of(&changes);
        assert_eq!(facts.groups, self.groups.keys().copied().collect());
        for (&id, message) in self.messages.iter().filter(|(_, message)| !message.is_gone) {
            assert!(!facts.settled.contains(&(GroupId::EVERYBODY, id)));
            for (&group_id, group) in &self.groups {
                let seen = &group.seen[&id];
                let is_settled = facts.settled.contains(&(group_id, id));
                assert_eq!(is_settled, seen.state == State::Settled, "{id:?} {message:?}");
                let attempts = facts.attempts.get(&(group_id, id)).copied().unwrap_or(0);
                assert!(is_settled || attempts == seen.recorded(), "{attempts} {seen:?}");
            }
        }
    }
}
