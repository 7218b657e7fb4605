//! Work on the host: `uimgacc node install` and `node uninstall`, run as the host's own processes.
//!
//! The programs run from this Pod's image, by way of `/proc`, so what works on the host is always of
//! our own version; the host gets copies for people and for the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::process::Command;
use uimgacc_objects::{Fallback, Originals};

use super::cgroups;
use super::cri::Cri;
use super::decide::{Outcome, Work};
use super::host::Host;
use super::options::Options;
use super::release;

/// Nothing on a host takes so long that is not stuck.
const DEADLINE: Duration = Duration::from_secs(600);
/// Exit codes of the command line.
const IN_USE: i32 = 4;
const ROLLED_BACK: i32 = 5;

/// What does the work.
#[derive(Debug, Clone)]
pub(super) struct Installer {
    options: Options,
    host: Host,
    /// Our own program.
    program: PathBuf,
}

/// What `node install` prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Installed {
    containerd: String,
    restart_needed: bool,
    runs: bool,
}

impl Installer {
    pub(super) fn new(options: &Options, host: &Host) -> io::Result<Self> {
        Ok(Self {
            options: options.clone(),
            host: host.clone(),
            program: std::env::current_exe()?,
        })
    }

    /// Does a piece of work; `chains` are those that the node holds of the store.
    pub(super) async fn run(&self, work: Work, chains: &[String]) -> Outcome {
        let done = match work {
            Work::Prepare => self.install(false).await,
            Work::Install => self.install(true).await,
            Work::Uninstall => self.uninstall(chains).await,
        };
        done.unwrap_or_else(|error| {
            let text = format!("{error:#}");
            match work {
                Work::Uninstall => Outcome::UninstallFailed(text),
                Work::Prepare | Work::Install => Outcome::Failed(text),
            }
        })
    }

    async fn install(&self, may_restart: bool) -> anyhow::Result<Outcome> {
        let (host, program) = (self.host.clone(), self.beside("uimgacc"));
        let folder = PathBuf::from(&self.options.paths.bin_dir);
        let copied =
            tokio::task::spawn_blocking(move || host.copy_program(&program, &folder)).await?;
        let bin_dir = &self.options.paths.bin_dir;
        copied.with_context(|| format!("cannot copy uimgacc to {bin_dir} of the host"))?;
        let output = self
            .uimgacc(&self.install_words(may_restart), false)
            .await?;
        match output.status.code() {
            Some(0) => {}
            Some(ROLLED_BACK) => return Ok(Outcome::RolledBack(said(&output))),
            _ => anyhow::bail!(said(&output)),
        }
        let done: Installed = serde_json::from_slice(&output.stdout)
            .context("cannot understand what `uimgacc node install` printed")?;
        Ok(if done.restart_needed {
            Outcome::RestartNeeded {
                containerd: done.containerd,
                runs: done.runs,
            }
        } else {
            Outcome::Installed {
                containerd: done.containerd,
            }
        })
    }

    async fn uninstall(&self, chains: &[String]) -> anyhow::Result<Outcome> {
        let words = self.common_words("uninstall");
        let output = self.uimgacc(&words, false).await?;
        anyhow::ensure!(output.status.success(), said(&output));
        if !chains.is_empty() {
            // Only now: before, they could have been taken from the store once more.
            let socket = Path::new(&self.options.paths.containerd_socket);
            let cri = Cri::connect(self.host.socket(socket)).await;
            let cri = cri.context("containerd does not answer")?;
            for image in release::remove_all(&cri, chains).await? {
                tracing::info!(image, "removed, because its layers are in the store");
            }
        }
        let mut words = words;
        words.push("--purge".to_owned());
        let output = self.uimgacc(&words, true).await?;
        let left = match output.status.code() {
            Some(0) => None,
            Some(IN_USE) => {
                self.purge_later(&words).await?;
                let root = &self.options.paths.root_dir;
                let why = said(&output);
                Some(format!(
                    "{root} is removed once no container uses it ({why})"
                ))
            }
            _ => anyhow::bail!(said(&output)),
        };
        let (host, traces) = (self.host.clone(), self.traces());
        tokio::task::spawn_blocking(move || sweep(&host, &traces)).await??;
        Ok(Outcome::Uninstalled { left })
    }

