//! Our own `uimgacc-api` as a process, on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::Daemon;

/// A running server.
#[derive(Debug)]
pub struct ApiServer {
    daemon: Daemon,
    dir: TempDir,
    address: String,
    metrics: String,
    scheme: &'static str,
}

impl ApiServer {
    /// Starts `program`. `config` is its configuration but for the addresses, which are free ones of loopback; `{dir}` in it is
    /// the folder of [`Self::dir`], in which `files` are written first.
    ///
    /// # Panics
    /// Where it does not start; its log is shown.
    #[must_use]
    pub fn start(program: &Path, config: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-api-")
            .tempdir()
            .expect("a temporary folder");
        for (name, content) in files {
            fs::write(dir.path().join(name), content).expect("a file");
        }
        let scheme = if config.contains("certificate") {
            "https"
        } else {
            "http"
        };
        let config = config.replace("{dir}", dir.path().to_str().expect("a path in UTF-8"));
        let path = dir.path().join("api.toml");
        let all = format!("listen = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n{config}");
        fs::write(&path, all).expect("the configuration");
        let log = dir.path().join("log");
        let mut daemon = Daemon::spawn(
            "uimgacc-api",
            Command::new(program).arg("--config").arg(&path),
            &log,
        );
        let mut addresses = (None, None);
        let up = daemon.wait_ready(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            addresses = (
                told(&said, "the API is served"),
                told(&said, "health and metrics"),
            );
            addresses.0.is_some() && addresses.1.is_some()
        });
        assert!(up, "{}", daemon.log_tail());
        let (Some(address), Some(metrics)) = addresses else {
            panic!("no addresses: {}", daemon.log_tail());
        };
        Self {
            daemon,
            dir,
            address,
            metrics,
            scheme,
        }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Host and port of health and metrics.
    #[must_use]
    pub fn metrics_address(&self) -> &str {
        &self.metrics
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Its folder, with `api.toml`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its log and its audit log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Bytes of its memory just now and at most (`VmRSS`, `VmHWM`).
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid()))
            .expect("the server runs");
        let of = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            let kib: u64 = line
                .and_then(|line| line.split_whitespace().nth(1))
                .and_then(|number| number.parse().ok())
                .expect("a number of KiB");
            kib * 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

/// The address in a line of the log.
fn told(log: &str, what: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(what))?;
    let rest = line.split_once("address=")?.1;
    rest.split_whitespace().next().map(str::to_owned)
}
