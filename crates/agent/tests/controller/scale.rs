//! A thousand images and a thousand nodes: memory, and load on the API server.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uimgacc_testkit::ready;

use super::audit::Audit;
use super::stage::{NEEDS, Stage, http, node_condition, result};

const COUNT: usize = 1000;
const CHAINS_A_NODE: usize = 30;

fn chain(index: usize) -> String {
    format!("sha256:{index:064x}")
}

/// Objects by the file, with statuses by the API (`kubectl` takes none with `create`).
fn create(stage: &Stage, objects: &[Value]) {
    let file = stage.cluster.dir().join("objects.json");
    for part in objects.chunks(250) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": part});
        fs::write(&file, list.to_string()).unwrap();
        stage
            .cluster
            .kubectl_ok(&["create", "-f", file.to_str().unwrap()]);
    }
}

/// Writes statuses through one `curl`: a thousand processes of kubectl would take minutes.
fn statuses(stage: &Stage, plural: &str, statuses: &[(String, Value)]) {
    let config: Value = serde_json::from_str(
        &stage
            .cluster
            .kubectl_ok(&["config", "view", "--raw", "-o", "json"]),
    )
    .unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    let token = stage
        .cluster
        .kubectl_ok(&["create", "token", "tester", "-n", "kube-system"]);
    let mut script = String::new();
    for (name, status) in statuses {
        let body = json!({"status": status}).to_string().replace('"', "\\\"");
        let _ = write!(
            script,
            "next\nurl = \"{server}/apis/uimgacc.io/v1/{plural}/{name}/status\"\nrequest = PATCH\ninsecure\nsilent\nfail\n\
             output = /dev/null\nheader = \"Authorization: Bearer {}\"\nheader = \"Content-Type: application/merge-patch+json\"\ndata = \"{body}\"\n",
            token.trim()
        );
    }
    let file = stage.cluster.dir().join("curl.conf");
    fs::write(&file, script).unwrap();
    let output = Command::new("curl")
        .args(["--fail-early", "-K"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Resident bytes of a process, now and at most.
fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[test]
fn a_thousand_images_and_nodes() {
    if !ready(&NEEDS) {
        return;
    }
    let audit = Audit::new();
    let stage = Stage::start_with(audit.args());
    stage
        .cluster
        .kubectl_ok(&["create", "serviceaccount", "tester", "-n", "kube-system"]);
    stage.cluster.kubectl_ok(&[
        "create",
        "clusterrolebinding",
        "tester",
        "--clusterrole=cluster-admin",
        "--serviceaccount=kube-system:tester",
    ]);
    let nodes: Vec<Value> = (0..COUNT)
        .flat_map(|index| {
            let name = format!("node-{index}");
            let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/hostname": name});
            [
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}),
                json!({"apiVersion": "uimgacc.io/v1", "kind": "AccelerationNode", "metadata": {"name": name}, "spec": {}}),
            ]
        })
        .collect();
    let begun = Instant::now();
    create(&stage, &nodes);
    let conditions = json!([
        node_condition("Ready", true, "Ready"),
        node_condition("Installed", true, "Installed"),
        node_condition("StoreReachable", true, "Reachable"),
    ]);
    let says: Vec<(String, Value)> = (0..COUNT)
        .map(|index| {
            let chains: Vec<Value> = (0..CHAINS_A_NODE)
                .map(|one| json!({"token": chain((index + one * 37) % COUNT), "containers": 0}))
                .collect();
            let status = json!({"version": "0.1.0", "kernel": "6.18.44", "chains": chains, "conditions": conditions});
            (format!("node-{index}"), status)
        })
        .collect();
    statuses(&stage, "accelerationnodes", &says);
    let images: Vec<Value> = (0..COUNT)
        .map(|index| {
            json!({"apiVersion": "uimgacc.io/v1", "kind": "AcceleratedImage", "metadata": {"name": format!("image-{index}")},
                "spec": {"originalImage": format!("registry.example/team/app-{index}:1.0"),
                    "targetImage": format!("registry.example/team/app-{index}:1.0-fast")}})
        })
        .collect();
    create(&stage, &images);
    let results: Vec<(String, Value)> = (0..COUNT)
        .map(|index| {
            let mut status = result(&chain(index));
            status["phase"] = json!("Ready");
            (format!("image-{index}"), status)
        })
        .collect();
    statuses(&stage, "acceleratedimages", &results);
    println!("objects made in {:?}", begun.elapsed());

    let begun = Instant::now();
    let agent = stage.agent("one");
    stage.enable("one");
    stage.wait_for(
        "one",
        "all are reconciled",
        Duration::from_secs(300),
        || {
            let metrics = http(agent.port, "/metrics").1;
            let has = |line: &str| metrics.lines().any(|one| one == line);
            has("uimgacc_controller_images{phase=\"Ready\"} 1000")
                && has("uimgacc_controller_nodes{kind=\"total\"} 1000")
                && has("uimgacc_controller_queue_length 0")
        },
    );
    println!("a new controller reconciled all in {:?}", begun.elapsed());
    stage.wait("one", "each image has its finalizer and conditions", || {
        let images = stage.object(&["accimg"]);
        let images = images["items"].as_array().unwrap();
        images.iter().all(|one| {
            !one["metadata"]["finalizers"].is_null() && !one["status"]["conditions"].is_null()
        })
    });
    let counts = audit.counts(0);
    println!("requests until all was reconciled: {counts:?}");
    // A status and a finalizer for each image; pages of lists; one watch for each kind.
    assert_eq!(counts["patch acceleratedimages/status"], COUNT);
    assert_eq!(counts["patch acceleratedimages"], COUNT);
    let reads: usize = counts
        .iter()
        .filter(|(what, _)| what.starts_with("list ") || what.starts_with("get "))
        .map(|(_, count)| count)
        .sum();
    assert!(reads <= 40, "{counts:?}");

    // In rest the lease is renewed, twice a second in this test, and nothing else is asked.
    std::thread::sleep(Duration::from_secs(3));
    let before = audit.requests().len();
    std::thread::sleep(Duration::from_secs(20));
    let counts = audit.counts(before);
    println!("requests in 20 s of rest: {counts:?}");
    let others = counts.keys().filter(|what| *what != "update leases");
    assert_eq!(others.count(), 0, "{counts:?}");
    let before = audit.requests().len();
    all_are_deleted_at_once(&stage);
    let counts = audit.counts(before);
    println!("requests of the deletion: {counts:?}");
    assert_eq!(counts["patch acceleratedimages/status"], COUNT);
    // Far fewer than one for each image and node: 30,000.
    assert!(
        counts["patch accelerationnodes"] <= 10 * COUNT,
        "{counts:?}"
    );
    let (resident, peak) = memory(agent.process.pid());
    println!("memory: {} MB, at most {} MB", resident >> 20, peak >> 20);
    assert!(peak < 200 << 20, "{peak} bytes");
    let begun = Instant::now();
    stage.object(&["accimg"]);
    println!(
        "kubectl get accimg -o json of {COUNT} took {:?}",
        begun.elapsed()
    );
}

/// Every node is asked for all that it has, in few writes.
fn all_are_deleted_at_once(stage: &Stage) {
    let begun = Instant::now();
    stage
        .cluster
        .kubectl_ok(&["delete", "accimg", "--all", "--wait=false"]);
    println!("deletion asked for in {:?}", begun.elapsed());
    stage.wait_for(
        "one",
        "all nodes are asked",
        Duration::from_secs(300),
        || {
            // One answer has some megabytes.
            std::thread::sleep(Duration::from_secs(1));
            let nodes = stage.object(&["accnode"]);
            let asked = |node: &Value| node["spec"]["release"].as_array().map_or(0, Vec::len);
            nodes["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|node| asked(node) == CHAINS_A_NODE)
        },
    );
    stage.wait("one", "all images say so", || {
        let images = stage.object(&["accimg"]);
        images["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|image| image["status"]["phase"] == "Deleting")
    });
    println!(
        "all nodes were asked {:?} after the beginning",
        begun.elapsed()
    );
}
