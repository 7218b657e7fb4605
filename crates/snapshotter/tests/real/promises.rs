//! What is promised to containerd, and whether it is kept.

use std::fs;

use tonic::Code;
use uimgacc_store::{Lease, StoreReader, write_lease};
use uimgacc_testkit::{Need, ready};
use uimgacc_types::{Digest, chain_ids};

use crate::client::Client;
use crate::daemon::{Snapshotter, WITHOUT_MOUNTING};
use crate::remote::eventually;
use crate::store_maker::{Layer, StoreMaker};

pub(crate) const CHAIN: &str = "containerd.io/snapshot/uimgacc.chain-id";
pub(crate) const INDEX: &str = "containerd.io/snapshot/uimgacc.index-digest";
pub(crate) const STORE: &str = "containerd.io/snapshot/uimgacc.store-id";

pub(crate) fn diff_id(seed: &str) -> String {
    Digest::of(seed.as_bytes()).to_string()
}

/// A chain of one layer whose file has `content`.
fn layer(content: &str) -> Layer {
    Layer::new(&diff_id("x")).file("file", 0o644, content.as_bytes())
}

fn chain() -> String {
    chain_ids(&[diff_id("x").parse().unwrap()])[0].to_string()
}

fn index_digest(store: &StoreMaker) -> String {
    Digest::of(&fs::read(store.index_file(&chain())).unwrap()).to_string()
}

/// The store's own id, as [`StoreMaker`] writes it.
pub(crate) fn store_id() -> String {
    "0".repeat(32)
}

#[test]
fn only_the_index_that_the_image_promises_is_taken_and_mounted() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("one")]);
    let (chain, digest, id) = (chain(), index_digest(&store), store_id());
    let other = Digest::of(b"other").to_string();
    let mut snapshotter = Snapshotter::start(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    let whole = [(CHAIN, chain.as_str()), (INDEX, &digest), (STORE, &id)];
    for wrong in [
        [(CHAIN, chain.as_str()), (INDEX, &other), (STORE, &id)],
        [(CHAIN, &chain), (INDEX, &digest), (STORE, "another")],
        [(CHAIN, &chain), (INDEX, "nonsense"), (STORE, &id)],
    ] {
        assert!(!client.has_layer(&chain, "", &wrong), "{wrong:?}");
    }
    assert!(!client.has_layer(&chain, "", &whole[..2]));
    assert!(client.has_layer(&chain, "", &whole));

    // Somebody with access to the store puts other contents there, record and all.
    store.add(&[layer("altered contents")]);
    let status = client.prepare("c1", &chain).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains(&digest), "{status}");
    assert!(snapshotter.image_mounts().is_empty());
    // Neither is it taken by another namespace that comes with the same image.
    assert!(!client.has_layer(&chain, "", &whole));
    // Also not after a restart: the promise is kept on the disk.
    snapshotter.kill9();
    snapshotter.restart();
    let client = Client::connect(&snapshotter.socket());
    assert!(client.prepare("c1", &chain).is_err());
    store.add(&[layer("one")]);
    client.prepare("c1", &chain).unwrap();
    assert_eq!(snapshotter.image_mounts().len(), 1);
    let mounted = snapshotter.image_mounts().remove(0);
    assert_eq!(fs::read_to_string(mounted.join("file")).unwrap(), "one");
}

#[test]
fn an_image_made_anew_with_other_packs_is_mounted() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("one")]);
    let chain = chain();
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    assert!(client.has_layer(&chain, "", &[]));
    client.prepare("c1", &chain).unwrap();
    let point = snapshotter.image_mounts().remove(0);
    // As after a reboot of the node, while the image was deleted and made anew.
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    fs::remove_dir_all(store.path().join("packs")).unwrap();
    store.add(&[layer("one").with_pack("another")]);
    client.prepare("c2", &chain).unwrap();
    let point = snapshotter.image_mounts().remove(0);
    assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "one");
}

