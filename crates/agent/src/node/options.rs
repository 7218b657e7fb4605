//! The options of `uimgacc-agent node`, and how they follow from an [`ImageAcceleration`]'s spec.
//!
//! [`ImageAcceleration`]: uimgacc_objects::ImageAcceleration

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use uimgacc_objects::{Fallback, ImageAccelerationSpec, NfsStore, NodePaths, Originals};

/// Where a claim is mounted in the Pod.
pub const CLAIM_FOLDER: &str = "/store";

/// Options.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// This node's name
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,
    /// The store as the host reaches it: nfs://SERVER[,SERVER]/PATH[?OPTIONS], or a folder of the host
    #[arg(
        long,
        env = "UIMGACC_STORE",
        value_name = "STORE",
        required_unless_present = "store_volume"
    )]
    pub store: Option<String>,
    /// Where this Pod has the claim mounted that is the store; the host gets the mount in its --run-dir
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    pub store_volume: Option<PathBuf>,
    /// What is done while the store cannot be reached: Registry or Fail
    #[arg(long, value_name = "POLICY", default_value = "Registry", value_parser = word::<Fallback>)]
    pub fallback: Fallback,
    /// Whether images pulled by their original name start from the store: Accelerate or TargetsOnly
    #[arg(long, value_name = "POLICY", default_value = "Accelerate", value_parser = word::<Originals>)]
    pub originals: Originals,
    /// Seconds that the node may be unfit before its labels go
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub patience: u64,
    /// The host's root folder
    #[arg(long, value_name = "DIR", default_value = "/proc/1/root")]
    pub host_root: PathBuf,
    /// Where things are on the host
    #[command(flatten)]
    pub paths: Paths,
}

/// Where things are on the host; see [`NodePaths`].
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Paths {
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value_t = NodePaths::default().containerd_config)]
    pub containerd_config: String,
    /// containerd's socket
    #[arg(long, value_name = "SOCKET", default_value_t = NodePaths::default().containerd_socket)]
    pub containerd_socket: String,
    /// containerd's program
    #[arg(long, value_name = "FILE", default_value_t = NodePaths::default().containerd_binary)]
    pub containerd_binary: String,
    /// A word of the command that restarts containerd (repeated); without any, systemctl restart containerd
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub containerd_restart: Vec<String>,
    /// Folder for our programs
    #[arg(long, value_name = "DIR", default_value_t = NodePaths::default().bin_dir)]
    pub bin_dir: String,
    /// Folder of the snapshotter, on a local disk
    #[arg(long, value_name = "DIR", default_value_t = NodePaths::default().root_dir)]
    pub root_dir: String,
    /// Folder of sockets
    #[arg(long, value_name = "DIR", default_value_t = NodePaths::default().run_dir)]
    pub run_dir: String,
    /// Folder of our configuration
    #[arg(long, value_name = "DIR", default_value_t = NodePaths::default().config_dir)]
    pub config_dir: String,
}

impl Options {
    /// The store as the daemon is told it.
    #[must_use]
    pub fn daemon_store(&self) -> String {
        match &self.store {
            Some(store) => store.clone(),
            None => self.volume_on_host(),
        }
    }

