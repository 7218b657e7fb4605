//! How a node is set up, as one type from the `ImageAcceleration` to the node installer.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Fallback, ImageAccelerationSpec, NodePaths, Originals, StartsSpec, StoreSpec};

/// The settings of the node installer; its parts are those of [`ImageAccelerationSpec`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSettings {
    /// Where the store is.
    pub store: StoreSpec,
    /// What to do when the store cannot be reached.
    pub fallback: Fallback,
    /// What to do with originals.
    pub originals: Originals,
    /// How images are read ahead.
    pub starts: StartsSpec,
    /// Where things are on the node.
    pub paths: NodePaths,
}

impl From<&ImageAccelerationSpec> for NodeSettings {
    fn from(spec: &ImageAccelerationSpec) -> Self {
        Self {
            store: spec.store.clone(),
            fallback: spec.fallback,
            originals: spec.originals,
            starts: spec.starts.clone(),
            paths: spec.node_paths.clone(),
        }
    }
}

/// From JSON, as the arguments of the installer's container have it.
impl FromStr for NodeSettings {
    type Err = serde_json::Error;

    fn from_str(json: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(json)
    }
}

impl NodeSettings {
    /// The store as the daemon's configuration names it: a [`uimgacc_types::StoreSource`].
    #[must_use]
    pub fn daemon_store(&self) -> String {
        match (&self.store.nfs, &self.store.host_path) {
            (Some(nfs), _) => nfs.address().source(),
            (None, Some(host_path)) => host_path.path.clone(),
            (None, None) => self.claim_on_host(),
        }
    }

    /// Where the host has the mount of a claim.
    #[must_use]
    pub fn claim_on_host(&self) -> String {
        format!("{}/store", self.paths.run_dir)
    }

    /// The daemon's keys that differ from its defaults, each with its value.
    #[must_use]
    pub fn daemon_keys(&self) -> Vec<(String, String)> {
        let mut keys = self.starts.keys();
        // The agent's Jobs write the leases.
        keys.push(("leases", "cluster".to_owned()));
        if self.originals == Originals::TargetsOnly {
            keys.push(("original_images", "unpack".to_owned()));
        }
        if self.fallback == Fallback::Fail {
            keys.push(("fallback", "fail".to_owned()));
        }
        let text = |(key, value): (&str, String)| (key.to_owned(), value);
        keys.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(spec: serde_json::Value) -> NodeSettings {
        let mut all = json!({"image": "i"});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let spec: ImageAccelerationSpec = serde_json::from_value(all).unwrap();
        let settings = NodeSettings::from(&spec);
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(json.parse::<NodeSettings>().unwrap(), settings);
        settings
    }

    #[test]
    fn the_store_of_the_daemon() {
        let nfs = settings(json!({"store": {"nfs": {
            "servers": ["10.0.0.1", "fd00::1"], "path": "/a b?", "options": "vers=3,nolock",
        }}}));
        assert_eq!(
            nfs.daemon_store(),
            "nfs://10.0.0.1,[fd00::1]/a%20b%3F?vers=3,nolock"
        );
        let host_path = settings(json!({"store": {"hostPath": {"path": "/mnt/ceph"}}}));
        assert_eq!(host_path.daemon_store(), "/mnt/ceph");
        let claim = settings(json!({
            "store": {"persistentVolumeClaim": {"claimName": "store"}},
            "nodePaths": {"runDir": "/run/x"},
        }));
        assert_eq!(claim.daemon_store(), "/run/x/store");
    }

    #[test]
    fn keys_of_the_daemon() {
        let store = json!({"hostPath": {"path": "/s"}});
        let plain = settings(json!({"store": store, "starts": {"record": false}}));
        assert_eq!(
            plain.daemon_keys(),
            [("leases".to_owned(), "cluster".to_owned())]
        );
        let all = settings(json!({
            "store": store,
            "fallback": "Fail",
            "originals": "TargetsOnly",
            "starts": {"startReadAheadKb": 8, "fetchReaders": 4},
        }));
        let keys: Vec<String> = all
            .daemon_keys()
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            keys,
            [
                "record_starts=true",
                "start_read_ahead_kb=8",
                "fetch_readers=4",
                "leases=cluster",
                "original_images=unpack",
                "fallback=fail",
            ]
        );
        assert!("{}".parse::<NodeSettings>().is_err());
    }
}
