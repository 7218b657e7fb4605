//! Who may have a layer of the store: a chain ID alone opens nothing.

use std::fs;

use tonic::Code;
use uimgacc_store::BlobRecord;
use uimgacc_testkit::{Need, ready};
use uimgacc_types::{Digest, chain_ids};

use crate::client::Client;
use crate::daemon::Snapshotter;
use crate::promises::{CHAIN, INDEX, STORE, diff_id as digest, store_id};
use crate::store_maker::{Layer, StoreMaker};

const BLOB: &str = "containerd.io/snapshot/cri.layer-digest";

fn layer(name: &str) -> Layer {
    Layer::new(&digest(name)).file(name, 0o644, name.as_bytes())
}

fn chains(names: &[&str]) -> Vec<String> {
    let ids: Vec<_> = names.iter().map(|n| digest(n).parse().unwrap()).collect();
    chain_ids(&ids).iter().map(ToString::to_string).collect()
}

/// What `create` records of a blob.
fn verify_blob(store: &StoreMaker, blob: &str, layer: &str) {
    let record = BlobRecord {
        blob: digest(blob).parse().unwrap(),
        diff_id: digest(layer).parse().unwrap(),
    };
    let path = store.layout().blob(record.blob).on_host();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
}

fn labels_of(store: &StoreMaker, top: &str) -> [(&'static str, String); 3] {
    let index = Digest::of(&fs::read(store.index_file(top)).unwrap());
    [
        (CHAIN, top.to_owned()),
        (INDEX, index.to_string()),
        (STORE, store_id()),
    ]
}

fn borrowed<'a>(labels: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    labels.iter().map(|(k, v)| (*k, v.as_str())).collect()
}

#[test]
fn a_promise_opens_its_own_image_and_no_other() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("base"), layer("mine")]);
    store.add(&[layer("secret"), layer("more")]);
    let (mine, secret) = (chains(&["base", "mine"]), chains(&["secret", "more"]));
    let snapshotter = Snapshotter::start_strict(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    let promise = labels_of(&store, &mine[1]);
    for asked in &secret {
        assert!(!client.has_layer(asked, "", &borrowed(&promise)));
    }
    // Made up: a chain that the store does not have, with and without the rest.
    let none = format!("sha256:{}", "0".repeat(64));
    for asked in &secret {
        assert!(!client.has_layer(asked, "", &[(CHAIN, &none)]));
        let index = promise[1].1.as_str();
        let made_up = [
            (CHAIN, none.as_str()),
            (INDEX, index),
            (STORE, &promise[2].1),
        ];
        assert!(!client.has_layer(asked, "", &made_up));
        // The secret's own chain is no secret; the digest of its index is.
        let half = [
            (CHAIN, secret[1].as_str()),
            (INDEX, index),
            (STORE, &promise[2].1),
        ];
        assert!(!client.has_layer(asked, "", &half));
        assert!(!client.has_layer(asked, "", &half[..1]));
    }
    assert!(client.names().is_empty(), "{:?}", client.names());
    assert!(client.has_layer(&mine[0], "", &borrowed(&promise)));
    assert!(client.has_layer(&mine[1], &mine[0], &borrowed(&promise)));
    client.prepare("c", &mine[1]).unwrap();
}

#[test]
fn an_original_is_taken_by_verified_blobs_alone() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("base"), layer("top")]);
    verify_blob(&store, "base.gz", "base");
    verify_blob(&store, "top.gz", "top");
    verify_blob(&store, "other.gz", "other");
    let chains = chains(&["base", "top"]);
    let snapshotter = Snapshotter::start_strict(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    let has = |number: usize, parent: &str, blob: &str| {
        client.has_layer(&chains[number], parent, &[(BLOB, &digest(blob))])
    };
    // Nothing, a blob that nobody verified, and blobs of other layers.
    assert!(!client.has_layer(&chains[0], "", &[]));
    assert!(!client.has_layer(&chains[0], "", &[(BLOB, "nonsense")]));
    for wrong in ["base.zst", "top.gz", "other.gz"] {
        assert!(!has(0, "", wrong), "{wrong}");
    }
    assert!(has(0, "", "base.gz"));
    assert!(!has(1, &chains[0], "base.gz"));
    assert!(has(1, &chains[0], "top.gz"));
    client.prepare("c", &chains[1]).unwrap();
    // A damaged record opens nothing and stops nothing.
    let path = store.layout().blob(digest("base.gz").parse().unwrap());
    fs::write(path.on_host(), "").unwrap();
    client.remove("c").unwrap();
    client.remove(&chains[1]).unwrap();
    client.remove(&chains[0]).unwrap();
    assert!(!has(0, "", "base.gz"));
}

#[test]
fn what_a_node_has_for_one_image_is_not_given_to_a_claim_of_another() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("secret")]);
    verify_blob(&store, "secret.gz", "secret");
    let chain = chains(&["secret"]).remove(0);
    let snapshotter = Snapshotter::start_strict(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    let promise = labels_of(&store, &chain);
    assert!(client.has_layer(&chain, "", &borrowed(&promise)));
    client.prepare("c", &chain).unwrap();
    // From another namespace of containerd, also while the store is away.
    let none = format!("sha256:{}", "0".repeat(64));
    let refused = || {
        assert!(!client.has_layer(&chain, "", &[]));
        assert!(!client.has_layer(&chain, "", &[(CHAIN, &none)]));
        assert!(!client.has_layer(&chain, "", &[(BLOB, &digest("other.gz"))]));
        assert!(client.has_layer(&chain, "", &borrowed(&promise)));
    };
    refused();
    assert!(client.has_layer(&chain, "", &[(BLOB, &digest("secret.gz"))]));
    fs::remove_file(store.path().join("store.json")).unwrap();
    fs::rename(store.path().join("chains"), store.path().join("gone")).unwrap();
    refused();
}

#[test]
fn a_link_in_place_of_a_pack_shows_no_file_of_the_node() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), [b's'; 4096]).unwrap();
    for method in ["file-directio", "file", "loop"] {
        let store = StoreMaker::new();
        store.add(&[layer("image")]);
        let chain = chains(&["image"]).remove(0);
        let snapshotter = Snapshotter::start(store.path(), &["--methods", method]);
        let client = Client::connect(&snapshotter.socket());
        assert!(client.has_layer(&chain, "", &[]));
        let pack = store.pack_file("image");
        fs::remove_file(&pack).unwrap();
        std::os::unix::fs::symlink(outside.path(), &pack).unwrap();
        let status = client.prepare("c", &chain).unwrap_err();
        assert!(status.message().contains("symbolic link"), "{status}");
        assert_ne!(status.code(), Code::Internal, "{status}");
        assert!(snapshotter.image_mounts().is_empty());
        // Nor is the layer promised to anybody from then on.
        client.remove(&chain).unwrap();
        assert!(!client.has_layer(&chain, "", &[]));
    }
}
