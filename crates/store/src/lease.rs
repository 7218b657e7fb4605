//! Leases: who has which chains mounted, where no Kubernetes API keeps that.
//!
//! A holder owns one file in `leases/` and replaces it whole. A lease does not run out by
//! itself: a node that is silent may still read. `delete --force` goes over leases; a lease of
//! this very machine from before its last boot holds nothing any more.
//!
//! A holder writes its lease first and looks the chain up then. gc and delete take a chain's record
//! away first and look at the leases then. So of the two at least one sees the other: a holder
//! that still finds the record may count on all that it names.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uimgacc_types::ChainId;

use crate::clock::server_now;
use crate::commit::{CommitError, replace_json};
use crate::path::StorePath;
use crate::reader::{ReadError, StoreReader, list, read_json};
use crate::{Layout, machine};

/// `leases/<name>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Shown to people: `node worker-3`, `mount /mnt/image on host x`.
    pub holder: String,
    /// The holder's host name.
    pub host: String,
    /// Identifies the machine whatever its name is: 32 hex digits, a hash. Without one the lease
    /// holds until it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The host's boot id at the time (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The process that renews it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it holds.
    pub chains: Vec<ChainId>,
    /// How many chains it holds besides, of which the store has no record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u64,
    /// Seconds since 1970 of the last renewal. Where somebody else than the holder writes it: since when by the file
    /// server's clock it may be out of date.
    pub renewed_unix: u64,
}

impl Lease {
    /// A lease of this machine and process, renewed now. The machine is known by its
    /// `/etc/machine-id`.
    #[must_use]
    pub fn of_this_machine(holder: String, chains: Vec<ChainId>) -> Self {
        Self::with_machine(holder, chains, machine::machine_id())
    }

    /// Like [`Self::of_this_machine`]; where there is no `/etc/machine-id`, the machine is known by
    /// a random id in `id_file`, made at the first call.
    #[must_use]
    pub fn of_machine_with(holder: String, chains: Vec<ChainId>, id_file: &Path) -> Self {
        Self::with_machine(holder, chains, machine::machine_id_or(id_file))
    }

    fn with_machine(holder: String, chains: Vec<ChainId>, machine: Option<String>) -> Self {
        Self {
            holder,
            host: machine::host_name(),
            machine,
            boot_id: machine::boot_id(),
            pid: Some(std::process::id()),
            chains,
            unknown: 0,
            renewed_unix: machine::unix_now(),
        }
    }

    /// A lease of a node of a cluster, written on its behalf: it holds until it is removed. `unknown` chains are those of
    /// which the store has no record, and `as_of_unix` is when the node was asked, by [`crate::server_time`].
    #[must_use]
    pub fn of_a_node(node: &str, chains: Vec<ChainId>, unknown: u64, as_of_unix: u64) -> Self {
        Self {
            holder: format!("node {node}"),
            host: String::new(),
            machine: None,
            boot_id: String::new(),
            pid: None,
            chains,
            unknown,
            renewed_unix: as_of_unix,
        }
    }

    /// The lease of a cluster which has nodes that write none: as long as it is there, they may hold more than their
    /// leases say. See [`Self::of_a_node`].
    #[must_use]
    pub fn of_a_cluster(cluster: &str, as_of_unix: u64) -> Self {
        Self {
            holder: format!("cluster {cluster}"),
            ..Self::of_a_node("", Vec::new(), 0, as_of_unix)
        }
    }

    /// Whether somebody else writes it than its holder.
    pub(crate) fn is_on_behalf(&self) -> bool {
        self.pid.is_none() && self.boot_id.is_empty()
    }

