//! The index of a prefix of images, stacked from the layers' own indexes.
//!
//! Memory: the trees of all its layers, some 200 bytes a file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use uimgacc_erofs::{Limits, Tree};
use uimgacc_store::{ChainLayer, ChainRecord, StoreReader, flatten};
use uimgacc_types::{Digest, PackId};

use super::{Checked, IndexError, MAX_INDEX_BYTES, check_count, device_table, failed};

/// Stacks the layers of `chain` and writes the index to `file`, whose path is for messages.
pub(super) fn write(
    store: &StoreReader,
    chain: &ChainRecord,
    file: &mut File,
    path: &Path,
) -> Result<Vec<PackId>, IndexError> {
    let layers: Vec<Tree> = chain
        .layers
        .iter()
        .map(|layer| read_layer(store, layer))
        .collect::<Result<_, _>>()?;
    let mut tree = flatten::flatten(&layers).map_err(|source| IndexError::Flatten {
        chain: chain.chain_id,
        source,
    })?;
    drop(layers);
    flatten::drop_unused_devices(&mut tree);
    let packs = device_table::of_devices(&tree.devices, path)?;
    check_count(chain, packs.len())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    uimgacc_erofs::write(&tree, &mut out).map_err(|source| IndexError::Write {
        path: path.to_owned(),
        source,
    })?;
    out.flush().map_err(failed("write", path))?;
    Ok(packs)
}

/// All packs that the layers of `chain` name, from their headers.
pub(super) fn packs(
    store: &StoreReader,
    chain: &ChainRecord,
    seen: &Checked,
) -> Result<Vec<PackId>, IndexError> {
    let mut packs = Vec::new();
    for layer in &chain.layers {
        packs.extend(seen.layer(store, layer)?);
    }
    packs.sort_unstable_by_key(PackId::hex);
    packs.dedup();
    Ok(packs)
}

fn read_layer(store: &StoreReader, layer: &ChainLayer) -> Result<Tree, IndexError> {
    let path = store.layout().layer(layer.diff_id);
    let bytes = path.read(MAX_INDEX_BYTES);
    let path = path.on_host();
    let bytes = bytes.map_err(failed("read", &path))?;
    let found = Digest::of(&bytes);
    if found != layer.index_digest {
        return Err(IndexError::WrongDigest {
            path,
            found,
            expected: layer.index_digest,
        });
    }
    uimgacc_erofs::read(&bytes, &Limits::default())
        .map_err(|source| IndexError::Unreadable { path, source })
}
