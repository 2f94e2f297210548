//! Single rules of partitioned queues, and what they cost.

use dunlin_queue::Time;
use dunlin_queue::partitioned::limits::{CHUNK_LEN, DRAIN_LEASES_MAX, FAIR_EVERY};
use dunlin_queue::partitioned::{
    Action, Change, Commit, Config, Context, DeadReason, Delivery, GroupId, IndexPool, MemberId,
    MessageId, Mode, NewMessage, Queue, Refused, Restoring, Start,
};

use super::rig::written_again;

pub(crate) struct Desk {
    pub(crate) queue: Queue,
    pub(crate) now: Time,
    pub(crate) changes: Vec<Change>,
    pub(crate) actions: Vec<Action>,
    pub(crate) index: IndexPool,
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

impl Desk {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            queue: Queue::new(config).unwrap(),
            now: Time::from_millis(1_000_000),
            changes: Vec::new(),
            actions: Vec::new(),
            index: IndexPool::new(1 << 30),
        }
    }

    pub(crate) fn put(&mut self, new: NewMessage) -> MessageId {
        let id = call!(self, enqueue, &new).unwrap();
        call!(self, keep, id, 1 + id.offset);
        id
    }

    pub(crate) fn put_key(&mut self, key_hash: u64) -> MessageId {
        self.put(NewMessage { key_hash, bytes: 100, ..NewMessage::default() })
    }

    pub(crate) fn group(&mut self) -> GroupId {
        call!(self, create_group, Start::Earliest, Commit::Auto).unwrap()
    }

    pub(crate) fn join(&mut self, group: GroupId) -> MemberId {
        call!(self, join, group, u32::MAX).unwrap()
    }

    pub(crate) fn poll(
        &mut self,
        group: GroupId,
        member: MemberId,
        credit: usize,
    ) -> Vec<Delivery> {
        let mut out = Vec::new();
        call!(self, poll, group, member, credit, &mut out).unwrap();
        out
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_millis(ms);
        call!(self, on_timer);
    }

    fn owned(&self, group: GroupId, member: MemberId) -> Vec<u16> {
        let owner = |partition: &u16| self.queue.owner(group, *partition).unwrap().0;
        (0..self.queue.partitions()).filter(|at| owner(at) == Some(member)).collect()
    }
}

fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn one_partition() -> Config {
    Config { partitions: 1, ..Config::default() }
}

#[test]
fn a_sole_consumer_that_puts_a_message_back_gets_it_again_later_each_time() {
    let mut desk = Desk::new(Config { attempts_max: 4, ..one_partition() });
    let group = desk.group();
    let member = desk.join(group);
    let id = desk.put_key(1);
    for (attempt, backoff_ms) in [(1, 1000), (2, 2000), (3, 4000)] {
        let deliveries = desk.poll(group, member, 10);
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].attempt, attempt);
        call!(&mut desk, nack, group, member, id, None).unwrap();
        assert!(desk.poll(group, member, 10).is_empty());
        desk.pass(backoff_ms - 1);
        assert!(desk.poll(group, member, 10).is_empty());
        desk.actions.clear();
        desk.pass(1);
        assert_eq!(desk.actions, [Action::Ready { group, member }]);
    }
    desk.poll(group, member, 10);
    desk.actions.clear();
    desk.pass(30_000);
    let (reason, attempts) = (DeadReason::Exhausted, 4);
    assert_eq!(desk.actions, [Action::DeadLetter { group, id, reason, attempts }]);
}

#[test]
fn a_dead_letter_that_cannot_be_written_is_asked_for_again_and_never_lost() {
    let mut desk = Desk::new(one_partition());
    let group = desk.group();
    let member = desk.join(group);
    let id = desk.put_key(1);
    desk.poll(group, member, 1);
    call!(&mut desk, reject, group, member, id).unwrap();
    for _ in 0..3 {
        desk.actions.clear();
        call!(&mut desk, bury_failed, group, id).unwrap();
        assert!(desk.queue.is_needed(id));
        assert!(desk.poll(group, member, 1).is_empty());
        desk.pass(60_000);
        assert!(matches!(desk.actions[..], [Action::DeadLetter { .. }]));
    }
    call!(&mut desk, bury, group, id).unwrap();
    assert!(!desk.queue.is_needed(id));
    assert_eq!(call!(&mut desk, bury, group, id), Err(Refused::NotDying));
    let dead = desk.changes.iter().filter(|change| matches!(change, Change::Dead { .. }));
    assert_eq!(dead.count(), 1);
}

