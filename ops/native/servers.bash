# shellcheck shell=bash
# Sourced by the scripts beside it: settings, process management, and the functions of the four servers.

# shellcheck source=ops/native/settings.bash
. "$(dirname "${BASH_SOURCE[0]}")/settings.bash"
# shellcheck source=ops/native/process.bash
. "$NATIVE/process.bash"
# shellcheck source=ops/native/packages.bash
. "$NATIVE/packages.bash"
for server in postgres nats redis opensearch; do
    # shellcheck source=/dev/null
    . "$NATIVE/$server.bash"
done
mkdir -p "$PIDS" "$LOGS" "$CACHE"

# The servers named by the caller; all four by default.
SERVERS=("$@")
[ ${#SERVERS[@]} -gt 0 ] || SERVERS=(postgres nats redis opensearch)
