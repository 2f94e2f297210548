//! Streams against a naive one: per group and partition what is read, and what was given out.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_queue::Time;
use dunlin_queue::partitioned::{
    Action, Change, Commit, Config, Context, Delivery, FullPolicy, GroupId, IndexPool, MemberId,
    MessageId, Mode, NewMessage, Queue, Refused, Restoring, Retention, Start,
};
use proptest::prelude::*;

use super::rig::{shuffle, written_again};

#[derive(Clone, Debug)]
enum Operation {
    Enqueue { key: u64, expiry_s: Option<u32> },
    Burst { key: u64, count: usize },
    Poll { member: usize, credit: usize },
    Ack(usize),
    Commit { member: usize, partition: u16, back: u64 },
    Seek { partition: u16, start: Start },
    Join(bool),
    Leave(usize),
    Pass(u64),
    Clean,
    Crash { lost: usize, seed: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let some = 0..1000_usize;
    let start = prop_oneof![
        Just(Start::Earliest),
        Just(Start::Latest),
        (0..300_u64).prop_map(Start::Offset),
        (0..3000_u64).prop_map(|ms| Start::Timestamp(Time::from_millis(1_000_000 + ms))),
    ];
    prop_oneof![
        20 => (0..8_u64, prop::option::weighted(0.1, 1..3_u32))
            .prop_map(|(key, expiry_s)| O::Enqueue { key, expiry_s }),
        2 => (0..8_u64, 100..300_usize).prop_map(|(key, count)| O::Burst { key, count }),
        20 => (some.clone(), 1..8_usize).prop_map(|(member, credit)| O::Poll { member, credit }),
        3 => (some.clone(), 100..400_usize)
            .prop_map(|(member, credit)| O::Poll { member, credit }),
        24 => some.clone().prop_map(O::Ack),
        6 => (some.clone(), 0..4_u16, 0..4_u64)
            .prop_map(|(member, partition, back)| O::Commit { member, partition, back }),
        2 => (0..4_u16, start).prop_map(|(partition, start)| O::Seek { partition, start }),
        3 => any::<bool>().prop_map(O::Join),
        2 => some.clone().prop_map(O::Leave),
        6 => (1..400_u64).prop_map(O::Pass),
        1 => Just(O::Clean),
        2 => (0..10_usize, any::<u64>()).prop_map(|(lost, seed)| O::Crash { lost, seed }),
    ]
}

/// What one group knows of a partition.
#[derive(Clone, Debug, Default)]
struct Lane {
    floor: u64,
    seeks: u32,
    read: BTreeSet<u64>,
    /// Given out to the owner, from the floor on, up to here.
    given: u64,
    owner: Option<MemberId>,
}

struct Group {
    id: GroupId,
    commit: Commit,
    members: Vec<MemberId>,
    lanes: BTreeMap<u16, Lane>,
}

#[derive(Clone, Copy)]
struct Message {
    at: Time,
    key: u64,
    expiry_s: Option<u32>,
    position: u64,
    is_gone: bool,
}

struct Stream {
    config: Config,
    queue: Queue,
    now: Time,
    index: IndexPool,
    changes: Vec<Change>,
    actions: Vec<Action>,
    messages: BTreeMap<MessageId, Message>,
    groups: Vec<Group>,
    log: Vec<Vec<(Change, u64)>>,
    durable: usize,
    stored: BTreeMap<u64, Vec<u8>>,
    next_position: u64,
    given: Vec<(usize, MemberId, MessageId)>,
}

macro_rules! call {
    ($it:expr, $method:ident $(, $argument:expr)*) => {{
        let it = &mut *$it;
        let mut cx = Context {
            now: it.now,
            changes: &mut it.changes,
            actions: &mut it.actions,
            index: &mut it.index,
        };
        it.queue.$method($($argument,)* &mut cx)
    }};
}

impl Stream {
    fn new(config: Config, index_bytes: usize) -> Self {
        let mut stream = Self {
            config,
            queue: Queue::new(config).unwrap(),
            now: Time::from_millis(1_000_000),
            index: IndexPool::new(index_bytes),
            changes: Vec::new(),
            actions: Vec::new(),
            messages: BTreeMap::new(),
            groups: Vec::new(),
            log: Vec::new(),
            durable: 0,
            stored: BTreeMap::new(),
            next_position: 0,
            given: Vec::new(),
        };
        for commit in [Commit::Auto, Commit::Explicit] {
            let id = call!(&mut stream, create_group, Start::Earliest, commit).unwrap();
            let lanes = (0..config.partitions).map(|at| (at, Lane::default())).collect();
            stream.groups.push(Group { id, commit, members: Vec::new(), lanes });
            stream.absorb();
        }
        stream.durable = stream.log.len();
        stream
    }

