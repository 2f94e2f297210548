#!/usr/bin/env bash
# Installs what scripts/check_budgets.sh needs and the machine does not have: valgrind from Debian,
# and the runner that drives it, into .tools.
set -euo pipefail
cd "$(dirname "$0")/.."
# Has to be that of the gungraun crate in Cargo.lock.
version=$(sed -n '/^name = "gungraun"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
if ! .tools/bin/gungraun-runner --version 2>/dev/null | grep -qF "$version"; then
    cargo install gungraun-runner --version "$version" --locked --root .tools --quiet
fi
command -v valgrind >/dev/null || {
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get install -y -qq valgrind >/dev/null ||
        { $root apt-get update -qq && $root apt-get install -y -qq valgrind >/dev/null; }
}
