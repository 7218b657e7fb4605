//! enable, status and disable.

use serde_json::json;
use uimgacc_testkit::cluster::Cluster;

use crate::support::{
    all_is_well, condition, control_plane, enabled, failed, json_of, machine, ok, patch_status,
    ready, start, stdout, uimgacc, wait_for, with_input,
};

#[test]
fn enable_waits_and_says_what_is_missing() {
    if !ready() {
        return;
    }
    let cluster = control_plane();
    let text = failed(&uimgacc(&cluster, &["create", "a", "b:1"]), 1);
    assert!(text.contains("not enabled"), "{text}");
    let text = failed(&uimgacc(&cluster, &["enable"]), 1);
    assert!(text.contains("--nfs ADDR"), "{text}");
    let text = failed(&uimgacc(&cluster, &["status"]), 1);
    assert!(text.contains("not enabled"), "{text}");
    machine(&cluster, "node-1");
    machine(&cluster, "node-2");

    let arguments = ["enable", "--nfs", "10.0.0.1:/x", "--timeout", "8s"];
    let text = failed(&uimgacc(&cluster, &arguments), 5);
    for part in [
        "not ready after 8 s",
        "the agent: 0 of 2 replicas are ready",
        "has not taken notice",
        "node node-1: the node installer has not reported yet",
        "hint: the work goes on",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    // Once more, with the agent there in the end; what was not mentioned stays.
    let password = with_input(
        &cluster,
        &[
            "enable",
            "--username",
            "me",
            "--password-stdin",
            "--registry",
            "r.io",
            "--no-wait",
        ],
        "s3cret\n",
    );
    assert!(!ok(&password).contains("s3cret"));
    let waiting = start(
        &cluster,
        &[
            "enable",
            "--plain-http-registry",
            "r.io:5000",
            "--timeout",
            "60s",
        ],
    );
    wait_for("the registry is in the spec", || {
        cluster.get(&["imageacceleration", "default"])["spec"]["plainHttpRegistries"][0]
            == "r.io:5000"
    });
    all_is_well(&cluster, 2);
    for (name, ready, error) in [
        ("node-1", "True", None),
        ("node-2", "False", Some("no room in /var")),
    ] {
        cluster.apply(&format!(
            "{{apiVersion: uimgacc.io/v1, kind: AccelerationNode, metadata: {{name: {name}}}, spec: {{}}}}"
        ));
        patch_status(
            &cluster,
            &["accelerationnode", name],
            &json!({"error": error, "version": "0.1.0", "kernel": "6.18.44", "mountMethod": "file-directio",
                "conditions": [condition("Ready", ready, "Tested", "")],
                "chains": [{"token": "sha256:0", "containers": 3}]}),
        );
    }
    let status = uimgacc(&cluster, &["status"]);
    let text = failed(&status, 1);
    assert!(text.contains("1 problems"), "{text}");
    for part in [
        "node-2: no room in /var",
        "1 of 2 ready",
        "NFS 10.0.0.1:/x, 1.21 MB",
        "file-directio",
    ] {
        assert!(
            stdout(&status).contains(part),
            "{part}\n{}",
            stdout(&status)
        );
    }
    patch_status(
        &cluster,
        &["accelerationnode", "node-2"],
        &json!({"error": null, "conditions": [condition("Ready", "True", "Tested", "")]}),
    );
    let output = waiting.finish();
    assert!(ok(&output).contains("ready on 2 nodes"), "{output:?}");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        talk.contains("waiting: node node-2: no room in /var"),
        "{talk}"
    );

    let spec = cluster.get(&["imageacceleration", "default"])["spec"].clone();
    assert_eq!(spec["store"]["nfs"]["path"], "/x");
    assert_eq!(spec["registryCredentials"]["name"], "uimgacc-registry");
    // Where images may go follows from the credentials, and `create` says so at once.
    assert_eq!(spec["allowedTargets"], json!(["r.io"]));
    assert_eq!(spec["credentialsFor"], json!(["r.io"]));
    let text = failed(&uimgacc(&cluster, &["create", "a", "evil.io/b:1"]), 1);
    for part in [
        "images may not be pushed to evil.io/b: allowedTargets of the ImageAcceleration is r.io",
        "hint: choose a target that is allowed",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(cluster.kubectl_ok(&["get", "accimg", "-o", "name"]), "");
    cluster.kubectl_ok(&["get", "validatingadmissionpolicybinding", "uimgacc-targets"]);
    let secret = cluster.get(&["-n", "kube-system", "secret", "uimgacc-registry"]);
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    let status = json_of(&cluster, &["status"]);
    assert_eq!(status["Ready"], true);
    assert_eq!(status["Nodes"][1]["Containers"], 3);
    let text = ok(&uimgacc(
        &cluster,
        &["status", "--wait", "--timeout", "10s"],
    ));
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
}

#[test]
fn the_store_is_changed_on_purpose_only() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    ok(&uimgacc(
        &cluster,
        &["create", "a", "r.io/b:1", "--no-wait"],
    ));
    // Another address of the same export is no other store.
    ok(&uimgacc(
        &cluster,
        &["enable", "--nfs", "10.0.0.2:/x", "--no-wait"],
    ));
    let other = ["enable", "--host-path", "/mnt/x", "--no-wait"];
    let text = failed(&uimgacc(&cluster, &other), 1);
    assert!(text.contains("1 images lie in it"), "{text}");
    // Also where somebody else's hand made the old one.
    cluster.kubectl_ok(&[
        "patch",
        "imageacceleration",
        "default",
        "--type=merge",
        "-p",
        r#"{"spec":{"store":{"nfs":{"servers":["10.0.0.9"]}}}}"#,
    ]);
    ok(&uimgacc(&cluster, &[&other[..], &["--force"]].concat()));
    let spec = cluster.get(&["imageacceleration", "default"])["spec"].clone();
    assert_eq!(spec["store"], json!({"hostPath": {"path": "/mnt/x"}}));
}