#[test]
fn a_partition_moves_when_the_owner_has_nothing_of_it_and_no_more_move_than_must() {
    let mut desk = Desk::new(Config { partitions: 12, ..Config::default() });
    let group = desk.group();
    let first = desk.join(group);
    for key in 0..1000 {
        desk.put_key(spread(key));
    }
    let out = desk.poll(group, first, 1000);
    assert_eq!(out.len(), 1000);
    let second = desk.join(group);
    assert!(desk.owned(group, second).is_empty(), "the first has messages of all");
    assert!(desk.poll(group, second, 10).is_empty());
    desk.actions.clear();
    for delivery in &out {
        call!(&mut desk, ack, group, first, delivery.id).unwrap();
    }
    assert_eq!(desk.owned(group, second).len(), 6);
    let third = desk.join(group);
    let (kept, others) = (desk.owned(group, first), desk.owned(group, second));
    assert_eq!((kept.len(), others.len(), desk.owned(group, third).len()), (4, 4, 4));
    call!(&mut desk, leave, group, third).unwrap();
    assert!(kept.iter().all(|at| desk.owned(group, first).contains(at)));
    assert!(others.iter().all(|at| desk.owned(group, second).contains(at)));
}

#[test]
fn an_owner_that_holds_on_to_a_message_loses_the_partition_in_the_end() {
    let mut desk = Desk::new(Config { partitions: 2, attempts_max: 0, ..Config::default() });
    let group = desk.group();
    let first = desk.join(group);
    (0..20).for_each(|key| _ = desk.put_key(spread(key)));
    let out = desk.poll(group, first, 20);
    let second = desk.join(group);
    let mut turns = 0;
    while desk.owned(group, second).is_empty() {
        assert!(desk.poll(group, second, 1).is_empty());
        desk.pass(15_000);
        for delivery in &out {
            let _ = call!(&mut desk, extend, group, first, delivery.id);
        }
        turns += 1;
    }
    assert_eq!(turns, 2 * DRAIN_LEASES_MAX);
    let moved = desk.owned(group, second);
    let taken = out.iter().filter(|delivery| moved.contains(&delivery.id.partition));
    for delivery in taken.clone() {
        let answer = call!(&mut desk, ack, group, first, delivery.id);
        assert_eq!(answer, Err(Refused::NotLeased));
    }
    desk.pass(1000);
    assert_eq!(desk.poll(group, second, 20).len(), taken.count());
}

#[test]
fn a_partition_is_given_up_at_once_by_who_says_so() {
    let mut desk = Desk::new(Config { partitions: 2, ..Config::default() });
    let group = desk.group();
    let first = desk.join(group);
    (0..20).for_each(|key| _ = desk.put_key(spread(key)));
    desk.poll(group, first, 20);
    desk.actions.clear();
    let second = desk.join(group);
    let [Action::Revoking { partition, member, .. }] = desk.actions[..] else { panic!() };
    assert_eq!(member, first);
    let generation = desk.queue.owner(group, partition).unwrap().1;
    let stale = call!(&mut desk, release, group, first, partition, generation + 1);
    assert_eq!(stale, Err(Refused::NotTheOwner));
    call!(&mut desk, release, group, first, partition, generation).unwrap();
    assert_eq!(desk.owned(group, second), [partition]);
    let out = desk.poll(group, second, 20);
    assert!(out.iter().all(|it| it.attempt == 2 && it.generation == generation + 1));
    let late = call!(&mut desk, ack, group, first, out[0].id);
    assert_eq!(late, Err(Refused::LeasedToAnother));
}

#[test]
fn an_owner_that_keeps_a_partition_after_all_hears_of_what_waits_in_it() {
    let mut desk = Desk::new(Config { partitions: 2, backoff_base_ms: 0, ..Config::default() });
    let group = desk.group();
    let first = desk.join(group);
    (0..20).for_each(|key| _ = desk.put_key(spread(key)));
    let out = desk.poll(group, first, 30);
    desk.actions.clear();
    let second = desk.join(group);
    let [Action::Revoking { partition, .. }] = desk.actions[..] else { panic!() };
    let id = out.iter().find(|delivery| delivery.id.partition == partition).unwrap().id;
    call!(&mut desk, nack, group, first, id, None).unwrap();
    assert!(desk.poll(group, first, 30).is_empty());
    desk.actions.clear();
    call!(&mut desk, leave, group, second).unwrap();
    assert!(desk.actions.contains(&Action::Ready { group, member: first }));
    assert_eq!(desk.poll(group, first, 30)[0].id, id);
}

