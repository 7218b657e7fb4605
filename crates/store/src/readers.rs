//! Who may read contents that no index in the store names.
//!
//! A node reads what the index named that it mounted. gc knows of it by its lease, which names the chain: while that has
//! a record, live or retired, its indexes are in the store and count. What is left are those:
//!
//! - Who holds a chain of which the store has no record (it was deleted by force, or by who did not know of the holder), or
//!   of which an index is lost. Or a chain that had other indexes before ([`Layout::former_chain`]), as long as somebody
//!   holds it: it is not known which of them.
//! - Nodes whose leases somebody else writes, a cluster's agent: what they took shortly before an index went may not
//!   stand in a lease that was written before then.
//! - Everybody, where the store allows readers without a lease.

use std::collections::HashSet;

use uimgacc_types::ChainId;

use crate::clock::server_time;
use crate::error::SessionError;
use crate::reader::{ReadError, id_of, list_fanned, read_json, sound, unreadable};
use crate::record::FormerRecord;
use crate::workspace::Workspace;
use crate::{Layout, Lease, StoreReader};

/// Who writes the leases of others learns within so many seconds what these took: nodes of a cluster say so at once.
const BEHALF_SECONDS: u64 = 60;

/// Those readers.
#[derive(Debug, Default)]
pub(crate) struct UnknownReaders {
    /// Nothing may be given back because of them.
    holders: Vec<String>,
    /// The oldest of the leases that others write, and since when it may be out of date.
    oldest: Option<(String, u64)>,
    now: u64,
}

impl UnknownReaders {
    /// Finds them. What says that chains had other indexes goes where nobody can have those any more.
    pub(crate) fn find(
        reader: &StoreReader,
        workspace: Option<&Workspace>,
    ) -> Result<Self, SessionError> {
        let layout = reader.layout();
        let mut found = Self {
            now: server_time(layout),
            ..Self::default()
        };
        // As it is now: it may have been allowed since this store was opened.
        if StoreReader::open(layout.root())?.allows_unleased_readers() {
            found
                .holders
                .push("readers without a lease, which the store allows".to_owned());
        }
        let mut leases = crate::leases(layout)?;
        leases.retain(Lease::holds);
        let behalf = leases.iter().filter(|lease| lease.is_on_behalf());
        found.oldest = behalf
            .min_by_key(|lease| lease.renewed_unix)
            .map(|lease| (lease.holder.clone(), lease.renewed_unix));
        let held: HashSet<ChainId> = leases
            .iter()
            .flat_map(|lease| lease.chains.clone())
            .collect();
        let mut former = HashSet::new();
        for path in list_fanned(&layout.directory("chains"), "former")? {
            let chain_id = id_of(&path, |id| ChainId::from_hex(id).ok())?;
            let record = sound(read_json::<FormerRecord>(&path))?.flatten();
            let since = record.map_or(found.now, |record| record.since_unix);
            if held.contains(&chain_id) || found.wait(since).is_some() {
                former.insert(chain_id);
            } else if let Some(workspace) = workspace {
                workspace.remove(&path)?;
            }
        }
        for lease in leases {
            let mut is_unknown = lease.unknown > 0;
            for chain in &lease.chains {
                is_unknown = is_unknown || former.contains(chain) || !is_known(reader, *chain)?;
            }
            if is_unknown {
                found.holders.push(lease.holder);
            }
        }
        Ok(found)
    }

    /// `None` where nobody can read any more what went at `since`, in seconds since 1970; else how many seconds that lasts
    /// at least, 0 where it does not depend on time.
    pub(crate) fn wait(&self, since: u64) -> Option<u64> {
        let settled = since.saturating_add(BEHALF_SECONDS);
        let is_outdated = self
            .oldest
            .as_ref()
            .is_some_and(|(_, as_of)| *as_of < settled);
        let wait = settled.saturating_sub(self.now);
        match (self.holders.is_empty(), is_outdated) {
            (true, false) => None,
            (true, true) => Some(wait),
            (false, _) => Some(0),
        }
    }

    /// Who they are.
    pub(crate) fn names(self) -> Vec<String> {
        let mut names = self.holders;
        if names.is_empty() {
            let outdated = |(holder, _)| format!("{holder}, until its lease is written anew");
            names.extend(self.oldest.map(outdated));
        }
        names
    }
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
