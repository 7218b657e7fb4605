//! Kernel, file systems, space and clock.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use uimgacc_mount::Method;

use super::{Finding, Level};
use crate::settings::Settings;

/// Less free space than this for the daemon's data is a failure.
const SPACE_FAIL: u64 = 1 << 30;
/// And less than this worth a warning.
const SPACE_WARN: u64 = 10 << 30;
/// 2026-01-01: before that, this program was not there.
const EARLIEST: u64 = 1_767_225_600;

pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let method = best_method(kernel_version(release));
    let mut findings = vec![kernel(release, method)];
    findings.push(filesystem(
        release,
        "erofs",
        "the kernel cannot mount the store's images",
    ));
    findings.push(filesystem(
        release,
        "overlay",
        "containers cannot be started",
    ));
    if method == Some(Method::Loop) {
        findings.push(loop_devices(release));
    }
    if may_lack_directio_fix(release) {
        findings.push(Finding::new(
            "directio",
            Level::Warn,
            format!("Linux {release} may lack the fix of CVE-2026-23224, a use after free with file-directio"),
            "use a later kernel (6.18.14, 6.19.4, 7.0), or set methods = [\"file\", \"loop\"]",
        ));
    }
    findings.push(space(&settings.root));
    findings.push(clock());
    findings
}

/// Major and minor of a release such as `6.18.44-amd64`.
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or_default());
    (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    )
}

/// The best method that a kernel has, by its version alone.
fn best_method(version: (u32, u32)) -> Option<Method> {
    match version {
        (6, 15..) | (7.., _) => Some(Method::FileDirectio),
        (6, 12..) => Some(Method::File),
        (5, 16..) | (6, _) => Some(Method::Loop),
        _ => None,
    }
}

/// Whether a kernel has the mount method file-directio but, by its version, perhaps not the fix of
/// CVE-2026-23224 (upstream in February 2026). Distributions fix older ones too; that shows nowhere.
fn may_lack_directio_fix(release: &str) -> bool {
    let patch = release
        .split(|c: char| !c.is_ascii_digit())
        .nth(2)
        .and_then(|patch| patch.parse::<u32>().ok());
    match (kernel_version(release), patch.unwrap_or_default()) {
        ((6, 15..=17), _) => true,
        ((6, 18), patch) => patch < 14,
        ((6, 19), patch) => patch < 4,
        _ => false,
    }
}

fn kernel(release: &str, method: Option<Method>) -> Finding {
    match method {
        Some(method) => Finding::ok("kernel", format!("Linux {release}, mounts by {method}")),
        None => Finding::new(
            "kernel",
            Level::Fail,
            format!("Linux {release} cannot mount images with several devices"),
            "use Linux 5.16 or later, best 6.15",
        ),
    }
}

/// Whether a file system is in the kernel, or can be loaded.
fn filesystem(release: &str, name: &'static str, harm: &str) -> Finding {
    let id = if name == "erofs" { "erofs" } else { "overlay" };
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.split_whitespace().any(|word| word == name) {
        return Finding::ok(id, format!("{name} is there"));
    }
    if is_loadable(Path::new("/lib/modules"), release, name) {
        return Finding::ok(
            id,
            format!("{name} is a module and loaded when it is needed"),
        );
    }
    let what = format!("{name} is neither in Linux {release} nor a module of it: {harm}");
    let mend =
        "install the kernel's modules (on some systems linux-modules-extra), or another kernel";
    Finding::new(id, Level::Fail, what, mend)
}

fn loop_devices(release: &str) -> Finding {
    if Path::new("/dev/loop-control").exists()
        || is_loadable(Path::new("/lib/modules"), release, "loop")
    {
        return Finding::ok("loop", "loop devices are there");
    }
    let what = "loop devices are not there, and this kernel mounts by them";
    Finding::new(
        "loop",
        Level::Fail,
        what,
        "run `modprobe loop`, or use Linux 6.12 or later",
    )
}

/// Whether a kernel's folder lists a module, built in or not.
fn is_loadable(modules: &Path, release: &str, name: &str) -> bool {
    let folder = modules.join(release);
    let file = format!("/{name}.ko");
    ["modules.builtin", "modules.dep"].iter().any(|list| {
        let text = fs::read_to_string(folder.join(list)).unwrap_or_default();
        text.lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            // Modules may be compressed: erofs.ko.zst.
            path.find(&file)
                .is_some_and(|start| !path[start + 1..].contains('/'))
        })
    })
}

fn space(root: &Path) -> Finding {
    const ID: &str = "space";
    let Some(there) = root.ancestors().find(|folder| folder.exists()) else {
        let what = format!("{} has no folder above it", root.display());
        return Finding::new(ID, Level::Fail, what, "name an absolute path");
    };
    match rustix::fs::statvfs(there) {
        Err(error) => {
            let what = format!("cannot look at {}: {error}", there.display());
            Finding::new(ID, Level::Fail, what, "mend that disk")
        }
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let what = format!("{} MiB free for {}", free >> 20, root.display());
            let mend = "free some space, or put --root on another local disk";
            if free < SPACE_FAIL {
                Finding::new(ID, Level::Fail, what, mend)
            } else if free < SPACE_WARN {
                Finding::new(ID, Level::Warn, what, mend)
            } else {
                Finding::ok(ID, what)
            }
        }
    }
}

/// A clock that is far off makes every certificate invalid.
fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map(|since| since.as_secs()).unwrap_or_default();
    if now < EARLIEST {
        let what =
            "the clock stands before the year 2026: certificates of registries will not be valid";
        return Finding::new("clock", Level::Fail, what, "set the clock, best by NTP");
    }
    Finding::ok("clock", "plausible")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_by_kernel() {
        for (release, method) in [
            ("5.10.0-28-amd64", None),
            ("5.15.0-1053-aws", None),
            ("5.16.1", Some(Method::Loop)),
            ("6.8.0-31-generic", Some(Method::Loop)),
            ("6.12", Some(Method::File)),
            ("6.18.44", Some(Method::FileDirectio)),
            ("7.2.0-rc1", Some(Method::FileDirectio)),
            ("", None),
        ] {
            assert_eq!(best_method(kernel_version(release)), method, "{release}");
        }
    }

    #[test]
    fn kernels_that_may_lack_a_fix() {
        for (release, may_lack) in [
            ("6.12.9-amd64", false),
            ("6.15.0", true),
            ("6.17.13-generic", true),
            ("6.18", true),
            ("6.18.9-amd64", true),
            ("6.18.44-fc", false),
            ("6.19.3", true),
            ("6.19.4", false),
            ("7.0.0-rc1", false),
        ] {
            assert_eq!(may_lack_directio_fix(release), may_lack, "{release}");
        }
    }

    #[test]
    fn modules_in_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("6.1.0");
        fs::create_dir(&folder).unwrap();
        let dep = "kernel/fs/erofs/erofs.ko.xz: kernel/lib/crc.ko\nkernel/fs/not/xoverlay.ko:\n";
        fs::write(folder.join("modules.dep"), dep).unwrap();
        fs::write(
            folder.join("modules.builtin"),
            "kernel/drivers/block/loop.ko\n",
        )
        .unwrap();
        for (name, is_there) in [
            ("erofs", true),
            ("loop", true),
            ("overlay", false),
            ("crc", false),
        ] {
            assert_eq!(is_loadable(dir.path(), "6.1.0", name), is_there, "{name}");
        }
        assert!(!is_loadable(dir.path(), "6.2.0", "erofs"));
    }
}
