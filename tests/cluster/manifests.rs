//! What `enable --dry-run` prints and what lies in deploy/, applied by kubectl.

use std::process::Command;

use serde_json::Value;
use uimgacc_testkit::cluster::{Cluster, Options};

use crate::support::{ok, ready, uimgacc, wait_for};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// Applies YAML on the server's side, as `kubectl apply --server-side -f -` does.
fn apply(cluster: &Cluster, yaml: &str) -> String {
    let file = cluster.dir().join("manifests.yaml");
    std::fs::write(&file, yaml).unwrap();
    cluster.kubectl_ok(&["apply", "--server-side", "-f", file.to_str().unwrap()])
}

fn refusal(cluster: &Cluster, yaml: &str) -> String {
    let file = cluster.dir().join("bad.yaml");
    std::fs::write(&file, yaml).unwrap();
    let output = cluster.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    assert!(!output.status.success(), "{yaml} was taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn established(cluster: &Cluster) {
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/imageaccelerations.uimgacc.io",
        "crd/acceleratedimages.uimgacc.io",
        "crd/accelerationnodes.uimgacc.io",
        "crd/startrecords.uimgacc.io",
    ]);
}

#[test]
fn kubectl_applies_what_enable_prints() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start(&Options::control_plane());
    let print = |part: &str| {
        ok(&uimgacc(
            &cluster,
            &[
                "enable",
                part,
                "--nfs",
                "nfs://10.0.0.1,10.0.0.2/x?vers=4.2",
            ],
        ))
    };
    apply(&cluster, &print("--dry-run=crds"));
    established(&cluster);
    let applied = apply(&cluster, &print("--dry-run=rest"));
    assert!(
        applied.contains("imageacceleration.uimgacc.io/default serverside-applied"),
        "{applied}"
    );
    // The same again, all at once, changes nothing.
    let generation = |target: &[&str]| cluster.get(target)["metadata"]["generation"].clone();
    let agent = ["-n", "kube-system", "deployment", "uimgacc-agent"];
    let before = generation(&agent);
    apply(&cluster, &print("--dry-run"));
    assert_eq!(generation(&agent), before);

    // The controllers take the template: two Pods with our account and priority.
    let pods = || {
        let all = cluster.get(&[
            "-n",
            "kube-system",
            "pods",
            "-l",
            "app.kubernetes.io/part-of=uimgacc",
        ]);
        all["items"].as_array().cloned().unwrap_or_default()
    };
    wait_for("two Pods of the agent", || pods().len() == 2);
    for pod in pods() {
        assert_eq!(pod["spec"]["serviceAccountName"], "uimgacc-agent");
        assert_eq!(pod["spec"]["priorityClassName"], "system-cluster-critical");
    }

    // What lies in deploy/ is the same.
    for folder in [
        "",
        "/examples/nfs",
        "/examples/persistent-volume-claim",
        "/examples/host-path",
    ] {
        let built = cluster.kubectl_ok(&["kustomize", &format!("{DEPLOY}{folder}")]);
        assert!(built.contains("kind: Deployment"), "{built}");
        let folder = format!("{DEPLOY}{folder}");
        cluster.kubectl_ok(&[
            "apply",
            "--server-side",
            "--dry-run=server",
            "--force-conflicts",
            "-k",
            &folder,
        ]);
    }
    cluster.kubectl_ok(&[
        "apply",
        "--server-side",
        "--dry-run=server",
        "-f",
        &format!("{DEPLOY}/examples/image.yaml"),
    ]);

    rights(&cluster);
    refusals(&cluster);
    let policy = format!("{DEPLOY}/policy");
    cluster.kubectl_ok(&["apply", "--server-side", "-k", &policy]);
}

