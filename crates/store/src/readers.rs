//! Who may read contents that no index in the store names.
//!
//! A node reads what the index named that it mounted. gc knows of it by its lease, which names the chain: while that has
//! a record, live or retired, its indexes are in the store and count. What is left are those:
//!
//! - Who holds a chain of which the store has no record (it was deleted by force, or by who did not know of the holder), or
//!   of which an index is lost. Or a chain that had other indexes before ([`Layout::former_chain`]), as long as somebody
//!   holds it: it is not known which of them.
//! - Nodes whose leases somebody else writes, a cluster's agent: what they took since the agent heard of them last stands
//!   in no lease, and a lease does not say which index of a chain they have mounted.
//! - Everybody, where the store allows readers without a lease.

use std::collections::HashSet;

use uimgacc_types::ChainId;

use crate::error::SessionError;
use crate::reader::{ReadError, id_of, list_fanned, unreadable};
use crate::workspace::Workspace;
use crate::{Layout, Lease, StoreReader};

/// Finds them: nothing may be given back because of them. What says that chains had other indexes goes where nobody can
/// have those any more.
pub(crate) fn unknown_readers(
    reader: &StoreReader,
    workspace: Option<&Workspace>,
) -> Result<Vec<String>, SessionError> {
    let layout = reader.layout();
    let mut found = Vec::new();
    // As it is now: it may have been allowed since this store was opened.
    if StoreReader::open(layout.root())?.allows_unleased_readers() {
        found.push("readers without a lease, which the store allows".to_owned());
    }
    let mut leases = crate::leases(layout)?;
    leases.retain(Lease::holds);
    let held: HashSet<ChainId> = leases
        .iter()
        .flat_map(|lease| lease.chains.clone())
        .collect();
    let is_all_known = leases
        .iter()
        .all(|lease| lease.unknown == 0 && !lease.is_on_behalf());
    let mut former = HashSet::new();
    for path in list_fanned(&layout.directory("chains"), "former")? {
        let chain_id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
        if held.contains(&chain_id) || !is_all_known {
            former.insert(chain_id);
        } else if let Some(workspace) = workspace {
            workspace.remove(&path)?;
        }
    }
    for lease in leases {
        let mut is_unknown = lease.unknown > 0 || lease.is_on_behalf();
        for chain in &lease.chains {
            is_unknown = is_unknown || former.contains(chain) || !is_known(reader, *chain)?;
        }
        if is_unknown {
            found.push(lease.holder);
        }
    }
    Ok(found)
}

/// Whether the store has a record of the chain, and every index that its records name.
fn is_known(reader: &StoreReader, chain_id: ChainId) -> Result<bool, ReadError> {
    let layout: &Layout = reader.layout();
    let records = [reader.chain(chain_id)?, reader.retired_chain(chain_id)?];
    for record in records.iter().flatten() {
        let index = record.index.iter().map(|_| layout.index(chain_id));
        let layers = record
            .layers
            .iter()
            .map(|layer| layout.layer(layer.diff_id));
        for path in index.chain(layers) {
            if !path.exists().map_err(unreadable(&path))? {
                return Ok(false);
            }
        }
    }
    Ok(records.iter().any(Option::is_some))
}
