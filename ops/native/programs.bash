# shellcheck shell=bash disable=SC2034  # sourced: whoever sources it uses the names
# The three programs of this project: where they listen, what they are told, how they are started.

PROGRAMS=(command-api query-api projector)

# Debug builds start minutes earlier on a small machine; LISTINGS_PROFILE=release makes them fast.
LISTINGS_PROFILE=${LISTINGS_PROFILE:-dev}

COMMAND_HTTP_PORT=${COMMAND_HTTP_PORT:-8086}
COMMAND_OPS_PORT=${COMMAND_OPS_PORT:-9093}
QUERY_HTTP_PORT=${QUERY_HTTP_PORT:-8087}
QUERY_OPS_PORT=${QUERY_OPS_PORT:-9094}
PROJECTOR_OPS_PORT=${PROJECTOR_OPS_PORT:-9095}

# Whose the imported listings are: one seller, the same on every machine.
SELLER=01990000-0000-7000-8000-000000000001

# ports_of PROGRAM: lines "PORT VARIABLE".
ports_of() {
    case $1 in
        command-api) printf '%s\n' "$COMMAND_HTTP_PORT COMMAND_HTTP_PORT" "$COMMAND_OPS_PORT COMMAND_OPS_PORT" ;;
        query-api) printf '%s\n' "$QUERY_HTTP_PORT QUERY_HTTP_PORT" "$QUERY_OPS_PORT QUERY_OPS_PORT" ;;
        projector) printf '%s\n' "$PROJECTOR_OPS_PORT PROJECTOR_OPS_PORT" ;;
    esac
}

# Where cargo puts what it builds; asked, because it may be set in more than one way.
binaries() {
    local target
    target=$(cd "$ROOT" && cargo metadata --no-deps --format-version 1 --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$target/${LISTINGS_PROFILE/#dev/debug}"
}

# write FILE MODE: standard input, if it differs; so that a file's time tells when it changed.
write() {
    local new=$1.new
    (umask 077 && cat >"$new")
    chmod "$2" "$new"
    if cmp -s "$new" "$1"; then rm -f "$new"; else mv -f "$new" "$1"; fi
}

# Names and literal values only: other tools read this file line by line. Values hold no quote.
export_line() { printf "export %s='%s'\n" "$1" "$2"; }

# configure BINARIES: .run/env is what the programs share, .run/bin/PROGRAM adds what is its own.
configure() {
    local binaries=$1 program
    [[ $RUN$binaries != *"'"* ]] || die "A path with a quote in it cannot be written into $RUN/env: $RUN, $binaries"
    "$ROOT/ops/make-signing-key" "$RUN/jwt-ed25519.pem"
    {
        export_line NATS_URL "nats://127.0.0.1:$NATS_PORT"
        export_line REDIS_URL "redis://127.0.0.1:$REDIS_PORT"
        export_line OPENSEARCH_URL "http://127.0.0.1:$OPENSEARCH_PORT"
        export_line OPENSEARCH_INDEX listings
        export_line JWT_PRIVATE_KEY_FILE "$RUN/jwt-ed25519.pem"
        export_line JWT_JWKS "http://127.0.0.1:$COMMAND_HTTP_PORT/.well-known/jwks.json"
        export_line RUST_LOG "${RUST_LOG:-info}"
        export_line LOG_FORMAT json
    } | write "$RUN/env" 600
    mkdir -p "$RUN/bin"
    for program in "${PROGRAMS[@]}"; do
        {
            echo '#!/usr/bin/env bash'
            echo ". '$RUN/env'"
            "settings_of_${program//-/_}"
            echo "exec '$binaries/$program' \"\$@\""
        } | write "$RUN/bin/$program" 700
    done
}

settings_of_command_api() {
    export_line DATABASE_URL "$(postgres_url listings_command listings)"
    export_line MIGRATE_DATABASE_URL "$(postgres_url listings_owner listings)"
    export_line HTTP_ADDR "127.0.0.1:$COMMAND_HTTP_PORT"
    export_line OPS_ADDR "127.0.0.1:$COMMAND_OPS_PORT"
}

settings_of_query_api() {
    export_line DATABASE_URL "$(postgres_url listings_query listings)"
    export_line HTTP_ADDR "127.0.0.1:$QUERY_HTTP_PORT"
    export_line OPS_ADDR "127.0.0.1:$QUERY_OPS_PORT"
}

settings_of_projector() {
    export_line DATABASE_URL "$(postgres_url listings_projector listings)"
    export_line OPS_ADDR "127.0.0.1:$PROJECTOR_OPS_PORT"
}

# Does PROGRAM run what is on the disk now? After a build or a changed setting it does not.
is_current() {
    local pid
    pid=$(pid_of "$1") || return 1
    [ "/proc/$pid/exe" -ef "$2/$1" ] && [ "$PIDS/$1" -nt "$RUN/env" ] && [ "$PIDS/$1" -nt "$RUN/bin/$1" ]
}

# SIGTERM lets a program finish what it holds; it promises to be gone within 30 s.
program_stop() { end "$1" TERM 35; }

# program_start PROGRAM BINARIES
program_start() {
    local program=$1 port variable
    is_current "$program" "$2" && return
    program_stop "$program"
    while read -r port variable; do need_port "$port" "$variable"; done < <(ports_of "$program")
    launch "$program" "$RUN/bin/$program" "$(verb_of "$program")"
}

verb_of() { if [ "$1" = projector ]; then echo run; else echo serve; fi; }

program_wait() {
    local port
    port=$(ports_of "$1" | sed -n 's/ .*OPS_PORT//p')
    wait_for "$1" 60 answers_200 "$port" /ready
}
