//! The store, which may hang: it is looked at by a thread that nobody waits for longer than allowed.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use uimgacc_store::{ReadError, StoreReader};
use uimgacc_types::with_causes;

use super::{Finding, Level};

/// By how much the clocks of node and store may differ.
const SKEW: Duration = Duration::from_secs(300);

pub(super) fn findings(store: &str, deadline: Duration) -> Vec<Finding> {
    if store.contains("://") {
        let what = format!("{store} is mounted by the snapshotter itself");
        return vec![Finding::ok("store", what)];
    }
    let (answer, answered) = mpsc::channel();
    let folder = PathBuf::from(store);
    std::thread::spawn(move || {
        // Nobody listens any more where it took too long.
        let _ = answer.send(look(&folder));
    });
    match answered.recv_timeout(deadline) {
        Ok(findings) => findings,
        Err(_) => {
            let what = format!("{store} does not answer within {} s", deadline.as_secs());
            let mend = "look at the mount and the network to its server (mount, ping, nfsstat); \
                 images are pulled from their registries meanwhile";
            vec![Finding::new("store", Level::Fail, what, mend)]
        }
    }
}

fn look(folder: &Path) -> Vec<Finding> {
    let name = folder.display();
    let store = match StoreReader::open(folder) {
        Ok(store) => store,
        Err(error) => {
            let mend = match &error {
                ReadError::NoStore { .. } if folder.is_dir() => {
                    "mount the store there, or make one (`uimgacc store init`)"
                }
                ReadError::NoStore { .. } => "make the folder and mount the store there",
                ReadError::TooNew { .. } => "upgrade uimgacc on this node",
                _ => "look at the mount, its options and its server",
            };
            return vec![Finding::new(
                "store",
                Level::Fail,
                with_causes(&error),
                mend,
            )];
        }
    };
    let mut findings = vec![Finding::ok(
        "store",
        format!("{name} is the store {}", store.store_id()),
    )];
    let changed = store.layout().store_json().facts();
    let ahead = changed.map(|file| file.modified.duration_since(SystemTime::now()));
    if let Ok(Ok(ahead)) = ahead
        && ahead > SKEW
    {
        let what = format!(
            "the store was made {} s in this node's future",
            ahead.as_secs()
        );
        let mend = "set the clocks of node and store, best by NTP";
        findings.push(Finding::new("store-clock", Level::Warn, what, mend));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_hangs_does_not_hang_the_check() {
        let dir = tempfile::tempdir().unwrap();
        if !uimgacc_testkit::ready(&[
            uimgacc_testkit::Need::Root,
            uimgacc_testkit::Need::Filesystem("fuse"),
        ]) {
            return;
        }
        let record = dir.path().join("store.json");
        std::fs::write(&record, "{}").unwrap();
        let hanging = uimgacc_testkit::hang::HangingFile::at(&record);
        let started = std::time::Instant::now();
        let found = findings(
            &dir.path().display().to_string(),
            Duration::from_millis(200),
        );
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(found[0].level, Level::Fail);
        assert!(found[0].what.contains("does not answer"), "{found:?}");
        drop(hanging);
    }

    #[test]
    fn what_a_folder_is() {
        let dir = tempfile::tempdir().unwrap();
        let look = || findings(&dir.path().display().to_string(), Duration::from_secs(5));
        assert_eq!(look()[0].level, Level::Fail);
        std::fs::write(dir.path().join("store.json"), "{").unwrap();
        assert!(look()[0].what.contains("damaged"), "{:?}", look());
        assert_eq!(
            findings("nfs://10.0.0.1/x", Duration::ZERO)[0].level,
            Level::Ok
        );
    }
}
