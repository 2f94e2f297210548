//! Work queues against the reference.

use dunlin_queue::Time;
use dunlin_queue::partitioned::{
    Config, FullPolicy, GroupId, Limits, MemberId, MessageId, NewMessage, Retention,
};
use proptest::prelude::*;

use super::rig::Rig;

#[derive(Clone, Debug)]
enum Operation {
    Enqueue {
        key: u64,
        priority: u8,
        delay: Option<u64>,
        expiry_s: Option<u32>,
        bytes: u32,
    },
    Burst {
        key: u64,
        count: usize,
    },
    Keep(usize),
    Poll {
        group: usize,
        member: usize,
        credit: usize,
    },
    Ack(usize),
    AckAll,
    Nack(usize, Option<u64>),
    Reject(usize),
    Extend(usize),
    /// Of a message another member has, or nobody.
    Foreign {
        delivery: usize,
        member: usize,
    },
    Pass(u64),
    Join(usize),
    Leave(usize, usize),
    Release(usize, u16),
    CreateGroup,
    RemoveGroup(usize),
    Grow(u16),
    Bury(usize, bool),
    Load,
    Shrink,
    Clean,
    Crash {
        lost: usize,
        seed: u64,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let some = 0..1000_usize;
    let enqueue = (
        0..6_u64,
        prop_oneof![3 => Just(0_u8), 1 => 0..10_u8],
        prop::option::weighted(0.15, 1..400_u64),
        prop::option::weighted(0.15, 1..4_u32),
        1..100_u32,
    );
    let delay = prop::option::of(prop_oneof![Just(0), 1..300_u64]);
    prop_oneof![
        24 => enqueue.prop_map(|(key, priority, delay, expiry_s, bytes)| {
            O::Enqueue { key, priority, delay, expiry_s, bytes }
        }),
        1 => (0..6_u64, 100..400_usize).prop_map(|(key, count)| O::Burst { key, count }),
        12 => (1..8_usize).prop_map(O::Keep),
        24 => (some.clone(), some.clone(), 1..6_usize)
            .prop_map(|(group, member, credit)| O::Poll { group, member, credit }),
        2 => (some.clone(), some.clone(), 50..400_usize)
            .prop_map(|(group, member, credit)| O::Poll { group, member, credit }),
        16 => some.clone().prop_map(O::Ack),
        2 => Just(O::AckAll),
        8 => (some.clone(), delay).prop_map(|(delivery, delay)| O::Nack(delivery, delay)),
        2 => some.clone().prop_map(O::Reject),
        2 => some.clone().prop_map(O::Extend),
        3 => (some.clone(), some.clone())
            .prop_map(|(delivery, member)| O::Foreign { delivery, member }),
        8 => prop_oneof![1..50_u64, 50..1500_u64].prop_map(O::Pass),
        4 => some.clone().prop_map(O::Join),
        2 => (some.clone(), some.clone()).prop_map(|(group, member)| O::Leave(group, member)),
        2 => (some.clone(), 0..8_u16).prop_map(|(group, partition)| O::Release(group, partition)),
        1 => Just(O::CreateGroup),
        1 => some.clone().prop_map(O::RemoveGroup),
        1 => (1..3_u16).prop_map(O::Grow),
        4 => (some.clone(), any::<bool>()).prop_map(|(at, is_written)| O::Bury(at, is_written)),
        3 => Just(O::Load),
        1 => Just(O::Shrink),
        1 => Just(O::Clean),
        2 => (0..12_usize, any::<u64>()).prop_map(|(lost, seed)| O::Crash { lost, seed }),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let retention = prop_oneof![
        3 => Just(Retention { age_ms_max: 0, ..Retention::default() }),
        1 => Just(Retention {
            messages_max: 12,
            age_ms_max: 0,
            policy: FullPolicy::Reject,
            ..Retention::default()
        }),
        1 => Just(Retention {
            messages_max: 12,
            bytes_max: 700,
            age_ms_max: 0,
            policy: FullPolicy::DropOldest,
        }),
        1 => Just(Retention { age_ms_max: 2500, ..Retention::default() }),
    ];
    let backoff = prop_oneof![Just((0, 0)), Just((20, 100))];
    (1..4_u16, 0..4_u32, backoff, any::<bool>(), any::<bool>(), retention, any::<bool>()).prop_map(
        |(partitions, attempts_max, backoff, is_serial, has_dead_letters, retention, times_out)| {
            Config {
                partitions,
                lease_ms: 200,
                attempts_max,
                backoff_base_ms: backoff.0,
                backoff_max_ms: backoff.1,
                member_timeout_ms: if times_out { 900 } else { 0 },
                is_serial,
                has_dead_letters,
                retention,
                limits: Limits { leases_per_member_max: 300, ..Limits::default() },
                ..Config::default()
            }
        },
    )
}

struct Run {
    rig: Rig,
    /// Deliveries there have been, settled or not.
    given: Vec<(GroupId, MemberId, MessageId)>,
}

fn pick<T: Copy>(from: &[T], at: usize) -> Option<T> {
    // Mostly one of the last.
    let at = if at.is_multiple_of(4) { at } else { from.len().saturating_sub(1 + at % 7) };
    (!from.is_empty()).then(|| from[at % from.len()])
}

impl Run {
    fn group(&self, at: usize) -> Option<GroupId> {
        let groups: Vec<_> = self.rig.groups.keys().copied().collect();
        (!groups.is_empty()).then(|| groups[at % groups.len()])
    }

    fn member(&self, group: GroupId, at: usize) -> Option<MemberId> {
        let members = &self.rig.groups[&group].members;
        (!members.is_empty()).then(|| members[at % members.len()].0)
    }

    fn apply(&mut self, operation: &Operation) {
        let now = self.rig.now;
        match *operation {
            Operation::Enqueue { key, priority, delay, expiry_s, bytes } => {
                let key_hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let deliver_at = delay.map(|ms| now.plus_millis(ms));
                let original = None;
                let new = NewMessage { key_hash, bytes, priority, expiry_s, deliver_at, original };
                self.rig.enqueue(new);
            }
            Operation::Burst { key, count } => {
                let max = self.rig.config.retention.messages_max as usize;
                let key_hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                for _ in 0..count.min(max) {
                    let new = NewMessage { key_hash, bytes: 10, ..NewMessage::default() };
                    self.rig.enqueue(new);
                }
                self.rig.keep(count);
            }
            Operation::Keep(count) => self.rig.keep(count),
            Operation::Join(at) => _ = self.group(at).and_then(|group| self.rig.join(group)),
            Operation::CreateGroup => {
                if self.rig.groups.len() < 3 {
                    self.rig.create_group();
                }
            }
            Operation::RemoveGroup(at) => {
                if at.is_multiple_of(5)
                    && let Some(group) = self.group(at)
                {
                    self.rig.remove_group(group);
                }
            }
            Operation::Grow(more) => {
                if self.rig.queue.partitions() < 8 {
                    self.rig.grow(more);
                }
            }
            Operation::Pass(ms) => self.rig.pass(ms),
            Operation::Load => self.rig.load(),
            Operation::Shrink => self.rig.shrink(),
            Operation::Clean => self.rig.clean(),
            Operation::Crash { lost, seed } => self.rig.crash(lost, seed),
            _ => self.apply_to_group(operation),
        }
    }

    fn apply_to_group(&mut self, operation: &Operation) {
        match *operation {
            Operation::Poll { group, member, credit } => {
                let Some(group) = self.group(group) else { return };
                let Some(member) = self.member(group, member) else { return };
                for delivery in self.rig.poll(group, member, credit) {
                    self.given.push((group, member, delivery.id));
                }
            }
            Operation::Leave(group, member) => {
                let Some(group) = self.group(group) else { return };
                let Some(member) = self.member(group, member) else { return };
                self.rig.leave(group, member);
            }
            Operation::Release(group, partition) => {
                let Some(group) = self.group(group) else { return };
                self.rig.release(group, partition);
            }
            Operation::Bury(at, is_written) => {
                let mut dying = Vec::new();
                for (&group, known) in &self.rig.groups {
                    dying.extend(known.dying.iter().map(|&id| (group, id)));
                }
                if let Some((group, id)) = pick(&dying, at) {
                    self.rig.bury(group, id, is_written);
                }
            }
            Operation::AckAll => {
                for (group, member, id) in self.given.clone() {
                    if self.rig.expected(group, member, id).is_ok() {
                        self.rig.ack(group, member, id);
                    }
                }
            }
            Operation::Foreign { delivery, member } => {
                let Some((group, _, id)) = pick(&self.given, delivery) else { return };
                if self.rig.groups.contains_key(&group)
                    && let Some(member) = self.member(group, member)
                {
                    match delivery % 3 {
                        0 => self.rig.ack(group, member, id),
                        1 => self.rig.nack(group, member, id, None),
                        _ => self.rig.extend(group, member, id),
                    }
                }
            }
            Operation::Ack(at) => {
                let Some((group, member, id)) = pick(&self.given, at) else { return };
                self.rig.ack(group, member, id);
            }
            Operation::Nack(at, delay) => {
                let Some((group, member, id)) = pick(&self.given, at) else { return };
                self.rig.nack(group, member, id, delay);
            }
            Operation::Reject(at) => {
                let Some((group, member, id)) = pick(&self.given, at) else { return };
                self.rig.reject(group, member, id);
            }
            Operation::Extend(at) => {
                let Some((group, member, id)) = pick(&self.given, at) else { return };
                self.rig.extend(group, member, id);
            }
            _ => (),
        }
    }

    /// With a consumer that settles everything, everything is settled.
    fn drain(&mut self) {
        let group = self.group(0).or_else(|| self.rig.create_group()).unwrap();
        let others: Vec<_> = self.rig.groups.keys().copied().filter(|&id| id != group).collect();
        others.into_iter().for_each(|other| self.rig.remove_group(other));
        self.rig.keep(usize::MAX);
        let member = self.member(group, 0).or_else(|| self.rig.join(group)).unwrap();
        for _ in 0..200 {
            self.rig.load();
            for id in self.rig.groups[&group].dying.clone() {
                self.rig.bury(group, id, true);
            }
            loop {
                let deliveries = self.rig.poll(group, member, 200);
                for delivery in &deliveries {
                    self.rig.ack(group, member, delivery.id);
                }
                if deliveries.is_empty() {
                    break;
                }
            }
            if self.rig.queue.stats(self.rig.now).depth == 0 {
                return;
            }
            self.rig.queue.touch(group, member, self.rig.now).unwrap();
            let others = self.rig.groups[&group].members.clone();
            for (other, _) in others {
                if other != member {
                    self.rig.leave(group, other);
                }
            }
            let known = &mut self.rig.groups.get_mut(&group).unwrap().members;
            known.iter_mut().for_each(|(_, seen)| *seen = self.rig.now);
            self.rig.pass(150);
        }
        panic!("stuck with {:?}", self.rig.queue.stats(self.rig.now));
    }
}

proptest! {
    #![proptest_config(crate::cases(60))]

    #[test]
    fn a_work_queue_does_what_a_naive_one_does(
        config in config(),
        has_memory in any::<bool>(),
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let index_bytes = if has_memory { 1 << 20 } else { 0 };
        let mut run = Run { rig: Rig::new(config, index_bytes), given: Vec::new() };
        let group = run.rig.create_group().unwrap();
        run.rig.join(group);
        for operation in &operations {
            run.apply(operation);
        }
        run.rig.check_needed();
        run.drain();
        run.rig.crash(0, 7);
        assert_eq!(run.rig.queue.stats(Time::default()).depth, 0);
    }
}
