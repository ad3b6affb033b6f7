# shellcheck shell=bash
# PostgreSQL: Debian's package, run as our own cluster outside any service manager.

# PG* variables of the shell (PGHOSTADDR, PGSERVICE, PGSSLMODE…) are about other servers.
unset "${!PG@}"

postgres_bin() {
    # A cluster can only be used with the major version that created it.
    local wanted="" directory best="" version
    [ ! -f "$(postgres_data)/PG_VERSION" ] || wanted=$(<"$(postgres_data)/PG_VERSION")
    for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin "$(dirname "$(readlink -f "$(command -v postgres || echo /none/x)")")"; do
        [ -x "$directory/initdb" ] || continue
        version=$("$directory/postgres" --version | grep -oE '[0-9]+' | head -n 1)
        if [ -n "$wanted" ]; then
            [ "$version" = "$wanted" ] && best=$version:$directory
        elif ((version >= POSTGRES_OLDEST && version > ${best%%:*}+0)); then
            best=$version:$directory
        fi
    done
    [ -n "$best" ] || return 1
    echo "${best#*:}"
}

postgres_install() {
    postgres_bin >/dev/null && return
    debian_install postgresql
    postgres_bin >/dev/null || die "PostgreSQL $POSTGRES_OLDEST or newer was not found after installing Debian's postgresql. Install it by hand, then run this again."
}

# Postgres refuses to run as root. setpriv changes the user and then executes the command in the same process, so that the
# process id is Postgres's.
postgres_user=$(id -un)
as_postgres=()
if [ "$(id -u)" = 0 ]; then
    postgres_user=nobody
    id postgres >/dev/null 2>&1 && postgres_user=postgres
    as_postgres=(setpriv --reuid "$postgres_user" --regid "$(id -g "$postgres_user")" --clear-groups)
fi

# Prints the data folder: in the run directory, or, if the user that Postgres runs as may not enter that (a folder of root), in
# /var/lib under a name derived from the run directory.
postgres_data() {
    if [ "$(id -u)" != 0 ] || "${as_postgres[@]}" test -x "$RUN"; then
        echo "$RUN/postgres"
    else
        echo "/var/lib/listings-dev/${STACK#listings-}"
    fi
}

# Prints the password, which all roles share: whoever can read one on this machine can read all, so separate ones would protect
# nothing. `trust` on loopback would make every local user a superuser, and thereby give them our user's shell.
postgres_password() {
    local file=$RUN/postgres.password
    [ -s "$file" ] || (umask 077 && head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"$file")
    cat "$file"
}

# postgres_url ROLE DATABASE: prints the URL.
postgres_url() {
    echo "postgres://$1:$(postgres_password)@127.0.0.1:$POSTGRES_PORT/$2"
}

# Runs psql as superuser with these arguments.
postgres_ask() {
    PGCONNECT_TIMEOUT=5 PGPASSWORD=$(postgres_password) "$(postgres_bin)/psql" --no-psqlrc --quiet --tuples-only --no-align \
        --set ON_ERROR_STOP=1 --host 127.0.0.1 --port "$POSTGRES_PORT" --username postgres "$@"
}

postgres_is_ours() {
    [ "$(postgres_ask --dbname postgres --command 'show data_directory')" = "$(postgres_data)" ]
}

postgres_make_cluster() {
    local data bin secret
    data=$(postgres_data)
    bin=$(postgres_bin)
    [ ! -f "$data/PG_VERSION" ] || return 0
    mkdir -p "$(dirname "$data")"
    install -d -m 700 -o "$postgres_user" "$data"
    # The password is stored as a SCRAM verifier but sent in plain text: on loopback it cannot be intercepted, and a debug build
    # spends 200 ms of CPU on each SCRAM handshake. initdb reads the password file as its own user.
    secret=$data.initdb
    postgres_password >/dev/null
    install -m 400 -o "$postgres_user" "$RUN/postgres.password" "$secret"
    (cd / && "${as_postgres[@]}" "$bin/initdb" --pgdata "$data" --username postgres --pwfile "$secret" --auth password \
        --encoding UTF8 --locale C.UTF-8 >"$LOGS/initdb.log" 2>&1) || { cat "$LOGS/initdb.log" >&2; rm -rf "$data" "$secret"; die "initdb failed. Its output is above and in $LOGS/initdb.log."; }
    rm -f "$secret"
}

postgres_launch() {
    local data bin
    postgres_make_cluster
    data=$(postgres_data)
    bin=$(postgres_bin)
    # Only TCP on loopback, because the default socket folder belongs to the system's Postgres.
    # shellcheck disable=SC2086  # POSTGRES_OPTIONS is a list of words
    cd / && launch postgres "${as_postgres[@]}" "$bin/postgres" -D "$data" -c listen_addresses=127.0.0.1 -c "port=$POSTGRES_PORT" \
        -c unix_socket_directories= -c max_connections=300 -c timezone=UTC -c log_timezone=UTC ${POSTGRES_OPTIONS:-}
    cd "$ROOT" || exit
}

postgres_start() { start_server postgres "$POSTGRES_PORT" POSTGRES_PORT 60; }

# SIGINT is the fast shutdown: it rolls back open transactions and ends all sessions. SIGTERM would wait for every client.
postgres_stop() { end postgres INT 30; }

postgres_reset() {
    rm -rf "$(postgres_data)" "$RUN/postgres.password"
    rmdir --ignore-fail-on-non-empty /var/lib/listings-dev 2>/dev/null || true
}
