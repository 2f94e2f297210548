#!/usr/bin/env bash
# Dunlin beside mosquitto, nats-server, rumqttd and aedes on this machine, on loopback.
#
#   scripts/compare_brokers.sh [--rounds N] [--seconds S] [--brokers "dunlin mosquitto …"]
#                              [--out DIR] [SCENARIO…]
#
# In each round every broker has its turn in every scenario, one broker running at a time, so that a
# change of the machine's mood meets all of them. Prints one table per scenario (medians over the
# rounds) and where Dunlin is not the best, and leaves JSON and a page with plots in DIR.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/lib.sh
rounds=2
seconds=4
brokers="dunlin mosquitto nats rumqttd aedes"
out=target/compare-$(date +%Y-%m-%d)
scenarios=()
while [ $# -gt 0 ]; do
    case "$1" in
    --rounds) needs_value "$@" && rounds=$2 && shift 2 ;;
    --seconds) needs_value "$@" && seconds=$2 && shift 2 ;;
    --brokers) needs_value "$@" && brokers=$2 && shift 2 ;;
    --out) needs_value "$@" && out=$2 && shift 2 ;;
    --*) echo "$0: unknown option $1" >&2 && exit 2 ;;
    *) scenarios+=("$1") && shift ;;
    esac
done
[[ $rounds =~ ^[1-9][0-9]?$ ]] || { echo "$0: --rounds is a number from 1 to 99" >&2 && exit 2; }
[[ $seconds =~ ^[0-9]*\.?[0-9]+$ ]] || { echo "$0: --seconds is a number" >&2 && exit 2; }
[ ${#scenarios[@]} -gt 0 ] || scenarios=(
    flood-fan-out flood-fan-out-q1 flood-pairs flood-pairs-q1 flood-pairs-q2 fan-in flood-shared
    latency-fan-out latency-pairs idle churn-500 offline retained filters
)

scripts/install_brokers.sh
cargo build --release --quiet -p dunlin -p dunlin-bench
bench=$bin/dunlin-bench
for scenario in "${scenarios[@]}"; do
    "$bench" list | grep -q "^$scenario " ||
        { echo "$0: there is no scenario $scenario; dunlin-bench list names them" >&2 && exit 2; }
done
mkdir -p "$out"

# Starts the broker $1 on a port of its own; sets $pid and $port.
start() {
    port=$(free_port)
    # rumqttd tells the format by the name.
    local conf=$work/$1.toml
    case "$1" in
    dunlin)
        start_dunlin
        return
        ;;
    mosquitto)
        printf '%s\n' "listener $port 127.0.0.1" 'allow_anonymous true' 'persistence false' \
            'max_inflight_messages 0' 'max_queued_messages 100000' >"$conf"
        /usr/sbin/mosquitto -c "$conf" >"$work/log" 2>&1 &
        ;;
    nats)
        printf '%s\n' "server_name: bench" "listen: \"127.0.0.1:$(free_port)\"" \
            "jetstream { store_dir: \"$work/nats\" }" \
            "mqtt { listen: \"127.0.0.1:$port\", max_ack_pending: 1000 }" >"$conf"
        PATH=$PATH:/usr/sbin nats-server -c "$conf" >"$work/log" 2>&1 &
        ;;
    rumqttd)
        cat >"$conf" <<CONF
id = 0
[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:$port"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 1000
dynamic_filters = true
CONF
        .tools/bin/rumqttd -c "$conf" >"$work/log" 2>&1 &
        ;;
    aedes)
        cat >"$work/aedes.mjs" <<JS
import { createServer } from 'node:net'
import { createRequire } from 'node:module'
const { Aedes } = createRequire('$PWD/.tools/aedes/')('aedes')
const broker = await Aedes.createBroker()
createServer(broker.handle).listen($port, '127.0.0.1')
JS
        node "$work/aedes.mjs" >"$work/log" 2>&1 &
        ;;
    *) echo "$0: unknown broker $1" >&2 && exit 2 ;;
    esac
    pid=$!
    await_port || { echo "$0: $1 did not start:" >&2 && tail -5 "$work/log" >&2 && return 1; }
}

files=()
for round in $(seq "$rounds"); do
    for scenario in "${scenarios[@]}"; do
        for broker in $brokers; do
            json=$out/$broker-$scenario-$round.json
            start "$broker" || { stop && continue; }
            echo "round $round: $scenario, $broker"
            # A broker that cannot do it shows in the table.
            run timeout 120 "$bench" run "$scenario" -p "$port" --pid "$pid" --broker "$broker" \
                --seconds-max "$seconds" --json "$json" >"$work/run" 2>&1 ||
                { grep -E 'FAILED|dunlin-bench' "$work/run" || echo "    stopped after 120 s"; }
            [ ! -f "$json" ] || files+=("$json")
            stop
        done
    done
done

{
    echo "Brokers side by side, $(date -u +%Y-%m-%d), $(nproc) cores, $(uname -sr)"
    echo "CPU is that of the broker's process, user and system, for each of what is counted."
    echo
    "$bench" against-send --rounds "$((rounds + 1))" --seconds 2
    echo
    "$bench" against-send --rounds "$((rounds + 1))" --seconds 2 --burst 16
    "$bench" table "${files[@]}"
} | tee "$out/table.txt"
"$bench" report "${files[@]}" -o "$out/report.html"
echo
echo "$out/table.txt and $out/report.html"
