//! The way of a message by instructions, counted by callgrind: the same figure on any machine,
//! whatever else it does. `benches/budgets.toml` holds them; the Go broker's report has none.

#![allow(missing_docs, unused_qualifications)] // of what the macros make

use std::hint::black_box;

use dunlin_benches::{FanOut, QueueLine};
use dunlin_packets::{Frame, Packet, Version};
use gungraun::{library_benchmark, library_benchmark_group, main};

const PUBLISHES: usize = 10;

fn scene(version: Version, qos: u8) -> FanOut {
    FanOut::new(1000, version, qos, 100)
}

fn blocked() -> FanOut {
    let mut scene = FanOut::new(1000, Version::V4, 0, 100);
    // Twice, so that the queues have the room they need.
    for _ in 0..2 {
        scene.catch_up();
        scene.stop_reading();
        (0..2 * PUBLISHES).for_each(|_| scene.enqueue());
    }
    scene.catch_up();
    scene.stop_reading();
    scene
}

// Ten messages to 1000 subscribers, all the way but the kernel.
#[library_benchmark]
#[bench::v4_q0(scene(Version::V4, 0))]
#[bench::v5_q0(scene(Version::V5, 0))]
#[bench::v4_q1(scene(Version::V4, 1))]
#[bench::v4_q2(scene(Version::V4, 2))]
fn publish_1000(mut scene: FanOut) -> FanOut {
    for _ in 0..PUBLISHES {
        black_box(&mut scene).publish();
    }
    scene
}

// Ten times sixteen messages to 1000 subscribers.
#[library_benchmark]
#[bench::v4_q0(FanOut::in_runs(16, 1000, Version::V4, 0, 100))]
#[bench::v4_q1(FanOut::in_runs(16, 1000, Version::V4, 1, 100))]
fn publish_runs_1000(mut scene: FanOut) -> FanOut {
    for _ in 0..PUBLISHES {
        black_box(&mut scene).publish();
    }
    scene
}

// Ten messages into the queues of 1000 subscribers.
#[library_benchmark]
#[bench::v4_q0(blocked())]
fn enqueue_1000(mut scene: FanOut) -> FanOut {
    for _ in 0..PUBLISHES {
        black_box(&mut scene).enqueue();
    }
    scene
}

// Ten messages to one subscriber.
#[library_benchmark]
#[bench::v4_q0(FanOut::new(1, Version::V4, 0, 100))]
#[bench::v4_q1(FanOut::new(1, Version::V4, 1, 100))]
fn publish_1(mut scene: FanOut) -> FanOut {
    for _ in 0..PUBLISHES {
        black_box(&mut scene).publish();
    }
    scene
}

// Ten messages through a partitioned queue in memory, from PUBLISH to the PUBACK that settles.
#[library_benchmark]
#[bench::v4(QueueLine::new(Version::V4))]
#[bench::v5(QueueLine::new(Version::V5))]
fn queue_line(mut scene: QueueLine) -> QueueLine {
    for _ in 0..PUBLISHES {
        black_box(&mut scene).pass();
    }
    scene
}

fn frame() -> Vec<u8> {
    b"\x32\x0c\x00\x03a/b\x00\x07hello".to_vec()
}

// A PUBLISH, cut off the stream and decoded.
#[library_benchmark]
#[bench::publish(frame())]
fn decode(bytes: Vec<u8>) -> Vec<u8> {
    let split = Frame::split(black_box(&bytes), 1024, Version::V4);
    if let Ok(Some((frame, _))) = split {
        let _ = black_box(Packet::decode(&frame, Version::V4));
    }
    bytes
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [publish_1000, publish_runs_1000, enqueue_1000, publish_1, queue_line, decode]
);
main!(library_benchmark_groups = instructions);
