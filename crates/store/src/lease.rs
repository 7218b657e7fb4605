//! Leases: who has which chains mounted, where no Kubernetes API keeps that.
//!
//! A holder owns one file in `leases/` and replaces it whole. A lease does not run out by
//! itself: a node that is silent may still read. `delete --force` goes over leases; a lease of
//! this very machine from before its last boot holds nothing any more.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uimgacc_types::ChainId;

use crate::commit::{CommitError, replace_json};
use crate::reader::{ReadError, list, read_json};
use crate::{Layout, machine};

/// `leases/<name>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Shown to people: `node worker-3`, `mount /mnt/image on host x`.
    pub holder: String,
    /// The holder's host name.
    pub host: String,
    /// The host's boot id at the time (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The process that renews it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it holds.
    pub chains: Vec<ChainId>,
    /// Seconds since 1970 of the last renewal.
    pub renewed_unix: u64,
}

impl Lease {
    /// A lease of this machine and process, renewed now.
    #[must_use]
    pub fn of_this_machine(holder: String, chains: Vec<ChainId>) -> Self {
        Self {
            holder,
            host: machine::host_name(),
            boot_id: machine::boot_id(),
            pid: Some(std::process::id()),
            chains,
            renewed_unix: machine::unix_now(),
        }
    }

    /// A lease of a node of a cluster, renewed now, written on its behalf: it holds until it is
    /// taken away.
    #[must_use]
    pub fn of_a_node(node: &str, chains: Vec<ChainId>) -> Self {
        Self {
            holder: format!("node {node}"),
            host: String::new(),
            boot_id: String::new(),
            pid: None,
            chains,
            renewed_unix: machine::unix_now(),
        }
    }

    /// Whether it still holds: not where this very machine has booted since.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.host != machine::host_name() || self.boot_id == machine::boot_id()
    }
}

fn lease_path(layout: &Layout, name: &str) -> PathBuf {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
                c
            } else {
                '_'
            }
        })
        .collect();
    layout.leases().join(format!("{safe}.json"))
}

/// Writes (or replaces) the lease `name`.
///
/// # Errors
/// The file system's error; the older lease then still stands.
pub fn write_lease(layout: &Layout, name: &str, lease: &Lease) -> Result<(), CommitError> {
    replace_json(layout, &lease_path(layout, name), lease)
}

/// Takes the lease `name` away; it may be gone already.
///
/// # Errors
/// The file system's error.
pub fn remove_lease(layout: &Layout, name: &str) -> Result<(), CommitError> {
    crate::commit::remove_file(&lease_path(layout, name)).map(|_| ())
}

/// Every lease.
///
/// # Errors
/// The file system's error, or a damaged file.
pub fn leases(layout: &Layout) -> Result<Vec<Lease>, ReadError> {
    let mut found = Vec::new();
    for path in list(&layout.leases())? {
        if path.extension().is_some_and(|suffix| suffix == "json") {
            found.extend(read_json::<Lease>(&path)?);
        }
    }
    found.sort_by(|a, b| a.holder.cmp(&b.holder));
    Ok(found)
}
