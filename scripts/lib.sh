# Sourced by the scripts that start brokers: one at a time, in the background, on a port of its own.
# Whatever ends the script ends the broker and what measures it, by their pids.
pid=
job=
port=
work=$(mktemp -d)
scratch=("$work")
bin=${CARGO_TARGET_DIR:-target}/release
trap '[ -z "$job" ] || kill "$job" 2>/dev/null || true; stop; rm -rf "${scratch[@]}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ulimit -n "$(ulimit -Hn)"

stop() {
    [ -z "$pid" ] || { kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; } || true
    pid=
}

# Runs a command so that the script hears a signal meanwhile.
run() {
    local code=0
    "$@" &
    job=$!
    wait "$job" || code=$?
    job=
    return $code
}

# Ends the script unless the option that comes first has a value behind it.
needs_value() {
    [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2 && exit 2; }
}

free_port() {
    python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

# Waits until $pid listens on $port.
await_port() {
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 1
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
        read -r -t 0.1 <> <(:) || true
    done
    return 1
}

start_dunlin() {
    port=$(free_port)
    "$bin/dunlin" --data-dir "" --listen "127.0.0.1:$port" "$@" >"$work/log" 2>&1 &
    pid=$!
    await_port || { echo "dunlin did not start:" >&2 && tail -5 "$work/log" >&2 && return 1; }
}
