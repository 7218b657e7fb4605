//! A Debian of its own that boots its own systemd: a container as systemd wants one (<https://systemd.io/CONTAINER_INTERFACE>), with
//! namespaces of its own for all but the network and users, and a cgroup of its own.
//!
//! It shares the kernel and loopback with this machine, and can change neither's settings: `/sys` and `/proc/sys` are read-only. On drop
//! its first process is killed, so the kernel ends all others with it, and its mounts are gone with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::process::{Daemon, run};
use crate::{debian, parts};

/// How long a boot may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Enters the cgroup `$1` and boots the system in the folder `$2`.
const BOOT: &str = r#"
echo $$ > "$1/cgroup.procs"
exec unshare --mount --propagation private --pid --fork --uts --ipc --cgroup sh -e -c '
cd "$1"
mount --bind . .
cd "$1"
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
for device in null zero full random urandom tty fuse loop-control; do
  [ ! -e "/dev/$device" ] || cp -a "/dev/$device" dev/
done
for number in $(seq 0 63); do mknod "dev/loop$number" b 7 "$number"; done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
hostname machine
mkdir -p .host
pivot_root . .host
umount -l /.host
exec env -i container=uimgacc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
' boot "$2"
"#;

/// A machine that has booted.
#[derive(Debug)]
pub struct Machine {
    release: String,
    init: Daemon,
    cgroups: PathBuf,
    cgroup: PathBuf,
    dir: TempDir,
}

impl Machine {
    /// Boots a Debian of this release with these packages besides systemd.
    ///
    /// # Panics
    /// Where it does not come up; what systemd said is shown.
    #[must_use]
    pub fn boot(release: &str, packages: &[&str]) -> Self {
        let archive = debian::rootfs_of(release, &[&["systemd-sysv"], packages].concat());
        // On a disk, where overlays can lie.
        let dir = tempfile::Builder::new()
            .prefix(".machine-")
            .tempdir_in(parts::dir())
            .expect("a folder in the cache");
        let root = dir.path().join("root");
        let cgroups = dir.path().join("cgroups");
        for folder in [&root, &cgroups] {
            fs::create_dir(folder).expect("a new folder");
        }
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--numeric-owner", "--file"])
            .arg(archive);
        run(tar.arg("--directory").arg(&root));
        mount("cgroup2", &cgroups, "cgroup2", MountFlags::empty(), None)
            .expect("the hierarchy of cgroups, version 2, can be mounted");
        let name = dir.path().file_name().unwrap_or_default();
        let cgroup = cgroups.join(format!("uimgacc{}", name.to_string_lossy()));
        fs::create_dir(&cgroup).expect("a new cgroup");
        let mut boot = Command::new("sh");
        boot.args(["-e", "-c", BOOT, "boot"]).args([&cgroup, &root]);
        let init = Daemon::spawn("systemd", &mut boot, &dir.path().join("boot.log"));
        let mut machine = Self {
            release: release.to_owned(),
            init,
            cgroups,
            cgroup,
            dir,
        };
        machine.wait_booted();
        machine
    }

    fn wait_booted(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.run("systemctl is-system-running");
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            // Degraded: a service that wants hardware has failed.
            if ["running", "degraded"].contains(&state.trim()) {
                return;
            }
            assert!(
                Instant::now() < deadline && self.init.exit_status().is_none(),
                "{} does not boot: {state}\n{}",
                self.release,
                self.init.log_tail()
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// Its root folder as this machine sees it, without what is mounted there.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Runs a shell script in it, as root.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn run(&self, script: &str) -> Output {
        let mut enter = Command::new("nsenter");
        // The child of `unshare`; none yet at the very start.
        let first = self.init.children().first().copied().unwrap_or_default();
        enter.args([format!("--target={first}").as_str(), "--mount", "--pid"]);
        enter.args(["--uts", "--ipc", "--cgroup", "--root", "--wd"]);
        enter.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        enter.args(["HOME=/root", "LC_ALL=C.UTF-8", "sh", "-e", "-c", script]);
        enter
            .stdin(Stdio::null())
            .output()
            .expect("nsenter can be started")
    }

    /// Runs a shell script, which must succeed, and returns what it printed, without blanks at the ends.
    ///
    /// # Panics
    /// Where it fails; its output and the end of the journal are shown.
    pub fn ok(&self, script: &str) -> String {
        let output = self.run(script);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(
            output.status.success(),
            "{}: {script}: {}\n{text}\n{}\n--- journal\n{}",
            self.release,
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.journal()
        );
        text
    }

    /// The end of its journal.
    #[must_use]
    pub fn journal(&self) -> String {
        let output = self.run("journalctl --lines 40 --no-pager --output cat");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}: journal\n{}", self.release, self.journal());
        }
        for pid in self.init.children() {
            let pid = i32::try_from(pid).ok();
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _sent = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // It ends once its child has, and that once all others of the namespace have.
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.init.exit_status().is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        remove_cgroup(&self.cgroup);
        if let Err(error) = unmount(&self.cgroups, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.cgroups.display());
        }
    }
}

/// A cgroup is removed after those below it; the files in it go by themselves.
fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(cgroup) {
        eprintln!("cannot remove {}: {error}", cgroup.display());
    }
}
