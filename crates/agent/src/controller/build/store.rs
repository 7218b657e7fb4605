//! How a store reaches a container: as an argument, or as a volume.

use serde_json::{Value, json};
use uimgacc_objects::{NfsStore, StoreSpec};

/// Where volumes of the store are mounted.
pub(super) const FOLDER: &str = "/store";

/// The source of a store on NFS: `nfs://server,server/path?options`.
pub(super) fn source(nfs: &NfsStore) -> String {
    let servers = nfs
        .servers
        .iter()
        .map(|server| server_text(server))
        .collect::<Vec<_>>()
        .join(",");
    let path = encode(&nfs.path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let options = if nfs.options.is_empty() {
        String::new()
    } else {
        format!("?{}", nfs.options)
    };
    format!("nfs://{servers}{slash}{path}{options}")
}

/// An address of IPv6 stands in brackets.
fn server_text(server: &str) -> String {
    match server.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{server}]"),
        Err(_) => server.to_owned(),
    }
}

/// What would end a path within a URL is escaped.
fn encode(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3F".to_owned(),
            '#' => "%23".to_owned(),
            ' ' => "%20".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

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
