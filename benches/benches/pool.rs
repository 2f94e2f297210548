//! Messages and mail: the pool on one thread and between two, the queue, the mailbox.
//!
//! The Go broker's report: queue enqueue 1,459 ns, dequeue 337 us (there with storage).

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dunlin_benches::{time_of_part, timed};
use dunlin_packets::{Properties, QoS};
use dunlin_queue::mailbox::{Inbox, Outbox};
use dunlin_queue::{
    DeliveryQueue, Entry, Identifiers, Message, MessageFields, MessagePool, OverflowPolicy,
    QueueLimits, Time,
};

const LIMITS: QueueLimits =
    QueueLimits { messages_max: 100_000, bytes_max: 1 << 30, policy: OverflowPolicy::DropNewest };

fn fields(payload: &[u8]) -> MessageFields<'_> {
    MessageFields {
        topic: "site/7/device/42",
        payload,
        properties: Properties::default(),
        qos: QoS::AtMostOnce,
        retain: false,
        publisher: 0,
    }
}

fn hit_rate(pool: &MessagePool) -> f64 {
    let stats = pool.stats();
    100.0 * stats.reused as f64 / (stats.reused + stats.grown).max(1) as f64
}

fn same_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool/same thread");
    for payload in [100, 4096] {
        let payload = vec![b'x'; payload];
        let mut pool = MessagePool::new(32 << 20);
        group.bench_function(BenchmarkId::new("make+release", payload.len()), |bencher| {
            bencher.iter(|| {
                let message = pool.insert(black_box(&fields(&payload)), Time::default());
                pool.release(message);
            });
        });
        eprintln!("  hit rate {:.4} %", hit_rate(&pool));
    }
    let mut pool = MessagePool::new(32 << 20);
    let message = pool.insert(&fields(b"x"), Time::default());
    group.bench_function("share+release", |bencher| {
        bencher.iter(|| {
            let share = pool.share(black_box(&message));
            pool.release(share);
        });
    });
    group.finish();
}

/// A message is copied for another worker, adopted there, released, and its buffer comes home with
/// the batch: per message, in batches of 64. The receiver is another thread.
fn cross_thread(criterion: &mut Criterion) {
    const BATCH: usize = 64;
    let mut group = criterion.benchmark_group("pool/cross thread");
    group.throughput(Throughput::Elements(BATCH as u64));
    let inbox: Inbox<Message> = Inbox::new(1, Box::new(|| ()));
    let mut outbox = Outbox::new(0, inbox.address(), 1 << 30);
    let done = AtomicBool::new(false);
    let payload = [b'x'; 100];
    let mut pool = MessagePool::new(32 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut pool = MessagePool::new(32 << 20);
            while !done.load(Ordering::Relaxed) {
                let Some(mut batch) = inbox.receive() else {
                    std::thread::yield_now();
                    continue;
                };
                for item in &mut batch.items {
                    let message = pool.adopt(item);
                    pool.release(black_box(message));
                }
                let _ = inbox.send_home(batch);
            }
            eprintln!("  receiver's hit rate {:.4} %", hit_rate(&pool));
        });
        group.bench_function(BenchmarkId::new("copy, adopt, come home", BATCH), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    let message = pool.insert(&fields(&payload), Time::default());
                    outbox.push(pool.copy(&message), payload.len());
                    pool.release(message);
                }
                while !outbox.post() {
                    std::thread::yield_now();
                }
                outbox.collect(|message| pool.take_back(message));
            });
        });
        done.store(true, Ordering::Relaxed);
    });
    eprintln!("  sender's hit rate {:.4} %", hit_rate(&pool));
    group.finish();
}

/// A message is made and queued; it is taken out and given back. Each is measured by itself.
fn queue(criterion: &mut Criterion) {
    const ROUND: u64 = 1000;
    let mut group = criterion.benchmark_group("queue");
    let mut pool = MessagePool::new(32 << 20);
    let mut queue = DeliveryQueue::default();
    let payload = [b'x'; 100];
    let mut round = || {
        let enqueue = timed(|| {
            for _ in 0..ROUND {
                let message = pool.insert(black_box(&fields(&payload)), Time::default());
                let (identifiers, qos) = (Identifiers::NONE, QoS::AtLeastOnce);
                let entry = Entry { message, identifiers, group: 0, qos, retain: false };
                queue.push(entry, &LIMITS, &mut pool, |_, _, _| ());
            }
        });
        let dequeue = timed(|| {
            while let Some(entry) = queue.pop(&pool) {
                entry.release(&mut pool);
            }
        });
        [enqueue, dequeue]
    };
    for (part, name) in ["enqueue", "dequeue"].into_iter().enumerate() {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| time_of_part(count, ROUND, part, &mut round));
        });
    }
    group.finish();
}

fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    for batch in [1, 16, 64, 1024] {
        let inbox: Inbox<u64> = Inbox::new(1, Box::new(|| ()));
        let mut outbox = Outbox::new(0, inbox.address(), 1 << 30);
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("push, post, receive, come home", batch), |b| {
            b.iter(|| {
                for item in 0..batch {
                    outbox.push(item, 64);
                }
                outbox.post();
                while let Some(batch) = inbox.receive() {
                    let _ = inbox.send_home(batch);
                }
                outbox.collect(|item| {
                    black_box(item);
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, same_thread, cross_thread, queue, mailbox);
criterion_main!(benches);
