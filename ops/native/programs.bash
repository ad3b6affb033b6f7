# shellcheck shell=bash disable=SC2034  # sourced: whoever sources it uses the names
# The three programs of this project: their ports, their settings, and how they are started and stopped.

PROGRAMS=(command-api query-api projector)

# On a small machine a debug build is ready minutes earlier. LISTINGS_PROFILE=release builds faster programs.
LISTINGS_PROFILE=${LISTINGS_PROFILE:-dev}

COMMAND_HTTP_PORT=${COMMAND_HTTP_PORT:-8086}
COMMAND_OPS_PORT=${COMMAND_OPS_PORT:-9093}
QUERY_HTTP_PORT=${QUERY_HTTP_PORT:-8087}
QUERY_OPS_PORT=${QUERY_OPS_PORT:-9094}
PROJECTOR_OPS_PORT=${PROJECTOR_OPS_PORT:-9095}

# The seller of imported listings, the same on every machine.
SELLER=01990000-0000-7000-8000-000000000001

# ports_of PROGRAM: prints lines "PORT VARIABLE".
ports_of() {
    case $1 in
        command-api) printf '%s\n' "$COMMAND_HTTP_PORT COMMAND_HTTP_PORT" "$COMMAND_OPS_PORT COMMAND_OPS_PORT" ;;
        query-api) printf '%s\n' "$QUERY_HTTP_PORT QUERY_HTTP_PORT" "$QUERY_OPS_PORT QUERY_OPS_PORT" ;;
        projector) printf '%s\n' "$PROJECTOR_OPS_PORT PROJECTOR_OPS_PORT" ;;
    esac
}

# Prints the folder of the built programs. Asks cargo, because the target folder can be configured in several ways.
binaries() {
    local target
    target=$(cd "$ROOT" && cargo metadata --no-deps --format-version 1 --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    echo "$target/${LISTINGS_PROFILE/#dev/debug}"
}

# write FILE MODE: writes standard input to the file if the content differs, so that its modification time is that of a change.
write() {
    local new=$1.new
    (umask 077 && cat >"$new")
    chmod "$2" "$new"
    if cmp -s "$new" "$1"; then rm -f "$new"; else mv -f "$new" "$1"; fi
}

# export_line NAME VALUE: prints a line with a literal value, because other tools parse the file. The value must not contain a
# quote.
export_line() { printf "export %s='%s'\n" "$1" "$2"; }

# configure BINARIES: writes the shared settings to .run/env, and a wrapper with its own settings per program to .run/bin/PROGRAM.
configure() {
    local binaries=$1 program
    [[ $RUN$binaries != *"'"* ]] || die "Paths must not contain a quote, because they are written into $RUN/env: $RUN, $binaries. Move the checkout."
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

# is_current PROGRAM BINARIES: succeeds if the program runs with the current binary and settings.
is_current() {
    local pid
    pid=$(pid_of "$1") || return 1
    [ "/proc/$pid/exe" -ef "$2/$1" ] && [ "$PIDS/$1" -nt "$RUN/env" ] && [ "$PIDS/$1" -nt "$RUN/bin/$1" ]
}

# program_stop PROGRAM: stops it gracefully. A program ends within 30 s of SIGTERM.
program_stop() { end "$1" TERM 35; }

# program_start PROGRAM BINARIES: starts or restarts the program unless it is current.
program_start() {
    local program=$1 port variable
    is_current "$program" "$2" && return
    program_stop "$program"
    while read -r port variable; do need_port "$port" "$variable"; done < <(ports_of "$program")
    launch "$program" "$RUN/bin/$program" "$(verb_of "$program")"
}

verb_of() { if [ "$1" = projector ]; then echo run; else echo serve; fi; }

# program_wait PROGRAM: waits until the program is ready.
program_wait() {
    local port
    port=$(ports_of "$1" | sed -n 's/ .*OPS_PORT//p')
    wait_for "$1" 60 answers_200 "$port" /ready
}
