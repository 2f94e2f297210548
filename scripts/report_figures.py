#!/usr/bin/env python3
"""Our figures beside those of the Go broker's report, from what `cargo bench -p dunlin-benches` left.

Only what does the same is compared. The report measures a fan-out up to the subscribers' queues, as
`enqueue` does here; its queue writes to storage, ours in `queue` and `partitioned` are in memory.
Its figures for a registry of sessions are not in our hands.
"""

import json
import os
import pathlib

# Of criterion, what the report calls it, and its nanoseconds.
FIGURES = [
    ("enqueue/to-1000/worker", "fan-out to 1000 subscribers", 67_000),
    ("publish/100 bytes/1", "a single message", 563),
    ("queue/enqueue", "queue, enqueue", 1_459),
    ("queue/dequeue", "queue, dequeue", 337_000),
    ("partitioned/work, 8 partitions/enqueue", "queue, enqueue", 1_459),
    ("partitioned/work, 8 partitions/poll, acknowledge", "queue, dequeue", 337_000),
]


def measured(folder):
    """Median nanoseconds of one operation, by the benchmark's name."""
    found = {}
    for file in folder.glob("**/new/benchmark.json"):
        benchmark = json.loads(file.read_text())
        median = json.loads(file.with_name("estimates.json").read_text())["median"]
        found[benchmark["full_id"]] = median["point_estimate"]
    return found


def main():
    ours = measured(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "criterion")
    print(f"{'benchmark':<50} {'ns':>8} {'report ns':>10} {'times':>8}  what the report calls it")
    for name, what, theirs in FIGURES:
        if name in ours:
            times = theirs / ours[name]
            print(f"{name:<50} {ours[name]:>8,.0f} {theirs:>10,} {times:>8,.1f}  {what}")


main()
