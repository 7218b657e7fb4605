//! Nodes restart and are given up one at a time; disabling leaves nothing behind.

use serde_json::{Value, json};
use uimgacc_testkit::ready;

use super::stage::{NEEDS, Stage, condition, http, node_condition};

const CHAIN: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn nodes_come_and_go_one_at_a_time() {
    if !ready(&NEEDS) {
        return;
    }
    let stage = Stage::start();
    let agent = stage.agent("one");
    stage.enable("one");
    installer(&stage);
    restarts(&stage);
    stage.create_image("app", "registry.example/app:fast");
    stage.convert("one", "app", CHAIN);
    settings_change(&stage);
    disable(&stage);
    assert!(!stage.log("one").to_lowercase().contains("forbidden"));
    assert_eq!(http(agent.port, "/healthz").0, 200);
}

/// The nodes that may restart containerd; each is listed with the uid of its Node.
fn may_restart(stage: &Stage) -> Vec<String> {
    let cluster = stage.object(&["imgaccel", "default"]);
    let listed = cluster["status"]["restarting"].as_array().cloned();
    let listed = listed.unwrap_or_default();
    let name = |one: &Value| {
        let name = one["name"].as_str().unwrap();
        let node = stage.object(&["node", name]);
        assert_eq!(one["uid"], node["metadata"]["uid"]);
        name.to_owned()
    };
    listed.iter().map(name).collect()
}

fn asked_to_leave(stage: &Stage) -> Vec<&'static str> {
    let asked = |node: &&&str| stage.node_spec(node)["uninstall"] == true;
    NODES.iter().filter(asked).copied().collect()
}

/// The DaemonSet is what the API server makes of it, and its Pods count.
fn installer(stage: &Stage) {
    let set = || stage.object(&["ds", "-n", "kube-system", "uimgacc-node"]);
    stage.wait("one", "the DaemonSet", || !set().is_null());
    let pod = &set()["spec"]["template"]["spec"];
    let args = pod["containers"][0]["args"].to_string();
    assert!(args.contains("10.0.0.1"), "{args}");
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let cluster = || stage.object(&["imgaccel", "default"]);
    stage.wait("one", "AgentReady without nodes", || {
        condition(&cluster(), "AgentReady").0 == "True"
    });
    assert_eq!(condition(&cluster(), "Ready").1, "NoNode");
    for node in NODES {
        stage.node(
            node,
            &json!({"needsRestart": true, "conditions": [node_condition("Ready", false, "NotInstalled"), node_condition("Installed", false, "NeedsRestart")]}),
        );
    }
    stage.wait("one", "the installer's Pods are not ready", || {
        let (status, _, message) = condition(&cluster(), "AgentReady");
        status == "False" && message.contains("0 of 3")
    });
    // The kubelets start them.
    let selector = "app.kubernetes.io/component=node";
    let mut pods = Value::Null;
    stage.wait("one", "the installer's Pods", || {
        pods = stage.object(&["pods", "-n", "kube-system", "-l", selector]);
        pods["items"].as_array().is_some_and(|pods| pods.len() == 3)
    });
    for pod in pods["items"].as_array().unwrap() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let status = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        stage.patch_status("pod", name, "kube-system", &status);
    }
    stage.wait("one", "AgentReady", || {
        condition(&cluster(), "AgentReady").0 == "True"
    });
}

fn restarts(stage: &Stage) {
    for (turn, node) in NODES.iter().enumerate() {
        stage.wait("one", &format!("the turn of {node}"), || {
            may_restart(stage) == [*node]
        });
        if turn == 0 {
            // containerd does not come back there: nobody else restarts.
            stage.patch_status(
                "accnode",
                node,
                "",
                &json!({"needsRestart": false, "error": "containerd did not come back"}),
            );
            std::thread::sleep(std::time::Duration::from_secs(2));
            assert_eq!(may_restart(stage), [*node]);
        }
        stage.patch_status(
            "accnode",
            node,
            "",
            &json!({"needsRestart": false, "error": null, "conditions": [node_condition("Ready", true, "Ready"), node_condition("Installed", true, "Installed")]}),
        );
    }
    stage.wait("one", "nobody's turn", || may_restart(stage).is_empty());
    stage.wait("one", "Ready", || {
        let cluster = stage.object(&["imgaccel", "default"]);
        condition(&cluster, "Ready").0 == "True"
            && cluster["status"]["nodes"] == json!({"ready": 3, "total": 3})
    });
}

