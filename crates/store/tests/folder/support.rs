//! Small images, put into a store as `create` does it.

use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use uimgacc_erofs::tree::{ChunkAddress, ChunkedContents, Contents, Inode, Kind, Tree};
use uimgacc_store::{
    ChainLayer, ChainRecord, ImageRecord, PackWriter, Session, StoreReader, SweepOptions,
    VerifyOptions, flatten, init, verify,
};
use uimgacc_types::{DiffId, Digest, chain_ids};

/// A new store; gone with the folder.
pub(crate) fn new_store() -> (TempDir, StoreReader) {
    let folder = tempfile::tempdir().unwrap();
    let (store, is_new) = init(&folder.path().join("store")).unwrap();
    assert!(is_new);
    (folder, store)
}

/// The diff ID of a layer of one file.
pub(crate) fn diff_id(content: &[u8]) -> DiffId {
    DiffId::from_bytes(*Digest::of(content).as_bytes())
}

/// A tree of one file, named and filled with `content`.
pub(crate) fn tree_of(session: &Session, writer: &mut PackWriter, content: &[u8]) -> Tree {
    try_tree_of(session, writer, &[content]).unwrap()
}

/// A tree of a file for each content, named after it.
fn try_tree_of(
    session: &Session,
    writer: &mut PackWriter,
    contents: &[&[u8]],
) -> Result<Tree, uimgacc_store::PutError> {
    let mut tree = Tree::new();
    for content in contents {
        let placement = writer.put(&mut Cursor::new(content), content.len() as u64)?;
        let device = session.device(placement.pack);
        let known = tree.devices.iter().position(|known| *known == device);
        let number = known.unwrap_or_else(|| {
            tree.devices.push(device);
            tree.devices.len() - 1
        });
        let file = tree
            .add(Inode {
                kind: Kind::Regular(Contents::Chunks(ChunkedContents {
                    size_bytes: content.len() as u64,
                    chunk_log2: 24,
                    chunks: vec![Some(ChunkAddress {
                        device: u16::try_from(number).unwrap(),
                        start_block: u32::try_from(placement.extent.offset_bytes / 4096).unwrap(),
                    })],
                })),
                ..Inode::empty_directory()
            })
            .unwrap();
        let name = Digest::of(content).hex().into_bytes().into_boxed_slice();
        let entries = tree.inode_mut(Tree::ROOT).entries_mut().unwrap();
        entries.insert(name, file);
    }
    Ok(tree)
}

/// What `create` does for an image of layers of one file each, but for the image's record.
pub(crate) fn try_convert(
    session: &Session,
    target: &str,
    layers: &[&[u8]],
) -> Result<ImageRecord, Box<dyn std::error::Error + Send + Sync>> {
    let layers: Vec<Vec<&[u8]>> = layers.iter().map(|content| vec![*content]).collect();
    try_convert_layers(session, target, &layers)
}

/// The same of layers of several files.
pub(crate) fn try_convert_layers(
    session: &Session,
    target: &str,
    layers: &[Vec<&[u8]>],
) -> Result<ImageRecord, Box<dyn std::error::Error + Send + Sync>> {
    let ids = layers.iter().map(|contents| diff_id(&contents.concat()));
    let diff_ids: Vec<DiffId> = ids.collect();
    let chains = chain_ids(&diff_ids);
    let chain_id = *chains.last().unwrap();
    let index = match session.index(chain_id)? {
        Some((_, index)) => index,
        None => {
            let mut trees = Vec::new();
            let mut published: Vec<ChainLayer> = Vec::new();
            for (contents, diff_id) in layers.iter().zip(&diff_ids) {
                if let Some((tree, layer)) = session.layer(*diff_id)? {
                    trees.push(tree);
                    published.push(layer);
                    continue;
                }
                let mut writer = session.pack_writer()?;
                let mut tree = try_tree_of(session, &mut writer, contents)?;
                session.seal(writer)?;
                session.settle(&mut tree);
                published.push(session.publish_layer(*diff_id, &tree)?);
                trees.push(tree);
            }
            let tree = flatten::flatten(&trees).unwrap();
            let record = |length: usize, index| ChainRecord {
                chain_id: chains[length - 1],
                layers: published[..length].to_vec(),
                index,
            };
            for length in 1..layers.len() {
                session.publish_chain(&record(length, None))?;
            }
            let index = session.publish_index(chain_id, &tree)?;
            session.publish_chain(&record(layers.len(), Some(index.clone())))?;
            index
        }
    };
    Ok(ImageRecord {
        original: "docker.io/library/original:1".to_owned(),
        target: target.to_owned(),
        platform: "linux/amd64".to_owned(),
        original_digest: Digest::of(b"m"),
        target_digest: None,
        config_digest: Digest::of(b"c"),
        chain_id,
        index,
        diff_ids,
        compressed_size: 1,
        size: 1,
        inodes: 2,
        created: session.now(),
    })
}

/// The same where nothing is in the way.
pub(crate) fn convert(session: &Session, target: &str, layers: &[&[u8]]) -> ImageRecord {
    try_convert(session, target, layers).unwrap()
}

/// An image of these layers, of one file each.
pub(crate) fn add_image(store: &StoreReader, target: &str, layers: &[&[u8]]) -> ImageRecord {
    let session = Session::begin(store.clone()).unwrap();
    let record = convert(&session, target, layers);
    session.publish_image(&record).unwrap();
    record
}

/// An image of layers of several files.
pub(crate) fn add_layers(store: &StoreReader, target: &str, layers: &[Vec<&[u8]>]) -> ImageRecord {
    let session = Session::begin(store.clone()).unwrap();
    let record = try_convert_layers(&session, target, layers).unwrap();
    session.publish_image(&record).unwrap();
    record
}

/// `verify` finds nothing.
pub(crate) fn assert_clean(store: &StoreReader) {
    let report = verify(store, &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(report.problems, Vec::new());
}

/// Makes a file look older.
pub(crate) fn age(path: &Path, by: Duration) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

/// Only what would go.
pub(crate) fn dry_run() -> SweepOptions {
    SweepOptions {
        dry_run: true,
        ..SweepOptions::default()
    }
}
