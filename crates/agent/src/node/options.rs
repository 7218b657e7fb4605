//! The options of `uimgacc-agent node`: what the spec of the `ImageAcceleration` says of nodes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use uimgacc_objects::{Fallback, NodePaths, Originals};

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
    /// What is done while the store cannot be reached: registry (pull as ever) or fail
    #[arg(long, value_name = "POLICY", default_value = "registry", value_parser = fallback)]
    pub fallback: Fallback,
    /// Whether images pulled by their original name start from the store: accelerate or targets-only
    #[arg(long, value_name = "POLICY", default_value = "accelerate", value_parser = originals)]
    pub originals: Originals,
    /// A key of the snapshotter's configuration (repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub snapshotter_key: Vec<String>,
    /// Seconds that the node may be unfit before its labels go
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub patience: u64,
    /// The host's root folder as this Pod sees it
    #[arg(long, value_name = "DIR", default_value = "/proc/1/root")]
    pub host: PathBuf,
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

fn fallback(text: &str) -> Result<Fallback, String> {
    match text {
        "registry" => Ok(Fallback::Registry),
        "fail" => Ok(Fallback::Fail),
        _ => Err("write registry or fail".to_owned()),
    }
}

fn originals(text: &str) -> Result<Originals, String> {
    match text {
        "accelerate" => Ok(Originals::Accelerate),
        "targets-only" => Ok(Originals::TargetsOnly),
        _ => Err("write accelerate or targets-only".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(words: &str) -> Result<Options, String> {
        let words = ["node", "--node-name=n"]
            .into_iter()
            .chain(words.split(' '));
        let parsed = Program::try_parse_from(words.filter(|word| !word.is_empty()));
        parsed
            .map(|program| program.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_objects() {
        let options = parsed("--store nfs://a,b/x?vers=3,nolock").unwrap();
        assert_eq!(options.daemon_store(), "nfs://a,b/x?vers=3,nolock");
        assert_eq!(options.fallback, Fallback::default());
        assert_eq!(options.originals, Originals::default());
        let defaults = NodePaths::default();
        assert_eq!(options.paths.bin_dir, defaults.bin_dir);
        assert_eq!(options.paths.run_dir, defaults.run_dir);
        assert_eq!(
            options.paths.containerd_restart,
            defaults.containerd_restart
        );
    }

    #[test]
    fn a_claim_is_a_store_in_the_folder_of_sockets() {
        let words = "--store-volume /store --run-dir /run/x --containerd-restart a \
            --containerd-restart --b --fallback fail --originals targets-only";
        let options = parsed(words).unwrap();
        assert_eq!(options.daemon_store(), "/run/x/store");
        assert_eq!(options.paths.containerd_restart, ["a", "--b"]);
        assert_eq!(options.fallback, Fallback::Fail);
        assert_eq!(options.originals, Originals::TargetsOnly);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, why) in [
            ("", "--store"),
            ("--store /a --store-volume /b", "cannot be used with"),
            ("--store /a --fallback maybe", "registry or fail"),
            ("--store /a --originals all", "targets-only"),
        ] {
            let error = parsed(words).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
