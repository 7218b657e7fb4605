//! The page cache of this machine, which all tests share: what one drops another may be about to look at.

use std::fs::{self, File};

/// The pages of the cache stay where they are, in all test programs, until the guard is dropped.
///
/// # Panics
/// Where the lock cannot be had.
#[must_use]
pub fn kept() -> File {
    let lock = lock();
    lock.lock_shared().expect("the lock of the page cache");
    lock
}

/// Drops pages (and with 3 also names) that are not dirty, once nobody needs them: proc_sys_vm(5).
///
/// # Panics
/// Where the kernel refuses that.
pub fn dropped(what: u8) {
    let lock = lock();
    lock.lock().expect("the lock of the page cache");
    fs::write("/proc/sys/vm/drop_caches", what.to_string()).expect("caches can be dropped");
}

fn lock() -> File {
    let path = std::env::temp_dir().join("uimgacc-page-cache.lock");
    let mut options = File::options();
    let opened = options.create(true).append(true).open(path);
    opened.expect("a file in the temporary directory")
}