    fn live(&self, partition: u16) -> Vec<(u64, Message)> {
        let id = |offset| MessageId { partition, offset };
        let range = self.messages.range(id(0)..=id(u64::MAX));
        range.filter(|(_, one)| !one.is_gone).map(|(id, one)| (id.offset, *one)).collect()
    }

    fn end(&self, partition: u16) -> u64 {
        let id = |offset| MessageId { partition, offset };
        self.messages.range(id(0)..=id(u64::MAX)).next_back().map_or(0, |(id, _)| id.offset + 1)
    }

    fn absorb(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            if let Change::Settled { group, partition, from, to } = *change {
                assert_eq!(group, GroupId::EVERYBODY, "streams settle nothing");
                for offset in from..to {
                    if let Some(one) = self.messages.get_mut(&MessageId { partition, offset }) {
                        one.is_gone = true;
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.log.push(changes.iter().map(|change| (*change, 0)).collect());
        }
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.act(action);
            }
        }
        let live = self.messages.values().filter(|one| !one.is_gone).count();
        assert_eq!(self.queue.stats(self.now).depth, live as u64);
        self.settle_floors();
    }

    /// Floors go over what is read or gone.
    fn settle_floors(&mut self) {
        for at in 0..self.groups.len() {
            for partition in 0..self.config.partitions {
                let first = self.live(partition).first().map(|(offset, _)| *offset);
                let end = self.end(partition);
                let is_live: BTreeSet<u64> =
                    self.live(partition).iter().map(|(offset, _)| *offset).collect();
                let lane = self.groups[at].lanes.get_mut(&partition).unwrap();
                lane.floor = lane.floor.max(first.unwrap_or(end).min(end));
                while lane.floor < end
                    && (lane.read.contains(&lane.floor) || !is_live.contains(&lane.floor))
                {
                    lane.floor += 1;
                }
                lane.given = lane.given.max(lane.floor);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Assigned { group, member, partition, .. } => {
                let group = self.groups.iter_mut().find(|known| known.id == group).unwrap();
                let lane = group.lanes.get_mut(&partition).unwrap();
                if lane.owner != Some(member) {
                    // A new owner gets everything that is not read again.
                    lane.given = lane.floor;
                }
                lane.owner = Some(member);
            }
            Action::Store { partition, chunk } => {
                let mut bytes = Vec::new();
                if self.queue.encode_chunk(partition, chunk, &mut bytes) {
                    self.next_position += 1;
                    self.stored.insert(self.next_position, bytes);
                    self.queue.stored(partition, chunk, self.next_position, &mut self.index);
                }
            }
            Action::Want { partition, chunk, position } => {
                let stored = self.stored[&position].clone();
                call!(self, load, partition, chunk, &stored);
            }
            _ => (),
        }
    }

    fn enqueue(&mut self, key: u64, expiry_s: Option<u32>) {
        let key_hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let new = NewMessage { key_hash, bytes: 10, expiry_s, ..NewMessage::default() };
        let Ok(id) = call!(self, enqueue, &new) else {
            assert_eq!(self.config.retention.policy, FullPolicy::Reject);
            return;
        };
        self.next_position += 1;
        let position = self.next_position;
        let (at, is_gone) = (self.now, false);
        self.messages.insert(id, Message { at, key, expiry_s, position, is_gone });
        self.absorb();
        self.durable = self.log.len();
        let record = self.log.last_mut().unwrap().iter_mut();
        record.filter(|(change, _)| matches!(change, Change::Enqueued { .. })).for_each(|one| {
            one.1 = position;
        });
        if self.config.is_compacted {
            let same = self.messages.iter_mut().filter(|(other, one)| {
                other.partition == id.partition && other.offset < id.offset && one.key == key
            });
            same.for_each(|(_, one)| one.is_gone = true);
        }
        call!(self, keep, id, position);
        self.absorb();
    }

    fn poll(&mut self, at: usize, member: MemberId, credit: usize) {
        let mut out: Vec<Delivery> = Vec::new();
        let of = self.groups[at].id;
        call!(self, poll, of, member, credit, &mut out).unwrap();
        for delivery in &out {
            let MessageId { partition, offset } = delivery.id;
            let lane = &self.groups[at].lanes[&partition];
            assert_eq!(lane.owner, Some(member));
            let is_next = |(other, one): &(u64, Message)| {
                *other >= lane.given && !lane.read.contains(other) && !is_expired(one, self.now)
            };
            let next = self.live(partition).into_iter().find(is_next);
            let (next, message) = next.expect("something is left");
            assert_eq!((offset, delivery.position), (next, message.position));
            self.groups[at].lanes.get_mut(&partition).unwrap().given = offset + 1;
            self.given.push((at, member, delivery.id));
        }
        let is_all = out.len() < credit && !self.actions.iter().any(is_want);
        // What has expired is read, as far as it was come to.
        for partition in 0..self.config.partitions {
            let live = self.live(partition);
            let group = &mut self.groups[at];
            let lane = group.lanes.get_mut(&partition).unwrap();
            if lane.owner != Some(member) {
                continue;
            }
            let (group_id, commit) = (group.id, group.commit);
            if is_all {
                let left = live.iter().find(|(offset, one)| {
                    *offset >= lane.given
                        && !lane.read.contains(offset)
                        && !is_expired(one, self.now)
                });
                assert!(left.is_none() || self.is_draining(at, partition), "left in {group_id:?}");
            }
            // The queue passes expired ones when it comes to them; how far it came is its matter.
            if commit == Commit::Auto {
                let lane = self.groups[at].lanes.get_mut(&partition).unwrap();
                let expired = live.iter().filter(|(_, one)| is_expired(one, self.now));
                lane.read.extend(expired.map(|(offset, _)| *offset));
            }
        }
        self.absorb();
    }

    fn is_draining(&self, at: usize, partition: u16) -> bool {
        let (owner, _) = self.queue.owner(self.groups[at].id, partition).unwrap();
        owner.is_some() && self.groups[at].members.len() > 1
    }

    fn ack(&mut self, at: usize, member: MemberId, id: MessageId) {
        let of = self.groups[at].id;
        let answer = call!(self, ack, of, member, id);
        let group = &mut self.groups[at];
        let lane = group.lanes.get_mut(&id.partition).unwrap();
        if !group.members.contains(&member) {
            assert_eq!(answer, Err(Refused::UnknownMember));
        } else if lane.owner == Some(member)
            && (lane.floor..lane.given).contains(&id.offset)
            && !lane.read.contains(&id.offset)
        {
            assert_eq!(answer, Ok(()));
            if group.commit == Commit::Auto {
                lane.read.insert(id.offset);
            }
        }
        self.absorb();
    }

    fn commit(&mut self, at: usize, member: MemberId, partition: u16, back: u64) {
        let Some(lane) = self.groups[at].lanes.get(&partition) else { return };
        let offset = lane.given.saturating_sub(back);
        let (floor, owner) = (lane.floor, lane.owner);
        let id = MessageId { partition, offset };
        let of = self.groups[at].id;
        let answer = call!(self, commit, of, member, id);
        if owner != Some(member) {
            assert_eq!(answer, Err(Refused::NotTheOwner));
        } else if offset <= floor {
            assert_eq!(answer, Err(Refused::Backwards));
        } else {
            assert_eq!(answer, Ok(()));
            self.groups[at].lanes.get_mut(&partition).unwrap().floor = offset;
        }
        self.absorb();
    }

    fn seek(&mut self, at: usize, partition: u16, start: Start) {
        if partition >= self.config.partitions {
            let of = self.groups[at].id;
            let answer = call!(self, seek, of, partition, start);
            assert_eq!(answer, Err(Refused::UnknownPartition));
            return;
        }
        let of = self.groups[at].id;
        call!(self, seek, of, partition, start).unwrap();
        let (live, end) = (self.live(partition), self.end(partition));
        let first = live.first().map_or(end, |(offset, _)| *offset);
        let found = match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::Offset(offset) => offset.clamp(first, end),
            Start::Timestamp(time) => {
                let said = self.changes.iter().rev().find_map(|change| match change {
                    Change::Cursor { offset, .. } => Some(*offset),
                    _ => None,
                });
                let exact = live.iter().find(|(_, one)| one.at >= time);
                let exact = exact.map_or(end, |(offset, _)| *offset);
                let said = said.unwrap();
                // Up to a chunk earlier, where the index is not in memory.
                assert!(said <= exact && exact - said < 256 || live.is_empty(), "{said} {exact}");
                said
            }
        };
        let lane = self.groups[at].lanes.get_mut(&partition).unwrap();
        (lane.floor, lane.given) = (found, found);
        lane.seeks += 1;
        lane.read.clear();
        self.absorb();
    }

