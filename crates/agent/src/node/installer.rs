//! Work on the host: installs and uninstalls, by processes of the host ([`super::host_task`]).
//!
//! The programs run from this Pod's image, by way of `/proc`, so what works on the host is always of
//! our own version; the host gets copies for people and for the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uimgacc_node::Settings;

use super::cgroups;
use super::cri::Cri;
use super::decide::{HostWork, Outcome};
use super::host::Host;
use super::host_task::{Task, TaskResult};
use super::options::Options;
use super::release;

/// Nothing on a host takes so long that is not stuck.
const DEADLINE: Duration = Duration::from_secs(600);

/// What does the work.
#[derive(Debug, Clone)]
pub(super) struct Installer {
    options: Options,
    host: Host,
    /// Our own program.
    program: PathBuf,
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
    pub(super) async fn run(&self, work: HostWork, chains: &[String]) -> Outcome {
        let done = match work {
            HostWork::Prepare => self.install(false).await,
            HostWork::Install => self.install(true).await,
            HostWork::Uninstall => self.uninstall(chains).await,
        };
        done.unwrap_or_else(|error| {
            let text = format!("{error:#}");
            match work {
                HostWork::Uninstall => Outcome::UninstallFailed(text),
                HostWork::Prepare | HostWork::Install => Outcome::Failed(text),
            }
        })
    }

    async fn install(&self, may_restart: bool) -> anyhow::Result<Outcome> {
        let (host, program) = (self.host.clone(), self.beside("uimgacc"));
        let folder = PathBuf::from(&self.options.settings.paths.bin_dir);
        let copied =
            tokio::task::spawn_blocking(move || host.copy_program(&program, &folder)).await?;
        let bin_dir = &self.options.settings.paths.bin_dir;
        copied.with_context(|| format!("cannot copy uimgacc to {bin_dir} of the host"))?;
        let mut settings = self.settings();
        settings.binary = Some(self.seen_by_host(&self.beside("uimgacc-snapshotter")));
        settings.may_restart = may_restart;
        match self.on_host(&Task::Install(settings), false).await? {
            TaskResult::Installed {
                containerd,
                restart_needed: true,
                runs,
            } => Ok(Outcome::RestartNeeded { containerd, runs }),
            TaskResult::Installed { containerd, .. } => Ok(Outcome::Installed { containerd }),
            TaskResult::RolledBack(why) => Ok(Outcome::RolledBack(why)),
            other => Err(unexpected(other)),
        }
    }

    async fn uninstall(&self, chains: &[String]) -> anyhow::Result<Outcome> {
        let uninstall = |purge| Task::Uninstall {
            settings: self.settings(),
            purge,
        };
        match self.on_host(&uninstall(false), false).await? {
            TaskResult::Uninstalled => {}
            other => return Err(unexpected(other)),
        }
        if !chains.is_empty() {
            // Only now: before, they could have been taken from the store once more.
            let socket = Path::new(&self.options.settings.paths.containerd_socket);
            let cri = Cri::connect(self.host.socket(socket)).await;
            let cri = cri.context("containerd does not answer")?;
            for image in release::remove_all(&cri, chains).await? {
                tracing::info!(image, "removed, because its layers are in the store");
            }
        }
        let left = match self.on_host(&uninstall(true), true).await? {
            TaskResult::Uninstalled => None,
            TaskResult::Busy(why) => {
                self.purge_later().await?;
                let root = &self.options.settings.paths.root_dir;
                Some(format!(
                    "{root} is removed once no container uses it ({why})"
                ))
            }
            other => return Err(unexpected(other)),
        };
        let (host, traces) = (self.host.clone(), self.traces());
        tokio::task::spawn_blocking(move || sweep(&host, &traces)).await??;
        Ok(Outcome::Uninstalled { left })
    }

    /// Leaves a process on the host that removes the data once no container uses them; this Pod's own
    /// is among these where it was started with the snapshotter.
    async fn purge_later(&self) -> anyhow::Result<()> {
        let settings = self.settings();
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
            .arg(format!("{}/uimgacc", self.options.settings.paths.bin_dir))
            .args(["--quiet", "node", "uninstall", "--purge", "--when-unused"])
            .arg("--root")
            .arg(settings.root)
            .arg("--state")
            .arg(settings.state)
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
        let paths = &self.options.settings.paths;
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

    /// The settings of the library that works on the host.
    fn settings(&self) -> Settings {
        let paths = &self.options.settings.paths;
        let root = Path::new(&paths.root_dir);
        let mut settings = Settings::new(self.options.settings.daemon_store());
        settings.config = paths.containerd_config.clone().into();
        settings.containerd = paths.containerd_binary.clone().into();
        settings.containerd_socket = paths.containerd_socket.clone().into();
        if !paths.containerd_restart.is_empty() {
            settings.restart.clone_from(&paths.containerd_restart);
        }
        settings.bin_dir = paths.bin_dir.clone().into();
        settings.root = root.to_owned();
        settings.run_dir = paths.run_dir.clone().into();
        settings.log_dir = LOG_DIR.into();
        settings.daemon_config = Path::new(&paths.config_dir).join("snapshotter.toml");
        settings.daemon_keys = self.options.settings.daemon_keys();
        settings.state = root.join("node.json");
        settings
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.program.with_file_name(name)
    }

    /// A path of this Pod as the host's processes see it.
    fn seen_by_host(&self, path: &Path) -> PathBuf {
        format!("/proc/{}/root{}", std::process::id(), path.display()).into()
    }

    /// Does it on the host; where a claim is the store, its mount is there, or at the `end` is not.
    async fn on_host(&self, task: &Task, is_end: bool) -> anyhow::Result<TaskResult> {
        let mut command = Command::new(&self.program);
        command.arg("on-host");
        if let Some(volume) = &self.options.store_volume {
            let on_host = self.options.settings.claim_on_host();
            if is_end {
                command.arg("--detach").arg(on_host);
            } else {
                command.arg("--attach").arg(volume).arg(on_host);
            }
        }
        command
            .arg("--")
            .arg(self.seen_by_host(&self.program))
            .arg("host-task")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/");
        let input = serde_json::to_vec(task)?;
        let output = async {
            let mut child = command.spawn()?;
            // Closed at the end, so that the child sees where the task ends.
            let mut stdin = child.stdin.take();
            if let Some(stdin) = &mut stdin {
                stdin.write_all(&input).await?;
            }
            drop(stdin);
            child.wait_with_output().await
        };
        let seconds = DEADLINE.as_secs();
        let output = tokio::time::timeout(DEADLINE, output)
            .await
            .with_context(|| format!("the work on the host does not end within {seconds} s"))?
            .context("cannot run our own program on the host")?;
        let status = output.status;
        anyhow::ensure!(status.success(), "the work on the host ended with {status}");
        serde_json::from_slice(&output.stdout)
            .context("cannot understand what came of the work on the host")
    }
}

fn unexpected(result: TaskResult) -> anyhow::Error {
    match result {
        TaskResult::Failed(why) | TaskResult::RolledBack(why) | TaskResult::Busy(why) => {
            anyhow::anyhow!(why)
        }
        other => anyhow::anyhow!("not what was asked for: {other:?}"),
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
