//! The files of the format as they were when it was fixed: each is read, and written again byte for byte.
//!
//! With `UIMGACC_BLESS=1` the files are written anew, which is right only for a format that nobody uses yet.

use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uimgacc_types::{ChainId, ContentHash, DiffId, Digest, Extent, PackId, chain_ids};

use crate::dead::{self, Dead};
use crate::filter::{self, PackFilter};
use crate::free::Freeing;
use crate::record::{Features, FormerRecord};
use crate::toc::{self, Toc};
use crate::{BlobRecord, ChainLayer, ChainRecord, ImageRecord, IndexRecord, Lease, StoreRecord};

/// The bytes of a golden file; `written` is what is written today.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("UIMGACC_BLESS").is_some() {
        std::fs::write(&path, written).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes == written, "{name} is written otherwise today");
    bytes
}

fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, record: &T) {
    let mut written = serde_json::to_vec_pretty(record).unwrap();
    written.push(b'\n');
    let bytes = golden(name, &written);
    assert_eq!(&serde_json::from_slice::<T>(&bytes).unwrap(), record);
}

fn hash(number: u64) -> ContentHash {
    ContentHash::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn table(salt: u64) -> Toc {
    let mut end = 0;
    let mut entries: Vec<_> = (1..=100)
        .map(|number| {
            let extent = Extent {
                offset_bytes: end,
                len_bytes: number * 1000,
            };
            end = (end + extent.len_bytes).next_multiple_of(4096);
            (hash(number), extent)
        })
        .collect();
    entries.sort_by_key(|(hash, _)| *hash);
    Toc {
        pack_bytes: end,
        salt,
        entries,
    }
}

#[test]
fn tables() {
    for (salt, name) in [(0, "plain.toc"), (1, "salted.toc")] {
        let (written, id) = toc::encode(table(salt));
        let bytes = golden(name, &written);
        assert_eq!(toc::parse(&bytes, id), Ok(table(salt)));
    }
}

#[test]
fn dead_ranges() {
    let (_, id) = toc::encode(table(0));
    let some = Dead::default().with(
        table(0)
            .entries
            .iter()
            .step_by(7)
            .map(|(_, extent)| *extent),
    );
    for (dead, name) in [(Dead::default(), "none.dead"), (some, "some.dead")] {
        let bytes = golden(name, &dead::encode(&dead, id));
        assert_eq!(dead::parse(&bytes, id), Ok(dead));
    }
}

#[test]
fn filters() {
    let hashes: Vec<ContentHash> = (1..=100).map(hash).collect();
    let pack = |number| PackId::from_bytes([number; 32]);
    let filters = [
        PackFilter::of(pack(1), &hashes).unwrap(),
        PackFilter::of(pack(2), &hashes[..3]).unwrap(),
    ];
    let bytes = golden("two.filter", &filter::encode(filters.iter()));
    let read = filter::parse(&bytes).unwrap();
    assert_eq!([read[0].pack, read[1].pack], [pack(1), pack(2)]);
    assert!(
        hashes
            .iter()
            .all(|hash| read[0].may_have(toc::key_of(hash)))
    );
}

#[test]
fn records() {
    json(
        "store.json",
        &StoreRecord {
            format_version: 2,
            features: Features {
                compatible: vec!["unleased-readers".to_owned()],
                ..Features::default()
            },
            store_id: "0123456789abcdef0123456789abcdef".to_owned(),
            created: "2026-11-30T00:00:00Z".to_owned(),
        },
    );
    let diff_ids = [1, 2].map(|number| DiffId::from_bytes([number; 32]));
    let chain_id: ChainId = *chain_ids(&diff_ids).last().unwrap();
    let layers = diff_ids.map(|diff_id| ChainLayer {
        diff_id,
        index_digest: Digest::of(b"layer"),
    });
    let index = IndexRecord {
        digest: Digest::of(b"index"),
        size: 12345,
        packs: vec![PackId::from_bytes([3; 32])],
    };
    json(
        "chain.json",
        &ChainRecord {
            chain_id,
            layers: layers.to_vec(),
            index: Some(index.clone()),
        },
    );
    json(
        "blob.json",
        &BlobRecord {
            blob: Digest::of(b"blob"),
            diff_id: diff_ids[0],
        },
    );
    json(
        "image.json",
        &ImageRecord {
            original: "docker.io/library/debian:12".to_owned(),
            target: "registry.example.com/debian:12-fast".to_owned(),
            platform: "linux/amd64".to_owned(),
            original_digest: Digest::of(b"original"),
            target_digest: Some(Digest::of(b"target")),
            config_digest: Digest::of(b"config"),
            chain_id,
            index,
            diff_ids: diff_ids.to_vec(),
            compressed_size: 1000,
            size: 2000,
            inodes: 30,
            created: "2026-11-30T00:00:00Z".to_owned(),
        },
    );
    json(
        "lease.json",
        &Lease::of_a_node("one", vec![chain_id], 2, 1_796_000_000),
    );
    let since_unix = 1_796_000_000;
    json("chain.former", &FormerRecord { since_unix });
    json(
        "freeing.json",
        &Freeing {
            noted: [(PackId::from_bytes([3; 32]), 1_796_000_000)].into(),
        },
    );
}
