//! Our programs, as they were built beside these tests.

use std::path::PathBuf;

/// Those that people call.
pub const OURS: [&str; 3] = ["uimgacc", "uimgacc-snapshotter", "uimgacc-api"];

/// The folder they are in: `$UIMGACC_PROGRAMS`, else that of the build which this test is of.
#[must_use]
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("UIMGACC_PROGRAMS") {
        return folder.into();
    }
    let test = std::env::current_exe().unwrap_or_default();
    // The test lies in the folder's `deps`.
    test.ancestors()
        .nth(2)
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// One of them.
///
/// # Errors
/// What to do, where it is not there.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = folder().join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is not there: run `cargo build --workspace --bins` first",
        path.display()
    ))
}
