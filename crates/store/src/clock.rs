//! The file server's clock.

use std::time::SystemTime;

use crate::layout::Layout;
use crate::machine;

/// The file server's clock: the time of a file made now. `None` where none can be made.
pub(crate) fn server_now(layout: &Layout) -> Option<SystemTime> {
    let path = layout
        .tmp()
        .join(format!("clock-{}", machine::random_id().ok()?));
    let time = path
        .create_new()
        .and_then(|file| file.metadata()?.modified())
        .ok();
    let _ = path.remove_file();
    time
}

/// Seconds since 1970 by the file server's clock, or by this machine's where no file can be made.
#[must_use]
pub fn server_time(layout: &Layout) -> u64 {
    let now = server_now(layout).unwrap_or_else(SystemTime::now);
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
