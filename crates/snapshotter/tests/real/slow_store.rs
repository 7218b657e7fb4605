//! A store that hangs in the middle.

use std::time::{Duration, Instant};

use tonic::Code;
use uimgacc_testkit::hang::HangingFile;
use uimgacc_testkit::{Need, ready};
use uimgacc_types::{Digest, chain_ids};

use crate::client::Client;
use crate::daemon::Snapshotter;
use crate::remote::eventually;
use crate::store_maker::{Layer, StoreMaker};

fn image(seed: &str) -> (String, Layer) {
    let diff_id = Digest::of(seed.as_bytes()).to_string();
    let layer = Layer::new(&diff_id).file("file", 0o644, seed.as_bytes());
    let chain = chain_ids(&[diff_id.parse().unwrap()])[0].to_string();
    (chain, layer)
}

#[test]
fn one_hanging_mount_holds_up_nothing_else() {
    if !ready(&[
        Need::Root,
        Need::Filesystem("erofs"),
        Need::Filesystem("fuse"),
    ]) {
        return;
    }
    let store = StoreMaker::new();
    let (slow, layer) = image("slow");
    store.add(&[layer]);
    let (good, layer) = image("good");
    store.add(&[layer]);
    let snapshotter = Snapshotter::start(store.path(), &["--mount-timeout", "4"]);
    let client = Client::connect(&snapshotter.socket());
    assert!(client.has_layer(&slow, "", &[]));
    assert!(client.has_layer(&good, "", &[]));
    let hanging = HangingFile::at(&store.index_file(&slow));

    let started = Instant::now();
    let status = client.prepare("c1", &slow).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(started.elapsed() < Duration::from_secs(12));
    // From now on at once, however often.
    let started = Instant::now();
    for number in 0..20 {
        let status = client.prepare(&format!("d{number}"), &slow).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    assert!(started.elapsed() < Duration::from_secs(4), "waited again");
    // Other images and other requests do not wait either.
    let started = Instant::now();
    client.prepare("c2", &good).unwrap();
    client.prepare("c3", "").unwrap();
    client.cleanup().unwrap();
    assert!(started.elapsed() < Duration::from_millis(3500));

    // Nor does its removal, and what comes after it: containerd's garbage collection.
    let started = Instant::now();
    client.remove(&slow).unwrap();
    client.cleanup().unwrap();
    client.remove("c3").unwrap();
    assert!(started.elapsed() < Duration::from_millis(3500));

    // The store comes back: who hung goes on, and nothing of the removed image stays.
    drop(hanging);
    eventually("the release", || snapshotter.image_mounts().len() == 1);
    assert!(client.has_layer(&slow, "", &[]));
    eventually("the mount", || client.prepare("c4", &slow).is_ok());
    assert_eq!(snapshotter.image_mounts().len(), 2);
}
