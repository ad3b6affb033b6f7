import static org.codelibs.opensearch.runner.OpenSearchRunner.newConfigs;

import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node on loopback. Arguments: data folder, snapshot folder, HTTP port, cluster name. */
public class OpenSearch {
    public static void main(String[] arguments) throws Exception {
        String data = arguments[0], snapshots = arguments[1], port = arguments[2], cluster = arguments[3];
        OpenSearchRunner runner = new OpenSearchRunner();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                runner.close();
            } catch (java.io.IOException failure) {
                failure.printStackTrace();
            }
        }));
        runner.onBuild((number, settings) -> settings
                .put("network.host", "127.0.0.1")
                .put("http.port", port)
                // Nobody talks to it: a single node. Any free port, so that two stacks never meet.
                .put("transport.port", "0")
                .put("discovery.type", "single-node")
                // A write to a missing index must fail, not invent a mapping.
                .put("action.auto_create_index", false)
                .put("path.repo", snapshots)
                // A developer's disk is often nearly full; the default would turn every index read-only at 95 %.
                .put("cluster.routing.allocation.disk.threshold_enabled", false))
            .build(newConfigs().basePath(data).numOfNode(1).clusterName(cluster).useLogger());
        Thread.currentThread().join();
    }
}
