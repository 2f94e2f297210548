#!/usr/bin/env bash
# Installs the brokers that scripts/compare_brokers.sh compares with: mosquitto and nats-server from
# Debian, rumqttd from crates.io and aedes from npm, the last two into .tools.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .tools

missing=()
[ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
[ -x /usr/sbin/nats-server ] || [ -x /usr/bin/nats-server ] || missing+=(nats-server)
if [ ${#missing[@]} -gt 0 ]; then
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    # The packages start their brokers at once; ours are started with files of our own.
    $root sh -c 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d'
    { $root apt-get install -y -qq "${missing[@]}" ||
        { $root apt-get update -qq && $root apt-get install -y -qq "${missing[@]}"; }; } >/dev/null
    $root rm -f /usr/sbin/policy-rc.d
fi

# Its lock file pins a crate that today's compiler refuses.
[ -x .tools/bin/rumqttd ] || cargo install rumqttd --version 0.20.0 --root .tools --quiet

# In a place of its own: npm takes away what else is where it installs.
[ -d .tools/aedes/node_modules/aedes ] ||
    npm install --prefix .tools/aedes --silent --no-fund --no-audit --no-save aedes@1.2
