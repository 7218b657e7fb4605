//! What identifies this machine, its boot and the time.
#![expect(
    clippy::disallowed_methods,
    reason = "files of this machine, not of a store"
)]

use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The host name, `unknown` where the system has none.
pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The id of this boot, empty where the system tells none.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Identifies this machine, `None` where it has no `/etc/machine-id`. The id itself must not be
/// shown to others (machine-id(5)), so this is a hash of it.
pub(crate) fn machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    hashed_id(&text)
}

/// Like [`machine_id`]; where there is none, a random id that is kept in `file`.
pub(crate) fn machine_id_or(file: &Path) -> Option<String> {
    machine_id().or_else(|| kept_id(file))
}

fn hashed_id(text: &str) -> Option<String> {
    let id = text.trim();
    if id.len() != 32 || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        // Empty or `uninitialized`, as in images of machines.
        return None;
    }
    let hash = blake3::derive_key("uimgacc lease machine id", id.as_bytes());
    Some(
        hash.iter()
            .take(16)
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")),
    )
}

fn kept_id(file: &Path) -> Option<String> {
    let read = || hashed_id(&std::fs::read_to_string(file).ok()?);
    if let Some(id) = read() {
        return Some(id);
    }
    let new = file.with_extension("new");
    let written = std::fs::File::create(&new).and_then(|mut out| {
        out.write_all(random_id()?.as_bytes())?;
        out.sync_all()?;
        std::fs::rename(&new, file)
    });
    // Without an id the lease holds until it is taken away.
    written.ok().and_then(|()| read())
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs())
}

/// Now as RFC 3339, in UTC and whole seconds: such texts sort as their times do.
#[must_use]
pub fn rfc3339_now() -> String {
    rfc3339(SystemTime::now())
}

/// A time in the same form.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from(time)
        .replace_nanosecond(0)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// 32 random hex digits.
pub(crate) fn random_id() -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(text.trim().replace('-', ""))
}

/// Names the pid namespace of this process, empty where the system tells none.
pub(crate) fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid")
        .map(|target| target.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// When a process started, in clock ticks since boot; tells a reused pid apart (proc(5), stat 22).
pub(crate) fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in brackets, may hold anything: count from its end.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_and_only_real_ones_count() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine-id");
        let id = kept_id(&file).unwrap();
        assert_eq!((id.len(), kept_id(&file)), (32, Some(id.clone())));
        assert_ne!(kept_id(&folder.path().join("other")), Some(id));
        for text in ["", "uninitialized\n", "0123"] {
            assert_eq!(hashed_id(text), None);
        }
        let text = "0123456789abcdef0123456789abcdef";
        let hashed = hashed_id(text).unwrap();
        assert!(hashed != text && hashed_id(&format!("{text}\n")) == Some(hashed));
    }
}