/// Another image of ours changes the DaemonSet and leaves the store alone; another store does not.
fn settings_change(stage: &Stage) {
    let set_image = r#"{"spec": {"image": "registry.example/uimgacc:2"}}"#;
    stage.cluster.kubectl_ok(&[
        "patch",
        "imgaccel",
        "default",
        "--type=merge",
        "-p",
        set_image,
    ]);
    stage.wait("one", "the new version", || {
        let set = stage.object(&["ds", "-n", "kube-system", "uimgacc-node"]);
        set["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/uimgacc:2"
    });
    let cluster = || stage.object(&["imgaccel", "default"]);
    assert_eq!(condition(&cluster(), "NfsReady").0, "True");
    let set_store = r#"{"spec": {"store": {"nfs": {"servers": ["10.0.0.2"]}}}}"#;
    stage.cluster.kubectl_ok(&[
        "patch",
        "imgaccel",
        "default",
        "--type=merge",
        "-p",
        set_store,
    ]);
    stage.wait("one", "the new store is looked at", || {
        condition(&cluster(), "NfsReady").1 == "Checking"
    });
    stage.wait("one", "the new Job", || {
        let job = stage.object(&["job", "-n", "kube-system", "uimgacc-init"]);
        job["spec"]["template"]["spec"]["containers"][0]["args"]
            .to_string()
            .contains("10.0.0.2")
    });
    stage.end_job("one", "uimgacc-init", 0, "Completed", "");
    stage.wait("one", "NfsReady", || {
        condition(&cluster(), "NfsReady").0 == "True"
    });
}

fn disable(stage: &Stage) {
    stage.cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: user, namespace: default},
          spec: {nodeName: n2, containers: [{name: c, image: 'registry.example/app:fast'}]}}",
    );
    std::thread::sleep(std::time::Duration::from_secs(2));
    stage
        .cluster
        .kubectl_ok(&["delete", "imgaccel", "default", "--wait=false"]);
    let cluster = || stage.object(&["imgaccel", "default"]);
    stage.wait("one", "InUse", || {
        condition(&cluster(), "Ready").1 == "InUse"
    });
    assert!(
        condition(&cluster(), "Ready")
            .2
            .contains("default/user on n2")
    );
    assert!(asked_to_leave(stage).is_empty());
    stage
        .cluster
        .kubectl_ok(&["delete", "pod", "user", "--force", "--grace-period=0"]);
    stage.wait("one", "all nodes are to leave", || {
        asked_to_leave(stage) == NODES
    });
    for node in NODES {
        stage.wait("one", &format!("{node} may restart containerd"), || {
            may_restart(stage) == [node]
        });
        let set = stage.object(&["ds", "-n", "kube-system", "uimgacc-node"]);
        assert!(
            !set.is_null(),
            "the installer is needed until the last node"
        );
        let left = json!({"conditions": [node_condition("Installed", false, "Uninstalled")]});
        stage.patch_status("accnode", node, "", &left);
    }
    stage.wait("one", "the Job of the leases", || {
        let job = ["job", "-n", "kube-system", "uimgacc-leases"];
        !stage.object(&job).is_null()
    });
    let set = stage.object(&["ds", "-n", "kube-system", "uimgacc-node"]);
    assert!(!set.is_null(), "the installer goes after it");
    stage.end_job("one", "uimgacc-leases", 0, "Completed", "");
    stage.wait("one", "the object is gone", || cluster().is_null());
    assert!(
        stage
            .object(&["ds", "-n", "kube-system", "uimgacc-node"])
            .is_null()
    );
    assert_eq!(
        stage.cluster.kubectl_ok(&["get", "accnode", "-o", "name"]),
        ""
    );
    let jobs = ["get", "jobs", "-n", "kube-system", "-o", "name"];
    assert_eq!(stage.cluster.kubectl_ok(&jobs), "");
    // The image and what is in the store stay, and nothing keeps the definitions from going.
    let image = stage.image("app");
    assert_eq!(image["status"]["phase"], "Ready");
    assert!(image["metadata"]["finalizers"].is_null());
    let kinds = [
        "imageaccelerations",
        "acceleratedimages",
        "accelerationnodes",
    ];
    for kind in kinds {
        let name = format!("{kind}.uimgacc.io");
        stage
            .cluster
            .kubectl_ok(&["delete", "crd", &name, "--timeout=20s"]);
    }
}
