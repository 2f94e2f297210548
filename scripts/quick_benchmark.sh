#!/usr/bin/env bash
# About a minute: Dunlin through the main scenarios, two seconds each, and a page with plots.
#   scripts/quick_benchmark.sh [--out DIR] [options of dunlin-bench run]
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/bench
. scripts/lib.sh
[ "${1:-}" != --out ] || { needs_value "$@" && out=$2 && shift 2; }
cargo build --release --quiet -p dunlin -p dunlin-bench
mkdir -p "$out"
start_dunlin
name=$out/quick-$(date +%Y-%m-%d)
# Memory is measured first: one that has been larger takes what it has already.
run "$bin/dunlin-bench" run idle flood-fan-out flood-fan-out-q1 flood-pairs-q1 flood-pairs-q2 fan-in \
    flood-shared latency-fan-out latency-pairs churn-500 offline retained filters \
    --seconds-max 2 -p "$port" --pid "$pid" --broker dunlin \
    --json "$name.json" --html "$name.html" "$@"
echo "$name.html"