/// The three accounts may do what they must and no more.
fn rights(cluster: &Cluster) {
    for (account, verb, what, namespace, may) in [
        ("uimgacc-agent", "create", "jobs.batch", "kube-system", true),
        (
            "uimgacc-agent",
            "patch",
            "daemonsets.apps",
            "kube-system",
            true,
        ),
        (
            "uimgacc-agent",
            "create",
            "leases.coordination.k8s.io",
            "kube-system",
            true,
        ),
        (
            "uimgacc-agent",
            "update",
            "leases.coordination.k8s.io/uimgacc-agent",
            "kube-system",
            true,
        ),
        (
            "uimgacc-agent",
            "patch",
            "acceleratedimages.uimgacc.io/status",
            "",
            true,
        ),
        ("uimgacc-agent", "list", "pods", "default", true),
        (
            "uimgacc-agent",
            "create",
            "events.events.k8s.io",
            "default",
            true,
        ),
        (
            "uimgacc-agent",
            "update",
            "leases.coordination.k8s.io/kube-scheduler",
            "kube-system",
            false,
        ),
        ("uimgacc-agent", "create", "jobs.batch", "default", false),
        ("uimgacc-agent", "get", "secrets", "kube-system", false),
        ("uimgacc-agent", "watch", "secrets", "kube-system", true),
        ("uimgacc-agent", "watch", "secrets", "default", false),
        ("uimgacc-agent", "patch", "nodes", "", false),
        ("uimgacc-agent", "create", "pods", "kube-system", false),
        (
            "uimgacc-agent",
            "create",
            "clusterroles.rbac.authorization.k8s.io",
            "",
            false,
        ),
        (
            "uimgacc-convert",
            "patch",
            "acceleratedimages.uimgacc.io/status",
            "",
            true,
        ),
        (
            "uimgacc-convert",
            "get",
            "acceleratedimages.uimgacc.io",
            "",
            true,
        ),
        (
            "uimgacc-convert",
            "patch",
            "acceleratedimages.uimgacc.io",
            "",
            false,
        ),
        (
            "uimgacc-convert",
            "delete",
            "acceleratedimages.uimgacc.io",
            "",
            false,
        ),
        ("uimgacc-convert", "get", "secrets", "kube-system", false),
        (
            "uimgacc-agent",
            "watch",
            "leases.coordination.k8s.io/uimgacc-agent",
            "kube-system",
            true,
        ),
        (
            "uimgacc-convert",
            "list",
            "accelerationnodes.uimgacc.io",
            "",
            true,
        ),
        (
            "uimgacc-agent",
            "watch",
            "startrecords.uimgacc.io",
            "",
            true,
        ),
        (
            "uimgacc-agent",
            "create",
            "startrecords.uimgacc.io",
            "",
            false,
        ),
        (
            "uimgacc-convert",
            "delete",
            "startrecords.uimgacc.io",
            "",
            true,
        ),
        (
            "uimgacc-node",
            "create",
            "startrecords.uimgacc.io",
            "",
            true,
        ),
        ("uimgacc-node", "get", "startrecords.uimgacc.io", "", false),
        ("uimgacc-node", "watch", "nodes", "", true),
        ("uimgacc-node", "patch", "nodes", "", true),
        (
            "uimgacc-node",
            "create",
            "accelerationnodes.uimgacc.io",
            "",
            true,
        ),
        (
            "uimgacc-node",
            "patch",
            "accelerationnodes.uimgacc.io/status",
            "",
            true,
        ),
        (
            "uimgacc-node",
            "patch",
            "acceleratedimages.uimgacc.io",
            "",
            false,
        ),
        ("uimgacc-node", "delete", "nodes", "", false),
        ("uimgacc-node", "get", "secrets", "kube-system", false),
    ] {
        let subject = format!("--as=system:serviceaccount:kube-system:{account}");
        let resource = what.strip_suffix("/status");
        let mut arguments = vec!["auth", "can-i", verb, resource.unwrap_or(what), &subject];
        if resource.is_some() {
            arguments.push("--subresource=status");
        }
        if !namespace.is_empty() {
            arguments.extend(["-n", namespace]);
        }
        let answer = cluster.kubectl(&arguments);
        assert_eq!(answer.status.success(), may, "{arguments:?}: {answer:?}");
    }
}

