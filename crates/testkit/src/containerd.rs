//! A real containerd of one of three versions, with root, state and socket in a temporary folder of its own.
//!
//! Several run side by side: each has a namespace of its own for `ctr`, because runc and the cgroups know containers by namespace and
//! name alone. CRI always works in the namespace `k8s.io`, with random names.
//!
//! On drop its tasks are deleted, then its shims with all that runs below them and itself are killed, and what is mounted below its
//! folder is unmounted. Shims are known by the socket in their arguments, so nobody else's are touched.

mod config;
mod leftovers;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::cri::Cri;
use crate::process::Daemon;
use crate::{Registry, parts};

/// A version of containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerdVersion {
    /// Of Debian 12.
    V1_6,
    /// Of Debian 13.
    V1_7,
    /// Of Debian forky.
    V2_1,
    /// Of its Go module, by `scripts/parts-kubernetes.sh`.
    V2_4,
}

impl ContainerdVersion {
    /// Those that `scripts/parts.sh` alone installs, oldest first.
    pub const ALL: [Self; 3] = [Self::V1_6, Self::V1_7, Self::V2_1];

    /// The folder of its programs.
    #[must_use]
    pub fn bin(self) -> PathBuf {
        parts::dir().join(match self {
            Self::V1_6 => "containerd-1.6/bin",
            Self::V1_7 => "containerd-1.7/bin",
            Self::V2_1 => "containerd-2.1/bin",
            Self::V2_4 => "containerd-2.4/bin",
        })
    }
}

/// What a containerd is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The socket of a proxy snapshotter, registered as `uimgacc`. Need not be there yet.
    pub proxy_socket: Option<PathBuf>,
    /// The snapshotter that CRI uses; `overlayfs` where not given.
    pub cri_snapshotter: Option<String>,
    /// The pause image by its reference. Without one, no pod starts.
    pub pause_image: Option<String>,
    /// A cache of converted layers for containerd's own EROFS snapshotter (2.4 and later).
    pub erofs_cache: Option<PathBuf>,
}

impl Options {
    /// With a proxy snapshotter `uimgacc` at this socket, used by CRI too.
    #[must_use]
    pub fn proxy(socket: &Path) -> Self {
        Self {
            proxy_socket: Some(socket.to_owned()),
            cri_snapshotter: Some("uimgacc".to_owned()),
            ..Self::default()
        }
    }

    /// Sets the pause image.
    #[must_use]
    pub fn pause(mut self, reference: &str) -> Self {
        self.pause_image = Some(reference.to_owned());
        self
    }
}

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    version: ContainerdVersion,
    daemon: Daemon,
    namespace: String,
    dir: TempDir,
}

/// A script for a container of `ctr`, which loses what a process says right before its end: it closes
/// the pipes then, read or not.
#[must_use]
pub fn heard_to_its_end(script: &str) -> String {
    format!("{script}; code=$?; /bin/busybox sleep 0.5; exit $code")
}

impl Containerd {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// Where it does not; its log is shown.
    #[must_use]
    pub fn start(version: ContainerdVersion, options: &Options) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-ctd-")
            .tempdir()
            .expect("a temporary folder");
        for name in ["root", "state", "hosts", "logs", "opt"] {
            fs::create_dir(dir.path().join(name)).expect("a new folder");
        }
        fs::write(
            dir.path().join("config.toml"),
            config::toml(version, dir.path(), options),
        )
        .expect("the configuration can be written");
        let namespace = format!(
            "uimgacc-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let daemon = spawn(version, dir.path());
        Self {
            version,
            daemon,
            namespace,
            dir,
        }
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> ContainerdVersion {
        self.version
    }

    /// The gRPC socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// Its folder; `root` and `state` lie below.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The namespace that [`Self::ctr`] works in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Lets CRI and `ctr images pull --hosts-dir` use a registry over plain HTTP. Holds from the next pull on.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn trust(&self, registry: &Registry) {
        let dir = self.hosts_dir().join(registry.address());
        fs::create_dir_all(&dir).expect("a new folder");
        let url = registry.url();
        let hosts = format!(
            "server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(dir.join("hosts.toml"), hosts).expect("hosts.toml can be written");
    }

    /// The folder of the `hosts.toml` files.
    #[must_use]
    pub fn hosts_dir(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }

    /// A `ctr` with socket and namespace set, to add arguments to.
    #[must_use]
    pub fn ctr_command(&self) -> Command {
        let mut command = Command::new(self.version.bin().join("ctr"));
        command.env("PATH", parts::search_path(&[self.version.bin()]));
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", &self.namespace]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `ctr` in the own namespace and returns what came of it.
    ///
    /// # Panics
    /// Where `ctr` cannot be started.
    #[must_use]
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.ctr_command()
            .args(args)
            .output()
            .expect("ctr can be started")
    }

    /// Runs `ctr`, which must succeed, and returns what it printed.
    ///
    /// # Panics
    /// Where it fails; its output and the daemon's log are shown.
    pub fn ctr_ok(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "ctr {args:?}: {}\n{stdout}{stderr}\n--- containerd\n{}",
            output.status,
            self.daemon.log_tail()
        );
        stdout.into_owned()
    }

