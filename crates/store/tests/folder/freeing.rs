//! Contents that no image needs any more give their space back.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use uimgacc_store::{
    Lease, StoreReader, SweepOptions, Swept, VerifyOptions, allow_unleased_readers, delete, init,
    remove_lease, sweep, verify, write_lease,
};
use uimgacc_testkit::Need;
use uimgacc_testkit::nfs_server::{self, NfsServer};
use uimgacc_testkit::uml::{self, Kernel};

use crate::support::{add_layers, assert_clean, dry_run, new_store};

const MIB: usize = 1 << 20;

fn content(seed: u8, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes)
        .map(|at| seed ^ at.to_le_bytes()[at % 3])
        .collect()
}

/// What the packs take on the disk.
fn allocated(store: &StoreReader) -> u64 {
    let mut bytes = 0;
    for fan in std::fs::read_dir(store.layout().root().join("packs")).unwrap() {
        for file in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            let file = file.unwrap();
            if file
                .path()
                .extension()
                .is_some_and(|suffix| suffix == "pack")
            {
                bytes += file.metadata().unwrap().blocks() * 512;
            }
        }
    }
    bytes
}

fn gc(store: &StoreReader) -> Swept {
    sweep(store, &SweepOptions::default()).unwrap()
}

fn gc_all(store: &StoreReader) -> Swept {
    let all = SweepOptions {
        all: true,
        ..SweepOptions::default()
    };
    sweep(store, &all).unwrap()
}

#[test]
fn the_space_of_a_large_image_comes_back_though_a_small_one_shares_with_it() {
    let (_folder, store) = new_store();
    let (base, large, small) = (content(1, MIB), content(2, 9 * MIB), content(3, 9000));
    let images = [
        ("example.com/large:1", vec![base.as_slice(), &large]),
        ("example.com/small:1", vec![base.as_slice(), &small]),
    ];
    for (target, contents) in &images {
        add_layers(&store, target, std::slice::from_ref(contents));
    }
    let before = allocated(&store);
    delete(&store, images[0].0, false).unwrap();
    let would = sweep(&store, &dry_run()).unwrap();
    assert_eq!(allocated(&store), before);
    let swept = gc(&store);
    assert_eq!(
        (&would.dead, would.bytes),
        (&swept.dead, swept.bytes),
        "a dry run says what comes"
    );
    assert_eq!(swept.dead.len(), 1, "{swept:?}");
    assert!(
        swept.dead[0].is_freed() && swept.dead[0].bytes == 9 * MIB as u64,
        "{swept:?}"
    );
    assert!(allocated(&store) <= before - 9 * MIB as u64);
    assert_clean(&store);
    assert!(gc(&store).dead.is_empty(), "nothing is left to do");
    // What is given up is not shared: it is written once more.
    add_layers(&store, images[0].0, &[images[0].1.clone()]);
    assert_clean(&store);
    assert!(allocated(&store) >= before);
    delete(&store, images[0].0, false).unwrap();
    delete(&store, images[1].0, false).unwrap();
    gc(&store);
    assert_eq!(allocated(&store), 0);
    assert_clean(&store);
}

#[test]
fn little_space_comes_back_only_when_all_is_asked_for() {
    let (_folder, store) = new_store();
    let (base, little) = (content(1, 9 * MIB), content(2, MIB));
    add_layers(&store, "example.com/a:1", &[vec![&base, &little]]);
    add_layers(&store, "example.com/b:1", &[vec![&base]]);
    delete(&store, "example.com/a:1", false).unwrap();
    let before = allocated(&store);
    let swept = gc(&store);
    assert!(
        swept.dead.len() == 1 && !swept.dead[0].is_freed(),
        "{swept:?}"
    );
    assert_eq!(allocated(&store), before);
    assert!(gc(&store).dead.is_empty(), "it is not looked at again");
    let swept = gc_all(&store);
    assert!(
        swept.dead.len() == 1 && swept.dead[0].is_freed(),
        "{swept:?}"
    );
    assert_eq!(allocated(&store), before - MIB as u64);
    assert_clean(&store);
}

