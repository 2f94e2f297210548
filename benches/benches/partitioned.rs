//! Partitioned queues in memory: what a message costs from being enqueued to being settled.
//!
//! Aims: enqueue <= 300 ns, poll and acknowledge <= 1 us, nothing allocated in the steady state. The
//! Go broker's report: 1,459 ns and 337 us (there with storage).

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dunlin_benches::{time_of_part, timed};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{
    Action, Change, Commit, Config, Context, Delivery, GroupId, IndexPool, MemberId, Mode,
    NewMessage, Queue, Start,
};

const BATCH: usize = 512;

struct Desk {
    queue: Queue,
    now: Time,
    changes: Vec<Change>,
    actions: Vec<Action>,
    index: IndexPool,
    groups: Vec<(GroupId, MemberId)>,
    out: Vec<Delivery>,
    next: u64,
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
    /// A queue with groups of one member each, and `depth` messages.
    fn new(config: Config, groups: usize, depth: usize) -> Self {
        let mut desk = Self {
            queue: Queue::new(config).expect("a configuration"),
            now: Time::from_millis(1_000_000),
            changes: Vec::new(),
            actions: Vec::new(),
            index: IndexPool::new(8 << 30),
            groups: Vec::new(),
            out: Vec::new(),
            next: 0,
        };
        for _ in 0..groups {
            let group = call!(&mut desk, create_group, Start::Earliest, Commit::Auto);
            let group = group.expect("room for it");
            let member = call!(&mut desk, join, group, u32::MAX).expect("room for it");
            desk.groups.push((group, member));
        }
        (0..depth).for_each(|_| desk.enqueue());
        desk.forget();
        desk
    }

    fn enqueue(&mut self) {
        self.next += 1;
        let key_hash = (self.next % 10_000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let new = NewMessage { key_hash, bytes: 100, ..NewMessage::default() };
        let id = call!(self, enqueue, black_box(&new)).expect("room for it");
        call!(self, keep, id, self_position(id.offset));
    }

    fn poll(&mut self, at: usize, credit: usize) {
        let (group, member) = self.groups[at];
        let mut out = std::mem::take(&mut self.out);
        call!(self, poll, group, member, credit, &mut out).expect("a member");
        self.out = out;
    }

    fn settle(&mut self, at: usize) {
        let (group, member) = self.groups[at];
        let mut out = std::mem::take(&mut self.out);
        for delivery in out.drain(..) {
            call!(self, ack, group, member, delivery.id).expect("a lease");
        }
        self.out = out;
    }

    /// What the owner does with what came out, as cheaply as can be.
    fn forget(&mut self) {
        self.changes.clear();
        self.actions.clear();
    }

    /// A turn of a worker: `BATCH` in, `BATCH` out.
    fn turn(&mut self) {
        for _ in 0..BATCH {
            self.enqueue();
        }
        for at in 0..self.groups.len() {
            self.poll(at, BATCH);
            self.settle(at);
        }
        self.forget();
        self.now = self.now.plus_millis(1);
        call!(self, on_timer);
    }
}

fn self_position(offset: u64) -> u64 {
    1 + offset * 128
}

fn configs() -> [(&'static str, Config, usize); 5] {
    let work = Config { member_timeout_ms: 0, ..Config::default() };
    let stream = Config { mode: Mode::Stream, ..work };
    [
        ("work, 8 partitions", work, 1),
        ("work, 1 partition", Config { partitions: 1, ..work }, 1),
        ("work, 3 groups", work, 3),
        ("work, serial by key", Config { is_serial: true, ..work }, 1),
        ("stream", stream, 1),
    ]
}

/// Enqueue with keep, and poll with acknowledge, each per message, in turns of 512 on top of
/// 100,000.
fn messages(criterion: &mut Criterion) {
    for (name, mut config, groups) in configs() {
        let is_stream = config.mode == Mode::Stream;
        if is_stream {
            // In a stream nothing goes but by retention.
            config.retention.messages_max = 200_000;
            config.retention.policy = dunlin_queue::partitioned::FullPolicy::DropOldest;
        }
        let mut group = criterion.benchmark_group(format!("partitioned/{name}"));
        group.throughput(Throughput::Elements(1));
        let mut desk = Desk::new(config, groups, 100_000);
        for _ in 0..1000 {
            desk.turn();
        }
        let counted = allocation_counter::measure(|| (0..200).for_each(|_| desk.turn()));
        let each = counted.count_total as f64 / (200 * BATCH) as f64;
        eprintln!("  {name}: {each:.5} allocations per message");
        let mut round = || {
            let enqueue = timed(|| (0..BATCH).for_each(|_| desk.enqueue()));
            let poll = timed(|| {
                for at in 0..groups {
                    desk.poll(at, BATCH);
                    desk.settle(at);
                }
            });
            desk.forget();
            [enqueue, poll]
        };
        for (part, name) in ["enqueue", "poll, acknowledge"].into_iter().enumerate() {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|count| time_of_part(count, BATCH as u64, part, &mut round));
            });
        }
        group.finish();
    }
}

/// One message at a time: what a consumer with a credit of one costs.
fn one_by_one(criterion: &mut Criterion) {
    let mut desk = Desk::new(Config::default(), 1, 0);
    let mut group = criterion.benchmark_group("partitioned/one by one");
    group.bench_function("enqueue, poll, acknowledge", |bencher| {
        bencher.iter(|| {
            desk.enqueue();
            desk.poll(0, 1);
            desk.settle(0);
            desk.forget();
        });
    });
    group.finish();
}

/// A timer when one lease of one group has ended, in queues small and as large as can be.
fn timer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partitioned/timer");
    for (partitions, groups) in [(8, 1), (1024, 1), (1024, 64)] {
        let mut config =
            Config { partitions, attempts_max: 0, backoff_base_ms: 0, ..Config::default() };
        // The same message all the time.
        config.retention.age_ms_max = 0;
        let mut desk = Desk::new(config, groups, 1);
        group.bench_function(format!("{partitions} partitions, {groups} groups"), |bencher| {
            bencher.iter_custom(|count| {
                let mut sum = Duration::ZERO;
                for _ in 0..count {
                    desk.poll(0, 1);
                    assert_eq!(desk.out.drain(..).len(), 1);
                    desk.now = desk.now.plus_millis(u64::from(config.lease_ms));
                    sum += timed(|| call!(&mut desk, on_timer));
                    desk.forget();
                }
                sum
            });
        });
    }
    group.finish();
}

criterion_group!(benches, messages, one_by_one, timer);
criterion_main!(benches);
