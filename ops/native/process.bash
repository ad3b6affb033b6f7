# shellcheck shell=bash disable=SC2034  # sourced: the servers use STACK
# Starts a program in the background, remembers it, and ends exactly it.
#
# A process id is reused sooner or later; a process id together with its start time and the machine's boot is not.
# So all three are written down, and nothing is signalled whose three do not match.

[ "$(uname -s)" = Linux ] || die "The native stack needs Linux (it reads /proc); elsewhere start Docker and run make up again."

PIDS=$RUN/pid
LOGS=$RUN/log
# Names what this run directory started, so that a server can be asked whose it is.
STACK=listings-$(printf '%s' "$RUN" | sha256sum | cut -c1-12)

# Start time of PID in clock ticks since boot. Fails for what has ended, zombies included: in a container
# nobody may ever reap them.
started_at() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # The name in parentheses may hold spaces; the state is the first field after it, the start time the twentieth.
    read -ra fields <<<"${stat##*) }"
    [ "${fields[0]}" != Z ] || return 1
    echo "${fields[19]}"
}

# The process id of NAME while it is the process that we started; fails otherwise.
pid_of() {
    local pid start boot
    read -r pid start boot 2>/dev/null <"$PIDS/$1" || return 1
    [ "$boot" = "$(</proc/sys/kernel/random/boot_id)" ] || return 1
    [ "$(started_at "$pid")" = "$start" ] || return 1
    echo "$pid"
}

# launch NAME COMMAND…: in a session of its own, so that it outlives this terminal.
launch() {
    local name=$1 pid
    shift
    mkdir -p "$PIDS" "$LOGS"
    # setsid and setpriv replace themselves by the command, so $! is the program itself.
    # 9 is the lock of whoever called us; a server must not inherit it.
    setsid "$@" </dev/null >>"$LOGS/$name.log" 2>&1 9>&- &
    pid=$!
    echo "$pid $(started_at "$pid") $(</proc/sys/kernel/random/boot_id)" >"$PIDS/$name"
}

# end NAME SIGNAL SECONDS: asks, waits, and kills what does not go.
end() {
    local name=$1 signal=$2 seconds=$3 pid
    if ! pid=$(pid_of "$name"); then
        rm -f "$PIDS/$name" "$PIDS/$name.port"
        return
    fi
    kill -s "$signal" "$pid" 2>/dev/null || true
    for ((tenth = 0; tenth < seconds * 10; tenth++)); do
        pid_of "$name" >/dev/null || break
        sleep 0.1
    done
    if pid_of "$name" >/dev/null; then
        say "$name (process $pid) did not end within $seconds s: killed"
        kill -s KILL "$pid" 2>/dev/null || true
    else
        say "$name stopped"
    fi
    rm -f "$PIDS/$name" "$PIDS/$name.port"
}

# wait_for NAME SECONDS CHECK…: until CHECK succeeds; says what the log ends with if it never does.
wait_for() {
    local name=$1 seconds=$2 deadline=$((SECONDS + $2))
    shift 2
    until "$@" 2>/dev/null; do
        if ! pid_of "$name" >/dev/null; then
            tail -n 20 "$LOGS/$name.log" >&2
            die "$name ended while starting; the last lines of its log are above ($LOGS/$name.log)"
        fi
        if ((SECONDS >= deadline)); then
            tail -n 20 "$LOGS/$name.log" >&2
            die "$name did not answer within $seconds s; the last lines of its log are above ($LOGS/$name.log)"
        fi
        sleep 0.1
    done
}

# Inodes of the sockets that listen on PORT, on any address.
listening_on() {
    awk -v port="$(printf '%04X' "$1")" \
        '$4 == "0A" { split($2, address, ":"); if (address[2] == port) print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# Process ids that hold PORT, as far as we may look.
holders_of() {
    local inode
    for inode in $(listening_on "$1"); do
        find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\\[$inode\\]" -printf '%h\n' 2>/dev/null || true
    done | cut -d/ -f3 | sort -un
}

# need_port PORT VARIABLE [NAME…]: the port must be free, or held by one of these processes of ours.
need_port() {
    local port=$1 variable=$2 pid name who=""
    [ -n "$(listening_on "$port")" ] || return 0
    for name in "${@:3}"; do
        ! pid=$(pid_of "$name") || ! holders_of "$port" | grep -qx "$pid" || return 0
    done
    for pid in $(holders_of "$port"); do
        who+=" process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-80 | sed 's/ *$//'))"
    done
    die "Port $port is taken by${who:- a process that this user may not look into}. Set $variable to another port, or end that process."
}

# free_port: one that nobody listens on, below the range from which the kernel takes outgoing ones.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        [ -n "$(listening_on "$port")" ] || { echo "$port"; return; }
    done
    die "No free port found between 20000 and 30000"
}

# start_server NAME PORT VARIABLE SECONDS: starts it unless it runs, and makes sure that who answers is ours.
# NAME_launch starts it, NAME_is_ours asks it for something that only ours knows.
start_server() {
    local name=$1 port=$2 variable=$3 seconds=$4 pid
    if pid=$(pid_of "$name"); then
        [ "$(<"$PIDS/$name.port")" = "$port" ] ||
            die "$name of this stack runs on port $(<"$PIDS/$name.port"). Set $variable to that again, or make down before you move it."
        wait_for "$name" "$seconds" "${name}_is_ours"
        return
    fi
    need_port "$port" "$variable"
    echo "$port" >"$PIDS/$name.port"
    "${name}_launch"
    wait_for "$name" "$seconds" "${name}_is_ours"
    say "$name on 127.0.0.1:$port"
}
