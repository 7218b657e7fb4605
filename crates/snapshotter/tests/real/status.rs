//! What the daemon says of itself.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uimgacc_testkit::hang::HangingFile;
use uimgacc_testkit::{Need, ready};
use uimgacc_types::{Digest, chain_ids};

use crate::client::Client;
use crate::daemon::{Snapshotter, WITHOUT_MOUNTING};
use crate::remote::eventually;
use crate::store_maker::{Layer, StoreMaker};

/// The body of `GET path`.
fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn status(snapshotter: &Snapshotter) -> Value {
    serde_json::from_str(&get(&snapshotter.status_socket(), "/status")).unwrap()
}

#[test]
fn the_status_names_method_store_and_chains() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    let diff_ids = ["a", "b"].map(|seed| Digest::of(seed.as_bytes()).to_string());
    let layers = [
        Layer::new(&diff_ids[0]).file("a", 0o644, b"a"),
        Layer::new(&diff_ids[1]).file("b", 0o644, b"b"),
    ];
    store.add(&layers);
    let parsed = diff_ids.each_ref().map(|text| text.parse().unwrap());
    let chains: Vec<String> = chain_ids(&parsed).iter().map(ToString::to_string).collect();
    let mut snapshotter = Snapshotter::start(store.path(), &["--methods", "file,loop"]);
    let client = Client::connect(&snapshotter.socket());
    let socket = snapshotter.status_socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(get(&socket, "/healthz"), "ok\n");
    eventually("the first looks", || {
        let status = status(&snapshotter);
        status["mountMethod"] == "file" && status["store"]["reachable"] == true
    });
    assert!(client.has_layer(&chains[0], "", &[]));
    assert!(client.has_layer(&chains[1], &chains[0], &[]));
    client.prepare("c1", &chains[1]).unwrap();
    client.prepare("c2", &chains[1]).unwrap();
    client.commit("on top", "c2").unwrap();
    client.prepare("c3", "on top").unwrap();
    client.prepare("unrelated", "").unwrap();
    let mut expected_chains = vec![
        json!({"chainId": chains[0], "containers": 0}),
        json!({"chainId": chains[1], "containers": 2}),
    ];
    expected_chains.sort_by_key(|chain| chain["chainId"].to_string());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "kernel": kernel.trim(),
        "mountMethod": "file",
        "store": {
            "source": store.path(),
            "reachable": true,
            "error": null,
            "storeId": "0".repeat(32),
        },
        "chains": expected_chains,
    });
    let mut found = status(&snapshotter);
    // What was mounted here tells how; times differ.
    for chain in found["chains"].as_array_mut().unwrap() {
        let start = chain.as_object_mut().unwrap().remove("start").unwrap();
        assert_eq!(start.is_null(), chain["containers"] == 0, "{start}");
        assert!(start.is_null() || start["profile"] == false, "{start}");
    }
    assert_eq!(found, expected);

    let metrics = get(&socket, "/metrics");
    for line in [
        "uimgacc_snapshotter_requests_total{call=\"prepare\",code=\"AlreadyExists\"} 2",
        "uimgacc_snapshotter_requests_total{call=\"prepare\",code=\"Ok\"} 4",
        "uimgacc_snapshotter_request_seconds_count{call=\"prepare\"} 6",
        "uimgacc_snapshotter_mounts_total{method=\"file\"} 1",
        "uimgacc_snapshotter_chains 2",
        "uimgacc_snapshotter_store_reachable 1",
        "uimgacc_snapshotter_hung_calls 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    snapshotter.stop();
    assert!(!socket.exists());
}

#[test]
fn a_dead_store_and_a_node_that_cannot_mount_are_told_at_once() {
    if !ready(&[
        Need::Root,
        Need::Filesystem("erofs"),
        Need::Filesystem("fuse"),
    ]) {
        return;
    }
    let silent = tempfile::tempdir().unwrap();
    let record = silent.path().join("store.json");
    std::fs::write(&record, "").unwrap();
    let _hanging = HangingFile::at(&record);
    let snapshotter =
        Snapshotter::start(silent.path(), &["--store-timeout", "4", WITHOUT_MOUNTING]);
    eventually("that the store is late", || {
        let started = Instant::now();
        let status = status(&snapshotter);
        assert!(started.elapsed() < Duration::from_millis(3500));
        assert_eq!(status["mountMethod"], Value::Null);
        assert_eq!(status["store"]["reachable"], false);
        assert_eq!(status["store"]["storeId"], Value::Null);
        let error = status["store"]["error"].as_str();
        error.is_some_and(|error| error.contains("did not answer"))
    });
    let metrics = get(&snapshotter.status_socket(), "/metrics");
    assert!(
        metrics.contains("uimgacc_snapshotter_hung_calls 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("uimgacc_snapshotter_store_reachable 0"),
        "{metrics}"
    );
}
