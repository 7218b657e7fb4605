//! What the daemon is told: flags over the configuration file over defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};
use tokio::sync::watch;
use uimgacc_mount::Methods;
use uimgacc_types::{ParseSourceError, StoreSource, with_causes};

use crate::chains::MountSettings;
use crate::config::{Config, ConfigError};
use crate::node::{NodeSettings, OriginalImages};
use crate::starts::StartSettings;
use crate::status::default_address;

const DEFAULT_ROOT: &str = "/var/lib/uimgacc-snapshotter";
/// Where the socket is unless something else is said.
pub const DEFAULT_ADDRESS: &str = "/run/uimgacc-snapshotter/snapshotter.sock";
const DEFAULT_STORE_TIMEOUT_SECONDS: u64 = 5;
const DEFAULT_MOUNT_TIMEOUT_SECONDS: u64 = 10;
const DEFAULT_START_READ_AHEAD_KB: u32 = 16;
const DEFAULT_READ_AHEAD_KB: u32 = 1024;
const DEFAULT_FETCH_READERS: u16 = 64;

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] ParseSourceError),
    /// A relative path where there is no current folder.
    #[error("cannot make {path} absolute")]
    Path {
        /// As given.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No store.
    #[error("no store is named; give --store, or `store` in the file of --config")]
    NoStore,
}

/// The flags of the daemon; each goes before the file's key of that name.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Configuration file (TOML); flags go before what stands in it
    #[arg(long, env = "UIMGACC_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The store: a folder, or nfs://SERVER/PATH?OPTIONS; again for another address of it
    #[arg(long, env = "UIMGACC_STORE", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store: Vec<String>,

    /// Folder of this snapshotter, on a local disk [default: /var/lib/uimgacc-snapshotter]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Socket for containerd's proxy plugin [default: /run/uimgacc-snapshotter/snapshotter.sock]
    #[arg(long, value_name = "SOCKET")]
    pub address: Option<PathBuf>,

    /// Socket for the node's status and metrics [default: status.sock beside --address]
    #[arg(long, value_name = "SOCKET")]
    pub status_address: Option<PathBuf>,

    /// What to log: a level, or tracing's filters [default: info]
    #[arg(long, env = "UIMGACC_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How to mount images: what to try, in this order [default: file-directio,file,loop]
    #[arg(long, value_name = "LIST")]
    pub methods: Option<Methods>,

    /// Read-ahead of images in KiB, once they have started [default: 1024]
    #[arg(long, value_name = "KIB")]
    pub read_ahead_kb: Option<u32>,

    /// Read-ahead in KiB while an image with a profile starts [default: 16]
    #[arg(long, value_name = "KIB")]
    pub start_read_ahead_kb: Option<u32>,

    /// How many reads at once fetch what a profile lists [default: 64]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub fetch_readers: Option<u16>,

    /// MB a second at which one image fetches what its profile lists; without it as fast as the store is
    #[arg(long, value_name = "MB")]
    pub fetch_rate_mb: Option<u32>,

    /// Keep what the first start of an image reads, for the agent of a cluster, which takes it to the store
    #[arg(long)]
    pub record_starts: bool,

    /// Which images start from the store by their original name [default: accelerate]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub original_images: Option<OriginalImages>,

    /// Seconds to wait for the store before a layer is pulled from its registry instead [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub store_timeout: Option<u64>,

    /// Seconds that a request waits for the mount of an image, which goes on by itself then
    /// [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub mount_timeout: Option<u64>,
}

/// All that the daemon needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The node's.
    pub node: NodeSettings,
    /// containerd's socket.
    pub address: PathBuf,
    /// The status' socket.
    pub status_address: PathBuf,
    /// What is logged.
    pub log: String,
    /// Where the store is, to be changed by [`Options::reload`].
    pub source: watch::Sender<StoreSource>,
}