#[test]
fn disable_refuses_waits_and_leaves_nothing() {
    if !ready() {
        return;
    }
    let cluster = enabled();
    ok(&uimgacc(
        &cluster,
        &["create", "nginx", "r.io/nginx:fast", "--no-wait"],
    ));
    cluster.kubectl_ok(&["create", "serviceaccount", "default"]);
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {nodeName: node-7, containers: [{name: a, image: 'r.io/nginx:fast'}]}}",
    );
    let text = failed(&uimgacc(&cluster, &["disable"]), 4);
    assert!(text.contains("in use by default/web on node-7"), "{text}");
    assert_eq!(
        cluster.get(&["imageacceleration", "default"])["metadata"]["deletionTimestamp"],
        json!(null)
    );
    cluster.kubectl_ok(&["delete", "pod", "web", "--force", "--grace-period=0"]);

    // The agent holds both until it has done its work.
    let name = cluster
        .kubectl_ok(&["get", "accimg", "-o", "name"])
        .trim()
        .to_owned();
    let hold = |target: &str, finalizer: &str| {
        let patch = format!(r#"{{"metadata":{{"finalizers":{finalizer}}}}}"#);
        cluster.kubectl_ok(&["patch", target, "--type=merge", "-p", &patch]);
    };
    hold(&name, r#"["uimgacc.io/store"]"#);
    hold("imageacceleration/default", r#"["uimgacc.io/cluster"]"#);
    cluster.apply("{apiVersion: uimgacc.io/v1, kind: AccelerationNode, metadata: {name: node-7}, spec: {uninstall: true}}");
    let text = failed(&uimgacc(&cluster, &["disable", "--timeout", "8s"]), 5);
    assert!(text.contains("node node-7: is being uninstalled"), "{text}");
    let status = json_of_status(&cluster);
    assert_eq!(status["Disabling"], true);
    let text = failed(&uimgacc(&cluster, &["enable"]), 1);
    assert!(text.contains("being disabled"), "{text}");

    let purging = start(&cluster, &["disable", "--purge"]);
    let ends = |target: &str| {
        let target = target.to_owned();
        wait_for("the deletion has begun", || {
            !cluster.get(&[&target])["metadata"]["deletionTimestamp"].is_null()
        });
    };
    ends(&name);
    hold(&name, "null");
    ends("imageacceleration/default");
    hold("imageacceleration/default", "null");
    let output = purging.finish();
    assert!(ok(&output).contains("is disabled"), "{output:?}");
    for (kind, label) in [
        ("crd", ""),
        (
            "validatingadmissionpolicies,validatingadmissionpolicybindings",
            "",
        ),
        (
            "clusterroles,clusterrolebindings",
            "app.kubernetes.io/part-of=uimgacc",
        ),
        (
            "deployments,secrets,roles,rolebindings,serviceaccounts,poddisruptionbudgets",
            "app.kubernetes.io/part-of=uimgacc",
        ),
    ] {
        wait_for("all is gone", || {
            cluster
                .kubectl_ok(&["get", kind, "-n", "kube-system", "-l", label, "-o", "name"])
                .lines()
                .all(|line| !line.contains("uimgacc"))
        });
    }
    // Once more is no error.
    let text = ok(&uimgacc(&cluster, &["disable"]));
    assert!(text.contains("was not enabled"), "{text}");
}

fn json_of_status(cluster: &Cluster) -> serde_json::Value {
    let output = uimgacc(cluster, &["status", "-o", "json"]);
    serde_json::from_slice(&output.stdout).expect("JSON")
}
