//! A reference queue, obviously right and slow, and the real one beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dunlin_queue::Time;
use dunlin_queue::partitioned::limits::FAIR_EVERY;
use dunlin_queue::partitioned::{
    Action, Change, Commit, Config, Context, DeadReason, Delivery, FullPolicy, GroupId, IndexPool,
    Located, MemberId, MessageId, Mode, NewMessage, Queue, REJECTED, Refused, RestoredMessage,
    Restoring, Start,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `is_ready` when a timer has said that its time has come.
    Waiting {
        is_ready: bool,
        due: Time,
    },
    Leased {
        member: MemberId,
        deadline: Time,
    },
    Dying {
        reason: DeadReason,
    },
    Settled,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) state: State,
    /// Deliveries that failed.
    pub(crate) attempts: u32,
    /// The last of them was rejected.
    pub(crate) is_rejected: bool,
}

impl Seen {
    fn new(state: State) -> Self {
        Self { state, attempts: 0, is_rejected: false }
    }

    /// Whether it is not to be delivered any more.
    fn is_spent(&self, config: &Config) -> bool {
        let max = config.attempts_max;
        self.is_rejected || max != 0 && self.attempts >= max
    }

    /// What the log has of its attempts.
    fn recorded(&self) -> u32 {
        self.attempts | if self.is_rejected { REJECTED } else { 0 }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) at: Time,
    pub(crate) new: NewMessage,
    pub(crate) is_kept: bool,
    pub(crate) is_gone: bool,
    pub(crate) position: u64,
}

impl Message {
    fn is_expired(&self, now: Time) -> bool {
        self.new.expiry_s.is_some_and(|seconds| self.at.plus_seconds(seconds) <= now)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) seen: BTreeMap<MessageId, Seen>,
    pub(crate) members: Vec<(MemberId, Time)>,
    /// Whose a partition is, of which generation, and until when it is to be given up.
    pub(crate) owners: BTreeMap<u16, (MemberId, u32, Option<Time>)>,
    /// Deliveries since the oldest message was delivered, by partition.
    overtaken: BTreeMap<u16, u8>,
    /// Growths whose new partitions may be read.
    lifted: BTreeSet<usize>,
    /// Dead letters the owner has to write, and those it could not write.
    pub(crate) dying: BTreeSet<MessageId>,
    pub(crate) unburied: BTreeMap<MessageId, Time>,
}

pub(crate) struct Rig {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) queue: Queue,
    pub(crate) index: IndexPool,
    changes: Vec<Change>,
    actions: Vec<Action>,
    pub(crate) messages: BTreeMap<MessageId, Message>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    growths: Vec<(u16, u16, BTreeMap<u16, u64>)>,
    dead: BTreeSet<(GroupId, MessageId)>,
    /// What each call wrote down, and up to where it cannot be lost any more.
    log: Vec<Vec<(Change, u64)>>,
    durable: usize,
    pub(crate) unkept: Vec<(MessageId, usize)>,
    stored: HashMap<u64, Vec<u8>>,
    wanted: Vec<(u16, u64, u64)>,
    next_position: u64,
    /// Members whose last poll gave less than it might have, and who were told nothing since.
    asleep: BTreeSet<(GroupId, MemberId)>,
    absorbed: usize,
}

/// Calls a method of the queue with a context.
#[macro_export]
macro_rules! call {
    ($rig:expr, $method:ident $(, $argument:expr)*) => {{
        let rig = &mut *$rig;
        let mut cx = dunlin_queue::partitioned::Context {
            now: rig.now,
            changes: &mut rig.changes,
            actions: &mut rig.actions,
            index: &mut rig.index,
        };
        rig.queue.$method($($argument,)* &mut cx)
    }};
}

impl Rig {
    pub(crate) fn new(config: Config, index_bytes: usize) -> Self {
        Self {
            config,
            now: Time::from_millis(1_000_000),
            queue: Queue::new(config).unwrap(),
            index: IndexPool::new(index_bytes),
            changes: Vec::new(),
            actions: Vec::new(),
            messages: BTreeMap::new(),
            groups: BTreeMap::new(),
            growths: Vec::new(),
            dead: BTreeSet::new(),
            log: Vec::new(),
            durable: 0,
            unkept: Vec::new(),
            stored: HashMap::new(),
            wanted: Vec::new(),
            next_position: 1,
            asleep: BTreeSet::new(),
            absorbed: 0,
        }
    }

    fn position(&mut self) -> u64 {
        self.next_position += 1;
        self.next_position
    }

