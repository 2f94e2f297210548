#!/usr/bin/env bash
# Measures what benches/budgets.toml limits, prints a table, and fails when something costs more than
# it may. Allocations and instructions are counted, so a busy machine does not matter.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_bench_tools.sh
target=${CARGO_TARGET_DIR:-target}
counts=$target/gungraun/dunlin-benches/instructions/instructions
# Without earlier runs there is nothing to compare with but the budgets.
rm -rf "$target/gungraun"
PATH="$PWD/.tools/bin:$PATH" cargo bench --quiet -p dunlin-benches --features callgrind \
    --bench instructions -- --save-summary=json >"$target/instructions.txt" 2>&1 ||
    { cat "$target/instructions.txt" && exit 1; }
cargo run --release --quiet -p dunlin-benches --bin dunlin-budgets -- benches/budgets.toml "$counts"
