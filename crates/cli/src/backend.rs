//! Where a verb works: on a local store, on a cluster, or through the HTTP API.

use std::path::PathBuf;

use clap::Args;
use uimgacc_control::Connect;
use uimgacc_remote::{Setting, file};

use crate::arguments::{ClusterArguments, ConfigArgument, StoreArgument, variable};
use crate::remote::Remote;

/// Stands in for `--store`.
const STORE_VARIABLE: &str = "UIMGACC_STORE";

/// Which cluster of the HTTP API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Through the HTTP API")]
pub(crate) struct RemoteArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The cluster; by default UIMGACC_CLUSTER_ID, then cluster_id of the configuration.
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
}

impl RemoteArguments {
    /// Whether the command line asks for the API.
    pub(crate) fn is_given(&self) -> bool {
        self.config.is_given() || self.cluster_id.is_some()
    }

    fn remote(&self) -> Remote {
        Remote::new(self.config.clone(), self.cluster_id.clone())
    }
}

/// A local store, a cluster or the API.
#[derive(Debug, Args)]
pub(crate) struct BackendArguments {
    /// Folder of a store, for work without a cluster.
    #[arg(long = "store", value_name = "DIR", env = STORE_VARIABLE)]
    store: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    remote: RemoteArguments,
}

/// Where a verb works.
#[derive(Debug)]
pub(crate) enum Backend {
    /// On a store that this machine has mounted.
    Local(StoreArgument),
    /// On a cluster.
    Cluster(Connect),
    /// Through the HTTP API.
    Remote(Remote),
}

impl BackendArguments {
    pub(crate) fn backend(&self) -> anyhow::Result<Backend> {
        let of_environment = std::env::var_os(STORE_VARIABLE);
        // The same on the command line means the same.
        let is_given = |root: &PathBuf| Some(root.as_os_str()) != of_environment.as_deref();
        let given = Signs {
            store: self.store.as_ref().is_some_and(is_given),
            cluster: self.cluster.is_given(),
            remote: self.remote.is_given(),
        };
        Ok(match (choose(given, &environment())?, &self.store) {
            (Choice::Store, Some(root)) => Backend::Local(StoreArgument { root: root.clone() }),
            (Choice::Remote, _) => Backend::Remote(self.remote.remote()),
            (Choice::Cluster | Choice::Store, _) => Backend::Cluster(self.cluster.connect()),
        })
    }
}

/// A cluster or the API, for verbs that know no local store.
#[derive(Debug, Args)]
pub(crate) struct ClusterBackendArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    remote: RemoteArguments,
}

/// Where a verb works that knows no local store.
#[derive(Debug)]
pub(crate) enum ClusterBackend {
    /// On a cluster.
    Cluster(Connect),
    /// Through the HTTP API.
    Remote(Remote),
}

impl ClusterBackendArguments {
    pub(crate) fn backend(&self) -> anyhow::Result<ClusterBackend> {
        let given = Signs {
            store: false,
            cluster: self.cluster.is_given(),
            remote: self.remote.is_given(),
        };
        let environment = Environment {
            store: false,
            ..environment()
        };
        Ok(match choose(given, &environment)? {
            Choice::Remote => ClusterBackend::Remote(self.remote.remote()),
            Choice::Store | Choice::Cluster => ClusterBackend::Cluster(self.cluster.connect()),
        })
    }

    /// Whether the command line asks for the API.
    pub(crate) fn names_remote(&self) -> bool {
        self.remote.is_given()
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    store: bool,
    cluster: bool,
    remote: bool,
}

/// What stands around it.
#[derive(Debug, Clone, Copy, Default)]
struct Environment {
    /// UIMGACC_STORE
    store: bool,
    /// UIMGACC_CONFIG or UIMGACC_BASE_URL
    remote: bool,
    /// The default configuration file is there.
    file: bool,
}

fn environment() -> Environment {
    let path = file::default_path(std::env::var_os);
    Environment {
        store: variable(STORE_VARIABLE).is_some(),
        remote: variable(file::VARIABLE).is_some()
            || variable(Setting::BaseUrl.variable()).is_some(),
        file: path.is_some_and(|path| path.exists()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Store,
    Cluster,
    Remote,
}

/// What stands on the command line goes before the environment, and that before files.
fn choose(given: Signs, environment: &Environment) -> anyhow::Result<Choice> {
    Ok(match (given.store, given.cluster, given.remote) {
        (true, false, false) => Choice::Store,
        (false, true, false) => Choice::Cluster,
        (false, false, true) => Choice::Remote,
        (false, false, false) if environment.store => Choice::Store,
        (false, false, false) if environment.remote || environment.file => Choice::Remote,
        (false, false, false) => Choice::Cluster,
        _ => anyhow::bail!(
            "--store means a local store, --kubeconfig and --context a cluster, --config and --cluster-id \
             the HTTP API: give one of them"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearer_goes_first() {
        let signs = |text: &str| Signs {
            store: text.contains('s'),
            cluster: text.contains('k'),
            remote: text.contains('r'),
        };
        let around = |text: &str| Environment {
            store: text.contains('s'),
            remote: text.contains('r'),
            file: text.contains('f'),
        };
        for (given, environment, choice) in [
            ("s", "rf", Some(Choice::Store)),
            ("k", "srf", Some(Choice::Cluster)),
            ("r", "srf", Some(Choice::Remote)),
            ("", "srf", Some(Choice::Store)),
            ("", "rf", Some(Choice::Remote)),
            ("", "r", Some(Choice::Remote)),
            ("", "f", Some(Choice::Remote)),
            ("", "", Some(Choice::Cluster)),
            ("sk", "", None),
            ("kr", "", None),
            ("sr", "", None),
            ("skr", "", None),
        ] {
            let chosen = choose(signs(given), &around(environment)).ok();
            assert_eq!(chosen, choice, "{given:?} {environment:?}");
        }
    }
}
