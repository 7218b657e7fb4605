//! One start on a node that has nothing.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use uimgacc_profile::Record;
use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::process::Daemon;
use uimgacc_testkit::unix_http::get;
use uimgacc_testkit::{Registry, parts};

use super::slow::{Link, SlowFolder};
use crate::prepared::Prepared;
use crate::warm_true::Mounts;

/// What starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// containerd's overlayfs, with the image on the node and nothing in the caches.
    OverlayLocal,
    /// containerd's overlayfs, with nothing on the node.
    OverlayPull,
    /// The store, with nothing on the node.
    Store,
    /// The store, with the image mounted and its pages in the cache: what no link can better.
    Warm,
    /// containerd's EROFS snapshotter, with nothing on the node but a shared cache of converted layers.
    ErofsCache,
}

impl Side {
    pub(crate) fn is_store(self) -> bool {
        matches!(self, Self::Store | Self::Warm)
    }

    /// Where the data lies in what is shared.
    fn data(self) -> &'static str {
        match self {
            Self::ErofsCache => "",
            _ => "packs",
        }
    }
}

/// A node to measure on.
pub(crate) struct Node<'a> {
    pub(crate) programs: &'a Path,
    pub(crate) store: &'a Path,
    pub(crate) link: Option<Link>,
    pub(crate) side: Side,
    pub(crate) daemon: &'a [String],
    /// Whether the daemon records the start.
    pub(crate) record: bool,
}

/// What one start took.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pull: Duration,
    run: Duration,
    read_bytes: u64,
    reads: u64,
    cpu: Duration,
    cached_bytes: u64,
    /// From the mount until the list was fetched.
    fetched: Option<Duration>,
    /// What the daemon recorded of it.
    pub(crate) record: Option<Record>,
}

impl Measured {
    pub(crate) fn total(&self) -> Duration {
        self.pull + self.run
    }

    pub(crate) fn text(&self) -> String {
        let mb = |bytes: u64| bytes / 1_000_000;
        format!(
            "{:8.2} {:8.2} {:8.2} {:9} {:9} {:7.1} {:8} {:>7}",
            self.total().as_secs_f64(),
            self.pull.as_secs_f64(),
            self.run.as_secs_f64(),
            mb(self.read_bytes),
            self.reads,
            self.cpu.as_secs_f64(),
            mb(self.cached_bytes),
            self.fetched.map_or_else(
                || "-".to_owned(),
                |took| format!("{:.2}", took.as_secs_f64())
            ),
        )
    }
}

/// A node that runs. Its parts end in this order.
pub(crate) struct Running {
    pub(crate) containerd: Containerd,
    daemon: Option<Daemon>,
    _mounts: Mounts,
    slow: Option<SlowFolder>,
    /// The store as the node sees it.
    pub(crate) store: PathBuf,
    folder: TempDir,
}

impl Running {
    /// Pulls an image; a new node has nothing of it.
    pub(crate) fn pull(&self, snapshotter: &str, reference: &str) -> anyhow::Result<()> {
        let hosts = self.containerd.hosts_dir();
        let hosts = hosts.to_str().context("a path of UTF-8")?;
        let pull = ["images", "pull", "--snapshotter", snapshotter];
        let what = ["--hosts-dir", hosts, reference];
        self.containerd.ctr_ok(&[&pull[..], &what].concat());
        Ok(())
    }

    /// Starts a container that stays.
    pub(crate) fn run_detached(&self, snapshotter: &str, reference: &str, program: &str) {
        let stays = format!("{program}\nimport time; time.sleep(6000)");
        let run = ["run", "--detach", "--snapshotter", snapshotter];
        let what = [reference, "zero", "python3", "-c", &stays];
        self.containerd.ctr_ok(&[&run[..], &what].concat());
    }

