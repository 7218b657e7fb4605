//! `uimgacc-agent node` as the DaemonSet of a real cluster: our own image, a store in a folder of the
//! node, containerd and kubelet as they are. The test plays the controller.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; the times are told"
)]

mod stage;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use uimgacc_objects::names;
use uimgacc_testkit::cluster::Service;
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::image::Pushed;
use uimgacc_testkit::{Need, ready};
use uimgacc_types::ChainToken;

use stage::{MINUTE, PATIENCE, SELECTOR, Stage};

#[test]
fn a_node_from_its_installation_to_its_end() {
    let needs = [
        Need::Root,
        Need::Parts,
        Need::Kubernetes,
        Need::Filesystem("erofs"),
    ];
    if !ready(&needs) {
        return;
    }
    let began = Instant::now();
    let stage = Stage::build(ContainerdVersion::V2_1);
    let told = |what: &str| println!("{:?}: {what}", began.elapsed());
    told("cluster, store and image are there");
    let config = fs::read(stage.node().containerd_config()).unwrap();
    stage.run_pod("ordinary", &stage.plain);
    let ordinary = stage.container("ordinary");

    rolls_back(&stage, &config);
    told("rolled back");
    installs(&stage, &config);
    told("installed");
    hands_volumes_over(&stage);
    told("a volume was handed to the host");
    assert_eq!(stage.container("ordinary"), ordinary);
    runs_from_the_store(&stage);
    told("a Pod runs from the store");
    outlives_the_pod(&stage);
    told("the Pod of the DaemonSet was replaced");
    follows_the_store(&stage);
    told("labels follow the store");
    releases(&stage);
    told("the chain was released");
    refuses_without_the_store(&stage);
    told("no pull without the store");
    uninstalls(&stage, &config);
    told("uninstalled");
    assert_eq!(stage.container("ordinary"), ordinary);
}

