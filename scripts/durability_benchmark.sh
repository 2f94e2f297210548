#!/usr/bin/env bash
# About three minutes: what durability costs, and what it is good for. Every scenario gets a fresh broker
# on a fresh directory under target/, and a table with the targets comes last. Times on a busy machine
# prove nothing, so a target that is missed is said and is no failure; what is lost or does not run is.
#   scripts/durability_benchmark.sh [--long] [--out DIR]
# --long: ten minutes of steady load instead of half a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/bench
# So that half a minute is enough to see the log cleaned up.
steady=(--seconds 30)
steady_broker=(--set storage.clean_above_bytes=16MiB --set storage.segment_bytes=4MiB)
. scripts/lib.sh
while [ $# -gt 0 ]; do
    case $1 in
    --long) steady=(--seconds 600) && steady_broker=() ;;
    --out) needs_value "$@" && out=$2 && shift ;;
    *) echo "$0: unknown option $1" >&2 && exit 2 ;;
    esac
    shift
done
cargo build --release --quiet -p dunlin -p dunlin-bench -p dunlin-benches
mkdir -p "$out"
# Not in a temporary directory: that may be memory.
data=$PWD/target/durability-$$
scratch+=("$data")
failed=0

scenario() {
    local name=$1 level=$2
    shift 2
    rm -rf "$data"
    local broker=()
    [ "$name" != durable-steady ] || broker=("${steady_broker[@]}")
    start_dunlin --data-dir "$data" --set "durability.level=$level" "${broker[@]}"
    run "$bin/dunlin-bench" run "$name" -p "$port" --pid "$pid" --data-dir "$data" \
        --broker "$level" --json "$work/$name-$level.json" "$@" || failed=1
    stop
}

echo "Dunlin $(git rev-parse --short HEAD), $(date -u +%FT%TZ), $(nproc) cores, $(uname -sr)"
for level in fsync interval memory; do
    echo && echo "== level $level"
    scenario durable-offline "$level"
    scenario durable-fan-out "$level"
done
echo && echo "== level fsync"
scenario durable-steady fsync "${steady[@]}"
rm -rf "$data"

echo && echo "== write amplification"
run "$bin/dunlin-amplification" "$data" > >(tee "$work/amplification") || failed=1
echo && echo "== restart"
run "$bin/dunlin-restart" --dir "$data" > >(tee "$work/restart") || failed=1

"$bin/dunlin-bench" report "$work"/*.json -o "$out/durability-$(date +%F).html"
echo
python3 - "$work" <<'END' || failed=1
import json, pathlib, re, sys

work = pathlib.Path(sys.argv[1])
rows = []
is_whole = True

def row(what, target, value, is_within, us="", lost=""):
    met = ("yes" if is_within else "NO") if target else ""
    rows.append((what, target, value, met, us, lost))

def phases(name, level):
    file = work / f"{name}-{level}.json"
    outcome = json.loads(file.read_text())["outcomes"][0] if file.exists() else {"phases": []}
    return {phase["name"]: phase for phase in outcome["phases"]}

targets = {
    ("durable-offline", "store"): ("acknowledged/s", 100_000),
    ("durable-offline", "drain"): ("deliveries/s", 200_000),
    ("durable-fan-out", "store"): ("deliveries recorded/s", 300_000),
    ("durable-fan-out", "drain"): ("deliveries/s", 200_000),
}
for level in ["fsync", "interval", "memory"]:
    for (name, phase), (unit, target) in targets.items():
        found = phases(name, level).get(phase)
        if found is None:
            row(f"{name}, {level}: {phase}", f"{target:,}", "failed", False)
            is_whole = False
            continue
        account = found.get("account") or {}
        wrong = sum(account.get(key, 0) for key in ["lost", "duplicated", "out_of_order", "foreign"])
        is_whole &= wrong == 0
        row(
            f"{name}, {level}: {unit}",
            f">= {target:,}",
            f"{found['per_s']:,.0f}",
            found["per_s"] >= target,
            f"{found['broker']['cpu_us_each']:.3f}",
            str(wrong) if account else "",
        )
steady = phases("durable-steady", "fsync")
if "acknowledged" in steady:
    found, messages = steady["acknowledged"], steady["messages"]
    ratio = float(re.search(r"([\d.]+) of the first", found["notes"][1])[1])
    row("durable-steady: last part of the first", ">= 0.95", f"{ratio:.3f}", ratio >= 0.95)
    latency = found["latency"]
    row("durable-steady: PUBACK p50, p99 in ms", "", f"{latency['p50_us'] / 1e3:.2f}, {latency['p99_us'] / 1e3:.2f}", True)
    row("durable-steady: MiB on disk at most", "", f"{messages['disk']['max_bytes'] / 2**20:.1f}", True)
else:
    row("durable-steady", "", "failed", False)
for line in (work / "amplification").read_text().splitlines()[2:]:
    payload, batch, stored, *_ = line.split()
    if batch == "64":
        row(f"bytes written per payload byte, {payload} B in 64s", "<= 1.5", stored, float(stored) <= 1.5)
said = (work / "restart").read_text()
restart = re.search(r"([\d.]+) s to the first CONNACK; CPU .*, ([\d.]+) s of it one behind", said)
if restart:
    row("s from start to the first CONNACK", "<= 5", restart[1], float(restart[1]) <= 5)
    row("estimate for a quiet machine: s of CPU one behind the other", "<= 5", restart[2], float(restart[2]) <= 5)
else:
    row("restart", "<= 5", "failed", False)
head = ("", "target", "measured", "met", "CPU us each", "wrong")
widths = [max(len(row[at]) for row in [head, *rows]) for at in range(6)]
for row in [head, *rows]:
    print("  ".join(f"{cell:{'<' if at == 0 else '>'}{widths[at]}}" for at, cell in enumerate(row)).rstrip())
sys.exit(not is_whole)
END
echo
echo "$out/durability-$(date +%F).html"
exit "$failed"