    /// Leaves a process on the host that removes the data once no container uses them; this Pod's own
    /// is among these where it was started with the snapshotter.
    async fn purge_later(&self, words: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("on-host");
        if self.host.has(Path::new("/run/systemd/system")) {
            let start = ["systemd-run", "--quiet", "--collect", "--service-type=exec"];
            command.arg("--").args(start).arg("--unit=uimgacc-purge");
        } else {
            command.args(["--background", "--"]);
        }
        // The host's copy: this Pod's would keep the data in use. Its file is removed at once.
        command
            .arg(format!("{}/uimgacc", self.options.paths.bin_dir))
            .args(words)
            .arg("--when-unused")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        let status = command
            .status()
            .await
            .context("cannot run our own program")?;
        anyhow::ensure!(
            status.success(),
            "cannot start what removes the data later: {status}"
        );
        Ok(())
    }

    /// What neither the daemon nor its installation removes: files, and folders where they are empty.
    fn traces(&self) -> Vec<PathBuf> {
        let paths = &self.options.paths;
        let run = Path::new(&paths.run_dir);
        let mut traces: Vec<PathBuf> = ["snapshotter.sock", "status.sock", "supervisor.json"]
            .iter()
            .map(|name| run.join(name))
            .collect();
        traces.extend([
            Path::new(&paths.bin_dir).join("uimgacc"),
            run.to_owned(),
            paths.config_dir.clone().into(),
            PathBuf::from(LOG_DIR).join("uimgacc-snapshotter.log"),
        ]);
        traces
    }

    fn install_words(&self, may_restart: bool) -> Vec<String> {
        let mut words = self.common_words("install");
        let mut add = |name: &str, value: String| words.push(format!("--{name}={value}"));
        add("store", self.options.daemon_store());
        add(
            "binary",
            self.seen_by_host(&self.beside("uimgacc-snapshotter")),
        );
        if self.options.originals == Originals::TargetsOnly {
            add("snapshotter-key", "original_images=unpack".to_owned());
        }
        if self.options.fallback == Fallback::Fail {
            add("snapshotter-key", "fallback=fail".to_owned());
        }
        for key in &self.options.snapshotter_key {
            add("snapshotter-key", key.clone());
        }
        if !may_restart {
            words.push("--no-restart".to_owned());
        }
        words
    }

    fn common_words(&self, verb: &str) -> Vec<String> {
        let paths = &self.options.paths;
        let mut words = ["--quiet", "node", verb, "--output=json"]
            .map(str::to_owned)
            .to_vec();
        let mut add = |name: &str, value: &str| words.push(format!("--{name}={value}"));
        add("config", &paths.containerd_config);
        add("containerd-socket", &paths.containerd_socket);
        add("containerd", &paths.containerd_binary);
        if !paths.containerd_restart.is_empty() {
            // A list of texts is always JSON.
            let restart = serde_json::to_string(&paths.containerd_restart).unwrap_or_default();
            add("restart", &restart);
        }
        add("bin-dir", &paths.bin_dir);
        add("root", &paths.root_dir);
        add("state", &format!("{}/node.json", paths.root_dir));
        add("run-dir", &paths.run_dir);
        add("log-dir", LOG_DIR);
        let config = format!("{}/snapshotter.toml", paths.config_dir);
        add("snapshotter-config", &config);
        words
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.program.with_file_name(name)
    }

    /// A path of this Pod as the host's processes see it.
    fn seen_by_host(&self, path: &Path) -> String {
        format!("/proc/{}/root{}", std::process::id(), path.display())
    }

    /// Runs it on the host; where a claim is the store, its mount is there, or at the `end` is not.
    async fn uimgacc(&self, words: &[String], is_end: bool) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg("on-host");
        if let Some(volume) = &self.options.store_volume {
            let on_host = self.options.volume_on_host();
            if is_end {
                command.arg("--detach").arg(on_host);
            } else {
                command.arg("--attach").arg(volume).arg(on_host);
            }
        }
        command
            .arg("--")
            .arg(self.seen_by_host(&self.beside("uimgacc")))
            .args(words)
            .stdin(Stdio::null())
            .current_dir("/");
        tracing::info!(?words, "uimgacc on the host");
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output
            .with_context(|| {
                format!(
                    "`uimgacc node` does not end on the host within {} s",
                    DEADLINE.as_secs()
                )
            })?
            .context("cannot run our own program")?;
        if output.status.success() && !output.stderr.is_empty() {
            tracing::warn!(said = said(&output), "uimgacc on the host");
        }
        Ok(output)
    }
}

const LOG_DIR: &str = "/var/log";

fn sweep(host: &Host, traces: &[PathBuf]) -> anyhow::Result<()> {
    for trace in traces {
        host.remove(trace)
            .with_context(|| format!("cannot remove {} of the host", trace.display()))?;
    }
    cgroups::remove(host.root());
    Ok(())
}

/// Why a command failed, in its own words.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    if text.is_empty() {
        format!("`uimgacc node` ended with {}", output.status)
    } else {
        text.to_owned()
    }
}
