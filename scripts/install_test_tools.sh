#!/usr/bin/env bash
# Installs what scripts/test.sh needs and the machine does not have.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .tools

cargo_tool() { # crate, version
    if ! ".tools/bin/$1" --version 2>/dev/null | grep -qF "$2"; then
        cargo install "$1" --version "$2" --locked --root .tools --quiet
    fi
}
cargo_tool cargo-deny 0.20.2
cargo_tool cargo-fuzz 0.13.2

if [ ! -x .tools/python/bin/python ]; then
    python3 -m venv .tools/python
fi
.tools/python/bin/python -c 'import paho.mqtt' 2>/dev/null ||
    .tools/python/bin/pip install --quiet 'paho-mqtt==2.1.0'

[ -d .tools/node_modules/mqtt ] ||
    npm install --prefix .tools --silent --no-fund --no-audit --no-save mqtt@5

command -v mosquitto_pub >/dev/null || {
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get install -y -qq mosquitto-clients >/dev/null ||
        { $root apt-get update -qq && $root apt-get install -y -qq mosquitto-clients >/dev/null; }
}
