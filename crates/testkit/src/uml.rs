//! Another kernel, as a process: user-mode Linux with this machine's files under it.
//!
//! The kernels come from `scripts/parts-uml.sh`. One boots in a second to a root that is an overlay
//! of this machine's own files (read-only, by hostfs) and a tmpfs, so every program and test is
//! there under its own path, and whatever is written is gone afterwards. There is no network but a
//! loopback of its own.
//!
//! A test runs itself again in there, see [`inside`]. The kernel ends with the program, or with
//! the guard, or at the deadline, whichever comes first.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::parts;
use crate::process::run;

/// Set to the name of the kernel for what runs inside of one.
const INSIDE: &str = "UIMGACC_UML";

/// A kernel of `scripts/parts-uml.sh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Of Debian 12: EROFS on block devices only.
    V6_1,
    /// Of Debian 13: EROFS on files.
    V6_12,
    /// Of Debian forky: EROFS on files, past their page cache.
    V7_2,
}

impl Kernel {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    /// Major and minor version.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    fn folder(self) -> PathBuf {
        parts::uml_dir().join("kernels").join(self.name())
    }
}

/// Whether this process runs in such a kernel.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the body of the test `name` (as its binary's `--list` has it) in a kernel.
///
/// The test calls this and nothing else: in the machine it boots the kernel and runs its own binary there for this one test, which
/// comes here again and runs `body`. Output is passed on as it comes.
///
/// # Panics
/// Where the body does, or the deadline passes.
pub fn inside(kernel: Kernel, name: &str, deadline: Duration, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == kernel.name()) {
        return body();
    }
    let program = std::env::current_exe().expect("the path of this test");
    let mut uml = Uml::boot(
        kernel,
        &[
            program.to_str().expect("a path in UTF-8"),
            name,
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ],
    );
    let ended = uml.wait(deadline);
    assert!(
        ended.status == Some(0),
        "{name} in Linux {}: {}",
        kernel.name(),
        match ended.status {
            Some(status) => format!("ended with status {status}"),
            None => format!("not done in {deadline:?}, or the kernel ended before it"),
        }
    );
    // A misspelt name would be no test at all.
    assert!(
        ended.lines.iter().any(|line| line.contains("1 passed")),
        "{name} is no test of this binary"
    );
}

/// Mounts a new ext4 at a folder, which it makes: a disk, where the root's overlay and tmpfs will not do.
///
/// # Panics
/// Outside of a kernel of ours, and where a part of it fails.
pub fn make_disk(target: &Path, bytes: u64) {
    assert!(
        is_inside(),
        "a disk is only made in a kernel that goes away with it"
    );
    fs::create_dir_all(target).expect("a folder");
    let image = tempfile::NamedTempFile::new().expect("an image");
    image.as_file().set_len(bytes).expect("an image");
    run(Command::new("modprobe").arg("loop"));
    run(Command::new("mkfs.ext4").arg("-q").arg(image.path()));
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(image.path())
        .arg(target));
}

/// What a program in a kernel came to.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` where it did not end by itself.
    pub status: Option<i32>,
    /// Its output and the kernel's messages.
    pub lines: Vec<String>,
}

/// A running kernel. On drop it is killed with all that runs in it.
#[derive(Debug)]
pub struct Uml {
    child: Child,
    lines: mpsc::Receiver<String>,
    folder: TempDir,
}

impl Uml {
    /// Boots a kernel that runs a program, with this process's environment, and then ends.
    ///
    /// # Panics
    /// Where the kernel cannot be started.
    #[must_use]
    pub fn boot(kernel: Kernel, program: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("uimgacc-uml-")
            .tempdir()
            .expect("a temporary folder");
        let init = folder.path().join("init");
        fs::write(&init, script(kernel, folder.path(), program)).expect("a script");
        fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a script");
        let mut command = Command::new("./linux");
        command
            .current_dir(kernel.folder())
            .env("LD_LIBRARY_PATH", ".")
            // Its memory is a file, best one in memory.
            .env("TMPDIR", memory_folder())
            .args(["mem=1536M", "root=/dev/root", "rootfstype=hostfs"])
            .args(["rootflags=/", "ro", "quiet", "con=null", "con0=null,fd:1"])
            .arg(format!("init={}", init.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        // Ends with the kernel.
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            folder,
        }
    }

    /// Passes its output on until it ends, or kills it at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Ended {
        let end = Instant::now() + deadline;
        let mut lines = Vec::new();
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line) => {
                    eprintln!("uml| {line}");
                    lines.push(line);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.kill();
        let status = fs::read_to_string(self.folder.path().join("status"));
        Ended {
            status: status.ok().and_then(|status| status.trim().parse().ok()),
            lines,
        }
    }

    fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // The child is not reaped yet, so the group is its own.
            let _sent = kill_process_group(group, Signal::KILL);
        }
        let _status = self.child.wait();
    }
}

impl Drop for Uml {
    fn drop(&mut self) {
        self.kill();
    }
}

fn memory_folder() -> &'static str {
    if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    }
}

/// The first process: makes the root and runs the program in it.
fn script(kernel: Kernel, folder: &Path, program: &[&str]) -> String {
    let program: Vec<String> = program.iter().map(|word| quoted(word)).collect();
    let variables = std::env::vars().filter(|(name, _)| {
        name.starts_with("UIMGACC_") || matches!(name.as_str(), "PATH" | "HOME" | "RUST_BACKTRACE")
    });
    let variables: Vec<String> = variables
        .map(|(name, value)| format!("export {name}={}\n", quoted(&value)))
        .collect();
    format!(
        r#"#!/bin/sh
{variables}export {INSIDE}={kernel} TMPDIR=/tmp
PATH="${{PATH:-/bin}}:/usr/sbin:/usr/bin:/sbin:/bin"
mount -t proc proc /proc
mount -t tmpfs -o size=75% tmpfs /mnt
modules={modules}
# modprobe looks below a lib/modules.
mkdir -p /mnt/modules/lib /mnt/upper /mnt/work /mnt/root
ln -s "$modules" /mnt/modules/lib/modules
modprobe -d /mnt/modules overlay
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mkdir -p dev/pts dev/shm lib/modules
mount -t devpts devpts dev/pts
mount -t cgroup2 cgroup2 sys/fs/cgroup
ln -s "$modules/$(uname -r)" "lib/modules/$(uname -r)"
# Not this machine's /tmp and /run, but for the folders that the program may need.
for name in run tmp; do
  mount -t tmpfs -o mode=1777 tmpfs $name
done
for shared in {shared}; do
  mkdir -p "./$shared"
  mount -t hostfs -o "$shared" none "./$shared"
done
mkdir -p ./{folder}
mount -t hostfs -o {folder} none ./{folder}
ip link set lo up
umount /proc
chroot . {program} </dev/null
echo $? >./{folder}/status
sync
echo o >proc/sysrq-trigger
sleep 10
"#,
        variables = variables.concat(),
        kernel = kernel.name(),
        modules = quoted(
            parts::uml_dir()
                .join("modules")
                .to_str()
                .expect("a path in UTF-8")
        ),
        shared = shared().join(" "),
        folder = quoted(folder.to_str().expect("a path in UTF-8")),
        program = program.join(" "),
    )
}

/// Folders below `/tmp` and `/run` that hold the programs.
fn shared() -> Vec<String> {
    let program = std::env::current_exe().expect("the path of this test");
    let build = program.ancestors().nth(2).map(Path::to_owned);
    [build, Some(parts::dir())]
        .into_iter()
        .flatten()
        .filter(|path| path.starts_with("/tmp") || path.starts_with("/run"))
        .map(|path| quoted(path.to_str().expect("a path in UTF-8")))
        .collect()
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Need, ready};

    #[test]
    fn each_kernel_runs_a_program_on_a_root_of_its_own() {
        if !ready(&[Need::Root, Need::Uml]) {
            return;
        }
        let mark = format!("/var/tmp/uimgacc-uml-{}", std::process::id());
        for kernel in Kernel::ALL {
            let text = format!(
                "uname -r; echo 'a b' > {mark} && cat {mark}; modprobe -a erofs nfsd && ls -d /sys/module/nfsd; exit 3"
            );
            let started = Instant::now();
            let ended = Uml::boot(kernel, &["/bin/sh", "-c", &text]).wait(Duration::from_secs(30));
            println!("Linux {}: {:?}", kernel.name(), started.elapsed());
            assert_eq!(ended.status, Some(3), "{:?}", ended.lines);
            let has = |word: &str| ended.lines.iter().any(|line| line.starts_with(word));
            assert!(
                has(kernel.name()) && has("a b") && has("/sys/module/nfsd"),
                "{:?}",
                ended.lines
            );
            assert!(!Path::new(&mark).exists(), "it wrote to this machine");
        }
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_the_deadline() {
        if !ready(&[Need::Root, Need::Uml]) {
            return;
        }
        let started = Instant::now();
        let mut uml = Uml::boot(Kernel::V7_2, &["/bin/sleep", "1000"]);
        let ended = uml.wait(Duration::from_secs(4));
        assert_eq!(ended.status, None);
        assert!(started.elapsed() < Duration::from_secs(6));
    }
}
