//! The router: look-up of a topic among many filters, subscribing, share groups.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dunlin_router::{
    Member, ShareGroups, Strategy, SubscriberId, Subscription, Subscriptions, Target,
};

fn target(number: u32) -> Target {
    Target::Session(SubscriberId(number))
}

/// A filter for each device, of the shape that is measured, and some wildcards as everywhere.
fn index(filters: u32, shape: &str) -> Subscriptions {
    let mut index = Subscriptions::default();
    for number in 0..filters {
        let filter = filter(number, shape);
        index.subscribe(&filter, target(number), Subscription::default());
    }
    for site in 0..100.min(filters) {
        let filter = format!("site/{site}/alarm/#");
        index.subscribe(&filter, target(filters + site), Subscription::default());
    }
    index
}

fn filter(number: u32, shape: &str) -> String {
    let site = number % 100;
    match shape {
        "exact" => format!("site/{site}/device/{number}"),
        "plus" => format!("site/+/device/{number}"),
        "hash" => format!("site/{site}/device/{number}/#"),
        _ => format!("a/b/c/d/e/f/g/h/site/{site}/device/{number}"),
    }
}

fn topic(number: u32, shape: &str) -> String {
    let site = number % 100;
    match shape {
        "deep" => filter(number, shape),
        _ => format!("site/{site}/device/{number}"),
    }
}

/// `hot`: one of few topics, out of the cache. `cold`: one of more than the cache holds.
fn matching(criterion: &mut Criterion) {
    for shape in ["exact", "plus", "hash", "deep"] {
        let mut group = criterion.benchmark_group(format!("match/{shape}"));
        for filters in [100, 10_000, 1_000_000] {
            let mut index = index(filters, shape);
            let topics: Vec<_> =
                (0..filters.min(50_000)).map(|number| topic(number, shape)).collect();
            group.bench_function(BenchmarkId::new("hot", filters), |bencher| {
                bencher.iter(|| black_box(index.route(&topics[7], &mut ()).matches.len()));
            });
            let mut next = 0;
            group.bench_function(BenchmarkId::new("cold", filters), |bencher| {
                bencher.iter(|| {
                    next = (next + 4_999) % topics.len();
                    black_box(index.route(&topics[next], &mut ()).matches.len())
                });
            });
        }
        group.finish();
    }
}

/// A subscription that comes and goes among many, and the same between look-ups.
fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscriptions");
    for filters in [10_000u32, 1_000_000] {
        let mut index = index(filters, "exact");
        let mut number = filters;
        group.bench_function(BenchmarkId::new("subscribe+unsubscribe", filters), |bencher| {
            bencher.iter(|| {
                number += 1;
                let filter = filter(number, "exact");
                let added = index.subscribe(&filter, target(number), Subscription::default());
                index.unsubscribe(added.filter, target(number), |_| ());
            });
        });
        let topics: Vec<_> = (0..1000).map(|number| topic(number, "exact")).collect();
        group.bench_function(BenchmarkId::new("mixed, 1 change per 10 look-ups", filters), |b| {
            b.iter(|| {
                number += 1;
                let filter = filter(number, "exact");
                let added = index.subscribe(&filter, target(number), Subscription::default());
                for offset in 0..10 {
                    let topic = &topics[(number as usize * 7 + offset) % topics.len()];
                    black_box(index.route(topic, &mut ()).matches.len());
                }
                index.unsubscribe(added.filter, target(number), |_| ());
            });
        });
    }
    group.finish();
}

fn shared(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("share-group/pick");
    for (name, strategy) in [
        ("round robin", Strategy::RoundRobin),
        ("random", Strategy::Random),
        ("sticky", Strategy::Sticky),
        ("hash of client", Strategy::HashClient),
    ] {
        let mut groups = ShareGroups::new(strategy, 7);
        let mut id = None;
        for key in 0..100u32 {
            let member = Member { key, subscription: Subscription::default() };
            id = Some(groups.join("$share/g/t", member, true));
        }
        let id = id.expect("a group of 100");
        let mut publisher = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                publisher += 1;
                black_box(groups.pick(id, "t", publisher, None))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matching, changes, shared);
criterion_main!(benches);