    fn clean(&mut self) {
        let mut batch = Vec::new();
        for (&id, message) in &self.messages {
            assert_eq!(self.queue.is_needed(id), !message.is_gone, "{id:?}");
            if !message.is_gone {
                batch.push((enqueued(id, message), message.position));
            }
        }
        let mut snapshot = Vec::new();
        self.queue.snapshot(&mut snapshot);
        batch.extend(snapshot.into_iter().map(|change| (change, 0)));
        self.log = vec![batch];
        self.durable = 1;
    }

    fn crash(&mut self, lost: usize, seed: u64) {
        let end = self.log.len().saturating_sub(lost).max(self.durable);
        self.log.truncate(end);
        let mut changes: Vec<_> = self.log.iter().flatten().copied().collect();
        shuffle(&mut changes, seed);
        let mut restoring = Restoring::default();
        changes.iter().for_each(|(change, position)| restoring.apply(change, *position));
        let restoring = written_again(&restoring, self.config.mode);
        self.index = IndexPool::new(self.index.resident_bytes_max());
        let mut cx = Context {
            now: self.now,
            changes: &mut self.changes,
            actions: &mut self.actions,
            index: &mut self.index,
        };
        self.queue = restoring.finish(self.config, &mut cx).unwrap();
        for message in self.messages.values_mut() {
            message.is_gone = true;
        }
        let gone: BTreeSet<MessageId> = changes
            .iter()
            .filter_map(|(change, _)| match *change {
                Change::Settled { partition, from, to, .. } => {
                    Some((from..to).map(move |offset| MessageId { partition, offset }))
                }
                _ => None,
            })
            .flatten()
            .collect();
        for (change, _) in &changes {
            if let Change::Enqueued { id, .. } = change
                && let Some(message) = self.messages.get_mut(id)
            {
                message.is_gone = gone.contains(id);
            }
        }
        if self.config.is_compacted {
            let mut last = BTreeMap::new();
            for (id, message) in self.messages.iter().filter(|(_, message)| !message.is_gone) {
                last.insert((id.partition, message.key), *id);
            }
            for (id, message) in &mut self.messages {
                message.is_gone |= last.get(&(id.partition, message.key)) != Some(id);
            }
        }
        for group in &mut self.groups {
            group.members.clear();
            for (&partition, lane) in &mut group.lanes {
                let cursors = changes.iter().filter_map(|(change, _)| match *change {
                    Change::Cursor { group: of, partition: at, offset, seeks }
                        if (of, at) == (group.id, partition) =>
                    {
                        Some((seeks, offset))
                    }
                    _ => None,
                });
                let (seeks, floor) = cursors.max().unwrap_or_default();
                *lane = Lane { floor, seeks, given: floor, ..Lane::default() };
            }
        }
        self.absorb();
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Enqueue { key, expiry_s } => self.enqueue(key, expiry_s),
            Operation::Burst { key, count } => {
                (0..count).for_each(|at| self.enqueue(key + (at as u64 % 3), None));
            }
            Operation::Poll { member, credit } => {
                let at = member % 2;
                if let Some(member) = pick(&self.groups[at].members, member) {
                    self.poll(at, member, credit);
                }
            }
            Operation::Ack(at) => {
                let recent = self.given.len().saturating_sub(20);
                if let Some((group, member, id)) = pick(&self.given[recent..], at) {
                    self.ack(group, member, id);
                }
            }
            Operation::Commit { member, partition, back } => {
                let at = member % 2;
                if let Some(member) = pick(&self.groups[at].members, member) {
                    self.commit(at, member, partition, back);
                }
            }
            Operation::Seek { partition, start } => {
                self.seek(usize::from(partition) % 2, partition, start);
            }
            Operation::Join(is_second) => {
                let at = usize::from(is_second);
                let of = self.groups[at].id;
                let member = call!(self, join, of, u32::MAX).unwrap();
                self.groups[at].members.push(member);
                self.absorb();
            }
            Operation::Leave(at) => {
                let group = at % 2;
                if let Some(member) = pick(&self.groups[group].members, at) {
                    self.groups[group].members.retain(|other| *other != member);
                    for lane in self.groups[group].lanes.values_mut() {
                        if lane.owner == Some(member) {
                            lane.owner = None;
                        }
                    }
                    let of = self.groups[group].id;
                    call!(self, leave, of, member).unwrap();
                    self.absorb();
                }
            }
            Operation::Pass(ms) => {
                self.now = self.now.plus_millis(ms);
                call!(self, on_timer);
                self.absorb();
                assert!(self.queue.deadline().is_none_or(|at| at > self.now));
            }
            Operation::Clean => self.clean(),
            Operation::Crash { lost, seed } => self.crash(lost, seed),
        }
    }
}

