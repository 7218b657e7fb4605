//! A real registry (Debian's `docker-registry`, the CNCF distribution) on a free port, of loopback where not said otherwise, with its storage in a temporary folder.
//!
//! Deleting is enabled. Plain HTTP.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::Daemon;
use crate::{net, parts};

/// How often another port is tried where somebody else took the free one first.
const ATTEMPTS: u32 = 5;

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    daemon: Daemon,
    ip: Ipv4Addr,
    port: u16,
    login: Option<String>,
    dir: TempDir,
}

impl Registry {
    /// Starts one that is open to all.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Ipv4Addr::LOCALHOST, None)
    }

    /// Starts one that is open to all on another address of this machine, for clients with a network of their own.
    #[must_use]
    pub fn start_on(ip: Ipv4Addr) -> Self {
        Self::start_with(ip, None)
    }

    /// Starts one with basic authentication for one user, for reading as well as for writing.
    #[must_use]
    pub fn start_with_htpasswd(user: &str, password: &str) -> Self {
        Self::start_with_htpasswd_on(Ipv4Addr::LOCALHOST, user, password)
    }

    /// The same on another address of this machine, for clients with a network of their own.
    #[must_use]
    pub fn start_with_htpasswd_on(ip: Ipv4Addr, user: &str, password: &str) -> Self {
        Self::start_with(ip, Some((user, password)))
    }

    /// Starts it again on the same port, so that it refuses writes from now on, or takes them again.
    ///
    /// # Panics
    /// Where it does not come back; the end of its log is shown.
    pub fn set_read_only(&mut self, is_read_only: bool) {
        self.daemon.stop();
        let config = self.dir.path().join("config.yml");
        let text = fs::read_to_string(&config).expect("the configuration was written");
        let text = text.replace(&read_only(!is_read_only), &read_only(is_read_only));
        fs::write(&config, text).expect("the configuration can be written");
        self.daemon = spawn(&config, &self.dir.path().join("log"));
        let (ip, port) = (self.ip, self.port);
        let up = self.daemon.wait_ready(|| net::answers(ip, port));
        assert!(
            up,
            "the registry does not come back\n{}",
            self.daemon.log_tail()
        );
    }

    fn start_with(ip: Ipv4Addr, login: Option<(&str, &str)>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-registry-")
            .tempdir()
            .expect("a temporary folder");
        let auth = login.map(|(user, password)| {
            let file = dir.path().join("htpasswd");
            fs::write(&file, format!("{user}:{}\n", bcrypt(password)))
                .expect("the password file can be written");
            file
        });
        for _attempt in 0..ATTEMPTS {
            let port = net::free_port(ip);
            let config = dir.path().join("config.yml");
            fs::write(
                &config,
                configuration(&dir.path().join("storage"), ip, port, auth.as_deref()),
            )
            .expect("the configuration can be written");
            let mut daemon = spawn(&config, &dir.path().join("log"));
            if daemon.wait_ready(|| net::answers(ip, port)) && daemon.exit_status().is_none() {
                return Self {
                    daemon,
                    ip,
                    port,
                    login: login.map(|(user, password)| format!("{user}:{password}")),
                    dir,
                };
            }
            eprintln!("the registry ended at once\n{}", daemon.log_tail());
        }
        panic!("the registry did not start in {ATTEMPTS} attempts");
    }

    /// Host and port as they stand in an image reference, e.g. `127.0.0.1:40001`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// The address it listens on.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The base address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// An image reference in this registry, e.g. of `app:1`.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address())
    }

    /// The file of a blob, by the hex digits of its SHA-256 digest: for tests that damage it or drop it from the page cache.
    #[must_use]
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        self.storage()
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    /// The folder that holds all its data.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// Everything it has logged, one line a request among others (method, path, status).
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("log")).unwrap_or_default())
            .into_owned()
    }

    /// User and password with a colon between, where one is needed.
    #[must_use]
    pub(crate) fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}

fn spawn(config: &Path, log: &Path) -> Daemon {
    let mut command = Command::new(parts::program("docker-registry"));
    command
        .arg("serve")
        .arg(config)
        .env("OTEL_TRACES_EXPORTER", "none");
    Daemon::spawn("docker-registry", &mut command, log)
}

fn read_only(is_read_only: bool) -> String {
    format!("readonly:\n      enabled: {is_read_only}\n")
}

fn configuration(storage: &Path, ip: Ipv4Addr, port: u16, htpasswd: Option<&Path>) -> String {
    let auth = htpasswd.map_or_else(String::new, |file| {
        format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            file.display()
        )
    });
    format!(
        "version: 0.1\n\
         log:\n  level: info\n  accesslog:\n    disabled: false\n\
         storage:\n  delete:\n    enabled: true\n  maintenance:\n    {}  filesystem:\n    rootdirectory: {}\n\
         http:\n  addr: {ip}:{port}\n  secret: test\n{auth}",
        read_only(false),
        storage.display()
    )
}

/// A bcrypt hash, which is all that the registry takes. By perl, which every Debian has, and whose `crypt` is libxcrypt's.
fn bcrypt(password: &str) -> String {
    let program = r#"my $p = <STDIN>; print crypt($p, '$2y$04$uimgaccuimgaccuimgaccu');"#;
    let mut perl = Command::new("perl")
        .args(["-e", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl starts");
    // Dropped at the end of the statement, which is the end of the input for perl.
    perl.stdin
        .take()
        .expect("a pipe was asked for")
        .write_all(password.as_bytes())
        .expect("perl reads");
    let output = perl.wait_with_output().expect("perl ends");
    let hash = String::from_utf8(output.stdout).expect("a hash is ASCII");
    assert!(
        hash.starts_with("$2y$04$") && hash.len() == 60,
        "perl made no bcrypt hash: {hash:?}"
    );
    hash
}
