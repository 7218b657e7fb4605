//! The five verbs from a bare cluster to a bare cluster.

use std::time::Instant;

use uimgacc_testkit::cluster::Service;
use uimgacc_testkit::containerd::ContainerdVersion;

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app, derived, file, pod, ready, succeeded};

#[test]
fn from_a_bare_cluster_and_back() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1, ContainerdVersion::V1_7]);
    let cluster = &fixture.cluster;
    let (first, second) = (cluster.node(0), cluster.node(1));
    cluster.kubectl_ok(&["label", "node", first.name(), "accelerate=yes"]);
    let configs: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| file(&node.containerd_config()))
        .collect();
    let original = app(&fixture, "app:1", 1);

    // An ordinary Pod that must never stop.
    let busy = "while :; do sleep 1; done";
    cluster.apply(&pod(
        "ordinary",
        &original.reference,
        None,
        Some(first.name()),
        busy,
    ));
    cluster.wait("condition=Ready", &["pod/ordinary"], MINUTE);

    let took = fixture.enable(&["--node-selector", "accelerate=yes"]);
    println!("enabled after {took:?}");
    assert!(took < MINUTE, "{took:?}");
    assert_eq!(fixture.labels(first.name()), LABELS);
    assert_eq!(fixture.labels(second.name()), Vec::<String>::new());
    // Again: nothing changes, containerd is not restarted.
    let process = first.pid(Service::Containerd);
    fixture.enable(&["--node-selector", "accelerate=yes"]);
    assert_eq!(first.pid(Service::Containerd), process);

    fixture.create("app:1", "app:fast");
    let state = fixture.json(&["get"]);
    assert_eq!(state["Status"], "Ready", "{state}");
    assert_eq!(
        state["Images"][0]["TargetImage"],
        fixture.reference("app:fast")
    );
    assert_eq!(state["Images"][0]["Layers"], 4);
    fixture.assert_clean();

    // Either label leads to the node; no layer is sent.
    let target = fixture.reference("app:fast");
    for (number, label) in LABELS.iter().enumerate() {
        let since = cluster.registry().log().len();
        let name = format!("fast-{number}");
        cluster.apply(&pod(&name, &target, Some(label), None, "cat /data/name-2"));
        assert_eq!(succeeded(&fixture, &name), "app:1\n");
        let on = cluster.get(&["pod", &name]);
        assert_eq!(on["spec"]["nodeName"], first.name());
        assert!(!fixture.layers_sent(&original, since), "{label}");
    }
    // On a node without the plugin the same image runs by an ordinary pull.
    let since = cluster.registry().log().len();
    cluster.apply(&pod(
        "plain",
        &target,
        None,
        Some(second.name()),
        "cat /data/name-1",
    ));
    assert_eq!(succeeded(&fixture, "plain"), "app:1\n");
    assert!(fixture.layers_sent(&original, since));

    // A node that joins is set up by itself.
    cluster.kubectl_ok(&["label", "node", second.name(), "accelerate=yes"]);
    cluster.wait_until("the second node's labels", 2 * MINUTE, || {
        fixture.labels(second.name()) == LABELS
    });
    app(&fixture, "other:1", 2);
    fixture.create("other:1", "other:fast");
    let other = fixture.reference("other:fast");
    cluster.apply(&pod(
        "joined",
        &other,
        Some(LABELS[0]),
        Some(second.name()),
        "cat /data/name-0",
    ));
    assert_eq!(succeeded(&fixture, "joined"), "other:1\n");

    delete_is_refused_while_a_pod_runs(&fixture);
    a_base_goes_while_what_lies_on_it_is_used(&fixture);
    a_node_that_leaves_the_selector_is_as_before(&fixture, configs[1].as_deref());
    disable_leaves_nothing(&fixture, &configs);
}

