//! `uimgacc create`.

mod cluster;
mod remote;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueHint};
use uimgacc_console::{LayerProgress, Printer, bytes, duration};
use uimgacc_convert::{CreateRequest, Created};
use uimgacc_registry::{Client, ClientOptions, Platform};
use uimgacc_store::{Session, StoreReader};
use uimgacc_types::ImageReference;

use crate::arguments::{StoreArgument, TextFormat, WaitArguments, print};
use crate::backend::{Backend, BackendArguments};
use crate::cluster::interrupted;
use crate::exit::Refused;
use crate::images::ImageView;
use crate::profile;
use crate::profile::record::{RecordArguments, record};
use crate::registry::RegistryArguments;

/// Bring an image into the store and push its target image.
///
/// The original is pulled once and unpacked into the store; the target image is a normal image
/// with the same layers, which also runs where no snapshotter is. Interrupt it at any time: the
/// same command goes on where it was. On a cluster the agent does the work, and goes on with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uimgacc create pytorch/pytorch:latest reg.example.com/pytorch:fast
  uimgacc create nginx registry.local/nginx:fast --store /mnt/store
  echo \"$PASSWORD\" | uimgacc create reg.example.com/big:1 reg.example.com/big:1-fast \\
      --username me --password-stdin --store /mnt/store
  uimgacc create localhost:5000/app localhost:5000/app:fast --plain-http --store /mnt/store")]
pub(crate) struct Create {
    /// The image to accelerate; short names mean Docker Hub.
    original: String,
    /// What the accelerated image is to be called.
    target: String,
    /// Platform to take from an image of several, such as linux/arm64.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Secret in kube-system with the credentials for both images; by default those of `enable`. It
    /// must carry the label uimgacc.io/pull-secret=true.
    #[arg(long, value_name = "NAME", help_heading = "On a cluster")]
    pull_secret: Option<String>,
    /// Start the image with this command (with an empty one: its own), so that nodes read ahead what its
    /// start reads. Here by runc; on a cluster in a Pod, unless the image has a profile already.
    #[arg(long, value_name = "COMMAND", conflicts_with = "profile_from")]
    profile: Option<String>,
    #[command(flatten)]
    wait: WaitArguments,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,
    #[command(flatten)]
    backend: BackendArguments,
    #[command(flatten)]
    local: LocalArguments,
}

/// What only matters where this program converts by itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "On a local store")]
struct LocalArguments {
    #[command(flatten)]
    registry: RegistryArguments,
    /// Only fill the store; do not push the target image.
    #[arg(long)]
    no_push: bool,
    /// Give the image the profile that `profile export` wrote.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    profile_from: Option<PathBuf>,
    /// How many layers to convert at once [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: Option<u8>,
    /// How often longer than its compressed form a layer may be (1 GiB is always allowed)
    /// [default: 100].
    #[arg(long, value_name = "TIMES")]
    max_expansion: Option<u64>,
}

const DEFAULT_JOBS: u8 = 3;
const DEFAULT_MAX_EXPANSION: u64 = 100;
/// How long a conversion elsewhere may take where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

impl LocalArguments {
    fn is_given(&self) -> bool {
        self.registry.is_given()
            || self.no_push
            || self.profile_from.is_some()
            || self.jobs.is_some()
            || self.max_expansion.is_some()
    }
}

