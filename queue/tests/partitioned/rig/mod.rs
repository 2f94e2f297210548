//! A reference queue, obviously right and slow, and the real one beside it.

mod checks;
mod log;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dunlin_queue::Time;
use dunlin_queue::partitioned::{
    Action, Change, Commit, Config, DeadReason, Delivery, FullPolicy, GroupId, IndexPool, MemberId,
    MessageId, NewMessage, Queue, REJECTED, Refused, Start,
};

pub(crate) use log::{shuffle, written_again};

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
            group.seen.insert(id, fresh(message, self.now));
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
}

/// What a group knows of a message at first.
fn fresh(message: &Message, now: Time) -> Seen {
    // Due for others already, or when it came: due for all.
    let is_delayed = message.new.deliver_at.is_some_and(|at| at > now);
    let due = message.new.deliver_at.unwrap_or_default();
    let state = match message.is_gone {
        true => State::Settled,
        false => State::Waiting { is_ready: !is_delayed, due },
    };
    Seen::new(state)
}