/// Contents that no image of the store needs any more read as zeros: a copy of an index from before is no reason
/// to mount them.
#[test]
fn a_stale_copy_of_an_index_is_not_mounted() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("one")]);
    let chain = chain();
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    assert!(client.has_layer(&chain, "", &[]));
    client.prepare("c1", &chain).unwrap();
    let unmount = || {
        let point = snapshotter.image_mounts().remove(0);
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    };
    unmount();
    // Deleted, and its space given back, while this node was away.
    let record = store.layout().chain(chain.parse().unwrap()).on_host();
    let retired = record.with_extension("retired");
    fs::remove_file(&record).unwrap();
    fs::write(store.pack_file("x"), [0; 4096]).unwrap();
    let refused = |name: &str| {
        let status = client.prepare(name, &chain).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(
            status.message().contains("no longer in the store"),
            "{status}"
        );
    };
    refused("c2");
    assert!(snapshotter.image_mounts().is_empty());
    // One of another index under the same name.
    store.add(&[layer("longer")]);
    fs::rename(&record, &retired).unwrap();
    let lease = Lease::of_this_machine("node one".to_owned(), vec![chain.parse().unwrap()]);
    write_lease(store.layout(), "one", &lease).unwrap();
    refused("c3");
    // Retired, but leased: what is mounted is what it was.
    store.add(&[layer("one")]);
    fs::rename(&record, &retired).unwrap();
    client.prepare("c4", &chain).unwrap();
    let point = snapshotter.image_mounts().remove(0);
    assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "one");
}

#[test]
fn the_lease_is_there_before_the_answer_and_what_is_gone_is_pulled() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("one")]);
    let chain = chain();
    let snapshotter = Snapshotter::start(store.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    assert!(client.has_layer(&chain, "", &[]));
    // Not soon, but now.
    let leases = store.leases();
    assert_eq!(leases.len(), 1);
    let lease = fs::read_to_string(&leases[0]).unwrap();
    assert!(lease.contains(&chain), "{lease}");
    // Asked for once more, and given back: the store knows soon.
    assert!(client.has_layer(&chain, "", &[]));
    client.remove(&chain).unwrap();
    eventually("the end of the first lease", || store.leases().is_empty());
    assert!(client.has_layer(&chain, "", &[]));
    // Deleted by force: nobody is told again that it is there, and the error says what happened.
    fs::remove_dir_all(store.path().join("chains")).unwrap();
    assert!(!client.has_layer(&chain, "", &[]));
    let status = client.prepare("c1", &chain).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    // An unmounted store is not one that lacks the image.
    fs::remove_file(store.path().join("store.json")).unwrap();
    eventually("no stale attempt", || {
        let status = client.prepare("c1", &chain).unwrap_err();
        status.code() == Code::Unavailable
    });
    // Back again: it works, and the lease goes with the image.
    fs::remove_dir_all(store.path().join("packs")).unwrap();
    store.add(&[layer("one")]);
    store.write_record();
    client.prepare("c1", &chain).unwrap();
    client.remove("c1").unwrap();
    client.remove(&chain).unwrap();
    eventually("the end of the lease", || store.leases().is_empty());
}

#[test]
fn a_read_only_store_is_used_without_leases_where_it_allows_that() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("one")]);
    let view = tempfile::tempdir().unwrap();
    uimgacc_mount::bind_read_only(store.path(), view.path()).unwrap();
    let snapshotter = Snapshotter::start(view.path(), &[]);
    let client = Client::connect(&snapshotter.socket());
    assert!(!client.has_layer(&chain(), "", &[]));
    let reader = StoreReader::open(store.path()).unwrap();
    uimgacc_store::allow_unleased_readers(&reader, true).unwrap();
    assert!(client.has_layer(&chain(), "", &[]));
    client.prepare("c1", &chain()).unwrap();
    assert!(store.leases().is_empty());
    let said = snapshotter
        .log()
        .matches("takes no lease of this node")
        .count();
    assert_eq!(said, 1);
    drop(client);
    drop(snapshotter);
    uimgacc_mount::unmount(view.path(), true).unwrap();
}

#[test]
fn a_node_that_cannot_mount_promises_nothing() {
    if !ready(&[Need::Root, Need::Filesystem("erofs")]) {
        return;
    }
    let store = StoreMaker::new();
    store.add(&[layer("one")]);
    let snapshotter = Snapshotter::start(store.path(), &[WITHOUT_MOUNTING]);
    let client = Client::connect(&snapshotter.socket());
    assert!(!client.has_layer(&chain(), "", &[]));
    assert!(client.names().is_empty());
    let log = snapshotter.log();
    assert!(log.contains("no image can be mounted here"), "{log}");
}
