//! `uimgacc store repair`.

use std::sync::Arc;

use clap::Args;
use uimgacc_console::Printer;
use uimgacc_convert::Progress;
use uimgacc_registry::{Client, ClientOptions, CredentialSource, PlainHttp};

use crate::arguments::{StoreArgument, TextOrJson};
use crate::exit::Refused;
use crate::store::show_checked;

/// Repair what is damaged, while containers run. Exits with 3 where something is left damaged.
///
/// Reads the whole store. Tables and indexes are restored from their second copies; damaged or missing files
/// of images are fetched again from the registry of the original or the target image. Each file of the store keeps
/// its name and gets exactly the bytes that it had, so no image has to be created again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uimgacc store verify --store /mnt/store
  uimgacc store repair --store /mnt/store
  uimgacc store repair --store /mnt/store --plain-http-registry registry.local:5000 -o json")]
pub(crate) struct Repair {
    #[command(flatten)]
    store: StoreArgument,
    /// Talk to this registry by HTTP without TLS; may be given several times.
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http_registry: Vec<String>,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextOrJson::Text)]
    output: TextOrJson,
}

impl Repair {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let reader = self.store.open()?;
        let client = Client::new(ClientOptions {
            plain_http: PlainHttp::registries(self.plain_http_registry),
            credentials: CredentialSource::DockerConfig,
            ..ClientOptions::default()
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let checked = show_checked(printer);
        let stages = Arc::new(Stages(printer));
        let repairs =
            runtime.block_on(uimgacc_convert::repair(&client, &reader, stages, checked))?;
        if self.output == TextOrJson::Json {
            printer.data(&serde_json::to_string_pretty(&repairs)?)?;
        } else {
            for repaired in &repairs.repaired {
                printer.data(&format!("{}: {}", repaired.path.display(), repaired.what))?;
            }
            for left in &repairs.unrepaired {
                let images = match left.images.as_slice() {
                    [] => String::new(),
                    images => format!(" (needed by {})", images.join(", ")),
                };
                let (path, what) = (left.path.display(), &left.what);
                printer.data(&format!("{path}: NOT REPAIRED: {what}{images}"))?;
            }
            let (repaired, left) = (repairs.repaired.len(), repairs.unrepaired.len());
            printer.data(&format!("{repaired} repaired, {left} not repaired"))?;
        }
        match repairs.unrepaired.len() {
            0 => Ok(()),
            count => Err(Refused::Damaged(count).into()),
        }
    }
}

/// Shows what is under way.
struct Stages(Printer);

impl Progress for Stages {
    fn layers(&self, _: &[(String, u64)]) {}
    fn layer_bytes(&self, _: usize, _: u64) {}
    fn layer_done(&self, _: usize, _: bool) {}
    fn stage(&self, what: &str) {
        self.0.say(what);
    }
}
