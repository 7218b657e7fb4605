//! The configuration file: TOML, read strictly. Every key stands in `docs/en/snapshotter.md`.
//!
//! Guarantees: what is not known or not possible is an error that names its line; nothing is
//! ignored. Pure but for [`Config::read`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use uimgacc_mount::Methods;
use uimgacc_types::StoreSource;

use crate::node::{Fallback, LeaseKeeper, OriginalImages};

/// Where the file is looked for where none is named.
pub const DEFAULT_PATH: &str = "/etc/uimgacc/snapshotter.toml";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read {path}; name another file, or make this one (docs/en/snapshotter.md has the keys)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}, line {line}: {message}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
}

/// What a configuration file says; `None` for what it leaves to the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the store is.
    #[serde(default, deserialize_with = "store")]
    pub store: Option<StoreSource>,
    /// The snapshotter's folder.
    #[serde(default, deserialize_with = "absolute")]
    pub root: Option<PathBuf>,
    /// containerd's socket.
    #[serde(default, deserialize_with = "absolute")]
    pub address: Option<PathBuf>,
    /// The socket of status and metrics.
    #[serde(default, deserialize_with = "absolute")]
    pub status_address: Option<PathBuf>,
    /// What is logged.
    #[serde(default, deserialize_with = "filter")]
    pub log: Option<String>,
    /// How images are mounted.
    #[serde(default, deserialize_with = "methods")]
    pub methods: Option<Methods>,
    /// Read-ahead of images that have started, in KiB.
    #[serde(default, deserialize_with = "read_ahead")]
    pub read_ahead_kb: Option<u32>,
    /// Read-ahead of images with a profile that start, in KiB.
    #[serde(default, deserialize_with = "read_ahead")]
    pub start_read_ahead_kb: Option<u32>,
    /// Reads at once that fetch what a profile lists.
    #[serde(default, deserialize_with = "readers")]
    pub fetch_readers: Option<u16>,
    /// At which rate an image fetches, in MB a second.
    #[serde(default, deserialize_with = "rate")]
    pub fetch_rate_mb: Option<u32>,
    /// Whether first starts are recorded, for somebody who takes that to the store.
    #[serde(default)]
    pub record_starts: Option<bool>,
    /// How long a layer waits for the store, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub store_timeout: Option<u64>,
    /// How long a request waits for a mount, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub mount_timeout: Option<u64>,
    /// What is done with images pulled by their original name.
    pub original_images: Option<OriginalImages>,
    /// Who says what this node uses.
    pub leases: Option<LeaseKeeper>,
    /// What is done with target images while the store cannot be reached.
    pub fallback: Option<Fallback>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses the text of the file `path`.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            ConfigError::Wrong {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                message: error.message().to_owned(),
            }
        })
    }
}

fn store<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StoreSource>, D::Error> {
    struct Addresses;

    impl<'de> Visitor<'de> for Addresses {
        type Value = StoreSource;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"nfs://SERVER/PATH?OPTIONS\", the absolute path of a folder, or a list of addresses of one store")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<StoreSource, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StoreSource, A::Error> {
            let mut texts: Vec<String> = Vec::new();
            while let Some(text) = items.next_element()? {
                texts.push(text);
            }
            StoreSource::parse_all(&texts).map_err(de::Error::custom)
        }
    }

    deserializer.deserialize_any(Addresses).map(Some)
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(Some(path));
    }
    Err(de::Error::custom(format!(
        "{path:?} is no absolute path; start it with /"
    )))
}

fn filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(Some(text)),
        Err(error) => Err(de::Error::custom(format!(
            "{text:?} is no log filter ({error}); write a level: error, warn, info, debug or trace"
        ))),
    }
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Methods>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let parsed = names.join(",").parse();
    parsed.map(Some).map_err(de::Error::custom)
}

fn read_ahead<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    /// More than that is a mistake of the unit.
    const MOST: u32 = 1 << 20;
    let kb = u32::deserialize(deserializer)?;
    if kb <= MOST {
        return Ok(Some(kb));
    }
    Err(de::Error::custom(format!(
        "{kb} KiB is too much; {MOST} at most"
    )))
}