#[test]
fn what_is_leased_stays_and_so_does_what_was_deleted_by_force_while_it_is_leased() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, 9 * MIB));
    let image = add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
    add_layers(&store, "example.com/b:1", &[vec![&base]]);
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    let before = allocated(&store);
    // Without the record of the image: a chain that is retired while it is leased.
    std::fs::remove_file(store.layout().image(&image.target).on_host()).unwrap();
    assert!(gc_all(&store).dead.is_empty());
    add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
    delete(&store, &image.target, true).unwrap();
    assert!(gc_all(&store).dead.is_empty());
    assert_eq!(allocated(&store), before);
    remove_lease(store.layout(), "one").unwrap();
    let swept = gc_all(&store);
    assert!(
        swept.dead.len() == 1 && swept.dead[0].is_freed(),
        "{swept:?}"
    );
    assert_eq!(allocated(&store), MIB as u64);
    assert_clean(&store);
}

/// Such a lease may be older than what its holder took.
#[test]
fn nothing_is_given_back_where_somebody_else_writes_the_leases() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, 9 * MIB));
    let layers = [vec![base.as_slice(), &large]];
    let image = add_layers(&store, "example.com/a:1", &layers);
    let kept = add_layers(&store, "example.com/b:1", &[vec![&base]]);
    let now = uimgacc_store::server_time(store.layout());
    let write = |name: &str, lease: Lease| write_lease(store.layout(), name, &lease).unwrap();
    delete(&store, &image.target, false).unwrap();
    let before = allocated(&store);
    let stays = |holder: &str| {
        let swept = gc_all(&store);
        assert!(
            swept.dead.is_empty() && allocated(&store) == before,
            "{swept:?}"
        );
        assert_eq!(swept.kept_for, [holder]);
    };
    write("cluster-y", Lease::of_a_cluster("y", now));
    stays("cluster y");
    remove_lease(store.layout(), "cluster-y").unwrap();
    write("one", Lease::of_a_node("one", vec![kept.chain_id], 0, now));
    stays("node one");
    // A chain that goes while somebody holds what nobody knows is not taken for known once it is made again.
    write("one", Lease::of_a_node("one", Vec::new(), 1, now));
    stays("node one");
    add_layers(&store, &image.target, &layers);
    let own = Lease::of_this_machine("node two".to_owned(), vec![image.chain_id]);
    write("two", own);
    remove_lease(store.layout(), "one").unwrap();
    assert_eq!(gc_all(&store).kept_for, ["node two"]);
    remove_lease(store.layout(), "two").unwrap();
    gc_all(&store);
    assert_eq!(allocated(&store), 10 * MIB as u64);
    assert_clean(&store);
}

/// A chain that is made again may have another index than the one that its holder mounted.
#[test]
fn nothing_is_given_back_while_somebody_holds_a_chain_that_was_made_again() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, 9 * MIB));
    let layers = [vec![base.as_slice(), &large]];
    let image = add_layers(&store, "example.com/a:1", &layers);
    add_layers(&store, "example.com/b:1", &[vec![&base]]);
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    delete(&store, &image.target, true).unwrap();
    gc(&store);
    let before = allocated(&store);
    let again = add_layers(&store, "example.com/a:1", &layers);
    assert_eq!(again.chain_id, image.chain_id);
    let swept = gc_all(&store);
    assert_eq!(
        (swept.dead.len(), swept.kept_for),
        (0, vec!["node one".to_owned()])
    );
    assert!(allocated(&store) >= before);
    remove_lease(store.layout(), "one").unwrap();
    gc_all(&store);
    assert_eq!(allocated(&store), 10 * MIB as u64);
    // Who takes it from now on has the new one.
    write_lease(store.layout(), "one", &lease).unwrap();
    add_layers(&store, "example.com/c:1", &[vec![&content(3, MIB), &base]]);
    delete(&store, "example.com/c:1", false).unwrap();
    assert_eq!(gc_all(&store).kept_for, Vec::<String>::new());
    assert_clean(&store);
}