impl Create {
    /// The words of `--profile`.
    fn command(&self) -> anyhow::Result<Option<Vec<String>>> {
        let split = |text: &String| {
            shlex::split(text)
                .with_context(|| format!("--profile {text:?} has a quote that does not end"))
        };
        self.profile.as_ref().map(split).transpose()
    }

    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        match self.backend.backend()? {
            Backend::Local(store) => self.run_local(&store, printer),
            Backend::Cluster(connect) => self.run_cluster(&connect, printer),
            Backend::Remote(remote) => self.run_remote(&remote, printer),
        }
    }

    fn run_local(&self, store: &StoreArgument, printer: Printer) -> anyhow::Result<()> {
        let store = store.open()?;
        let request = self.request()?;
        let command = self.command()?;
        let client = Client::new(ClientOptions {
            plain_http: self
                .local
                .registry
                .plain(&request.original, &request.target),
            credentials: self.local.registry.credentials(if request.push {
                &request.target
            } else {
                &request.original
            })?,
            ..ClientOptions::default()
        })?;
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let progress = Arc::new(LayerProgress::new(printer));
        let created = runtime.block_on(async {
            tokio::select! {
                created = uimgacc_convert::create(&client, &store, &request, progress) => {
                    Ok(created?)
                }
                () = interrupted() => Err(anyhow::Error::new(Refused::Interrupted)),
            }
        });
        // Workers notice by themselves that nobody waits for them; the store is clean by then.
        runtime.shutdown_timeout(Duration::from_secs(5));
        let created = created?;
        self.record(&store, &created, command, printer)?;
        let view = ImageView::new(&store, &created.record);
        print(printer, self.output, &view, || {
            summary(&created, started.elapsed())
        })
    }

    /// What the image's profile is to come from.
    fn record(
        &self,
        store: &StoreReader,
        created: &Created,
        command: Option<Vec<String>>,
        printer: Printer,
    ) -> anyhow::Result<()> {
        let image = &created.record;
        if let Some(file) = &self.local.profile_from {
            let session = Session::begin(store.clone())?;
            let profile = profile::read_file(&session, image, file)?;
            profile::publish(&session, profile, true)?;
        }
        if let Some(command) = command {
            let command = (!command.is_empty()).then_some(command);
            let how = RecordArguments::default();
            let new = record(store, image, &created.config_bytes, command, &how, printer)
                .with_context(|| format!("{} is ready, but has no profile", image.target))?;
            profile::publish(&Session::begin(store.clone())?, new, false)?;
        }
        Ok(())
    }

    fn request(&self) -> anyhow::Result<CreateRequest> {
        let reference = |name: &str| -> anyhow::Result<ImageReference> {
            name.parse()
                .with_context(|| format!("cannot understand the image name {name:?}"))
        };
        let request = CreateRequest {
            original: reference(&self.original)?,
            target: reference(&self.target)?,
            platform: self.platform.clone().unwrap_or_else(Platform::host),
            push: !self.local.no_push,
            jobs: usize::from(self.local.jobs.unwrap_or(DEFAULT_JOBS)),
            max_expansion: self.local.max_expansion.unwrap_or(DEFAULT_MAX_EXPANSION),
        };
        if request.target.digest().is_some() {
            anyhow::bail!(
                "the target {} must have a tag, not a digest",
                request.target
            );
        }
        Ok(request)
    }
}

fn summary(created: &Created, took: Duration) -> String {
    let record = &created.record;
    format!(
        "{} is ready: {} in {} layers ({} of them were in the store), index {}, {} packs, took {}",
        record.target,
        bytes(record.size),
        record.diff_ids.len(),
        created.layers_reused,
        bytes(record.index.size),
        record.index.packs.len(),
        duration(took),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use uimgacc_registry::PlainHttp;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Words {
        #[command(flatten)]
        create: Create,
    }

    fn plain(words: &[&str]) -> PlainHttp {
        let all = [&["x", "--store", "/s"], words].concat();
        let create = Words::try_parse_from(all).unwrap().create;
        let request = create.request().unwrap();
        create
            .local
            .registry
            .plain(&request.original, &request.target)
    }

    #[test]
    fn plain_http_is_for_the_target_and_what_is_near() {
        let hub = plain(&["nginx", "10.0.0.5:5000/nginx:fast", "--plain-http"]);
        assert!(hub.allows("10.0.0.5:5000"));
        assert!(!hub.allows("docker.io"));
        // Where the target is Docker Hub it says nothing.
        assert!(!plain(&["localhost:1/a", "me/a:fast", "--plain-http"]).allows("docker.io"));
        let far = plain(&["quay.example/a", "b.example:5000/a:fast", "--plain-http"]);
        assert!(far.allows("b.example:5000") && !far.allows("quay.example"));
        let near = plain(&["127.0.0.1:1/a", "b.example:5000/a:fast", "--plain-http"]);
        assert!(near.allows("127.0.0.1:1"));
        let named = plain(&[
            "quay.example/a",
            "b.example/a:fast",
            "--plain-http-registry",
            "quay.example",
        ]);
        assert!(named.allows("quay.example") && !named.allows("b.example"));
    }
}
