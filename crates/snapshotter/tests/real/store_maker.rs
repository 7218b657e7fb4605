//! A store made by hand, so that what it holds can differ from what the registry has.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uimgacc_erofs::tree::{
    ChunkAddress, ChunkedContents, Contents, Device, Inode, InodeId, Kind, Tree,
};
use uimgacc_store::{
    ChainLayer, ChainRecord, FORMAT_VERSION, Features, IndexRecord, Layout, StoreRecord,
};
use uimgacc_types::{Digest, PackId, chain_ids};

const BLOCK: usize = 4096;

pub(crate) struct StoreMaker {
    dir: TempDir,
    layout: Layout,
}

/// A layer's tree with one pack.
pub(crate) struct Layer {
    pub(crate) diff_id: String,
    tree: Tree,
    pack: Vec<u8>,
    id: PackId,
}

impl Layer {
    pub(crate) fn new(diff_id: &str) -> Self {
        let id = PackId::from_bytes(*Digest::of(diff_id.as_bytes()).as_bytes());
        let mut tree = Tree::new();
        let mut tag = [0; 64];
        tag.copy_from_slice(id.hex().as_bytes());
        tree.devices.push(Device { tag, blocks: 0 });
        Self {
            diff_id: diff_id.to_owned(),
            tree,
            pack: Vec::new(),
            id,
        }
    }

    /// The same layer, with its bytes in a pack of another name.
    pub(crate) fn with_pack(mut self, name: &str) -> Self {
        self.id = PackId::from_bytes(*Digest::of(name.as_bytes()).as_bytes());
        self.tree.devices[0]
            .tag
            .copy_from_slice(self.id.hex().as_bytes());
        self
    }

    fn folder(&mut self, path: &Path) -> InodeId {
        let mut at = Tree::ROOT;
        for name in path {
            let name = name.as_encoded_bytes();
            let known = self.tree.inode(at).entries().unwrap().get(name).copied();
            at = known.unwrap_or_else(|| {
                let new = self.tree.add(Inode::empty_directory()).unwrap();
                let entries = self.tree.inode_mut(at).entries_mut().unwrap();
                entries.insert(name.into(), new);
                new
            });
        }
        at
    }

    fn add(&mut self, path: &str, permissions: u16, kind: Kind) {
        let path = Path::new(path);
        let folder = self.folder(path.parent().unwrap());
        let inode = Inode {
            permissions,
            kind,
            ..Inode::empty_directory()
        };
        let id = self.tree.add(inode).unwrap();
        let name = path.file_name().unwrap().as_encoded_bytes();
        let entries = self.tree.inode_mut(folder).entries_mut().unwrap();
        entries.insert(name.into(), id);
    }

    pub(crate) fn empty_folder(mut self, path: &str) -> Self {
        self.folder(Path::new(path));
        self
    }

    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        self.add(path, 0o777, Kind::Symlink(target.as_bytes().into()));
        self
    }

    /// A file whose bytes lie in the pack.
    pub(crate) fn file(mut self, path: &str, permissions: u16, bytes: &[u8]) -> Self {
        let start_block = u32::try_from(self.pack.len() / BLOCK).unwrap();
        self.pack.extend_from_slice(bytes);
        self.pack.resize(self.pack.len().next_multiple_of(BLOCK), 0);
        self.tree.devices[0].blocks = u32::try_from(self.pack.len() / BLOCK).unwrap();
        let size = u64::try_from(bytes.len()).unwrap();
        let chunk_log2 = size.next_power_of_two().trailing_zeros().max(12);
        let chunks = ChunkedContents {
            size_bytes: size,
            chunk_log2: u8::try_from(chunk_log2).unwrap(),
            chunks: vec![Some(ChunkAddress {
                device: 0,
                start_block,
            })],
        };
        self.add(path, permissions, Kind::Regular(Contents::Chunks(chunks)));
        self
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn index(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    uimgacc_erofs::write(tree, &mut bytes).unwrap();
    bytes
}

impl StoreMaker {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-store-")
            .tempdir()
            .unwrap();
        let layout = Layout::new(dir.path());
        for folder in [layout.tmp().on_host(), layout.leases().on_host()] {
            fs::create_dir(folder).unwrap();
        }
        let store = Self { dir, layout };
        store.write_record();
        store
    }

    /// Writes `store.json`.
    pub(crate) fn write_record(&self) {
        let record = StoreRecord {
            format_version: FORMAT_VERSION,
            features: Features::default(),
            store_id: "0".repeat(32),
            created: "2026-01-01T00:00:00Z".to_owned(),
        };
        write(
            &self.layout.store_json().on_host(),
            &serde_json::to_vec(&record).unwrap(),
        );
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The pack of the layer whose diff ID is the digest of `name`.
    pub(crate) fn pack_file(&self, name: &str) -> PathBuf {
        let layer = Layer::new(&Digest::of(name.as_bytes()).to_string());
        self.layout.pack(layer.id).on_host()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn leases(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.layout.leases().on_host()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    pub(crate) fn index_file(&self, chain: &str) -> PathBuf {
        self.layout.index(chain.parse().unwrap()).on_host()
    }

    /// Adds an image with every prefix; only the whole image is flattened.
    pub(crate) fn add(&self, layers: &[Layer]) {
        let diff_ids: Vec<_> = layers.iter().map(|l| l.diff_id.parse().unwrap()).collect();
        let mut records = Vec::new();
        for (layer, diff_id) in layers.iter().zip(&diff_ids) {
            let bytes = index(&layer.tree);
            write(&self.layout.layer(*diff_id).on_host(), &bytes);
            write(&self.layout.pack(layer.id).on_host(), &layer.pack);
            records.push(ChainLayer {
                diff_id: *diff_id,
                index_digest: Digest::of(&bytes),
            });
        }
        let chains = chain_ids(&diff_ids);
        for (number, chain_id) in (1..).zip(&chains) {
            let index = (number == layers.len()).then(|| self.flatten(*chain_id, layers));
            let record = ChainRecord {
                chain_id: *chain_id,
                layers: records[..number].to_vec(),
                index,
            };
            write(
                &self.layout.chain(*chain_id).on_host(),
                &serde_json::to_vec(&record).unwrap(),
            );
        }
    }

    fn flatten(&self, chain: uimgacc_types::ChainId, layers: &[Layer]) -> IndexRecord {
        let trees: Vec<Tree> = layers.iter().map(|layer| layer.tree.clone()).collect();
        let mut tree = uimgacc_store::flatten::flatten(&trees).unwrap();
        uimgacc_store::flatten::drop_unused_devices(&mut tree);
        let bytes = index(&tree);
        write(&self.layout.index(chain).on_host(), &bytes);
        let tags = tree.devices.iter().map(|device| &device.tag);
        IndexRecord {
            digest: Digest::of(&bytes),
            size: bytes.len().try_into().unwrap(),
            packs: tags
                .map(|tag| PackId::from_hex(std::str::from_utf8(tag).unwrap()).unwrap())
                .collect(),
        }
    }
}