    /// Where the host has the mount of a claim.
    #[must_use]
    pub fn volume_on_host(&self) -> String {
        format!("{}/store", self.paths.run_dir)
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

/// A word as the objects have it.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

/// The arguments of the container, `node` first, for a cluster that is accelerated like this. The
/// name of the node comes by the environment.
#[must_use]
pub fn arguments(spec: &ImageAccelerationSpec) -> Vec<String> {
    let mut words = vec!["node".to_owned()];
    let mut add = |name: &str, value: &str| words.push(format!("--{name}={value}"));
    let store = &spec.store;
    match (&store.nfs, &store.host_path) {
        (Some(nfs), _) => add("store", &nfs_source(nfs)),
        (None, Some(host_path)) => add("store", &host_path.path),
        (None, None) => add("store-volume", CLAIM_FOLDER),
    }
    // Debug of a unit variant is its name, as serde writes it.
    add("fallback", &format!("{:?}", spec.fallback));
    add("originals", &format!("{:?}", spec.originals));
    let paths = &spec.node_paths;
    add("containerd-config", &paths.containerd_config);
    add("containerd-socket", &paths.containerd_socket);
    add("containerd-binary", &paths.containerd_binary);
    for word in &paths.containerd_restart {
        add("containerd-restart", word);
    }
    add("bin-dir", &paths.bin_dir);
    add("root-dir", &paths.root_dir);
    add("run-dir", &paths.run_dir);
    add("config-dir", &paths.config_dir);
    words
}

/// The address of an NFS store, as every part of ours takes it: `nfs://a,b/path?opts`.
#[must_use]
pub fn nfs_source(nfs: &NfsStore) -> String {
    let servers = nfs.servers.join(",");
    let mut source = format!("nfs://{servers}/{}", nfs.path.trim_start_matches('/'));
    if !nfs.options.is_empty() {
        source = source + "?" + &nfs.options;
    }
    source
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use uimgacc_objects::{ClaimStore, HostPathStore, StoreSpec};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(spec: &ImageAccelerationSpec) -> Options {
        let words = [arguments(spec), vec!["--node-name=n".to_owned()]].concat();
        Program::try_parse_from(words).unwrap().options
    }

    fn spec(store: &str) -> ImageAccelerationSpec {
        serde_json::from_str(&format!("{{\"image\": \"i\", \"store\": {store}}}")).unwrap()
    }

    #[test]
    fn arguments_say_all_of_the_spec() {
        let mut spec =
            spec(r#"{"nfs": {"servers": ["a", "b"], "path": "/x/y", "options": "vers=3,nolock"}}"#);
        let options = parsed(&spec);
        assert_eq!(options.daemon_store(), "nfs://a,b/x/y?vers=3,nolock");
        assert_eq!(options.fallback, Fallback::Registry);
        assert_eq!(options.originals, Originals::Accelerate);
        assert_eq!(
            options.paths.containerd_socket,
            "/run/containerd/containerd.sock"
        );
        spec.fallback = Fallback::Fail;
        spec.originals = Originals::TargetsOnly;
        spec.node_paths.containerd_restart = vec!["rc-service".to_owned(), "--x y".to_owned()];
        spec.node_paths.run_dir = "/run/x".to_owned();
        spec.store = StoreSpec {
            host_path: Some(HostPathStore {
                path: "/mnt/s".to_owned(),
            }),
            ..StoreSpec::default()
        };
        let options = parsed(&spec);
        assert_eq!(options.daemon_store(), "/mnt/s");
        assert_eq!(options.fallback, Fallback::Fail);
        assert_eq!(options.originals, Originals::TargetsOnly);
        assert_eq!(options.paths.containerd_restart, ["rc-service", "--x y"]);
        spec.store = StoreSpec {
            persistent_volume_claim: Some(ClaimStore {
                claim_name: "c".to_owned(),
            }),
            ..StoreSpec::default()
        };
        let options = parsed(&spec);
        assert_eq!(options.store_volume, Some(CLAIM_FOLDER.into()));
        assert_eq!(options.daemon_store(), "/run/x/store");
    }

    #[test]
    fn an_export_without_path_or_options_is_a_source() {
        let spec = spec(r#"{"nfs": {"servers": ["10.0.0.1"]}}"#);
        assert_eq!(parsed(&spec).daemon_store(), "nfs://10.0.0.1/");
    }

    #[test]
    fn a_word_that_is_none_is_refused() {
        let words = ["node", "--node-name=n", "--store=/s", "--fallback=maybe"];
        let error = Program::try_parse_from(words).unwrap_err().to_string();
        assert!(error.contains("maybe"), "{error}");
        assert!(Program::try_parse_from(["node", "--node-name=n"]).is_err());
    }
}
