# shellcheck shell=bash
# All that the verbs beside it need: settings, processes, and the four servers.

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

# Those named by the caller, or all four.
SERVERS=("$@")
[ ${#SERVERS[@]} -gt 0 ] || SERVERS=(postgres nats redis opensearch)
