//! `uimgacc profile record`, and how `create --profile` records.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueHint};
use uimgacc_console::{Printer, duration};
use uimgacc_record::Settings;
use uimgacc_registry::{Client, ClientOptions};
use uimgacc_store::{ImageRecord, Session, StoreReader, rfc3339_now};
use uimgacc_types::ImageReference;

use super::{ProfileView, publish};
use crate::arguments::{StoreArgument, TextFormat, parse_duration, print};
use crate::images::find;
use crate::registry::RegistryArguments;

/// Run an image and record what its start reads.
///
/// It runs here, by runc, in a container of its own without a network; what it writes is thrown
/// away. It runs twice: the first run reads the data into the page cache, the second is recorded page
/// by page. Nodes that start the image from then on read ahead what was recorded. Recordings add up,
/// so that an image with several commands may be recorded with each.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  uimgacc profile record reg.example.com/pytorch:fast --store /mnt/store
  uimgacc profile record reg.example.com/pytorch:fast --store /mnt/store -- python3 -c 'import torch'")]
pub(crate) struct Record {
    /// Target (or original) image.
    image: String,
    /// What to run; by default the image's own command.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Forget what was recorded before.
    #[arg(long)]
    replace: bool,
    /// Output format.
    #[arg(long, short, value_enum, default_value_t = TextFormat::Text)]
    output: TextFormat,
    #[command(flatten)]
    store: StoreArgument,
    #[command(flatten)]
    how: RecordArguments,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// How a start is recorded.
#[derive(Debug, Args)]
pub(crate) struct RecordArguments {
    /// The start is over when nothing was opened for this long.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    silence: Duration,
    /// The start is over after this time in any case; the command is ended then.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    limit: Duration,
    /// Read-ahead in KiB meanwhile: the larger, the more is recorded around what is touched.
    #[arg(long, value_name = "KIB", default_value_t = uimgacc_record::READ_AHEAD_KB)]
    read_ahead_kb: u32,
    /// The container runtime.
    #[arg(long, value_name = "PROGRAM", default_value = "runc", value_hint = ValueHint::ExecutablePath)]
    runc: PathBuf,
}

impl Default for RecordArguments {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(5),
            limit: Duration::from_secs(60),
            read_ahead_kb: uimgacc_record::READ_AHEAD_KB,
            runc: PathBuf::from("runc"),
        }
    }
}

impl Record {
    pub(crate) fn run(self, printer: Printer) -> anyhow::Result<()> {
        let store = self.store.open()?;
        let image = find(&store, &self.image)?;
        let original: ImageReference = image.original.parse()?;
        let target: ImageReference = image.target.parse()?;
        let (named, digest) = match image.target_digest {
            Some(digest) => (&target, digest),
            None => (&original, image.original_digest),
        };
        let client = Client::new(ClientOptions {
            plain_http: self.registry.plain(&original, &target),
            credentials: self.registry.credentials(named)?,
            ..ClientOptions::default()
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let resolved = runtime
            .block_on(client.resolve(&named.with_digest(digest), &image.platform.parse()?))
            .with_context(|| format!("cannot get the configuration of {named}"))?;
        drop(runtime);
        let config = resolved.config_bytes;
        let command = (!self.command.is_empty()).then_some(self.command);
        let new = record(&store, &image, &config, command, &self.how, printer)?;
        let session = Session::begin(store)?;
        let profile = publish(&session, new, self.replace)?;
        let view = ProfileView::new(&image, &profile);
        print(printer, self.output, &view, || view.text())
    }
}

/// Runs the image; what its start read, to be published.
pub(crate) fn record(
    store: &StoreReader,
    image: &ImageRecord,
    config: &[u8],
    command: Option<Vec<String>>,
    how: &RecordArguments,
    printer: Printer,
) -> anyhow::Result<uimgacc_profile::Profile> {
    let settings = Settings {
        command,
        silence: how.silence,
        limit: how.limit,
        read_ahead_kb: how.read_ahead_kb,
        runc: how.runc.clone(),
        // Not /tmp, which may lie in memory: an overlay's upper layer is better on a disk.
        folder: "/var/tmp".into(),
    };
    printer.say(&format!("running {} to record its start", image.target));
    let recorded = uimgacc_record::record(store, image, config, &settings, rfc3339_now())?;
    let how = match recorded.status {
        None => "it still ran and was ended".to_owned(),
        Some(0) => "it ended by itself".to_owned(),
        Some(status) => format!("it ended with status {status}: {}", recorded.output),
    };
    printer.say(&format!("recorded {}; {how}", duration(recorded.took)));
    Ok(recorded.profile)
}
