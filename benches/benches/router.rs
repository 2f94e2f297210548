//! The router: look-up of a topic among many filters, subscribing, share groups.
//!
//! The Go broker's report has no figure for it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dunlin_benches::{time_of_part, timed};
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

/// Subscriptions that come to many and go, each measured by itself.
fn changes(criterion: &mut Criterion) {
    const ROUND: u32 = 1000;
    for (shape, sizes) in [("exact", &[100, 10_000, 1_000_000][..]), ("plus", &[10_000])] {
        let mut group = criterion.benchmark_group(format!("subscriptions/{shape}"));
        for &filters in sizes {
            let mut index = index(filters, shape);
            let more: Vec<_> = (filters..filters + ROUND).map(|n| (n, filter(n, shape))).collect();
            let mut added = Vec::with_capacity(more.len());
            // So many come, then so many go.
            let mut round = || {
                let subscribe = timed(|| {
                    added.extend(more.iter().map(|(number, filter)| {
                        index.subscribe(filter, target(*number), Subscription::default()).filter
                    }));
                });
                let unsubscribe = timed(|| {
                    for (id, (number, _)) in added.drain(..).zip(&more) {
                        index.unsubscribe(id, target(*number), |_| ());
                    }
                });
                [subscribe, unsubscribe]
            };
            for (part, name) in ["subscribe", "unsubscribe"].into_iter().enumerate() {
                group.bench_function(BenchmarkId::new(name, filters), |bencher| {
                    let len = u64::from(ROUND);
                    bencher.iter_custom(|count| time_of_part(count, len, part, &mut round));
                });
            }
        }
        group.finish();
    }
}

/// A subscription that comes and goes between look-ups.
fn mixed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscriptions");
    for filters in [10_000u32, 1_000_000] {
        let mut index = index(filters, "exact");
        let mut number = filters;
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

    let mut group = criterion.benchmark_group("share-group");
    let mut groups = ShareGroups::new(Strategy::RoundRobin, 7);
    let member = |key| Member { key, subscription: Subscription::default() };
    for members in [10, 1000] {
        let name = format!("$share/{members}/t");
        (0..members).for_each(|key| _ = groups.join(&name, member(key), true));
        group.bench_function(BenchmarkId::new("join+leave", members), |bencher| {
            bencher.iter(|| {
                let id = groups.join(&name, member(members), true);
                black_box(groups.leave(id, members))
            });
        });
    }
    // A topic that a filter of a group matches, among many: found, and a member picked.
    let mut index = index(10_000, "plus");
    let id = groups.join("$share/g/site/+/device/7", member(0), true);
    index.subscribe("site/+/device/7", Target::Group(id), Subscription::default());
    group.bench_function("match and pick among 10,000 filters", |bencher| {
        let mut publisher = 0;
        bencher.iter(|| {
            publisher += 1;
            for matched in index.route("site/7/device/7", &mut ()).matches {
                if let Target::Group(id) = matched.target() {
                    black_box(groups.pick(id, "site/7/device/7", publisher, None));
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, matching, changes, mixed, shared);
criterion_main!(benches);