#[test]
fn nothing_is_given_back_where_readers_need_no_lease() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, 9 * MIB));
    add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
    add_layers(&store, "example.com/b:1", &[vec![&base]]);
    delete(&store, "example.com/a:1", false).unwrap();
    let before = allocated(&store);
    allow_unleased_readers(&store, true).unwrap();
    assert!(gc_all(&store).dead.is_empty() && allocated(&store) == before);
    let store = StoreReader::open(store.layout().root()).unwrap();
    allow_unleased_readers(&store, false).unwrap();
    assert!(gc(&store).dead[0].is_freed());
    assert_eq!(allocated(&store), MIB as u64);
}

#[test]
fn a_pack_of_which_nothing_is_known_is_not_shared() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, MIB));
    let image = add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
    let record = store.layout().dead(image.index.packs[0]).on_host();
    std::fs::write(&record, "damaged").unwrap();
    // The same contents in another layer: an equal pack, under another name.
    let other = add_layers(&store, "example.com/b:1", &[vec![&large, &base]]);
    assert_ne!(other.index.packs, image.index.packs);
    let report = verify(&store, &VerifyOptions::default(), &mut |_| {}).unwrap();
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|problem| &problem.path)
        .collect();
    assert_eq!(problems, [&record]);
}

/// A gc that was cut short removed table and record of a pack of which parts had been given up, and not the pack.
#[test]
fn what_is_left_of_a_pack_with_holes_is_not_taken_for_a_whole_one() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, 9 * MIB));
    let layers = [vec![base.as_slice(), &large]];
    let image = add_layers(&store, "example.com/a:1", &layers);
    add_layers(&store, "example.com/b:1", &[vec![&base]]);
    delete(&store, "example.com/a:1", false).unwrap();
    assert!(gc(&store).dead[0].is_freed());
    let pack = image.index.packs[0];
    let kept = std::fs::read(store.layout().pack(pack).on_host()).unwrap();
    delete(&store, "example.com/b:1", false).unwrap();
    gc(&store);
    std::fs::write(store.layout().pack(pack).on_host(), kept).unwrap();
    let again = add_layers(&store, "example.com/a:1", &layers);
    assert_eq!(again.index.packs, [pack]);
    assert_clean(&store);
}

/// Its holder reads what only that index named.
#[test]
fn nothing_is_given_back_while_somebody_holds_an_image_whose_index_is_lost() {
    let (_folder, store) = new_store();
    let (base, large) = (content(1, MIB), content(2, 9 * MIB));
    let image = add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
    add_layers(&store, "example.com/b:1", &[vec![&base]]);
    let lease = Lease::of_this_machine("node one".to_owned(), vec![image.chain_id]);
    write_lease(store.layout(), "one", &lease).unwrap();
    for path in [
        store.layout().index(image.chain_id),
        store.layout().layer(image.diff_ids[0]),
    ] {
        std::fs::remove_file(path.on_host()).unwrap();
    }
    let before = allocated(&store);
    let swept = gc_all(&store);
    assert!(swept.dead.is_empty() && swept.kept_for[0] == "node one");
    assert_eq!(allocated(&store), before);
    remove_lease(store.layout(), "one").unwrap();
    // A repair may bring the index back.
    let kept_for = gc_all(&store).kept_for;
    assert!(kept_for[0].contains("store repair"), "{kept_for:?}");
    delete(&store, "example.com/a:1", false).unwrap();
    assert!(gc_all(&store).dead[0].is_freed());
}