    pub(crate) fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).unwrap()
    }

    // The operations: the reference says what has to come out, then the queue is asked.

    pub(crate) fn enqueue(&mut self, new: NewMessage) {
        let live = self.messages.values().filter(|message| !message.is_gone);
        let (depth, bytes) =
            live.fold((0, 0), |sum, one| (sum.0 + 1, sum.1 + u64::from(one.new.bytes)));
        let delayed = new.deliver_at.filter(|&at| at > self.now);
        let retention = self.config.retention;
        let is_full =
            depth >= retention.messages_max || bytes + u64::from(new.bytes) > retention.bytes_max;
        let answer = call!(self, enqueue, &new);
        if is_full && retention.policy == FullPolicy::Reject {
            assert!(matches!(
                answer,
                Err(Refused::TooManyMessages | Refused::TooManyBytes | Refused::TooLarge)
            ));
            self.absorb();
            return;
        }
        let id = answer.unwrap();
        assert_eq!(id.partition, self.queue.partition_of(new.key_hash));
        let before = self.messages.range(..=MessageId { offset: u64::MAX, ..id }).next_back();
        let next = before.filter(|(other, _)| other.partition == id.partition);
        assert!(next.is_none_or(|(last, _)| last.offset < id.offset), "offsets grow");
        let (at, is_kept, is_gone) = (self.now, false, false);
        self.messages.insert(id, Message { at, new, is_kept, is_gone, position: 0 });
        for group in self.groups.values_mut() {
            let due = delayed.unwrap_or_default();
            let state = State::Waiting { is_ready: delayed.is_none(), due };
            group.seen.insert(id, Seen::new(state));
        }
        self.unkept.push((id, self.log.len() + 1));
        self.absorb();
    }

    /// The log has the next `count` messages.
    pub(crate) fn keep(&mut self, count: usize) {
        for (id, durable) in self.unkept.drain(..count.min(self.unkept.len())).collect::<Vec<_>>() {
            let position = self.position();
            let message = self.messages.get_mut(&id).unwrap();
            message.is_kept = true;
            message.position = position;
            self.durable = self.durable.max(durable);
            for (change, at) in self.log.iter_mut().flatten() {
                if matches!(change, Change::Enqueued { id: of, .. } if *of == id) {
                    *at = position;
                }
            }
            call!(self, keep, id, position);
            self.absorb();
        }
    }

    pub(crate) fn create_group(&mut self) -> Option<GroupId> {
        let Ok(id) = call!(self, create_group, Start::Earliest, Commit::Auto) else {
            assert!(self.groups.len() >= self.config.limits.groups_max as usize);
            return None;
        };
        let mut group = Group::default();
        for (&id, message) in &self.messages {
            group.seen.insert(id, fresh(message, self.now, &self.groups));
        }
        self.groups.insert(id, group);
        self.absorb();
        Some(id)
    }

    pub(crate) fn remove_group(&mut self, id: GroupId) {
        call!(self, remove_group, id).unwrap();
        self.groups.remove(&id);
        self.absorb();
    }

    pub(crate) fn join(&mut self, id: GroupId) -> Option<MemberId> {
        let Ok(member) = call!(self, join, id, u32::MAX) else {
            assert!(self.group(id).members.len() >= self.config.limits.members_max as usize);
            return None;
        };
        let now = self.now;
        self.group(id).members.push((member, now));
        self.absorb();
        Some(member)
    }

    pub(crate) fn leave(&mut self, id: GroupId, member: MemberId) {
        self.end_member(id, member);
        call!(self, leave, id, member).unwrap();
        self.absorb();
        assert_eq!(call!(self, leave, id, member), Err(Refused::UnknownMember));
    }

    /// What the reference makes of the end of a membership.
    fn end_member(&mut self, id: GroupId, member: MemberId) {
        for message in self.leased_to(id, member) {
            self.fail(id, message, Some(0));
        }
        let group = self.group(id);
        group.members.retain(|(other, _)| *other != member);
        group.owners.retain(|_, owner| owner.0 != member);
    }

    fn leased_to(&mut self, id: GroupId, to: MemberId) -> Vec<MessageId> {
        let leased =
            |seen: &Seen| matches!(seen.state, State::Leased { member, .. } if member == to);
        let seen = self.group(id).seen.iter();
        seen.filter(|(_, seen)| leased(seen)).map(|(id, _)| *id).collect()
    }

    fn touch(&mut self, id: GroupId, member: MemberId) {
        let now = self.now;
        let known = self.group(id).members.iter_mut().find(|(other, _)| *other == member);
        known.unwrap().1 = now;
    }

    pub(crate) fn poll(&mut self, id: GroupId, member: MemberId, credit: usize) -> Vec<Delivery> {
        let mut out = Vec::new();
        let answer = call!(self, poll, id, member, credit, &mut out);
        if !self.group(id).members.iter().any(|(other, _)| *other == member) {
            assert_eq!(answer, Err(Refused::UnknownMember));
            return out;
        }
        answer.unwrap();
        assert!(out.len() <= credit);
        self.touch(id, member);
        self.asleep.remove(&(id, member));
        if out.len() < credit {
            self.asleep.insert((id, member));
        }
        let room = self.config.limits.leases_per_member_max as usize;
        let room = room - self.leased_to(id, member).len();
        assert!(out.len() <= room);
        for delivery in &out {
            self.check_delivery(id, member, delivery);
        }
        // What this poll has opened is for the next, of which `Ready` tells.
        let lifted = self.groups[&id].lifted.len();
        let is_all = out.len() < credit.min(room);
        self.absorb();
        if is_all && self.groups[&id].lifted.len() == lifted {
            self.check_complete(id, member, true);
        }
        out
    }

    fn may_be_delivered(&self, group: &Group, id: MessageId) -> bool {
        let message = &self.messages[&id];
        let is_ready = matches!(group.seen[&id].state, State::Waiting { is_ready: true, .. });
        // One that was as good as dead before a crash is a dead letter when it is come to.
        let may_try = !group.seen[&id].is_spent(&self.config);
        message.is_kept && !message.is_gone && is_ready && may_try
    }

    fn in_partition(
        &self,
        partition: u16,
    ) -> impl DoubleEndedIterator<Item = (&MessageId, &Message)> {
        let id = |offset| MessageId { partition, offset };
        self.messages.range(id(0)..=id(u64::MAX))
    }

    /// Whether another message of the key is under way.
    fn is_key_taken(&self, group: &Group, id: MessageId) -> bool {
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

    fn check_delivery(&mut self, group_id: GroupId, to: MemberId, delivery: &Delivery) {
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
    fn check_complete(&self, group_id: GroupId, to: MemberId, with_expired: bool) {
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

    fn fail(&mut self, group_id: GroupId, id: MessageId, delay_ms: Option<u64>) {
        let (now, config) = (self.now, self.config);
        let seen = self.group(group_id).seen.get_mut(&id).unwrap();
        seen.attempts += 1;
        if config.attempts_max != 0 && seen.attempts >= config.attempts_max {
            self.die(group_id, id, DeadReason::Exhausted);
            return;
        }
        let doublings = seen.attempts - 1;
        let backoff = (u64::from(config.backoff_base_ms) << doublings.min(30))
            .min(u64::from(config.backoff_max_ms));
        let due = now.plus_millis(delay_ms.unwrap_or(backoff));
        seen.state = State::Waiting { is_ready: due <= now, due };
    }

    fn die(&mut self, group_id: GroupId, id: MessageId, reason: DeadReason) {
        let has_dead_letters = self.config.has_dead_letters;
        let seen = self.group(group_id).seen.get_mut(&id).unwrap();
        seen.state = if has_dead_letters { State::Dying { reason } } else { State::Settled };
    }

    /// What an answer of `member` about `id` has to get.
    pub(crate) fn expected(
        &self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
    ) -> Result<(), Refused> {
        let group = self.groups.get(&group).ok_or(Refused::UnknownGroup)?;
        if !group.members.iter().any(|(other, _)| *other == member) {
            return Err(Refused::UnknownMember);
        }
        match group.seen.get(&id).map(|seen| seen.state) {
            Some(State::Leased { member: holder, .. }) if holder == member => Ok(()),
            Some(State::Leased { .. }) => Err(Refused::LeasedToAnother),
            _ => Err(Refused::NotLeased),
        }
    }

    pub(crate) fn ack(&mut self, group: GroupId, member: MemberId, id: MessageId) {
        let expected = self.expected(group, member, id);
        assert_eq!(call!(self, ack, group, member, id), expected);
        self.answered(group, member, expected);
        if expected.is_ok() {
            self.group(group).seen.get_mut(&id).unwrap().state = State::Settled;
        }
        self.absorb();
    }

    pub(crate) fn nack(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        delay: Option<u64>,
    ) {
        let expected = self.expected(group, member, id);
        assert_eq!(call!(self, nack, group, member, id, delay), expected);
        self.answered(group, member, expected);
        if expected.is_ok() {
            self.fail(group, id, delay);
        }
        self.absorb();
    }

    pub(crate) fn reject(&mut self, group: GroupId, member: MemberId, id: MessageId) {
        let expected = self.expected(group, member, id);
        assert_eq!(call!(self, reject, group, member, id), expected);
        self.answered(group, member, expected);
        if expected.is_ok() {
            let seen = self.group(group).seen.get_mut(&id).unwrap();
            (seen.attempts, seen.is_rejected) = (seen.attempts + 1, true);
            self.die(group, id, DeadReason::Rejected);
        }
        self.absorb();
    }

    pub(crate) fn extend(&mut self, group: GroupId, member: MemberId, id: MessageId) {
        let expected = self.expected(group, member, id);
        assert_eq!(call!(self, extend, group, member, id), expected);
        self.answered(group, member, expected);
        if expected.is_ok() {
            let deadline = self.now.plus_millis(u64::from(self.config.lease_ms));
            let until = self.group(group).owners[&id.partition].2.unwrap_or(Time::NEVER);
            let deadline = deadline.min(until);
            self.group(group).seen.get_mut(&id).unwrap().state = State::Leased { member, deadline };
        }
        self.absorb();
    }

    fn answered(&mut self, group: GroupId, member: MemberId, answer: Result<(), Refused>) {
        if !matches!(answer, Err(Refused::UnknownGroup | Refused::UnknownMember)) {
            self.touch(group, member);
        }
    }

    pub(crate) fn release(&mut self, id: GroupId, partition: u16) {
        let Some(&(member, generation, until)) = self.group(id).owners.get(&partition) else {
            return;
        };
        let answer = call!(self, release, id, member, partition, generation);
        self.touch(id, member);
        if until.is_none() {
            assert_eq!(answer, Err(Refused::NotTheOwner));
            return;
        }
        answer.unwrap();
        let leased = self.leased_to(id, member);
        for message in leased.into_iter().filter(|message| message.partition == partition) {
            self.fail(id, message, Some(0));
        }
        self.group(id).owners.remove(&partition);
        self.absorb();
    }

    pub(crate) fn bury(&mut self, group: GroupId, id: MessageId, is_written: bool) {
        if is_written {
            call!(self, bury, group, id).unwrap();
            self.group(group).seen.get_mut(&id).unwrap().state = State::Settled;
        } else {
            call!(self, bury_failed, group, id).unwrap();
            let due = self.now.plus_millis(u64::from(self.config.backoff_max_ms).max(1000));
            self.group(group).unburied.insert(id, due);
        }
        self.group(group).dying.remove(&id);
        self.absorb();
    }

    pub(crate) fn grow(&mut self, more: u16) {
        let from = self.queue.partitions();
        let before: BTreeMap<u16, u64> = (0..from)
            .map(|partition| {
                let last = self.in_partition(partition).next_back();
                (partition, last.map_or(0, |(id, _)| id.offset + 1))
            })
            .collect();
        call!(self, grow, from + more).unwrap();
        self.growths.push((from, from + more, before));
        self.absorb();
    }

    /// Time passes, and timers run.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_millis(ms);
        let timeout = u64::from(self.config.member_timeout_ms);
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let members = self.groups[&id].members.clone();
            for (member, seen) in members {
                if timeout != 0 && seen.plus_millis(timeout) <= self.now {
                    self.end_member(id, member);
                }
            }
        }
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let now = self.now;
            let seen: Vec<_> = self.groups[&id].seen.iter().map(|(id, it)| (*id, *it)).collect();
            for (message, seen) in seen {
                match seen.state {
                    State::Leased { deadline, .. } if deadline <= now => {
                        self.fail(id, message, None);
                    }
                    State::Waiting { due, .. } if due <= now => {
                        let state = State::Waiting { is_ready: true, due };
                        self.group(id).seen.get_mut(&message).unwrap().state = state;
                    }
                    _ => (),
                }
            }
            self.group(id).unburied.retain(|_, due| *due > now);
        }
        call!(self, on_timer);
        self.absorb();
        let deadline = self.queue.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "nothing is left to do now");
    }

    pub(crate) fn load(&mut self) {
        for (partition, chunk, position) in std::mem::take(&mut self.wanted) {
            let Some(at) = self.queue.wanted_at(partition, chunk) else {
                // It has become too old since.
                assert!(!self.queue.is_chunk_needed(partition, chunk, position));
                continue;
            };
            assert_eq!(at, position);
            let stored = self.stored[&position].clone();
            assert!(self.queue.is_chunk_needed(partition, chunk, position));
            assert!(call!(self, load, partition, chunk, &stored));
        }
        self.absorb();
    }

    pub(crate) fn shrink(&mut self) {
        self.queue.shrink(&mut self.index);
        self.absorb();
    }

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

    pub(crate) fn check_needed(&self) {
        for (&id, message) in &self.messages {
            assert_eq!(self.queue.is_needed(id), !message.is_gone, "{id:?} {message:?}");
        }
    }

    /// The reference begins anew with what was written down.
    fn rebuild(&mut self, changes: &[(Change, u64)]) {
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

    fn check_change(&mut self, change: &Change) {
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

    fn act(&mut self, action: Action) {
        match action {
            Action::Ready { group, member } => _ = self.asleep.remove(&(group, member)),
            Action::Assigned { group, member, partition, generation } => {
                let leased = self.groups[&group].seen.iter().any(|(id, seen)| {
                    id.partition == partition
                        && matches!(seen.state, State::Leased { member: of, .. } if of != member)
                });
                assert!(!leased, "a partition is given on while somebody has something of it");
                self.group(group).owners.insert(partition, (member, generation, None));
            }
            Action::Revoking { group, member, partition } => {
                let until = u64::from(self.config.lease_ms) * 10;
                let until = self.now.plus_millis(until);
                if let Some(owner) = self.group(group).owners.get_mut(&partition) {
                    assert_eq!(owner.0, member);
                    owner.2 = Some(until);
                }
            }
            Action::TimedOut { group, member } => {
                assert!(self.groups[&group].members.iter().all(|(other, _)| *other != member));
                // It may have been given the partitions of another that was gone as well.
                self.group(group).owners.retain(|_, owner| owner.0 != member);
            }
            Action::DeadLetter { group, id, reason, .. } => {
                let config = self.config;
                let seen = self.group(group).seen.get_mut(&id).unwrap();
                if matches!(seen.state, State::Waiting { .. }) && seen.is_spent(&config) {
                    let is_rejected = seen.is_rejected;
                    let reason =
                        if is_rejected { DeadReason::Rejected } else { DeadReason::Exhausted };
                    seen.state = State::Dying { reason };
                }
                assert_eq!(seen.state, State::Dying { reason });
                assert!(self.group(group).dying.insert(id), "told twice");
            }
            Action::Store { partition, chunk } => {
                let mut stored = Vec::new();
                if self.queue.encode_chunk(partition, chunk, &mut stored) {
                    let position = self.position();
                    self.stored.insert(position, stored);
                    self.queue.stored(partition, chunk, position, &mut self.index);
                }
            }
            Action::Want { partition, chunk, position } => {
                assert!(self.queue.is_chunk_needed(partition, chunk, position));
                self.wanted.push((partition, chunk, position));
            }
        }
    }

    /// Groups that have done with what a growth is to come after.
    fn lift(&mut self) {
        for (at, (_, _, before)) in self.growths.iter().enumerate() {
            for group in self.groups.values_mut().filter(|group| !group.lifted.contains(&at)) {
                let is_done = self.messages.iter().all(|(id, message)| {
                    let is_later = before.get(&id.partition).is_none_or(|&end| id.offset >= end);
                    let seen = &group.seen[id];
                    let is_delayed = seen.attempts == 0
                        && matches!(seen.state, State::Waiting { is_ready: false, .. });
                    is_later || message.is_gone || seen.state == State::Settled || is_delayed
                });
                if is_done {
                    group.lifted.insert(at);
                }
            }
        }
    }

    fn check_figures(&self) {
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

    fn check_owners(&self, id: GroupId, group: &Group) {
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
    fn check_facts(&self) {
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

fn fresh(message: &Message, now: Time, groups: &BTreeMap<GroupId, Group>) -> Seen {
    // Due for others already, or when it came: due for all.
    let _ = groups;
    let is_delayed = message.new.deliver_at.is_some_and(|at| at > now);
    let due = message.new.deliver_at.unwrap_or_default();
    let state = match message.is_gone {
        true => State::Settled,
        false => State::Waiting { is_ready: !is_delayed, due },
    };
    Seen::new(state)
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

fn enqueued(id: MessageId, message: &Message) -> Change {
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
struct Facts {
    groups: BTreeSet<GroupId>,
    settled: BTreeSet<(GroupId, MessageId)>,
    attempts: BTreeMap<(GroupId, MessageId), u32>,
}

impl Facts {
    fn of(changes: &[(Change, u64)]) -> Self {
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