fn readers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let readers = u16::deserialize(deserializer)?;
    if (1..=256).contains(&readers) {
        return Ok(Some(readers));
    }
    Err(de::Error::custom(format!(
        "{readers} reads at once are not possible; write 1 to 256"
    )))
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let rate = u32::deserialize(deserializer)?;
    if rate > 0 {
        return Ok(Some(rate));
    }
    Err(de::Error::custom(
        "0 MB a second fetch nothing; leave it out for no limit",
    ))
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if (1..=3600).contains(&seconds) {
        return Ok(Some(seconds));
    }
    Err(de::Error::custom(format!(
        "{seconds} is no time to wait; write 1 to 3600 seconds"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/x.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key() {
        let config = parse(
            r#"
            store = "nfs://10.0.0.1/?vers=3"
            root = "/var/lib/uimgacc"
            address = "/run/uimgacc/snapshotter.sock"
            status_address = "/run/uimgacc/s.sock"
            log = "info,uimgacc_mount=debug"
            methods = ["file", "loop"]
            read_ahead_kb = 64
            start_read_ahead_kb = 8
            fetch_readers = 4
            fetch_rate_mb = 100
            record_starts = true
            store_timeout = 3
            mount_timeout = 30
            original_images = "unpack"
            leases = "cluster"
            fallback = "fail"
            "#,
        );
        let expected = Config {
            store: Some("nfs://10.0.0.1/?vers=3".parse().unwrap()),
            root: Some("/var/lib/uimgacc".into()),
            address: Some("/run/uimgacc/snapshotter.sock".into()),
            status_address: Some("/run/uimgacc/s.sock".into()),
            log: Some("info,uimgacc_mount=debug".to_owned()),
            methods: Some("file,loop".parse().unwrap()),
            read_ahead_kb: Some(64),
            start_read_ahead_kb: Some(8),
            fetch_readers: Some(4),
            fetch_rate_mb: Some(100),
            record_starts: Some(true),
            store_timeout: Some(3),
            mount_timeout: Some(30),
            original_images: Some(OriginalImages::Unpack),
            leases: Some(LeaseKeeper::Cluster),
            fallback: Some(Fallback::Fail),
        };
        assert_eq!(config, Ok(expected));
        assert_eq!(parse(""), Ok(Config::default()));
        let two = parse("store = ['nfs://a/p', 'nfs://b/p']").unwrap();
        assert_eq!(two.store, Some("nfs://a,b/p".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [
            (
                "# a\nstor = '/a'",
                2,
                "unknown field `stor`, expected one of `store`, `root`",
            ),
            ("root = '/a'\n\nstore = 'a'", 3, "absolute path"),
            ("store = 'nfs://a/?rsiez=1'", 1, "\"rsiez=1\" is not known"),
            (
                "store = [\n'nfs://a/', 'nfs://b/x']",
                1,
                "same path and options",
            ),
            ("store = 7", 1, "expected \"nfs://SERVER/PATH?OPTIONS\""),
            ("store = []", 1, "it is empty"),
            ("root = 'a'", 1, "start it with /"),
            ("log = 'x=y=z'", 1, "is no log filter"),
            (
                "methods = ['fuse']",
                1,
                "known are file-directio, file and loop",
            ),
            ("methods = 'file'", 1, "expected a sequence"),
            ("store_timeout = 0", 1, "1 to 3600"),
            ("store_timeout = '5'", 1, "expected u64"),
            ("read_ahead_kb = 99999999", 1, "at most"),
            ("fetch_readers = 0", 1, "1 to 256"),
            ("fetch_rate_mb = 0", 1, "leave it out"),
            (
                "original_images = 'no'",
                1,
                "expected one of `accelerate`, `accelerate-without-proof`, `unpack`",
            ),
            ("\nroot = ", 2, ""),
            ("root = '/a'\nroot = '/b'", 2, "duplicate key"),
            ("[table]", 1, "unknown field `table`"),
        ] {
            let error = parse(text).expect_err(text);
            let place = format!("/etc/x.toml, line {line}: ");
            assert!(error.starts_with(&place), "{text}: {error}");
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
