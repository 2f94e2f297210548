#!/usr/bin/env bash
# Fuzzes the codec for so many seconds, from the checked-in seeds: scripts/fuzz.sh [SECONDS]
# A new corpus gathers in packets/fuzz/corpus, a failing input in packets/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../packets"
seconds=${1:-60}
mkdir -p fuzz/corpus/decode
# The sanitizers and coverage flags are not stable yet, whichever toolchain is there.
RUSTC_BOOTSTRAP=1 PATH="$PWD/../.tools/bin:$PATH" \
    cargo fuzz run --sanitizer none decode fuzz/corpus/decode fuzz/seeds -- \
    -max_total_time="$seconds" -max_len=4096 -print_final_stats=1 -verbosity=0 2>&1 |
    grep -v '# Uses:'
