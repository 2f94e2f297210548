//! What a budget can be held against, by the name it has in `budgets.toml`.

use std::path::Path;
use std::time::Instant;

use dunlin_benches::{FanOut, HandlePush, IdleQueues, QueueLine};
use dunlin_packets::{Properties, QoS, Version};
use dunlin_queue::{
    DeliveryQueue, Entry, Identifiers, MessageFields, MessagePool, OverflowPolicy, QueueLimits,
    Time,
};
use serde_json::Value;

/// Operations behind a count of allocations.
const OPERATIONS: u64 = 100;

/// Measures what `name` says. `instructions` is where the instruction counts are.
///
/// # Errors
/// When there is no such measure, or its figure is not there.
pub(crate) fn measure(name: &str, instructions: &Path) -> Result<f64, String> {
    match name {
        "allocations/publish-1000-q0" => Ok(publish(0).0),
        "allocations/publish-1000-q1" => Ok(publish(1).0),
        "allocations/publish-1000-q2" => Ok(publish(2).0),
        "bytes/publish-1000-q0" => Ok(publish(0).1),
        "bytes/publish-1000-q1" => Ok(publish(1).1),
        "allocations/queue" => Ok(queue()),
        "allocations/queue-line" => Ok(queue_line()),
        "bytes/idle-queue" => Ok(idle_queue(false)),
        "bytes/idle-queue-with-group" => Ok(idle_queue(true)),
        "pool/reuse-percent" => Ok(pool().0),
        "pool/slots" => Ok(pool().1),
        "ratio/enqueue-to-handle-push" => Ok(enqueue_to_handle_push()),
        _ => match name.strip_prefix("instructions/") {
            Some(benchmark) => instruction_count(&instructions.join(benchmark)),
            None => Err(format!("there is no measure {name}")),
        },
    }
}

/// Allocations and bytes per publish to 1000 subscribers, half of them of each version.
fn publish(qos: u8) -> (f64, f64) {
    let mut counted = (0, 0);
    for version in [Version::V4, Version::V5] {
        let mut scene = FanOut::new(1000, version, qos, 100);
        for _ in 0..100 {
            scene.publish();
        }
        let info = allocation_counter::measure(|| {
            for _ in 0..OPERATIONS {
                scene.publish();
            }
        });
        counted = (counted.0 + info.count_total, counted.1 + info.bytes_total);
    }
    let operations = (2 * OPERATIONS) as f64;
    (counted.0 as f64 / operations, counted.1 as f64 / operations)
}

fn queue() -> f64 {
    let limits =
        QueueLimits { messages_max: 100, bytes_max: 1 << 20, policy: OverflowPolicy::DropNewest };
    let mut pool = MessagePool::new(1 << 20);
    let mut queue = DeliveryQueue::default();
    let payload = [b'x'; 100];
    let fields = MessageFields {
        topic: "t",
        payload: &payload,
        properties: Properties::default(),
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: 0,
    };
    let mut pass = || {
        let message = pool.insert(&fields, Time::default());
        let identifiers = Identifiers::NONE;
        let entry = Entry { message, identifiers, group: 0, qos: QoS::AtLeastOnce, retain: false };
        queue.push(entry, &limits, &mut pool, |_, _, _| ());
        if let Some(entry) = queue.pop(&pool) {
            entry.release(&mut pool);
        }
    };
    (0..100).for_each(|_| pass());
    let info = allocation_counter::measure(|| (0..OPERATIONS).for_each(|_| pass()));
    info.count_total as f64 / OPERATIONS as f64
}

/// Allocations per message through a partitioned queue, to consumers of both versions.
fn queue_line() -> f64 {
    let mut count = 0;
    for version in [Version::V4, Version::V5] {
        let mut scene = QueueLine::new(version);
        let info = allocation_counter::measure(|| (0..OPERATIONS).for_each(|_| scene.pass()));
        count += info.count_total;
    }
    count as f64 / (2 * OPERATIONS) as f64
}

/// Bytes of memory for each of many queues that are idle.
fn idle_queue(has_group: bool) -> f64 {
    const FEW: usize = 1000;
    const MANY: usize = 5000;
    let held = |count| {
        let mut scene = None;
        let info = allocation_counter::measure(|| scene = Some(IdleQueues::new(count, has_group)));
        assert_eq!(scene.map_or(0, |scene| scene.messages()), 0, "they are not idle");
        info.bytes_current
    };
    // What the worker takes anyway is in both.
    (held(MANY) - held(FEW)) as f64 / (MANY - FEW) as f64
}

/// How many messages were made in a used slot, in percent, and how many slots there are, after ten
/// thousand messages to 1000 subscribers.
fn pool() -> (f64, f64) {
    let mut scene = FanOut::new(1000, Version::V4, 0, 100);
    let before = scene.rig.pool_stats();
    for _ in 0..10_000 {
        scene.publish();
    }
    let after = scene.rig.pool_stats();
    let (reused, grown) = (after.reused - before.reused, after.grown - before.grown);
    (100.0 * reused as f64 / (reused + grown).max(1) as f64, after.slots as f64)
}

/// How often a bare push of a handle into 1000 queues goes into putting a message into those of 1000
/// sessions. Both are taken in turn, and the median of the ratios counts.
#[allow(clippy::disallowed_methods)] // a ratio of two times of one run
fn enqueue_to_handle_push() -> f64 {
    const DEPTH: u32 = 32;
    const ROUNDS: usize = 41;
    let mut scene = FanOut::new(1000, Version::V4, 0, 100);
    let mut bare = HandlePush::new(1000);
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            scene.stop_reading();
            let start = Instant::now();
            (0..DEPTH).for_each(|_| scene.enqueue());
            let enqueue = start.elapsed();
            scene.catch_up();
            let start = Instant::now();
            (0..DEPTH).for_each(|handle| bare.push(std::hint::black_box(handle)));
            let push = start.elapsed();
            bare.clear();
            enqueue.as_secs_f64() / push.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ROUNDS / 2]
}

/// The count that gungraun left behind.
fn instruction_count(directory: &Path) -> Result<f64, String> {
    let file = directory.join("summary.json");
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}; scripts/check_budgets.sh", file.display()))?;
    let summary: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let values = &summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"];
    values["new"].as_f64().ok_or_else(|| format!("{}: no count in {values}", file.display()))
}
