//! Arguments that several verbs share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use uimgacc_console::Printer;
use uimgacc_control::Connect;
use uimgacc_remote::file;
use uimgacc_store::{ReadError, StoreReader};

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgument {
    /// Folder of the store, on a file system that all nodes mount.
    #[arg(long = "store", value_name = "DIR", env = "UIMGACC_STORE")]
    pub(crate) root: PathBuf,
}

impl StoreArgument {
    pub(crate) fn open(&self) -> Result<StoreReader, ReadError> {
        StoreReader::open(&self.root)
    }
}

/// Which configuration of the HTTP API.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgument {
    /// Configuration file of the HTTP API; by default UIMGACC_CONFIG, then
    /// ~/.config/uimgacc/config.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    /// Where the file is; `None` where none is given and `HOME` is not set.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let named = self.named();
        named.or_else(|| file::default_path(std::env::var_os))
    }

    pub(crate) fn is_given(&self) -> bool {
        self.config.is_some()
    }

    /// The file that the command line or the environment names, which must be there.
    pub(crate) fn named(&self) -> Option<PathBuf> {
        self.config
            .clone()
            .or_else(|| variable(file::VARIABLE).map(PathBuf::from))
    }
}

/// An empty variable is as good as none.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Output for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which cluster")]
pub(crate) struct ClusterArguments {
    /// A kubeconfig; by default KUBECONFIG, then ~/.kube/config, then the Pod's own account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; by default its current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArguments {
    /// Whether the command line names one.
    pub(crate) fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    pub(crate) fn connect(&self) -> Connect {
        Connect {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }
}

/// Output for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextFormat {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// For machines.
    Json,
    /// For machines, and people who prefer it.
    Yaml,
}

/// Output for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// For machines.
    Json,
    /// For machines, and people who prefer it.
    Yaml,
}

impl From<TextFormat> for TableFormat {
    fn from(format: TextFormat) -> Self {
        match format {
            TextFormat::Text => Self::Table,
            TextFormat::Json => Self::Json,
            TextFormat::Yaml => Self::Yaml,
        }
    }
}

/// Prints `value` for machines, or what `text` makes for people.
pub(crate) fn print(
    printer: Printer,
    format: impl Into<TableFormat>,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = match format.into() {
        TableFormat::Table => text(),
        TableFormat::Json => serde_json::to_string_pretty(value)?,
        TableFormat::Yaml => serde_norway::to_string(value)?,
    };
    if !text.is_empty() {
        printer.data(&text)?;
    }
    Ok(())
}

/// How long to wait.
#[derive(Debug, Args)]
pub(crate) struct WaitArguments {
    /// Wait until it is done; this is the default.
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the cluster has taken note.
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    /// How long to wait: seconds, or such as 90s, 5m, 2h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl WaitArguments {
    /// How long to wait, `None`: not at all.
    pub(crate) fn within(&self, default: Duration) -> Option<Duration> {
        (!self.no_wait).then(|| self.timeout.unwrap_or(default))
    }
}

/// `90`, `90s`, `5m` or `2h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 3600),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    number
        .parse::<u32>()
        .map(|number| Duration::from_secs(u64::from(number) * factor))
        .map_err(|_| "write seconds, or such as 90s, 5m, 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("0", 0)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "s", "5d", "-1", "1.5h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