impl Options {
    /// Reads the file, if one is named, and puts all together.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn settings(&self) -> Result<Settings, OptionsError> {
        let config = self.config()?;
        let (source, store) = watch::channel(self.source(&config)?);
        let root = self.root.clone().or(config.root);
        let address = self.address.clone().or(config.address);
        let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.into());
        let status_address = self.status_address.clone().or(config.status_address);
        let seconds = |flag: Option<u64>, key: Option<u64>, default| {
            Duration::from_secs(flag.or(key).unwrap_or(default))
        };
        Ok(Settings {
            node: NodeSettings {
                root: absolute(&root.unwrap_or_else(|| DEFAULT_ROOT.into()))?,
                store,
                store_deadline: seconds(
                    self.store_timeout,
                    config.store_timeout,
                    DEFAULT_STORE_TIMEOUT_SECONDS,
                ),
                mounts: MountSettings {
                    methods: self.methods.clone().or(config.methods).unwrap_or_default(),
                    start: StartSettings {
                        starting_kb: self
                            .start_read_ahead_kb
                            .or(config.start_read_ahead_kb)
                            .unwrap_or(DEFAULT_START_READ_AHEAD_KB),
                        serving_kb: self
                            .read_ahead_kb
                            .or(config.read_ahead_kb)
                            .unwrap_or(DEFAULT_READ_AHEAD_KB),
                        readers: self
                            .fetch_readers
                            .or(config.fetch_readers)
                            .unwrap_or(DEFAULT_FETCH_READERS)
                            .into(),
                        bytes_per_second: self
                            .fetch_rate_mb
                            .or(config.fetch_rate_mb)
                            .map(|mb| u64::from(mb) * 1_000_000),
                        record: self.record_starts || config.record_starts.unwrap_or_default(),
                    },
                    deadline: seconds(
                        self.mount_timeout,
                        config.mount_timeout,
                        DEFAULT_MOUNT_TIMEOUT_SECONDS,
                    ),
                },
                original_images: self
                    .original_images
                    .or(config.original_images)
                    .unwrap_or_default(),
                leases: config.leases.unwrap_or_default(),
                fallback: config.fallback.unwrap_or_default(),
            },
            status_address: status_address.unwrap_or_else(|| default_address(&address)),
            address,
            log: self
                .log
                .clone()
                .or(config.log)
                .unwrap_or_else(|| "info".to_owned()),
            source,
        })
    }

    /// Reads the file again and takes the store from it. All else needs a restart, which containers
    /// do not notice. What is wrong is logged, and then all stays as it is.
    pub fn reload(&self, source: &watch::Sender<StoreSource>) {
        let read = || {
            let config = self.config()?;
            self.source(&config)
        };
        match read() {
            Ok(new) => {
                let changed = source.send_if_modified(|known| {
                    let changed = *known != new;
                    *known = new;
                    changed
                });
                tracing::info!(store = %*source.borrow(), changed, "configuration read again");
            }
            Err(error) => {
                tracing::error!(
                    error = with_causes(&error),
                    "the configuration is wrong; the old one stays"
                );
            }
        }
    }

    fn config(&self) -> Result<Config, ConfigError> {
        self.config
            .as_deref()
            .map_or_else(|| Ok(Config::default()), Config::read)
    }

    fn source(&self, config: &Config) -> Result<StoreSource, OptionsError> {
        match self.store.as_slice() {
            [] => config.store.clone().ok_or(OptionsError::NoStore),
            // A folder may be relative here, as in any command.
            [folder] if !folder.contains("://") => {
                Ok(StoreSource::Folder(absolute(Path::new(folder))?))
            }
            all => Ok(StoreSource::parse_all(all)?),
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, OptionsError> {
    std::path::absolute(path).map_err(|source| OptionsError::Path {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Command::parse_from(["x"].iter().chain(arguments)).options
    }

    #[test]
    fn flags_go_before_the_file_and_a_reload_takes_a_new_store() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let path = file.to_str().unwrap();
        std::fs::write(&file, "store = 'nfs://a/'\nroot = '/r'\nstore_timeout = 2").unwrap();
        let options = options(&["--config", path, "--root", "/q", "--mount-timeout", "9"]);
        let settings = options.settings().unwrap();
        assert_eq!(settings.node.root, Path::new("/q"));
        assert_eq!(settings.node.store_deadline, Duration::from_secs(2));
        assert_eq!(settings.node.mounts.deadline, Duration::from_secs(9));
        assert_eq!(settings.node.store.borrow().to_string(), "nfs://a/");
        assert_eq!(settings.log, "info");
        let beside = Path::new("/run/uimgacc-snapshotter/status.sock");
        assert_eq!(settings.status_address, beside);

        std::fs::write(&file, "store = 'nfs://b/'").unwrap();
        options.reload(&settings.source);
        assert_eq!(settings.node.store.borrow().to_string(), "nfs://b/");
        for wrong in ["store = 'b'", "", "stor = 1"] {
            std::fs::write(&file, wrong).unwrap();
            options.reload(&settings.source);
            assert_eq!(
                settings.node.store.borrow().to_string(),
                "nfs://b/",
                "{wrong}"
            );
        }
    }

    #[test]
    fn stores_by_flags() {
        let store = |arguments: &[&str]| {
            options(arguments)
                .settings()
                .map(|settings| settings.source.borrow().to_string())
        };
        assert_eq!(store(&["--store", "/a"]).unwrap(), "/a");
        let here = std::env::current_dir().unwrap().join("a");
        assert_eq!(store(&["--store", "a"]).unwrap(), here.to_str().unwrap());
        let two = [
            "--store",
            "nfs://a,b/p?vers=3",
            "--store",
            "nfs://c/p?vers=3",
        ];
        assert_eq!(store(&two).unwrap(), "nfs://a,b,c/p?vers=3");
        let error = store(&[]).unwrap_err().to_string();
        assert!(error.contains("--store"), "{error}");
        let error = store(&["--config", "/no/such/file"]).unwrap_err();
        assert!(with_causes(&error).contains("/no/such/file"), "{error}");
    }
}
