//! What the verbs share where they work through the HTTP API.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use uimgacc_console::{Printer, StateProgress};
use uimgacc_remote::setting::Setting;
use uimgacc_remote::wait::State;
use uimgacc_remote::{Client, Config, Error, Progress, Settings, Source, file};

use crate::arguments::ConfigArgument;
use crate::cluster::interrupted;
use crate::exit::Refused;

/// The service and the cluster, as arguments, environment and file name them.
#[derive(Debug)]
pub(crate) struct Remote {
    config: ConfigArgument,
    cluster_id: Option<String>,
}

/// Settings, and the file that they are from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) path: Option<PathBuf>,
    /// The file is there.
    pub(crate) exists: bool,
}

impl Remote {
    pub(crate) const fn new(config: ConfigArgument, cluster_id: Option<String>) -> Self {
        Self { config, cluster_id }
    }

    pub(crate) fn settings(&self, printer: Printer) -> anyhow::Result<Settings> {
        let mut settings = load(&self.config, printer)?.settings;
        if let Some(id) = &self.cluster_id {
            settings.set(Setting::ClusterId, id.clone(), Source::Argument);
        }
        Ok(settings)
    }

    pub(crate) fn client(&self, printer: Printer) -> anyhow::Result<Client> {
        Ok(Client::new(self.settings(printer)?)?)
    }
}

/// Reads what is in effect; warns where others can read secrets.
pub(crate) fn load(config: &ConfigArgument, printer: Printer) -> anyhow::Result<Loaded> {
    let path = config.path();
    let loaded = path.as_deref().map(file::load).transpose()?.flatten();
    if let Some(named) = config.named()
        && loaded.is_none()
    {
        return Err(Error::File {
            action: "read",
            path: named,
            source: std::io::ErrorKind::NotFound.into(),
        }
        .into());
    }
    let exists = loaded.is_some();
    let file = loaded.unwrap_or_default();
    if let Some(path) = path.as_deref().filter(|_| file.is_exposed) {
        printer.complain(&format!(
            "warning: others can read the keys in {0}: chmod 600 {0}",
            path.display()
        ));
    }
    let settings = resolve(&file.config)?;
    Ok(Loaded {
        settings,
        path,
        exists,
    })
}

/// What a file says, below the environment.
pub(crate) fn resolve(config: &Config) -> anyhow::Result<Settings> {
    for variable in Setting::ALL.map(Setting::variable) {
        if let Some(value) = std::env::var_os(variable) {
            let is_text = value.to_str().is_some();
            anyhow::ensure!(is_text, "{variable} is not UTF-8");
        }
    }
    let settings = Settings::resolve(config, |name| std::env::var(name).ok());
    settings.map_err(|error| Error::Variable(error).into())
}

/// Runs `work` until it ends or a signal comes, which ends it by `refused`.
pub(crate) fn run<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    refused: Refused,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let result = runtime.block_on(async {
        tokio::select! {
            biased;
            () = interrupted() => Err(refused.into()),
            result = work => result,
        }
    });
    // Names that are being resolved need no farewell.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Shows how it goes.
#[derive(Debug)]
pub(crate) struct RemoteProgress(StateProgress);

impl RemoteProgress {
    pub(crate) fn new(printer: Printer) -> Self {
        Self(StateProgress::new(printer))
    }
}

impl Progress for RemoteProgress {
    fn say(&self, line: &str) {
        self.0.say(line);
    }

    fn state(&self, state: &State) {
        self.0.update(&state.text, state.percent);
    }
}

/// Refuses arguments that the API cannot carry: `(--name, whether it was given)`.
pub(crate) fn refuse(arguments: &[(&str, bool)]) -> anyhow::Result<()> {
    let given = arguments.iter().filter(|(_, is_given)| *is_given);
    let names: Vec<&str> = given.map(|(name, _)| *name).collect();
    anyhow::ensure!(
        names.is_empty(),
        "the HTTP API cannot carry {}: {} --kubeconfig (or --context)",
        names.join(", "),
        if names.len() == 1 {
            "it needs"
        } else {
            "they need"
        }
    );
    Ok(())
}
