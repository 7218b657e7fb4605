use std::collections::HashMap;

use super::*;

const GIB: u64 = 1 << 30;
const MEMINFO: &str = "MemTotal:       16384000 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n";
const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

fn found(files: &[(&str, &str)], used: u64) -> Option<(u64, String)> {
    let files: HashMap<&Path, &str> = files
        .iter()
        .map(|(path, text)| (Path::new(path), *text))
        .collect();
    let read = |path: &Path| files.get(path).map(|text| (*text).to_owned());
    let bound = bound(&read, used)?;
    Some((bound.bytes, bound.source.display().to_string()))
}

#[test]
fn the_smallest_limit_up_to_the_root_counts() {
    let path = |name: &str| format!("/sys/fs/cgroup/{name}");
    let files = [
        ("/proc/self/cgroup", "0::/kubepods/pod1/box\n"),
        ("/proc/self/mountinfo", V2),
        ("/proc/meminfo", MEMINFO),
    ];
    let limits = |own: &str, pod: &str, all: &str| {
        let limits = [
            ("/sys/fs/cgroup/kubepods/pod1/box/memory.max", own),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", pod),
            ("/sys/fs/cgroup/kubepods/memory.max", all),
        ];
        found(&[&files[..], &limits].concat(), 0)
    };
    let pod = path("kubepods/pod1/memory.max");
    for (own, of_pod, all, bytes, source) in [
        (
            "max\n",
            "max\n",
            "max\n",
            8 * GIB,
            "/proc/meminfo".to_owned(),
        ),
        (
            "max\n",
            "2147483648\n",
            "4294967296\n",
            2 * GIB,
            pod.clone(),
        ),
        (
            "1073741824\n",
            "2147483648\n",
            "max\n",
            GIB,
            path("kubepods/pod1/box/memory.max"),
        ),
        ("what\n", "2147483648\n", "", 2 * GIB, pod),
        (
            "99999999999\n",
            "max\n",
            "max\n",
            8 * GIB,
            "/proc/meminfo".to_owned(),
        ),
    ] {
        assert_eq!(
            limits(own, of_pod, all),
            Some((bytes, source)),
            "{own}{of_pod}{all}"
        );
    }
    // What this process has of the machine is its own as well.
    assert_eq!(found(&files, GIB).unwrap().0, 9 * GIB);
    assert_eq!(found(&[], 0), None);
}

#[test]
fn version_1_and_what_a_container_sees() {
    let v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
              32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
    let own = "9:memory:/a/b\n1:cpu:/a\n0::/\n";
    let file = |path: &str| format!("/sys/fs/cgroup/memory/{path}memory.limit_in_bytes");
    let files: Vec<_> = limit_files(own, v1)
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(files, [file("a/b/"), file("a/"), file("")]);
    // The mount shows what lies below the container's own cgroup, which is named from the root.
    let part = v1.replacen(" / ", " /a/b ", 1);
    assert_eq!(limit_files(own, &part), [PathBuf::from(file(""))]);
    let below = limit_files("9:memory:/a/b/c\n", &part);
    assert_eq!(below, [PathBuf::from(file("c/")), PathBuf::from(file(""))]);
    // A name that only begins like it is another cgroup; then at least the root is looked at.
    let other = limit_files("9:memory:/a/bc\n", &part);
    assert_eq!(other, [PathBuf::from(file(""))]);
    // A cgroup namespace whose process lies elsewhere.
    let outside = limit_files("9:memory:/../x\n", v1);
    assert_eq!(outside, [PathBuf::from(file(""))]);
    assert!(limit_files("no\n", "no\n").is_empty());

    // Version 1 has a number for none.
    assert_eq!(limit("9223372036854771712\n"), None);
    assert_eq!(limit("2147483648\n"), Some(2 * GIB));
    assert_eq!(limit("max\n"), None);
}

#[test]
fn budgets_of_bounds() {
    let of = |bytes: u64, used: u64| {
        let source = PathBuf::from("x");
        let is_limit = true;
        Allowance::of(
            Some(Bound {
                bytes,
                source,
                is_limit,
            }),
            used,
            3,
        )
    };
    let none = Allowance::of(None, 0, 3);
    assert_eq!(
        (none.metadata_bytes, none.bound),
        (MAX_METADATA_BYTES, None)
    );
    let much = of(64 * GIB, 0);
    assert_eq!(
        (much.metadata_bytes, much.bound),
        (MAX_METADATA_BYTES, None)
    );
    let job = of(2 * GIB, 200 << 20);
    assert!(job.bound.is_some());
    // The rest fits beside it.
    let whole = job.metadata_bytes * COST + BASE_BYTES + 3 * LAYER_BYTES + (200 << 20);
    assert!((2 * GIB - COST..=2 * GIB).contains(&whole), "{whole}");
    assert_eq!(of(10 << 20, 0).metadata_bytes, 0);
    assert_eq!(of(GIB, u64::MAX).metadata_bytes, 0);
}