fn delete_is_refused_while_a_pod_runs(fixture: &ClusterFixture) {
    let cluster = &fixture.cluster;
    let target = fixture.reference("other:fast");
    let node = cluster.node(1).name();
    cluster.apply(&pod(
        "holder",
        &target,
        Some(LABELS[1]),
        Some(node),
        "sleep 600",
    ));
    cluster.wait("condition=Ready", &["pod/holder"], MINUTE);
    let before = fixture.store_bytes();
    let message = fixture.failed(&["delete", &target, "--wait"], 4);
    assert!(
        message.contains("holder") && message.contains(node),
        "{message}"
    );
    // By kubectl it stays asked for: the object says who is in the way, and goes by itself.
    let images = cluster.get(&["acceleratedimages"]);
    let name = images["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|image| image["spec"]["targetImage"] == target.as_str())
        .unwrap()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    cluster.kubectl_ok(&["delete", "acceleratedimage", &name, "--wait=false"]);
    cluster.wait_until("the reason", MINUTE, || {
        cluster
            .kubectl_ok(&["describe", "acceleratedimage", &name])
            .contains("default/holder on")
    });
    cluster.kubectl_ok(&["delete", "pod", "holder", "joined", "--wait"]);
    cluster.wait_until("the image's end", 5 * MINUTE, || {
        cluster.get(&["acceleratedimages"])["items"]
            .as_array()
            .unwrap()
            .len()
            == 1
    });
    let freed = before - fixture.store_bytes();
    assert!(freed > 4_000_000, "{freed} bytes were freed");
    fixture.assert_clean();
}

fn a_base_goes_while_what_lies_on_it_is_used(fixture: &ClusterFixture) {
    let cluster = &fixture.cluster;
    let before = fixture.store_bytes();
    app(fixture, "base:1", 3);
    derived(fixture, "derived:1", "base:1", 3);
    fixture.create("base:1", "base:fast");
    fixture.create("derived:1", "derived:fast");
    let target = fixture.reference("derived:fast");
    cluster.apply(&pod("derived", &target, Some(LABELS[0]), None, "sleep 600"));
    cluster.wait("condition=Ready", &["pod/derived"], MINUTE);
    let started = Instant::now();
    fixture.ok(&["delete", &fixture.reference("base:fast")]);
    println!("a base was deleted after {:?}", started.elapsed());
    for (file, content) in [("name-0", "base:1\n"), ("derived", "derived:1\n")] {
        let words = [
            "exec",
            "derived",
            "--",
            "/bin/cat",
            &format!("/data/{file}"),
        ];
        assert_eq!(cluster.kubectl_ok(&words), content);
    }
    assert!(
        fixture.store_bytes() > before + 4_000_000,
        "it is needed still"
    );
    cluster.kubectl_ok(&["delete", "pod", "derived", "--wait"]);
    fixture.ok(&["delete", &target]);
    let left = fixture.store_bytes();
    // Directories stay: 4096 bytes for each of the two digits that a name began with.
    assert!(
        left < before + 200_000,
        "{before} bytes before, {left} after"
    );
    fixture.assert_clean();
}

fn a_node_that_leaves_the_selector_is_as_before(fixture: &ClusterFixture, config: Option<&[u8]>) {
    let cluster = &fixture.cluster;
    let (first, node) = (cluster.node(0), cluster.node(1));
    let target = fixture.reference("app:fast");
    let (image, on) = (target.as_str(), Some(node.name()));
    cluster.apply(&pod("stays", image, Some(LABELS[0]), on, "sleep 600"));
    cluster.wait("condition=Ready", &["pod/stays"], MINUTE);
    cluster.kubectl_ok(&["label", "node", node.name(), "accelerate-"]);
    cluster.wait_until("the end of its labels", MINUTE, || {
        fixture.labels(node.name()).is_empty()
    });
    cluster.wait_until("the reason", MINUTE, || {
        let get = ["get", "accelerationnode", node.name()];
        cluster.kubectl_ok(&get).contains("NotSelected")
    });
    // What the Pod reads stays, for longer than a look takes.
    std::thread::sleep(std::time::Duration::from_secs(15));
    assert!(node.mounts().contains(" - erofs "));
    assert_ne!(file(&node.containerd_config()).as_deref(), config);
    let stays = cluster.get(&["pod", "stays"]);
    assert_eq!(stays["status"]["phase"], "Running", "{stays}");
    cluster.kubectl_ok(&["delete", "pod", "stays", "--wait"]);
    cluster.wait_until("the end of its object", 3 * MINUTE, || {
        let all = cluster.kubectl_ok(&["get", "accelerationnodes", "-o", "name"]);
        !all.contains(node.name())
    });
    assert_eq!(file(&node.containerd_config()).as_deref(), config);
    assert!(!node.mounts().contains(" - erofs "));
    let left = cluster.get(&["node", node.name()]);
    let labels = left["metadata"]["labels"].to_string();
    assert!(!labels.contains("uimgacc"), "{labels}");
    assert_eq!(fixture.labels(first.name()), LABELS);
    assert_eq!(fixture.json(&["get"])["Status"], "Ready");
    // And back again.
    cluster.kubectl_ok(&["label", "node", node.name(), "accelerate=yes"]);
    cluster.wait_until("its labels once more", 2 * MINUTE, || {
        fixture.labels(node.name()) == LABELS
    });
}

fn disable_leaves_nothing(fixture: &ClusterFixture, configs: &[Option<Vec<u8>>]) {
    let cluster = &fixture.cluster;
    let target = fixture.reference("app:fast");
    cluster.apply(&pod("holder", &target, Some(LABELS[1]), None, "sleep 600"));
    cluster.wait("condition=Ready", &["pod/holder"], MINUTE);
    let message = fixture.failed(&["disable"], 4);
    assert!(message.contains("holder"), "{message}");
    assert_eq!(fixture.labels(cluster.node(0).name()), LABELS);
    cluster.kubectl_ok(&["delete", "pod", "holder", "fast-0", "fast-1", "--wait"]);
    assert!(!fixture.leases_of_nodes().is_empty(), "{}", fixture.dump());
    fixture.ok(&["disable", "--purge", "--timeout", "600"]);
    assert_eq!(fixture.leases_of_nodes(), Vec::<String>::new());
    for (node, config) in cluster.nodes().iter().zip(configs) {
        let name = node.name();
        assert_eq!(&file(&node.containerd_config()), config, "{name}");
        assert_eq!(fixture.labels(name), Vec::<String>::new(), "{name}");
        let mounts = node.mounts();
        assert!(!mounts.contains(" - erofs "), "{name}: {mounts}");
        for left in [
            "/usr/local/bin/uimgacc",
            "/usr/local/bin/uimgacc-snapshotter",
            "/var/lib/uimgacc",
            "/run/uimgacc",
        ] {
            assert!(!node.path(left).exists(), "{name}: {left}");
        }
    }
    // The API server takes definitions away after it has said so.
    cluster.wait_until("that no object is left", MINUTE, || {
        let objects = cluster.kubectl_ok(&[
            "get",
            "crds,deployments,daemonsets,jobs,serviceaccounts,clusterroles,secrets,validatingadmissionpolicies,validatingadmissionpolicybindings",
            "-A",
            "-o",
            "name",
        ]);
        !objects.contains("uimgacc")
    });
    let ordinary = cluster.get(&["pod", "ordinary"]);
    assert_eq!(
        ordinary["status"]["containerStatuses"][0]["restartCount"],
        0
    );
    assert!(ordinary["status"]["containerStatuses"][0]["state"]["running"].is_object());
}