    /// Where the only image is mounted.
    pub(crate) fn mount(&self) -> anyhow::Result<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        // proc_pid_mountinfo(5): field 5 is the mount point, the file system's type follows the dash.
        let mount = table.lines().find_map(|line| {
            let point = Path::new(line.split(' ').nth(4)?);
            let kind = line.split_once(" - ")?.1.split(' ').next()?;
            (kind == "erofs" && point.starts_with(self.folder.path())).then(|| point.to_owned())
        });
        mount.context("no image is mounted")
    }

    /// Waits until the daemon reports this time of the image's start.
    pub(crate) fn wait_for(&self, time: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(600) {
            let chains = chains(&self.status_socket())?;
            if chains.iter().any(|chain| chain["start"][time].is_u64()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the daemon does not report {time}")
    }

    /// The socket of the daemon's status.
    fn status_socket(&self) -> PathBuf {
        self.folder.path().join("status.sock")
    }
}

impl Node<'_> {
    /// A new node.
    pub(crate) fn boot(&self, registry: &Registry) -> anyhow::Result<Running> {
        let folder = tempfile::Builder::new()
            .prefix("uimgacc-bench-node-")
            .tempdir_in("/var/tmp")?;
        let path = |name: &str| folder.path().join(name);
        let mut slow = None;
        let mut store = self.store.to_owned();
        if let Some(link) = self.link {
            store = path("slow");
            std::fs::create_dir(&store)?;
            slow = Some(SlowFolder::mount(self.store, &store, link)?);
        }
        let mounts = Mounts(path("node"));
        let mut daemon = None;
        let socket = path("snapshotter.sock");
        let options = match self.side {
            Side::OverlayLocal | Side::OverlayPull => Options::default(),
            Side::ErofsCache => Options {
                erofs_cache: Some(store.clone()),
                ..Options::default()
            },
            Side::Store | Side::Warm => {
                let started = daemon.insert(Daemon::spawn(
                    "uimgacc-snapshotter",
                    Command::new(self.programs.join("uimgacc-snapshotter"))
                        .arg("--store")
                        .arg(&store)
                        .arg("--root")
                        .arg(path("node"))
                        .arg("--address")
                        .arg(&socket)
                        .args(self.daemon)
                        .args(self.record.then_some("--record-starts")),
                    &path("snapshotter.log"),
                ));
                let is_up = || UnixStream::connect(&socket).is_ok();
                if !started.wait_ready(is_up) {
                    bail!("the snapshotter does not start: {}", started.log_tail());
                }
                Options::proxy(&socket)
            }
        };
        let containerd = Containerd::start(ContainerdVersion::V2_4, &options);
        containerd.trust(registry);
        Ok(Running {
            containerd,
            daemon,
            _mounts: mounts,
            slow,
            store,
            folder,
        })
    }

    /// A new node, one start, and all gone again.
    pub(crate) fn measure(&self, image: &Prepared, program: &str) -> anyhow::Result<Measured> {
        let node = self.boot(&image.registry)?;
        let (snapshotter, reference) = match self.side {
            Side::Store | Side::Warm => ("uimgacc", &image.target),
            Side::ErofsCache => ("erofs", &image.original),
            Side::OverlayLocal | Side::OverlayPull => ("overlayfs", &image.original),
        };
        let is_there = matches!(self.side, Side::OverlayLocal | Side::Warm);
        if is_there {
            node.pull(snapshotter, reference)?;
        }
        drop_caches()?;
        // A node that runs containers has these in its cache; only the image is to be new to it.
        read_all(&ContainerdVersion::V2_4.bin())?;
        for program in [
            &self.programs.join("uimgacc-snapshotter"),
            &parts::program("runc"),
        ] {
            read(program)?;
        }
        if self.side == Side::Warm {
            // Keeps the image mounted.
            node.run_detached(snapshotter, reference, program);
            std::thread::sleep(Duration::from_secs(30));
        }
        if node.slow.is_some() {
            // The link is to be slow, not this machine's disk behind it.
            read_all(&self.store.join(self.side.data()))?;
        }
        let before = Counted::now(node.slow.as_ref())?;
        let started = Instant::now();
        if !is_there {
            node.pull(snapshotter, reference)?;
        }
        let pulled = started.elapsed();
        let mut run = node
            .containerd
            .ctr_command()
            .args(["run", "--rm", "--snapshotter", snapshotter])
            .args([reference, "one", "python3", "-c", program])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start ctr")?;
        let mut line = String::new();
        let output = run.stdout.take().context("a pipe")?;
        BufReader::new(output).read_line(&mut line)?;
        let took = started.elapsed();
        let after = Counted::now(node.slow.as_ref())?;
        let status = run.wait()?;
        if !status.success() || line.trim().is_empty() {
            bail!(
                "{program:?} failed ({status}); {}",
                node.containerd.log_tail()
            );
        }
        let socket = node.status_socket();
        let fetched = match &node.daemon {
            Some(_) => fetched(&socket)?,
            None => None,
        };
        let record = match &node.daemon {
            Some(_) if self.record => Some(recorded(&socket)?),
            _ => None,
        };
        Ok(Measured {
            pull: pulled,
            run: took.saturating_sub(pulled),
            read_bytes: after.bytes - before.bytes,
            reads: after.reads - before.reads,
            cpu: after.cpu.saturating_sub(before.cpu),
            cached_bytes: after.cached.saturating_sub(before.cached),
            fetched,
            record,
        })
    }
}

