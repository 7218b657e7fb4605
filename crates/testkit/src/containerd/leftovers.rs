//! What a containerd leaves behind when it goes: shims, containers, mounts, cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// Kills the shims that were started with this socket, and all that runs below them, and waits until they are gone.
pub(super) fn kill_shims(socket: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let processes = processes();
        let shims: Vec<i32> = processes
            .iter()
            .filter(|p| is_shim_of(p.pid, socket))
            .map(|p| p.pid)
            .collect();
        if shims.is_empty() {
            return;
        }
        let below = descendants(&processes, &shims);
        // First the containers: their shim is alive then and reaps them.
        for pid in below.iter().chain(&shims) {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _sent = kill_process(pid, Signal::KILL);
            }
        }
        if Instant::now() > deadline {
            eprintln!("shims {shims:?} do not end");
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

struct Process {
    pid: i32,
    parent: i32,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name in brackets, which may hold anything: state, parent.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        (state != "Z").then_some(Process { pid, parent })
    })
    .collect()
}

fn is_shim_of(pid: i32, socket: &Path) -> bool {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = cmdline
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    words
        .first()
        .is_some_and(|program| program.contains("containerd-shim"))
        && words
            .windows(2)
            .any(|pair| pair[0] == "-address" && Path::new(&pair[1]) == socket)
}

fn descendants(processes: &[Process], roots: &[i32]) -> Vec<i32> {
    let mut found: Vec<i32> = Vec::new();
    let mut wave = roots.to_vec();
    while !wave.is_empty() {
        wave = processes
            .iter()
            .filter(|p| wave.contains(&p.parent))
            .map(|p| p.pid)
            .collect();
        found.extend(&wave);
    }
    found
}

/// Unmounts all that is mounted below `dir`, last mount first.
pub(super) fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // proc_pid_mountinfo(5): field 5 is the mount point.
    let points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect();
    for point in points.iter().rev().filter(|point| point.starts_with(dir)) {
        let _unmounted = unmount(point, UnmountFlags::DETACH);
    }
}

/// Removes the empty folders that runc and the cgroups keep for a namespace.
pub(super) fn remove_namespace(namespace: &str) {
    let _removed = fs::remove_dir_all(Path::new("/run/containerd/runc").join(namespace));
    let mut groups = vec![Path::new("/sys/fs/cgroup").join(namespace)];
    groups.extend(
        fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join(namespace)),
    );
    for group in groups.iter().filter(|group| group.is_dir()) {
        for container in fs::read_dir(group)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
        {
            let _removed = fs::remove_dir(container.path());
        }
        let _removed = fs::remove_dir(group);
    }
}
