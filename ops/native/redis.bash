# shellcheck shell=bash
# Redis: Debian's package, run as our own process. It is a cache that can be refilled, so persistence is off.

redis_binary() { command -v redis-server || { [ -x /usr/bin/redis-server ] && echo /usr/bin/redis-server; }; }

redis_install() {
    redis_binary >/dev/null && return
    debian_install redis-server
    redis_binary >/dev/null || die "redis-server was not found after its installation. Install Redis by hand, then run this again."
}

redis_launch() {
    mkdir -p "$RUN/redis"
    # allkeys-lru or noeviction are correct here. With a volatile-* policy the tombstones are evicted first (measured: docs/FACTS.md).
    launch redis "$(redis_binary)" --port "$REDIS_PORT" --bind 127.0.0.1 --dir "$RUN/redis" --save '' --appendonly no \
        --maxmemory "${REDIS_MEMORY:-512mb}" --maxmemory-policy allkeys-lru
}

redis_is_ours() {
    local pid line
    pid=$(pid_of redis) || return 1
    exec 8<>"/dev/tcp/127.0.0.1/$REDIS_PORT" || return 1
    printf 'INFO server\r\nQUIT\r\n' >&8
    while read -r -t 5 line <&8; do
        [ "${line%$'\r'}" != "process_id:$pid" ] || { exec 8>&-; return 0; }
    done
    exec 8>&-
    return 1
}

redis_start() { start_server redis "$REDIS_PORT" REDIS_PORT 20; }
redis_stop() { end redis TERM 10; }
redis_reset() { rm -rf "$RUN/redis"; }
