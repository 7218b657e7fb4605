//! Local copies of a hand-made store: whole images, prefixes, and everything that can be wrong.

use std::fs;

use tempfile::TempDir;
use uimgacc_erofs::Tree;
use uimgacc_store::{ChainLayer, FORMAT_VERSION, Features, Layout, StoreRecord};
use uimgacc_types::{ChainId, DiffId, chain_ids};

use super::*;
use crate::tests::{content, pack_id, sample_tree};

struct Fixture {
    dir: TempDir,
    layout: Layout,
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn bytes_of(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    uimgacc_erofs::write(tree, &mut bytes).unwrap();
    bytes
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        let record = StoreRecord {
            format_version: FORMAT_VERSION,
            features: Features::default(),
            store_id: "0".repeat(32),
            created: String::new(),
        };
        put(
            &layout.store_json().on_host(),
            &serde_json::to_vec(&record).unwrap(),
        );
        Self { dir, layout }
    }

    fn store(&self) -> StoreReader {
        StoreReader::open(self.layout.root()).unwrap()
    }

    /// The folder of the node.
    fn folder(&self) -> PathBuf {
        self.dir.path().join("chain")
    }

    /// A chain of one layer with `packs` packs, as a prefix or as a whole image.
    fn chain(&self, packs: u8, whole: bool) -> ChainRecord {
        let tree = sample_tree(packs);
        let bytes = bytes_of(&tree);
        let diff_id = DiffId::from_bytes([packs; 32]);
        let chain_id: ChainId = chain_ids(&[diff_id])[0];
        put(&self.layout.layer(diff_id).on_host(), &bytes);
        for pack in 0..packs {
            let mut bytes = content(pack, 9000);
            bytes.resize(3 * 4096, 0);
            put(&self.layout.pack(pack_id(pack)).on_host(), &bytes);
        }
        let index = whole.then(|| {
            put(&self.layout.index(chain_id).on_host(), &bytes);
            IndexRecord {
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
                packs: (0..packs).map(pack_id).collect(),
            }
        });
        ChainRecord {
            chain_id,
            layers: vec![ChainLayer {
                diff_id,
                index_digest: Digest::of(&bytes),
            }],
            index,
        }
    }
}

#[test]
fn a_whole_image_is_copied_and_found_again() {
    let fixture = Fixture::new();
    let chain = fixture.chain(3, true);
    let folder = fixture.folder();
    assert_eq!(load(&folder).unwrap(), None);
    probe(&fixture.store(), &chain, &Checked::default()).unwrap();
    let cached = fetch(&fixture.store(), &chain, &folder).unwrap();
    let pack = |id| IndexedPack {
        id: pack_id(id),
        len_bytes: 3 * 4096,
    };
    assert_eq!(cached.packs, [0, 1, 2].map(pack));
    let source = fs::read(fixture.layout.index(chain.chain_id).on_host()).unwrap();
    assert_eq!(fs::read(&cached.path).unwrap(), source);
    // The copy needs the store no more.
    fs::remove_dir_all(fixture.layout.root()).unwrap();
    assert_eq!(load(&folder).unwrap(), Some(cached));
    remove(&folder).unwrap();
    assert_eq!(load(&folder).unwrap(), None);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    remove(&folder).unwrap();
}

#[test]
fn a_prefix_is_stacked_here_and_mounts() {
    let fixture = Fixture::new();
    let chain = fixture.chain(2, false);
    probe(&fixture.store(), &chain, &Checked::default()).unwrap();
    let cached = fetch(&fixture.store(), &chain, &fixture.folder()).unwrap();
    assert_eq!(load(&fixture.folder()).unwrap(), Some(cached.clone()));
    let target = fixture.dir.path().join("mnt");
    fs::create_dir(&target).unwrap();
    crate::mount_image(&crate::MountRequest {
        packs: cached.open_packs(&fixture.layout).unwrap(),
        index: cached.path,
        target: target.clone(),
        methods: crate::Methods::default(),
        read_ahead_kb: None,
    })
    .unwrap();
    for pack in 0..2u8 {
        let read = fs::read(target.join(format!("file{pack}"))).unwrap();
        assert_eq!(read, content(pack, 9000));
    }
    crate::unmount(&target, false).unwrap();
}

#[test]
fn a_local_copy_that_was_touched_counts_for_nothing() {
    let fixture = Fixture::new();
    let chain = fixture.chain(1, true);
    let folder = fixture.folder();
    let cached = fetch(&fixture.store(), &chain, &folder).unwrap();
    let good = fs::read(&cached.path).unwrap();
    let record = fs::read(folder.join("record.json")).unwrap();
    let mut flipped = good.clone();
    flipped[2000] ^= 1;
    for bad in [&flipped[..], &good[..100], &[&good[..], b"x"].concat(), b""] {
        fs::write(&cached.path, bad).unwrap();
        assert_eq!(load(&folder).unwrap(), None);
    }
    fs::write(&cached.path, &good).unwrap();
    for bad in [&b"{}"[..], b"", &record[..20]] {
        fs::write(folder.join("record.json"), bad).unwrap();
        assert_eq!(load(&folder).unwrap(), None);
    }
    assert_eq!(fetch(&fixture.store(), &chain, &folder).unwrap(), cached);
}