    /// Pulls an image by `ctr` for the proxy snapshotter and returns what came of it.
    ///
    /// # Panics
    /// As [`Self::ctr`].
    #[must_use]
    pub fn pull(&self, image: &str) -> Output {
        let hosts = self.hosts_dir();
        let hosts = hosts.to_str().expect("a path of UTF-8");
        let words = ["images", "pull", "--snapshotter", "uimgacc"];
        self.ctr(&[&words[..], &["--hosts-dir", hosts, image]].concat())
    }

    /// Runs a script by busybox in a new container of that image, with these options of `ctr run`,
    /// and returns what it said.
    ///
    /// # Panics
    /// As [`Self::ctr_ok`].
    pub fn run_script(&self, options: &[&str], image: &str, id: &str, script: &str) -> String {
        let words = [&["run", "--rm"], options, &[image, id]].concat();
        self.busybox(&words, script)
    }

    /// The same where it may fail.
    pub fn try_script(&self, options: &[&str], image: &str, id: &str, script: &str) -> Output {
        let shell = ["/bin/busybox", "sh", "-c", &heard_to_its_end(script)];
        self.ctr(&[&["run", "--rm"], options, &[image, id], &shell].concat())
    }

    fn busybox(&self, words: &[&str], script: &str) -> String {
        let shell = ["/bin/busybox", "sh", "-c", &heard_to_its_end(script)];
        self.ctr_ok(&[words, &shell].concat())
    }

    /// Runs a script by busybox in a container that runs, and returns what it said.
    ///
    /// # Panics
    /// As [`Self::ctr_ok`].
    pub fn exec_script(&self, container: &str, exec: &str, script: &str) -> String {
        let words = ["tasks", "exec", "--exec-id", exec, container];
        self.busybox(&words, script)
    }

    /// A client of its CRI.
    #[must_use]
    pub fn cri(&self) -> Cri {
        Cri::connect(&self.socket(), &self.dir.path().join("logs"))
    }

    /// Ends it by `SIGTERM` and starts it again on the same folders. Containers go on.
    pub fn restart(&mut self) {
        self.daemon.stop();
        self.daemon = spawn(self.version, self.dir.path());
    }

    /// `SIGKILL`; containers go on. [`Self::restart`] starts it again.
    pub fn kill9(&mut self) {
        self.daemon.kill();
    }

    /// The process ID of the daemon.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The last 4 KiB of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(
            &fs::read(self.dir.path().join("containerd.log")).unwrap_or_default(),
        )
        .into_owned()
    }

    /// Deletes all tasks by containerd itself, so that runc takes their cgroups with them.
    fn delete_tasks(&self) {
        for namespace in [self.namespace.as_str(), "k8s.io"] {
            let ctr = |args: &[&str]| {
                self.ctr_command()
                    .args(["--timeout", "10s", "--namespace", namespace])
                    .args(args)
                    .output()
            };
            let Ok(list) = ctr(&["tasks", "ls", "-q"]) else {
                return;
            };
            for id in String::from_utf8_lossy(&list.stdout).lines() {
                let _gone = ctr(&["tasks", "rm", "-f", id]);
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.daemon.exit_status().is_none() {
            self.delete_tasks();
        }
        leftovers::kill_shims(&self.socket());
        self.daemon.stop();
        leftovers::unmount_below(self.dir.path());
        leftovers::remove_namespace(&self.namespace);
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("c.sock")
}

fn spawn(version: ContainerdVersion, dir: &Path) -> Daemon {
    let mut command = Command::new(version.bin().join("containerd"));
    command.arg("--config").arg(dir.join("config.toml"));
    // containerd finds its shim in PATH, and the shim runc.
    command
        .env("PATH", parts::search_path(&[version.bin()]))
        .env_remove("NOTIFY_SOCKET");
    let mut daemon = Daemon::spawn("containerd", &mut command, &dir.join("containerd.log"));
    let up = daemon.wait_ready(|| {
        UnixStream::connect(socket(dir)).is_ok() && {
            let mut ctr = Command::new(version.bin().join("ctr"));
            let ctr = ctr
                .arg("--address")
                .arg(socket(dir))
                .args(["--timeout", "5s", "version"])
                .stdin(Stdio::null());
            ctr.output().is_ok_and(|output| output.status.success())
        }
    });
    assert!(
        up,
        "containerd {version:?} ended at once\n{}",
        daemon.log_tail()
    );
    daemon
}
