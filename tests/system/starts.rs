//! The first start of an image is recorded on one node, and read ahead on another.

use std::io::Read as _;

use base64::Engine as _;
use serde_json::{Value, json};
use uimgacc_testkit::containerd::ContainerdVersion;
use uimgacc_testkit::page_cache;

use crate::fixture::{ClusterFixture, LABELS, MINUTE, app, pod, ready, succeeded};

/// What the start reads of the image's larger files: some pages in the middle.
const SCRIPT: &str = "dd if=/data/noise-1 bs=4096 skip=100 count=16 2>/dev/null | wc -c";

#[test]
fn a_start_on_one_node_is_read_ahead_on_another() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1, ContainerdVersion::V1_7]);
    let cluster = &fixture.cluster;
    let (first, second) = (cluster.node(0).name(), cluster.node(1).name());
    fixture.enable(&[]);
    for node in [first, second] {
        fixture.wait_until("both nodes", 2 * MINUTE, || fixture.labels(node) == LABELS);
    }
    app(&fixture, "app:1", 1);
    fixture.create("app:1", "app:fast");
    assert_eq!(image(&fixture)["Profile"], Value::Null);

    // The record is made of what the page cache has after the start.
    let cache = page_cache::kept();
    run(&fixture, "recorded", first);
    fixture.wait_until("the image's profile", 2 * MINUTE, || {
        image(&fixture)["Profile"].is_object()
    });
    drop(cache);
    let profile = image(&fixture)["Profile"].clone();
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
    fixture.wait_until("the end of record and Job", MINUTE, || {
        let records = cluster.get(&["startrecords"]);
        let jobs = cluster.kubectl_ok(&["get", "jobs", "-n", "kube-system", "-o", "name"]);
        records["items"] == json!([]) && !jobs.contains("profiles")
    });
    let alone = start(&fixture, first);
    assert_eq!(alone["profile"], false, "{alone}");

    run(&fixture, "listed", second);
    fixture.wait_until("the other node's start", MINUTE, || {
        start(&fixture, second).is_object()
    });
    let listed = start(&fixture, second);
    println!("started by the list on {second}: {listed}");
    assert_eq!(listed["profile"], true, "{listed}");
    // The last page of a file is a part of one.
    let fetched = listed["fetchedBytes"].as_u64().unwrap();
    assert!((bytes - 8192..=bytes).contains(&fetched), "{listed}");
    assert!(listed["fetchedMs"].as_u64().unwrap() < 5000, "{listed}");
    fixture.assert_clean();
    foreign_records_are_refused(&fixture, second);
}

#[test]
fn create_starts_an_image_once_where_that_is_asked_for() {
    if !ready() {
        return;
    }
    let fixture = ClusterFixture::start(&[ContainerdVersion::V2_1]);
    fixture.enable(&[]);
    app(&fixture, "app:1", 1);
    let (original, target) = (fixture.reference("app:1"), fixture.reference("app:fast"));
    let command = format!("/bin/sh -c {SCRIPT:?}");
    let _cache = page_cache::kept();
    fixture.ok(&[
        "create",
        &original,
        &target,
        "--profile",
        &command,
        "--wait",
    ]);
    fixture.wait_until("the image's profile", 2 * MINUTE, || {
        image(&fixture)["Profile"].is_object()
    });
    let bytes = image(&fixture)["Profile"]["Bytes"].as_u64().unwrap();
    assert!((1_000_000..4_000_000).contains(&bytes), "{bytes}");
    fixture.wait_until("the end of the Job", MINUTE, || {
        let jobs = ["get", "jobs", "-n", "kube-system", "-o", "name"];
        !fixture.cluster.kubectl_ok(&jobs).contains("record")
    });
    let error = fixture.failed(&["create", &original, &target, "--profile", "true"], 1);
    assert!(error.contains("spec.profile"), "{error}");
}

/// Records that say what is not so, by somebody who may make such objects.
fn foreign_records_are_refused(fixture: &ClusterFixture, node: &str) {
    let cluster = &fixture.cluster;
    let before = image(fixture)["Profile"].clone();
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
        fixture.wait_until("the end of the record", MINUTE, || {
            cluster.get(&["startrecords"])["items"] == json!([])
        });
    }
    assert_eq!(image(fixture)["Profile"], before);
    fixture.assert_clean();
}

fn run(fixture: &ClusterFixture, name: &str, node: &str) {
    let target = fixture.reference("app:fast");
    fixture
        .cluster
        .apply(&pod(name, &target, Some(LABELS[0]), Some(node), SCRIPT));
    assert_eq!(succeeded(fixture, name), "65536\n");
}

fn image(fixture: &ClusterFixture) -> Value {
    fixture.json(&["get"])["Images"][0].clone()
}

/// How the node says that it started the only image.
fn start(fixture: &ClusterFixture, node: &str) -> Value {
    let node = fixture.cluster.get(&["accelerationnode", node]);
    let chains = node["status"]["chains"].as_array().unwrap();
    // It holds the chains of the image's lower layers too: these were never mounted.
    let mut starts = chains.iter().map(|chain| chain["start"].clone());
    starts.find(Value::is_object).unwrap_or_default()
}
