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
                // A single node needs no transport connections. A free port avoids conflicts between two stacks.
                .put("transport.port", "0")
                .put("discovery.type", "single-node")
                // A write to a missing index must fail instead of creating one with a dynamic mapping.
                .put("action.auto_create_index", false)
                .put("path.repo", snapshots)
                // By default, indices become read-only when the disk is 95 % full, as a developer's disk often is.
                .put("cluster.routing.allocation.disk.threshold_enabled", false))
            .build(newConfigs().basePath(data).numOfNode(1).clusterName(cluster).useLogger());
        Thread.currentThread().join();
    }
}