/// What makes no sense is refused, with what is wrong.
fn refusals(cluster: &Cluster) {
    let acceleration = |name: &str, store: &str| {
        format!(
            "{{apiVersion: uimgacc.io/v1, kind: ImageAcceleration, metadata: {{name: {name}}}, spec: {{image: x, store: {store}}}}}"
        )
    };
    let image = |original: &str, target: &str, more: &str| {
        format!(
            "{{apiVersion: uimgacc.io/v1, kind: AcceleratedImage, metadata: {{name: a}}, spec: {{originalImage: '{original}', targetImage: '{target}'{more}}}}}"
        )
    };
    for (yaml, part) in [
        (
            acceleration("other", "{nfs: {servers: [a]}}"),
            "must be named default",
        ),
        (
            acceleration("default", "{nfs: {servers: [a]}, hostPath: {path: /a}}"),
            "exactly one of nfs",
        ),
        (
            acceleration("default", "{hostPath: {path: a}}"),
            "spec.store.hostPath.path",
        ),
        (
            acceleration("default", "{nfs: {servers: []}}"),
            "spec.store.nfs.servers",
        ),
        (image("a", "a", ""), "another name than the original"),
        (image("a", "b@sha256:0", ""), "spec.targetImage"),
        (image("a b", "c", ""), "spec.originalImage"),
        (image("a", "b", ", platform: Linux"), "spec.platform"),
        (
            acceleration(
                "default",
                "{hostPath: {path: /a}}, allowedTargets: ['r.io/']",
            ),
            "spec.allowedTargets[0]",
        ),
        (
            acceleration(
                "default",
                "{hostPath: {path: /a}}, credentialsFor: ['https://r.io']",
            ),
            "spec.credentialsFor[0]",
        ),
    ] {
        let message = refusal(cluster, &yaml);
        assert!(message.contains(part), "{yaml}\n{message}");
    }
    apply(cluster, &image("a", "b", ""));
    let message = refusal(cluster, &image("other", "b", ""));
    assert!(message.contains("images cannot be changed"), "{message}");
    columns(cluster);
}

/// `kubectl get` shows what matters.
fn columns(cluster: &Cluster) {
    for (kind, columns) in [
        (
            "accimg",
            vec![
                "NAME", "ORIGINAL", "TARGET", "PHASE", "PROGRESS", "SIZE", "LAYERS", "AGE",
            ],
        ),
        (
            "imgaccel",
            vec![
                "NAME", "NFS", "AGENT", "READY", "NODES", "IMAGES", "BYTES", "AGE",
            ],
        ),
    ] {
        let text = cluster.kubectl_ok(&["get", kind]);
        let header: Vec<&str> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(header, columns);
    }
    let all = cluster.kubectl_ok(&["get", "uimgacc", "-o", "name"]);
    assert!(all.contains("acceleratedimage.uimgacc.io/a"), "{all}");
}

#[test]
fn every_manifest_names_the_version_it_is_of() {
    let dry = Command::new(uimgacc_testkit::programs::program("uimgacc"))
        .args([
            "enable",
            "--dry-run",
            "--host-path",
            "/mnt/x",
            "--image",
            "r.io/u:1",
        ])
        .env_remove("UIMGACC_STORE")
        .env_remove("UIMGACC_CONFIG")
        .env_remove("UIMGACC_BASE_URL")
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .output()
        .expect("the command starts");
    let text = ok(&dry);
    assert_eq!(
        text.matches("image: r.io/u:1").count(),
        2,
        "agent and ImageAcceleration"
    );
    assert_eq!(text.matches("kind: CustomResourceDefinition\n").count(), 4);
    assert!(serde_json::from_str::<Value>(&text).is_err(), "it is YAML");
}
