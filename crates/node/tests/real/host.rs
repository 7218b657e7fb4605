//! A host: a containerd that runs as a service would, and the settings to install on it.
//!
//! Everything lies in a temporary folder, and containerd has a `/run` of its own. On drop the supervisor, the daemon and containerd are
//! ended, each known by its own folder in its arguments.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use uimgacc_node::{ManagerChoice, Settings};
use uimgacc_testkit::{parts, programs};

/// The versions whose programs are here, oldest first.
pub(crate) fn versions() -> Vec<&'static str> {
    let all = ["1.6", "1.7", "2.1", "2.4"];
    all.into_iter()
        .filter(|version| bin(version).join("containerd").exists())
        .collect()
}

fn bin(version: &str) -> PathBuf {
    parts::dir().join(format!("containerd-{version}/bin"))
}

/// A host with a containerd of one version.
pub(crate) struct Host {
    dir: TempDir,
    pub(crate) version: &'static str,
    pub(crate) settings: Settings,
}

impl Host {
    /// One whose containerd runs with this configuration; `None` for none. `DIR` in it stands for
    /// the host's folder.
    pub(crate) fn start(version: &'static str, config: Option<&str>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("uimgacc-node-")
            .tempdir()
            .unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["etc", "bin", "logs", "store"] {
            fs::create_dir(at(name)).unwrap();
        }
        let mut settings = Settings::new(at("store").display().to_string());
        settings.config = at("etc/config.toml");
        settings.containerd = bin(version).join("containerd");
        settings.containerd_socket = at("c.sock");
        settings.restart = vec![at("restart").display().to_string()];
        let log = at("containerd.log").display().to_string();
        settings.log = ["tail", "-n", "20", &log].map(str::to_owned).to_vec();
        settings.binary = Some(supervised_daemon(dir.path()));
        settings.bin_dir = at("bin");
        settings.root = at("snapshots");
        settings.run_dir = at("run");
        settings.log_dir = at("logs");
        settings.daemon_config = at("etc/snapshotter.toml");
        settings.unit_dir = at("units");
        settings.manager = ManagerChoice::Supervisor;
        settings.state = at("state/node.json");
        settings.patience = Duration::from_secs(20);
        let host = Self {
            dir,
            version,
            settings,
        };
        if let Some(text) = config {
            fs::write(&host.settings.config, host.fill(text)).unwrap();
        }
        host.write_restart("");
        let started = Command::new(host.path("restart")).status().unwrap();
        assert!(started.success());
        host.wait(|| host.ctr(&["version"]).status.success());
        host.forget_restarts();
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("DIR", &self.dir.path().display().to_string())
    }

    pub(crate) fn config(&self) -> Option<String> {
        fs::read_to_string(&self.settings.config).ok()
    }

    /// What restarts this containerd, as `systemctl restart` would; `first` runs before its start
    /// and may end the script.
    pub(crate) fn write_restart(&self, first: &str) {
        let script = format!(
            r#"#!/bin/sh
cd "{dir}"
echo restart >> restarts
if [ -e pid ]; then
  kill "$(cat pid)" 2>/dev/null
  while [ -e "/proc/$(cat pid)/exe" ]; do sleep 0.02; done
fi
{first}
set --
[ -e etc/config.toml ] || set -- --config "{dir}/etc/missing.toml"
[ -e etc/config.toml ] && set -- --config "{dir}/etc/config.toml"
[ -e etc/config.toml ] || echo 'version = 2' > etc/missing.toml
# Some sockets and folders have fixed places: the machine's own containerd must keep its.
aside='mount -t tmpfs aside /run; case "{parts}" in /opt/*) ;; *) mount -t tmpfs aside /opt ;; esac; exec "$0" "$@"'
PATH="{bin}:{parts}:$PATH" setsid unshare --mount --propagation private sh -c "$aside" "{bin}/containerd" "$@" --root "{dir}/root" --state "{dir}/state-run" \
  --address "{dir}/c.sock" >> containerd.log 2>&1 < /dev/null &
echo $! > pid
for _ in $(seq 500); do
  "{bin}/ctr" --address "{dir}/c.sock" --timeout 2s version >/dev/null 2>&1 && exit 0
  [ -e "/proc/$(cat pid)/exe" ] || break
  sleep 0.02
done
echo "containerd did not start" >&2
exit 1
"#,
            dir = self.dir.path().display(),
            bin = bin(self.version).display(),
            parts = parts::dir().join("bin").display(),
        );
        fs::write(self.path("restart"), script).unwrap();
        fs::set_permissions(self.path("restart"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn restarts(&self) -> usize {
        let text = fs::read_to_string(self.path("restarts")).unwrap_or_default();
        text.lines().count()
    }

    pub(crate) fn forget_restarts(&self) {
        let _ = fs::remove_file(self.path("restarts"));
    }

    pub(crate) fn ctr(&self, words: &[&str]) -> Output {
        Command::new(bin(self.version).join("ctr"))
            .arg("--address")
            .arg(self.path("c.sock"))
            .args(["--timeout", "20s"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn ctr_ok(&self, words: &[&str]) -> String {
        let output = self.ctr(words);
        assert!(
            output.status.success(),
            "{} {words:?}: {}\n{}",
            self.version,
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The state that `ctr plugins ls` shows for our snapshotter.
    /// What CRI's namespace has of our snapshotter, as `ctr` lists it.
    pub(crate) fn snapshots(&self) -> String {
        let list = ["snapshots", "--snapshotter", "uimgacc", "ls"];
        self.ctr_ok(&[&["--namespace", "k8s.io"], &list[..]].concat())
    }

    pub(crate) fn plugin(&self) -> Option<String> {
        let list = self.ctr_ok(&["plugins", "ls"]);
        let line = list.lines().find(|line| line.contains(" uimgacc "))?;
        line.split_whitespace().last().map(str::to_owned)
    }

    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    pub(crate) fn wait(&self, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "{}: {}",
                self.version,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The processes with this host's folder in their arguments.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let place = self.dir.path().display().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            words.contains(&place).then_some((pid, words))
        })
        .collect()
    }

    pub(crate) fn daemon_runs(&self) -> bool {
        let flag = "--root";
        self.processes()
            .iter()
            .any(|(_, words)| words.contains("uimgacc-snapshotter") && words.contains(flag))
    }
}

/// The daemon; with a script before it where it cannot supervise itself yet.
fn supervised_daemon(dir: &Path) -> PathBuf {
    let daemon = programs::program("uimgacc-snapshotter");
    let can = Command::new(&daemon)
        .args(["supervise", "--help"])
        .output()
        .is_ok_and(|output| output.status.success());
    if can {
        return daemon;
    }
    let script = dir.join("uimgacc-snapshotter");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = supervise ] && shift 4\nexec '{}' \"$@\"\n",
        daemon.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- containerd {}\n{}", self.version, self.log());
            let log = self.path("logs/uimgacc-snapshotter.log");
            eprintln!(
                "--- daemon\n{}",
                fs::read_to_string(log).unwrap_or_default()
            );
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes();
            let me = std::process::id().to_string();
            let left: Vec<_> = left
                .iter()
                .filter(|(pid, _)| pid.to_string() != me)
                .collect();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for (pid, _) in left {
                if let Some(pid) = Pid::from_raw(*pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below: Vec<&str> = points
            .filter(|point| Path::new(point).starts_with(self.dir.path()))
            .collect();
        for point in below.iter().rev() {
            let _ = rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