/// Counters of the machine and of the link.
struct Counted {
    bytes: u64,
    reads: u64,
    cpu: Duration,
    cached: u64,
}

impl Counted {
    fn now(slow: Option<&SlowFolder>) -> anyhow::Result<Self> {
        let of = |get: fn(&SlowFolder) -> u64| slow.map_or(0, get);
        let stat = std::fs::read_to_string("/proc/stat")?;
        // proc_stat(5): user nice system idle iowait irq softirq, in hundredths of a second.
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum();
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let cached = memory
            .lines()
            .find_map(|line| line.strip_prefix("Cached:")?.trim().strip_suffix(" kB"))
            .and_then(|kb| kb.trim().parse::<u64>().ok())
            .unwrap_or_default();
        Ok(Self {
            bytes: of(|slow| slow.counters.bytes.load(Ordering::Relaxed)),
            reads: of(|slow| slow.counters.reads.load(Ordering::Relaxed)),
            cpu: Duration::from_millis(busy * 10),
            cached: cached << 10,
        })
    }
}

fn chains(socket: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut status: serde_json::Value = serde_json::from_slice(&get(socket, "/status")?)?;
    let chains = status["chains"].as_array_mut().context("no chains")?;
    Ok(std::mem::take(chains))
}

/// What the daemon recorded, once it has.
fn recorded(socket: &Path) -> anyhow::Result<Record> {
    for _ in 0..120 {
        let chains = chains(socket)?;
        let recorded = chains
            .iter()
            .find(|chain| chain["start"]["recorded"] == true);
        if let Some(chain) = recorded.and_then(|chain| chain["chainId"].as_str()) {
            return Ok(Record::decode(&get(socket, &format!("/records/{chain}"))?)?);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    bail!("the start was not recorded")
}

/// When the list of the image's profile was fetched, by the daemon's status.
fn fetched(socket: &Path) -> anyhow::Result<Option<Duration>> {
    let milliseconds = chains(socket)?
        .iter()
        .find_map(|chain| chain["start"]["fetchedMs"].as_u64());
    Ok(milliseconds.map(Duration::from_millis))
}

/// Nothing is in the caches afterwards.
pub(crate) fn drop_caches() -> anyhow::Result<()> {
    let status = Command::new("sync").status()?;
    anyhow::ensure!(status.success(), "sync failed");
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
}

/// Reads all files of a directory tree.
pub(crate) fn read_all(directory: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path)?;
        } else {
            read(&path)?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<()> {
    std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
    Ok(())
}
