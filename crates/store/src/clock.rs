//! The file server's clock.

use crate::layout::Layout;
use crate::machine;

/// The file server's clock: the time of a file made now. `None` where none can be made.
pub(crate) fn server_now(layout: &Layout) -> Option<std::time::SystemTime> {
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
