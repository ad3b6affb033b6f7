# shellcheck shell=bash disable=SC2034  # sourced: the servers use STACK
# Starts processes in the background, records them, and stops exactly those.
#
# A process id can be reused; the combination of process id, start time and boot id cannot. All three are recorded, and a
# process is signalled only if all three match.

[ "$(uname -s)" = Linux ] || die "The native stack needs Linux, because it reads /proc. On other systems start Docker, then run make up again."

PIDS=$RUN/pid
LOGS=$RUN/log
# Name of this stack. Servers are started with it, so that a check can tell whether a server belongs to this run directory.
STACK=listings-$(printf '%s' "$RUN" | sha256sum | cut -c1-12)

# started_at PID: prints the start time in clock ticks since boot. Fails for an ended process and for a zombie, which may never be
# reaped in a container.
started_at() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # The name in parentheses may contain spaces. The state is the first field after it, the start time the twentieth.
    read -ra fields <<<"${stat##*) }"
    [ "${fields[0]}" != Z ] || return 1
    echo "${fields[19]}"
}

# pid_of NAME: prints the process id if the process that we started is still running; fails otherwise.
pid_of() {
    local pid start boot
    read -r pid start boot 2>/dev/null <"$PIDS/$1" || return 1
    [ "$boot" = "$(</proc/sys/kernel/random/boot_id)" ] || return 1
    [ "$(started_at "$pid")" = "$start" ] || return 1
    echo "$pid"
}

# launch NAME COMMAND…: starts the command in a new session, so that it outlives this terminal, and records it.
launch() {
    local name=$1 pid
    shift
    mkdir -p "$PIDS" "$LOGS"
    # setsid and setpriv execute the command in the same process, so $! is the program's id.
    # Descriptor 9 is the lock of the calling script, which a server must not inherit.
    setsid "$@" </dev/null >>"$LOGS/$name.log" 2>&1 9>&- &
    pid=$!
    echo "$pid $(started_at "$pid") $(</proc/sys/kernel/random/boot_id)" >"$PIDS/$name"
}

# end NAME SIGNAL SECONDS: sends the signal, waits, and kills the process if it has not ended by then.
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
        say "$name (process $pid) did not end within $seconds s and was killed."
        kill -s KILL "$pid" 2>/dev/null || true
    else
        say "$name has stopped."
    fi
    rm -f "$PIDS/$name" "$PIDS/$name.port"
}

# wait_for NAME SECONDS CHECK…: waits until CHECK succeeds. Prints the end of the log if the process ends or time runs out.
wait_for() {
    local name=$1 seconds=$2 deadline=$((SECONDS + $2))
    shift 2
    until "$@" 2>/dev/null; do
        if ! pid_of "$name" >/dev/null; then
            tail -n 20 "$LOGS/$name.log" >&2
            die "$name ended while starting. The last lines of its log are above; all of it is in $LOGS/$name.log."
        fi
        if ((SECONDS >= deadline)); then
            tail -n 20 "$LOGS/$name.log" >&2
            die "$name did not answer within $seconds s. The last lines of its log are above; all of it is in $LOGS/$name.log."
        fi
        sleep 0.1
    done
}

# listening_on PORT: prints the inodes of the sockets that listen on the port, on any address.
listening_on() {
    awk -v port="$(printf '%04X' "$1")" \
        '$4 == "0A" { split($2, address, ":"); if (address[2] == port) print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# holders_of PORT: prints the ids of the processes that listen on the port, as far as this user may see them.
holders_of() {
    local inode
    for inode in $(listening_on "$1"); do
        find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\\[$inode\\]" -printf '%h\n' 2>/dev/null || true
    done | cut -d/ -f3 | sort -un
}

# need_port PORT VARIABLE [NAME…]: fails unless the port is free or used by one of these processes of ours.
need_port() {
    local port=$1 variable=$2 pid name who=""
    [ -n "$(listening_on "$port")" ] || return 0
    for name in "${@:3}"; do
        ! pid=$(pid_of "$name") || ! holders_of "$port" | grep -qx "$pid" || return 0
    done
    for pid in $(holders_of "$port"); do
        who+=" process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-80 | sed 's/ *$//'))"
    done
    die "Port $port is in use by${who:- a process of another user}. Set $variable to another port, or end that process."
}

# free_port: prints a port that is not in use, below the range from which the kernel chooses ports for outgoing connections.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        [ -n "$(listening_on "$port")" ] || { echo "$port"; return; }
    done
    die "No free port was found between 20000 and 30000. End other servers, then run this again."
}

# start_server NAME PORT VARIABLE SECONDS: starts the server unless it runs, and waits until it answers as the server of this
# stack. NAME_launch starts it; NAME_is_ours checks a property that only our server has.
start_server() {
    local name=$1 port=$2 variable=$3 seconds=$4 pid
    if pid=$(pid_of "$name"); then
        [ "$(<"$PIDS/$name.port")" = "$port" ] ||
            die "$name of this stack runs on port $(<"$PIDS/$name.port"). Set $variable to that port, or run make down before changing it."
        wait_for "$name" "$seconds" "${name}_is_ours"
        return
    fi
    need_port "$port" "$variable"
    echo "$port" >"$PIDS/$name.port"
    "${name}_launch"
    wait_for "$name" "$seconds" "${name}_is_ours"
    say "$name listens on 127.0.0.1:$port."
}
