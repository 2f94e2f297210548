#!/usr/bin/env bash
# Everything a contributor has to pass. Installs what it needs into .tools (and mosquitto's clients
# by apt-get) where that is missing. CI runs this and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

step "tools"
scripts/install_test_tools.sh

step "format"
cargo fmt --all --check

step "licences and duplicate crates"
.tools/bin/cargo-deny --log-level error check bans licenses sources

step "lints"
cargo clippy --workspace --all-targets --features dunlin-benches/callgrind --quiet -- -D warnings

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

step "the code's own limits, and the table of statements"
python3 scripts/tidy.py
python3 scripts/statements.py --check

step "build"
cargo build --workspace --quiet

step "tests"
cargo test --workspace --quiet

step "budgets"
scripts/check_budgets.sh

step "fuzz"
scripts/fuzz.sh "${FUZZ_SECONDS:-20}"

step "README commands"
scripts/check_readme.sh

step "passed"
