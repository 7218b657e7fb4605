//! How much memory a conversion may use, and how much of it metadata may take.
//!
//! The bound is the smallest of what the cgroups of this process allow and what the machine has. A
//! part of it is for the rest of the work; of what is left, metadata is counted by its length and
//! costs a multiple of that, as measured.

use std::path::{Path, PathBuf};

/// The metadata of all layers of an image. Ten million files of usual names fit.
const MAX_METADATA_BYTES: u64 = 3 << 30;
/// What comes besides: threads, the registry, contents that come into the store's table.
const BASE_BYTES: u64 = 64 << 20;
/// Blob and buffers of a layer in flight.
const LAYER_BYTES: u64 = 8 << 20;
/// How much memory a byte of the budget takes at most: the tree of the layer and the flattened one. Real
/// runs took 2.0 with empty files and with directories of one file each; the rest is for the allocator.
const COST: u64 = 3;

/// What bounds the memory of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// How much it is.
    pub bytes: u64,
    /// The file of the kernel that it was read from.
    pub source: PathBuf,
    /// Whether it is a limit of a cgroup, which stays; else it is what the machine has free.
    pub is_limit: bool,
}

/// How much metadata may take. Pure but for [`allowance`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Bytes of the budget.
    pub(crate) metadata_bytes: u64,
    /// What makes it less than the most there ever is.
    pub(crate) bound: Option<Bound>,
}

impl Allowance {
    /// With that bound, `used` bytes in use already, and `jobs` layers in flight.
    fn of(bound: Option<Bound>, used: u64, jobs: usize) -> Self {
        let Some(bound) = bound else {
            return Self {
                metadata_bytes: MAX_METADATA_BYTES,
                bound: None,
            };
        };
        let layers = LAYER_BYTES.saturating_mul(u64::try_from(jobs).unwrap_or(u64::MAX));
        let rest = BASE_BYTES.saturating_add(layers).saturating_add(used);
        let left = bound.bytes.saturating_sub(rest) / COST;
        Self {
            metadata_bytes: left.min(MAX_METADATA_BYTES),
            bound: (left < MAX_METADATA_BYTES).then_some(bound),
        }
    }
}

/// What metadata may take now, with `jobs` layers in flight. Called once the store's table of contents
/// is in memory.
pub(crate) fn allowance(jobs: usize) -> Allowance {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let used = read(Path::new("/proc/self/status")).and_then(|text| field(&text, "VmRSS:"));
    let used = used.unwrap_or_default();
    Allowance::of(bound(&read, used), used, jobs)
}

/// What bounds the memory of this process, of which `used` bytes are in use; `None` where nothing can
/// be read. `read` reads files.
fn bound(read: &dyn Fn(&Path) -> Option<String>, used: u64) -> Option<Bound> {
    let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let of_cgroups = limit_files(&own, &mounts).into_iter().filter_map(|source| {
        let bytes = limit(&read(&source)?)?;
        Some(Bound {
            bytes,
            source,
            is_limit: true,
        })
    });
    let source = PathBuf::from("/proc/meminfo");
    let of_machine = read(&source).and_then(|text| machine(&text));
    let of_machine = of_machine.map(|bytes| Bound {
        bytes: bytes.saturating_add(used),
        source,
        is_limit: false,
    });
    of_cgroups.chain(of_machine).min_by_key(|bound| bound.bytes)
}

/// The files with limits of a process, from its own cgroup up to the root of what it sees.
fn limit_files(own: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        // `0::/path` is version 2, `9:memory:/path` version 1.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_unified = number == "0" && controllers.is_empty();
        let (kind, name) = if is_unified {
            ("cgroup2", "memory.max")
        } else if controllers.split(',').any(|one| one == "memory") {
            ("cgroup", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for (root, point) in cgroup_mounts(mounts, kind) {
            // In a container without a cgroup namespace the mount shows a part of the hierarchy.
            for above in Path::new(inside(path, root)).ancestors() {
                files.push(Path::new(point).join(above).join(name));
            }
        }
    }
    files
}

/// That path as seen below a mount's root. What lies elsewhere, as in a container whose cgroup was
/// moved, is at least in the mount itself.
fn inside<'p>(path: &'p str, root: &str) -> &'p str {
    let rest = match root {
        "/" => path,
        _ => path.strip_prefix(root).unwrap_or_default(),
    };
    match rest.strip_prefix('/') {
        Some(rest) if !rest.split('/').any(|part| part == "..") => rest,
        _ => "",
    }
}

/// Root and mount point of each hierarchy of that kind which has the controller of memory.
fn cgroup_mounts<'m>(
    mounts: &'m str,
    kind: &'static str,
) -> impl Iterator<Item = (&'m str, &'m str)> {
    mounts.lines().filter_map(move |line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        // Type, source, options.
        let mut after = after.split(' ');
        let (found, options) = (after.next()?, after.nth(1).unwrap_or_default());
        let has_memory = kind == "cgroup2" || options.split(',').any(|one| one == "memory");
        let is_it = found == kind && has_memory;
        is_it.then_some((root, point))
    })
}

/// A limit; `max`, and the number that version 1 has for it, are none.
fn limit(text: &str) -> Option<u64> {
    let bytes: u64 = text.trim().parse().ok()?;
    (bytes < i64::MAX.unsigned_abs() & !0xf_ffff).then_some(bytes)
}

/// What the machine can still give without swap.
fn machine(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemAvailable:").or_else(|| field(meminfo, "MemTotal:"))
}

/// A field of `/proc`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests;