/// A containerd that does not come back has its former configuration, and is left alone.
fn rolls_back(stage: &Stage, config: &[u8]) {
    let bad = "/usr/local/sbin/restart-badly";
    let script = format!(
        "#!/bin/sh\necho restart >>/run/restarts\n\
         if grep -q proxy_plugins /etc/containerd/config.toml; then echo 'no such luck' >&2; exit 1; fi\n\
         exec {}\n",
        stage.node().restart_containerd_command().display()
    );
    fs::write(stage.node().path(bad), script).unwrap();
    stage.node().run(&["chmod", "755", bad]);
    stage.apply_daemon_set(bad);
    stage.wait_said("Installed", "False", "WaitsForRestart");
    assert_eq!(stage.said()["needsRestart"], true);
    assert_eq!(stage.said()["error"], json!(null));
    // A Node of this name that is gone was listed.
    stage.list_restarting(&["another"]);
    std::thread::sleep(Duration::from_secs(5));
    assert!(!stage.node().path("/run/restarts").exists());
    stage.may_restart(true);
    stage.wait_said("Ready", "False", "RolledBack");
    let said = stage.said();
    assert_eq!(said["needsRestart"], false);
    let error = said["error"].as_str().unwrap();
    assert!(error.contains("no such luck"), "{error}");
    assert!(error.contains("delete this node's Pod"), "{error}");
    assert_eq!(fs::read(stage.node().containerd_config()).unwrap(), config);
    assert!(stage.labels().is_empty());
    let restarts = || fs::read_to_string(stage.node().path("/run/restarts")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(restarts(), "restart\nrestart\n", "there, and back");
    stage.may_restart(false);
}

fn installs(stage: &Stage, config: &[u8]) {
    let (node, cluster) = (stage.node(), &stage.cluster);
    let containerd = node.pid(Service::Containerd);
    // Another Pod, which tries again.
    stage.apply_daemon_set(&node.restart_containerd_command().display().to_string());
    stage.wait_said("Installed", "False", "WaitsForRestart");
    assert_eq!(fs::read(node.containerd_config()).unwrap(), config);
    assert_eq!(node.pid(Service::Containerd), containerd, "not asked yet");
    let object = cluster.get(&["accelerationnode", node.name()]);
    let owner = &object["metadata"]["ownerReferences"][0];
    let uid = &cluster.get(&["node", node.name()])["metadata"]["uid"];
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Node"), uid));

    stage.may_restart(true);
    stage.wait_said("Ready", "True", "Ready");
    stage.may_restart(false);
    assert_ne!(node.pid(Service::Containerd), containerd);
    assert_eq!(stage.labels(), ["true", "true"]);
    let said = stage.said();
    assert_eq!(stage.condition("Installed").0, "True");
    assert_eq!(stage.condition("StoreReachable").0, "True");
    assert_eq!(said["needsRestart"], false, "{said}");
    assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
    assert!(said["containerd"].as_str().unwrap().starts_with("2.1"));
    assert!(said["kernel"].is_string() && said["mountMethod"].is_string());
    let plugins = node.run(&["ctr", "plugins", "ls"]);
    let plugin = plugins.lines().find(|line| line.contains(" uimgacc "));
    assert!(
        plugin.is_some_and(|line| line.trim_end().ends_with("ok")),
        "{plugins}"
    );
}

/// A volume of a Pod, as the claim that is the store, stays with the host when the Pod is gone.
fn hands_volumes_over(stage: &Stage) {
    let node = stage.node();
    let there = node.path("/run/attached");
    stage.run_on_host(
        "attaches",
        &["--attach", "/store", "/run/attached"],
        "echo kept >/run/attached/file",
    );
    assert_eq!(fs::read_to_string(there.join("file")).unwrap(), "kept\n");
    let mounts = |text: String| text.matches(" /run/attached ").count();
    assert_eq!(mounts(node.mounts()), 1);
    // Another Pod has another volume.
    stage.run_on_host("again", &["--attach", "/store", "/run/attached"], "true");
    assert!(!there.join("file").exists());
    assert_eq!(mounts(node.mounts()), 1);
    stage.run_on_host("detaches", &["--detach", "/run/attached"], "true");
    assert!(!there.exists());
    assert_eq!(mounts(node.mounts()), 0);
}

/// What the node's object has in place of the image's chain ID.
fn token(image: &Pushed) -> String {
    let chain = image.chain_id().parse().unwrap();
    ChainToken::of(chain).to_string()
}

fn runs_from_the_store(stage: &Stage) {
    let before = stage.layer_downloads();
    stage.run_pod("fast", &stage.target);
    assert_eq!(stage.layer_downloads(), before, "no layer was downloaded");
    let words = ["exec", "fast", "--", "/bin/wc", "-c", "/data"];
    let said = stage.cluster.kubectl_ok(&words);
    assert_eq!(said.split(' ').next(), Some("1200000"), "{said}");
    assert!(stage.node().mounts().contains(" - erofs "));
    let chain = token(&stage.original);
    stage.cluster.wait_until("the chain is told", MINUTE, || {
        stage.held().contains(&(chain.clone(), 1))
    });
    // Everybody with the role `view` may read this object.
    let said = stage.said().to_string();
    for layer in &stage.original.layers {
        let hex = layer.chain_id.trim_start_matches("sha256:");
        assert!(!said.contains(hex), "{hex} in {said}");
    }
}

/// Neither the daemon nor a container ends with the Pod, and the labels stay.
fn outlives_the_pod(stage: &Stage) {
    let (supervisor, container) = (stage.supervisor(), stage.container("fast"));
    let cgroups = stage
        .node()
        .run(&["cat", &format!("/proc/{supervisor}/cgroup")]);
    assert!(!cgroups.contains("pod"), "{cgroups}");
    let name = || {
        let words = ["pods", "-n", names::NAMESPACE, "-l", SELECTOR];
        let pods = stage.cluster.get(&words);
        pods["items"][0]["metadata"]["name"].clone()
    };
    let old = name();
    let began = Instant::now();
    let words = [
        "delete",
        "pod",
        "-n",
        names::NAMESPACE,
        old.as_str().unwrap(),
    ];
    stage.cluster.kubectl_ok(&words);
    println!("the Pod ended after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "it ends quickly");
    while began.elapsed() < PATIENCE * 2 {
        assert_eq!(stage.labels(), ["true", "true"]);
        std::thread::sleep(Duration::from_millis(200));
    }
    stage
        .cluster
        .wait_until("there is another Pod", MINUTE, || {
            let new = name();
            new != old && new.is_string()
        });
    assert_eq!(stage.supervisor(), supervisor);
    assert_eq!(stage.container("fast"), container);
    assert_eq!(stage.condition("Ready").0, "True");
}

/// A store that is away for long takes the labels, and brings them back.
fn follows_the_store(stage: &Stage) {
    let away = stage.store().with_extension("away");
    fs::rename(stage.store(), &away).unwrap();
    stage.wait_said("StoreReachable", "False", "Unreachable");
    assert_eq!(stage.labels().len(), 2, "a blip is none of theirs");
    stage.wait_labels(0);
    stage.wait_said("Ready", "False", "StoreUnreachable");
    assert!(stage.said()["error"].is_string());
    fs::rename(&away, stage.store()).unwrap();
    stage.wait_labels(2);
    stage.wait_said("Ready", "True", "Ready");
    assert_eq!(stage.said()["error"], json!(null));
}

fn releases(stage: &Stage) {
    let chain = token(&stage.original);
    stage.ask(&json!({"release": [chain]}));
    std::thread::sleep(Duration::from_secs(8));
    let holds = || stage.held().iter().any(|(one, _)| *one == chain);
    assert!(holds(), "a container uses it");
    stage.container("fast");
    stage.delete_pod("fast");
    stage
        .cluster
        .wait_until("the chain is given back", MINUTE, || !holds());
    let images = stage
        .node()
        .run(&["ctr", "--namespace=k8s.io", "images", "ls", "-q"]);
    assert!(!images.contains("app:fast"), "{images}");
    assert!(images.contains("plain:1"), "{images}");
    stage.ask(&json!({"release": []}));
}

/// With `fallback: Fail` a target image is not pulled while the store is away.
fn refuses_without_the_store(stage: &Stage) {
    let before = stage.layer_downloads();
    let away = stage.store().with_extension("away");
    fs::rename(stage.store(), &away).unwrap();
    stage.wait_said("StoreReachable", "False", "Unreachable");
    stage.start_pod("refused", &stage.target);
    stage.cluster.wait_until("the pull is refused", MINUTE, || {
        let pod = stage.cluster.get(&["pod", "refused"]);
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        message.contains("`fallback` says not to pull")
    });
    fs::rename(&away, stage.store()).unwrap();
    stage.wait_pod("refused");
    assert_eq!(stage.layer_downloads(), before);
    stage.delete_pod("refused");
    stage.wait_said("Ready", "True", "Ready");
}

fn uninstalls(stage: &Stage, config: &[u8]) {
    let node = stage.node();
    stage.run_pod("last", &stage.target);
    let container = stage.container("last");
    stage.ask(&json!({"uninstall": true}));
    stage.wait_said("Ready", "False", "Uninstalling");
    stage.wait_labels(0);
    std::thread::sleep(Duration::from_secs(5));
    assert_ne!(
        fs::read(node.containerd_config()).unwrap(),
        config,
        "it is not listed yet"
    );
    stage.may_restart(true);
    stage.wait_said("Installed", "False", "Uninstalled");
    assert!(stage.labels().is_empty());
    assert_eq!(fs::read(node.containerd_config()).unwrap(), config);
    assert_eq!(stage.container("last"), container);
    let words = ["exec", "last", "--", "/bin/wc", "-c", "/data"];
    let said = stage.cluster.kubectl_ok(&words);
    assert_eq!(said.split(' ').next(), Some("1200000"), "{said}");
    for gone in [
        "/usr/local/bin/uimgacc",
        "/usr/local/bin/uimgacc-snapshotter",
        "/etc/uimgacc",
        "/run/uimgacc",
        "/var/log/uimgacc-snapshotter.log",
    ] {
        assert!(!node.path(gone).exists(), "{gone}");
    }
    let processes = node.run(&["ps", "ax", "-o", "args"]);
    assert!(!processes.contains("uimgacc-snapshotter"), "{processes}");
    // The node does not count on an image whose layers it never had.
    stage.run_pod_if_not_present("anew", &stage.target);
    stage.delete_pod("anew");
    // What containers use, the Pod of the DaemonSet among them, goes once nobody does.
    assert!(node.path("/var/lib/uimgacc/snapshots").exists());
    stage.delete_pod("last");
    let words = ["delete", "daemonset", names::NODE, "-n", names::NAMESPACE];
    stage.cluster.kubectl_ok(&words);
    stage.cluster.wait_until("the data are gone", MINUTE, || {
        !node.path("/var/lib/uimgacc").exists()
    });
    assert!(
        !node.mounts().contains("/var/lib/uimgacc"),
        "{}",
        node.mounts()
    );
    let processes = node.run(&["ps", "ax", "-o", "args"]);
    assert!(!processes.contains("uimgacc node"), "{processes}");
    // The image is pulled as ever.
    stage.run_pod("after", &stage.target);
    stage.container("after");
    assert!(stage.layer_downloads() > 0);
}
