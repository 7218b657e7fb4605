//! The cgroups that a node leaves: empty folders, in one hierarchy or one for each controller.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Removes a cgroup and all below it, by its path from the root of each hierarchy. Its processes have ended.
pub(super) fn remove(cgroup: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let mut places = vec![root.join(cgroup)];
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    places.extend(hierarchies.map(|entry| entry.path().join(cgroup)));
    for place in places.iter().filter(|place| place.is_dir()) {
        // The kernel lets go of a cgroup some time after its last process.
        for _attempt in 0..100 {
            remove_below(place);
            if !place.exists() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

fn remove_below(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove_below(&entry.path());
    }
    let _removed = fs::remove_dir(dir);
}