/// A server and its client on Linux 7.2: version 4.2 can deallocate, version 3 cannot and leaves everything as it is.
#[test]
fn space_comes_back_on_nfs() {
    if !uimgacc_testkit::ready(&[Need::Root, Need::Parts, Need::Uml]) {
        return;
    }
    let name = "freeing::space_comes_back_on_nfs";
    uml::inside(Kernel::V7_2, name, Duration::from_secs(300), || {
        let server = NfsServer::start();
        for (version, can_free) in [("4.2", true), ("3", false)] {
            let mount = Path::new("/tmp").join(version);
            server.mount(version, &mount);
            let root = format!("store-{version}");
            let (store, _) = init(&mount.join(&root)).unwrap();
            let on_server = StoreReader::open(Path::new(nfs_server::EXPORT).join(&root)).unwrap();
            let (base, large) = (content(1, MIB), content(2, 9 * MIB));
            add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
            add_layers(&store, "example.com/b:1", &[vec![&base]]);
            delete(&store, "example.com/a:1", false).unwrap();
            let before = allocated(&on_server);
            let swept = gc(&store);
            assert_eq!(swept.dead.len(), 1, "{version}: {swept:?}");
            assert_eq!(swept.dead[0].is_freed(), can_free, "{version}: {swept:?}");
            let freed = if can_free { 9 * MIB as u64 } else { 0 };
            assert_eq!(allocated(&on_server), before - freed, "{version}");
            assert_clean(&store);
            assert_clean(&on_server);
            // Where it was not given back it is shared again.
            add_layers(&store, "example.com/a:1", &[vec![&base, &large]]);
            assert_eq!(allocated(&on_server), before, "{version}");
            assert_clean(&on_server);
        }
    });
}

/// Contents of these sizes in blocks, each with its number.
const BLOCKS: [usize; 12] = [1, 2, 3, 5, 8, 13, 21, 34, 40, 1, 7, 11];

#[derive(Debug, Clone)]
enum Step {
    Create(u8, Vec<Vec<u8>>),
    Delete(u8),
    Gc,
    All,
}

fn step() -> impl Strategy<Value = Step> {
    let layer = proptest::collection::vec(0..12u8, 1..5);
    prop_oneof![
        4 => (0..5u8, proptest::collection::vec(layer, 1..4)).prop_map(|(image, layers)| Step::Create(image, layers)),
        2 => (0..5u8).prop_map(Step::Delete),
        1 => Just(Step::Gc),
        1 => Just(Step::All),
    ]
}

fn runs() -> u32 {
    let runs = std::env::var("UIMGACC_LONG").ok();
    runs.and_then(|runs| runs.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: runs(), max_shrink_iters: 50, ..ProptestConfig::default() })]

    /// Against a model: which contents the images have. Right after `gc --all` the packs take their blocks and
    /// nothing else, and each image is whole all the time.
    #[test]
    fn packs_take_what_images_need(steps in proptest::collection::vec(step(), 1..14)) {
        let (_folder, store) = new_store();
        let contents: Vec<Vec<u8>> = (0u8..)
            .zip(BLOCKS)
            .map(|(number, blocks)| content(number.wrapping_mul(17), blocks * 4096 - usize::from(number)))
            .collect();
        let mut images: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        let name = |image: u8| format!("example.com/image-{image}:1");
        for step in steps.iter().chain([&Step::All]) {
            match step {
                Step::Create(image, layers) => {
                    let files = |layer: &Vec<u8>| {
                        let numbers: BTreeSet<u8> = layer.iter().copied().collect();
                        numbers.iter().map(|one| contents[usize::from(*one)].as_slice()).collect()
                    };
                    let layers_of: Vec<Vec<&[u8]>> = layers.iter().map(files).collect();
                    add_layers(&store, &name(*image), &layers_of);
                    images.insert(*image, layers.iter().flatten().copied().collect());
                }
                Step::Delete(image) => {
                    let there = images.remove(image).is_some();
                    prop_assert_eq!(delete(&store, &name(*image), false).is_ok(), there);
                }
                Step::Gc => {
                    gc(&store);
                }
                Step::All => {
                    gc_all(&store);
                    let live: BTreeSet<u8> = images.values().flatten().copied().collect();
                    let live: usize = live.iter().map(|one| BLOCKS[usize::from(*one)]).sum();
                    prop_assert_eq!(allocated(&store), live as u64 * 4096);
                }
            }
            let report = verify(&store, &VerifyOptions::default(), &mut |_| {}).unwrap();
            prop_assert_eq!(report.problems, Vec::new());
            prop_assert_eq!(store.images().unwrap().len(), images.len());
        }
    }
}
