#!/bin/bash
# Postroad as a relay under test: one listener, its upstreams in order of preference, every message synced before its
# 250. POSTROAD_BIN names the binary, else target/release/postroad of this tree (CARGO_TARGET_DIR honoured).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${POSTROAD_BIN:-${CARGO_TARGET_DIR:-$here/target}/release/postroad}
state=${BENCH_STATE:-}
config=$state/postroad.toml

setup() {
    mkdir -p "$state/data"
    {
        printf '[server]\nhostname = "relay.invalid"\ndata_dir = "%s/data"\n\n' "$state"
        printf '[http]\naddress = "127.0.0.1:0"\n\n'
        printf '[[listener]]\naddress = "127.0.0.1:%s"\n' "$BENCH_PORT"
        if [ -n "${BENCH_MAXCONN:-}" ]; then printf 'max_connections = %s\n' "$((BENCH_MAXCONN + 100))"; fi
        local n=0
        for port in $BENCH_UPSTREAMS; do
            n=$((n + 1))
            printf '\n[[esp]]\nname = "up%s"\ntype = "smtp"\naddress = "127.0.0.1:%s"\ntls = "off"\npriority = %s\n' \
                "$n" "$port" "$n"
        done
        # What a crash leaves unsure is held two minutes for a webhook by default; no webhook comes here.
        printf '\n[[stream]]\nname = "transactional"\nunsure_hold = "1s"\n'
        if [ -n "${POSTROAD_EXTRA:-}" ]; then printf '\n%s\n' "$POSTROAD_EXTRA"; fi
    } > "$config"
}

stop() {
    local pid
    pid=$(sed -n 's/^pid //p' "$state/data/postroad.lock" 2>/dev/null || true)
    if [ -n "$pid" ]; then kill -TERM "$pid" 2>/dev/null || true; fi
}

case ${1:-} in
info)
    version=$("$bin" --version 2>/dev/null || echo unknown)
    printf '{"version": "%s", "config": "defaults but unsure_hold = 1s; 10 connections an upstream; SQLite WAL, synchronous=FULL"}\n' "$version"
    ;;
setup) setup ;;
start) exec "$bin" serve --config "$config" >> "$state/postroad.log" 2>&1 ;;
stop) stop ;;
*)
    echo "usage: $0 info|setup|start|stop (BENCH_STATE, BENCH_PORT, BENCH_UPSTREAMS; see the bench's README)" >&2
    exit 2
    ;;
esac
