//! How a store reaches a container: as an argument, or as a volume.

use serde_json::{Value, json};
use uimgacc_objects::StoreSpec;

/// Where volumes of the store are mounted.
pub(super) const FOLDER: &str = "/store";

/// The volume of a store that is one; `kind` is the type of a folder of the host.
pub(super) fn volume(store: &StoreSpec, kind: &str) -> Option<Value> {
    if let Some(claim) = &store.persistent_volume_claim {
        return Some(json!({
            "name": "store",
            "persistentVolumeClaim": {"claimName": claim.claim_name},
        }));
    }
    let folder = store.host_path.as_ref()?;
    Some(json!({"name": "store", "hostPath": {"path": folder.path, "type": kind}}))
}
