//! A cgroup of our own below that of the host's process 1, in every hierarchy: what lies in it does
//! not end with a Pod.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const NAME: &str = "uimgacc";

/// Moves this process, which must have the host's mounts and cgroup namespace, into our cgroup.
pub(super) fn leave() -> io::Result<()> {
    for group in of_init(Path::new("/"))? {
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A new cpuset of version 1 has neither processors nor memory, and takes nobody in.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if group.join("tasks").exists() && group.join(name).exists() {
                let parent = group.with_file_name(name);
                fs::write(group.join(name), fs::read(parent)?)?;
            }
        }
        fs::write(group.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// Removes our cgroups where they are empty.
pub(super) fn remove(host_root: &Path) {
    for group in of_init(host_root).unwrap_or_default() {
        // One with processes, or none at all, stays.
        let _ = fs::remove_dir(group);
    }
}

fn of_init(host_root: &Path) -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/1/mountinfo")?;
    let groups = fs::read_to_string("/proc/1/cgroup")?;
    let places = places(&mounts, &groups).into_iter();
    Ok(places
        .map(|place| {
            host_root
                .join(place.strip_prefix("/").unwrap_or(&place))
                .join(NAME)
        })
        .collect())
}

/// The folders of a process' cgroups, by its mount table and its `cgroup` file
/// (proc_pid_mountinfo(5), cgroups(7)).
fn places(mountinfo: &str, cgroup: &str) -> Vec<PathBuf> {
    cgroup
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            mountinfo
                .lines()
                .find_map(|mount| place(mount, controllers, Path::new(path)))
        })
        .collect()
}

fn place(mount: &str, controllers: &str, path: &Path) -> Option<PathBuf> {
    let (place, system) = mount.split_once(" - ")?;
    let mut fields = place.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut system = system.split(' ');
    let kind = system.next()?;
    let has: Vec<&str> = system.nth(1)?.split(',').collect();
    let is_it = if controllers.is_empty() {
        kind == "cgroup2"
    } else {
        kind == "cgroup" && controllers.split(',').all(|one| has.contains(&one))
    };
    let below = path.strip_prefix(root).ok()?;
    is_it.then(|| Path::new(point).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_alone() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            places(mounts, "0::/init.scope\n"),
            [PathBuf::from("/sys/fs/cgroup/init.scope")]
        );
    }

    #[test]
    fn version_1_and_both() {
        let mounts = "\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 /box /sys/fs/cgroup/pids rw shared:4 - cgroup cgroup rw,pids\n\
            33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "4:pids:/box/a\n3:cpu,cpuacct:/\n2:name=systemd:/x\n1:hugetlb:/\n0::/y\n";
        assert_eq!(
            places(mounts, groups),
            [
                "/sys/fs/cgroup/pids/a",
                "/sys/fs/cgroup/cpu,cpuacct/",
                "/sys/fs/cgroup/systemd/x",
                "/sys/fs/cgroup/unified/y"
            ]
            .map(PathBuf::from)
        );
    }
}
