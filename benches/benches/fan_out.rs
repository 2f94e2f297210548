//! A publish to many subscribers, in process: everything but the kernel. And the look-up of a
//! topic among many filters.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dunlin::worker::Settings;
use dunlin_packets::Version;
use dunlin_router::{SubscriberId, Subscription, Subscriptions, Target};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for subscribers in [1, 10, 100, 1000] {
        let mut sim = Sim::new(1, Settings::default());
        let clients: Vec<_> = (0..subscribers)
            .map(|number| {
                let client = Client::online(&mut sim, &Connecting::v4(&format!("s{number}")));
                client.send(&mut sim, Subscribing::to("t", 0).v4());
                client
            })
            .collect();
        let publisher = Client::online(&mut sim, &Connecting::v4("p"));
        let publish = Publishing::q0("t", &[b'x'; 100]).bytes_for(Version::V4);
        group.throughput(Throughput::Elements(subscribers));
        group.bench_function(BenchmarkId::new("subscribers", subscribers), |bencher| {
            bencher.iter(|| {
                publisher.write(&publish);
                sim.run();
                clients.iter().for_each(Client::discard);
            });
        });
    }
    group.finish();
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for filters in [1_000u32, 100_000] {
        let mut index = Subscriptions::default();
        for number in 0..filters {
            let target = Target::Session(SubscriberId(number));
            let filter = format!("site/{}/device/{number}", number % 100);
            index.subscribe(&filter, target, Subscription::default());
            if number % 10 == 0 {
                let filter = format!("site/+/device/{number}/#");
                index.subscribe(&filter, target, Subscription::default());
            }
        }
        let topics: Vec<_> = (0..filters.min(50_000))
            .map(|number| format!("site/{}/device/{number}", number % 100))
            .collect();
        group.bench_function(BenchmarkId::new("hot", filters), |bencher| {
            bencher.iter(|| black_box(index.route(&topics[7], &mut ()).matches.len()));
        });
        let mut next = 0;
        group.bench_function(BenchmarkId::new("cold", filters), |bencher| {
            bencher.iter(|| {
                // Further than the cache reaches, so every topic is a new one.
                next = (next + 4_999) % topics.len();
                black_box(index.route(&topics[next], &mut ()).matches.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out, route);
criterion_main!(benches);
