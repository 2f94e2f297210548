#!/usr/bin/env bash
# About 15 minutes: budgets, micro-benchmarks, every scenario, and a delivery against bare send().
# Leaves a dated report in DIR: report.txt, scenarios.html with plots, a JSON file for each scenario.
#   scripts/run_benchmarks.sh [--out DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/bench/$(date +%Y-%m-%d)
. scripts/lib.sh
while [ $# -gt 0 ]; do
    case "$1" in
    --out) needs_value "$@" && out=$2 && shift 2 ;;
    *) echo "$0: unknown option $1" >&2 && exit 2 ;;
    esac
done
mkdir -p "$out"
cargo build --release --quiet --workspace
exec > >(tee "$out/report.txt")
echo "Dunlin $(git rev-parse --short HEAD), $(date -u +%FT%TZ), $(nproc) cores, $(uname -sr)"
grep -m1 'model name' /proc/cpuinfo || true
echo
echo "== budgets: scripts/check_budgets.sh"
# A budget that is exceeded is part of the report.
run scripts/check_budgets.sh 2>&1 || true
for burst in 1 16; do
    echo
    echo "== target/release/dunlin-bench against-send --burst $burst"
    run "$bin/dunlin-bench" against-send --burst "$burst" --rounds 5 --seconds 2
    run "$bin/dunlin-bench" against-send --qos 1 --burst "$burst" --rounds 3 --seconds 2
done
echo
echo "== scenarios: target/release/dunlin-bench run all --seconds-max 8"
# One broker for each: of one that has been larger, memory per connection says nothing.
files=()
for scenario in $("$bin/dunlin-bench" list | awk '/^[a-z]/ { print $1 }'); do
    start_dunlin
    run "$bin/dunlin-bench" run "$scenario" --seconds-max 8 -p "$port" --pid "$pid" \
        --broker dunlin --json "$out/$scenario.json" --quiet || true
    files+=("$out/$scenario.json")
    stop
done
"$bin/dunlin-bench" report "${files[@]}" -o "$out/scenarios.html"
echo
echo "== micro-benchmarks: cargo bench -p dunlin-benches"
for bench in codec router pool publish partitioned registry; do
    # Two lines a benchmark: its name and its time.
    run cargo bench --quiet -p dunlin-benches --bench "$bench" -- --noplot \
        --warm-up-time 0.2 --measurement-time 0.4 --nresamples 5000 2>&1 |
        grep -E '^[a-z].*|time:|^  [0-9a-z].*(ns each|hit rate)' |
        grep -vE '^(Found|Benchmarking|Warning)|change:' || true
done
echo
echo "== beside the Go broker's report: scripts/report_figures.py"
scripts/report_figures.py
echo
echo "$out/report.txt and $out/scenarios.html"