fn is_want(action: &Action) -> bool {
    matches!(action, Action::Want { .. })
}

fn is_expired(message: &Message, now: Time) -> bool {
    message.expiry_s.is_some_and(|seconds| message.at.plus_seconds(seconds) <= now)
}

fn enqueued(id: MessageId, message: &Message) -> Change {
    Change::Enqueued {
        id,
        at: message.at,
        key_hash: message.key.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        bytes: 10,
        priority: 0,
        expiry_s: message.expiry_s,
        deliver_at: None,
        original: None,
    }
}

fn pick<T: Copy>(from: &[T], at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[at % from.len()])
}

proptest! {
    #![proptest_config(crate::cases(40))]

    #[test]
    fn a_stream_does_what_a_naive_one_does(
        partitions in 1..4_u16,
        is_compacted in any::<bool>(),
        is_bounded in any::<bool>(),
        has_age in any::<bool>(),
        has_memory in any::<bool>(),
        operations in prop::collection::vec(operation(), 1..120),
    ) {
        let retention = Retention {
            messages_max: if is_bounded { 600 } else { 1 << 40 },
            age_ms_max: if has_age { 5000 } else { 0 },
            policy: FullPolicy::DropOldest,
            ..Retention::default()
        };
        let config = Config {
            partitions, mode: Mode::Stream, lease_ms: 500, is_compacted, retention,
            ..Config::default()
        };
        let mut stream = Stream::new(config, if has_memory { 1 << 20 } else { 0 });
        for operation in &operations {
            stream.apply(operation);
        }
    }
}
