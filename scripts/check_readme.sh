#!/usr/bin/env bash
# The README's first command, as a reader would type it, with a client beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -q '^cargo run --release$' README.md
grep -q '^scripts/test.sh$' README.md
cargo build --release --quiet
out=$(mktemp)
# What the README's reader keeps is nothing for a test to write to.
DUNLIN_DATA_DIR=$(mktemp -d)
export DUNLIN_DATA_DIR
# The README's port may be in use where tests run.
cargo run --release --quiet -- --listen 127.0.0.1:0 >"$out" &
broker=$!
trap 'kill $broker 2>/dev/null || true; rm -rf "$out" "$DUNLIN_DATA_DIR"' EXIT
for _ in $(seq 100); do
    grep -q listening "$out" && break
    kill -0 "$broker"
    read -r -t 0.1 <> <(:) || true
done
port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$out")
target/release/dunlin pub -p "$port" -t hello/world -m "it works" -r -q 1
[ "$(target/release/dunlin sub -p "$port" -t 'hello/#' -c 1)" = "it works" ]
kill "$broker"
wait "$broker"
