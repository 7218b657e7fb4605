//! A node with the store on NFS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use uimgacc_testkit::containerd::{Containerd, ContainerdVersion, Options};
use uimgacc_testkit::image::{Compression, ImageBuilder, busybox_layer};
use uimgacc_testkit::nfs_server::{self, NfsServer};
use uimgacc_testkit::process::{Daemon, run};
use uimgacc_testkit::tar::{Entry, Kind, TarBuilder};
use uimgacc_testkit::uml::{self, Kernel};
use uimgacc_testkit::{Need, Registry, programs};

/// No test here takes longer.
const DEADLINE: Duration = Duration::from_secs(300);
/// Length of the image's large files.
pub(crate) const LARGE_BYTES: usize = 3_000_000;
const IMAGE: &str = "/tmp/image";

/// Runs the test `name` in a kernel.
pub(crate) fn inside(kernel: Kernel, name: &str, body: impl FnOnce()) {
    if uimgacc_testkit::ready(&[Need::Root, Need::Parts, Need::Uml]) {
        uml::inside(kernel, name, DEADLINE, body);
    }
}

fn large(seed: u32) -> Vec<u8> {
    (0..u32::try_from(LARGE_BYTES).unwrap())
        .map(|at| (at ^ seed).wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

/// Two layers with all kinds of files, none of them in both.
fn layers() -> [Vec<u8>; 2] {
    let second = TarBuilder::new()
        .dir("data", 0o750)
        .file("data/large", 0o644, large(1))
        .file("data/other", 0o600, large(2))
        .symlink("data/link", "large")
        .hard_link("data/hard", "data/large")
        .entry(
            &Entry::new("data/null", Kind::CharDevice)
                .mode(0o666)
                .device(1, 3),
        )
        .entry(
            &Entry::new("data/id", Kind::File)
                .mode(0o4755)
                .owner(0, 0)
                .content(fs::read("/usr/bin/id").unwrap()),
        )
        .file("data/small", 0o644, "small\n");
    [busybox_layer(), second.finish()]
}

/// The server with a store on it that has one image, made over an ordinary mount which is gone again.
pub(crate) struct NfsFixture {
    pub(crate) server: NfsServer,
    pub(crate) registry: Registry,
}

impl NfsFixture {
    pub(crate) fn new() -> Self {
        let server = NfsServer::start();
        let registry = Registry::start();
        let layers = layers();
        layers
            .iter()
            .fold(ImageBuilder::new(), |image, tar| {
                image.layer(tar.clone(), Compression::Gzip)
            })
            .cmd(&["/bin/busybox", "cat", "/data/small"])
            .push(&registry, "app:1");
        fs::create_dir_all(IMAGE).unwrap();
        for (number, tar) in layers.iter().enumerate() {
            let path = format!("/tmp/{number}.tar");
            fs::write(&path, tar).unwrap();
            run(Command::new("tar").args([
                "--delay-directory-restore",
                "-xpf",
                &path,
                "-C",
                IMAGE,
            ]));
        }
        let fixture = Self { server, registry };
        let store = Path::new("/tmp/store");
        fixture.server.mount("4.2", store);
        fixture.create(store);
        run(Command::new("umount").arg(store));
        fixture
    }

    fn create(&self, store: &Path) {
        let uimgacc =
            |arguments: &[&str]| run(programs::uimgacc(arguments).env("UIMGACC_STORE", store));
        // The daemons mount it read-only.
        uimgacc(&["store", "init", "--unleased-readers"]);
        let reference = |name| self.registry.reference(name);
        uimgacc(&[
            "create",
            &reference("app:1"),
            &reference("app:fast"),
            "--plain-http",
        ]);
    }

    /// The image as `tar` unpacks it.
    pub(crate) fn expected(&self) -> &Path {
        Path::new(IMAGE)
    }
}

/// A node: the daemon and a containerd.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd,
}

impl Node {
    /// Starts one whose file says `config`, in a new folder.
    pub(crate) fn start(name: &str, config: &str) -> Self {
        let folder = PathBuf::from("/tmp").join(name);
        // The kernel mounts no EROFS from a tmpfs.
        uml::make_disk(&folder, 256 << 20);
        configure(&folder, config);
        let daemon = start_daemon(&folder);
        let containerd = Containerd::start(
            ContainerdVersion::V2_1,
            &Options::proxy(&folder.join("snapshotter.sock")),
        );
        Self {
            folder,
            daemon,
            containerd,
        }
    }

    pub(crate) fn configure(&self, config: &str) {
        configure(&self.folder, config);
    }

    pub(crate) fn reload(&self) {
        run(Command::new("kill")
            .arg("-HUP")
            .arg(self.daemon.pid().to_string()));
    }

    pub(crate) fn kill_and_restart(&mut self) {
        self.daemon.kill();
        self.daemon = start_daemon(&self.folder);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("snapshotter.log")).unwrap()
    }

    pub(crate) fn pull(&self, fixture: &NfsFixture, name: &str) -> Output {
        self.containerd.trust(&fixture.registry);
        self.containerd.pull(&fixture.registry.reference(name))
    }

    /// Mounts the image's file system with a layer of its own on top, as a container's.
    pub(crate) fn mount(&self, fixture: &NfsFixture, name: &str) -> PathBuf {
        let target = self.folder.join("root");
        fs::create_dir_all(&target).unwrap();
        let reference = fixture.registry.reference(name);
        let path = target.to_str().unwrap();
        self.containerd.ctr_ok(&[
            "images",
            "mount",
            "--rw",
            "--snapshotter",
            "uimgacc",
            &reference,
            path,
        ]);
        target
    }

    /// Files of layers and containers on the node's own disk.
    pub(crate) fn files_unpacked(&self) -> usize {
        let list = run(Command::new("find")
            .arg(self.folder.join("node/snapshots"))
            .args(["-type", "f"]));
        String::from_utf8_lossy(&list.stdout).lines().count()
    }
}

fn configure(folder: &Path, config: &str) {
    let paths = format!(
        "root = {:?}\naddress = {:?}\n",
        folder.join("node"),
        folder.join("snapshotter.sock")
    );
    fs::write(folder.join("config.toml"), paths + config).unwrap();
}

fn start_daemon(folder: &Path) -> Daemon {
    let program = programs::program("uimgacc-snapshotter");
    let mut daemon = Daemon::spawn(
        "uimgacc-snapshotter",
        Command::new(program)
            .arg("--config")
            .arg(folder.join("config.toml")),
        &folder.join("snapshotter.log"),
    );
    let socket = folder.join("snapshotter.sock");
    let up = daemon.wait_ready(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
    assert!(up, "{}", daemon.log_tail());
    daemon
}

/// The export as a source.
pub(crate) fn source(servers: &str, version: &str) -> String {
    let path = nfs_server::path(version);
    format!("store = \"nfs://{servers}{path}?vers={version}\"\n")
}

/// NFS mounts that the host can see.
pub(crate) fn visible() -> Vec<String> {
    let tables = ["/proc/mounts", "/proc/self/mountinfo", "/proc/1/mountinfo"];
    tables
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(table).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| line.split(' ').any(|word| word == "nfs" || word == "nfs4"))
        .collect()
}

/// Makes the next reads come from the server.
pub(crate) fn drop_caches() {
    uimgacc_testkit::page_cache::dropped(3);
}
