//! A machine with Debian's containerd, the packages to install on it, and a registry with an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use uimgacc_testkit::image::busybox;
use uimgacc_testkit::machine::Machine;
use uimgacc_testkit::process::run;
use uimgacc_testkit::{Need, Registry, ready};

/// The version that is installed first.
pub(crate) const FIRST: &str = "0.1.0-1";
/// The one that it is upgraded to.
pub(crate) const SECOND: &str = "0.1.1-1";

const CONFIG: &str = "/etc/containerd/config.toml";

/// What changes by itself: logs, caches, the package manager's own records, what containerd keeps.
const VOLATILE: &str = "-path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /srv -o -path /var/log/journal \
    -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/lib/containerd -o -path /var/lib/systemd/random-seed \
    -o -path /var/lib/systemd/timers -o -path /var/log/dpkg.log -o -path /var/log/alternatives.log -o -path /root";

/// Both packages, built once. The image of the tests is of the same programs, so most is built already.
fn debs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debs");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/deb.sh");
        for version in [FIRST, SECOND] {
            let mut deb = Command::new(&script);
            deb.args(["--profile", "dev", "--version", version]);
            run(deb.arg(&folder));
        }
        folder
    })
}

/// The machine.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) registry: Registry,
    /// containerd's configuration before anything.
    pub(crate) config: Vec<u8>,
    /// All files before anything.
    files: String,
}

impl Node {
    /// Boots it; `None` where that is not possible here.
    pub(crate) fn boot(release: &str) -> Option<Self> {
        let needs = [
            Need::Root,
            Need::Parts,
            Need::Filesystem("overlay"),
            Need::Filesystem("erofs"),
            Need::Filesystem("cgroup2"),
        ];
        if !ready(&needs) {
            return None;
        }
        let debs = debs();
        let machine = Machine::boot(release, &["containerd", "runc", "ca-certificates"]);
        machine.ok("systemctl is-active containerd");
        let target = machine.root().join("srv");
        for deb in fs::read_dir(debs).unwrap() {
            let deb = deb.unwrap();
            fs::copy(deb.path(), target.join(deb.file_name())).unwrap();
        }
        let config = fs::read(machine.root().join(&CONFIG[1..])).unwrap();
        let mut node = Self {
            machine,
            registry: Registry::start(),
            config,
            files: String::new(),
        };
        node.files = node.all_files();
        Some(node)
    }

    pub(crate) fn ok(&self, script: &str) -> String {
        self.machine.ok(script)
    }

    /// Installs this version as apt would.
    pub(crate) fn install(&self, version: &str) {
        self.ok(&format!("dpkg --install /srv/uimgacc_{version}_*.deb"));
        let installed =
            self.ok("dpkg-query --show --showformat '${db:Status-Abbrev}${Version}' uimgacc");
        assert_eq!(installed, format!("ii {version}"));
    }

    /// What dpkg does must fail; returns all that was said.
    pub(crate) fn refused(&self, script: &str) -> String {
        let output = self.machine.run(script);
        assert!(!output.status.success(), "{script}: {}", said(&output));
        said(&output)
    }

    /// A property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.ok(&format!(
            "systemctl show --value --property={property} {unit}"
        ))
    }

    /// The main process of a service that must be active.
    pub(crate) fn pid(&self, unit: &str) -> String {
        assert_eq!(self.show(unit, "ActiveState"), "active", "{unit}");
        self.show(unit, "MainPID")
    }

    pub(crate) fn config_now(&self) -> Option<Vec<u8>> {
        fs::read(self.machine.root().join(&CONFIG[1..])).ok()
    }

    /// Makes a store and an accelerated image in it, and sets the node up; returns the image's name.
    pub(crate) fn set_up(&self) -> String {
        let original = busybox().push(&self.registry, "demo:1").reference;
        let target = self.registry.reference("demo:fast");
        self.ok("uimgacc store init --store /srv/store");
        self.ok(&format!(
            "uimgacc create --store /srv/store --plain-http {original} {target}"
        ));
        self.ok("uimgacc node install --store /srv/store");
        target
    }

    /// Runs a container. No share of the CPU: where the host has that controller in cgroups of version 1, the machine has none.
    pub(crate) fn run(&self, options: &str, image: &str, command: &str) {
        self.ok(&format!(
            "ctr run --cpu-shares 0 --snapshotter uimgacc {options} {image} {command}"
        ));
    }

    /// Starts a container on the accelerated image; returns its process.
    pub(crate) fn start_container(&self, image: &str) -> String {
        self.ok(&format!(
            "ctr images pull --snapshotter uimgacc --plain-http {image} >/dev/null"
        ));
        self.run("--detach", image, "demo");
        self.container()
    }

    /// The process of the container, which must run and read its files.
    pub(crate) fn container(&self) -> String {
        let task = self.ok("ctr tasks list | grep ^demo");
        let words: Vec<&str> = task.split_whitespace().collect();
        let [_, pid, "RUNNING"] = words[..] else {
            panic!("{task}")
        };
        // `ctr` loses what a process says right before its end.
        let read = "/bin/busybox sh -c 'cat /etc/passwd; sleep 0.5'";
        let user = self.ok(&format!("ctr tasks exec --exec-id look demo {read}"));
        assert!(user.starts_with("root:"), "{user}");
        pid.to_owned()
    }

    pub(crate) fn remove_container(&self, image: &str) {
        self.ok(&format!(
            "ctr tasks delete --force demo
             ctr containers delete demo
             ctr images rm --sync {image}"
        ));
    }

    /// Every file that something of ours could change: type, mode, owner, size and name, and what is in the configuration.
    fn all_files(&self) -> String {
        self.ok(&format!(
            "find / -xdev \\( {VOLATILE} \\) -prune -o -not -type d -printf '%y %m %U:%G %s %p %l\\n' -o -type d -printf 'd %m %U:%G %p\\n' |
               sort
             find /etc -type f -print0 | sort -z | xargs -0 md5sum"
        ))
    }

    /// Nothing is left of us.
    pub(crate) fn is_as_before(&self) {
        let now = self.all_files();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (before, now) = (lines(&self.files), lines(&now));
        let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
        let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "new: {new:#?}\ngone: {gone:#?}"
        );
        assert_eq!(self.ok("find /run -name '*uimgacc*'"), "");
        assert_eq!(self.ok("awk '$5 ~ /uimgacc/' /proc/self/mountinfo"), "");
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}
