//! The statuses that an agent writes, for tests and benchmarks of what reads them: there none runs.

use crate::cluster::Cluster;

/// The cluster is enabled, and all is well.
pub fn ready(cluster: &Cluster) {
    let condition = |kind: &str| {
        format!(
            r#"{{"type":"{kind}","status":"True","reason":"R","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}}"#
        )
    };
    let generation = &cluster.get(&["imageacceleration", "default"])["metadata"]["generation"];
    let status = format!(
        r#""observedGeneration":{generation},"conditions":[{},{}]"#,
        condition("AgentReady"),
        condition("NfsReady")
    );
    patch(cluster, &["imageacceleration", "default"], &status);
}

/// An image stands so; fields of its status in JSON, without the braces.
pub fn image(cluster: &Cluster, name: &str, status: &str) {
    patch(cluster, &["acceleratedimage", name], status);
}

fn patch(cluster: &Cluster, object: &[&str], status: &str) {
    let body = format!(r#"{{"status":{{{status}}}}}"#);
    let how = ["--subresource=status", "--type=merge", "-p", &body];
    cluster.kubectl_ok(&[&["patch"], object, &how].concat());
}
