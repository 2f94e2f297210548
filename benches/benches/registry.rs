//! The session registry and the retained index at a million and more.
//!
//! The workloads are those of the reports that started the project: 1.5M inserts, 1000 random
//! look-ups, a range query, a clean-up by age, 20 readers beside 10 writers. Nobody shares a map
//! here: each worker owns its sessions, so readers and writers are clients that come to one worker
//! in the same turn: 20 whose sessions it has to find, 10 that are new. A session has no range to
//! query; retained topics have. The first million inserts and the end of all sessions are single
//! runs, printed and not sampled. The reports' figures for these are not in our hands; theirs for a
//! message are in `publish.rs` and `pool.rs`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use dunlin::worker::Settings;
use dunlin_benches::Rig;
use dunlin_router::RetainedIndex;
use dunlin_tests::Connecting;

const SESSIONS: usize = 1_000_000;
const TOPICS: usize = 1_500_000;

/// Numbers that look random and come again in the next run.
fn scattered(number: usize) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % SESSIONS
}

fn visit(rig: &mut Rig, name: &str, expiry_s: u32) {
    let client = rig.connect(&Connecting::v5(name).resume().expiry(expiry_s));
    rig.drop_connection(client);
}

/// A whole visit: CONNECT, the session found or made, CONNACK, DISCONNECT.
#[allow(clippy::disallowed_methods)] // criterion's own way to leave something out of the time
fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sessions");
    group.sample_size(10);
    let mut rig = Rig::new(Settings::default());
    let start = Instant::now();
    for number in 0..SESSIONS {
        visit(&mut rig, &format!("device-{number}"), 3600);
    }
    let each = start.elapsed().as_nanos() as usize / SESSIONS;
    eprintln!("  {SESSIONS} sessions made, {each} ns each");
    let mut next = 0;
    group.bench_function("look up one of a million, at random", |bencher| {
        bencher.iter(|| {
            next += 1;
            visit(&mut rig, &format!("device-{}", scattered(next)), 3600);
        });
    });
    group.bench_function("20 readers beside 10 writers, at a million", |bencher| {
        let mut clients = Vec::with_capacity(30);
        bencher.iter(|| {
            for number in 0..30 {
                next += 1;
                // New ones leave nothing behind, so it stays a million.
                let (name, expiry_s) = match number % 3 {
                    0 => (format!("new-{next}"), 0),
                    _ => (format!("device-{}", scattered(next)), 3600),
                };
                clients.push(rig.open(&Connecting::v5(&name).resume().expiry(expiry_s)));
            }
            rig.settle();
            for client in clients.drain(..) {
                rig.drop_connection(client);
            }
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("sessions by expiry");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.bench_function("end of a session, of as many as are due", |bencher| {
        bencher.iter_custom(|count| {
            for number in 0..count {
                visit(&mut rig, &format!("short-{number}"), 1);
            }
            let start = Instant::now();
            rig.advance_ms(2000);
            start.elapsed()
        });
    });
    group.finish();
    let start = Instant::now();
    rig.advance_ms(3_700_000);
    let each = start.elapsed().as_nanos() as usize / SESSIONS;
    eprintln!("  all sessions expired, {each} ns each");
}

#[allow(clippy::disallowed_methods)] // once is enough for a million and a half
fn retained(criterion: &mut Criterion) {
    let topic = |number: usize| format!("site/{}/device/{number}", number % 1500);
    let mut index = RetainedIndex::default();
    let topics: Vec<_> = (0..TOPICS).map(topic).collect();
    let start = Instant::now();
    for (number, topic) in topics.iter().enumerate() {
        index.insert(topic, number);
    }
    let each = start.elapsed().as_nanos() as usize / TOPICS;
    eprintln!("  {TOPICS} topics inserted, {each} ns each");
    let mut group = criterion.benchmark_group("retained index of 1.5M topics");
    let mut next = 0;
    group.bench_function("1000 look-ups, at random", |bencher| {
        bencher.iter(|| {
            for _ in 0..1000 {
                next += 1;
                black_box(index.get(&topics[scattered(next)]));
            }
        });
    });
    group.bench_function("range query of 1000 topics", |bencher| {
        bencher.iter(|| {
            let mut found = 0;
            index.search("site/700/#", None, usize::MAX, |_, number| found += number);
            black_box(found)
        });
    });
    group.bench_function("clean-up by age: a look at 1000 topics", |bencher| {
        bencher.iter(|| {
            let mut old = 0usize;
            next += 1000;
            index.scan(Some(&topics[scattered(next)]), 1000, |_, number| {
                old += usize::from(number % 2 == 0);
            });
            black_box(old)
        });
    });
    group.finish();
}

criterion_group!(benches, sessions, retained);
criterion_main!(benches);
