//! `uimgacc enable`.

mod remote;

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use uimgacc_console::Printer;
use uimgacc_control::{
    Connect, DEFAULT_TIMEOUT, DOCKER_HUB, DryRun, EnableRequest, Login, NodePathChanges,
    StoreChoice,
};

use crate::arguments::WaitArguments;
use crate::backend::{ClusterBackend, ClusterBackendArguments};
use crate::cluster::{ClusterProgress, run};

/// Set up image acceleration in a cluster, change it or upgrade it.
///
/// Brings the agent into kube-system, which sets up the nodes one by one. May be repeated: what a
/// later `enable` does not mention stays as it is, and the image follows the version of this
/// program.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uimgacc enable --nfs 10.0.0.1:/export
  echo \"$PASSWORD\" | uimgacc enable --nfs nfs://10.0.0.1,10.0.0.2/export?vers=4.2 \\
      --registry reg.example.com --username me --password-stdin
  uimgacc enable --pvc uimgacc-store --node-selector pool=gpu
  uimgacc enable --dry-run --nfs 10.0.0.1 > uimgacc.yaml")]
pub(crate) struct Enable {
    /// Set up only nodes with these labels; an empty text means all nodes again.
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    node_selector: Option<Vec<String>>,
    /// Our own image, where nodes cannot pull the default one.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// What a node does with accelerated images when the store cannot be reached.
    #[arg(long, value_enum)]
    fallback: Option<Fallback>,
    /// Which images start from the store.
    #[arg(long, value_enum)]
    originals: Option<Originals>,
    /// How many conversions run at once.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    max_conversions: Option<u32>,
    /// How many nodes may have their containerd restarted at the same time.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    max_unavailable: Option<u32>,
    /// Take another store although there are images in the old one.
    #[arg(long)]
    force: bool,
    /// Print the manifests as YAML instead of applying them. `crds` are the definitions, which must
    /// be served before `rest` can be applied.
    #[arg(long, value_enum, value_name = "PART", num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    dry_run: Option<Part>,
    #[command(flatten)]
    wait: WaitArguments,
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    registry: RegistryArguments,
    #[command(flatten)]
    paths: PathArguments,
    #[command(flatten)]
    backend: ClusterBackendArguments,
    /// The subnet of the NFS server; by default subnet_id of the configuration.
    #[arg(long, value_name = "ID", help_heading = "Through the HTTP API")]
    subnet_id: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where the store is (one of)")]
#[group(multiple = false)]
struct StoreArguments {
    /// An NFS export: 10.0.0.1, 10.0.0.1:/path or nfs://a,b/path?options.
    #[arg(long, value_name = "ADDR")]
    nfs: Option<String>,
    /// A PersistentVolumeClaim in kube-system that many nodes can mount (ReadWriteMany).
    #[arg(long, value_name = "NAME")]
    pvc: Option<String>,
    /// A folder that is mounted on every node already.
    #[arg(long, value_name = "DIR")]
    host_path: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The registry")]
struct RegistryArguments {
    /// The registry that user and password are for [default: docker.io].
    #[arg(long, value_name = "HOST[:PORT]")]
    registry: Option<String>,
    /// User at the registry; goes into the Secret kube-system/uimgacc-registry.
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    username: Option<String>,
    /// Read the password from standard input.
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Use this Secret of type kubernetes.io/dockerconfigjson in kube-system instead.
    #[arg(long, value_name = "NAME")]
    registry_secret: Option<String>,
    /// Allow target images to be pushed here and below; may be repeated. By default: the registries
    /// with credentials. Without credentials: everywhere.
    #[arg(long, value_name = "HOST[:PORT][/PATH]", value_delimiter = ',')]
    allow_target: Option<Vec<String>>,
    /// Use the credentials for originals from here and below, none for others; may be repeated. By
    /// default: the registries with credentials.
    #[arg(long, value_name = "HOST[:PORT][/PATH]", value_delimiter = ',')]
    credentials_for: Option<Vec<String>>,
    /// A registry without TLS; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    plain_http_registry: Option<Vec<String>>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where things are on nodes")]
struct PathArguments {
    /// containerd's configuration.
    #[arg(long, value_name = "FILE")]
    containerd_config: Option<String>,
    /// containerd's socket.
    #[arg(long, value_name = "SOCKET")]
    containerd_socket: Option<String>,
    /// containerd's program.
    #[arg(long, value_name = "FILE")]
    containerd_binary: Option<String>,
    /// What restarts containerd, as one text of words.
    #[arg(long, value_name = "COMMAND")]
    containerd_restart: Option<String>,
    /// Folder for our programs.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<String>,
    /// The snapshotter's data, on a local disk.
    #[arg(long, value_name = "DIR")]
    root_dir: Option<String>,
    /// Folder of sockets.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<String>,
    /// Folder of our configuration.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    All,
    Crds,
    Rest,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Fallback {
    /// Pull from the registry, as without acceleration.
    Registry,
    /// Fail, so that Kubernetes tries again later.
    Fail,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Originals {
    /// Originals too, where all of their layers are in the store.
    Accelerate,
    /// Only target images.
    TargetsOnly,
}

impl Enable {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        // What only prints needs no place.
        let dry_run = self.dry_run.filter(|_| !self.backend.names_remote());
        let connect = match self.backend.backend()? {
            ClusterBackend::Remote(remote) if dry_run.is_none() => {
                return self.run_remote(&remote, printer);
            }
            ClusterBackend::Remote(_) => Connect::default(),
            ClusterBackend::Cluster(connect) => connect,
        };
        anyhow::ensure!(
            self.subnet_id.is_none(),
            "--subnet-id is for the HTTP API (--config or --cluster-id)"
        );
        let request = self.request(printer)?;
        if let Some(part) = dry_run {
            let which = match part {
                Part::All => DryRun::All,
                Part::Crds => DryRun::Definitions,
                Part::Rest => DryRun::Rest,
            };
            printer.data(&uimgacc_control::yaml(&request.manifests(which)?)?)?;
            return Ok(());
        }
        enable(&connect, &request, printer)
    }

    fn request(self, printer: Printer) -> anyhow::Result<EnableRequest> {
        let store = match (self.store.nfs, self.store.pvc, self.store.host_path) {
            (Some(address), _, _) => Some(StoreChoice::Nfs(address)),
            (_, Some(name), _) => Some(StoreChoice::Claim(name)),
            (_, _, Some(dir)) => Some(StoreChoice::HostPath(dir)),
            (None, None, None) => None,
        };
        let registry = self.registry;
        let login = match registry.username {
            Some(username) => Some(Login {
                registry: registry.registry.unwrap_or_else(|| DOCKER_HUB.to_owned()),
                username,
                password: password(printer)?,
            }),
            None => None,
        };
        let paths = self.paths;
        Ok(EnableRequest {
            store,
            subnet: None,
            login,
            credentials_secret: registry.registry_secret,
            allowed_targets: registry.allow_target,
            credentials_for: registry.credentials_for,
            plain_http_registries: registry.plain_http_registry,
            node_selector: self.node_selector.as_deref().map(selector).transpose()?,
            image: self.image,
            fallback: self.fallback.map(|fallback| match fallback {
                Fallback::Registry => uimgacc_objects::Fallback::Registry,
                Fallback::Fail => uimgacc_objects::Fallback::Fail,
            }),
            originals: self.originals.map(|originals| match originals {
                Originals::Accelerate => uimgacc_objects::Originals::Accelerate,
                Originals::TargetsOnly => uimgacc_objects::Originals::TargetsOnly,
            }),
            max_conversions: self.max_conversions,
            max_unavailable: self.max_unavailable,
            node_paths: NodePathChanges {
                containerd_config: paths.containerd_config,
                containerd_socket: paths.containerd_socket,
                containerd_binary: paths.containerd_binary,
                containerd_restart: paths
                    .containerd_restart
                    .map(|text| text.split_whitespace().map(str::to_owned).collect()),
                bin_dir: paths.bin_dir,
                root_dir: paths.root_dir,
                run_dir: paths.run_dir,
                config_dir: paths.config_dir,
            },
            change_store: self.force,
            wait: self.wait.within(DEFAULT_TIMEOUT),
        })
    }
}

fn enable(connect: &Connect, request: &EnableRequest, printer: Printer) -> anyhow::Result<()> {
    let report = run(connect, |cluster| async move {
        Ok(cluster
            .enable(request, &ClusterProgress::new(printer))
            .await?)
    })?;
    printer.data(&if report.is_ready {
        format!(
            "image acceleration is ready on {} nodes (Kubernetes {}, {})",
            report.ready_nodes, report.kubernetes, report.image
        )
    } else {
        "image acceleration is being set up; `uimgacc status --wait` waits for it".to_owned()
    })?;
    Ok(())
}

/// Reads a password, without its line end.
fn password(printer: Printer) -> anyhow::Result<String> {
    use std::io::IsTerminal as _;
    if std::io::stdin().is_terminal() {
        printer.say("reading the password from the terminal; end it by Ctrl-D");
    }
    let mut password = String::new();
    std::io::stdin()
        .take(64 << 10)
        .read_to_string(&mut password)
        .context("cannot read the password from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(
        !password.is_empty(),
        "the password on standard input is empty"
    );
    Ok(password.to_owned())
}

/// `a=b` each; empty texts count for nothing.
fn selector(pairs: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    pairs
        .iter()
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => anyhow::bail!("{pair:?} is no label: write KEY=VALUE"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        enable: Enable,
    }

    fn parse(words: &str) -> Result<EnableRequest, String> {
        let all = std::iter::once("enable").chain(words.split_whitespace());
        let only = Only::try_parse_from(all).map_err(|error| error.to_string())?;
        only.enable
            .request(Printer::new(true))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags() {
        let request = parse(
            "--nfs 10.0.0.1:/x --node-selector a=b,c= --plain-http-registry r:5000,s --timeout 2m \
             --allow-target r.io,x.io/a --allow-target y --credentials-for= --containerd-restart=true --bin-dir /opt/bin --max-conversions 4 --fallback fail",
        )
        .unwrap();
        assert_eq!(
            request.store,
            Some(StoreChoice::Nfs("10.0.0.1:/x".to_owned()))
        );
        assert_eq!(request.node_selector.unwrap()["a"], "b");
        assert_eq!(request.plain_http_registries.unwrap(), ["r:5000", "s"]);
        assert_eq!(request.allowed_targets.unwrap(), ["r.io", "x.io/a", "y"]);
        assert_eq!(request.credentials_for.unwrap(), [""]);
        assert_eq!(request.wait, Some(std::time::Duration::from_secs(120)));
        assert_eq!(request.node_paths.containerd_restart.unwrap(), ["true"]);
        assert_eq!(request.max_conversions, Some(4));
        assert_eq!(request.fallback, Some(uimgacc_objects::Fallback::Fail));
        let all = parse("--node-selector= --no-wait").unwrap();
        assert_eq!(all.node_selector, Some(BTreeMap::new()));
        assert_eq!((all.wait, all.store), (None, None));
    }

    #[test]
    fn wrong_usage() {
        for (words, part) in [
            ("--nfs a --pvc b", "cannot be used with"),
            ("--username me", "--password-stdin"),
            ("--node-selector a", "KEY=VALUE"),
            ("--timeout 5d", "such as 90s"),
            ("--max-conversions 0", "1..=100"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
