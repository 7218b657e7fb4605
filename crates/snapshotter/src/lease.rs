//! What this node tells the store: which chains it holds.
//!
//! Best effort and in the background: a store that is read-only or away never delays a request.
//! `uimgacc delete` reads the lease and refuses to delete what a node still has.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uimgacc_store::{Lease, StoreReader, remove_lease, write_lease};
use uimgacc_types::{ChainId, Digest};

use crate::error::chain_text;
use crate::node::Node;

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(60);
/// Changes that come together are written together.
const PAUSE: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(30);

/// Keeps the lease of a node as it should be, for ever.
pub async fn keep(node: Arc<Node>) {
    let name = lease_name(node.root());
    let mut written: Option<Vec<ChainId>> = None;
    loop {
        let chains = node.held_chains();
        // Also at the start, when an earlier process may have left one: empty or not.
        if !(chains.is_empty() && written.as_ref().is_some_and(Vec::is_empty)) {
            match write(&node, name.clone(), chains.clone()).await {
                Ok(()) => written = Some(chains),
                Err(error) => {
                    tracing::debug!(error, "the store takes no lease");
                    // Told to nobody, so not to be taken back either.
                    written = Some(Vec::new());
                }
            }
        }
        tokio::select! {
            () = node.chains_changed() => tokio::time::sleep(PAUSE).await,
            () = tokio::time::sleep(RENEWAL) => {}
        }
    }
}

async fn write(node: &Node, name: String, chains: Vec<ChainId>) -> Result<(), String> {
    let write = node.store().run(DEADLINE, move |store| {
        // Where the store was unmounted, its folder must not be filled on the node's own disk.
        let store = StoreReader::open(store.layout().root())?;
        let result = if chains.is_empty() {
            remove_lease(store.layout(), &name)
        } else {
            let host = rustix::system::uname();
            let holder = format!("node {}", host.nodename().to_string_lossy());
            let lease = Lease::of_this_machine(holder, chains);
            write_lease(store.layout(), &name, &lease)
        };
        Ok(result.map_err(|error| chain_text(&error)))
    });
    write.await.map_err(|error| chain_text(&error))?
}

/// One per machine and folder: two snapshotters of one machine must not share a lease.
fn lease_name(root: &Path) -> String {
    let host = rustix::system::uname();
    let digest = Digest::of(root.as_os_str().as_bytes()).hex();
    let short = digest.get(..8).unwrap_or_default().to_owned();
    format!("node-{}-{short}", host.nodename().to_string_lossy())
}
