//! What the registry has sent, and the disks have read.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Unit of the block layer's statistics.
const SECTOR_BYTES: u64 = 512;

/// Bytes of the answers to GET in a registry's access log: `... "GET path HTTP/1.1" status bytes "..." "agent"`.
pub(super) fn sent_bytes(log: &str) -> u64 {
    log.lines()
        .filter_map(|line| line.split_once("\"GET ")?.1.split_once("\" "))
        .filter_map(|(_, rest)| rest.split(' ').nth(1)?.parse::<u64>().ok())
        .sum()
}

/// Bytes that all disks of the machine have read since boot. Loop devices, RAM disks and stacked devices are left out: what they read
/// is read from another one.
pub(super) fn disk_read_bytes() -> anyhow::Result<u64> {
    let folder = Path::new("/sys/block");
    let mut bytes = 0;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["sd", "vd", "xvd", "nvme", "mmcblk"]
            .iter()
            .any(|kind| name.starts_with(kind))
        {
            let stat = fs::read_to_string(entry.path().join("stat"))?;
            bytes += sectors_read(&stat).unwrap_or(0) * SECTOR_BYTES;
        }
    }
    Ok(bytes)
}

/// Field 3 of a disk's `stat` (kernel: `Documentation/block/stat.rst`).
fn sectors_read(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(2)?.parse().ok()
}

/// Writes out what is dirty, and empties the caches of the whole machine.
pub(super) fn drop_caches() -> anyhow::Result<()> {
    Command::new("sync").status().context("cannot start sync")?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the caches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_get_are_counted() {
        let log = r#"time="2026-11-25T14:00:00Z" level=info msg="response completed" http.request.method=GET
172.31.0.2 - - [25/Nov/2026:14:00:00 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "containerd/2.1.9"
172.31.0.2 - - [25/Nov/2026:14:00:00 +0000] "HEAD /v2/ml/manifests/1 HTTP/1.1" 200 900 "" "containerd/2.1.9"
172.31.0.2 - - [25/Nov/2026:14:00:00 +0000] "GET /v2/ml/blobs/sha256:00 HTTP/1.1" 200 1000 "" "containerd/2.1.9"
"#;
        assert_eq!(sent_bytes(log), 1002);
    }

    #[test]
    fn a_disk_tells_its_sectors() {
        assert_eq!(sectors_read("  10 2 384 5 0 0 0\n"), Some(384));
        assert_eq!(sectors_read(""), None);
    }
}
