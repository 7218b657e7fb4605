//! Which chains the store has records of.

use uimgacc_types::ChainId;

use crate::layout::Layout;
use crate::reader::{ReadError, list_fanned};

/// The chain IDs of all live and retired records; what has another name is left out.
///
/// # Errors
/// A directory cannot be read.
pub fn known_chains(layout: &Layout) -> Result<Vec<ChainId>, ReadError> {
    let folder = layout.directory("chains");
    let mut chains = Vec::new();
    // Live ones first: a record that is retired meanwhile is found in the second listing.
    for suffix in ["json", "retired"] {
        let files = list_fanned(&folder, suffix)?;
        let names = files.iter().filter_map(|path| path.stem());
        chains.extend(names.filter_map(|name| ChainId::from_hex(name).ok()));
    }
    Ok(chains)
}