#[test]
fn a_store_with_other_files_than_recorded_is_refused() {
    for whole in [true, false] {
        let fixture = Fixture::new();
        let chain = fixture.chain(1, whole);
        let path = if whole {
            fixture.layout.index(chain.chain_id).on_host()
        } else {
            fixture.layout.layer(chain.layers[0].diff_id).on_host()
        };
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[2000] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let error = fetch(&fixture.store(), &chain, &fixture.folder()).unwrap_err();
        assert!(matches!(error, IndexError::WrongDigest { .. }), "{error}");
        assert_eq!(load(&fixture.folder()).unwrap(), None);

        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert!(fetch(&fixture.store(), &chain, &fixture.folder()).is_err());
        if whole {
            assert!(probe(&fixture.store(), &chain, &Checked::default()).is_err());
        }
        fs::write(&path, &good).unwrap();
        fetch(&fixture.store(), &chain, &fixture.folder()).unwrap();

        let pack = fixture.layout.pack(pack_id(0)).on_host();
        fs::remove_file(&pack).unwrap();
        let error = probe(&fixture.store(), &chain, &Checked::default()).unwrap_err();
        assert!(
            error.to_string().contains(pack.to_str().unwrap()),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        assert!(probe(&fixture.store(), &chain, &Checked::default()).is_err());
        assert!(fetch(&fixture.store(), &chain, &fixture.folder()).is_err());
    }
}

#[test]
fn more_packs_than_a_mount_takes_are_refused_at_once() {
    let fixture = Fixture::new();
    let most = u8::try_from(MAX_PACKS_PER_MOUNT).unwrap();
    probe(
        &fixture.store(),
        &fixture.chain(most, false),
        &Checked::default(),
    )
    .unwrap();
    let chain = fixture.chain(most + 1, false);
    for result in [
        probe(&fixture.store(), &chain, &Checked::default()),
        fetch(&fixture.store(), &chain, &fixture.folder()).map(|_| ()),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, IndexError::TooManyPacks { .. }), "{error}");
    }
}

#[test]
fn hostile_headers_are_errors() {
    let fixture = Fixture::new();
    let chain = fixture.chain(2, false);
    let path = fixture.layout.layer(chain.layers[0].diff_id).on_host();
    let good = fs::read(&path).unwrap();
    probe(&fixture.store(), &chain, &Checked::default()).unwrap();
    // Every byte of the superblock and the device table, turned over one by one: never a panic.
    for position in 1024..good.len().min(2048) {
        let mut bad = good.clone();
        bad[position] ^= 0xFF;
        fs::write(&path, &bad).unwrap();
        let _ = probe(&fixture.store(), &chain, &Checked::default());
    }
    for bad in [&good[..0], &good[..1024], &good[..1100], &vec![0; 8192]] {
        fs::write(&path, bad).unwrap();
        assert!(probe(&fixture.store(), &chain, &Checked::default()).is_err());
    }
}

#[test]
fn only_regular_files_of_the_right_length_are_packs() {
    let fixture = Fixture::new();
    let chain = fixture.chain(2, true);
    let cached = fetch(&fixture.store(), &chain, &fixture.folder()).unwrap();
    let refused = || {
        let error = cached.open_packs(&fixture.layout).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    };
    let pack = fixture.layout.pack(pack_id(1)).on_host();
    let bytes = fs::read(&pack).unwrap();
    for length in [0, bytes.len() - 1, bytes.len() + 4096] {
        let mut other = bytes.clone();
        other.resize(length, 0);
        fs::write(&pack, other).unwrap();
        assert!(refused().contains("12288 were recorded"), "{}", refused());
    }
    // A file of the node of the right length.
    let outside = fixture.dir.path().join("secret");
    fs::write(&outside, &bytes).unwrap();
    fs::remove_file(&pack).unwrap();
    std::os::unix::fs::symlink(&outside, &pack).unwrap();
    assert!(refused().contains("symbolic link"), "{}", refused());
    fs::remove_file(&pack).unwrap();
    assert!(refused().contains("No such file"), "{}", refused());
}

#[test]
fn the_packs_are_those_of_the_index_whatever_the_record_says() {
    let fixture = Fixture::new();
    let mut chain = fixture.chain(2, true);
    let swapped = chain.index.as_mut().unwrap();
    swapped.packs.reverse();
    let cached = fetch(&fixture.store(), &chain, &fixture.folder()).unwrap();
    let ids: Vec<PackId> = cached.packs.iter().map(|pack| pack.id).collect();
    assert_eq!(ids, [pack_id(0), pack_id(1)]);
}
