//! The options of `uimgacc-agent node`: what the spec of the `ImageAcceleration` says of nodes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use uimgacc_objects::NodeSettings;

/// Options.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// This node's name
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,
    /// What the ImageAcceleration says of nodes, as JSON
    #[arg(long, env = "UIMGACC_NODE_SETTINGS", value_name = "JSON")]
    pub settings: NodeSettings,
    /// Where this Pod has the claim mounted that is the store; the host gets the mount in its runDir
    #[arg(long, value_name = "DIR")]
    pub store_volume: Option<PathBuf>,
    /// Seconds that the node may be unfit before its labels go
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub patience: u64,
    /// The host's root folder as this Pod sees it
    #[arg(long, value_name = "DIR", default_value = "/proc/1/root")]
    pub host: PathBuf,
}

impl Options {
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}
