//! The first start of an image is recorded on one node, and read ahead on another.

use std::io::Read as _;

use base64::Engine as _;
use serde_json::{Value, json};
use uimgacc_testkit::containerd::ContainerdVersion;

use crate::world::{LABELS, MINUTE, World, app, pod, ready, succeeded};

/// What the start reads of the image's larger files: some pages in the middle.
const SCRIPT: &str = "dd if=/data/noise-1 bs=4096 skip=100 count=16 2>/dev/null | wc -c";

#[test]
fn a_start_on_one_node_is_read_ahead_on_another() {
    if !ready() {
        return;
    }
    let world = World::start(&[ContainerdVersion::V2_1, ContainerdVersion::V1_7]);
    let cluster = &world.cluster;
    let (first, second) = (cluster.node(0).name(), cluster.node(1).name());
    world.enable(&[]);
    for node in [first, second] {
        world.wait_until("both nodes", 2 * MINUTE, || world.labels(node) == LABELS);
    }
    app(&world, "app:1", 1);
    world.create("app:1", "app:fast");
    assert_eq!(image(&world)["Profile"], Value::Null);

    run(&world, "recorded", first);
    world.wait_until("the image's profile", MINUTE, || {
        image(&world)["Profile"].is_object()
    });
    let profile = image(&world)["Profile"].clone();
    println!("recorded on {first}: {profile}");
    assert_eq!(profile["Starts"], 1);
    assert_eq!(
        profile["Origin"],
        format!("the first start on node {first}")
    );
    // busybox and the part of a file: not all of the image.
    let bytes = profile["Bytes"].as_u64().unwrap();
    assert!((1_000_000..4_000_000).contains(&bytes), "{profile}");
    // Nothing is left lying about.
    world.wait_until("the end of record and Job", MINUTE, || {
        let records = cluster.get(&["startrecords"]);
        let jobs = cluster.kubectl_ok(&["get", "jobs", "-n", "kube-system", "-o", "name"]);
        records["items"] == json!([]) && !jobs.contains("profiles")
    });
    let alone = start(&world, first);
    assert_eq!(alone["profile"], false, "{alone}");

    run(&world, "listed", second);
    world.wait_until("the other node's start", MINUTE, || {
        start(&world, second).is_object()
    });
    let listed = start(&world, second);
    println!("started by the list on {second}: {listed}");
    assert_eq!(listed["profile"], true, "{listed}");
    // The last page of a file is a part of one.
    let fetched = listed["fetchedBytes"].as_u64().unwrap();
    assert!((bytes - 8192..=bytes).contains(&fetched), "{listed}");
    assert!(listed["fetchedMs"].as_u64().unwrap() < 5000, "{listed}");
    world.assert_clean();
    foreign_records_are_refused(&world, second);
}

#[test]
fn create_starts_an_image_once_where_that_is_asked_for() {
    if !ready() {
        return;
    }
    let world = World::start(&[ContainerdVersion::V2_1]);
    world.enable(&[]);
    app(&world, "app:1", 1);
    let (original, target) = (world.reference("app:1"), world.reference("app:fast"));
    let command = format!("/bin/sh -c {SCRIPT:?}");
    world.ok(&[
        "create",
        &original,
        &target,
        "--profile",
        &command,
        "--wait",
    ]);
    world.wait_until("the image's profile", 2 * MINUTE, || {
        image(&world)["Profile"].is_object()
    });
    let bytes = image(&world)["Profile"]["Bytes"].as_u64().unwrap();
    assert!((1_000_000..4_000_000).contains(&bytes), "{bytes}");
    world.wait_until("the end of the Job", MINUTE, || {
        let jobs = ["get", "jobs", "-n", "kube-system", "-o", "name"];
        !world.cluster.kubectl_ok(&jobs).contains("record")
    });
    let error = world.failed(&["create", &original, &target, "--profile", "true"], 1);
    assert!(error.contains("spec.profile"), "{error}");
}

/// Records that say what is not so, by somebody who may make such objects.
fn foreign_records_are_refused(world: &World, node: &str) {
    let cluster = &world.cluster;
    let before = image(world)["Profile"].clone();
    let images = cluster.get(&["acceleratedimages"]);
    let token = images["items"][0]["status"]["chainToken"].as_str().unwrap();
    let other = format!("chain:{}", "a".repeat(64));
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(1 << 30), 1).unwrap();
    let bomb = base64::engine::general_purpose::STANDARD.encode(bomb);
    for (token, node, reads) in [
        (token, node, "bm9uc2Vuc2U="),
        (token, node, bomb.as_str()),
        (token, node, "!"),
        (token, "nobody", "bm9uc2Vuc2U="),
        (&other, node, "bm9uc2Vuc2U="),
    ] {
        let name = token.trim_start_matches("chain:");
        cluster.apply(
            &json!({
                "apiVersion": "uimgacc.io/v1",
                "kind": "StartRecord",
                "metadata": {"name": name},
                "spec": {"node": node, "chainToken": token, "reads": reads},
            })
            .to_string(),
        );
        world.wait_until("the end of the record", MINUTE, || {
            cluster.get(&["startrecords"])["items"] == json!([])
        });
    }
    assert_eq!(image(world)["Profile"], before);
    world.assert_clean();
}

fn run(world: &World, name: &str, node: &str) {
    let target = world.reference("app:fast");
    world
        .cluster
        .apply(&pod(name, &target, Some(LABELS[0]), Some(node), SCRIPT));
    assert_eq!(succeeded(world, name), "65536\n");
}

fn image(world: &World) -> Value {
    world.json(&["get"])["Images"][0].clone()
}

/// How the node says that it started the only image.
fn start(world: &World, node: &str) -> Value {
    let node = world.cluster.get(&["accelerationnode", node]);
    let chains = node["status"]["chains"].as_array().unwrap();
    // It holds the chains of the image's lower layers too: these were never mounted.
    let mut starts = chains.iter().map(|chain| chain["start"].clone());
    starts.find(Value::is_object).unwrap_or_default()
}
