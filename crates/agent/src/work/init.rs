//! `work init`: makes the store, and proves that it can be written.

use std::path::Path;

use anyhow::Context as _;
use uimgacc_store::StoreReader;

use super::failure::Failure;

pub(super) fn run(root: &Path) -> Result<StoreReader, Failure> {
    let (store, is_new) = uimgacc_store::init(root).map_err(Failure::retried)?;
    prove(&store).map_err(Failure::retried)?;
    let id = store.store_id();
    tracing::info!(store = id, is_new, "the store can be written");
    Ok(store)
}

/// Writes, syncs and removes a file: a store that was there may be read-only or full now.
fn prove(store: &StoreReader) -> anyhow::Result<()> {
    uimgacc_store::prove_writable(store.layout()).with_context(|| {
        format!(
            "the store {} cannot be written: check its export, its owner and its space",
            store.layout().root().display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_is_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = run(folder.path()).unwrap();
        let second = run(folder.path()).unwrap();
        assert_eq!(first.store_id(), second.store_id());
        assert_eq!(
            std::fs::read_dir(folder.path().join("tmp"))
                .unwrap()
                .count(),
            0
        );
    }
}