#[test]
fn a_low_priority_is_overtaken_for_a_while_only() {
    let mut desk = Desk::new(one_partition());
    let group = desk.group();
    let member = desk.join(group);
    let low = desk.put(NewMessage { bytes: 1, ..NewMessage::default() });
    for _ in 0..100 {
        desk.put(NewMessage { bytes: 1, priority: 9, ..NewMessage::default() });
    }
    let order = desk.poll(group, member, 100);
    let at = order.iter().position(|delivery| delivery.id == low);
    assert_eq!(at, Some(usize::from(FAIR_EVERY) - 1));
}

#[test]
fn serial_keys_do_not_stand_in_each_others_way() {
    let mut desk = Desk::new(Config { is_serial: true, ..one_partition() });
    let group = desk.group();
    let member = desk.join(group);
    let ids: Vec<_> = [1, 1, 1, 2, 2].iter().map(|&key| desk.put_key(key)).collect();
    let out = desk.poll(group, member, 10);
    assert_eq!(out.iter().map(|it| it.id).collect::<Vec<_>>(), [ids[0], ids[3]]);
    call!(&mut desk, nack, group, member, ids[0], Some(500)).unwrap();
    call!(&mut desk, ack, group, member, ids[3]).unwrap();
    assert_eq!(desk.poll(group, member, 10).len(), 1, "key 2 goes on, key 1 waits");
    desk.pass(500);
    assert_eq!(desk.poll(group, member, 10)[0].id, ids[0], "and then in order");
}

#[test]
fn order_of_a_key_is_kept_when_the_queue_grows() {
    let mut desk = Desk::new(Config { partitions: 2, ..Config::default() });
    let group = desk.group();
    let member = desk.join(group);
    let key = (0..1000).map(spread).find(|&key| {
        let mut grown = Desk::new(Config { partitions: 4, ..Config::default() });
        grown.put_key(key).partition >= 2
    });
    let key = key.unwrap();
    let old = desk.put_key(key);
    call!(&mut desk, grow, 4).unwrap();
    let new = desk.put_key(key);
    assert!(new.partition >= 2);
    assert_eq!(desk.poll(group, member, 10).len(), 1);
    assert!(desk.poll(group, member, 10).is_empty());
    call!(&mut desk, ack, group, member, old).unwrap();
    assert!(matches!(desk.actions.last(), Some(Action::Ready { .. })));
    assert_eq!(desk.poll(group, member, 10)[0].id, new);
}

#[test]
fn settling_in_order_is_one_change() {
    let mut desk = Desk::new(one_partition());
    let group = desk.group();
    let member = desk.join(group);
    (0..100).for_each(|_| _ = desk.put_key(1));
    let out = desk.poll(group, member, 100);
    desk.changes.clear();
    for delivery in out {
        call!(&mut desk, ack, group, member, delivery.id).unwrap();
    }
    assert_eq!(desk.changes, [Change::Settled { group, partition: 0, from: 0, to: 100 }]);
}

#[test]
fn an_idle_queue_of_eight_partitions_takes_some_hundred_bytes() {
    let mut desk = Desk::new(Config::default());
    let group = desk.group();
    let member = desk.join(group);
    for key in 0..10_000 {
        desk.put_key(spread(key));
    }
    while let [delivery, ..] = desk.poll(group, member, 1)[..] {
        call!(&mut desk, ack, group, member, delivery.id).unwrap();
    }
    call!(&mut desk, leave, group, member).unwrap();
    desk.queue.shrink(&mut desk.index);
    let with_group = desk.queue.memory_bytes();
    let bare = Queue::new(Config::default()).unwrap().memory_bytes();
    println!("{bare} bytes, {with_group} bytes with a group");
    assert!(with_group <= 704, "{with_group} bytes, with a group");
    assert!(bare <= 320, "{bare} bytes");
}

