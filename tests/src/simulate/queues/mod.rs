//! Random clients of partitioned queues, from one seed, with an auditor.
//!
//! Four queues: two for work, of which one may have bounds, or delays and priorities; one that
//! captures ordinary topics; a stream. Publishers at QoS 1 and 2, groups of consumers that settle
//! by verbs, by PUBACK or by PUBREC, of 5.0 and 3.1.1; readers of the stream that commit in both
//! ways and replay; undertakers that consume dead letters or put them back. Leases that end,
//! consumers that unsubscribe and stay, connections that drop, power cuts between any two steps of
//! the log, graceful restarts with more partitions, a disk that is full or fails, memory too small
//! for anything.
//!
//! What is held against the broker is at each of the auditors:
//!
//! * `audit`: publications, acknowledged and refused
//! * `audit::work`: groups that settle messages
//! * `audit::letters`: dead letters
//! * `audit::streams`: groups that read on

mod audit;
mod connected;
mod consumer;
mod delivery;
mod fault;
mod publisher;
mod reader;
mod scene;
mod undertaker;
mod world;

use dunlin_queue::Time;

pub use world::run;

/// Milliseconds of a lease, and attempts.
const LEASE_MS: u64 = 10_000;
const ATTEMPTS: u32 = 4;
/// A consumer that has messages and says nothing for so long is no member any more.
const SILENCE_MS: u64 = 20_000;
/// Between two looks at what clients have got, while time passes.
const LOOK_MS: u64 = 100;
/// Every queue has these.
const GROUPS: [&str; 2] = ["g", "h"];
/// A session that is a group of its own, of the first queue.
const LONER: &str = "l";

/// Until when a message is certainly its consumer's, who was last heard of then: it may have come
/// at any time since the last look.
fn leased_until(now: Time, heard: Time) -> Time {
    now.plus_millis(LEASE_MS - LOOK_MS).min(heard.plus_millis(SILENCE_MS - LOOK_MS))
}
