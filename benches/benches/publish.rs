//! A message through a worker, with everything but the kernel: read, decoded, routed, queued,
//! composed, written, and acknowledged where that is due.
//!
//! The Go broker's report: 1000 subscribers 74 us (220 before pooling), a single message 563 ns,
//! its later figure 67 us. There a message ends in a queue; `enqueue` is what compares with that.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dunlin_benches::{FanOut, HandlePush};
use dunlin_packets::Version;

const SUBSCRIBERS: [usize; 5] = [1, 10, 100, 1000, 10_000];

/// By the number of subscribers and the size of the payload, at QoS 0 in 3.1.1.
fn payloads(criterion: &mut Criterion) {
    for payload in [100, 1 << 10, 8 << 10, 64 << 10] {
        let mut group = criterion.benchmark_group(format!("publish/{payload} bytes"));
        for subscribers in SUBSCRIBERS {
            let mut scene = FanOut::new(subscribers, Version::V4, 0, payload);
            group.throughput(Throughput::Elements(subscribers as u64));
            group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
                bencher.iter(|| scene.publish());
            });
        }
        group.finish();
    }
}

/// By the number of subscribers, QoS and version, with 100 bytes; in 5.0 the message has properties.
/// At QoS 1 and 2 the subscribers' acknowledgements are part of it.
fn qualities(criterion: &mut Criterion) {
    for (version, qos) in [(Version::V4, 1), (Version::V4, 2)]
        .into_iter()
        .chain((0..=2).map(|qos| (Version::V5, qos)))
    {
        let name = format!("publish/{} qos {qos}", version.name());
        let mut group = criterion.benchmark_group(name);
        for subscribers in SUBSCRIBERS {
            let mut scene = FanOut::new(subscribers, version, qos, 100);
            group.throughput(Throughput::Elements(subscribers as u64));
            group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| {
                bencher.iter(|| scene.publish());
            });
        }
        group.finish();
    }
}

/// Queued only: the subscribers' sockets are full.
#[allow(clippy::disallowed_methods)] // criterion's own way to leave something out of the time
fn enqueue(criterion: &mut Criterion) {
    const DEPTH: u64 = 32;
    let mut group = criterion.benchmark_group("enqueue/to-1000");
    group.throughput(Throughput::Elements(1000));
    let mut scene = FanOut::new(1000, Version::V4, 0, 100);
    group.bench_function("worker", |bencher| {
        bencher.iter_custom(|count| {
            let mut time = Duration::ZERO;
            for _ in 0..count.div_ceil(DEPTH) {
                scene.stop_reading();
                let start = Instant::now();
                for _ in 0..DEPTH {
                    scene.enqueue();
                }
                time += start.elapsed();
                scene.catch_up();
            }
            time.mul_f64(count as f64 / (count.div_ceil(DEPTH) * DEPTH) as f64)
        });
    });
    let mut bare = HandlePush::new(1000);
    group.bench_function("bare handle push", |bencher| {
        let mut handle = 0;
        bencher.iter(|| {
            handle += 1;
            if handle % DEPTH as u32 == 0 {
                bare.clear();
            }
            bare.push(handle);
        });
    });
    group.finish();
}

criterion_group!(benches, payloads, qualities, enqueue);
criterion_main!(benches);