#[test]
fn depth_needs_no_memory_beyond_the_budget() {
    let budget = 64 * 6144;
    let mut desk = Desk::new(one_partition());
    desk.index = IndexPool::new(budget);
    let group = desk.group();
    let count = 1000 * CHUNK_LEN;
    let mut stored = std::collections::HashMap::new();
    for _ in 0..count {
        desk.put_key(7);
        desk.changes.clear();
        for action in std::mem::take(&mut desk.actions) {
            let Action::Store { partition, chunk } = action else { continue };
            let mut bytes = Vec::new();
            assert!(desk.queue.encode_chunk(partition, chunk, &mut bytes));
            stored.insert(chunk, bytes);
            desk.queue.stored(partition, chunk, 1 + chunk, &mut desk.index);
        }
    }
    let bytes = desk.queue.memory_bytes();
    assert!(bytes < 2 * budget, "{bytes} bytes for {count} messages");
    // And all of it comes, in order.
    let member = desk.join(group);
    let mut next = 0;
    while next < count {
        let out = desk.poll(group, member, 1000);
        for delivery in &out {
            assert_eq!((delivery.id.offset, delivery.position), (next, 1 + next));
            call!(&mut desk, ack, group, member, delivery.id).unwrap();
            next += 1;
        }
        for action in std::mem::take(&mut desk.actions) {
            if let Action::Want { partition, chunk, position } = action {
                assert_eq!(position, 1 + chunk);
                assert!(call!(&mut desk, load, partition, chunk, &stored[&chunk]));
            }
        }
        assert!(desk.index.resident_bytes() <= budget + 4 * 6144);
        desk.changes.clear();
    }
    assert_eq!(desk.queue.stats(desk.now).depth, 0);
}

#[test]
fn a_message_in_full_chunks_takes_24_bytes() {
    let mut desk = Desk::new(one_partition());
    let empty = desk.queue.memory_bytes();
    let count = 1024 * CHUNK_LEN;
    (0..count).for_each(|_| _ = desk.put_key(7));
    let each = (desk.queue.memory_bytes() - empty) as f64 / count as f64;
    assert!(each < 24.5, "{each}");
}

#[test]
fn a_stream_keeps_the_last_of_each_key_also_after_a_crash() {
    let config = Config { mode: Mode::Stream, is_compacted: true, ..one_partition() };
    let mut desk = Desk::new(config);
    for round in 0..5 {
        for key in 0..10 {
            desk.put(NewMessage { key_hash: key, bytes: 10 + round, ..NewMessage::default() });
        }
    }
    assert_eq!(desk.queue.stats(desk.now).depth, 10);
    assert_eq!(desk.queue.stats(desk.now).bytes, 140);
    let mut restoring = Restoring::default();
    desk.changes.iter().rev().for_each(|change| restoring.apply(change, 1));
    let mut again = Desk::new(config);
    let mut cx = Context {
        now: desk.now,
        changes: &mut again.changes,
        actions: &mut again.actions,
        index: &mut again.index,
    };
    again.queue = restoring.finish(config, &mut cx).unwrap();
    let group = again.group();
    let member = again.join(group);
    let offsets: Vec<_> = again.poll(group, member, 100).iter().map(|it| it.id.offset).collect();
    assert_eq!(offsets, (40..50).collect::<Vec<_>>());
}

#[test]
fn offsets_are_not_used_again_though_the_last_messages_are_gone() {
    let config = Config { partitions: 1, ..Config::default() };
    let mut desk = Desk::new(config);
    let (group, other) = (desk.group(), desk.group());
    let member = desk.join(group);
    for bytes in 1..=6 {
        desk.put(NewMessage { bytes, ..NewMessage::default() });
    }
    let ids: Vec<_> = desk.poll(group, member, 6).iter().map(|delivery| delivery.id).collect();
    for at in [4, 5] {
        call!(&mut desk, ack, group, member, ids[at]).unwrap();
    }
    call!(&mut desk, remove_group, other).unwrap();
    for at in [0, 2] {
        call!(&mut desk, ack, group, member, ids[at]).unwrap();
    }
    let mut restoring = Restoring::default();
    desk.changes.iter().for_each(|change| restoring.apply(change, 1));
    let restoring = written_again(&restoring, Mode::Work);
    let left: Vec<_> = restoring.messages(Mode::Work).map(|message| message.id).collect();
    assert_eq!(left, [ids[1], ids[3]]);
    assert!(restoring.has_group(group) && !restoring.has_group(other));
    let mut again = Desk::new(config);
    let mut cx = Context {
        now: desk.now,
        changes: &mut again.changes,
        actions: &mut again.actions,
        index: &mut again.index,
    };
    again.queue = restoring.finish(config, &mut cx).unwrap();
    again.put(NewMessage::default());
    let placed = again.changes.iter().find_map(|change| match change {
        Change::Enqueued { id, .. } => Some(id.offset),
        _ => None,
    });
    assert_eq!(placed, Some(6));
}