    /// Whether it still holds: not where this very machine has booted since.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds_for(
            machine::machine_id().as_deref(),
            &machine::host_name(),
            &machine::boot_id(),
        )
    }

    /// Copies of a machine may share an id: so a lease ends only where the host's name agrees as
    /// well.
    fn holds_for(&self, machine: Option<&str>, host: &str, boot_id: &str) -> bool {
        let is_ours = machine.is_some() && self.machine.as_deref() == machine && self.host == host;
        !is_ours || boot_id.is_empty() || self.boot_id == boot_id
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn lease_path(layout: &Layout, name: &str) -> StorePath {
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

/// A file of `leases/` that is a lease by its name.
#[derive(Debug)]
pub struct LeaseFile {
    /// What names it: the file's name without its suffix.
    pub name: String,
    /// Where it is.
    pub path: StorePath,
    /// When it was written, by the file server's clock: the last renewal.
    pub written: Option<SystemTime>,
    /// What it says; [`ReadError::BrokenLease`] where that cannot be read.
    pub lease: Result<Lease, ReadError>,
}

/// Whether a name in `leases/` is a lease's. Others (copies that editors leave, files that an NFS client
/// keeps for a process that has them open) hold nothing.
pub(crate) fn is_lease(path: &StorePath) -> bool {
    path.has_suffix("json") && path.name().is_none_or(|name| !name.starts_with('.'))
}

/// Every lease, readable or not, in the order of their names.
///
/// # Errors
/// The directory cannot be read.
pub fn lease_files(layout: &Layout) -> Result<Vec<LeaseFile>, ReadError> {
    let mut files = Vec::new();
    for path in list(&layout.leases())?.into_iter().filter(is_lease) {
        let host = path.on_host();
        let name = host
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let lease = match read_json::<Lease>(&path) {
            // It was taken away since the listing.
            Ok(None) => continue,
            Ok(Some(lease)) => Ok(lease),
            Err(error) => Err(ReadError::BrokenLease {
                path: host,
                name: name.clone(),
                source: Box::new(error),
            }),
        };
        files.push(LeaseFile {
            written: path.facts().ok().map(|facts| facts.modified),
            name,
            path,
            lease,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Every lease.
///
/// # Errors
/// The file system's error, or one that cannot be read: what it holds is not known.
pub fn leases(layout: &Layout) -> Result<Vec<Lease>, ReadError> {
    let mut found = lease_files(layout)?
        .into_iter()
        .map(|file| file.lease)
        .collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|a, b| a.holder.cmp(&b.holder));
    Ok(found)
}

/// Within this time after its last renewal a lease has a holder that lives: nodes renew theirs every
/// minute.
const RECENT: Duration = Duration::from_secs(600);

/// Why a lease was not dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropLeaseError {
    /// There is none of that name.
    #[error("there is no lease {0} in the store (`uimgacc store lease list` shows all)")]
    NoLease(String),
    /// Its holder lives.
    #[error(
        "the lease {name} was written {} seconds ago, so its holder is at work: stop what uses it, or drop it with --force", .age.as_secs()
    )]
    Recent {
        /// The lease.
        name: String,
        /// How long ago it was renewed.
        age: Duration,
    },
    /// The leases cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file cannot be removed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Removes the lease `name` of somebody else, whatever stands under its name; says what it was.
/// Without `force` only one that was not renewed for ten minutes.
///
/// # Errors
/// There is none, its holder is at work, or the file system's error.
pub fn drop_lease(layout: &Layout, name: &str, force: bool) -> Result<LeaseFile, DropLeaseError> {
    let name = name.strip_suffix(".json").unwrap_or(name);
    let file = lease_files(layout)?
        .into_iter()
        .find(|file| file.name == name)
        .ok_or_else(|| DropLeaseError::NoLease(name.to_owned()))?;
    let now = server_now(layout).unwrap_or_else(SystemTime::now);
    if let Some(written) = file.written
        && !force
    {
        // A time ahead of the server's clock counts as fresh.
        let age = now.duration_since(written).unwrap_or_default();
        if age < RECENT {
            let name = name.to_owned();
            return Err(DropLeaseError::Recent { name, age });
        }
    }
    crate::commit::remove_file(&file.path)?;
    Ok(file)
}

/// Who holds one of these chains.
///
/// # Errors
/// The file system's error, or a damaged lease.
pub fn holders(reader: &StoreReader, chains: &[ChainId]) -> Result<Vec<String>, ReadError> {
    Ok(leases(reader.layout())?
        .into_iter()
        .filter(|lease| lease.holds() && lease.chains.iter().any(|chain| chains.contains(chain)))
        .map(|lease| lease.holder)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_older_boot_of_the_same_machine_ends_a_lease() {
        let lease = |machine: Option<&str>| Lease {
            holder: "n".to_owned(),
            host: "same-name".to_owned(),
            machine: machine.map(str::to_owned),
            boot_id: "first".to_owned(),
            pid: None,
            chains: Vec::new(),
            unknown: 0,
            renewed_unix: 0,
        };
        let holds = |machine, own, host, boot| lease(machine).holds_for(own, host, boot);
        assert!(!holds(Some("a"), Some("a"), "same-name", "second"));
        assert!(holds(Some("a"), Some("a"), "same-name", "first"));
        // Another machine of that name, one without an id, a lease without one, a copied id.
        assert!(holds(Some("a"), Some("b"), "same-name", "second"));
        assert!(holds(Some("a"), None, "same-name", "second"));
        assert!(holds(None, Some("a"), "same-name", "second"));
        assert!(holds(None, None, "same-name", "second"));
        assert!(holds(Some("a"), Some("a"), "other-name", "second"));
        assert!(holds(Some("a"), Some("a"), "same-name", ""));
    }

    #[test]
    fn leases_of_before_are_read_and_hold() {
        let old = r#"{"holder":"n","host":"h","boot_id":"b","chains":[],"renewed_unix":1}"#;
        let lease: Lease = serde_json::from_str(old).unwrap();
        assert!(lease.machine.is_none() && lease.holds());
    }
}
